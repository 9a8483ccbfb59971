"""The three partitions of a 112x112 crop into numbered blocks (paper, Fig. 4), as data.

Blocks of a partition may overlap (two triangles share a diagonal) and partitions cut across each
other. The *atoms* are the largest pixel sets that no block divides: any sum over a block is a sum
over its atoms, so that pixels are visited once for all three partitions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

CROP_SIZE = 112
"""Side of a crop in pixels."""


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


def _atoms() -> tuple[np.ndarray, np.ndarray]:
    signatures, atoms = np.unique(MASKS.reshape(len(MASKS), -1), axis=1, return_inverse=True)
    return atoms.reshape(CROP_SIZE, CROP_SIZE).astype(np.uint8), signatures


ATOMS, MEMBERS = _atoms()
"""(112, 112) uint8, the atom of each pixel; and (28, A) bool, the atoms of each block."""
