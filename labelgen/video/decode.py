"""Frames of one video, decoded in sequence and resized to the clip size (paper, Sec. 3.4)."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

# FFmpeg and OpenCV report every damaged packet on stderr; our reason codes say it once per video.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np

from labelgen.errors import VideoError
from labelgen.geometry import FRAME_SIZE, frame_size_for_flow
from labelgen.progress import count_text, each
from labelgen.video.manifest import ManifestRow
from labelgen.video.packets import Packets, Size

# OpenCV reads its level from the environment when it is loaded, which may have been done before.
if "OPENCV_LOG_LEVEL" not in os.environ and hasattr(cv2.utils, "logging"):
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_NORMAL_SHARE = 0.9
_SPARSE = 1.5
_ORIENTATION_AUTO = 1
# Of no codec's frames; what claims more is damaged, or no video of anything.
_LARGEST_SIDE = 16384


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
    name : str, optional
        What messages call it; by default its path.
    size : (int, int), optional
        Height and width of the frames given, in pixels.
    flow_size : str, optional
        Size of the grey frames given beside them, as in `labelgen.geometry.frame_size_for_flow`.

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
        With reason ``missing``, ``unopenable`` or, where frames are absurdly large, ``size``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        size: tuple[int, int] = FRAME_SIZE,
        flow_size: str = "clip",
    ) -> None:
        self.name = str(path) if name is None else name
        self.size = size
        self.flow_size = flow_size
        self._capture = _open(Path(path), self.name)
        self.claimed = max(int(self.header(cv2.CAP_PROP_FRAME_COUNT)), 0)
        self.decoded = 0
        self._time, self._nearest = 0.0, math.inf
        self._check_size()
        self._path = path
        self._packets: Packets | None = None
        self._coded: Size | None = None

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames in order."""
        while (frame := self.read()) is not None:
            yield resized_frame(frame, self.size, self.flow_size)

    def read(self) -> np.ndarray | None:
        """Decode one frame: (H, W, 3) uint8, BGR, of the video's own size; None at the end.

        Raises
        ------
        VideoError
            With reason ``size``, where frames begin to have another size.
        """
        # Not before: who asks for the header alone opens the file once.
        if self._packets is None:
            self._packets = Packets(self._path, self.fourcc())
        found, frame = self._capture.read()
        # Of frames that do not decode there are packets all the same.
        while self._packets.left:
            self._check_packet(self._packets.next_size())
            if found:
                break
        if not found:
            return None
        self.decoded += 1
        self._note_time(self.header(cv2.CAP_PROP_POS_MSEC))
        return frame

    def _note_time(self, milliseconds: float) -> None:
        # Some files do not say it of their last frames.
        if milliseconds > self._time:
            self._nearest = min(self._nearest, milliseconds - self._time)
            self._time = milliseconds

    def header(self, what: int) -> float:
        """Return what OpenCV tells under one of its numbers ``CAP_PROP_...``."""
        return float(self._capture.get(what))

    def _check_packet(self, size: Size | None) -> None:
        self._coded = self._coded or size
        if size is not None and self._coded is not None and size != self._coded:
            (width, height), (now_wide, now_high) = self._coded, size
            raise VideoError(
                "size",
                f"the frames of {self.name} change from {width}x{height} to {now_wide}x{now_high} "
                f"after {count_text(self.decoded, 'frame')}; give them one size, as by `ffmpeg -i "
                f"IN -vf scale={width}:{height} OUT.mp4`",
            )

    def _check_size(self) -> None:
        width, height = (
            int(self.header(what)) for what in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if max(width, height) > _LARGEST_SIDE:
            self._capture.release()
            raise VideoError(
                "size",
                f"{self.name} has frames of {width}x{height} pixels, more than {_LARGEST_SIDE} on "
                "a side; if it plays elsewhere, make it smaller, as by `ffmpeg -i IN -vf "
                "scale=W:H OUT.mp4`",
            )

    @property
    def truncated(self) -> bool:
        """Whether far fewer frames decoded than the header claims; one missing is normal."""
        few = self.decoded < self.claimed - 1 and self.decoded < _NORMAL_SHARE * self.claimed
        return few and not self._claim_is_a_guess()

    def _claim_is_a_guess(self) -> bool:
        """Whether the claim is only a length times a rate that no two frames come at.

        Files without a count, as of variable frame rate, often name the clock's rate.
        """
        rate = self.header(cv2.CAP_PROP_FPS) / 1000
        whole = self._time * rate >= _NORMAL_SHARE * self.claimed
        return whole and self._nearest * rate > _SPARSE

    def truncation(self) -> str:
        """Return the sentence that describes a truncated video."""
        return f"{self.name} gives {self.decoded} of the {self.claimed} frames its header claims"

    def check_length(self, clip_length: int) -> None:
        """Raise if the video, read to its end, gave no clip.

        Raises
        ------
        VideoError
            With reason ``unopenable``, ``truncated`` or ``too_short``.
        """
        if self.decoded >= clip_length:
            return
        if self.truncated and self.decoded:
            raise VideoError("truncated", self.truncation())
        if not self.decoded:
            raise VideoError(
                "unopenable",
                f"{self.name} opens, but none of its frames decodes: OpenCV has no decoder for its "
                f"codec {self._codec()} here, or the file is damaged; if it plays elsewhere, "
                "convert it, as by `ffmpeg -i IN -c:v libx264 OUT.mp4`",
            )
        raise VideoError(
            "too_short",
            f"{self.name} has {count_text(self.decoded, 'frame')}, fewer than a clip's "
            f"{clip_length}",
        )

    def fourcc(self) -> bytes:
        """Return the four letters of the codec."""
        number = int(self.header(cv2.CAP_PROP_FOURCC))
        return number.to_bytes(4, "little", signed=number < 0)

    def _codec(self) -> str:
        letters = self.fourcc().decode("latin-1")
        return letters if letters.isprintable() and letters.strip() else "of no name"

    def close(self) -> None:
        """Release the decoder."""
        self._capture.release()
        if self._packets is not None:
            self._packets.close()


def resized_frame(frame: np.ndarray, size: tuple[int, int], flow_size: str) -> Frame:
    """Return a frame as it decodes, (H, W, 3) uint8 BGR, at the sizes of clip and flow."""
    height, width = size
    # Bilinear, and before the change of channel order, which then has less to do.
    small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    rgb = cv2.cvtColor(small, cv2.COLOR_BGR2RGB)
    larger = frame_size_for_flow(flow_size, frame.shape[:2])
    return Frame(rgb, None if larger is None else _grey(frame, larger))


def _grey(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    resized = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.cvtColor(resized, cv2.COLOR_BGR2GRAY)


def _open(path: Path, name: str) -> cv2.VideoCapture:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # OpenCV would crash
        raise VideoError("unopenable", f"the path of {name!a} is not UTF-8; rename it") from None
    if not path.is_file():
        raise VideoError("missing", f"{name} does not exist or is not a file")
    if not os.access(path, os.R_OK):
        raise VideoError("unopenable", f"{name} may not be read: permission denied")
    # One decoding thread: the pipeline has one process per core already.
    options = [cv2.CAP_PROP_N_THREADS, 1]
    try:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, options)
    except cv2.error:
        raise VideoError("unopenable", f"{name} cannot be opened as a video") from None
    if not capture.isOpened():
        raise VideoError("unopenable", f"{name} cannot be opened as a video")
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
        with Video(path) as video:
            return video.claimed
    except Exception:  # whatever is wrong with it is told when its turn comes
        return 0


def counted_frames(path: str | os.PathLike[str], *, name: str) -> int:
    """Return how many frames of a video decode, by decoding all of them.

    Raises
    ------
    VideoError
        With reason ``missing`` or ``unopenable``.
    """
    capture = _open(Path(path), name)
    try:
        return sum(1 for _ in iter(lambda: capture.read()[0], False))
    finally:
        capture.release()


def with_frames(
    rows: Sequence[ManifestRow],
    *,
    root: Path,
    workers: int,
    count: Callable[[str], int] | None = None,
) -> list[ManifestRow]:
    """Return rows whose missing frame counts are read from the videos' headers, with progress.

    Parameters
    ----------
    rows : sequence of ManifestRow
        Some without a frame count.
    root : Path
        The data root.
    workers : int
        Threads to read headers with.
    count : callable, optional
        Takes the path of a row and returns its frames; by default `claimed_frames` below `root`.
    """
    count = count or (lambda path: claimed_frames(root / path))
    # One in several splits is looked at once.
    unknown = list(dict.fromkeys(row.path for row in rows if row.frames < 0))
    counts = each(count, unknown, workers=workers, unit="headers")
    found = dict(zip(unknown, counts, strict=True))
    return [row if row.frames >= 0 else row._replace(frames=found[row.path]) for row in rows]
