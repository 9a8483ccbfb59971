"""The three partitions of a 112x112 crop into numbered blocks (paper, Fig. 4), as data.

Blocks of a partition may overlap (two triangles share a diagonal) and partitions cut across each
other. The *atoms* are the largest pixel sets that no block divides: any sum over a block is a sum
over its atoms, so that pixels are visited once for all three partitions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from labelgen.geometry import CROP_SIZE


class Partition(NamedTuple):
    """One way to divide a crop.

    Attributes
    ----------
    name : str
        As it stands in the label names.
    masks : (B, 112, 112) bool
        The pixels of each block; block number is index + 1.
    mirrored : (B,) int64
        Index of the block where each block lies after a left-right flip of the crop.
    """

    name: str
    masks: np.ndarray
    mirrored: np.ndarray


def _partition(name: str, masks: list[np.ndarray]) -> Partition:
    stack = np.stack(masks)
    same = (stack[:, None, :, ::-1] == stack[None]).all(axis=(2, 3))
    return Partition(name, stack, same.argmax(axis=1))


def _grid() -> Partition:
    """Blocks of 28x28, row-major: 1 is top left, 16 bottom right."""
    row, column = np.indices((CROP_SIZE, CROP_SIZE)) // 28
    number = 4 * row + column
    return _partition("grid", [number == k for k in range(16)])


def _rings() -> Partition:
    """Square rings: 1 is the centred 28x28 square, 4 the outermost ring."""
    row, column = np.indices((CROP_SIZE, CROP_SIZE))
    # Distance to the nearest edge grows by one per pixel; rings are 14 pixels wide.
    depth = np.minimum.reduce([row, column, CROP_SIZE - 1 - row, CROP_SIZE - 1 - column])
    number = 3 - depth // 14
    return _partition("rings", [number == k for k in range(4)])


def _triangles() -> Partition:
    """Right triangles between the centre lines and the diagonals, each with its diagonal."""
    row, column = np.indices((CROP_SIZE, CROP_SIZE))
    top, left = row < CROP_SIZE // 2, column < CROP_SIZE // 2
    last = CROP_SIZE - 1
    masks = [
        top & left & (row >= column),
        top & left & (row <= column),
        top & ~left & (row + column <= last),
        top & ~left & (row + column >= last),
        ~top & left & (row + column <= last),
        ~top & left & (row + column >= last),
        ~top & ~left & (row >= column),
        ~top & ~left & (row <= column),
    ]
    return _partition("triangles", masks)


PARTITIONS = (_grid(), _rings(), _triangles())
"""Grid, rings and triangles, in the order of the labels."""

MASKS = np.concatenate([partition.masks for partition in PARTITIONS])
"""(28, 112, 112) bool, the blocks of all partitions one after the other."""

BOUNDS = np.cumsum([0, *(len(partition.masks) for partition in PARTITIONS)])
"""(4,) int64, partition p has the blocks BOUNDS[p] .. BOUNDS[p + 1] - 1 of `MASKS`."""

AREAS = MASKS.sum(axis=(1, 2))
"""(28,) int64, pixels of each block."""


def blocks_of(name: str) -> slice:
    """Return where the blocks of a partition lie among the 28 of `MASKS`."""
    number = [partition.name for partition in PARTITIONS].index(name)
    return slice(int(BOUNDS[number]), int(BOUNDS[number + 1]))


def _atoms() -> tuple[np.ndarray, np.ndarray]:
    signatures, atoms = np.unique(MASKS.reshape(len(MASKS), -1), axis=1, return_inverse=True)
    return atoms.reshape(CROP_SIZE, CROP_SIZE).astype(np.uint8), signatures


ATOMS, MEMBERS = _atoms()
"""(112, 112) uint8, the atom of each pixel; and (28, A) bool, the atoms of each block."""


def row_ends(mask: np.ndarray) -> np.ndarray:
    """Return where the runs of pixels in each row of a block begin and end.

    Parameters
    ----------
    mask : (112, 112) bool
        A block.

    Returns
    -------
    (E, 3) int64
        Row, column and sign: -1 at the first pixel of a run, +1 just after its last. So with row
        prefix sums P, ``P[row, column]`` times the sign adds up to the sum over the block; and a
        block that moves right by one gains the pixels of sign +1 and loses those of sign -1.
    """
    padded = np.pad(mask.astype(np.int64), ((0, 0), (1, 1)))
    ends = padded[:, :-1] - padded[:, 1:]
    rows, columns = np.nonzero(ends)
    return np.column_stack([rows, columns, ends[rows, columns]])


def edge_lines(mask: np.ndarray) -> np.ndarray:
    """Return the straight lines, upright or diagonal, that the `row_ends` of a block form.

    Parameters
    ----------
    mask : (112, 112) bool
        A block.

    Returns
    -------
    (L, 5) int64
        Slope (columns per row: -1, 0 or 1), row and column of the first end, number of ends, and
        their common sign. Every end is on one line.
    """
    left = {(row, column): sign for row, column, sign in row_ends(mask).tolist()}
    lines = []
    while left:
        lines.append(
            max(
                (_line(left, end, slope) for end in left for slope in (-1, 0, 1)),
                key=lambda line: line[3],
            )
        )
        slope, row, column, length, _ = lines[-1]
        for k in range(length):
            del left[row + k, column + slope * k]
    return np.array(lines)


def _line(
    ends: dict[tuple[int, int], int], start: tuple[int, int], slope: int
) -> tuple[int, int, int, int, int]:
    row, column = start
    sign, length = ends[start], 1
    while ends.get((row + length, column + slope * length)) == sign:
        length += 1
    return slope, row, column, length, sign
