"""The small C3D (paper, Sec. 3.4; the search network of Tran et al.), and the joint release's.

1. J. Wang et al., Self-supervised Spatio-temporal Representation Learning for Videos by
   Predicting Motion and Appearance Statistics, CVPR 2019.
2. D. Tran et al., Learning Spatiotemporal Features with 3D Convolutional Networks, ICCV 2015.
3. The authors' joint release: github.com/laura-wang/video_repres_sts, networks/c3d_large_BN.py.
"""

from __future__ import annotations

import torch
from torch import nn

from train.models.backbone import Backbone, share

FILTERS = (64, 128, 256, 256, 256)
LARGE_FILTERS = ((64,), (128,), (256, 256), (512, 512), (512, 512))


class C3D(Backbone):
    """The paper's backbone: five convolutions, pool5 of 4x4x256 numbers.

    Parameters
    ----------
    batch_norm : bool
        Batch normalisation after each convolution, instead of its bias. Not in the paper.
    pixels : str
        See `Backbone`.
    width : float
        Filters, as a share of the paper's 64, 128, 256, 256, 256; for trials on small machines.
    """

    hidden = (2048, 2048)

    def __init__(
        self, *, batch_norm: bool = False, pixels: str = "raw", width: float = 1.0
    ) -> None:
        super().__init__(pixels)
        layers: list[nn.Module] = []
        channels = 3
        for index, full in enumerate(FILTERS):
            filters = share(full, width)
            layers += [nn.Conv3d(channels, filters, 3, padding=1, bias=not batch_norm)]
            layers += [nn.BatchNorm3d(filters)] if batch_norm else []
            # pool1 keeps time. pool5 rounds up, as Caffe does: 7x7 becomes 4x4, not 3x3.
            # The maximum of rectified values is the rectified maximum: pooling first gives the
            # same network and rectifies an eighth of the values.
            size = (1, 2, 2) if index == 0 else (2, 2, 2)
            layers += [nn.MaxPool3d(size, ceil_mode=index == 4), nn.ReLU(inplace=True)]
            channels = filters
        self.layers = nn.Sequential(*layers)
        self.features = 4 * 4 * channels

    def stages(self, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return conv5, (B, 256, 2, 7, 7), and pool5, (B, 4096); see `Backbone.stages`."""
        *before, pool5, rectify = self.layers
        x = self.scaled(clips)
        for layer in before:
            x = layer(x)
        conv5 = rectify(x)
        return {"conv5": conv5, "pool5": pool5(conv5).flatten(1)}


class C3DLarge(Backbone):
    """The backbone of [3]: eight convolutions with batch norm, and their mean over all places.

    Parameters
    ----------
    pixels, width
        As for `C3D`; the filters are 64, 128, 256, 256, 512, 512, 512, 512.
    """

    def __init__(self, *, pixels: str = "raw", width: float = 1.0) -> None:
        super().__init__(pixels)
        layers: list[nn.Module] = []
        channels = 3
        for stage, group in enumerate(LARGE_FILTERS):
            for place, full in enumerate(group):
                filters = share(full, width)
                layers += [nn.Conv3d(channels, filters, 3, padding=1), nn.BatchNorm3d(filters)]
                last = place == len(group) - 1
                if last and stage < len(LARGE_FILTERS) - 1:
                    layers += [nn.MaxPool3d((1, 2, 2) if stage == 0 else (2, 2, 2))]
                layers += [nn.ReLU(inplace=True)]
                channels = filters
        self.layers = nn.Sequential(*layers)
        self.features = channels

    def stages(self, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return conv5b, (B, 512, 2, 7, 7), and its mean, (B, 512); see `Backbone.stages`."""
        conv5 = self.layers(self.scaled(clips))
        return {"conv5": conv5, "pool5": conv5.mean((2, 3, 4))}
