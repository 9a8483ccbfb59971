"""Leaving out against a plain loop, and folds that are even."""

import sys

import numpy as np
import pytest
from sklearn.svm import SVC

from train import TrainError
from train.evaluate.scenes import (
    accuracy,
    fold_groups,
    leave_out,
    single_groups,
)


def videos(count, classes, *, width=40, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    features = rng.random((classes, width))[labels] + spread * rng.random((count, width))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32), labels


@pytest.mark.parametrize("c", [0.1, 1.0, 100.0])
def test_leave_one_out_equals_a_loop_of_plain_svms(c):
    features, classes = videos(60, 4, spread=3.0)
    expected = []
    for i in range(60):
        kept = np.arange(60) != i
        machine = SVC(kernel="linear", C=c).fit(features[kept], classes[kept])
        expected += machine.predict(features[[i]]).tolist()
    predictions = leave_out(features, classes, groups=single_groups(60), c=c)
    assert predictions.dtype == np.int64
    assert predictions.tolist() == expected
    assert expected != classes.tolist()


def test_folds_equal_a_loop_of_plain_svms():
    features, classes = videos(60, 4, spread=3.0)
    groups = fold_groups(classes, 5, seed=0)
    predictions = leave_out(features, classes, groups=groups)
    for fold in range(5):
        kept = groups != fold
        machine = SVC(kernel="linear").fit(features[kept], classes[kept])
        assert predictions[~kept].tolist() == machine.predict(features[~kept]).tolist()


def test_a_video_does_not_help_to_predict_itself():
    # Two copies of each of ten directions: with its copy at hand every video is predicted right,
    # without it each is as far from its own class as from the other, or further.
    rng = np.random.default_rng(0)
    features = np.repeat(np.linalg.qr(rng.normal(size=(32, 32)))[0][:20], 2, axis=0)
    classes = np.repeat(rng.permutation(20) % 2, 2)
    with_copy = leave_out(features, classes, groups=single_groups(40), c=100.0)
    without = leave_out(features, classes, groups=np.repeat(np.arange(20), 2), c=100.0)
    assert accuracy(with_copy, classes) == 1
    assert accuracy(without, classes) <= 0.5


def test_separate_classes_are_told_apart():
    features, classes = videos(56, 14, spread=0.1)
    predictions = leave_out(features, classes, groups=single_groups(56), c=10.0)
    assert accuracy(predictions, classes) == 1


def test_features_that_say_nothing_score_chance():
    features, classes = videos(280, 14)
    noise = np.random.default_rng(4).normal(size=features.shape).astype(np.float32)
    predictions = leave_out(noise, classes, groups=fold_groups(classes, 10, seed=0))
    # Four deviations of a binomial of 280 draws at 1/14.
    bound = 4 * np.sqrt(1 / 14 * 13 / 14 / 280)
    assert abs(accuracy(predictions, classes) - 1 / 14) < bound


def test_folds_are_even_in_all_and_of_each_class():
    classes = np.random.default_rng(0).permutation(np.repeat([0, 1, 7], [11, 5, 30]))
    groups = fold_groups(classes, 4, seed=3)
    assert np.ptp(np.bincount(groups, minlength=4)) <= 1
    for name in (0, 1, 7):
        assert np.ptp(np.bincount(groups[classes == name], minlength=4)) <= 1
    assert groups.tolist() == fold_groups(classes, 4, seed=3).tolist()
    assert groups.tolist() != fold_groups(classes, 4, seed=4).tolist()


@pytest.mark.parametrize("folds", [1, 0, 7])
def test_folds_that_cannot_be_are_told(folds):
    with pytest.raises(TrainError, match=f"6 videos make 2 to 6 folds, not {folds}"):
        fold_groups(np.arange(6), folds, seed=0)


def test_accuracies_by_hand():
    predictions, classes = np.array([2, 2, 5, 5]), np.array([2, 5, 5, 5])
    assert accuracy(predictions, classes) == 0.75


def test_one_class_is_nothing_to_learn():
    features, classes = videos(4, 2)
    with pytest.raises(TrainError, match="Without group 9 there are fewer than two classes"):
        leave_out(features, classes, groups=np.where(classes == 0, 9, single_groups(4) + 10))


def test_features_that_are_no_numbers_are_named():
    features, classes = videos(6, 2)
    features[4, 1] = np.nan
    with pytest.raises(TrainError, match="row 4"):
        leave_out(features, classes, groups=single_groups(6))


def test_without_scikit_learn_one_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    features, classes = videos(6, 2)
    with pytest.raises(TrainError, match="pip install scikit-learn"):
        leave_out(features, classes, groups=single_groups(6))
