"""Open a directory of sealed label shards and check it, cheaply, before anything is trained.

The layout is the one `labelgen extract` writes: ``PREFIX-00000-of-0000N.h5``, each with a sidecar
(its seal), and ``run.json`` with the settings and the plan. The checks are of existence, byte
size, counts and settings; checksums of the whole content are the work of ``labelgen verify``.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from train import TrainError

FORMAT = "motion-appearance-labels"
FORMAT_VERSION = 1
REMEDY = "run `labelgen extract` on it again"


@dataclass(frozen=True)
class Shard:
    """One sealed file and where its clips stand in the set."""

    path: Path
    first: int  # number of clips in the shards before it
    clips: int


@dataclass(frozen=True, eq=False)
class ShardSet:
    """All shards of one extraction (or of one split of it), as one sequence of clips.

    Attributes
    ----------
    shards : tuple of Shard
        In the order of their names; empty ones left out.
    crops : (K, 2) int16
        Top and left of each stored crop.
    profile, flow : str
        How labels were made; sets that differ here cannot be compared.
    config_hash : str
        Of the extraction's settings, the same in all shards.
    jpeg : bool
        Frames are one JPEG each rather than raw pixels.
    """

    shards: tuple[Shard, ...]
    crops: np.ndarray
    profile: str
    flow: str
    config_hash: str
    jpeg: bool

    @property
    def clips(self) -> int:
        """Number of clips in all shards."""
        return self.shards[-1].first + self.shards[-1].clips

    def locate(self, clip: int) -> tuple[Shard, int]:
        """Shard and row in it of a clip, 0 <= clip < `clips`."""
        shard = self.shards[bisect_right(self._firsts, clip) - 1]
        return shard, clip - shard.first

    @cached_property
    def _firsts(self) -> list[int]:
        return [shard.first for shard in self.shards]

    def motion_energy(self) -> np.ndarray:
        """(clips,) float32: mean motion boundary of each clip, 0 where nothing moves."""
        return np.concatenate([_read(shard, "motion_energy") for shard in self.shards])

    def videos(self) -> np.ndarray:
        """(clips,) int64: a number for the video of each clip, distinct over all shards."""
        numbers, count = [], 0
        for shard in self.shards:
            rows = _read(shard, "clips/video").astype(np.int64)
            numbers.append(rows + count)
            count += int(rows.max()) + 1
        return np.concatenate(numbers)

    def crop_labels(self, crop: int) -> np.ndarray:
        """(clips, 27) uint8: the labels of one stored crop of every clip."""
        return np.concatenate([_read(shard, "labels", np.s_[:, crop]) for shard in self.shards])


def open_file(path: Path) -> h5py.File:
    """Open a shard for reading.

    A chunk holds a whole clip and is read once, so HDF5's chunk cache would only copy. Locking is
    best-effort because network file systems often have none.
    """
    return h5py.File(path, "r", rdcc_nbytes=0, locking="best-effort")


def open_shards(location: str | Path) -> ShardSet:
    """Open a shard directory, or one prefix of it, and check that it can be trained on.

    Parameters
    ----------
    location : path
        ``shards`` for all that is there, or for the only shard folder directly below it;
        ``shards/ucf101-train1`` for one name prefix.

    Raises
    ------
    TrainError
        Nothing there, unsealed or missing shards, mixed settings, no labels or no frames.
    """
    root, prefix = _split_location(Path(location))
    run = _read_json(root / "run.json")
    _check_format(run, root / "run.json")
    names = _planned_names(root, run, prefix)
    shards, first = [], 0
    for name in names:
        clips = _check_seal(root / name, run["config_hash"])
        if clips:
            shards.append(Shard(root / name, first, clips))
            first += clips
    if not shards:
        raise TrainError(f"The {len(names)} shards in {location} hold no clips.")
    return _describe(tuple(shards), run["config_hash"])


def _split_location(location: Path) -> tuple[Path, str | None]:
    if (location / "run.json").is_file():
        return location, None
    if not location.exists() and (location.parent / "run.json").is_file():
        return location.parent, location.name
    if not location.exists():
        raise TrainError(f"There is no folder {location}; make shards with `labelgen extract`.")
    if location.is_file():
        raise TrainError(
            f"{location} is a file; give the folder of the shards that holds run.json."
        )
    below = sorted(file.parent for file in location.glob("*/run.json"))
    if len(below) == 1:
        return below[0], None
    if below:
        raise TrainError(
            f"{location} holds several sets of shards; give one of {', '.join(map(str, below))}."
        )
    raise TrainError(
        f"No shards in {location}: it has no run.json; give a `labelgen extract` output."
    )


def _planned_names(root: Path, run: dict[str, Any], prefix: str | None) -> list[str]:
    plan: dict[str, int] = run["plan"]
    if prefix is not None and prefix not in plan:
        raise TrainError(f"No split {prefix!r} in {root}; it holds {', '.join(sorted(plan))}.")
    planned = {
        name: [f"{name}-{i:05d}-of-{count:05d}.h5" for i in range(count)]
        for name, count in plan.items()
    }
    strays = {path.name for path in root.glob("*-[0-9]*-of-[0-9]*.h5")} - {
        name for shards in planned.values() for name in shards
    }
    if strays:
        raise TrainError(
            f"{root} mixes extractions: {sorted(strays)[0]} is not in the plan of run.json."
        )
    names = [name for key in sorted(plan) if prefix in (None, key) for name in planned[key]]
    missing = [n for n in names if not (root / n).is_file() or not _seal_path(root / n).is_file()]
    if missing:
        raise TrainError(
            f"{len(missing)} of {len(names)} shards in {root} are missing or not sealed "
            f"(first: {missing[0]}); rerun `labelgen extract` to finish them."
        )
    return names


def _seal_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _check_seal(path: Path, config_hash: str) -> int:
    """Compare a shard with its seal and its neighbours; return its number of clips."""
    seal = _read_json(_seal_path(path))
    _check_format(seal, _seal_path(path))
    if seal["config_hash"] != config_hash:
        raise TrainError(
            f"{path.name} was made with other settings ({seal['config_hash']}) than run.json "
            f"({config_hash}); keep one extraction per folder."
        )
    if path.stat().st_size != seal["bytes"]:
        raise TrainError(
            f"{path.name} has {path.stat().st_size} bytes, its seal says {seal['bytes']}; {REMEDY}."
        )
    return int(seal["clips"])


def _describe(shards: tuple[Shard, ...], config_hash: str) -> ShardSet:
    """Open every shard once: the same crops and settings, and all that training needs."""
    kinds = []
    for shard in shards:
        with open_file(shard.path) as file:
            _check_content(file, shard, config_hash)
            kinds.append((file["crops"][:], file["frames"].ndim == 2))
            profile, flow = str(file.attrs["profile"]), str(file.attrs["flow"])
    crops, jpeg = kinds[0]
    for shard, (others, encoded) in zip(shards, kinds, strict=True):
        if encoded != jpeg or not np.array_equal(crops, others):
            raise TrainError(
                f"{shard.path.name} holds other crops or frames than {shards[0].path.name}."
            )
    return ShardSet(shards, crops, profile, flow, config_hash, jpeg)


def _check_content(file: h5py.File, shard: Shard, config_hash: str) -> None:
    name = shard.path.name
    for dataset, flag in (("labels", "--no-labels"), ("frames", "--frames none")):
        if dataset not in file:
            raise TrainError(
                f"{name} has no {dataset} (extracted with {flag}?); training needs them."
            )
    if file.attrs["config_hash"] != config_hash:
        raise TrainError(f"{name} and its seal disagree about the settings; {REMEDY}.")
    if len(file["labels"]) != shard.clips or len(file["frames"]) != shard.clips:
        raise TrainError(
            f"{name} holds {len(file['labels'])} clips where its seal says {shard.clips}; {REMEDY}."
        )


def _check_format(record: dict[str, Any], path: Path) -> None:
    found = record.get("format"), record.get("format_version")
    if found != (FORMAT, FORMAT_VERSION):
        raise TrainError(
            f"{path} says format {found[0]!r} version {found[1]!r}; this trainer reads "
            f"{FORMAT!r} version {FORMAT_VERSION}."
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainError(f"{path} is not valid JSON ({error}); {REMEDY}.") from None


def _read(shard: Shard, dataset: str, rows: Any = np.s_[:]) -> np.ndarray:
    with open_file(shard.path) as file:
        return file[dataset][rows]
