"""The manifest: one CSV row per video, checked as a whole before any work starts."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from labelgen.errors import LabelgenError
from labelgen.files import write_csv

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
        # As bytes: reading text would translate line ends inside of cells, too.
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise LabelgenError(f"manifest {file} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise LabelgenError(f"manifest {file} cannot be read as UTF-8 text: {error}") from None
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
    cells = (
        (row.path, row.class_name, _blank(row.class_index), row.split, _blank(row.frames))
        for row in rows
    )
    write_csv(target, [_COLUMNS, *cells])


def _blank(number: int) -> str:
    return "" if number < 0 else str(number)


def find_videos(root: str | os.PathLike[str]) -> list[ManifestRow]:
    """Return every video below a folder, sorted by path; a video's class is its parent folder.

    What else lies there is counted on stderr.

    Parameters
    ----------
    root : path-like
        The folder. Links are followed, see `video_paths`; hidden files and folders are passed over.

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
            f"{' '.join(sorted(VIDEO_SUFFIXES))}; name another folder with --root, or one of "
            "frames with --frames-from"
        )
    return classed_rows(paths)


def classed_rows(paths: Sequence[str]) -> list[ManifestRow]:
    """Return a row for each path; its class is the name of the folder it lies in, if any.

    Class indices count the sorted class names.
    """
    names = [PurePosixPath(path).parent.name for path in paths]
    index = {name: number for number, name in enumerate(sorted(set(names) - {""}))}
    return [
        ManifestRow(path, name, index.get(name, -1))
        for path, name in zip(paths, names, strict=True)
    ]


def video_paths(root: Path, *, others: Counter[str] | None = None) -> Iterator[str]:
    """Yield the paths of all videos below a folder, relative to it, in no order.

    Links are followed, since whoever put them there wants it, but every folder is entered once and
    every file listed once: under the name that leads through the fewest links, and of those the
    first in order. None is followed to a folder that `root` lies in, and one that leads to nothing
    is no video. What is passed over is counted in `others`, by kind.
    """
    others = Counter() if others is None else others
    seen = {_identity(folder) for folder in root.resolve().parents}
    turn = [str(root)]
    while turn:
        files: list[str] = []
        links: list[str] = []
        for place in turn:
            if os.path.isdir(place):
                _enter(place, seen, files=files, links=links, others=others)
            else:
                files.append(place)
        for file in sorted(files):
            suffix = Path(file).suffix.lower()
            if suffix not in VIDEO_SUFFIXES:
                others[f"*{suffix}" if suffix else "without a suffix"] += 1
            elif os.path.islink(file) and _leads_nowhere(file):
                others["linked to nothing"] += 1
            elif _is_new(file, seen, others):
                yield checked_text(Path(file).relative_to(root).as_posix())
        turn = sorted(links)


def _enter(
    place: str,
    seen: set[tuple[int, int] | None],
    *,
    files: list[str],
    links: list[str],
    others: Counter[str],
) -> None:
    """Add to `files` and `links` what lies below a folder without a link on the way."""
    waiting = [place]
    while waiting:
        folder = waiting.pop()
        if not _is_new(folder, seen, others):
            continue
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name, reverse=True)
        except OSError:
            others["unreadable"] += 1
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                links.append(entry.path)
            else:
                (waiting if entry.is_dir() else files).append(entry.path)


def _is_new(path: str, seen: set[tuple[int, int] | None], others: Counter[str]) -> bool:
    """Whether a file or folder was not met by another name; what cannot be looked at is new."""
    identity = _identity(path)
    if identity is None:
        return True
    if identity in seen:
        others["listed by another name"] += 1
        return False
    seen.add(identity)
    return True


def _leads_nowhere(link: str) -> bool:
    try:
        os.stat(link)
    except OSError as error:
        # Of one that may not be followed nobody knows.
        return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
    return False


def _identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def checked_text(path: str) -> str:
    """Return a path if it is UTF-8.

    Raises
    ------
    LabelgenError
        If it is not.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise LabelgenError(f"the file name {path!a} is not UTF-8; rename the file") from None
    return path


def rows_digest(rows: Iterable[ManifestRow], *, frames: bool = False) -> str:
    """Return the SHA-256 of what rows say of their videos, the planning hint `frames` if asked."""
    digest = hashlib.sha256()
    for row in rows:
        for field in row if frames else row[:-1]:
            digest.update(f"{field}\0".encode())
        digest.update(b"\n")
    return digest.hexdigest()
