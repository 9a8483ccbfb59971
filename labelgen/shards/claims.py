"""Who may write what in a shard folder: locks, which end with the last process that holds them.

Several runs may work in one folder, on one machine or on several that share it. Each is present
in it; one at a time looks at what there is and records what it is about to do; and a shard belongs
to the process that has its claim.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from labelgen.errors import LabelgenError

_LOCK_FILE, _PRESENT_FILE = ".lock", ".present"
CLAIMS = ".claims"
"""Folder of the files that stand for claims; it is there while somebody has one."""
_PATIENCE = 2.0


@contextmanager
def locked(folder: Path, *, waits: bool = False) -> Iterator[int | None]:
    """Hold a folder alone; the folder is made where it is absent.

    Parameters
    ----------
    folder : Path
    waits : bool, optional
        Whether to wait for another that holds it, which is said, in place of an error.

    Yields
    ------
    int or None
        The descriptor, which may be inherited; None where the file system knows no locks.

    Raises
    ------
    LabelgenError
        If another process holds it, or the folder cannot be made.
    """
    with _opened(folder, _LOCK_FILE) as stream:
        until = time.monotonic() + _PATIENCE
        # The workers of a run that was killed take a moment to end.
        while (found := _flock(stream, fcntl.LOCK_EX)) is False and time.monotonic() < until:
            time.sleep(_PATIENCE / 20)
        if found is False and not waits:
            raise LabelgenError(
                f"another run is writing to {folder}; wait for it, or choose another --out"
            )
        if found is False:
            print(f"waiting for another run that is planning in {folder}", file=sys.stderr)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield None if found is None else stream.fileno()


class Presence:
    """That a run is at work in a folder, for other runs to know.

    Parameters
    ----------
    stream : file
        Open for writing as long as the run is there, and in its workers.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.descriptor = stream.fileno()

    def is_alone(self) -> bool | None:
        """Be present, and return whether nobody else is; None where there are no locks.

        To be asked by who holds the folder: meanwhile nobody can come.
        """
        alone = _flock(self._stream, fcntl.LOCK_EX)
        if alone is not None:
            fcntl.flock(self._stream, fcntl.LOCK_SH)
        return alone


@contextmanager
def present(folder: Path) -> Iterator[Presence]:
    """Be at work in a folder, which is made where it is absent; errors as of `locked`."""
    with _opened(folder, _PRESENT_FILE) as stream:
        yield Presence(stream)


@contextmanager
def claimed(file: Path) -> Iterator[bool]:
    """Claim a shard.

    Parameters
    ----------
    file : Path
        Of the shard, which need not be there.

    Yields
    ------
    bool
        Whether it is ours while the block lasts, and nobody else's. Where the file system knows no
        locks it always is: two that make it do work twice but no harm, since each writes a file of
        its own name and both are equal.
    """
    place = _claim_of(file)
    with _claim_file(place) as stream:
        found = _flock(stream, fcntl.LOCK_EX)
        # One that was given up meanwhile has no name any more, and another may be in its place.
        ours = found is None or (found and _has_name(stream, place))
        try:
            yield ours
        finally:
            if ours:
                place.unlink(missing_ok=True)
                with suppress(OSError):
                    place.parent.rmdir()


def is_claimed(file: Path) -> bool:
    """Return whether some process has the claim of a shard."""
    try:
        with _claim_of(file).open() as stream:
            return _flock(stream, fcntl.LOCK_SH) is False
    except FileNotFoundError:
        return False


def _claim_of(file: Path) -> Path:
    return file.parent / CLAIMS / file.name


def _claim_file(place: Path) -> IO[str]:
    while True:
        # Whoever has the last claim removes the folder.
        place.parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):
            return place.open("a")


def _has_name(stream: IO[str], place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), place.stat())
    except FileNotFoundError:
        return False


def _opened(folder: Path, name: str) -> IO[str]:
    try:
        for place in (folder, *folder.parents):
            if place.is_symlink() and not place.exists():
                raise LabelgenError(f"{place} is a link to nothing; make the folder it leads to")
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / name).open("w")
    except OSError as error:
        raise LabelgenError(f"cannot write to {folder}: {error.strerror}") from None


def _flock(stream: IO[str], how: int) -> bool | None:
    """Try to lock a file; None where the file system knows no locks."""
    try:
        fcntl.flock(stream, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
