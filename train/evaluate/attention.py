"""Where the network looks: activation-based attention (Zagoruyko and Komodakis, ICLR 2017).

The picture is that of the paper's Figure 6: frame, attention of conv5, and the motion boundaries
of the whole clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from labelgen.files import replacing
from train import TrainError

_WIDTH = 2.2
"""Inches of a picture in the table."""
_TITLES = ("frame", "attention of conv5", "$M_u$ of the clip", "$M_v$ of the clip")
_CAPTION = (
    "attention: from blue, none, to red, the most in the clip; "
    "$M_u$, $M_v$: black is 0, white the largest of both in the clip"
)


class AttentionRow(NamedTuple):
    """One clip of the picture.

    Attributes
    ----------
    name : str
        Written beside it.
    frame : (112, 112, 3) uint8
        RGB.
    attention : (112, 112) float
        Of that frame, 0..1, as of `over_frames`.
    motion_u, motion_v : (112, 112) float
        Magnitudes, 0 or more, of the motion boundaries of the clip's u and v.
    """

    name: str
    frame: np.ndarray
    attention: np.ndarray
    motion_u: np.ndarray
    motion_v: np.ndarray


def attention_maps(conv5: torch.Tensor) -> torch.Tensor:
    """Sum the squares of activations over channels.

    Parameters
    ----------
    conv5 : (B, C, T, H, W) tensor
        Activations, of any floating type.

    Returns
    -------
    (B, T, H, W) float32 tensor
        0..1, the largest of each clip 1; a clip without any activation stays 0.
    """
    # Before squaring, which half precision has no room for.
    maps = conv5.float().square().sum(1)
    largest = maps.amax((1, 2, 3), keepdim=True)
    return maps / largest.where(largest > 0, torch.ones_like(largest))


def over_frames(maps: torch.Tensor, *, frames: int, size: int) -> torch.Tensor:
    """Give every frame its temporal slice of the map, enlarged to the frame bilinearly.

    The paper does not tell how; frame f of F takes slice f * T // F of T, which for C3D's conv5
    (T = 2) and 16 frames is f // 8.

    Parameters
    ----------
    maps : (B, T, H, W) float32 tensor
        As of `attention_maps`.
    frames : int
        Frames of the clip.
    size : int
        Their height and width.

    Returns
    -------
    (B, frames, size, size) float32 tensor
        0..1.
    """
    large = torch.nn.functional.interpolate(maps, size=(size, size), mode="bilinear")
    return large[:, torch.arange(frames, device=maps.device) * maps.shape[1] // frames]


def draw(rows: Sequence[AttentionRow], output: Path) -> None:
    """Draw a row per clip: frame, attention over it, and motion boundaries of u and of v.

    Parameters
    ----------
    rows : sequence of AttentionRow
        One or more; some ten still fit a page.
    output : Path
        The picture; its suffix says which kind.

    Raises
    ------
    TrainError
        There is no clip, matplotlib is absent, or the picture cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise TrainError(
            "A picture needs the package matplotlib; pip install matplotlib, or the extra "
            "'pictures'."
        ) from None
    if not rows:
        raise TrainError(f"There is no clip to draw in {output}.")
    figure = Figure(figsize=(4 * _WIDTH, len(rows) * (_WIDTH + 0.2) + 0.7))
    # Room for the names, which the layout does not count.
    figure.set_layout_engine("constrained", h_pad=0.13)
    table = figure.subplots(len(rows), len(_TITLES), squeeze=False)
    for axes, row in zip(table, rows, strict=True):
        _draw_row(axes, row)
    for axes, title in zip(table[0], _TITLES, strict=True):
        axes.set_title(title)
    figure.supxlabel(_CAPTION, fontsize="small", x=0.01, ha="left")
    try:
        with replacing(output) as partial:
            figure.savefig(partial, dpi=120, format=output.suffix[1:] or "png")
    except (OSError, ValueError) as error:
        raise TrainError(f"{output} cannot be written: {error}.") from None


def _draw_row(axes: Any, row: AttentionRow) -> None:
    for one in axes:
        one.set(xticks=[], yticks=[])
    axes[0].imshow(row.frame)
    # Names may be longer than a picture is wide; they go on below the others.
    axes[0].set_xlabel(row.name, loc="left", fontsize="small", in_layout=False, parse_math=False)
    axes[1].imshow(row.frame.mean(2), cmap="gray", vmin=0, vmax=255)
    axes[1].imshow(row.attention, cmap="turbo", vmin=0, vmax=1, alpha=0.5)
    # One scale for both, so that they can be compared; a still clip stays dark.
    largest = max(row.motion_u.max(), row.motion_v.max()) or 1.0
    axes[2].imshow(row.motion_u, cmap="gray", vmin=0, vmax=largest)
    axes[3].imshow(row.motion_v, cmap="gray", vmin=0, vmax=largest)
