"""Backbones: published sizes and names, one interface, and C3D against plain functions."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from train import TrainError
from train.models.c3d import C3D
from train.models.heads import ClassifierNet
from train.models.registry import make_backbone
from train.recipe import BACKBONES, PIXELS

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
    shortcut = on_paper("r2plus1d").layer2[0].downsample[0]
    assert [tuple(m.stride) for m in shortcut if hasattr(m, "stride")] == [(1, 2, 2), (2, 1, 1)]


NAMES = {
    "r3d-18": {
        "stem.0.weight": (64, 3, 3, 7, 7),
        "stem.1.running_mean": (64,),
        "layer1.0.conv1.0.weight": (64, 64, 3, 3, 3),
        "layer1.1.conv2.1.bias": (64,),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1, 1),
        "layer2.0.downsample.1.weight": (128,),
        "layer4.1.conv2.0.weight": (512, 512, 3, 3, 3),
    },
    "r2plus1d-18": {
        "stem.0.weight": (45, 3, 1, 7, 7),
        "stem.1.weight": (45,),
        "stem.3.weight": (64, 45, 3, 1, 1),
        "stem.4.num_batches_tracked": (),
        "layer1.0.conv1.0.0.weight": (144, 64, 1, 3, 3),
        "layer1.0.conv1.0.1.weight": (144,),
        "layer1.0.conv1.0.3.weight": (64, 144, 3, 1, 1),
        "layer1.0.conv1.1.weight": (64,),
        "layer2.0.conv2.0.0.weight": (230, 128, 1, 3, 3),
        "layer4.0.downsample.0.weight": (512, 256, 1, 1, 1),
    },
}


@pytest.mark.parametrize(("name", "entries"), [("r3d-18", 120), ("r2plus1d-18", 222)])
def test_weights_are_named_as_torchvisions(name, entries):
    state = on_paper(name).state_dict()
    shapes = {key: tuple(state[key].shape) for key in NAMES[name]}
    assert shapes == NAMES[name]
    # A convolution has one entry, batch norm five.
    assert len(state) == entries


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


@pytest.mark.parametrize("batch_norm", [False, True])
def test_c3d_against_plain_functions_rectified_before_pooling(batch_norm):
    torch.manual_seed(1)
    net = C3D(width=0.05, batch_norm=batch_norm, pixels="centred").eval()
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
        torch.testing.assert_close(net(clips(1)), x.flatten(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["kinetics", "mean"])
def test_each_channel_is_scaled_by_its_own(name):
    net = make_backbone("r3d", width=0.02, pixels=name)
    seen = []
    net.stem[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = clips(1)
    net.eval()(x)
    shift, scale = (np.array(value, np.float32) for value in PIXELS[name])
    exact = ((x.numpy() - shift) / scale).transpose(0, 4, 1, 2, 3)
    np.testing.assert_allclose(seen[0].numpy(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_weight_learns(name):
    net = make_backbone(name, width=0.03)
    net(clips(2)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_an_unknown_backbone_is_named_with_those_there_are():
    with pytest.raises(TrainError, match="no backbone 'vgg'; choose from c3d, c3d-bn8, r3d"):
        make_backbone("vgg")
