"""The plan of a run: which videos go into which shard, a function of the manifest alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from labelgen.errors import LabelgenError
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


class Part(NamedTuple):
    """A fixed share of a plan's shards: every `total`-th one, from the one numbered `number` on.

    Attributes
    ----------
    number, total : int
        0 <= number < total.
    """

    number: int
    total: int

    def of(
        self, plans: Sequence[ShardPlan], *, among: Sequence[ShardPlan] | None = None
    ) -> list[ShardPlan]:
        """Return this share of a plan's shards, or those `among` others that are of it."""
        share = list(plans[self.number :: self.total])
        files = {plan.file for plan in share}
        return share if among is None else [plan for plan in among if plan.file in files]


ALL = Part(0, 1)


def parse_part(text: str, *, one_based: bool = False) -> Part:
    """Return the part that ``I/N`` names; I is counted from 0, or from 1.

    Raises
    ------
    LabelgenError
        If it names none.
    """
    first = int(one_based)
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    number, total = map(int, match.groups()) if match else (0, 0)
    if not first <= number < total + first:
        last = f"{total - 1 + first}" if total else "N" if one_based else "N-1"
        raise LabelgenError(
            f"--part {text} names no part: give I/N, with I from {first} to {last}"
            f"{'' if one_based else ' (--one-based counts from 1)'}"
        )
    return Part(number - first, total)


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
