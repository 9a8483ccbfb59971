"""The index: one virtual HDF5 file that shows all shards of a folder as one set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from labelgen.errors import LabelgenError
from labelgen.files import replacing
from labelgen.shards.folder import find_shard_folder, read_run, shard_files
from labelgen.shards.reader import open_shard
from labelgen.shards.seal import read_seal

_PER_CLIP = ("labels", "motion_boundaries", "motion_energy", "frames", "flow", "clips/start")
_PER_VIDEO = ("path", "class_name", "class_index", "frames")


def write_index(path: Path, output: Path) -> int:
    """Write the virtual file of a shard folder.

    Large arrays stay in the shards and are found relative to the index; the numbers of videos and
    clips, which count from 0 in each shard, are rewritten to count through.

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
        If a shard is absent or unsealed, the sets in the folder differ in what they hold, or there
        is no clip.
    """
    folder = find_shard_folder(path)
    files = _sealed_files(folder)
    if output.resolve() in {file.resolve() for file in files}:
        raise LabelgenError(f"{output} is itself a shard; name another --output")
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as partial, h5py.File(partial, "w", locking="best-effort") as whole:
        return _fill(whole, files, output.resolve().parent)


def _sealed_files(folder: Path) -> list[Path]:
    run = read_run(folder)
    files = shard_files(folder)
    unsealed = [file.name for file in files if read_seal(file) is None]
    if unsealed or len(files) != sum(run["plan"].values()):
        raise LabelgenError(
            f"{folder} is not complete: {len(files) - len(unsealed)} of "
            f"{sum(run['plan'].values())} shards are sealed; run the same extract command again"
        )
    return files


def _fill(whole: h5py.File, files: Sequence[Path], home: Path) -> int:
    shards = [open_shard(file) for file in files]
    try:
        kept = [shard for shard in shards if len(shard["clips/video"])]
        if not kept:
            raise LabelgenError(f"{files[0].parent} holds no clip")
        for name, value in kept[0].attrs.items():
            # Each shard covers videos of its own.
            if name != "manifest_sha256":
                whole.attrs[name] = value
        for name in _PER_CLIP:
            if name in kept[0]:
                _link(whole, name, kept, home)
        if "crops" in kept[0]:
            whole["crops"] = kept[0]["crops"][:]
        _count_through(whole, kept)
        return len(whole["clips/video"])
    finally:
        for shard in shards:
            shard.close()


def _link(whole: h5py.File, name: str, shards: Sequence[h5py.File], home: Path) -> None:
    rows = [len(shard[name]) for shard in shards]
    first = shards[0][name]
    layout = h5py.VirtualLayout((sum(rows), *first.shape[1:]), dtype=first.dtype)
    bounds = np.cumsum([0, *rows])
    for shard, begin, end in zip(shards, bounds, bounds[1:], strict=False):
        source = os.path.relpath(Path(shard.filename).resolve(), home)
        layout[begin:end] = h5py.VirtualSource(
            source, name, shape=shard[name].shape, dtype=first.dtype
        )
    dataset = whole.create_virtual_dataset(name, layout)
    for key, value in first.attrs.items():
        dataset.attrs[key] = value


def _count_through(whole: h5py.File, shards: Sequence[h5py.File]) -> None:
    videos = np.cumsum([0, *(len(shard["videos/path"]) for shard in shards)])[:-1]
    numbers = [
        shard["clips/video"][:] + before for shard, before in zip(shards, videos, strict=True)
    ]
    whole.create_dataset("clips/video", data=np.concatenate(numbers).astype(np.int32))
    for name in _PER_VIDEO:
        dtype = shards[0][f"videos/{name}"].dtype
        values = np.concatenate([shard[f"videos/{name}"][:] for shard in shards])
        whole.create_dataset(f"videos/{name}", data=values, dtype=dtype)
