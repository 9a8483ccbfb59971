"""How far a shard folder has come: what is sealed, being made, missing, and what failed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labelgen.progress import count_text, size_text
from labelgen.shards.claims import is_claimed
from labelgen.shards.folder import (
    find_shard_folder,
    planned_digests,
    planned_files,
    read_run,
)
from labelgen.shards.generations import set_of_generation
from labelgen.shards.seal import Failure, failures_of, read_seal

_NAMED = 3


@dataclass(frozen=True)
class SetStatus:
    """How far one set of a folder has come.

    Attributes
    ----------
    shards : int
        Planned.
    sealed : int
        There, with a seal of the folder's settings and rows and of the file's size.
    making, missing : tuple of str
        Names of the others: those that some run has claimed, and those that nobody makes. Where a
        file system has no locks, all of them are missing.
    videos, clips, bytes : int
        Of what is sealed.
    failures : tuple of Failure
        That the seals list.
    """

    shards: int
    sealed: int
    making: tuple[str, ...]
    missing: tuple[str, ...]
    videos: int
    clips: int
    bytes: int
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class FolderStatus:
    """How far a shard folder has come, set by set."""

    sets: dict[str, SetStatus]

    @property
    def is_complete(self) -> bool:
        """Whether every planned shard is sealed."""
        return not any(part.making or part.missing for part in self.sets.values())

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; failures as their number by reason."""
        sets = {}
        for name, part in self.sets.items():
            reasons = [failure.reason for failure in part.failures]
            counts = {reason: reasons.count(reason) for reason in sorted(set(reasons))}
            sets[name] = {**asdict(part), "failures": counts}
        return {"complete": self.is_complete, "sets": sets}

    def lines(self) -> Iterator[str]:
        """Yield the status for people, line by line."""
        for name, part in self.sets.items():
            yield (
                f"{name}: {part.sealed} of {count_text(part.shards, 'shard')} sealed, "
                f"{count_text(part.videos, 'video')}, {count_text(part.clips, 'clip')}, "
                f"{size_text(part.bytes)}"
            )
            for what, files in (("being made", part.making), ("missing", part.missing)):
                if files:
                    yield f"  {len(files)} {what}: {_some(files)}"
            if part.failures:
                failed = [failure.path for failure in part.failures]
                yield f"  {count_text(len(failed), 'video')} failed: {_some(failed)}"
        if not self.is_complete:
            yield "incomplete: run the same extract command again, on as many machines as you like"


def read_status(path: Path) -> FolderStatus:
    """Look at the names, seals and claims of a shard folder; no shard is opened.

    Raises
    ------
    LabelgenError
        If there is no shard folder at `path` or its run record is damaged.
    """
    folder = find_shard_folder(path)
    run = read_run(folder)
    files: dict[str, list[Path]] = {}
    for name, of_generation in planned_files(folder, run).items():
        files.setdefault(set_of_generation(name), []).extend(of_generation)
    digests = planned_digests(folder, run)
    return FolderStatus(
        {name: _set_status(of_set, run["config_hash"], digests) for name, of_set in files.items()}
    )


def _set_status(files: list[Path], config_hash: str, digests: dict[str, str]) -> SetStatus:
    # Claims first: a shard that is sealed between the two looks counts as sealed.
    claimed = {file for file in files if is_claimed(file)}
    found = {file: read_seal(file) for file in files}
    seals = {
        file: seal
        for file, seal in found.items()
        if seal
        and seal["config_hash"] == config_hash
        and seal["manifest_sha256"] == digests.get(file.name, seal["manifest_sha256"])
    }
    left = [file for file in files if file not in seals]
    return SetStatus(
        shards=len(files),
        sealed=len(seals),
        making=tuple(file.name for file in left if file in claimed),
        missing=tuple(file.name for file in left if file not in claimed),
        videos=sum(seal["videos"] for seal in seals.values()),
        clips=sum(seal["clips"] for seal in seals.values()),
        bytes=sum(seal["bytes"] for seal in seals.values()),
        failures=tuple(failure for seal in seals.values() for failure in failures_of(seal)),
    )


def _some(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
