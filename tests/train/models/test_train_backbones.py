"""Backbones: published sizes and names, one interface, and networks against plain functions."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from train import TrainError
from train.models.c3d import C3D
from train.models.heads import ClassifierNet
from train.models.registry import make_backbone
from train.recipe import BACKBONES

FC_400 = 512 * 400 + 400


def clips(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 16, 112, 112, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def on_paper(name):
    with torch.device("meta"):
        return make_backbone(name)


def parameters(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("name", "published"),
    [("r3d-18", 33_371_472), ("r2plus1d-18", 31_505_325)],  # torchvision, with its 400 classes
)
def test_networks_of_18_layers_are_as_large_as_torchvisions(name, published):
    assert parameters(on_paper(name)) + FC_400 == published


@pytest.mark.parametrize(("name", "weights"), [("r3d", 14_356_032), ("c3d-bn8", 27_653_184)])
def test_convolutions_are_as_large_as_the_joint_releases(name, weights):
    assert sum(p.numel() for p in on_paper(name).parameters() if p.dim() == 5) == weights


def test_c3d_with_a_head_is_as_large_as_the_papers():
    with torch.device("meta"):
        net = ClassifierNet(101, backbone=C3D())
    assert round(parameters(net) / 1e6, 2) == 17.44


def middles(net):
    """Planes between space and time, in order."""
    spatial = [m for m in net.modules() if isinstance(m, torch.nn.Conv3d)]
    return [m.out_channels for m in spatial if m.kernel_size[0] == 1 and m.kernel_size[1] > 1]


def test_planes_between_space_and_time_are_those_of_each_source():
    # torchvision: one number for a block, and 45 in the stem.
    assert middles(on_paper("r2plus1d-18")) == [
        45, 144, 144, 144, 144, 230, 230, 288, 288, 460, 460, 576, 576, 921, 921, 1152, 1152,
    ]  # fmt: skip
    # The joint release: each convolution's own, and 83 in the stem.
    assert middles(on_paper("r2plus1d")) == [83, 144, 144, 230, 288, 460, 576, 921, 1152]


def shortcuts(net):
    """(weights' shape, stride) of each convolution in the shortcuts."""
    return [
        (tuple(m.weight.shape), m.stride)
        for name, m in net.named_modules()
        if "downsample" in name and isinstance(m, torch.nn.Conv3d)
    ]


def test_shortcuts_are_factored_in_the_joint_release_alone():
    assert shortcuts(on_paper("r2plus1d")) == [
        ((42, 64, 1, 1, 1), (1, 2, 2)), ((128, 42, 1, 1, 1), (2, 1, 1)),
        ((85, 128, 1, 1, 1), (1, 2, 2)), ((256, 85, 1, 1, 1), (2, 1, 1)),
        ((170, 256, 1, 1, 1), (1, 2, 2)), ((512, 170, 1, 1, 1), (2, 1, 1)),
    ]  # fmt: skip
    plain = [((2 * n, n, 1, 1, 1), (2, 2, 2)) for n in (64, 128, 256)]
    for name in ("r3d", "r3d-18", "r2plus1d-18"):
        assert shortcuts(on_paper(name)) == plain


NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
# All that torchvision has in the stem, in one block with a shortcut and in one without: its
# convolutions with their shapes, and the filters of its batch norms.
TORCHVISION = {
    "r3d-18": (
        {
            "stem.0": (64, 3, 3, 7, 7),
            "layer1.0.conv1.0": (64, 64, 3, 3, 3),
            "layer1.0.conv2.0": (64, 64, 3, 3, 3),
            "layer2.0.conv1.0": (128, 64, 3, 3, 3),
            "layer2.0.conv2.0": (128, 128, 3, 3, 3),
            "layer2.0.downsample.0": (128, 64, 1, 1, 1),
        },
        {
            "stem.1": 64,
            "layer1.0.conv1.1": 64,
            "layer1.0.conv2.1": 64,
            "layer2.0.conv1.1": 128,
            "layer2.0.conv2.1": 128,
            "layer2.0.downsample.1": 128,
        },
    ),
    "r2plus1d-18": (
        {
            "stem.0": (45, 3, 1, 7, 7),
            "stem.3": (64, 45, 3, 1, 1),
            "layer1.0.conv1.0.0": (144, 64, 1, 3, 3),
            "layer1.0.conv1.0.3": (64, 144, 3, 1, 1),
            "layer1.0.conv2.0.0": (144, 64, 1, 3, 3),
            "layer1.0.conv2.0.3": (64, 144, 3, 1, 1),
            "layer2.0.conv1.0.0": (230, 64, 1, 3, 3),
            "layer2.0.conv1.0.3": (128, 230, 3, 1, 1),
            "layer2.0.conv2.0.0": (230, 128, 1, 3, 3),
            "layer2.0.conv2.0.3": (128, 230, 3, 1, 1),
            "layer2.0.downsample.0": (128, 64, 1, 1, 1),
        },
        {
            "stem.1": 45,
            "stem.4": 64,
            "layer1.0.conv1.0.1": 144,
            "layer1.0.conv1.1": 64,
            "layer1.0.conv2.0.1": 144,
            "layer1.0.conv2.1": 64,
            "layer2.0.conv1.0.1": 230,
            "layer2.0.conv1.1": 128,
            "layer2.0.conv2.0.1": 230,
            "layer2.0.conv2.1": 128,
            "layer2.0.downsample.1": 128,
        },
    ),
}


@pytest.mark.parametrize(("name", "entries"), [("r3d-18", 120), ("r2plus1d-18", 222)])
def test_weights_are_named_as_torchvisions(name, entries):
    convolutions, norms = TORCHVISION[name]
    theirs = {f"{key}.weight": shape for key, shape in convolutions.items()}
    for key, filters in norms.items():
        theirs |= {f"{key}.{part}": (filters,) for part in NORM[:-1]} | {f"{key}.{NORM[-1]}": ()}
    state = on_paper(name).state_dict()
    parts = ("stem.", "layer1.0.", "layer2.0.")
    ours = {key: tuple(t.shape) for key, t in state.items() if key.startswith(parts)}
    assert ours == theirs
    # In all: a convolution has one entry, batch norm five.
    assert len(state) == entries


@pytest.mark.parametrize(
    ("name", "filters", "features"),
    [
        ("c3d", 256, 4096),
        ("c3d-bn8", 512, 512),
        ("r3d", 512, 512),
        ("r2plus1d", 512, 512),
        ("r3d-18", 512, 512),
        ("r2plus1d-18", 512, 512),
    ],
)
def test_maps_and_features_have_the_published_shapes(name, filters, features):
    net = on_paper(name)
    stages = net.stages(torch.empty(3, 16, 112, 112, 3, dtype=torch.uint8, device="meta"))
    assert stages["conv5"].shape == (3, filters, 2, 7, 7)
    assert stages["pool5"].shape == (3, features)
    assert net.features == features


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_gives_conv5_after_relu_and_pool5(name):
    torch.manual_seed(0)
    net = make_backbone(name, width=0.07, batch_norm=True).eval()
    x = clips(2)
    with torch.no_grad():
        stages, alone = net.stages(x), net(x)
    conv5, pool5 = stages["conv5"], stages["pool5"]
    filters = round({"c3d": 256}.get(name, 512) * 0.07)
    assert conv5.shape == (2, filters, 2, 7, 7)
    assert (conv5 >= 0).all()
    assert conv5.any()
    assert torch.equal(pool5, alone)
    assert pool5.shape == (2, net.features)
    if name == "c3d":
        assert torch.equal(pool5, functional.max_pool3d(conv5, 2, ceil_mode=True).flatten(1))
        assert net.hidden == (2048, 2048)
    else:
        torch.testing.assert_close(pool5, conv5.flatten(2).mean(2))
        assert net.hidden == ()


def trained(net, seed=1):
    """Draw weights that keep the signal's size, and batch norm that no default hides."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv3d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        if isinstance(module, torch.nn.BatchNorm3d):
            for values, low, high in (
                (module.weight.data, -0.5, 1.5),
                (module.bias.data, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.1, 0.5),
            ):
                values.uniform_(low, high, generator=generator)
    return net.eval()


@pytest.mark.parametrize("batch_norm", [False, True])
def test_c3d_against_plain_functions_rectified_before_pooling(batch_norm):
    torch.manual_seed(1)
    net = trained(C3D(width=0.05, batch_norm=batch_norm, pixels="centred"))
    state, step = net.state_dict(), 4 if batch_norm else 3
    x = (clips(1).permute(0, 4, 1, 2, 3).float() - 127.5) / 63.75
    for stage in range(5):
        names = [f"layers.{stage * step + place}" for place in range(2)]
        x = functional.conv3d(
            x, state[f"{names[0]}.weight"], state.get(f"{names[0]}.bias"), padding=1
        )
        if batch_norm:
            norm = [state[f"{names[1]}.{key}"] for key in ("running_mean", "running_var")]
            x = functional.batch_norm(
                x, *norm, state[f"{names[1]}.weight"], state[f"{names[1]}.bias"]
            )
        x = functional.max_pool3d(
            functional.relu(x), (1, 2, 2) if stage == 0 else 2, ceil_mode=stage == 4
        )
    with torch.no_grad():
        torch.testing.assert_close(net(clips(1)), x.flatten(1), rtol=1e-4, atol=1e-4)


def torchvisions(state, x, *, factored):
    """The last maps of torchvision's networks, from its description of them."""

    def norm(x, key):
        return functional.batch_norm(
            x, *(state[f"{key}.{part}"] for part in (*NORM[2:4], *NORM[:2]))
        )

    def conv(x, key, stride, padding):
        return functional.conv3d(x, state[f"{key}.weight"], None, stride, padding)

    def pair(x, keys, stride, kernel=3):
        spatial = conv(x, keys[0], (1, stride, stride), (0, kernel // 2, kernel // 2))
        time = stride if kernel == 3 else 1
        return conv(norm(spatial, keys[1]).relu(), keys[2], (time, 1, 1), (1, 0, 0))

    def whole(x, key, stride):
        if factored:
            return pair(x, [f"{key}.0.0", f"{key}.0.1", f"{key}.0.3"], stride)
        return conv(x, f"{key}.0", stride, 1)

    if factored:
        x = norm(pair(x, ["stem.0", "stem.1", "stem.3"], 2, kernel=7), "stem.4").relu()
    else:
        x = norm(conv(x, "stem.0", (1, 2, 2), (1, 3, 3)), "stem.1").relu()
    for stage in range(1, 5):
        for block in range(2):
            key = f"layer{stage}.{block}"
            first = stage > 1 and block == 0
            y = norm(whole(x, f"{key}.conv1", 2 if first else 1), f"{key}.conv1.1").relu()
            y = norm(whole(y, f"{key}.conv2", 1), f"{key}.conv2.1")
            if first:
                x = norm(conv(x, f"{key}.downsample.0", 2, 0), f"{key}.downsample.1")
            x = (x + y).relu()
    return x


@pytest.mark.parametrize("name", ["r3d-18", "r2plus1d-18"])
def test_networks_of_18_layers_against_plain_functions(name):
    torch.manual_seed(2)
    net = trained(make_backbone(name, width=0.06, pixels="centred"))
    x = (clips(1).permute(0, 4, 1, 2, 3).float() - 127.5) / 63.75
    conv5 = torchvisions(net.state_dict(), x, factored=name == "r2plus1d-18")
    with torch.no_grad():
        found = net.stages(clips(1))
    torch.testing.assert_close(found["conv5"], conv5, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["pool5"], conv5.mean((2, 3, 4)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BACKBONES)
def test_what_moves_by_16_pixels_moves_by_one_place(name):
    torch.manual_seed(3)
    net = trained(make_backbone(name, width=0.03, batch_norm=True, pixels="centred"))
    generator = torch.Generator().manual_seed(0)
    # So wide that places 7 and 8 of conv5 see neither border, in the deepest of them.
    world = torch.randint(0, 256, (1, 16, 32, 256, 3), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        here, there = (net.stages(world[:, :, :, x : x + 240])["conv5"] for x in (16, 0))
    torch.testing.assert_close(here[..., 7], there[..., 8], rtol=1e-4, atol=1e-4)
    assert (here[..., 7] - here[..., 8]).abs().max() > 0.1  # which is not so of any two places


def test_what_comes_8_frames_later_comes_one_place_later():
    torch.manual_seed(4)
    net = trained(C3D(width=0.03, batch_norm=True, pixels="centred"))
    generator = torch.Generator().manual_seed(0)
    film = torch.randint(0, 256, (1, 56, 32, 32, 3), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        early, late = (net.stages(film[:, t : t + 48])["conv5"] for t in (8, 0))
    torch.testing.assert_close(early[:, :, 2], late[:, :, 3], rtol=1e-4, atol=1e-4)
    assert (early[:, :, 2] - early[:, :, 3]).abs().max() > 0.1


# In torchvision's description of its weights, of pixels from 0 to 1; in MMAction2's of C3D, RGB.
SCALES = {
    "kinetics": (1 / 255, (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)),
    "mean": (1, (104, 117, 128), (1, 1, 1)),
}


@pytest.mark.parametrize("name", SCALES)
def test_each_channel_is_scaled_by_its_own(name):
    net = make_backbone("r3d", width=0.02, pixels=name)
    seen = []
    net.stem[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = clips(1)
    net.eval()(x)
    unit, mean, std = SCALES[name]
    exact = ((x.numpy() * unit - np.array(mean)) / np.array(std)).transpose(0, 4, 1, 2, 3)
    np.testing.assert_allclose(seen[0].numpy(), exact, rtol=1e-5, atol=1e-5)
    assert torch.equal(x, clips(1))


@pytest.mark.parametrize("name", BACKBONES)
def test_every_weight_learns(name):
    net = make_backbone(name, width=0.03)
    net(clips(2)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("batch_norm", [False, True])
def test_gradients_reach_every_weight_of_c3d(batch_norm):
    torch.manual_seed(5)
    net = C3D(width=0.05, batch_norm=batch_norm, pixels="centred")
    net(clips(2)).square().sum().backward()
    assert {
        name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()
    } == set()


def test_an_unknown_backbone_is_named_with_those_there_are():
    with pytest.raises(TrainError, match="no backbone 'vgg'; choose from ") as raised:
        make_backbone("vgg")
    known = str(raised.value).split("choose from ")[1].rstrip(".").split(", ")
    assert known == ["c3d", "c3d-bn8", "r3d", "r2plus1d", "r3d-18", "r2plus1d-18"]
