"""Frames of one video, decoded in sequence and resized to the clip size (paper, Sec. 3.4)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# FFmpeg and OpenCV report every damaged packet on stderr; our reason codes say it once per video.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

import cv2
import numpy as np

from labelgen.errors import LabelgenError, VideoError

FRAME_SIZE = (128, 171)
"""Height and width of a decoded frame in pixels, the C3D pre-processing of the paper."""

SMALLEST_SIDE = 32
"""Fewest pixels of a side on which flow is worth computing."""

_NORMAL_SHARE = 0.9
_ORIENTATION_AUTO = 1


class Frame(NamedTuple):
    """One decoded frame.

    Attributes
    ----------
    rgb : (H, W, 3) uint8
        At the size of the clip.
    grey : (H', W') uint8 or None
        At the size that flow is computed on; None where that is the clip's.
    """

    rgb: np.ndarray
    grey: np.ndarray | None


class Video:
    """An open video that yields its frames once, in order.

    Frames are rotated upright as the file's metadata says; OpenCV changed its default for this
    between versions, so it is set here and recorded in every shard as ``orientation: auto``.

    Parameters
    ----------
    path : path-like
        The video file.
    size : (int, int), optional
        Height and width of the frames given, in pixels.
    flow_size : str, optional
        Size of the grey frames given beside them, as in `frame_size_for_flow`.

    Attributes
    ----------
    claimed : int
        Number of frames according to the header; 0 where it does not say. Headers often err: AVI
        files commonly claim one frame more than decodes.
    decoded : int
        Number of frames that were really decoded so far.

    Raises
    ------
    VideoError
        With reason ``missing`` or ``unopenable``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        size: tuple[int, int] = FRAME_SIZE,
        flow_size: str = "clip",
    ) -> None:
        self.path = Path(path)
        self.size = size
        self.flow_size = flow_size
        self._capture = _open(self.path)
        self.claimed = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        self.decoded = 0

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames in order."""
        height, width = self.size
        while True:
            found, frame = self._capture.read()
            if not found:
                return
            self.decoded += 1
            # Bilinear, and before the change of channel order, which then has less to do.
            small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
            rgb = cv2.cvtColor(small, cv2.COLOR_BGR2RGB)
            larger = frame_size_for_flow(self.flow_size, frame.shape[:2])
            yield Frame(rgb, None if larger is None else _grey(frame, larger))

    @property
    def truncated(self) -> bool:
        """Whether far fewer frames decoded than the header claims; one missing is normal."""
        return self.decoded < self.claimed - 1 and self.decoded < _NORMAL_SHARE * self.claimed

    def close(self) -> None:
        """Release the decoder."""
        self._capture.release()


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


def _grey(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    resized = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.cvtColor(resized, cv2.COLOR_BGR2GRAY)


def _open(path: Path) -> cv2.VideoCapture:
    if not path.is_file():
        raise VideoError("missing", f"{path} does not exist or is not a file")
    # One decoding thread: the pipeline has one process per core already.
    options = [cv2.CAP_PROP_N_THREADS, 1]
    try:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, options)
    except cv2.error as error:
        raise VideoError("unopenable", f"{path} cannot be opened: {error.err}") from None
    if not capture.isOpened():
        raise VideoError("unopenable", f"{path} cannot be opened as a video")
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, _ORIENTATION_AUTO)
    return capture


def claimed_frames(path: str | os.PathLike[str]) -> int:
    """Return the frame count of a video's header, 0 where it cannot be read.

    Parameters
    ----------
    path : path-like
        The video file.

    Returns
    -------
    int
        Frames; a hint for planning only, never trusted for anything else.
    """
    try:
        video = Video(path)
    except VideoError:
        return 0
    video.close()
    return video.claimed
