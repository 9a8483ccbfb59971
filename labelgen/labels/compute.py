"""The 27 labels of some crops of a clip, from frames and flow (paper, Sec. 3.2 and 3.3)."""

from __future__ import annotations

import numpy as np

from labelgen.geometry import CLIP_LENGTH, FRAME_SIZE
from labelgen.labels.appearance import appearance_labels
from labelgen.labels.boundaries import boundary_sums, checked_flow
from labelgen.labels.crops import checked_crops, crop_numbers
from labelgen.labels.dense import every_crop_appearance, every_crop_motion
from labelgen.labels.motion import motion_labels, motion_maps
from labelgen.labels.profiles import check_profile

# From here on all 1020 crops at once cost less than these few one by one; both ways agree exactly.
_DENSE_FROM = 40


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
        1-based, in the order of `labelgen.LABELS`. Under ``authors``, 0 marks grid labels without
        motion.

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
        # It needs OpenCV, which the other profile does not.
        from labelgen.labels.authors import authors_labels

        return authors_labels(frames, flow, crops)
    if len(crops) < _DENSE_FROM:
        maps = motion_maps(flow, sums, crops)
        return np.hstack([motion_labels(maps, crops), appearance_labels(frames, crops)])
    every = np.hstack([every_crop_motion(motion_maps(flow, sums)), every_crop_appearance(frames)])
    return np.ascontiguousarray(every[crop_numbers(crops)])


def _checked_frames(frames: np.ndarray) -> np.ndarray:
    frames = np.asarray(frames)
    if frames.shape != (CLIP_LENGTH, *FRAME_SIZE, 3) or frames.dtype != np.uint8:
        raise ValueError(
            f"frames must be {(CLIP_LENGTH, *FRAME_SIZE, 3)} uint8 RGB, "
            f"got {frames.dtype} of shape {frames.shape}"
        )
    return np.ascontiguousarray(frames)
