"""Recognition: by hand, at its limits, and where averages differ."""

import csv

import numpy as np
import pytest

from train import TrainError
from train.evaluate.accuracy import draw_confusion, recognise, softmax, write_confusion

NONE = np.zeros(0, np.int64)


def recognised(logits, videos, classes, *, lost=NONE, average="probabilities"):
    return recognise(
        np.asarray(logits, np.float32), np.asarray(videos), classes=np.asarray(classes),
        without_clips=np.asarray(lost, np.int64), average=average,
    )  # fmt: skip


def test_a_small_case_by_hand():
    # Video 0, class 0: one clip right, one wrong, together right. Video 1, class 1: wrong.
    found = recognised([[4, 0, 0], [0, 1, 0], [0, 0, 2]], [0, 0, 1], [0, 1])
    assert found.clip[1] == pytest.approx(1 / 3)
    assert found.video[1] == 0.5
    assert found.video_chance[1] == 0.5
    assert found.clip_chance[1] == pytest.approx(2 / 3)
    assert found.confusion.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(found.per_class(), [1, 0, np.nan])


def test_averages_of_probabilities_and_of_logits_can_differ():
    logits = [[6.0, 0.0], [0.0, 3.5], [0.0, 3.5]]  # one clip is very sure
    by = {how: recognised(logits, [0, 0, 0], [1], average=how).video[1] for how in AVERAGES}
    assert by == {"probabilities": 1, "logits": 1}
    logits = [[9.0, 0.0], [0.0, 3.5], [0.0, 3.5]]
    by = {how: recognised(logits, [0, 0, 0], [1], average=how).video[1] for how in AVERAGES}
    assert by == {"probabilities": 1, "logits": 0}


AVERAGES = ("probabilities", "logits")


def test_videos_without_a_clip_are_wrong():
    found = recognised(np.eye(2) * 9, [0, 1], [0, 1], lost=[1, 1])
    assert found.clip[1] == 1
    assert found.video[1] == 0.5
    assert found.video_chance[1] == 0.25  # of a lost video nothing can be guessed
    assert found.clip_chance[1] == 0.5
    assert found.confusion.tolist() == [[1, 0, 0], [0, 1, 2]]


def test_perfect_scores_are_right_and_random_ones_are_chance():
    rng = np.random.default_rng(0)
    classes = np.arange(600) % 10
    videos = np.repeat(np.arange(600), 2)
    perfect = recognised(np.eye(10)[classes[videos]], videos, classes)
    assert perfect.clip == perfect.video == {1: 1, 5: 1}
    chance = recognised(rng.normal(size=(1200, 10)), videos, classes)
    for k in (1, 5):
        deviation = np.sqrt(k / 10 * (1 - k / 10) / 600)
        assert abs(chance.video[k] - k / 10) < 4 * deviation
        assert chance.video_chance[k] == chance.clip_chance[k] == k / 10


def test_who_says_the_same_of_all_classes_says_the_first():
    found = recognised(np.zeros((4, 6)), range(4), [0, 1, 5, 0])
    assert found.video == found.clip == {1: 0.5, 5: 0.75}
    assert found.confusion[:, 0].tolist() == [2, 1, 0, 0, 0, 1]


def test_top5_against_sorting():
    rng = np.random.default_rng(1)
    logits, classes = rng.normal(size=(50, 9)), rng.integers(0, 9, 50)
    found = recognised(logits, range(50), classes)
    best = np.argsort(-logits, axis=1)[:, :5]
    assert found.video[5] == pytest.approx(
        np.mean([c in row for c, row in zip(classes, best, strict=True)])
    )


def test_large_logits_are_probabilities_all_the_same():
    np.testing.assert_allclose(softmax(np.array([[1000.0, 999.0]])).sum(), 1)


def test_what_is_no_number_is_refused():
    with pytest.raises(TrainError, match="what is no number"):
        recognised([[np.nan, 0]], [0], [0])


def test_confusion_is_written_and_drawn(tmp_path):
    found = recognised(np.eye(2) * 9, [0, 1], [0, 1], lost=[1])
    write_confusion(tmp_path / "c.csv", found, ["a", "b, c"])
    with (tmp_path / "c.csv").open(newline="") as stream:
        assert list(csv.reader(stream)) == [
            ["class", "a", "b, c", "no clip", "accuracy"],
            ["a", "1", "0", "0", "1.0000"],
            ["b, c", "0", "1", "1", "0.5000"],
        ]
    assert draw_confusion(tmp_path / "c.png", found, ["a", "b, c"])
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
