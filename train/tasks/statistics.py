"""What the labels are the argmax of, computed on the device for any crop (paper, Sec. 3.2, 3.3)."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import conv2d

from labelgen.geometry import CROP_SIZE, OCTANTS, ORIENTATIONS
from labelgen.labels.partitions import AREAS, MASKS

BOUNDARIES = 4
"""Channels of the fields that are motion boundaries: M_u = (x, y), M_v = (x, y)."""
_PIXELS = CROP_SIZE**2


class CropStatistics:
    """Statistics of blocks: means over the pixels of each of the 28 blocks of all partitions.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        blocks = MASKS.reshape(len(MASKS), -1).astype(np.float32)
        self._blocks = torch.from_numpy(blocks).T.to(device)  # (12544, 28)
        self._areas = torch.from_numpy(AREAS.astype(np.float32)).to(device)
        slope = torch.tensor([-1.0, 0.0, 1.0]).expand(3, 3) / 6
        self._prewitt = torch.stack([slope, slope.T])[:, None].to(device)

    def motion(self, fields: torch.Tensor) -> torch.Tensor:
        """Return how much motion there is, by block and direction.

        Parameters
        ----------
        fields : (B, F, 114, 114) float
            Motion boundaries in its first four channels, with a rim of one pixel.

        Returns
        -------
        (B, 2, 28, 8) float32
            Of M_u and M_v: magnitude of pixels by orientation, mean over the block's pixels.
        """
        inner = fields[:, :BOUNDARIES, 1:-1, 1:-1].float()
        x, y = inner.unflatten(1, (2, 2)).flatten(3).unbind(2)  # (B, 2, 12544) each
        return self._in_blocks(_orientations(x, -y), torch.hypot(x, y), ORIENTATIONS)

    def pairs(self, fields: torch.Tensor) -> torch.Tensor:
        """Return (B, 2, 15) float32: the mean motion boundary of u and v of each frame pair.

        `fields` are as in `motion`; behind the boundaries u and v of each pair in turn.
        """
        flow = fields[:, BOUNDARIES:].float()
        slopes = conv2d(flow.flatten(0, 1)[:, None], self._prewitt)
        magnitude = torch.hypot(*slopes.unbind(1)).mean((1, 2))
        return magnitude.reshape(len(fields), -1, 2).transpose(1, 2)

    def colours(self, frames: torch.Tensor) -> torch.Tensor:
        """Return how often each octant of the RGB cube is seen, by block.

        Parameters
        ----------
        frames : (B, 16, 112, 112, 3) uint8

        Returns
        -------
        (B, 29, 8) float32
            Shares of the pixels of each block over all frames, last of the whole crop.
        """
        high = frames >= 128
        octant = 4 * ~high[..., 2] + 2 * high[..., 0] + high[..., 1]
        shares = torch.zeros(len(frames), OCTANTS, _PIXELS, device=frames.device)
        one = torch.full((len(frames), 1, _PIXELS), 1 / frames.shape[1], device=frames.device)
        for frame in octant.flatten(2).unbind(1):
            shares.scatter_add_(1, frame[:, None], one)
        whole = shares.mean(2)[:, None]
        return torch.cat([self._mean(shares), whole], dim=1)

    def _in_blocks(self, bins: torch.Tensor, values: torch.Tensor, count: int) -> torch.Tensor:
        """(B, 2, 12544) bins and values -> (B, 2, 28, count): means over blocks, by bin."""
        spread = values.new_zeros(*values.shape[:2], count, _PIXELS)
        spread.scatter_(2, bins[:, :, None], values[:, :, None])
        return self._mean(spread)

    def _mean(self, values: torch.Tensor) -> torch.Tensor:
        """(..., count, 12544) -> (..., 28, count): means over the pixels of each block."""
        # Sums of sixteenths are exact, so that equal shares stay equal.
        return (values @ self._blocks).transpose(-1, -2) / self._areas[:, None]


def _orientations(x: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Return the bin 0..7 of each direction by the labels' own comparisons; of none, any."""
    quadrant = torch.full_like(x, 3, dtype=torch.int64)
    quadrant[(x < 0) & (up <= 0)] = 2
    quadrant[(x <= 0) & (up > 0)] = 1
    quadrant[(x > 0) & (up >= 0)] = 0
    upright = quadrant % 2 == 1
    second = torch.where(upright, x.abs() >= up.abs(), up.abs() >= x.abs())
    return 2 * quadrant + second
