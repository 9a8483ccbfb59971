"""The index: one small HDF5 file that shows all shards of a folder as one set.

It holds copies of what is small, and says in which row of which shard the rest lies. It holds no
virtual arrays over the shards: HDF5 fills in zeros, without a word, where it cannot open a source
file, be it deleted or one too many for the system's limit of open files. Nor links: where the shard
is gone, HDF5 looks for one of the same name in the current folder.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from labelgen.errors import LabelgenError
from labelgen.files import replacing
from labelgen.labels.crops import central_crop
from labelgen.progress import count_text
from labelgen.shards.folder import find_shard_folder, planned_files, read_run, shard_files
from labelgen.shards.generations import set_of_generation
from labelgen.shards.reader import open_shard
from labelgen.shards.seal import read_seal

_PER_VIDEO = ("path", "class_name", "class_index", "frames")
_SUFFIXES = (".h5", ".hdf5")
_TEXT = h5py.string_dtype("utf-8")


def write_index(path: Path, output: Path) -> int:
    """Write the index of a shard folder, with one shard open at a time.

    Parameters
    ----------
    path : Path
        The shard folder.
    output : Path
        The file to write; it must stay where it is relative to the shards.

    Returns
    -------
    int
        Clips in the whole set.

    Raises
    ------
    LabelgenError
        If a shard is absent or unsealed, crops or settings differ, there is no clip, or the file
        cannot be written.
    """
    folder = find_shard_folder(path)
    sets = sealed_sets(folder)
    files = [file for _, file in sets]
    if output.suffix not in _SUFFIXES or (output.exists() and not output.is_file()):
        raise LabelgenError(f"{output} is no name for the index; it is an HDF5 file, so end it .h5")
    if output.resolve() in {file.resolve() for file in files}:
        raise LabelgenError(f"{output} is itself a shard; name another --output")
    gathered = Gathered()
    for number, (name, file) in enumerate(sets):
        with open_shard(file) as shard:
            gathered.add(shard, number=number, set_name=name)
    if not gathered.clips:
        raise LabelgenError(f"{folder} holds no clip")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as partial:
            partial.write_bytes(_image(gathered, sets, home=output.parent.resolve()))
    except OSError as error:
        raise LabelgenError(f"cannot write {output}: {os.strerror(error.errno or 0)}") from None
    return gathered.clips


def sealed_sets(folder: Path) -> list[tuple[str, Path]]:
    """Return the shards of a complete folder, each with the name of its set, in order.

    Raises
    ------
    LabelgenError
        If one is absent or unsealed, or there is one too many.
    """
    run = read_run(folder)
    sets = [(name, file) for name, files in planned_files(folder, run).items() for file in files]
    sealed = sum(read_seal(file) is not None for _, file in sets)
    if sealed < len(sets):
        raise LabelgenError(
            f"{folder} is not complete: {sealed} of {count_text(len(sets), 'shard')} sealed; run "
            "the same extract command again"
        )
    strays = set(shard_files(folder)) - {file for _, file in sets}
    if strays:
        raise LabelgenError(
            f"{min(strays)} is not in the plan of {folder}; move it away, or extract into a folder "
            "of its own"
        )
    return sets


class Gathered:
    """What is small of all shards, of clips and of videos, counted through.

    Attributes
    ----------
    clips : int
    """

    def __init__(self) -> None:
        self.clips = self._videos = 0
        self._attributes: dict[str, Any] = {}
        self._columns: defaultdict[str, list[np.ndarray]] = defaultdict(list)
        self._crop: np.ndarray | None = None
        self._label_attributes: dict[str, Any] = {}

    def add(self, shard: h5py.File, *, number: int, set_name: str) -> None:
        """Take what is small of one more shard."""
        clips, videos = len(shard["clips/video"]), len(shard["videos/path"])
        self._check_same(shard)
        columns: dict[str, np.ndarray] = {
            "clips/video": shard["clips/video"][:].astype(np.int64) + self._videos,
            "clips/start": shard["clips/start"][:],
            "clips/shard": np.full(clips, number, np.int32),
            "clips/row": np.arange(clips, dtype=np.int32),
            "videos/set": np.full(videos, set_of_generation(set_name), dtype=object),
        }
        columns |= {f"videos/{name}": shard[f"videos/{name}"][:] for name in _PER_VIDEO}
        if "labels" in shard:
            crops = shard["crops"][:]
            crop = central_crop(crops)
            self._crop, self._label_attributes = crops[[crop]], dict(shard["labels"].attrs)
            columns["motion_energy"] = shard["motion_energy"][:]
            columns["labels"] = shard["labels"][:, crop : crop + 1]
        for name, values in columns.items():
            self._columns[name].append(values)
        self.clips, self._videos = self.clips + clips, self._videos + videos

    def _check_same(self, shard: h5py.File) -> None:
        # Each shard covers videos of its own.
        attributes = {
            name: np.asarray(value).tolist()
            for name, value in shard.attrs.items()
            if name != "manifest_sha256"
        }
        first = self._attributes or attributes
        if attributes != first:
            raise LabelgenError(f"{shard.filename} was made with other settings than those before")
        self._attributes = first

    def columns(self) -> dict[str, np.ndarray]:
        """Return the columns by the names that shards use, such as ``clips/start``."""
        return {name: np.concatenate(parts) for name, parts in self._columns.items()}

    def write(self, index: h5py.File) -> None:
        """Write it all, under the names that shards use."""
        for name, value in self._attributes.items():
            index.attrs[name] = value
        for name, values in self.columns().items():
            dtype = _TEXT if values.dtype.kind == "O" else values.dtype
            index.create_dataset(name, data=values, dtype=dtype)
        if self._crop is not None:
            index.create_dataset("crops", data=self._crop)
        for name, value in self._label_attributes.items():
            index["labels"].attrs[name] = value


def _image(gathered: Gathered, sets: Sequence[tuple[str, Path]], *, home: Path) -> bytes:
    """Return the bytes of the index: small, so made in memory, where no disk can be full."""
    with h5py.File("index", "w", driver="core", backing_store=False) as index:
        gathered.write(index)
        _write_shards(index, sets, home=home)
        index.flush()
        image: bytes = index.id.get_file_image()
        return image


def _write_shards(index: h5py.File, sets: Iterable[tuple[str, Path]], *, home: Path) -> None:
    """Write which shards there are; a clip's `clips/shard` is a number in this list."""
    columns: dict[str, list[str]] = {"file": [], "set": [], "sha256": []}
    for name, file in sets:
        place = os.path.relpath(file.resolve(), home)
        seal = read_seal(file) or {}
        for key, value in (("file", place), ("set", name), ("sha256", seal.get("sha256", ""))):
            columns[key].append(value)
    for key, values in columns.items():
        index.create_dataset(f"shards/{key}", data=values, dtype=_TEXT)
