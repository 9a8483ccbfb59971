"""Video retrieval by cosine: nearest neighbours and recall at k (as in Xu et al., CVPR 2019).

A query is a hit at k if any of its k nearest gallery videos has its class. What a random ranking
would score on the same videos stands beside it, for it depends on how often each class occurs.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from labelgen.files import replacing
from train import TrainError

COLUMNS = ("query", "query_class", "rank", "neighbour", "neighbour_class", "similarity", "hit")
_BLOCK = 512
"""Videos at a time: 100 MB of double precision where each has 25,088 features."""


def nearest(
    queries: np.ndarray, gallery: np.ndarray, *, count: int, centre: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Find the gallery videos that are most similar to each query by cosine.

    Memory beyond the arguments is some blocks of 512 videos and of 512 rows of similarities.

    Parameters
    ----------
    queries, gallery : (Q, D) and (G, D) float32
        Features, one row per video.
    count : int
        Neighbours per query, at least 1; K is the smaller of it and G.
    centre : bool, optional
        Subtract from the queries and from the gallery each its own mean first, as the code of
        CoCLR does (Han et al., NeurIPS 2020). The result then depends on which other queries
        there are.

    Returns
    -------
    indices : (Q, K) int64
        Rows of the gallery, most similar first; of equally similar ones the first comes first.
    similarities : (Q, K) float32
        From -1 to 1; 0 with a vector of nothing but zeros.

    Raises
    ------
    TrainError
        There are no videos, queries and gallery differ in D, or a feature is no finite number.
    """
    _check(queries, gallery)
    query_mean, gallery_mean = (_mean(videos, centre) for videos in (queries, gallery))
    query_norms, gallery_norms = _norms(queries, query_mean), _norms(gallery, gallery_mean)
    shape = len(queries), min(count, len(gallery))
    indices, similarities = np.empty(shape, np.int64), np.empty(shape, np.float32)
    for rows in _blocks(len(queries)):
        units = (queries[rows] - query_mean) / query_norms[rows, None]
        found = np.empty((len(units), len(gallery)), np.float32)
        for columns in _blocks(len(gallery)):
            # In double precision and then rounded, so that copies of a video are equally similar
            # wherever in a block they stand.
            products = units @ (gallery[columns] - gallery_mean).T
            found[:, columns] = products / gallery_norms[columns]
        indices[rows] = np.argsort(-found, axis=1, kind="stable")[:, : shape[1]]
        similarities[rows] = np.take_along_axis(found, indices[rows], axis=1)
    return indices, similarities


def _check(queries: np.ndarray, gallery: np.ndarray) -> None:
    for name, videos in (("queries", queries), ("gallery", gallery)):
        if not len(videos):
            raise TrainError(f"Retrieval needs videos on both sides, and the {name} are none.")
        for rows in _blocks(len(videos)):
            finite = np.isfinite(videos[rows]).all(axis=1)
            if not finite.all():
                raise TrainError(
                    f"Features of row {rows.start + finite.argmin()} of the {name} are no finite "
                    "numbers; check the checkpoint and extract them again."
                )
    if queries.shape[1] != gallery.shape[1]:
        raise TrainError(
            f"Queries have {queries.shape[1]} features and the gallery {gallery.shape[1]}; "
            "extract both alike."
        )


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, _BLOCK):
        yield slice(start, min(start + _BLOCK, count))


def _mean(videos: np.ndarray, centre: bool) -> np.ndarray:
    return videos.mean(axis=0, dtype=float) if centre else np.zeros(videos.shape[1])


def _norms(videos: np.ndarray, mean: np.ndarray) -> np.ndarray:
    blocks = _blocks(len(videos))
    norms = np.concatenate([np.linalg.norm(videos[rows] - mean, axis=1) for rows in blocks])
    # What is left of a video that is the mean itself is rounding and has no direction; divided by
    # infinity it is similar to nothing.
    return np.where(norms > 1e-12 * np.linalg.norm(mean), norms, np.inf)


def recall_at(
    neighbours: np.ndarray,
    query_classes: np.ndarray,
    gallery_classes: np.ndarray,
    ks: Sequence[int],
) -> dict[int, float]:
    """Return the share of queries with a video of their class among the k nearest, for each k.

    Parameters
    ----------
    neighbours : (Q, K) int64
        As of `nearest`, with K at least the largest k that the gallery allows.
    query_classes, gallery_classes : (Q,) and (G,) arrays
        Of whatever type equality tells apart.
    ks : sequence of int
        1 or more each. One that is larger than the gallery has no meaning and is left out.

    Returns
    -------
    dict of int to float
        k to 0..1.

    Raises
    ------
    ValueError
        Fewer neighbours were looked for than a k needs.
    """
    ks = [k for k in ks if k <= len(gallery_classes)]
    if max(ks, default=0) > neighbours.shape[1]:
        raise ValueError(f"{neighbours.shape[1]} neighbours cannot tell recall at {max(ks)}")
    hits = gallery_classes[neighbours] == query_classes[:, None]
    return {k: float(hits[:, :k].any(axis=1).mean()) for k in ks}


def chance_at(
    query_classes: np.ndarray, gallery_classes: np.ndarray, ks: Sequence[int]
) -> dict[int, float]:
    """Return what `recall_at` is on average if each query's ranking is drawn at random.

    Of G gallery videos with m of the query's class, k miss all of these with the hypergeometric
    probability C(G - m, k) / C(G, k).

    Parameters
    ----------
    query_classes, gallery_classes : (Q,) and (G,) arrays
    ks : sequence of int
        As in `recall_at`.

    Returns
    -------
    dict of int to float
        k to 0..1.
    """
    size = len(gallery_classes)
    ks = [k for k in ks if k <= size]
    classes, queries = np.unique(query_classes, return_counts=True)
    others = np.array([size - np.count_nonzero(gallery_classes == name) for name in classes])
    drawn = np.arange(max(ks, default=0))
    # The factors of the two binomials' quotient in pairs, all of them within 0..1.
    missed = np.cumprod(np.clip(others[:, None] - drawn, 0, None) / (size - drawn), axis=1)
    return {k: float(1 - np.average(missed[:, k - 1], weights=queries)) for k in ks}


def write_neighbours(
    path: Path,
    neighbours: np.ndarray,
    *,
    similarities: np.ndarray,
    queries: Sequence[str],
    gallery: Sequence[str],
    query_classes: Sequence[object] | np.ndarray,
    gallery_classes: Sequence[object] | np.ndarray,
) -> None:
    """Write a CSV with a row per query and neighbour: `COLUMNS`, ranks from 1, hits as 0 or 1.

    Parameters
    ----------
    path : Path
        The file; it is whole or not there.
    neighbours, similarities : (Q, K) int64 and float32
        As of `nearest`.
    queries, gallery : sequence of str
        Names of the Q and G videos.
    query_classes, gallery_classes : (Q,) and (G,) sequences
        Classes as they are to be written.

    Raises
    ------
    TrainError
        It cannot be written.
    """
    try:
        with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(COLUMNS)
            for i, query in enumerate(queries):
                for rank, (j, cosine) in enumerate(
                    zip(neighbours[i], similarities[i], strict=True), 1
                ):
                    mine, other = query_classes[i], gallery_classes[j]
                    hit = int(mine == other)
                    writer.writerow([query, mine, rank, gallery[j], other, f"{cosine:.6f}", hit])
    except OSError as error:
        raise TrainError(f"{path} cannot be written: {error}.") from None
