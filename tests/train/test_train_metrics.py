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
TRAINING = torch.ones(3, 17)


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


def test_figures_beside_the_training_prior_equal_plain_numpy():
    rng = np.random.default_rng(4)
    labels = (1 + rng.random((60, 3)) * CARDINALITY).astype(int)
    values = (1 + rng.random((60, 3)) * CARDINALITY).astype(int)
    surprise = rng.random((60, 3)).astype(np.float32) * 2
    counts = np.zeros((17, 3))
    for column, most in enumerate(CARDINALITY):
        counts[1 : most + 1, column] = rng.integers(0, 9, most)

    def said(predicted, targets):
        rows = torch.from_numpy(labels), torch.from_numpy(surprise), torch.from_numpy(values)
        return rows[0], rows[1], Reading(rows[2].float(), rows[2].float(), rows[1])

    apart = distances(COLUMNS)
    stats = LabelStats(NAMES, distances=apart, judge=said, device=torch.device("cpu"))
    stats.add(torch.zeros(0), None)
    report = stats.report(MEAN, torch.from_numpy(counts.T))
    for i, name in enumerate(NAMES):
        got, most, y = report["labels"][name], CARDINALITY[i], labels[:, i]
        prior = (counts[1 : most + 1, i] + 0.5) / (counts[1 : most + 1, i] + 0.5).sum()
        alone = -np.log(prior[y - 1]).mean()
        assert got["information"] == pytest.approx(1 - surprise[:, i].mean() / alone, rel=1e-5)
        likeliest = 1 + np.flatnonzero(prior == prior.max())
        assert got["prior_accuracy"] == pytest.approx((y[:, None] == likeliest).mean())
        table = apart[i, :most, :most].numpy()
        if name.endswith("color"):
            assert got["distance"] is None
            assert got["prior_distance"] is None
            continue
        assert got["distance"] == pytest.approx(table[y - 1, values[:, i] - 1].mean(), rel=1e-5)
        far = prior @ table
        best = np.flatnonzero(np.isclose(far, far.min(), rtol=1e-6))
        assert got["prior_distance"] == pytest.approx(table[y - 1][:, best].mean(), rel=1e-5)
    kinds = report["kinds"]
    assert list(kinds) == ["motion: where", "motion: when", "appearance: colour"]
    macro = report["branches"]["motion"]["macro"]
    both = [report["labels"][name]["accuracy"] for name in NAMES[:2]]
    assert macro["accuracy"] == pytest.approx(sum(both) / 2)
    assert not {"mse", "distance"} & macro.keys()  # of several units
    told = [report["labels"][name] for name in NAMES[:2]]
    gone = 1 - sum(t["surprise"] for t in told) / sum(t["prior_surprise"] for t in told)
    assert macro["information"] == pytest.approx(gone)


def test_constants_that_are_equally_good_count_by_their_mean():
    labels = np.column_stack([[2, 2, 2, 3], [1, 15, 15, 3], [1, 1, 2, 2]])
    stats = LabelStats(
        NAMES, distances=distances(COLUMNS), device=torch.device("cpu"),
        judge=lambda p, y: (y, torch.ones(4, 3), Reading(y.float(), y.float(), None)),
    )  # fmt: skip
    stats.add(torch.zeros(4, 3), torch.from_numpy(labels))
    counts = torch.zeros(3, 17)
    counts[0, [2, 3]] = 7.0  # blocks that are each other's mirror image
    counts[1, [1, 15]] = 7.0
    told = stats.report(MEAN, counts)["labels"]
    assert told[NAMES[0]]["prior_accuracy"] == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert told[NAMES[1]]["prior_accuracy"] == pytest.approx((1 / 4 + 2 / 4) / 2)
    for i, most in enumerate(CARDINALITY[:2]):
        table = distances(COLUMNS)[i, :most, :most].double().numpy()
        far = (counts[i, 1 : most + 1].numpy() + 0.5) @ table
        best = np.flatnonzero(np.isclose(far, far.min(), rtol=1e-9))
        expected = table[labels[:, i] - 1][:, best].mean()
        assert told[NAMES[i]]["prior_distance"] == pytest.approx(expected)
    assert told[NAMES[2]]["prior_accuracy"] == pytest.approx(
        np.mean([0.5, 0.5, *[0] * (CARDINALITY[2] - 2)])
    )


def test_a_label_that_does_not_vary_has_no_information_to_gain(drawn):
    _, labels = drawn
    labels = np.column_stack([labels[:, 0], labels[:, 1], np.full(50, 3)])
    sure = torch.full((50, 3), 0.05)
    stats = LabelStats(
        NAMES, distances=distances(COLUMNS), device=torch.device("cpu"),
        judge=lambda p, y: (y, sure, Reading(y.float(), y.float(), sure)),
    )  # fmt: skip
    stats.add(torch.zeros(50, 3), torch.from_numpy(labels))
    counts = torch.zeros(3, 17)
    counts[:, 3] = 200
    report = stats.report(MEAN, counts)
    assert report["labels"][NAMES[2]]["information"] is None
    assert report["kinds"]["appearance: colour"]["information"] is None
    assert report["labels"][NAMES[0]]["information"] > 0.9


def test_0_of_the_released_code_is_the_first_value():
    labels = np.array([[0, 1, 1], [1, 1, 1], [5, 1, 1]])
    first = torch.ones(3, 3)
    stats = LabelStats(
        NAMES, distances=distances(COLUMNS), device=torch.device("cpu"),
        judge=lambda p, y: (y, first, Reading(first, first, first)),
    )  # fmt: skip
    stats.add(torch.zeros(3, 3), torch.from_numpy(labels))
    counts = torch.zeros(3, 17)
    counts[0, [0, 1, 5]] = torch.tensor([6.0, 6.0, 9.0])
    told = stats.report(MEAN, counts)["labels"][NAMES[0]]
    assert told["accuracy"] == pytest.approx(2 / 3)
    assert told["prior_accuracy"] == pytest.approx(2 / 3)
    assert told["chance"] == pytest.approx(2 / 3)


def test_the_prior_itself_gains_no_information_and_perfection_all():
    labels = np.array([[1, 1, 1], [2, 5, 3], [16, 15, 8], [2, 5, 3]])
    counts = torch.zeros(17, 3)
    for column in range(3):
        counts[1 : CARDINALITY[column] + 1, column] = 7
    even = torch.tensor(CARDINALITY).log().expand(4, 3)
    for surprise, gained in ((even, 0.0), (torch.zeros(4, 3), 1.0)):
        judge = lambda p, y, s=surprise: (y, s, Reading(y.float(), y.float(), s))  # noqa: E731
        stats = LabelStats(
            NAMES, distances=distances(COLUMNS), judge=judge, device=torch.device("cpu")
        )
        stats.add(torch.zeros(4, 3), torch.from_numpy(labels))
        report = stats.report(MEAN, counts.T)
        assert [v["information"] for v in report["labels"].values()] == pytest.approx(
            [gained] * 3, abs=1e-6
        )


def test_numbers_alone_have_no_information(drawn):
    predicted, labels = drawn
    report = stats_of(predicted, labels).report(MEAN, TRAINING)
    assert {v["information"] for v in report["labels"].values()} == {None}
