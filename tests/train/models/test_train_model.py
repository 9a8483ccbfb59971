"""The network: shapes, parameter count, scaling, initial weights and optimizer rules."""

import pytest
import torch
from torch import nn

from train.models.c3d import C3D
from train.models.heads import StatisticsNet, make_optimizer, set_rate
from train.recipe import PIXELS


def small_net(**options):
    return StatisticsNet(
        {"motion": 3, "appearance": 2}, backbone=C3D(width=0.0625, **options), width=0.03
    )


def clips(count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 16, 112, 112, 3), dtype=torch.uint8, generator=generator)


def test_one_101_way_branch_has_the_known_number_of_parameters():
    net = StatisticsNet({"motion": 101}, backbone=C3D())
    assert net.backbone.features == 4096
    assert sum(p.numel() for p in net.parameters()) == 17_444_965  # 17.44 M


@pytest.mark.parametrize("batch_norm", [False, True])
def test_shapes(batch_norm):
    net = small_net(batch_norm=batch_norm)
    assert net.backbone(clips()).shape == (2, 4 * 4 * 16)
    assert net(clips()).shape == (2, 5)
    assert sum(isinstance(m, nn.BatchNorm3d) for m in net.modules()) == 5 * batch_norm


def test_backbone_equals_the_textbook_order_of_layers():
    torch.manual_seed(0)
    backbone = C3D(width=0.0625, pixels="unit")
    convolutions = [m for m in backbone.layers if isinstance(m, nn.Conv3d)]
    for convolution in convolutions:
        nn.init.normal_(convolution.weight, std=0.1)
    x = clips(1).permute(0, 4, 1, 2, 3) / 255
    for index, convolution in enumerate(convolutions):
        x = torch.relu(convolution(x))
        x = nn.functional.max_pool3d(x, (1, 2, 2) if index == 0 else 2, ceil_mode=True)
    assert x.shape[2:] == (1, 4, 4)
    torch.testing.assert_close(backbone(clips(1)), x.flatten(1))


@pytest.mark.parametrize("name", PIXELS)
def test_pixels_are_scaled_inside_the_network(name):
    backbone = C3D(width=0.0625, pixels=name)
    seen = []
    backbone.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    backbone(clips(1))
    shift, scale = (torch.tensor(value).reshape(-1, 1, 1, 1) for value in PIXELS[name])
    torch.testing.assert_close(seen[0], (clips(1).permute(0, 4, 1, 2, 3).float() - shift) / scale)


def test_initial_weights_are_those_of_the_release():
    torch.manual_seed(0)
    net = StatisticsNet({"motion": 14}, backbone=C3D())
    first, second, output = (m for m in net.branches["motion"] if isinstance(m, nn.Linear))
    assert abs(net.backbone.layers[3].weight.std() - 0.01) < 1e-4
    assert abs(first.weight.std() - 0.005) < 1e-4
    assert abs(output.weight.std() - 0.01) < 2e-4
    assert (first.bias == 1).all()
    assert (second.bias == 1).all()
    assert (output.bias == 0).all()
    assert (net.backbone.layers[0].bias == 0).all()


def test_decay_and_bias_rate_go_where_the_release_has_them():
    net = small_net(batch_norm=True)
    optimizer = make_optimizer(net, lr=0.1, momentum=0.9, weight_decay=0.005, bias_lr=2.0)
    set_rate(optimizer, 0.01)
    rules = {
        id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]
    }
    assert len(rules) == len(list(net.parameters()))
    for module in net.modules():
        if isinstance(module, nn.Linear):
            assert rules[id(module.weight)] == (0.01, 0.005)
            assert rules[id(module.bias)] == (0.02, 0.0)
        elif isinstance(module, nn.Conv3d | nn.BatchNorm3d):
            assert rules[id(module.weight)] == (0.01, 0.0)


def test_output_is_in_label_units():
    net = small_net()
    plain = net(clips())
    net.mean.fill_(4.0)
    net.std.fill_(2.0)
    torch.testing.assert_close(net(clips()), plain * 2 + 4)


def test_heads_compute_in_float32_under_bf16():
    """The release's hidden units begin near 1, with a small signal on it that bf16 rounds away."""
    torch.manual_seed(0)
    net = StatisticsNet({"motion": 14}, backbone=C3D(width=0.25), width=0.25)
    seen = []
    net.branches["motion"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = net(clips(8))
    wanted = net.branches["motion"].double()(seen[0].double())
    signal = (wanted - wanted.mean(0)).std()
    assert out.dtype == torch.float32
    assert (out - wanted).std() < 0.01 * signal


def test_kaiming_keeps_the_size_of_the_signal():
    torch.manual_seed(0)
    net = StatisticsNet({"motion": 3}, backbone=C3D(width=0.25, pixels="centred"), init="kaiming")
    with torch.no_grad():
        features = net.backbone(clips())
        hidden = net.branches["motion"][:4](features)
    assert 0.1 < hidden.std() / features.std() < 10
    assert 0.05 < features.std() < 50
