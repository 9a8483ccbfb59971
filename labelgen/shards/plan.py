"""The plan of a run: which videos go into which shard, a function of the manifest alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from labelgen.geometry import clip_count
from labelgen.shards.generations import checked_set_name
from labelgen.shards.seal import shard_name
from labelgen.shards.settings import ExtractSettings
from labelgen.video.manifest import ManifestRow


class ShardPlan(NamedTuple):
    """One shard to make.

    Attributes
    ----------
    file : str
        Its file name.
    set_name : str
        The set it is a part of: the dataset's name, and the split's if there is one.
    rows : tuple of ManifestRow
        The videos it covers.
    clips : int
        About how many clips it will hold.
    """

    file: str
    set_name: str
    rows: tuple[ManifestRow, ...]
    clips: int


def sets_of(rows: Sequence[ManifestRow], *, name: str) -> dict[str, list[ManifestRow]]:
    """Return the rows of each split by the name of their set, ``name-split``.

    Raises
    ------
    LabelgenError
        If the name, or that of a split, cannot stand in a file name.
    """
    sets: dict[str, list[ManifestRow]] = {}
    for row in rows:
        sets.setdefault("-".join(filter(None, [name, row.split])), []).append(row)
    return {checked_set_name(set_name): of_set for set_name, of_set in sets.items()}


def plan_set(
    rows: Sequence[ManifestRow], *, set_name: str, settings: ExtractSettings
) -> list[ShardPlan]:
    """Cut one set, or one generation of it, into shards of about equal work, in the rows' order.

    Parameters
    ----------
    rows : sequence of ManifestRow
        With their frame counts filled in, see `labelgen.video.decode.with_frames`.
    set_name : str
        Shards are called ``set_name-00000-of-00001.h5``.
    settings : ExtractSettings
        Clip stride and clips per shard.

    Returns
    -------
    list of ShardPlan
    """
    groups = _cut(rows, settings)
    return [
        ShardPlan(
            shard_name(set_name, number, len(groups)),
            set_name,
            tuple(group),
            sum(_clips(row, settings) for row in group),
        )
        for number, group in enumerate(groups)
    ]


def _cut(rows: Sequence[ManifestRow], settings: ExtractSettings) -> list[list[ManifestRow]]:
    # A video whose header does not tell its length counts as one clip: nobody knows better.
    clips = sum(_clips(row, settings) or row.frames <= 0 for row in rows)
    shards = max(-(-clips // settings.clips_per_shard), 1)
    # One that seems to give no clip is work too.
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
