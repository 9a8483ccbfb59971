"""The 14 motion labels: where motion boundaries are largest, which way, and when (Sec. 3.2).

Every decision compares sums of magnitudes. Magnitudes are first rounded to 38 binary digits of the
clip's largest, and kept in float64 as whole numbers: sums over a frame stay below 2**53 and are
exact, so they depend neither on the order of summation nor on the way a block is put together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from labelgen.geometry import CROP_SIZE, ORIENTATIONS
from labelgen.kernels import kernel
from labelgen.labels.boundaries import (
    largest_displacement,
    prewitt_columns,
    x_derivative,
    y_derivative,
)
from labelgen.labels.partitions import AREAS, ATOMS, BOUNDS, MEMBERS

MOTION_LABELS = 14

# 128 * 171 pixels are fewer than 2**15, and 38 + 15 = 53 binary digits is what float64 holds.
_WHOLE = 2.0**38


class MotionMaps(NamedTuple):
    """What the motion labels of any crop of one clip are made of, per component u, v.

    Attributes
    ----------
    magnitude : (2, H, W) float64
        |M| in whole units of a common scale.
    orientation : (2, H, W) uint8
        Orientation bin of M, 0..7.
    pairs : (2, T-1, H, W-111) float64
        Each frame pair's own boundary magnitude, in whole units of a common scale, summed over
        the 112 pixels of a row that start at each column; unset where no crop asks for it.
    """

    magnitude: np.ndarray
    orientation: np.ndarray
    pairs: np.ndarray


def motion_maps(flow: np.ndarray, sums: np.ndarray, crops: np.ndarray | None = None) -> MotionMaps:
    """Return magnitudes and orientations of a clip's motion boundaries on the full frame.

    Parameters
    ----------
    flow : (T-1, 2, H, W) float32
        Pixels per frame.
    sums : (2, 2, H, W) float64
        Its summed boundaries, `labelgen.labels.boundaries.boundary_sums`.
    crops : (K, 2) int64, optional
        Those that will be asked about, which saves time; all if none are given.

    Returns
    -------
    MotionMaps
    """
    pairs, components, height, width = flow.shape
    magnitude = np.empty((components, height, width))
    orientation = np.empty((components, height, width), dtype=np.uint8)
    _polar(sums, magnitude, orientation)
    _to_whole_units(magnitude, _scale(magnitude.max()))
    segments = np.empty((components, pairs, height, width - CROP_SIZE + 1))
    if crops is None:
        rows, lefts = (0, height), (0, segments.shape[3])
    else:
        (top, left), (lowest, rightmost) = crops.min(axis=0).tolist(), crops.max(axis=0).tolist()
        rows, lefts = (top, lowest + CROP_SIZE), (left, rightmost + 1)
    # A difference of two displacements in each direction is at most sqrt(2) times the largest.
    _pair_segments(flow, _scale(2.0 * largest_displacement(flow)), rows, lefts, segments)
    return MotionMaps(magnitude, orientation, segments)


def motion_labels(maps: MotionMaps, crops: np.ndarray) -> np.ndarray:
    """Return the motion labels of some crops of one clip.

    Parameters
    ----------
    maps : MotionMaps
        Of the clip.
    crops : (K, 2) int64
        Top and left of each crop.

    Returns
    -------
    (K, 14) uint8
        1-based, in the order of `labelgen.LABELS`.
    """
    labels = np.empty((len(crops), MOTION_LABELS), dtype=np.uint8)
    _label_crops(*maps, crops, ATOMS, MEMBERS, AREAS, BOUNDS, labels)
    return labels


def _scale(largest: float) -> float:
    """Return the power of two that brings the largest magnitude to between 1/2 and 1."""
    _, exponent = np.frexp(largest)
    return float(np.ldexp(1.0, min(-int(exponent), 900)))


@kernel()
def _polar(sums, magnitude, orientation):  # type: ignore[no-untyped-def]
    """Fill the magnitude and the orientation bin, both (2, H, W), of sums (2, 2, H, W)."""
    for c in range(sums.shape[0]):
        for i in range(sums.shape[2]):
            for j in range(sums.shape[3]):
                x, y = sums[c, 0, i, j], sums[c, 1, i, j]
                magnitude[c, i, j] = np.sqrt(x * x + y * y)
                orientation[c, i, j] = _orientation_bin(x, -y)


@kernel()
def _to_whole_units(values, scale):  # type: ignore[no-untyped-def]
    flat = values.reshape(-1)
    for i in range(flat.size):
        flat[i] = np.rint(flat[i] * scale * _WHOLE)


@kernel()
def _pair_segments(flow, scale, rows, lefts, segments):  # type: ignore[no-untyped-def]
    """Fill some rows and columns of `segments`, the `MotionMaps.pairs` of a flow.

    `scale` brings magnitudes below 1; of `rows` and `lefts` the first and one past the last.
    """
    pairs, components, _, width = flow.shape
    sums, differences = np.empty(width + 2), np.empty(width + 2)
    # Loops that begin at 0 are vectorised.
    near_sums, near_differences = sums[lefts[0] :], differences[lefts[0] :]
    row = np.empty(lefts[1] - lefts[0] + CROP_SIZE - 1)
    for pair in range(pairs):
        for c in range(components):
            field, sums_of_field = flow[pair, c], segments[c, pair]
            for y in range(rows[0], rows[1]):
                prewitt_columns(field, y, sums, differences)
                for x in range(row.size):
                    a = scale * x_derivative(near_sums, x)
                    b = scale * y_derivative(near_differences, x)
                    row[x] = np.rint(np.sqrt(a * a + b * b) * _WHOLE)
                _slide(row, sums_of_field[y, lefts[0] : lefts[1]])


# Whole numbers add up the same in any order, so the compiler may choose the fastest.
@kernel(fastmath={"reassoc"})
def _slide(row, sums):  # type: ignore[no-untyped-def]
    """Fill `sums` with the sums of 112 consecutive values of `row`."""
    total = 0.0
    for x in range(CROP_SIZE):
        total += row[x]
    sums[0] = total
    for x in range(1, sums.size):
        total += row[x + CROP_SIZE - 1] - row[x - 1]
        sums[x] = total


@kernel(inline="always")
def _orientation_bin(x, up):  # type: ignore[no-untyped-def]
    # Each quadrant owns the half-axis it starts with, going counterclockwise.
    if x > 0 and up >= 0:
        return 0 if up < x else 1
    if x <= 0 and up > 0:
        return 2 if -x < up else 3
    if x < 0 and up <= 0:
        return 4 if -up < -x else 5
    if up < 0:
        return 6 if x < -up else 7
    return 0


@kernel()
def _label_crops(magnitude, orientation, pairs, crops, atoms, members, areas, bounds, labels):  # type: ignore[no-untyped-def]
    bins = np.empty((members.shape[0], ORIENTATIONS))
    totals = np.empty(pairs.shape[1])
    for k in range(crops.shape[0]):
        top, left = crops[k]
        for c in range(2):
            _block_bins(magnitude[c], orientation[c], atoms, members, top, left, bins)
            for pair in range(totals.size):
                totals[pair] = pairs[c, pair, top : top + CROP_SIZE, left].sum()
            decide(bins, areas, bounds, totals, c, labels[k])


@kernel()
def decide(bins, areas, bounds, totals, c, labels):  # type: ignore[no-untyped-def]
    """Fill the labels of component `c` of one crop.

    Of each block and orientation the sum of magnitudes, `bins` (28, 8); of each frame pair the
    sum over the crop, `totals` (T-1,). Ties go to the first.
    """
    partitions = bounds.size - 1
    for p in range(partitions):
        first, last = bounds[p], bounds[p + 1]
        block = first
        largest = -1.0
        for candidate in range(first, last):
            mean = bins[candidate].sum() / areas[candidate]
            if mean > largest:
                block, largest = candidate, mean
        labels[4 * p + 2 * c] = 1 + block - first
        labels[4 * p + 2 * c + 1] = 1 + np.argmax(bins[block])
    labels[4 * partitions + c] = 1 + np.argmax(totals)


@kernel()
def _block_bins(magnitude, orientation, atoms, members, top, left, bins):  # type: ignore[no-untyped-def]
    """Sum of magnitudes per block and orientation bin, over one crop."""
    sums = np.zeros((members.shape[1], ORIENTATIONS))
    for i in range(CROP_SIZE):
        for j in range(CROP_SIZE):
            y, x = top + i, left + j
            sums[atoms[i, j], orientation[y, x]] += magnitude[y, x]
    bins[:] = 0
    for block in range(members.shape[0]):
        for atom in range(members.shape[1]):
            if members[block, atom]:
                for k in range(ORIENTATIONS):
                    bins[block, k] += sums[atom, k]
