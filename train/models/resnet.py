"""3D residual networks: R3D and R(2+1)D, with 18 layers or one block per stage.

1. D. Tran et al., A Closer Look at Spatiotemporal Convolutions for Action Recognition, CVPR 2018.
2. torchvision, torchvision.models.video: r3d_18 and r2plus1d_18, whose names of weights are used.
3. The authors' joint release: github.com/laura-wang/video_repres_sts, networks/r3d.py, r21d.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

from train.models.backbone import Backbone, share

PLANES = (64, 128, 256, 512)
_STEM_MIDDLE = 45  # of [2], whose formula would give 83

Convolution = Callable[[int, int, int], nn.Module]
"""Takes inputs, outputs and stride."""


class VideoResNet(Backbone):
    """A stem, four stages of residual blocks, and the mean of the last over all places.

    Parameters
    ----------
    blocks : int
        Per stage: 2 in networks of 18 layers, 1 in those of [3].
    factored : bool
        R(2+1)D: each convolution is one over space and one over time, with batch norm between.
    joint : bool
        Factor as [3] does: the planes between the two follow from each convolution's own inputs and
        outputs, and the stem's and the shortcuts' convolutions are factored by the same rule.
        Otherwise as [2]: one number for both convolutions of a block.
    pixels : str
        See `Backbone`.
    width : float
        Planes, as a share of 64, 128, 256, 512.
    """

    def __init__(
        self,
        *,
        blocks: int,
        factored: bool = False,
        joint: bool = False,
        pixels: str = "raw",
        width: float = 1.0,
    ) -> None:
        super().__init__(pixels)
        planes = [share(full, width) for full in PLANES]
        self.stem = nn.Sequential(*_stem(planes[0], factored=factored, joint=joint, width=width))
        inputs = planes[0]
        for stage, outputs in enumerate(planes, 1):
            several: list[nn.Module] = []
            for block in range(blocks):
                stride = 2 if stage > 1 and block == 0 else 1
                several += [Block(inputs, outputs, stride, factored=factored, joint=joint)]
                inputs = outputs
            self.add_module(f"layer{stage}", nn.Sequential(*several))
        self.features = inputs

    def stages(self, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the last stage, (B, 512, 2, 7, 7), and its mean, (B, 512); see `Backbone`."""
        x = self.stem(self.scaled(clips))
        for stage in range(1, len(PLANES) + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return {"conv5": x, "pool5": x.mean((2, 3, 4))}


class Block(nn.Module):
    """Two convolutions around which the input is led, through a shortcut where sizes change."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, *, factored: bool, joint: bool
    ) -> None:
        super().__init__()
        middle = [middle_planes(inputs, outputs), middle_planes(inputs, outputs)]
        if joint:
            middle[1] = middle_planes(outputs, outputs)
        sides = ((inputs, outputs, stride), (outputs, outputs, 1))
        first, second = (
            Factored(i, o, between, stride=(s, s)) if factored else _whole(i, o, s)
            for (i, o, s), between in zip(sides, middle, strict=True)
        )
        self.conv1 = nn.Sequential(first, nn.BatchNorm3d(outputs), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(second, nn.BatchNorm3d(outputs))
        self.downsample: nn.Module | None = None
        if stride != 1:
            shortcut: nn.Module = nn.Conv3d(inputs, outputs, 1, stride=stride, bias=False)
            if factored and joint:
                between = middle_planes(inputs, outputs, kernel=(1, 1))
                shortcut = Factored(inputs, outputs, between, kernel=(1, 1), stride=(2, 2))
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm3d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, T, H, W) -> (B, outputs, T / stride, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.relu(shortcut + self.conv2(self.conv1(x)))


class Factored(nn.Sequential):
    """A convolution over space, batch norm, ReLU, and a convolution over time [1, Sec. 3.5].

    Parameters
    ----------
    kernel, stride : (int, int)
        In time and in space.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        middle: int,
        *,
        kernel: tuple[int, int] = (3, 3),
        stride: tuple[int, int] = (1, 1),
    ) -> None:
        (time, space), (in_time, in_space) = kernel, stride
        super().__init__(
            nn.Conv3d(
                inputs, middle, (1, space, space), stride=(1, in_space, in_space),
                padding=(0, space // 2, space // 2), bias=False,
            ),
            nn.BatchNorm3d(middle),
            nn.ReLU(inplace=True),
            nn.Conv3d(
                middle, outputs, (time, 1, 1), stride=(in_time, 1, 1), padding=(time // 2, 0, 0),
                bias=False,
            ),
        )  # fmt: skip


def middle_planes(inputs: int, outputs: int, *, kernel: tuple[int, int] = (3, 3)) -> int:
    """Planes between space and time that give as many weights as the whole convolution has [1]."""
    time, space = kernel[0], kernel[1] ** 2
    return max(1, time * space * inputs * outputs // (space * inputs + time * outputs))


def _whole(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def _stem(outputs: int, *, factored: bool, joint: bool, width: float) -> Iterator[nn.Module]:
    """Yield the layers of the stem: 3x7x7, every other place in space, every frame."""
    if factored:
        middle = middle_planes(3, outputs, kernel=(3, 7)) if joint else share(_STEM_MIDDLE, width)
        yield from Factored(3, outputs, middle, kernel=(3, 7), stride=(1, 2))
    else:
        yield nn.Conv3d(3, outputs, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False)
    yield nn.BatchNorm3d(outputs)
    yield nn.ReLU(inplace=True)
