"""What every backbone is: clips in, the last maps and their pooled features out."""

from __future__ import annotations

import torch
from torch import nn

from train.recipe import PIXELS


class Backbone(nn.Module):
    """A network without its head; scaling pixels is part of it, so that it is never forgotten.

    Parameters
    ----------
    pixels : str
        Key of `train.recipe.PIXELS`.

    Attributes
    ----------
    features : int
        Length of pool5.
    hidden : tuple of int
        Units of the hidden layers that heads have behind it, at full width.
    """

    features: int
    hidden: tuple[int, ...] = ()

    def __init__(self, pixels: str) -> None:
        super().__init__()
        self._shift, self._scale = (
            value if isinstance(value, float) else torch.tensor(value).reshape(3, 1, 1, 1)
            for value in PIXELS[pixels]
        )

    def scaled(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, 16, 112, 112, 3) uint8 RGB -> (B, 3, 16, 112, 112) float32."""
        # Pixels stand last in memory, so this view is already in channels_last_3d order.
        x = clips.permute(0, 4, 1, 2, 3).to(torch.float32, copy=True)
        shift, scale = (
            v.to(x.device) if torch.is_tensor(v) else v for v in (self._shift, self._scale)
        )
        return x.sub_(shift).div_(scale)

    def stages(self, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``conv5`` after its ReLU, (B, C, 2, 7, 7), and ``pool5``, (B, features).

        Parameters
        ----------
        clips : (B, 16, 112, 112, 3) uint8
            RGB.
        """
        raise NotImplementedError

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, 16, 112, 112, 3) uint8 RGB -> (B, features) float: pool5."""
        return self.stages(clips)["pool5"]


def share(full: int, width: float) -> int:
    """Return how many of so many filters there are at a width; at least one."""
    return max(1, round(full * width))
