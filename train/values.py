"""The values of each label as places of one kind: how far apart they lie, which are neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from labelgen import LABELS
from labelgen.labels.partitions import PARTITIONS

MOST = max(label.cardinality for label in LABELS)
"""Values of the labels that have most: 16."""
KINDS = {"location": "where", "orientation": "which way", "frame": "when", "color": "colour"}
"""What a label's name ends with -> what it asks."""
_BLOCK = 28  # side of a grid's block in pixels


def kind_of(name: str) -> str:
    """Return what a label asks: where, which way, when or colour."""
    return KINDS[name.replace("/", "_").rsplit("_", 1)[-1]]


def distances(columns: Sequence[int]) -> torch.Tensor:
    """Return how far the values of some labels lie apart, (C, 16, 16) float32.

    Blocks of grid and triangles: from centre to centre, in sides of a grid's block; rings by their
    number; orientations around the circle, in degrees; frames in frames. 0 where there is no such
    value; colours have no distance, 0 or 1.
    """
    padded = torch.zeros(len(columns), MOST, MOST)
    for row, column in enumerate(columns):
        apart = torch.from_numpy(_apart(*LABELS[column]))
        padded[row, : len(apart), : len(apart)] = apart
    return padded


def _apart(name: str, values: int) -> np.ndarray:
    numbers = np.arange(values)
    steps = np.abs(numbers[:, None] - numbers)
    kind, partition = kind_of(name), name.split("/")[1]
    if kind == "which way":
        return np.minimum(steps, values - steps) * 360.0 / values
    if kind == "colour":
        return (steps > 0).astype(float)
    if kind == "where" and partition != "rings":
        (masks,) = [p.masks for p in PARTITIONS if p.name == partition]
        centres = np.array([np.argwhere(mask).mean(axis=0) for mask in masks]) / _BLOCK
        return np.hypot(*np.moveaxis(centres[:, None] - centres, -1, 0))
    return steps.astype(float)


def neighbours(columns: Sequence[int]) -> torch.Tensor:
    """Return the weights that `ce-soft` gives to values beside the true one, (C, 16, 16) float32.

    Row y - 1 belongs to the true value y and sums to 1. Orientations: .7, and .15 for each of the
    two beside it, so that 8 and 1 are neighbours. Blocks: a normal curve of half a block. Frames:
    half falls off by e every 2 frames, since time is learnt from afar first; the other half is the
    true frame's alone. Colours: the true one alone.
    """
    apart = distances(columns)
    weights = torch.zeros_like(apart)
    for row, column in enumerate(columns):
        name, values = LABELS[column]
        there = apart[row, :values, :values]
        weights[row, :values, :values] = _weights(kind_of(name), there)
    return weights


def shared_outputs(columns: Sequence[int]) -> torch.Tensor:
    """Return how the logit of a value, a row, is made of the outputs of all, (C, 16, 16) float32.

    Of frames: its own, and 4 times a mean of those near it that falls off by e every 3 frames, so
    that early and late are told apart as fast as by regression. Of all else: its own.
    """
    apart = distances(columns)
    shared = torch.eye(MOST).repeat(len(columns), 1, 1)
    for row, column in enumerate(columns):
        name, values = LABELS[column]
        if kind_of(name) == "when":
            near = torch.exp(-apart[row, :values, :values] / 3)
            shared[row, :values, :values] += 4 * near / near.sum(dim=1, keepdim=True)
    return shared


def _weights(kind: str, apart: torch.Tensor) -> torch.Tensor:
    same = torch.eye(len(apart))
    if kind == "colour":
        return same
    if kind == "which way":
        return 0.7 * same + 0.15 * (apart == 360 / len(apart))
    near = torch.exp(-apart / 2) if kind == "when" else torch.exp(-2 * apart**2)
    near = near / near.sum(dim=1, keepdim=True)
    return 0.5 * (near + same) if kind == "when" else near
