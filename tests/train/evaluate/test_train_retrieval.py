"""Neighbours against sorting loops, chance against every ranking there is."""

import csv
import itertools
import math
import tracemalloc

import numpy as np
import pytest

from train import TrainError
from train.evaluate import retrieval
from train.evaluate.retrieval import COLUMNS, chance_at, nearest, recall_at, write_neighbours


def cosine(a, b):
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0


def by_sorting(queries, gallery, count):
    """All neighbours by plain Python: (index, similarity), ties by index."""
    queries, gallery = (np.asarray(x, float).tolist() for x in (queries, gallery))
    table = []
    for query in queries:
        found = [(-cosine(query, other), i) for i, other in enumerate(gallery)]
        table.append([(i, -minus) for minus, i in sorted(found)[:count]])
    return table


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    return [rng.normal(1, 1, (n, 6)).astype(np.float32) for n in (23, 31)]


@pytest.mark.parametrize("block", [1, 7, 512])
def test_neighbours_equal_a_sorting_loop(drawn, block, monkeypatch):
    monkeypatch.setattr(retrieval, "_BLOCK", block)
    indices, similarities = nearest(*drawn, count=9)
    expected = by_sorting(*drawn, 9)
    assert indices.dtype == np.int64
    assert similarities.dtype == np.float32
    assert indices.tolist() == [[i for i, _ in row] for row in expected]
    np.testing.assert_allclose(similarities, [[s for _, s in row] for row in expected], atol=1e-6)


def test_neighbours_by_hand():
    queries = np.array([[2, 0], [1, 1]], np.float32)
    gallery = np.array([[0, 3], [1, 0], [3, 4], [-1, 0]], np.float32)
    indices, similarities = nearest(queries, gallery, count=4)
    assert indices.tolist() == [[1, 2, 0, 3], [2, 0, 1, 3]]
    half = math.sqrt(0.5)
    np.testing.assert_allclose(similarities, [[1, 0.6, 0, -1], [1.4 * half, half, half, -half]])


def test_each_side_is_centred_by_its_own_mean(drawn):
    queries, gallery = drawn
    moved = queries + np.float32(5)
    indices, _ = nearest(moved, gallery, count=31, centre=True)
    exact = [x.astype(float) - x.astype(float).mean(0) for x in (moved, gallery)]
    assert indices.tolist() == [[i for i, _ in row] for row in by_sorting(*exact, 31)]
    assert indices.tolist() != nearest(moved, gallery, count=31)[0].tolist()


@pytest.mark.parametrize("block", [3, 512])
def test_copies_of_a_video_come_in_gallery_order(block, monkeypatch):
    monkeypatch.setattr(retrieval, "_BLOCK", block)
    rng = np.random.default_rng(1)
    three = rng.random((3, 1001), np.float32)
    gallery = three[[2, 0, 1, 0, 2, 0, 1, 1, 2, 0, 0]]
    indices, similarities = nearest(three[:1], gallery, count=5)
    assert indices[0].tolist() == [1, 3, 5, 9, 10]
    assert similarities[0].tolist() == [1] * 5


def test_zeros_are_similar_to_nothing():
    gallery = np.array([[-1, 0], [0, 0], [1, 0]], np.float32)
    indices, similarities = nearest(np.array([[1, 0], [0, 0]], np.float32), gallery, count=3)
    assert indices.tolist() == [[2, 1, 0], [0, 1, 2]]
    assert similarities.tolist() == [[1, 0, -1], [0, 0, 0]]


def test_videos_that_are_all_alike_have_no_direction_once_centred(drawn):
    alike = np.repeat(drawn[0][:1], 7, axis=0)
    _, similarities = nearest(drawn[0], alike, count=7, centre=True)
    assert not similarities.any()


def test_a_count_beyond_the_gallery_gives_all_of_it(drawn):
    indices, _ = nearest(*drawn, count=50)
    assert (np.sort(indices, axis=1) == np.arange(31)).all()


def test_memory_does_not_grow_with_queries_times_gallery(monkeypatch):
    monkeypatch.setattr(retrieval, "_BLOCK", 50)
    queries, gallery = (np.ones((n, 8), np.float32) for n in (2000, 3000))
    tracemalloc.start()
    nearest(queries, gallery, count=5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2000 * 3000 * 4 / 4


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("side", "name"), [(0, "queries"), (1, "gallery")])
def test_features_that_are_no_numbers_are_named(drawn, value, side, name):
    drawn[side][17, 3] = value
    with pytest.raises(TrainError, match=f"row 17 of the {name}"):
        nearest(*drawn, count=1, centre=True)


def test_no_videos_and_other_features_are_told(drawn):
    queries, gallery = drawn
    with pytest.raises(TrainError, match="the gallery are none"):
        nearest(queries, gallery[:0], count=1)
    with pytest.raises(TrainError, match="Queries have 6 features and the gallery 5"):
        nearest(queries, gallery[:, :5], count=1)


def test_recall_equals_a_sorting_loop(drawn):
    rng = np.random.default_rng(2)
    mine, theirs = rng.integers(0, 5, 23), rng.integers(0, 5, 31)
    indices, _ = nearest(*drawn, count=20)
    recall = recall_at(indices, mine, theirs, [1, 5, 20, 32])
    assert list(recall) == [1, 5, 20]
    for k, share in recall.items():
        rows = by_sorting(*drawn, k)
        hits = [any(theirs[i] == mine[q] for i, _ in row) for q, row in enumerate(rows)]
        assert share == pytest.approx(sum(hits) / 23)


def test_recall_needs_as_many_neighbours_as_it_counts():
    with pytest.raises(ValueError, match="1 neighbours cannot tell recall at 2"):
        recall_at(np.zeros((1, 1), int), np.zeros(1), np.zeros(3), [2])


def test_features_that_tell_the_classes_score_everything():
    classes = np.arange(40) % 4
    features = np.eye(4, dtype=np.float32)[classes]
    indices, similarities = nearest(features, features, count=10)
    assert recall_at(indices, classes, classes, [1, 5, 10]) == {1: 1.0, 5: 1.0, 10: 1.0}
    assert (similarities == 1).all()


def test_random_features_score_chance():
    rng = np.random.default_rng(3)
    queries, gallery = (rng.normal(size=(n, 64)).astype(np.float32) for n in (2000, 300))
    mine, theirs = rng.integers(0, 10, 2000), rng.integers(0, 10, 300)
    indices, _ = nearest(queries, gallery, count=20)
    recall = recall_at(indices, mine, theirs, [1, 5, 10, 20])
    for k, chance in chance_at(mine, theirs, [1, 5, 10, 20]).items():
        # A binomial of 2,000 draws leaves four deviations once in 16,000 times.
        assert abs(recall[k] - chance) < 4 * math.sqrt(chance * (1 - chance) / 2000)


def test_chance_is_the_mean_over_every_ranking():
    mine, theirs = np.array(["a", "a", "b", "c"]), np.array(["a", "b", "a", "b", "b"])
    chance = chance_at(mine, theirs, [1, 2, 3, 4, 5, 6])
    assert list(chance) == [1, 2, 3, 4, 5]
    rankings = list(itertools.permutations(range(5)))
    for k, share in chance.items():
        hits = [mine[q] in theirs[list(r[:k])] for r in rankings for q in range(4)]
        assert share == pytest.approx(sum(hits) / len(hits))


def test_chance_by_binomials_at_the_size_of_kinetics():
    mine, theirs = np.zeros(3, int), np.arange(240_000) // 600
    assert chance_at(mine, theirs, [1])[1] == pytest.approx(1 / 400)
    missed = math.exp(
        math.lgamma(239_401) - math.lgamma(239_351) - math.lgamma(240_001) + math.lgamma(239_951)
    )
    assert chance_at(mine, theirs, [50])[50] == pytest.approx(1 - missed)
    assert chance_at(mine, theirs, [240_000])[240_000] == 1
    assert chance_at(mine + 999, theirs, [50])[50] == 0


def test_neighbours_are_written_one_a_row(tmp_path):
    path = tmp_path / "neighbours.csv"
    write_neighbours(
        path,
        np.array([[1, 0]]),
        similarities=np.array([[0.5, -0.25]], np.float32),
        queries=["x,y/q.avi"],
        gallery=["g0", "g1"],
        query_classes=np.array([3]),
        gallery_classes=np.array([3, 4]),
    )
    with path.open(newline="") as stream:
        lines = list(csv.reader(stream))
    assert lines == [
        list(COLUMNS),
        ["x,y/q.avi", "3", "1", "g1", "4", "0.500000", "0"],
        ["x,y/q.avi", "3", "2", "g0", "3", "-0.250000", "1"],
    ]
    empty = {"queries": [], "gallery": [], "query_classes": [], "gallery_classes": []}
    nothing = np.zeros((0, 1), int)
    with pytest.raises(TrainError, match="missing.* cannot be written"):
        write_neighbours(tmp_path / "missing" / "n.csv", nothing, similarities=nothing, **empty)
