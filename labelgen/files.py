"""Files that are whole or not there: written under another name, synced, then renamed."""

from __future__ import annotations

import csv
import errno
import glob
import json
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

_PARTIAL = re.compile(r"(?P<file>.+)\.(?P<host>[A-Za-z0-9_-]+)~(?P<process>\d+)~[0-9a-f]{8}\.part")
_HOST = re.sub(r"[^A-Za-z0-9_-]", "-", platform.node()) or "host"


class Partial(NamedTuple):
    """What a partial file's name tells: what it was to become, and who is writing it.

    Attributes
    ----------
    file : str
        The final name.
    process : int or None
        Number of the writing process, if it is one of this machine.
    """

    file: str
    process: int | None

    @property
    def is_dead(self) -> bool:
        """Whether the process was one of this machine and is no more."""
        return self.process is not None and not _is_alive(self.process)


def partial_name(file: Path) -> Path:
    """Return a name beside `file` that no other process, here or on another machine, writes to."""
    return file.with_name(f"{file.name}.{_HOST}~{os.getpid()}~{secrets.token_hex(4)}.part")


def parse_partial(file: Path) -> Partial | None:
    """Return what the name of a partial file tells, None if it is no partial file's name."""
    match = _PARTIAL.fullmatch(file.name)
    if match is None:
        return None
    return Partial(match["file"], int(match["process"]) if match["host"] == _HOST else None)


def partials_in(folder: Path) -> Iterator[tuple[Path, Partial]]:
    """Yield the half-written files in a folder, whoever writes them, in order."""
    for file in sorted(folder.iterdir()):
        partial = parse_partial(file)
        if partial is not None and file.is_file():
            yield file, partial


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # One that nobody has buried yet does not write any more.
    try:
        state = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(") ")[2]
    except OSError:
        return True
    return not state.startswith("Z")


def publish(partial: Path, file: Path) -> None:
    """Sync a finished file and give it its name, so that a crash leaves all of it or none.

    One that was written in another folder is copied beside its place first.
    """
    if partial.parent != file.parent:
        with replacing(file, tidy=False) as copy:
            shutil.copyfile(partial, copy)
        partial.unlink()
        return
    _sync(partial)
    partial.replace(file)
    # A folder that may be written but not read, and some file systems, cannot be synced by name.
    with suppress(OSError):
        _sync(file.parent)


@contextmanager
def replacing(file: Path, *, tidy: bool = True) -> Iterator[Path]:
    """Give a path to write to; what is there takes the name `file` when the block ends well.

    Parameters
    ----------
    file : Path
        The final name; its folder must exist. Until the end it keeps what it held before, and for
        good if the block raises.
    tidy : bool, optional
        Whether to look through the folder first for what dead processes left half-written of it.

    Raises
    ------
    OSError
        It cannot be written, or what has that name is no regular file.
    """
    if file.exists() and not file.is_file():
        # Such as a folder, or a device, which renaming would take the place of.
        raise OSError(errno.EINVAL, "there is something that is no regular file", str(file))
    if tidy:
        _remove_dead(file)
    partial = partial_name(file)
    try:
        yield partial
        publish(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def _remove_dead(file: Path) -> None:
    for other in file.parent.glob(f"{glob.escape(file.name)}.*.part"):
        partial = parse_partial(other)
        if partial is not None and partial.file == file.name and partial.is_dead:
            if other.is_dir():
                shutil.rmtree(other, ignore_errors=True)
            else:
                other.unlink(missing_ok=True)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write to; it takes the name `folder` when the block ends well.

    Where somebody else has made that one meanwhile, theirs stays. What dead processes left
    half-written of it is deleted, and so is what is written if the block raises. Files in it are
    not synced: a machine that loses its power may lose some.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_dead(folder)
    partial = partial_name(folder)
    partial.mkdir()
    try:
        yield partial
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_json(file: Path, value: Any, *, tidy: bool = True) -> None:
    """Write a JSON file, indented and with sorted keys; `tidy` is as in `replacing`."""
    with replacing(file, tidy=tidy) as partial, partial.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=2, sort_keys=True, ensure_ascii=False)
        stream.write("\n")


def write_csv(file: Path, rows: Iterable[Sequence[str | int]]) -> None:
    """Write rows as CSV in UTF-8, such that the csv module reads every cell as it was."""
    with replacing(file) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        plain = csv.writer(stream, lineterminator="\n")
        quoted = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
        for row in rows:
            # Of the letters that end lines, the module quotes only those of its line end.
            (quoted if any("\r" in str(cell) for cell in row) else plain).writerow(row)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
