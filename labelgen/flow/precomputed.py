"""Optical flow that was computed before, from images of 8 bits (paper, Sec. 3.2).

A level k of 0..255 stands for the displacement ``k * 2 * bound / 255 - bound``, in pixels of the
image. This is what the paper's released code reads, with a bound of 20; and ``flow_levels``, its
mirror, is what dense_flow and its relatives write, to the nearest level.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from labelgen.errors import LabelgenError, VideoError
from labelgen.flow.compute import resized_flow
from labelgen.flow.methods import PRECOMPUTED, FlowSettings
from labelgen.geometry import FRAME_SIZE
from labelgen.progress import count_text
from labelgen.video.frames import (
    FLOW_PREFIXES,
    check_apart,
    folder_names,
    folder_of,
    numbered_images,
    read_image,
)
from labelgen.video.manifest import ManifestRow

EXPORT_FILE = "export.json"
"""In a folder of flow that `labelgen export-flow` wrote: with which bound, of which clips."""

_LEVELS = 255
_REASON = "bad_flow"
# Rounding of colours in a JPEG; a picture of anything differs more.
_ALMOST_GREY = 16


def check(bound: float) -> None:
    """Raise ValueError unless a bound is a finite number above 0."""
    if not (math.isfinite(bound) and bound > 0):
        raise ValueError(f"the bound must be above 0, got {bound:g}")


def flow_of_levels(levels: np.ndarray, bound: float) -> np.ndarray:
    """Return the displacements, float32, that levels 0..255 of any shape stand for."""
    return levels.astype(np.float32) * np.float32(2 * bound) / np.float32(_LEVELS) - np.float32(
        bound
    )


def flow_levels(flow: np.ndarray, bound: float) -> np.ndarray:
    """Return the levels, uint8, nearest to displacements of any shape; those beyond are cut."""
    levels = np.rint(_LEVELS * (flow.astype(np.float64) + bound) / (2 * bound))
    return levels.clip(0, _LEVELS).astype(np.uint8)


class Layout(NamedTuple):
    """Where the images of one video lie.

    Attributes
    ----------
    x, y : Path
        The folders of both components.
    prefixes : (str, str) or (None, None)
        How the names of their images begin; any way if None.
    """

    x: Path
    y: Path
    prefixes: tuple[str, str] | tuple[None, None]


def layout_of(root: Path, path: str) -> Layout | None:
    """Return where the flow of a video lies below `root`, None if there is none.

    Either ``u/VIDEO/frame000001.jpg`` and ``v/VIDEO/...``, or ``VIDEO/flow_x_00001.jpg`` and
    ``VIDEO/flow_y_00001.jpg``; for VIDEO see `labelgen.video.frames.folder_of`.

    Raises
    ------
    VideoError
        With reason ``bad_flow`` if there are both.
    """
    for name in folder_names(path):
        both = Layout(root / "u" / name, root / "v" / name, (None, None))
        one = Layout(root / name, root / name, FLOW_PREFIXES)
        there = [both.x.is_dir() or both.y.is_dir(), _holds_flow(one.x)]
        if all(there):
            raise VideoError(_REASON, f"{path} has flow in {name} and in u/{name}; keep one")
        if any(there):
            return both if there[0] else one
    return None


def _holds_flow(folder: Path) -> bool:
    return folder.is_dir() and any(
        next(folder.glob(f"{prefix}*"), None) is not None for prefix in FLOW_PREFIXES
    )


def check_flow_root(root: Path | None, settings: FlowSettings, *, clip_stride: int) -> None:
    """Raise unless there is a folder of flow if, and only if, flow is to be read.

    Raises
    ------
    LabelgenError
        Then, and if the flow was exported with another bound or of other clips.
    """
    if settings.method != PRECOMPUTED:
        if root is not None:
            raise LabelgenError(
                f"--flow-root {root} is for flow that was computed before, and --flow "
                f"{settings.method} computes it; use --flow {PRECOMPUTED}, or leave it away"
            )
        return
    if root is None:
        raise LabelgenError(f"--flow {PRECOMPUTED} needs the folder of the flow; add --flow-root")
    if not root.is_dir():
        raise LabelgenError(f"--flow-root {root} is not a folder; name the one that holds the flow")
    if (root / EXPORT_FILE).is_file():
        _check_exported(root, settings.parameters["bound"], clip_stride)


def _check_exported(root: Path, bound: float, clip_stride: int) -> None:
    try:
        record = json.loads((root / EXPORT_FILE).read_text(encoding="utf-8"))
        written, every = float(record["bound"]), int(record["clip_stride"])
    except (OSError, ValueError, KeyError, TypeError):
        raise LabelgenError(f"{root / EXPORT_FILE} is damaged; export the flow again") from None
    if written != bound:
        raise LabelgenError(
            f"the flow in {root} was written with a bound of {written:g}, not {bound:g}; use "
            f"--flow-bound {written:g}"
        )
    # The flow of pairs in no clip is not theirs.
    if every < 1 or clip_stride % every:
        raise LabelgenError(
            f"the flow in {root} is that of clips every {every} frames, and clips every "
            f"{clip_stride} would use pairs that it lacks; use --clip-stride {every} or a multiple"
        )


def check_flow_apart(root: Path, rows: Sequence[ManifestRow]) -> None:
    """Raise `LabelgenError` if one folder of flow would stand for two videos."""
    for place in (root, root / "u"):
        check_apart(rows, partial(folder_of, place))


class FlowImages:
    """The flow images of one video; what lies beside them is passed over.

    Parameters
    ----------
    root : Path
        The folder that the flow of all videos lies in; see `layout_of`.
    path : str
        Of the video, relative.
    bound : float
        Displacement that level 255 stands for, in pixels of the images.
    as_released : bool, optional
        Whether images are resized as the paper's released code does it: before levels become
        displacements, so that they are rounded once more.

    Attributes
    ----------
    count : int
        Images of each component.

    Raises
    ------
    VideoError
        With reason ``missing`` or ``bad_flow``.
    """

    def __init__(self, root: Path, path: str, *, bound: float, as_released: bool = False) -> None:
        self._path, self._bound, self._as_released = path, bound, as_released
        layout = layout_of(root, path)
        if layout is None:
            raise VideoError(
                "missing",
                f"there is no flow of {path}: neither u/{folder_names(path)[0]} nor flow_x_ "
                f"images in {folder_names(path)[0]}",
            )
        self._images = [
            numbered_images(folder, what=f"the {axis} flow of {path}", reason=_REASON, prefix=start)
            if folder.is_dir()
            else []
            for axis, folder, start in zip("xy", layout[:2], layout.prefixes, strict=True)
        ]
        x, y = map(len, self._images)
        if x != y or not x:
            raise VideoError(
                _REASON, f"{path} has {count_text(x, 'image')} of x flow and {y} of y flow"
            )
        self.count = x
        self._shape = self._read_image(self._images[0][0]).shape

    def check_count(self, frames: int) -> None:
        """Raise unless there is an image for each pair of frames, or for each frame.

        Where there is one for each frame, the last one stands for no pair.

        Raises
        ------
        VideoError
            With reason ``bad_flow``.
        """
        if self.count not in (frames - 1, frames):
            raise VideoError(
                _REASON,
                f"{self._path} has {count_text(frames, 'frame')} and "
                f"{count_text(self.count, 'flow image')}; there must be {frames - 1} or {frames}",
            )

    def read(self, first: int, count: int) -> np.ndarray:
        """Return the flow of `count` pairs of frames, from the pair that frame `first` begins.

        Returns
        -------
        (count, 2, 128, 171) float32
            u and v in pixels of the 128x171 frame.

        Raises
        ------
        VideoError
            With reason ``bad_flow`` if an image is damaged or of another size than the first.
        """
        chosen = slice(first, first + count)
        pairs = zip(*(images[chosen] for images in self._images), strict=True)
        levels = np.array([[self._checked(x), self._checked(y)] for x, y in pairs])
        if self._shape == FRAME_SIZE:
            return flow_of_levels(levels, self._bound)
        if not self._as_released:
            return resized_flow(flow_of_levels(levels, self._bound), FRAME_SIZE)
        height, width = FRAME_SIZE
        small = [
            cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
            for image in levels.reshape(-1, *self._shape)
        ]
        # Released code leaves vectors as long as they were; labels are the same either way.
        scale = np.array([width / self._shape[1], height / self._shape[0]], dtype=np.float32)
        flow = flow_of_levels(np.reshape(small, (-1, 2, *FRAME_SIZE)), self._bound)
        return np.asarray(flow * scale[:, None, None])

    def _checked(self, file: Path) -> np.ndarray:
        image = self._read_image(file)
        if image.shape != self._shape:
            (height, width), (first_height, first_width) = image.shape, self._shape
            raise VideoError(
                _REASON,
                f"{self._name(file)} is {width}x{height}, the first {first_width}x{first_height}",
            )
        return image

    def _read_image(self, file: Path) -> np.ndarray:
        name = self._name(file)
        image = read_image(file, name=name, reason=_REASON, flags=cv2.IMREAD_UNCHANGED)
        if image.dtype != np.uint8:
            raise VideoError(_REASON, f"{name} is not of 8 bits but {image.dtype}")
        if image.ndim == 3 and np.ptp(image[..., :3], axis=2).max() > _ALMOST_GREY:
            raise VideoError(_REASON, f"{name} is a picture in colours, not one component of flow")
        return image if image.ndim == 2 else np.ascontiguousarray(image[..., 0])

    def _name(self, file: Path) -> str:
        return f"flow of {self._path}: {file.parent.name}/{file.name}"
