"""The manifest: one CSV row per video, checked as a whole before any work starts."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from labelgen.errors import LabelgenError
from labelgen.files import replacing

VIDEO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("3gp", "asf", "avi", "divx", "f4v", "flv", "gif", "m2ts", "m4v", "mkv", "mov", "mp4"),
        *("mpeg", "mpg", "mts", "ogv", "ts", "vob", "webm", "wmv"),
    )
)

_MOST_SAID = 5

_COLUMNS = ("path", "class_name", "class_index", "split", "frames")


class ManifestRow(NamedTuple):
    """One video.

    Attributes
    ----------
    path : str
        Relative to the data root, with forward slashes.
    class_name : str
        Empty where there is none.
    class_index : int
        0-based; -1 where there is none.
    split : str
        Empty where there is none.
    frames : int
        Frame count of the header, a hint for planning shards; -1 where it was not looked up.
    """

    path: str
    class_name: str = ""
    class_index: int = -1
    split: str = ""
    frames: int = -1


def read_manifest(
    file: str | os.PathLike[str], *, root: str | os.PathLike[str]
) -> list[ManifestRow]:
    """Return the rows of a manifest, all of them checked.

    Parameters
    ----------
    file : path-like
        CSV, UTF-8 with or without BOM, any line ends, with a header row.
    root : path-like
        The folder that the paths are relative to.

    Returns
    -------
    list of ManifestRow

    Raises
    ------
    LabelgenError
        Names the file, the line and the value: no or unknown columns, an absolute path, ``..``, a
        video named twice, a number that is none.
    """
    numbered = list(parse_manifest(Path(file)))
    if not numbered:
        raise LabelgenError(f"{file} lists no video")
    _check_folder(Path(root))
    seen: dict[tuple[str, str], int] = {}
    rows = []
    for line, row in numbered:
        where = f"{file}, line {line}"
        _check_path(row.path, root, where=where)
        _check_split(row.split, where=where)
        # ./a//b.avi is a/b.avi.
        rows.append(row._replace(path=PurePosixPath(row.path).as_posix()))
        first = seen.setdefault((row.split, rows[-1].path), line)
        if first != line:
            raise LabelgenError(f"{where}: {row.path!r} stands in line {first} already")
    return rows


def parse_manifest(file: Path) -> Iterator[tuple[int, ManifestRow]]:
    """Yield the rows of a manifest with their line numbers, their paths not looked at.

    Raises
    ------
    LabelgenError
        If it is absent or no such table.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise LabelgenError(f"manifest {file} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise LabelgenError(f"manifest {file} cannot be read as UTF-8 text: {error}") from None
    # The csv module wants line ends untouched; a NUL byte is an error of its own kind in it.
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        _check_columns(reader.fieldnames, file)
        for record in reader:
            yield reader.line_num, _row(record, where=f"{file}, line {reader.line_num}")
    except csv.Error as error:
        raise LabelgenError(f"{file}, line {reader.line_num}: not CSV: {error}") from None


def _check_columns(names: Iterable[str] | None, file: Path) -> None:
    found = list(names or ())
    if "path" not in found:
        raise LabelgenError(
            f"{file} has no column 'path'; its first line must name the columns, it reads "
            f"{','.join(map(str, found))!r}"
        )
    unknown = [name for name in found if name not in _COLUMNS]
    if unknown or len(set(found)) < len(found):
        raise LabelgenError(
            f"{file} has the columns {', '.join(found)}; each may stand once, of "
            f"{', '.join(_COLUMNS)}"
        )


def _row(record: dict[str, str | None], *, where: str) -> ManifestRow:
    if None in record or None in record.values():
        raise LabelgenError(f"{where}: the number of fields differs from the header's")
    if any("\0" in field for field in record.values() if field):
        raise LabelgenError(f"{where}: a field holds a NUL byte; the file is damaged")
    return ManifestRow(
        path=record["path"] or "",
        class_name=record.get("class_name") or "",
        class_index=_whole(record.get("class_index"), "class_index", where=where),
        split=record.get("split") or "",
        frames=_whole(record.get("frames"), "frames", where=where),
    )


def _whole(text: str | None, column: str, *, where: str) -> int:
    if not text:
        return -1
    try:
        value = int(text)
    except ValueError:
        value = -2
    if not -1 <= value < 2**31:
        raise LabelgenError(f"{where}: {column} {text!r} is not a whole number from -1 on")
    return value


def _check_path(path: str, root: str | os.PathLike[str], *, where: str) -> None:
    parts = PurePosixPath(path).parts
    # A backslash is a letter here; in a path from Windows it is not.
    foreign = "\\" in path and not os.path.lexists(os.path.join(root, path))
    if not parts or "\0" in path or foreign:
        raise LabelgenError(f"{where}: {path!r} is not a relative path with forward slashes")
    if path.startswith("/") or ".." in parts:
        raise LabelgenError(f"{where}: {path!r} must be relative to the root and without '..'")


def _check_split(split: str, *, where: str) -> None:
    if "/" in split or "\\" in split or split.startswith("."):
        raise LabelgenError(
            f"{where}: the split {split!r} cannot stand in a file name; leave out slashes and a "
            "leading dot"
        )


def _check_folder(root: Path) -> None:
    if not root.is_dir():
        raise LabelgenError(f"the data root {root} is not a folder; name one with --root")


def write_manifest(rows: Iterable[ManifestRow], file: str | os.PathLike[str]) -> None:
    """Write rows as CSV, whole or not at all; makes the file's folder."""
    target = Path(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        replacing(target) as partial,
        partial.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(
            (row.path, row.class_name, _blank(row.class_index), row.split, _blank(row.frames))
            for row in rows
        )


def _blank(number: int) -> str:
    return "" if number < 0 else str(number)


def find_videos(root: str | os.PathLike[str]) -> list[ManifestRow]:
    """Return every video below a folder, sorted by path; a video's class is its parent folder.

    What else lies there is counted on stderr.

    Parameters
    ----------
    root : path-like
        The folder. Links are followed; hidden files and folders are passed over.

    Returns
    -------
    list of ManifestRow
        Class indices count the sorted class names; videos directly in `root` have no class.

    Raises
    ------
    LabelgenError
        If `root` is not a folder or holds no video.
    """
    _check_folder(Path(root))
    others: Counter[str] = Counter()
    paths = sorted(video_paths(Path(root), others=others))
    if others:
        counts = ", ".join(f"{count} {what}" for what, count in others.most_common(_MOST_SAID))
        more = ", ..." if len(others) > _MOST_SAID else ""
        print(f"passed over below {root}: {counts}{more}", file=sys.stderr)
    if not paths:
        raise LabelgenError(
            f"there is no video below {os.path.abspath(root)}; looked for files ending in "
            f"{' '.join(sorted(VIDEO_SUFFIXES))}; name another folder with --root"
        )
    names = [PurePosixPath(path).parent.name for path in paths]
    index = {name: number for number, name in enumerate(sorted(set(names) - {""}))}
    return [
        ManifestRow(path, name, index.get(name, -1))
        for path, name in zip(paths, names, strict=True)
    ]


def video_paths(root: Path, *, others: Counter[str] | None = None) -> Iterator[str]:
    """Yield the paths of all videos below a folder, relative to it, in no order.

    Links to folders are followed, since whoever put them there wants it, but none into a folder
    that it lies in. What is passed over is counted in `others`, by kind.
    """
    others = Counter() if others is None else others

    def note(_: OSError) -> None:
        others["unreadable folders"] += 1

    for folder, folders, files in os.walk(root, followlinks=True, onerror=note):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and not _leads_back(Path(folder, name))
        ]
        for name in files:
            suffix = Path(name).suffix.lower()
            if name.startswith("."):
                continue
            if suffix in VIDEO_SUFFIXES:
                yield _text(Path(folder, name).relative_to(root).as_posix())
            else:
                others[f"*{suffix}" if suffix else "without a suffix"] += 1


def _leads_back(folder: Path) -> bool:
    real = folder.resolve()
    return folder.is_symlink() and real in (parent.resolve() for parent in folder.parents)


def _text(path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise LabelgenError(f"the file name {path!a} is not UTF-8; rename the file") from None
    return path


def rows_digest(rows: Iterable[ManifestRow]) -> str:
    """Return the SHA-256 of what rows say of their videos, the planning hint left out."""
    digest = hashlib.sha256()
    for row in rows:
        for field in row[:-1]:
            digest.update(f"{field}\0".encode())
        digest.update(b"\n")
    return digest.hexdigest()
