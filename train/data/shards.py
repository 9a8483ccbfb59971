"""Open a directory of sealed label shards and check it, cheaply, before anything is trained.

The layout is the one `labelgen extract` writes: ``PREFIX-00000-of-0000N.h5``, each with a sidecar
(its seal), and ``run.json`` with the settings and the plan. The checks are of existence, byte
size, counts and settings; checksums of the whole content are the work of ``labelgen verify``.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from labelgen.labels.table import in_range
from labelgen.shards.folder import RUN_FILE, find_shard_folder, planned_files, read_run, shard_files
from labelgen.shards.generations import set_of_generation
from labelgen.shards.reader import open_shard
from labelgen.shards.seal import is_as_sealed, read_seal
from train import TrainError
from train.data.chunks import Stamp, stamp_of

FIELDS = ("motion_boundaries", "flow")
"""What a shard may hold of each pixel, in this order."""
REMEDY = "delete the shard and run the same `labelgen extract` again"


@dataclass(frozen=True)
class Shard:
    """One sealed file and where its clips stand in the set."""

    path: Path
    first: int  # number of clips in the shards before it
    clips: int
    stamp: Stamp  # of the file when the set was opened


@dataclass(frozen=True, eq=False)
class ShardSet:
    """All shards of one split of an extraction, as one sequence of clips.

    Attributes
    ----------
    shards : tuple of Shard
        In the order of their names; empty ones left out.
    crops : (K, 2) int16
        Top and left of each crop that has labels; none where nothing has.
    profile, flow : str
        How labels were made; sets that differ here cannot be compared.
    config_hash : str
        Of the extraction's settings, the same in all shards.
    jpeg : bool
        Frames are one JPEG each rather than raw pixels.
    content : str
        SHA-256 of what the seals say the shards hold: other clips, labels or frames, another one.
    fields : frozenset of str
        Which of `FIELDS` all shards hold.
    """

    shards: tuple[Shard, ...]
    crops: np.ndarray
    profile: str
    flow: str
    config_hash: str
    jpeg: bool
    content: str
    fields: frozenset[str]

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
        """(clips,) float32: mean motion boundary of each clip, 0 where nothing moves.

        Raises
        ------
        TrainError
            The shards were made without labels.
        """
        if not len(self.crops):
            raise TrainError(
                f"{self.shards[0].path.name} has no motion energy (extracted with --no-labels?); "
                "leave --drop-still away."
            )
        return np.concatenate([_read(shard, "motion_energy") for shard in self.shards])

    def videos(self) -> tuple[list[str], np.ndarray]:
        """Paths of videos with clips, and (clips,) int64: the number of each clip's among them."""
        known: dict[str, int] = {}
        numbers = []
        for shard in self.shards:
            with opened(shard) as file:
                paths = file["videos/path"].asstr()[:]
                rows, places = np.unique(file["clips/video"][:], return_inverse=True)
                places_known = [known.setdefault(path, len(known)) for path in paths[rows]]
            numbers.append(np.array(places_known, np.int64)[places])
        return list(known), np.concatenate(numbers)

    def known_by(self) -> dict[str, tuple[int, float]]:
        """By path, frames and first clip's motion energy of each video: equal for the same one.

        The energy is not a number where none is stored.
        """
        known = {}
        for shard in self.shards:
            with opened(shard) as file:
                paths, frames = file["videos/path"].asstr()[:], file["videos/frames"][:]
                rows, firsts = np.unique(file["clips/video"][:], return_index=True)
                stored = "motion_energy" in file
                energy = file["motion_energy"][:][firsts] if stored else np.full(len(rows), np.nan)
                for row, first in zip(rows.tolist(), energy.tolist(), strict=True):
                    known[str(paths[row])] = int(frames[row]), float(first)
        return known

    def crop_labels(self, crop: int, clips: np.ndarray) -> np.ndarray:
        """(len(clips), 27) uint8: the labels of one stored crop of some clips, which rise."""
        ends = np.searchsorted(clips, [shard.first + shard.clips for shard in self.shards])
        parts = np.split(clips, ends[:-1])
        return np.concatenate(
            [
                _labels(shard, crop, part - shard.first)
                for shard, part in zip(self.shards, parts, strict=True)
                if len(part)
            ]
        )


@contextmanager
def opened(shard: Shard) -> Iterator[h5py.File]:
    """Open a shard for a ``with`` block.

    Raises
    ------
    TrainError
        If it cannot be read, there or in the block.
    """
    try:
        with open_shard(shard.path) as file:
            yield file
    # Of a damaged file HDF5 raises any of these, wherever it is looked at.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TrainError(f"{shard.path} cannot be read ({reason}); {REMEDY}.") from None


def open_shards(location: str | Path, *, labels: bool = True) -> ShardSet:
    """Open a shard directory, or one prefix of it, and check that it can be trained on.

    Parameters
    ----------
    location : path
        ``shards`` for the only split that is there, or in the only shard folder directly below;
        ``shards/ucf101-train1`` for one of several splits.
    labels : bool, optional
        Whether they are needed; frames always are.

    Raises
    ------
    LabelgenError
        No shard folder there, or its run record is damaged.
    TrainError
        Several splits and none named, unsealed or missing shards, mixed settings, no labels or no
        frames.
    """
    if not str(location):
        raise TrainError("An empty name is no folder of shards.")
    folder, name = _find(Path(location))
    run = read_run(folder)
    files = _files_of(folder, run, name)
    shards, first, content = [], 0, hashlib.sha256()
    for file, seal in zip(files, _seals(files, run["config_hash"]), strict=True):
        content.update(f"{file.name} {seal['sha256']} {seal['clips']}\n".encode())
        if seal["clips"]:
            shards.append(Shard(file, first, int(seal["clips"]), stamp_of(file.stat())))
            first += int(seal["clips"])
    if not shards:
        raise TrainError(f"The shards in {location} hold no clips.")
    return _describe(tuple(shards), run["config_hash"], content.hexdigest(), labels=labels)


def _find(location: Path) -> tuple[Path, str | None]:
    """Shard folder, and the one split of it that is asked for."""
    if not location.exists() and (location.parent / RUN_FILE).is_file():
        return location.parent, location.name
    return find_shard_folder(location), None


def _files_of(folder: Path, run: dict[str, Any], split: str | None) -> list[Path]:
    planned = planned_files(folder, run)
    splits = sorted({set_of_generation(name) for name in planned})
    if split is not None and split not in splits:
        raise TrainError(f"No split {split!r} in {folder}; it holds {', '.join(splits)}.")
    if split is None and len(splits) > 1:
        raise TrainError(
            f"{folder} holds several splits; name one of "
            f"{', '.join(str(folder / name) for name in splits)}."
        )
    strays = set(shard_files(folder)).difference(*planned.values())
    if strays:
        raise TrainError(
            f"{folder} mixes extractions: {min(strays).name} is not in the plan of {RUN_FILE}."
        )
    return [
        file
        for name, files in planned.items()
        if split in (None, set_of_generation(name))
        for file in files
    ]


def _seals(files: list[Path], config_hash: str) -> list[dict[str, Any]]:
    """Return each shard's seal, which must fit the file and the run."""
    seals = {file.name: read_seal(file) for file in files}
    unfit = [name for name, seal in seals.items() if seal is None]
    if unfit:
        raise TrainError(
            f"{len(unfit)} of {len(files)} shards in {files[0].parent} are missing, not sealed or "
            f"not of their seal's size (first: {unfit[0]}); run the same `labelgen extract` again."
        )
    fitting = {name: seal for name, seal in seals.items() if seal}
    for file in files:
        if not is_as_sealed(file, fitting[file.name]):
            raise TrainError(f"{file} was changed since it was sealed; {REMEDY}.")
    for name, seal in fitting.items():
        if seal["config_hash"] != config_hash:
            raise TrainError(
                f"{name} was made with other settings ({seal['config_hash']}) than {RUN_FILE} "
                f"records ({config_hash}); keep one extraction per folder."
            )
    return list(fitting.values())


def _describe(
    shards: tuple[Shard, ...], config_hash: str, content: str, *, labels: bool
) -> ShardSet:
    """Open every shard once: the same crops and settings, and all that training needs."""
    kinds = []
    fields = set(FIELDS)
    for shard in shards:
        with opened(shard) as file:
            _check_content(file, shard, config_hash, labels=labels)
            fields &= file.keys()
            crops = file["crops"][:] if "crops" in file else np.zeros((0, 2), np.int16)
            kinds.append((crops, file["frames"].ndim == 2))
            profile, flow = str(file.attrs["profile"]), str(file.attrs["flow"])
    crops, jpeg = kinds[0]
    for shard, (others, encoded) in zip(shards, kinds, strict=True):
        if encoded != jpeg or not np.array_equal(crops, others):
            raise TrainError(
                f"{shard.path.name} holds other crops or frames than {shards[0].path.name}."
            )
    return ShardSet(shards, crops, profile, flow, config_hash, jpeg, content, frozenset(fields))


def _check_content(file: h5py.File, shard: Shard, config_hash: str, *, labels: bool) -> None:
    name = shard.path.name
    needed = {"frames": "--frames none"} | ({"labels": "--no-labels"} if labels else {})
    for dataset, flag in needed.items():
        if dataset not in file:
            raise TrainError(f"{name} has no {dataset} (extracted with {flag}?), which this needs.")
        if len(file[dataset]) != shard.clips:
            raise TrainError(
                f"{name} holds {len(file[dataset])} clips where its seal says {shard.clips}; "
                f"{REMEDY}."
            )
    if file.attrs["config_hash"] != config_hash:
        raise TrainError(f"{name} and its seal disagree about the settings; {REMEDY}.")


def _labels(shard: Shard, crop: int, rows: np.ndarray) -> np.ndarray:
    labels = _read(shard, "labels", np.s_[rows, crop])
    if not in_range(labels):
        raise TrainError(f"{shard.path} holds a label that is out of range; {REMEDY}.")
    return labels


def _read(shard: Shard, dataset: str, rows: Any = np.s_[:]) -> np.ndarray:
    with opened(shard) as file:
        return file[dataset][rows]
