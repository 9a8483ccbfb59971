"""Numbers that shape every array (paper, Sec. 3.4: clips of 16 frames, 128x171, crops of 112x112).

They stand here, beside no import that costs anything, so that nobody loads OpenCV for two integers.
"""

from __future__ import annotations

from labelgen.errors import LabelgenError

CLIP_LENGTH = 16
"""Frames of one clip."""

FRAME_SIZE = (128, 171)
"""Height and width of a frame in pixels, the C3D pre-processing of the paper."""

CROP_SIZE = 112
"""Side of a crop in pixels."""

MAX_TOP = FRAME_SIZE[0] - CROP_SIZE
MAX_LEFT = FRAME_SIZE[1] - CROP_SIZE

ORIENTATIONS = 8
"""Orientation bins of 45 degrees, counterclockwise from the right as seen on the screen."""

OCTANTS = 8
"""Dominant colours: the corners of the RGB cube, cut at 128."""

SMALLEST_SIDE = 32
"""Fewest pixels of a side on which flow is worth computing."""


def clip_count(frames: int, *, stride: int, clip_length: int = CLIP_LENGTH) -> int:
    """Return the number of whole clips in `frames` frames."""
    return max(0, (frames - clip_length) // stride + 1)


def frame_size_for_flow(size: str, source: tuple[int, int]) -> tuple[int, int] | None:
    """Return the height and width of the frames that flow is computed on.

    Parameters
    ----------
    size : str
        ``clip`` for the resized frames of the clip, ``short:S`` for a short side of S pixels,
        ``WxH``, or ``source`` for frames as they decode.
    source : (int, int)
        Height and width of the frames as they decode.

    Returns
    -------
    (int, int) or None
        None for ``clip``.

    Raises
    ------
    LabelgenError
        If `size` is none of these.
    """
    kind, _, short = size.partition(":")
    width, _, height = size.partition("x")
    if size == "clip":
        return None
    if size == "source":
        return source
    if kind == "short" and short.isdecimal() and int(short) >= SMALLEST_SIDE:
        scale = int(short) / min(source)
        return round(source[0] * scale), round(source[1] * scale)
    if width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= SMALLEST_SIDE:
        return int(height), int(width)
    raise LabelgenError(
        f"unknown flow size {size!r}; use clip, short:S, WxH or source, "
        f"from {SMALLEST_SIDE} pixels on"
    )
