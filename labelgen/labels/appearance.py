"""The 13 appearance labels: where colour changes most and least, and which colour (Sec. 3.3)."""

from __future__ import annotations

import numpy as np

from labelgen.geometry import CROP_SIZE, OCTANTS
from labelgen.kernels import kernel
from labelgen.labels.partitions import ATOMS, BOUNDS, MEMBERS

APPEARANCE_LABELS = 13

_LEVELS = 256


def appearance_labels(frames: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """Return the appearance labels of some crops of one clip.

    Parameters
    ----------
    frames : (T, H, W, 3) uint8
        RGB.
    crops : (K, 2) int64
        Top and left of each crop.

    Returns
    -------
    (K, 13) uint8
        1-based, in the order of `labelgen.LABELS`.
    """
    labels = np.empty((len(crops), APPEARANCE_LABELS), dtype=np.uint8)
    _label_crops(frames, crops, ATOMS, MEMBERS, BOUNDS, labels)
    return labels


def block_scores(frames: np.ndarray) -> np.ndarray:
    """Return the colour stability of every block of one crop (paper, Eq. 2).

    Parameters
    ----------
    frames : (T, 112, 112, 3) uint8
        The frames of the crop, RGB.

    Returns
    -------
    (28,) float64
        Intersection over union of the frames' histograms, mean of the three channels, 0..1, for
        the blocks of `labelgen.labels.partitions.MASKS`.
    """
    blocks = len(MEMBERS)
    octants = np.empty((blocks, OCTANTS))
    scores = np.empty(blocks)
    _measure_blocks(frames, 0, 0, ATOMS, MEMBERS, scores, octants)
    return scores


@kernel()
def _label_crops(frames, crops, atoms, members, bounds, labels):  # type: ignore[no-untyped-def]
    scores = np.empty(members.shape[0])
    octants = np.empty((members.shape[0], OCTANTS))
    for k in range(crops.shape[0]):
        _measure_blocks(frames, crops[k, 0], crops[k, 1], atoms, members, scores, octants)
        decide(scores, octants, bounds, labels[k])


@kernel()
def decide(scores, octants, bounds, labels):  # type: ignore[no-untyped-def]
    """Fill the labels of one crop from the scores (28,) and octant counts (28, 8) of its blocks.

    Ties go to the first.
    """
    partitions = bounds.size - 1
    for p in range(partitions):
        first, last = bounds[p], bounds[p + 1]
        diverse = np.argmin(scores[first:last])
        stable = np.argmax(scores[first:last])
        labels[4 * p] = 1 + diverse
        labels[4 * p + 1] = 1 + np.argmax(octants[first + diverse])
        labels[4 * p + 2] = 1 + stable
        labels[4 * p + 3] = 1 + np.argmax(octants[first + stable])
    # The blocks of the first partition tile the crop.
    labels[4 * partitions] = 1 + np.argmax(octants[: bounds[1]].sum(axis=0))


@kernel()
def _measure_blocks(frames, top, left, atoms, members, scores, octants):  # type: ignore[no-untyped-def]
    """Fill the stability score and the octant counts of each block of one crop."""
    blocks, atom_count = members.shape
    # Counts stay below 112 * 112 < 2**15; int16 lets twice as many bins into a vector register.
    atom_bins = np.empty((atom_count, 3 * _LEVELS), np.int16)
    bins = np.empty(3 * _LEVELS, np.int16)
    lowest = np.empty((blocks, 3 * _LEVELS), np.int16)
    highest = np.empty((blocks, 3 * _LEVELS), np.int16)
    atom_octants = np.zeros((atom_count, OCTANTS), np.int32)
    for t in range(frames.shape[0]):
        _count_atoms(frames[t], top, left, atoms, atom_bins, atom_octants)
        for block in range(blocks):
            _add_members(atom_bins, members[block], bins)
            _narrow(bins, lowest[block], highest[block], t == 0)
    for block in range(blocks):
        scores[block] = stability(lowest[block], highest[block])
        octants[block] = 0
        for atom in range(atom_count):
            if members[block, atom]:
                octants[block] += atom_octants[atom]


@kernel()
def _count_atoms(frame, top, left, atoms, bins, octants):  # type: ignore[no-untyped-def]
    """Histogram one frame's crop per atom: R, G, B levels side by side, and colour octants."""
    bins[:] = 0
    for i in range(CROP_SIZE):
        for j in range(CROP_SIZE):
            atom = atoms[i, j]
            red, green, blue = frame[top + i, left + j]
            bins[atom, red] += 1
            bins[atom, _LEVELS + green] += 1
            bins[atom, 2 * _LEVELS + blue] += 1
            octants[atom, octant(red, green, blue)] += 1


@kernel(inline="always")
def octant(red, green, blue):  # type: ignore[no-untyped-def]
    """Octant of a colour, 0-based; blue counts inverted, as in the authors' code."""
    return 4 * (1 - (blue >> 7)) + 2 * (red >> 7) + (green >> 7)


@kernel()
def _add_members(atom_bins, members, bins):  # type: ignore[no-untyped-def]
    bins[:] = 0
    for atom in range(members.size):
        if members[atom]:
            for k in range(bins.size):
                bins[k] += atom_bins[atom, k]


@kernel()
def _narrow(bins, lowest, highest, first):  # type: ignore[no-untyped-def]
    """Update the minimum and maximum over frames of one block's histogram."""
    if first:
        lowest[:] = bins
        highest[:] = bins
    for k in range(bins.size):
        lowest[k] = min(lowest[k], bins[k])
        highest[k] = max(highest[k], bins[k])


@kernel()
def stability(lowest, highest):  # type: ignore[no-untyped-def]
    """Mean over channels of intersection over union (Eq. 2), from (768,) minima and maxima."""
    score = 0.0
    for channel in range(3):
        levels = slice(channel * _LEVELS, (channel + 1) * _LEVELS)
        score += overlap(lowest[levels], highest[levels])
    return score / 3.0


@kernel()
def overlap(lowest, highest):  # type: ignore[no-untyped-def]
    """Intersection over union of one channel, from minima and maxima over frames, (256,)."""
    intersection, union = np.int32(0), np.int32(0)
    for k in range(lowest.size):
        intersection += lowest[k]
        union += highest[k]
    return intersection / union
