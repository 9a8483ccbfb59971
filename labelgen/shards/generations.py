"""What the sets of a shard folder are made of, row by row: videos that came later are generations.

The rows of the set ``name`` that were there first make its shards; rows that are added make further
shards, named as those of a set ``name+1``, then ``name+2``. What is sealed stays as it is. The rows
of each are kept beside the shards, in ``name.rows.csv``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from labelgen.errors import LabelgenError
from labelgen.video.manifest import ManifestRow, parse_manifest

ROWS_SUFFIX = ".rows.csv"

_LATER = re.compile(r"(?P<set>.+)\+(?P<number>[1-9]\d*)")


class Generation(NamedTuple):
    """Rows whose shards are planned together.

    Attributes
    ----------
    name : str
        Of its shards.
    rows : list of ManifestRow
    is_new : bool
        Whether the folder does not know it yet.
    """

    name: str
    rows: list[ManifestRow]
    is_new: bool


def set_of_generation(name: str) -> str:
    """Return the set that a generation belongs to."""
    match = _LATER.fullmatch(name)
    return match["set"] if match else name


def rows_file(folder: Path, name: str) -> Path:
    """Return where the rows of a generation are kept."""
    return folder / f"{name}{ROWS_SUFFIX}"


def read_rows(folder: Path, run: Mapping[str, Any]) -> dict[str, list[ManifestRow]]:
    """Return the rows of each generation that a run record plans, where they are kept.

    Raises
    ------
    LabelgenError
        If they are damaged.
    """
    names = sorted(run["plan"], key=_age)
    return {
        name: [row for _, row in parse_manifest(rows_file(folder, name))]
        for name in names
        if rows_file(folder, name).exists()
    }


def _age(name: str) -> tuple[str, int]:
    match = _LATER.fullmatch(name)
    return (match["set"], int(match["number"])) if match else (name, 0)


def arrange(
    folder: Path,
    known: Mapping[str, list[ManifestRow]],
    *,
    sets: Mapping[str, Sequence[ManifestRow]],
    add: bool,
) -> list[Generation]:
    """Divide the rows of sets into the generations that a folder knows, and new ones.

    Parameters
    ----------
    folder : Path
        For messages.
    known : mapping
        Rows by generation, as of `read_rows`.
    sets : mapping
        The rows that are wanted, by set.
    add : bool
        Whether a set that is known may grow.

    Returns
    -------
    list of Generation
        Rows that are known are as they were; numbers of classes that are known are kept.

    Raises
    ------
    LabelgenError
        If a set that is known lacks rows now, has other ones, or has new ones and may not grow.
    """
    generations = []
    for name, rows in sets.items():
        earlier = {part: known[part] for part in known if set_of_generation(part) == name}
        if not earlier:
            generations.append(Generation(name, list(rows), True))
            continue
        new = _compared(folder, name, [row for part in earlier.values() for row in part], rows)
        generations += [Generation(part, rows_of, False) for part, rows_of in earlier.items()]
        if new and not add:
            raise LabelgenError(
                f"{folder} was made of fewer videos: {_counted(new, 'new')} in {name}; --add makes "
                "further shards of them, and keeps those that are there"
            )
        if new:
            generations.append(Generation(f"{name}+{len(earlier)}", new, True))
    return generations


def _compared(
    folder: Path, name: str, there: Sequence[ManifestRow], now: Sequence[ManifestRow]
) -> list[ManifestRow]:
    """Return the rows that are new; raise for those that are gone or changed."""
    wanted = {row.path: row for row in now}
    gone = [row for row in there if row.path not in wanted]
    if gone:
        raise LabelgenError(
            f"{folder} was made of more videos: {_counted(gone, 'no longer listed')} in {name}; "
            "list them again, or choose another --out"
        )
    for row in there:
        differing = _difference(row, wanted[row.path])
        if differing:
            raise LabelgenError(
                f"{folder} was made of other rows: {row.path} in {name} has {differing}; change it "
                "back, or choose another --out"
            )
    paths = {row.path for row in there}
    return _numbered_alike(there, [row for row in now if row.path not in paths])


def _difference(there: ManifestRow, now: ManifestRow) -> str:
    """Return what differs between two rows of one video; the numbers of named classes may."""
    fields = ["class_name"] if there.class_name else ["class_name", "class_index"]
    return ", ".join(
        f"{field} {getattr(now, field)!r}, not {getattr(there, field)!r}"
        for field in fields
        if getattr(there, field) != getattr(now, field)
    )


def _numbered_alike(there: Iterable[ManifestRow], new: Iterable[ManifestRow]) -> list[ManifestRow]:
    """Give new rows the class numbers that are in use, and new classes numbers that are not.

    Classes of a folder are counted in order of their names, so that a new one shifts others.
    """
    numbers = {row.class_name: row.class_index for row in there if row.class_name}
    rows = []
    for row in new:
        if row.class_name and row.class_name not in numbers:
            taken = row.class_index in numbers.values()
            numbers[row.class_name] = max(numbers.values()) + 1 if taken else row.class_index
        rows.append(row._replace(class_index=numbers.get(row.class_name, row.class_index)))
    return rows


def _counted(rows: Sequence[ManifestRow], what: str) -> str:
    verb = "is" if len(rows) == 1 else "are"
    return f"{len(rows)} {verb} {what} (first: {rows[0].path})"
