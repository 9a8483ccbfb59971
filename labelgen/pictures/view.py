"""What a picture of a clip shows, before it is drawn: the blocks that labels name, and how.

A `ClipView` is of one crop of one clip, stored in a shard or read from a video (Fig. 3 to 5).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from labelgen.errors import LabelgenError
from labelgen.geometry import CROP_SIZE, MAX_LEFT, MAX_TOP
from labelgen.labels.crops import central_crop, crop_positions
from labelgen.labels.partitions import PARTITIONS
from labelgen.labels.table import LABELS
from labelgen.pictures.palette import STYLES, orientation_angle
from labelgen.shards.sequence import Shards


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mark:
    """A block that a location label names, and what is told of it.

    Attributes
    ----------
    partition : str
        ``grid``, ``rings`` or ``triangles``.
    what : str
        Why it won: ``u``, ``v`` (most motion), ``diverse`` or ``stable`` (colours).
    block : int
        Its number, from 1.
    mask : (112, 112) bool
        Its pixels in the crop.
    anchor : (float, float)
        Row and column in the crop of a point well inside it.
    angle : float or None
        Of motion: where M points, degrees counterclockwise from the right on the screen.
    colour : int or None
        Of colours: the dominant one, 1..8.
    """

    partition: str
    what: str
    block: int
    mask: np.ndarray
    anchor: tuple[float, float]
    angle: float | None = None
    colour: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipView:
    """One crop of a clip and its labels.

    Attributes
    ----------
    video : str
    start : int
        First frame, 0-based.
    profile : str
    crop : (int, int)
        Top and left.
    labels : dict of str to int
        All 27 by name.
    marks : tuple of Mark
        Of u, v, diverse and stable, for each partition; none where a label is 0.
    frames : (16, 128, 171, 3) uint8 or None
        RGB.
    boundaries : (4, 128, 171) float32 or None
        M_u and M_v.
    flow : (15, 2, 128, 171) float32 or None
    """

    video: str
    start: int
    profile: str
    crop: tuple[int, int]
    labels: dict[str, int]
    marks: tuple[Mark, ...]
    frames: np.ndarray | None
    boundaries: np.ndarray | None
    flow: np.ndarray | None

    @property
    def pairs(self) -> dict[str, int]:
        """The frame pair with the largest motion, 1..15, for ``u`` and ``v``."""
        return {c: self.labels[f"motion/global/{c}_frame"] for c in "uv"}

    @property
    def colour(self) -> int:
        """The dominant colour of the whole crop, 1..8."""
        return self.labels["appearance/global/color"]


def marks_of(labels: dict[str, int], *, profile: str) -> tuple[Mark, ...]:
    """Return the blocks that labels name.

    Parameters
    ----------
    labels : dict of str to int
        All 27 by name, from 1; a location of 0, of the released code, names no block.
    profile : {"paper", "authors"}

    Returns
    -------
    tuple of Mark
        By partition, then u, v, diverse, stable.
    """
    marks = []
    for partition in PARTITIONS:
        for what in STYLES:
            name = f"{'motion' if what in 'uv' else 'appearance'}/{partition.name}/{what}"
            block = labels[f"{name}_location"]
            if not block:
                continue
            way, colour = (labels.get(f"{name}_{tells}") for tells in ("orientation", "color"))
            mask = partition.masks[block - 1]
            mark = Mark(
                partition=partition.name,
                what=what,
                block=block,
                mask=mask,
                anchor=block_anchor(mask),
                angle=orientation_angle(way, profile=profile) if way else None,
                colour=colour,
            )
            marks.append(mark)
    return tuple(marks)


def block_anchor(mask: np.ndarray) -> tuple[float, float]:
    """Return a point far from the block's edge: of all such points the one nearest its middle."""
    inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    points = np.argwhere(inside >= inside.max() - 1)
    away = np.hypot(*(points - np.argwhere(mask).mean(axis=0)).T)
    # Of a ring, all four sides are as near: the upper one.
    near = points[away <= away.min() + 1]
    upper = near[near[:, 0] <= near[:, 0].min() + 2]
    row, column = upper.mean(axis=0).tolist()
    return row, column


def clip_view(
    labels: np.ndarray,
    *,
    video: str,
    start: int,
    crop: tuple[int, int],
    profile: str = "paper",
    frames: np.ndarray | None = None,
    boundaries: np.ndarray | None = None,
    flow: np.ndarray | None = None,
) -> ClipView:
    """Return the view of one crop, from its labels (27,) and what else is known of the clip."""
    names = [label.name for label in LABELS]
    told = dict(zip(names, np.asarray(labels).tolist(), strict=True))
    return ClipView(
        video=video,
        start=start,
        profile=profile,
        crop=crop,
        labels=told,
        marks=marks_of(told, profile=profile),
        frames=frames,
        boundaries=boundaries,
        flow=flow,
    )


def stored_view(shards: Shards, clip: int, crop: tuple[int, int] | None = None) -> ClipView:
    """Return the view of a stored clip.

    Parameters
    ----------
    shards : Shards
    clip : int
        Its number there.
    crop : (int, int), optional
        Top and left; by default the most central crop that is stored.

    Raises
    ------
    LabelgenError
        If there is no such clip, or the labels of this crop are not stored.
    """
    if not 0 <= clip < len(shards):
        raise LabelgenError(
            f"{shards.path} holds clips 0 to {len(shards) - 1}, and no clip {clip}"
            if len(shards)
            else f"{shards.path} holds no clip yet; labelgen extract makes them"
        )
    if crop is None and len(shards.crops):
        top, left = shards.crops[central_crop(shards.crops)].tolist()
        crop = (top, left)
    labels = shards.crop(clip, *(crop or (0, 0)))
    video, start = shards.video(clip)
    return clip_view(
        labels,
        video=video,
        start=start,
        crop=crop or (0, 0),
        profile=shards.profile,
        frames=shards.frames(clip) if shards.has_frames else None,
        boundaries=shards.motion_boundaries(clip),
        flow=shards.flow(clip),
    )


def film_view(video: Path, start: int = 0, crop: tuple[int, int] | None = None) -> ClipView:
    """Return the view of 16 frames of a video file, labelled here and now by the defaults.

    Parameters
    ----------
    video : Path
    start : int, optional
        First frame, 0-based.
    crop : (int, int), optional
        Top and left; by default the central crop.

    Raises
    ------
    LabelgenError
        If the video cannot be read, is too short, or the crop lies outside the frame.
    """
    from labelgen.flow.compute import optical_flow
    from labelgen.labels.boundaries import motion_boundaries
    from labelgen.labels.compute import clip_labels
    from labelgen.video.clips import read_clips

    top, left = crop or crop_positions("center")[0].tolist()
    if not (0 <= top <= MAX_TOP and 0 <= left <= MAX_LEFT):
        raise LabelgenError(
            f"a crop of top {top}, left {left} lies outside the frame; top is 0 to {MAX_TOP}, "
            f"left 0 to {MAX_LEFT}"
        )
    begin = 0
    for begin, frames in read_clips(video, stride=1):  # noqa: B007
        if begin == start:
            break
    else:
        raise LabelgenError(
            f"{video} has no 16 frames from frame {start} on; the last 16 begin at {begin}"
        )
    flow = optical_flow(frames)
    return clip_view(
        clip_labels(frames, flow, np.array([[top, left]]))[0],
        video=video.name,
        start=start,
        crop=(top, left),
        frames=frames,
        boundaries=motion_boundaries(flow),
        flow=flow,
    )


def window(crop: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns of a frame that a crop takes."""
    top, left = crop
    return slice(top, top + CROP_SIZE), slice(left, left + CROP_SIZE)
