"""The 27 labels of a clip: their names, computation and mirror image (Sec. 3.2 and 3.3)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from labelgen.errors import LabelgenError
from labelgen.labels.appearance import OCTANTS, appearance_labels
from labelgen.labels.authors import authors_labels
from labelgen.labels.boundaries import boundary_sums, checked_flow
from labelgen.labels.crops import checked_crops, crop_numbers
from labelgen.labels.dense import every_crop_appearance, every_crop_motion
from labelgen.labels.motion import ORIENTATIONS, motion_labels, motion_maps
from labelgen.labels.partitions import PARTITIONS
from labelgen.video.clips import CLIP_LENGTH
from labelgen.video.decode import FRAME_SIZE

PROFILES = ("paper", "authors")
"""``paper`` follows the paper; ``authors`` repeats the released code, quirks included."""

# From here on all 1020 crops at once cost less than these few one by one; both ways agree exactly.
_DENSE_FROM = 40


class Label(NamedTuple):
    """One label: its name, and the number of values (from 1) that it can take."""

    name: str
    cardinality: int


def _label_table() -> tuple[Label, ...]:
    motion, appearance = [], []
    for name, masks, _ in PARTITIONS:
        for component in "uv":
            motion.append(Label(f"motion/{name}/{component}_location", len(masks)))
            motion.append(Label(f"motion/{name}/{component}_orientation", ORIENTATIONS))
        for extreme in ("diverse", "stable"):
            appearance.append(Label(f"appearance/{name}/{extreme}_location", len(masks)))
            appearance.append(Label(f"appearance/{name}/{extreme}_color", OCTANTS))
    motion += [Label(f"motion/global/{c}_frame", CLIP_LENGTH - 1) for c in "uv"]
    appearance.append(Label("appearance/global/color", OCTANTS))
    return (*motion, *appearance)


LABELS = _label_table()
"""The 27 labels in their order: 14 of motion, 13 of appearance."""


def clip_labels(
    frames: np.ndarray,
    flow: np.ndarray,
    crops: str | np.ndarray = "center",
    *,
    profile: str = "paper",
) -> np.ndarray:
    """Return the 27 labels of each of some crops of one clip.

    Parameters
    ----------
    frames : (16, 128, 171, 3) uint8
        RGB.
    flow : (15, 2, 128, 171) float32
        u (right) and v (down) of each frame pair, in pixels per frame.
    crops : str or (K, 2) int, optional
        ``center``, ``grid:S``, ``random:K`` or ``all``, or tops (0..16) and lefts (0..59).
    profile : {"paper", "authors"}, optional
        Whose conventions.

    Returns
    -------
    (K, 27) uint8
        1-based, in the order of `LABELS`. Under ``authors``, 0 marks grid labels without motion.

    Raises
    ------
    LabelgenError
        If a name is unknown, or ``authors`` labels of ``all`` crops are asked for.
    ValueError
        If an array has another shape or type, a crop lies outside, or flow is not finite.
    """
    check_profile(profile, crops)
    frames = _checked_frames(frames)
    if np.shape(flow) != (CLIP_LENGTH - 1, 2, *FRAME_SIZE):
        raise ValueError(
            f"flow must be {(CLIP_LENGTH - 1, 2, *FRAME_SIZE)}, got shape {np.shape(flow)}"
        )
    flow = checked_flow(flow)
    return labels_of(frames, flow, boundary_sums(flow), checked_crops(crops), profile=profile)


def labels_of(
    frames: np.ndarray,
    flow: np.ndarray,
    sums: np.ndarray,
    crops: np.ndarray,
    *,
    profile: str,
) -> np.ndarray:
    """Return the labels of a clip whose motion boundaries are at hand; see `clip_labels`."""
    if profile == "authors":
        return authors_labels(frames, flow, crops)
    maps = motion_maps(flow, sums)
    if len(crops) < _DENSE_FROM:
        return np.hstack([motion_labels(maps, crops), appearance_labels(frames, crops)])
    every = np.hstack([every_crop_motion(maps), every_crop_appearance(frames)])
    return np.ascontiguousarray(every[crop_numbers(crops)])


def check_profile(profile: str, crops: str | np.ndarray) -> None:
    """Raise `LabelgenError` if the profile is unknown or does not go with the crops."""
    if profile not in PROFILES:
        raise LabelgenError(f"unknown profile {profile!r}; use one of {', '.join(PROFILES)}")
    if profile == "authors" and isinstance(crops, str) and crops == "all":
        raise LabelgenError(
            "profile authors cuts the crop before it takes derivatives, so its labels are only "
            "made for a few crops; use center, grid:S or random:K"
        )


def _checked_frames(frames: np.ndarray) -> np.ndarray:
    frames = np.asarray(frames)
    if frames.shape != (CLIP_LENGTH, *FRAME_SIZE, 3) or frames.dtype != np.uint8:
        raise ValueError(
            f"frames must be {(CLIP_LENGTH, *FRAME_SIZE, 3)} uint8 RGB, "
            f"got {frames.dtype} of shape {frames.shape}"
        )
    return np.ascontiguousarray(frames)


def flip_labels(labels: np.ndarray, *, profile: str = "paper") -> np.ndarray:
    """Return the labels of the left-right mirrored clip.

    The mirror image of the crop at ``left`` is the crop at ``59 - left`` of the mirrored clip.
    Labels may differ from recomputed ones only where an angle lies exactly on a bin's edge or
    where candidates tie.

    Parameters
    ----------
    labels : (..., 27) uint8
        1-based.
    profile : {"paper", "authors"}, optional
        Whose labels they are.

    Returns
    -------
    (..., 27) uint8

    Raises
    ------
    LabelgenError
        If the profile is unknown.
    ValueError
        If the last axis is not 27 long or a label is out of its range.
    """
    check_profile(profile, "center")
    labels = np.asarray(labels)
    if labels.shape[-1:] != (len(LABELS),):
        raise ValueError(f"labels must be (..., {len(LABELS)}), got shape {labels.shape}")
    cardinality = np.array([label.cardinality for label in LABELS])
    if (labels > cardinality).any() or (labels < 0).any():
        raise ValueError("labels are out of range; see labelgen.LABELS for their numbers of values")
    return _MIRRORED[profile][np.arange(len(LABELS)), labels]


def _mirror_table(profile: str) -> np.ndarray:
    """Return (27, 17) uint8: the mirrored value of each value of each label; 0 stays 0."""
    table = np.tile(np.arange(17, dtype=np.uint8), (len(LABELS), 1))
    blocks = {partition.name: partition.mirrored for partition in PARTITIONS}
    bins = np.arange(ORIENTATIONS)
    # Mirroring sends angles of M_u to -a and of M_v to 180 - a. Hard bins are intervals
    # [45 k, 45 k + 45); the soft bins of the released code are centred on 45 k.
    half = 1 if profile == "paper" else 0
    turned = {"u": (-half - bins) % ORIENTATIONS, "v": (4 - half - bins) % ORIENTATIONS}
    for row, label in zip(table, LABELS, strict=True):
        _, partition, what = label.name.split("/")
        if what.endswith("_location"):
            row[1 : label.cardinality + 1] = 1 + blocks[partition]
        elif what.endswith("_orientation"):
            row[1 : label.cardinality + 1] = 1 + turned[what[0]]
    return table


_MIRRORED = {profile: _mirror_table(profile) for profile in PROFILES}
