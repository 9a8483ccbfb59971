"""The table of the 27 labels: names, numbers of values, mirror images (paper, Sec. 3.2 and 3.3)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from labelgen.geometry import CLIP_LENGTH, OCTANTS, ORIENTATIONS
from labelgen.labels.partitions import PARTITIONS
from labelgen.labels.profiles import PROFILES, check_profile


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


_MOST = np.array([label.cardinality for label in LABELS])


def in_range(labels: np.ndarray) -> bool:
    """Whether (..., 27) labels are values that labels have, or 0 as the released code's may be."""
    return bool((labels <= _MOST).all() and (labels >= 0).all())


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
    if not in_range(labels):
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
