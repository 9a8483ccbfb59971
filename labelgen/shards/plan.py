"""The plan of a run: which videos go into which shard, a function of the manifest alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from joblib import Parallel, delayed

from labelgen.video.clips import clip_count
from labelgen.video.decode import claimed_frames
from labelgen.video.manifest import ManifestRow
from labelgen.shards.settings import ExtractSettings
from labelgen.shards.writer import shard_name


class ShardPlan(NamedTuple):
    """One shard to make.

    Attributes
    ----------
    file : str
        Its file name.
    rows : tuple of ManifestRow
        The videos it covers.
    clips : int
        About how many clips it will hold.
    """

    file: str
    rows: tuple[ManifestRow, ...]
    clips: int


def plan_shards(
    rows: Sequence[ManifestRow], *, name: str, settings: ExtractSettings
) -> list[ShardPlan]:
    """Cut each split into shards of about equal work, in the manifest's order.

    Parameters
    ----------
    rows : sequence of ManifestRow
        With their frame counts filled in, see `with_frames`.
    name : str
        Of the dataset; shards are called ``name-split-00000-of-00001.h5``.
    settings : ExtractSettings
        Clip stride and clips per shard.

    Returns
    -------
    list of ShardPlan
    """
    plans = []
    for split in dict.fromkeys(row.split for row in rows):
        of_split = [row for row in rows if row.split == split]
        groups = _cut(of_split, settings)
        for number, group in enumerate(groups):
            file = shard_name("-".join(filter(None, [name, split])), number, len(groups))
            plans.append(ShardPlan(file, tuple(group), sum(_clips(row, settings) for row in group)))
    return plans


def _cut(rows: Sequence[ManifestRow], settings: ExtractSettings) -> list[list[ManifestRow]]:
    clips = sum(_clips(row, settings) for row in rows)
    shards = max(-(-clips // settings.clips_per_shard), 1)
    # A video that seems to give no clip is work too.
    weights = [max(_clips(row, settings), 1) for row in rows]
    total = sum(weights)
    # A video goes where its middle falls when the split's clips are laid out in equal shards.
    numbers, before = [], 0
    for weight in weights:
        numbers.append((2 * before + weight) * shards // (2 * total))
        before += weight
    pairs = zip(numbers, rows, strict=True)
    return [[row for _, row in group] for _, group in groupby(pairs, key=lambda pair: pair[0])]


def _clips(row: ManifestRow, settings: ExtractSettings) -> int:
    return clip_count(row.frames, stride=settings.clip_stride)


def with_frames(rows: Sequence[ManifestRow], *, root: Path, workers: int) -> list[ManifestRow]:
    """Return rows whose missing frame counts are read from the videos' headers.

    Parameters
    ----------
    rows : sequence of ManifestRow
        Some without a frame count.
    root : Path
        The data root.
    workers : int
        Threads to read headers with.
    """
    unknown = [row.path for row in rows if row.frames < 0]
    counts = Parallel(n_jobs=max(workers, 1), prefer="threads")(
        delayed(claimed_frames)(root / path) for path in unknown
    )
    found = dict(zip(unknown, counts, strict=True))
    return [row if row.frames >= 0 else row._replace(frames=found[row.path]) for row in rows]
