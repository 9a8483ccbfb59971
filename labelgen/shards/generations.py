"""What the sets of a shard folder are made of, row by row: videos that came later are generations.

The rows of the set ``name`` that were there first make its shards; rows that are added make further
shards, named as those of a set ``name+1``, then ``name+2``. What is sealed stays as it is. The rows
of each are kept beside the shards, in ``name.rows.csv``, with their digest in the run record.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from labelgen.errors import LabelgenError
from labelgen.shards.seal import shard_name
from labelgen.video.manifest import ManifestRow, parse_manifest, rows_digest

ROWS_SUFFIX = ".rows.csv"

_Rows = list[ManifestRow]

_LATER = re.compile(r"(?P<set>.+)\+(?P<number>[1-9]\d*)")
# File systems take 255; the rest is for number, host and process.
_LONGEST_NAME = 128


class Generation(NamedTuple):
    """Rows whose shards are planned together.

    Attributes
    ----------
    name : str
        Of its shards.
    rows : list of ManifestRow
        With their frame counts.
    """

    name: str
    rows: list[ManifestRow]


class Arrangement(NamedTuple):
    """What a run works on.

    Attributes
    ----------
    generations : list of Generation
    dropped : list of str
        Names of generations that the folder is to forget: no shard of them is there.
    """

    generations: list[Generation]
    dropped: list[str]


def checked_set_name(name: str) -> str:
    """Return the name of a set if it can begin the names of files.

    Raises
    ------
    LabelgenError
        If it cannot.
    """
    # Surrogates stand for bytes of a file name that are not UTF-8.
    foreign = any(letter in "/\\\0\r\n" or "\ud800" <= letter <= "\udfff" for letter in name)
    later = set_of_generation(name) != name
    if not name or name.startswith(".") or foreign or later or len(name.encode()) > _LONGEST_NAME:
        raise LabelgenError(
            f"shards cannot be called {name!a}: a name, with the split's if there is one, has at "
            f"most {_LONGEST_NAME} bytes, no slashes or line breaks, does not begin with a dot and "
            "does not end with a plus and a number; choose another --name or rename the split"
        )
    return name


def set_of_generation(name: str) -> str:
    """Return the set that a generation belongs to."""
    return _age(name)[0]


def in_order(names: Iterable[str]) -> list[str]:
    """Return names of generations in order: by set, and in each as they came."""
    return sorted(names, key=_age)


def _age(name: str) -> tuple[str, int]:
    match = _LATER.fullmatch(name)
    return (match["set"], int(match["number"])) if match else (name, 0)


def rows_file(folder: Path, name: str) -> Path:
    """Return where the rows of a generation are kept."""
    return folder / f"{name}{ROWS_SUFFIX}"


def read_rows(folder: Path, run: Mapping[str, Any]) -> dict[str, list[ManifestRow]]:
    """Return the rows of each generation that a run record plans, in order, where they are kept.

    Raises
    ------
    LabelgenError
        If they are not those that the record knows.
    """
    for name, problem in rows_problems(folder, run).items():
        raise LabelgenError(f"{rows_file(folder, name)} {problem}")
    found = {name: kept_rows(folder, name, run) for name in in_order(run["plan"])}
    return {name: rows for name, rows in found.items() if rows is not None}


def rows_problems(folder: Path, run: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong with the kept rows of a run record's generations, by their names."""
    lost = "is absent or was changed; put a copy of it back, or run the same extract command again"
    return {
        name: lost
        for name in in_order(run.get("plan", {}))
        # A record of an earlier version vouches for no rows, and there may be none.
        if (name in run.get("rows", {}) or rows_file(folder, name).exists())
        and kept_rows(folder, name, run) is None
    }


def kept_rows(folder: Path, name: str, run: Mapping[str, Any]) -> list[ManifestRow] | None:
    """Return the rows of a generation; None if they are gone or not those of the run record."""
    try:
        rows = [row for _, row in parse_manifest(rows_file(folder, name))]
    except LabelgenError:
        return None
    recorded = run.get("rows", {}).get(name)
    return rows if recorded in (None, rows_digest(rows, frames=True)) else None


def arrange(
    folder: Path,
    run: Mapping[str, Any],
    *,
    sets: Mapping[str, Sequence[ManifestRow]],
    add: bool,
    counted: Callable[[Sequence[ManifestRow]], list[ManifestRow]],
) -> Arrangement:
    """Divide the rows of sets into the generations that a folder knows, and new ones.

    Parameters
    ----------
    folder : Path
        The shard folder.
    run : mapping
        Its run record; empty if it is new.
    sets : mapping
        The rows that are wanted, by set.
    add : bool
        Whether a set that is known may grow.
    counted : callable
        Returns rows with their frame counts looked up.

    Returns
    -------
    Arrangement
        Rows that are known are as they were; a class has the same number in all sets.

    Raises
    ------
    LabelgenError
        If a set that is known lacks rows now, has other ones, or has new ones and may not grow; or
        if known rows are lost, and not those that are given.
    """
    known = _known(folder, run, sets)
    wanted = {name: {row.path: row for row in rows} for name, rows in sets.items()}
    dropped = list(_dropped(folder, run, known, wanted))
    for name in dropped:
        del known[name]
    classes = _Classes(row for rows in known.values() for row in rows or ())
    _tell_other_lengths(folder, known, wanted)
    generations = []
    for name, rows in sets.items():
        parts = {part: known[part] for part in known if set_of_generation(part) == name}
        paths = {row.path for kept in parts.values() for row in kept or ()}
        left = [row for row in map(classes.numbered, rows) if row.path not in paths]
        whole, left = _with_lost(folder, run, parts, left, counted)
        if add and run:
            _check_elsewhere(folder, name, left, known, sets)
        generations += [Generation(part, kept) for part, kept in whole.items()]
        if left and parts and not add:
            raise LabelgenError(
                f"{folder} was made of fewer videos: {_counted(left, 'new')} in {name}; --add "
                "makes further shards of them, and keeps those that are there"
            )
        if left:
            generations.append(Generation(_next_name(name, parts), counted(left)))
            classes.tell(folder)
    return Arrangement(generations, dropped)


def _known(
    folder: Path, run: Mapping[str, Any], sets: Mapping[str, Sequence[ManifestRow]]
) -> dict[str, _Rows | None]:
    """Return known rows by generation; None where they are lost, which those given may replace."""
    for name, problem in rows_problems(folder, run).items():
        if set_of_generation(name) not in sets:
            raise LabelgenError(f"{rows_file(folder, name)} {problem}")
    return {name: kept_rows(folder, name, run) for name in in_order(run.get("plan", {}))}


def _dropped(
    folder: Path,
    run: Mapping[str, Any],
    known: Mapping[str, _Rows | None],
    wanted: Mapping[str, Mapping[str, ManifestRow]],
) -> Iterator[str]:
    """Yield generations whose rows are gone or changed; raise if there are shards of one."""
    for name, rows in known.items():
        of_set = set_of_generation(name)
        if of_set not in wanted:
            continue
        fault = _fault(folder, name, rows, wanted[of_set]) if rows else "lost"
        if fault and not _has_shards(folder, name, run):
            yield name
        elif fault and rows:
            raise LabelgenError(fault)


def _tell_other_lengths(
    folder: Path,
    known: Mapping[str, _Rows | None],
    wanted: Mapping[str, Mapping[str, ManifestRow]],
) -> None:
    """Say where a manifest lists other lengths than were planned with: files may be replaced."""
    other = [
        (of_set, row, wanted[of_set][row.path].frames)
        for name, rows in known.items()
        if (of_set := set_of_generation(name)) in wanted
        for row in rows or ()
        if row.frames > 0 and wanted[of_set][row.path].frames not in (row.frames, -1, 0)
    ]
    if not other:
        return
    of_set, row, frames = other[0]
    more = f", and {len(other) - 1} more" if len(other) > 1 else ""
    print(
        f"{row.path} in {of_set} is listed with {frames} frames, and {folder} was planned with "
        f"{row.frames}{more}; sealed shards stay as they are: choose another --out if it was "
        "replaced",
        file=sys.stderr,
    )


def _has_shards(folder: Path, name: str, run: Mapping[str, Any]) -> bool:
    total = run["plan"][name]
    return any((folder / shard_name(name, number, total)).exists() for number in range(total))


def _with_lost(
    folder: Path,
    run: Mapping[str, Any],
    parts: Mapping[str, _Rows | None],
    left: _Rows,
    counted: Callable[[Sequence[ManifestRow]], _Rows],
) -> tuple[dict[str, _Rows], _Rows]:
    """Return the parts of a set, one that is lost found again in rows that are left, and the rest.

    Raises
    ------
    LabelgenError
        If the rows that are left are not those that are lost.
    """
    lost = [name for name, rows in parts.items() if rows is None]
    found = counted(left) if lost else []
    if lost and (len(lost) > 1 or not _are(found, lost[0], run)):
        raise LabelgenError(
            f"{rows_file(folder, lost[0])} is absent or was changed, and the videos that are "
            "listed now, or their lengths, are others; put a copy of it back, list what it held "
            "and no more, or choose another --out"
        )
    whole = {name: found if rows is None else rows for name, rows in parts.items()}
    return whole, [] if lost else left


def _check_elsewhere(
    folder: Path,
    name: str,
    left: Sequence[ManifestRow],
    known: Mapping[str, _Rows | None],
    sets: Collection[str],
) -> None:
    """Say that a set gets videos that another holds; refuse it if all names of this call are new.

    Raises
    ------
    LabelgenError
        If the folder knows none of the sets of this call, as under a manifest of another name.
    """
    wanted = {row.path for row in left}
    twice = {
        set_of_generation(part): row.path
        for part, rows in known.items()
        for row in rows or ()
        if set_of_generation(part) != name and row.path in wanted
    }
    if not twice:
        return
    of_set, path = next(iter(twice.items()))
    if not any(set_of_generation(part) in sets for part in known):
        raise LabelgenError(
            f"{folder} holds {path} in {of_set}, and {name} would be a set beside it; give the "
            "--name that the shards were made with, or leave --add away to make another set"
        )
    print(f"{path} is added to {name}, and {of_set} holds it too", file=sys.stderr)


def _are(rows: Sequence[ManifestRow], name: str, run: Mapping[str, Any]) -> bool:
    """Whether rows are those that a run record has of a generation."""
    if name in run.get("rows", {}):
        return bool(run["rows"][name] == rows_digest(rows, frames=True))
    return bool(run["manifests"].get(name) == rows_digest(rows))


def _next_name(set_name: str, parts: Iterable[str]) -> str:
    ages = [_age(part)[1] for part in parts]
    return f"{set_name}+{max(ages) + 1}" if ages else set_name


def _fault(
    folder: Path, name: str, there: Sequence[ManifestRow], wanted: Mapping[str, ManifestRow]
) -> str:
    """Return the sentence for rows of a generation that are gone or changed; empty if none is."""
    of_set = set_of_generation(name)
    gone = [row for row in there if row.path not in wanted]
    if gone:
        undo = "" if name == of_set else f"delete {name}-* to take the addition back, "
        return (
            f"{folder} was made of more videos: {_counted(gone, 'no longer listed')} in {of_set}; "
            f"list them again, {undo}or choose another --out"
        )
    for row in there:
        differing = _difference(row, wanted[row.path])
        if differing:
            return (
                f"{folder} was made of other rows: {row.path} in {of_set} has {differing}; change "
                "it back, or choose another --out"
            )
    return ""


def _difference(there: ManifestRow, now: ManifestRow) -> str:
    """Return what differs between two rows of one video; the numbers of named classes may."""
    fields = ["class_name"] if there.class_name else ["class_name", "class_index"]
    return ", ".join(
        f"{field} {getattr(now, field)!r}, not {getattr(there, field)!r}"
        for field in fields
        if getattr(there, field) != getattr(now, field)
    )


def _counted(rows: Sequence[ManifestRow], what: str) -> str:
    verb = "is" if len(rows) == 1 else "are"
    return f"{len(rows)} {verb} {what} (first: {rows[0].path})"


class _Classes:
    """The one number of each class name in a folder, whatever its set.

    Parameters
    ----------
    known : iterable of ManifestRow
        All that the folder knows, in order.
    """

    def __init__(self, known: Iterable[ManifestRow]) -> None:
        self._numbers: dict[str, int] = {}
        self._taken: set[int] = set()
        self._overruled: dict[str, int] = {}
        for row in known:
            self._taken.add(row.class_index)
            if row.class_name:
                self._numbers.setdefault(row.class_name, row.class_index)
        self._highest = max(self._taken, default=-1)

    def numbered(self, row: ManifestRow) -> ManifestRow:
        """Return a row with its class's number: the known one, or its own, or else a free one.

        Classes of a folder are counted in order of their names, so that a new one shifts others.
        """
        name, listed = row.class_name, row.class_index
        if not name:
            return row
        if name not in self._numbers:
            self._numbers[name] = self._free(listed)
        if listed not in (-1, self._numbers[name]):
            self._overruled.setdefault(name, listed)
        return row._replace(class_index=self._numbers[name])

    def _free(self, listed: int) -> int:
        # A class without a number stays without.
        number = self._highest + 1 if listed in self._taken and listed >= 0 else listed
        self._taken.add(number)
        self._highest = max(self._highest, number)
        return number

    def tell(self, folder: Path) -> None:
        """Say which numbers that were listed do not hold, once."""
        if not self._overruled:
            return
        (name, listed), *others = self._overruled.items()
        more = f", and {len(others)} more" if others else ""
        print(
            f"in {folder} a class keeps the number that it had first: {name} is "
            f"{self._numbers[name]}, listed as {listed}{more}",
            file=sys.stderr,
        )
        self._overruled.clear()
