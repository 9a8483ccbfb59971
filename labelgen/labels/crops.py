"""Crops: 112x112 windows of the 128x171 frame (paper, Sec. 3.4: random crops)."""

from __future__ import annotations

import numpy as np

from labelgen.errors import LabelgenError
from labelgen.geometry import MAX_LEFT, MAX_TOP

CROP_NAMES = "center, grid:S (every S pixels), random:K (K different ones) or all (1020)"


def crop_positions(name: str, *, seed: int = 0) -> np.ndarray:
    """Return the crops that a name stands for.

    Parameters
    ----------
    name : str
        ``center``; ``grid:S``, every S-th position down and across; ``random:K``, K different
        positions, sorted; or ``all``, the 17 x 60 = 1020 positions.
    seed : int, optional
        Of ``random:K``.

    Returns
    -------
    (K, 2) int16
        Top and left of each crop: 0..16 and 0..59 pixels.

    Raises
    ------
    LabelgenError
        If the name is none of these.
    """
    kind, _, number = name.partition(":")
    everywhere = np.indices((MAX_TOP + 1, MAX_LEFT + 1)).reshape(2, -1).T.astype(np.int16)
    if name == "center":
        return np.array([[MAX_TOP // 2, MAX_LEFT // 2]], dtype=np.int16)
    if name == "all":
        return everywhere
    if kind == "grid" and number.isdecimal() and int(number) >= 1:
        return everywhere[(everywhere % int(number) == 0).all(axis=1)]
    if kind == "random" and number.isdecimal() and 1 <= int(number) <= len(everywhere):
        chosen = np.random.default_rng(seed).choice(len(everywhere), int(number), replace=False)
        return everywhere[np.sort(chosen)]
    raise LabelgenError(f"unknown crops {name!r}; use {CROP_NAMES}")


def crop_numbers(crops: np.ndarray) -> np.ndarray:
    """Return the place of each crop, (K, 2), among all 1020: their order is row by row."""
    return crops[:, 0] * (MAX_LEFT + 1) + crops[:, 1]


def checked_crops(crops: str | np.ndarray) -> np.ndarray:
    """Return crops given by name or as positions, as (K, 2) int64.

    Parameters
    ----------
    crops : str or (K, 2) int
        A name for `crop_positions`, or tops and lefts.

    Returns
    -------
    (K, 2) int64

    Raises
    ------
    LabelgenError
        If the name is unknown.
    ValueError
        If positions have another shape or type, or lie outside 0..16, 0..59.
    """
    if isinstance(crops, str):
        return crop_positions(crops).astype(np.int64)
    positions = np.asarray(crops)
    if positions.ndim != 2 or positions.shape[1] != 2 or positions.dtype.kind not in "iu":
        raise ValueError(
            f"crops must be (K, 2) integers, got {positions.dtype} of shape {positions.shape}"
        )
    outside = (positions < 0) | (positions > [MAX_TOP, MAX_LEFT])
    if outside.any():
        bad = positions[outside.any(axis=1)][0].tolist()
        raise ValueError(
            f"crop (top, left) = {tuple(bad)} lies outside the frame; "
            f"top is 0..{MAX_TOP}, left 0..{MAX_LEFT}"
        )
    return np.ascontiguousarray(positions, dtype=np.int64)


def central_crop(crops: np.ndarray) -> int:
    """Return the index of the crop of (K, 2) that is nearest to the middle of the frame."""
    middle = np.array([MAX_TOP / 2, MAX_LEFT / 2])
    return int(np.abs(crops - middle).sum(axis=1).argmin())
