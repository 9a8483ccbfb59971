"""The twelve measures against plain Python, and folds that know nothing of each other."""

import math
import sys

import numpy as np
import pytest
from scipy.io import savemat
from sklearn.metrics import roc_auc_score
from sklearn.svm import SVC

from train import TrainError
from train.evaluate import similarity
from train.evaluate.similarity import (
    EPSILON,
    Pairs,
    cross_validate,
    measures,
    pair_rows,
    read_pairs,
)


def one_pair(x, y):
    """Measures of one pair, as Kliper-Gross et al. write them down."""
    e, both = EPSILON, list(zip(x, y, strict=True))
    lengths = [math.sqrt(sum(v * v for v in z)) or 1 for z in (x, y)]
    sums = [sum(z) or 1 for z in (x, y)]
    two = [(a / lengths[0], b / lengths[1]) for a, b in both]
    one = [(a / sums[0], b / sums[1]) for a, b in both]
    area = sum(a for a, _ in one) * sum(b for _, b in one)
    return [
        sum(a * b for a, b in both),
        math.sqrt(sum(a * b for a, b in both)),
        math.sqrt(sum(math.sqrt(a) * math.sqrt(b) for a, b in both)),
        math.sqrt(sum(a * b / (a + b + e) for a, b in both)),
        sum(a * b for a, b in two),
        math.sqrt(sum((a - b) ** 2 / (a + b + e) for a, b in both)),
        sum(abs(a - b) for a, b in both),
        math.sqrt(sum((math.sqrt(a) - math.sqrt(b)) ** 2 for a, b in both)),
        math.sqrt(sum((a - b) ** 2 for a, b in two)),
        sum(a * math.log((a + e) / (b + e)) + b * math.log((b + e) / (a + e)) for a, b in one) / 2,
        sum(math.sqrt(max(a, b)) / math.sqrt(a + b + e) for a, b in one),
        sum(min(a, b) for a, b in one) / (area or 1),
    ]


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    drawn = np.maximum(rng.normal(0.3, 1, (2, 25, 30)), 0).astype(np.float32)
    drawn[0, 3] = 0
    drawn[:, 5] = 0
    drawn[1, 7] = drawn[0, 7]
    return drawn


@pytest.mark.parametrize("block", [1, 4, 64])
def test_measures_equal_their_formulas(features, block, monkeypatch):
    monkeypatch.setattr(similarity, "_BLOCK", block)
    got = measures(*features)
    assert got.shape == (25, 12)
    assert got.dtype == np.float64
    expected = [one_pair(x.tolist(), y.tolist()) for x, y in zip(*features, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


def test_measures_by_hand():
    got = measures(np.array([[1, 3, 0]], np.float32), np.array([[4, 0, 0]], np.float32))[0]
    half = (0.25 - 1) * math.log(0.25) + 0.75 * math.log(0.75 / EPSILON)
    expected = [
        *(4, 2, math.sqrt(2), math.sqrt(4 / 5), 1 / math.sqrt(10)),
        *(math.sqrt(9 / 5 + 3), 6, math.sqrt(1 + 3), math.sqrt(2 - 2 / math.sqrt(10))),
        *(half / 2, math.sqrt(1 / 1.25) + 1, 0.25),
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-8)


def test_a_video_beside_itself_is_at_no_distance(features):
    got = measures(features[0][:3], features[0][:3])
    np.testing.assert_allclose(got[:, [5, 6, 7, 8, 9]], 0, atol=1e-12)
    np.testing.assert_allclose(got[:, [4, 11]], 1)


def test_zero_vectors_have_finite_measures(features):
    assert np.isfinite(measures(*features)).all()
    assert not measures(features[0][5:6], features[1][5:6]).any()


@pytest.mark.parametrize("value", [-1e-6, np.nan, np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_features_without_a_relu_are_told(features, value, side, monkeypatch):
    monkeypatch.setattr(similarity, "_BLOCK", 4)
    features[side, 17, 3] = value
    with pytest.raises(TrainError, match="pair 17 are negative or no finite numbers"):
        measures(*features)


VIEW = np.array(
    [
        [[12, 7], [3697, 8], [1, 0], [5, 6], [5, 7]],
        [[3, 4], [12, 12], [0, 1], [1, 2], [9, 2]],
        [[1, 2], [2, 1], [1, 1], [3, 3], [3, 3]],
    ]
)  # 3 pairs x (first, second, same, two actions) x 2 splits


def cells(values):
    """As MATLAB keeps cells: the ids as strings, the rest as numbers."""
    made = np.empty(values.shape, object)
    for place, value in np.ndenumerate(values):
        made[place] = f"{value:04d}" if place[1] < 2 else value
    return made


@pytest.mark.parametrize("kind", [np.float64, np.uint16, "cells of strings", "cells"])
def test_view_two_is_read(tmp_path, kind):
    made = {"cells": VIEW.astype(object), "cells of strings": cells(VIEW)}
    values = made[kind] if isinstance(kind, str) else VIEW.astype(kind)
    path = tmp_path / "View2.mat"
    savemat(path, {"action_splits_pairs": values, "other": 1})
    pairs = read_pairs(path)
    assert pairs.first == ["0012", "0003", "0001", "0007", "0004", "0002"]
    assert pairs.second == ["3697", "0012", "0002", "0008", "0012", "0001"]
    assert pairs.same.tolist() == [True, False, True, False, True, True]
    assert pairs.same.dtype == bool
    assert pairs.fold.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_view_two_of_the_size_of_aslan(tmp_path):
    values = np.ones((600, 5, 10))
    values[300:, 2] = 0
    savemat(tmp_path / "View2.mat", {"action_splits_pairs": values})
    pairs = read_pairs(tmp_path / "View2.mat")
    assert len(pairs.first) == 6000
    assert np.bincount(pairs.fold).tolist() == [600] * 10
    assert np.bincount(pairs.fold[pairs.same]).tolist() == [300] * 10


@pytest.mark.parametrize(
    ("place", "value", "match"),
    [
        ((1, 0, 1), 2.5, r"row 2 of split 2 holds '2.5'"),
        ((2, 1, 0), -1, r"row 3 of split 1 holds '-1.0'"),
        ((0, 1, 0), np.nan, r"row 1 of split 1 holds 'nan'"),
        ((0, 2, 1), 2, r"row 1 of split 2 holds 2 in place of 1"),
    ],
)
def test_values_that_make_no_sense_are_named(tmp_path, place, value, match):
    values = VIEW.astype(float)
    values[place] = value
    savemat(tmp_path / "View2.mat", {"action_splits_pairs": values})
    with pytest.raises(TrainError, match=match):
        read_pairs(tmp_path / "View2.mat")


def test_cells_that_hold_no_number_are_named(tmp_path):
    values = cells(VIEW)
    values[1, 1, 0] = "walk"
    savemat(tmp_path / "View2.mat", {"action_splits_pairs": values})
    with pytest.raises(TrainError, match="row 2 of split 1 holds 'walk'"):
        read_pairs(tmp_path / "View2.mat")


def test_mat_files_of_something_else_are_told(tmp_path):
    path = tmp_path / "View2.mat"
    with pytest.raises(TrainError, match=r"View2.mat cannot be read"):
        read_pairs(path)
    path.write_bytes(b"no matlab at all" * 20)
    with pytest.raises(TrainError, match=r"View2.mat cannot be read"):
        read_pairs(path)
    savemat(path, {"action_splits_pairs": VIEW, "other": 1})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainError, match=r"View2.mat"):
        read_pairs(path)
    savemat(path, {"other": 1})
    with pytest.raises(TrainError, match="has no variable action_splits_pairs"):
        read_pairs(path)
    savemat(path, {"action_splits_pairs": np.ones((3, 4, 2))})
    with pytest.raises(TrainError, match="is 3 x 4 x 2, not pairs x 5 x folds"):
        read_pairs(path)


def test_without_scipy_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(TrainError, match="pip install scipy"):
        read_pairs(tmp_path / "View2.mat")


def test_csv_is_read(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text('\ufefffirst,second,same,fold\r\n"a,1",b,1,7\r\nb,007,0,3\r\n\r\n', "utf-8")
    pairs = read_pairs(path)
    assert pairs.first == ["a,1", "b"]
    assert pairs.second == ["b", "007"]
    assert pairs.same.tolist() == [True, False]
    assert pairs.fold.tolist() == [7, 3]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "begins with '', not with first,second,same,fold"),
        ("a,b,1,0\n", "begins with 'a,b,1,0'"),
        ("first,second,same,fold\n", "lists no pairs"),
        ("first,second,same,fold\na,b,1,0\na,b,1\n", "line 3 is 'a,b,1', not two ids"),
        ("first,second,same,fold\na,,1,0\n", "line 2 is 'a,,1,0', not two ids"),
        ("first,second,same,fold\na,b,yes,0\n", "line 2 holds 'yes' in place"),
        ("first,second,same,fold\na,b,3,0\n", "line 2 holds 3 in place of 1"),
        ("first,second,same,fold\na,b,1,-1\n", "line 2 holds '-1' in place"),
        ("first,second,same,fold\na,b,1,1.5\n", "line 2 holds '1.5' in place"),
        ("first,second,same,fold\na,b,1,1e30\n", "line 2 holds '1e30' in place"),
        ("first,second,same,fold\na,b,1,\xe4", "cannot be read"),
    ],
)
def test_csv_mistakes_are_named(tmp_path, text, match):
    path = tmp_path / "pairs.csv"
    path.write_text(text, "latin-1")
    with pytest.raises(TrainError, match=match):
        read_pairs(path)


def test_a_csv_that_is_not_there_is_told(tmp_path):
    with pytest.raises(TrainError, match="pairs.csv cannot be read"):
        read_pairs(tmp_path / "pairs.csv")


def pairs_of(first, second):
    return Pairs(first, second, np.ones(len(first), bool), np.arange(len(first)))


def test_rows_by_path_by_path_without_suffix_and_by_name():
    paths = ["x/0001.avi", "x/0002.mp4", "y/0002.mp4", "0003.avi"]
    pairs = pairs_of(["x/0001.avi", "0001", "y/0002", "0003"], ["x/0002"] * 3 + ["0003.avi"])
    rows = pair_rows(pairs, paths)
    assert rows.dtype == np.int64
    assert rows.tolist() == [[0, 1], [0, 1], [2, 1], [3, 3]]


def test_the_closest_way_to_name_a_video_wins():
    assert pair_rows(pairs_of(["1"], ["x/1"]), ["x/1.avi", "1"]).tolist() == [[1, 0]]


def test_videos_that_are_not_there_or_several_are_told():
    paths = ["x/0001.avi", "y/0001.avi", "x/0002.avi"]
    with pytest.raises(TrainError, match=r"2 of the 3 ids in the pairs fit no .*first: 0007\)"):
        pair_rows(pairs_of(["0007", "0002"], ["0002", "0008"]), paths)
    with pytest.raises(TrainError, match=r"1 of the 2 ids in the pairs fit several.*first: 0001\)"):
        pair_rows(pairs_of(["0002"], ["0001"]), paths)


def shifted_folds():
    """Pairs of three folds; the measures of the last one lie elsewhere and spread far more."""
    rng = np.random.default_rng(1)
    same, fold = np.arange(180) % 2 == 0, np.arange(180) // 60
    values = rng.normal(size=(180, 12)) + same[:, None] * np.linspace(0, 1, 12)
    values[fold == 2] = values[fold == 2] * 3 + 0.5
    return values, same, fold


def by_loop(values, same, fold, *, leak, c=1.0):
    """Accuracies and decision values by the book; `leak` standardises by the held-out fold too."""
    accuracies, decisions = [], np.zeros(len(same))
    for number in np.unique(fold):
        held = fold == number
        known = values if leak else values[~held]
        scaled = (values - known.mean(0)) / known.std(0)
        machine = SVC(kernel="linear", C=c).fit(scaled[~held], same[~held])
        accuracies.append(machine.score(scaled[held], same[held]))
        decisions[held] = machine.decision_function(scaled[held])
    return accuracies, decisions


def test_figures_are_those_of_training_folds_statistics_alone():
    values, same, fold = shifted_folds()
    accuracies, decisions = by_loop(values, same, fold, leak=False, c=0.1)
    result = cross_validate(values, same, fold, c=0.1)
    assert result.accuracies == pytest.approx(accuracies)
    assert result.auc == pytest.approx(roc_auc_score(same, decisions))
    assert result.accuracy == pytest.approx(sum(accuracies) / 3)
    variance = sum((a - result.accuracy) ** 2 for a in accuracies) / 2
    assert result.standard_error == pytest.approx(math.sqrt(variance) / math.sqrt(3))
    assert result.c == 0.1
    leaky, leaky_decisions = by_loop(values, same, fold, leak=True, c=0.1)
    assert leaky != pytest.approx(accuracies)
    assert roc_auc_score(same, leaky_decisions) != pytest.approx(result.auc, abs=1e-4)


def test_scales_of_measures_do_not_matter_and_c_does():
    values, same, fold = shifted_folds()
    result = cross_validate(values, same, fold, c=0.01)
    scaled = cross_validate(values * np.logspace(-6, 6, 12) + 1, same, fold, c=0.01)
    assert scaled.accuracies == pytest.approx(result.accuracies)
    assert scaled.auc == pytest.approx(result.auc, abs=1e-3)
    assert cross_validate(values, same, fold, c=10.0).auc != result.auc


def test_a_measure_that_is_constant_in_training_changes_nothing():
    values, same, fold = shifted_folds()
    result = cross_validate(values, same, fold)
    for constant in (0.0, 0.1, 1e6 / 3):
        more = np.column_stack([values, np.full(180, constant)])
        assert cross_validate(more, same, fold).accuracies == result.accuracies


def test_folds_may_have_any_numbers():
    values, same, fold = shifted_folds()
    assert cross_validate(values, same, fold * 7 + 3) == cross_validate(values, same, fold)


def test_measures_that_tell_all_score_everything_and_noise_scores_chance():
    rng = np.random.default_rng(2)
    same, fold = np.arange(1000) % 2 == 0, np.arange(1000) // 100
    values = rng.normal(size=(1000, 12))
    noise = cross_validate(values, same, fold)
    # Four deviations of a binomial of 1,000 draws at one half.
    assert abs(noise.accuracy - 0.5) < 4 * math.sqrt(0.25 / 1000)
    assert abs(noise.auc - 0.5) < 4 * math.sqrt(1001 / (12 * 500 * 500))
    values[:, 4] += 100 * same
    told = cross_validate(values, same, fold)
    assert (told.accuracy, told.standard_error, told.auc) == (1, 0, 1)


def test_equal_decision_values_count_half():
    same = np.arange(40) % 2 == 0
    assert cross_validate(np.ones((40, 12)), same, np.arange(40) // 10).auc == 0.5


def test_folds_that_cannot_be_are_told():
    values, same, fold = shifted_folds()
    with pytest.raises(TrainError, match="needs pairs in two folds"):
        cross_validate(values, same, np.zeros(180, int))
    with pytest.raises(TrainError, match="Outside fold 2 all pairs are different"):
        cross_validate(values, fold == 2, fold)
