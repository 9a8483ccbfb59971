"""Distances between values, and neighbours, against rules written out by hand."""

import numpy as np
import pytest
import torch

from labelgen import LABELS, flip_labels
from labelgen.labels.partitions import PARTITIONS
from train.values import distances, kind_of, neighbours

ALL = tuple(range(27))
NAMES = [label.name for label in LABELS]


def of(name, table):
    column = NAMES.index(name)
    values = LABELS[column].cardinality
    return table[column, :values, :values].numpy()


def test_each_label_asks_one_thing():
    kinds = [kind_of(name) for name in NAMES]
    assert [kinds.count(k) for k in ("where", "which way", "when", "colour")] == [12, 6, 2, 7]


def test_distances_are_those_on_the_screen():
    apart = distances(ALL)
    grid = of("motion/grid/u_location", apart)
    for a in range(16):
        for b in range(16):
            assert grid[a, b] == pytest.approx(np.hypot(a // 4 - b // 4, a % 4 - b % 4))
    assert of("motion/rings/v_location", apart).tolist()[0] == [0, 1, 2, 3]
    assert of("motion/grid/u_orientation", apart)[0].tolist() == [0, 45, 90, 135, 180, 135, 90, 45]
    assert of("motion/global/u_frame", apart)[3, 10] == 7
    triangles = of("appearance/triangles/stable_location", apart)
    centres = [np.argwhere(mask).mean(0) / 28 for mask in PARTITIONS[2].masks]
    assert triangles[1, 6] == pytest.approx(np.linalg.norm(centres[1] - centres[6]))
    assert of("appearance/global/color", apart).tolist() == (1 - np.eye(8)).tolist()


@pytest.mark.parametrize("table", [distances, neighbours])
def test_mirrored_values_lie_as_the_values_do(table):
    weights = table(ALL)
    for column, (_, values) in enumerate(LABELS):
        labels = np.ones((values, 27), np.uint8)
        labels[:, column] = np.arange(1, values + 1)
        mirrored = flip_labels(labels)[:, column].astype(int) - 1
        there = weights[column, :values, :values]
        assert torch.allclose(there[mirrored][:, mirrored], there, atol=1e-6)


def test_neighbours_share_the_weight_of_a_value():
    weights = neighbours(ALL)
    for column, (name, values) in enumerate(LABELS):
        there = weights[column, :values, :values]
        assert torch.allclose(there.sum(1), torch.ones(values))
        assert (there.argmax(1) == torch.arange(values)).all(), name
        assert not weights[column, values:].any()
        assert not weights[column, :, values:].any()
    turned = of("motion/rings/u_orientation", weights)
    assert turned[0].tolist() == pytest.approx([0.7, 0.15, 0, 0, 0, 0, 0, 0.15])
    grid = of("motion/grid/u_location", weights)
    assert grid[5, 6] == pytest.approx(grid[5, 1])
    assert grid[5, 6] > grid[5, 8] > grid[5, 3]
    frames = of("motion/global/v_frame", weights)
    far = np.exp(-np.abs(np.arange(15) - 2) / 2)
    assert frames[2].tolist() == pytest.approx(far / far.sum() / 2 + (np.arange(15) == 2) / 2)
    assert of("appearance/grid/stable_color", weights).tolist() == np.eye(8).tolist()
