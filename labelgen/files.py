"""Files that are whole or not there: written under another name, synced, then renamed."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Without process and random part: as written before these were added.
_PARTIAL = re.compile(r"(?P<file>.+?)(\.\d+-[0-9a-f]{8})?\.part")


def partial_name(file: Path) -> Path:
    """Return a name beside `file` that no other process, here or on another machine, writes to."""
    return file.with_name(f"{file.name}.{os.getpid()}-{secrets.token_hex(4)}.part")


def partial_of(file: Path) -> str | None:
    """Return the name of the file that a partial one was to become, None if it is no partial."""
    match = _PARTIAL.fullmatch(file.name)
    return match["file"] if match else None


def publish(partial: Path, file: Path) -> None:
    """Sync a finished file and give it its name, so that a crash leaves all of it or none."""
    sync(partial)
    partial.replace(file)
    sync(file.parent)


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give a path to write to; what is there takes the name `file` when the block ends well.

    Parameters
    ----------
    file : Path
        The final name; its folder must exist. Until the end it keeps what it held before, and for
        good if the block raises.
    """
    partial = partial_name(file)
    try:
        yield partial
        publish(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def write_json(file: Path, value: Any) -> None:
    """Write a JSON file, indented and with sorted keys."""
    with replacing(file) as partial, partial.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=2, sort_keys=True, ensure_ascii=False)
        stream.write("\n")


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
