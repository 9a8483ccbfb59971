"""The small C3D (paper, Sec. 3.4; the search network of Tran et al.).

1. J. Wang et al., Self-supervised Spatio-temporal Representation Learning for Videos by
   Predicting Motion and Appearance Statistics, CVPR 2019.
2. D. Tran et al., Learning Spatiotemporal Features with 3D Convolutional Networks, ICCV 2015.
"""

from __future__ import annotations

import torch
from torch import nn

from train.recipe import PIXELS

FILTERS = (64, 128, 256, 256, 256)


class C3D(nn.Module):
    """Backbone: uint8 clips in, the flattened pool5 out.

    Parameters
    ----------
    batch_norm : bool
        Batch normalisation after each convolution, instead of its bias. Not in the paper.
    pixels : str
        Key of `train.recipe.PIXELS`; scaling is part of the network so that it is never forgotten.
    width : float
        Filters, as a share of the paper's 64, 128, 256, 256, 256; for trials on small machines.
    """

    def __init__(
        self, *, batch_norm: bool = False, pixels: str = "raw", width: float = 1.0
    ) -> None:
        super().__init__()
        self.shift, self.scale = PIXELS[pixels]
        layers: list[nn.Module] = []
        channels = 3
        for index, full in enumerate(FILTERS):
            filters = max(1, round(full * width))
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

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, 16, 112, 112, 3) uint8 RGB -> (B, 4096) float."""
        # Pixels stand last in memory, so this view is already in channels_last_3d order.
        x = clips.permute(0, 4, 1, 2, 3).float().sub_(self.shift).div_(self.scale)
        features: torch.Tensor = self.layers(x).flatten(1)
        return features
