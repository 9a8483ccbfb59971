"""Figures against plain NumPy, and where they must be exactly 0, 1 or absent."""

import numpy as np
import pytest
import torch

from train.metrics import NO_LABEL, LabelStats, Reading
from train.values import distances

NAMES = ["motion/grid/u_location", "motion/global/u_frame", "appearance/global/color"]
CARDINALITY = [16, 15, 8]
COLUMNS = (0, 12, 26)
MEAN = torch.tensor([8.0, 7.5, 4.0])
TRAINING = torch.ones(17, 3)


def judge(predicted, labels):
    rounded = predicted.round().clamp(min=1).minimum(torch.tensor(CARDINALITY))
    losses = (predicted - labels) ** 2 * (labels != NO_LABEL)
    return labels, losses, Reading(predicted, rounded, None)


def stats_of(predicted, labels, parts=1):
    stats = LabelStats(NAMES, distances=distances(COLUMNS), judge=judge, device=torch.device("cpu"))
    for p, y in zip(np.array_split(predicted, parts), np.array_split(labels, parts), strict=True):
        stats.add(torch.tensor(p, dtype=torch.float32), torch.tensor(y, dtype=torch.float32))
    return stats


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    labels = (1 + rng.random((50, 3)) * CARDINALITY).astype(int)
    return (labels + rng.normal(0, 2, labels.shape)).astype(np.float32), labels


def test_figures_equal_plain_numpy(drawn):
    predicted, labels = drawn
    report = stats_of(predicted, labels, parts=7).report(MEAN, TRAINING)
    squares = (predicted.astype(float) - labels) ** 2
    spread = (labels - labels.mean(0)) ** 2
    for i, name in enumerate(NAMES):
        got = report["labels"][name]
        rounded = np.clip(np.rint(predicted[:, i]), 1, CARDINALITY[i])
        assert got["mse"] == pytest.approx(squares[:, i].mean())
        assert got["explained_variance"] == pytest.approx(
            1 - squares[:, i].sum() / spread[:, i].sum()
        )
        from_training = ((labels[:, i] - MEAN[i].item()) ** 2).sum()
        assert got["skill"] == pytest.approx(1 - squares[:, i].sum() / from_training)
        assert got["accuracy"] == pytest.approx((rounded == labels[:, i]).mean())
        assert got["chance"] == pytest.approx(np.bincount(labels[:, i]).max() / 50)
    motion = report["branches"]["motion"]
    assert motion["mse"] == pytest.approx(squares[:, :2].mean())
    assert motion["explained_variance"] == pytest.approx(
        1 - squares[:, :2].sum() / spread[:, :2].sum()
    )
    assert report["clips"] == 50


def test_the_best_constant_explains_nothing_and_perfection_everything(drawn):
    _, labels = drawn
    constant = np.broadcast_to(labels.mean(0), labels.shape)
    for branch in stats_of(constant, labels).report(MEAN, TRAINING)["branches"].values():
        assert branch["explained_variance"] == pytest.approx(0, abs=1e-6)
    for figures in stats_of(labels, labels).report(MEAN, TRAINING)["labels"].values():
        assert figures["explained_variance"] == 1
        assert figures["accuracy"] == 1


def test_no_clip_counts_nowhere(drawn):
    predicted, labels = drawn
    labels[3:6, 0] = 0  # a label like others in the released code
    padded = np.concatenate([labels, np.full((7, 3), NO_LABEL)])
    more = np.concatenate([predicted, np.full((7, 3), 5, np.float32)])
    report = stats_of(predicted, labels).report(MEAN, TRAINING)
    assert stats_of(more, padded).report(MEAN, TRAINING) == report
    assert report["labels"][NAMES[0]]["mse"] == pytest.approx(
        ((predicted[:, 0] - labels[:, 0]) ** 2).mean()
    )


def test_a_label_without_variance_has_none_to_explain(drawn):
    predicted, labels = drawn
    labels[:, 1] = 7
    assert (
        stats_of(predicted, labels).report(MEAN, TRAINING)["labels"][NAMES[1]]["explained_variance"]
        is None
    )


def test_the_training_mean_has_no_skill(drawn):
    _, labels = drawn
    constant = np.broadcast_to(MEAN.numpy(), labels.shape)
    for branch in stats_of(constant, labels).report(MEAN, TRAINING)["branches"].values():
        assert branch["skill"] == pytest.approx(0, abs=1e-6)
        assert branch["explained_variance"] < 0
