"""The seal of a shard: the small file, written last, that says a shard is complete; and names.

A shard is written under another name, synced, and takes its final name only when whole; its seal
follows. A shard without a seal that fits it does not count.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from labelgen.errors import LabelgenError
from labelgen.files import publish, write_json

FORMAT = "motion-appearance-labels"
FORMAT_VERSION = 1

_NAME = re.compile(r"(?P<set>.+)-(?P<number>\d{5,})-of-(?P<total>\d{5,})\.h5")

_COUNTS = ("bytes", "videos", "clips", "crops")
_KEYS = {
    *("format", "format_version", "shard", "sha256", *_COUNTS),
    *("config_hash", "manifest_sha256", "failures"),
}

# What another try under the same settings does not change; a damaged file may be fetched again.
_LASTING = ("too_short", "not_finite")

_READ_BYTES = 1 << 20


class Failure(NamedTuple):
    """A video with something wrong: its path, a reason code, a sentence, and the clips kept."""

    path: str
    reason: str
    message: str
    clips: int = 0

    @property
    def may_pass(self) -> bool:
        """Whether another try may end otherwise."""
        return self.reason not in _LASTING


def shard_name(name: str, number: int, total: int) -> str:
    """Return the file name of a shard of the set `name`."""
    return f"{name}-{number:05d}-of-{total:05d}.h5"


def set_of(file: Path) -> tuple[str, int, int]:
    """Return set, number and total of a shard's file name.

    Raises
    ------
    LabelgenError
        If it is not a shard's name.
    """
    match = _NAME.fullmatch(file.name)
    if not match:
        raise LabelgenError(f"{file} is not named like a shard, set-00000-of-00001.h5")
    return match["set"], int(match["number"]), int(match["total"])


def seal_of(file: Path) -> Path:
    """Return where the seal of a shard lies."""
    return file.with_suffix(".json")


def read_seal(file: Path) -> dict[str, Any] | None:
    """Return the seal of a shard, None if shard or seal is absent or they do not fit together.

    Looks at names and sizes only; checksums are the business of `labelgen.shards.verify`.
    """
    try:
        seal: dict[str, Any] = json.loads(seal_of(file).read_text(encoding="utf-8"))
        fits = is_whole(seal) and seal["shard"] == file.name
        return seal if fits and seal["bytes"] == file.stat().st_size else None
    except (OSError, ValueError):
        return None


def fitting_seal(file: Path, *, config_hash: str, manifest_sha256: str) -> dict[str, Any] | None:
    """Return the seal of a shard that is made of these settings and rows, None if there is none."""
    seal = read_seal(file)
    wanted = (config_hash, manifest_sha256)
    return seal if seal and (seal["config_hash"], seal["manifest_sha256"]) == wanted else None


def failures_of(seal: dict[str, Any]) -> list[Failure]:
    """Return the failures that a seal lists."""
    return [Failure(**record) for record in seal["failures"]]


def is_whole(seal: Any) -> bool:
    """Return whether what was read as a seal has all that a seal of this version has."""
    return (
        isinstance(seal, dict)
        and seal.keys() >= _KEYS
        and (seal["format"], seal["format_version"]) == (FORMAT, FORMAT_VERSION)
        and all(isinstance(seal[key], int) for key in _COUNTS)
        and isinstance(seal["failures"], list)
        and all(_is_failure(record) for record in seal["failures"])
    )


def _is_failure(record: Any) -> bool:
    known = set(Failure._fields)
    return isinstance(record, dict) and known >= record.keys() >= known - {"clips"}


def is_shard_name(name: str) -> bool:
    """Return whether a file is named as shards are."""
    return _NAME.fullmatch(name) is not None


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def is_as_sealed(file: Path, seal: dict[str, Any]) -> bool:
    """Return whether a shard is what was sealed, as far as its time of change can tell.

    One that was written to since is read whole, and held against the checksum: a wrong byte can let
    HDF5 search without end.
    """
    later = file.stat().st_mtime_ns > seal_of(file).stat().st_mtime_ns
    return not later or file_digest(file) == seal["sha256"]


def write_seal(partial: Path, file: Path, content: dict[str, Any]) -> None:
    """Give a finished shard its final name, and seal it.

    Parameters
    ----------
    partial, file : Path
        The shard as it was written, closed, and its final name.
    content : dict
        What the seal says beside name, size and SHA-256: counts, hashes and failures.
    """
    seal = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "shard": file.name,
        "sha256": file_digest(partial),
        "bytes": partial.stat().st_size,
        **content,
    }
    seal_of(file).unlink(missing_ok=True)
    publish(partial, file)
    # A run looks for what is half-written when it begins, not for each of its shards.
    write_json(seal_of(file), seal, tidy=False)
