"""Features of videos or clips, kept in HDF5: computed once, streaming, gone on with after a stop.

Sec. 4.4 of the paper: clips go through the network, a layer's values are averaged per video.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from labelgen.files import replacing
from labelgen.progress import ProgressLine
from train import TrainError
from train.data.answers import ClassAnswers
from train.data.classes import Videos, videos_of
from train.data.dataset import ClipDataset
from train.data.loader import Loader
from train.data.sampler import HELD_OUT
from train.data.shards import ShardSet, open_shards, opened
from train.device import Machine, choose_device, use_bf16
from train.evaluate.protocols import Protocol
from train.models.weights import Weights

FORMAT = "motion-appearance-features"
ROWS = ("video", "clip")
BATCH = 16
"""Clips at a time, if nothing else is said."""
_COPIED = 1 << 24  # values that are moved at once


@dataclass(frozen=True, eq=False)
class Features:
    """What a network makes of videos or clips.

    Attributes
    ----------
    values : (N, D) float32
    paths : list of str
        The video of each row.
    class_names : list of str
        Of each row's video; empty without one.
    starts : (N,) int64 or None
        First frame of each row's clip; None where a row is a video.
    without_clips : dict of str to str
        Videos that gave no clip and have no row; their classes.
    record : dict
        What they are of: weights, data, layer, protocol.
    """

    values: np.ndarray
    paths: list[str]
    class_names: list[str]
    starts: np.ndarray | None
    without_clips: dict[str, str]
    record: dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Plan:
    """Which clips are looked at, in which order, and the row that each counts for."""

    videos: Videos
    clips: np.ndarray
    rows: np.ndarray
    video_of_row: np.ndarray


def extract(
    weights: Weights,
    labels: str,
    output: Path,
    *,
    protocol: Protocol,
    machine: Machine,
    rows: str = "video",
    renew: bool = False,
) -> Features:
    """Compute features into a file, or read the file if it holds them already.

    A run that was stopped goes on where it was: finished rows lie beside `output`, in
    ``output.begun``.

    Parameters
    ----------
    weights : Weights
    labels : str
        Shards, as for `open_shards`; the 27 labels are not needed.
    output : path
        HDF5: ``features`` (N, D) float32, ``path``, ``class_name``, for clips ``start``.
    protocol : Protocol
        Which clips and which layer.
    machine : Machine
    rows : str, optional
        ``video``, the mean over a video's clips, or ``clip``.
    renew : bool, optional
        Whether a file that holds other features is made anew, rather than an error.

    Raises
    ------
    TrainError
        No such layer, `output` holds something else, another process computes it, or a clip cannot
        be read.
    """
    compute(weights, labels, output, protocol=protocol, machine=machine, rows=rows, renew=renew)
    return read_features(output)


def compute(
    weights: Weights,
    labels: str,
    output: Path,
    *,
    protocol: Protocol,
    machine: Machine,
    rows: str = "video",
    renew: bool = False,
    batch: int = BATCH,
) -> tuple[int, int]:
    """Do as `extract`, and return the shape of what is then in the file.

    `batch` clips are computed at a time, which changes no number by more than rounding.
    """
    shards = open_shards(labels, labels=False)
    bf16 = use_bf16(choose_device(machine.device), machine.precision)
    record = {
        "weights": weights.digest(), "shards": shards.content, "layer": protocol.layer,
        "rows": rows, "clips": protocol.clips, "precision": "bf16" if bf16 else "fp32",
    }  # fmt: skip
    begun = output.with_name(f"{output.name}.begun")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with begun.open("a+b") as file:
            _lock(file, output)
            # Whoever held it before may have finished meanwhile.
            if not output.exists() or (renew and not _holds(output, record)):
                plan = _planned(shards, protocol, rows=rows)
                _append(weights, shards, plan, file, record=record, machine=machine, batch=batch)
                with replacing(output) as partial:
                    _write(partial, begun, plan, shards, record)
            begun.unlink(missing_ok=True)
    except OSError as error:
        raise TrainError(f"{output} cannot be written ({error.strerror or error}).") from None
    return _checked_shape(output, record)


def _lock(file: Any, output: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TrainError(f"{output} is being computed by another process; wait for it.") from None
    except OSError:
        pass  # a file system without locks


def _checked_shape(output: Path, record: dict[str, Any]) -> tuple[int, int]:
    found = _record_of(output)
    if found != record:
        raise TrainError(f"{output} holds {_differing(found, record)}; name another one.")
    with _opened(output) as file:
        shape = file["features"].shape
    return int(shape[0]), int(shape[1])


def _holds(output: Path, record: dict[str, Any]) -> bool:
    try:
        return _record_of(output) == record
    except TrainError:  # damaged
        return False


def _record_of(output: Path) -> dict[str, Any]:
    with _opened(output) as file:
        record: dict[str, Any] = json.loads(file.attrs["record"])
    return record


def _differing(there: dict[str, Any], wanted: dict[str, Any]) -> str:
    return "features of other " + ", ".join(
        f"{key} ({there.get(key)}, not {wanted[key]})"
        for key in wanted
        if there.get(key) != wanted[key]
    )


def _planned(shards: ShardSet, protocol: Protocol, *, rows: str) -> _Plan:
    videos = videos_of(shards)
    clips = np.argsort(videos.of_clip, kind="stable")
    counts = np.bincount(videos.of_clip)
    firsts = np.cumsum(counts) - counts
    places = [
        first + place
        for first, count in zip(firsts.tolist(), counts.tolist(), strict=True)
        for place in protocol.chosen(count)
    ]
    chosen = clips[places]
    of_video = videos.of_clip[chosen]
    if rows == "clip":
        return _Plan(videos, chosen, np.arange(len(chosen)), of_video)
    return _Plan(videos, chosen, of_video, np.arange(len(counts)))


def _append(
    weights: Weights,
    shards: ShardSet,
    plan: _Plan,
    file: Any,
    *,
    record: dict[str, Any],
    machine: Machine,
    batch: int,
) -> None:
    """Append rows to the file of those that are begun, until all are there."""
    header = _header(record)
    done = _rows_there(file, header)
    clips, rows = plan.clips[plan.rows >= done], plan.rows[plan.rows >= done]
    seen = 0
    with ProgressLine(lambda: seen, expected=len(clips)):
        values = stream(weights, shards, clips, record["layer"], machine=machine, batch=batch)
        for row in _means(values, rows):
            if not file.tell() > len(header):
                file.write(len(row).to_bytes(8, "little"))
            file.write(row.astype("<f4").tobytes())
            file.flush()
            seen = int(np.searchsorted(rows, done, side="right"))
            done += 1


def _header(record: dict[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True).encode() + b"\n"


def _rows_there(file: Any, header: bytes) -> int:
    """Return how many rows of the same features are whole; leave the file at their end."""
    file.seek(0)
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    width = 0
    if file.read(len(header)) == header:
        width = int.from_bytes(file.read(8), "little")
    whole = max(size - len(header) - 8, 0) // (4 * width) if width else 0
    if whole:
        file.truncate(len(header) + 8 + 4 * width * whole)
    else:
        file.truncate(0)
        file.write(header)
    file.seek(0, os.SEEK_END)
    return int(whole)


def _means(values: Iterator[np.ndarray], rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the mean of the clips of each row, one after the other."""
    total, count = None, 0
    for place, value in enumerate(values):
        total, count = (value.astype(np.float64) if total is None else total + value), count + 1
        if place + 1 == len(rows) or rows[place + 1] != rows[place]:
            yield total / count
            total, count = None, 0


def stream(
    weights: Weights,
    shards: ShardSet,
    clips: np.ndarray,
    layer: str,
    *,
    machine: Machine,
    batch: int = BATCH,
) -> Iterator[np.ndarray]:
    """Yield (D,) float32 of each clip, its central crop, in order."""
    device = choose_device(machine.device)
    net = weights.network().to(device)
    bf16 = use_bf16(device, machine.precision)
    answers = ClassAnswers(shards, np.zeros(shards.clips, np.int64))
    keys = [(HELD_OUT, int(clip)) for clip in clips]
    batches = (keys[i : i + batch] for i in range(0, len(keys), batch))
    dataset = ClipDataset(answers)
    with Loader(dataset, workers=machine.workers, device=device) as loader:
        for read in loader.read(batches):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                stages = net(read.frames)
            yield from _layer(stages, layer).flatten(1).float().cpu().numpy()


def _layer(stages: dict[str, torch.Tensor], layer: str) -> torch.Tensor:
    if layer not in stages:
        raise TrainError(f"This network has no layer {layer!r}; it has {', '.join(stages)}.")
    return stages[layer]


def _write(
    partial: Path, begun: Path, plan: _Plan, shards: ShardSet, record: dict[str, Any]
) -> None:
    videos, of_row = plan.videos, plan.video_of_row
    header = _header(record)
    with begun.open("rb") as file:
        file.seek(len(header))
        width = int.from_bytes(file.read(8), "little")
    rows = np.memmap(begun, "<f4", "r", len(header) + 8, (len(of_row), width))
    text = h5py.string_dtype("utf-8")
    with h5py.File(partial, "w", locking="best-effort") as file:
        file.attrs.update(
            format=FORMAT, format_version=1, record=json.dumps(record, sort_keys=True)
        )
        stored = file.create_dataset("features", rows.shape, np.float32)
        step = max(1, _COPIED // width)
        for first in range(0, len(rows), step):
            stored[first : first + step] = rows[first : first + step]
        file.create_dataset("path", data=[videos.paths[i] for i in of_row], dtype=text)
        names = [videos.class_names[i] for i in of_row]
        file.create_dataset("class_name", data=names, dtype=text)
        if record["rows"] == "clip":
            file["start"] = _starts(shards)[plan.clips]
        lost = len(videos.paths) - len(videos.without_clips)
        file.create_dataset("without_clips/path", data=videos.paths[lost:], dtype=text)
        file.create_dataset("without_clips/class_name", data=videos.class_names[lost:], dtype=text)


def _starts(shards: ShardSet) -> np.ndarray:
    parts = []
    for shard in shards.shards:
        with opened(shard) as file:
            parts.append(file["clips/start"][:].astype(np.int64))
    return np.concatenate(parts)


def read_features(path: Path) -> Features:
    """Read a file of features.

    Raises
    ------
    TrainError
        It is absent, damaged, or holds something else.
    """
    with _opened(path) as file:
        lost = [file[f"without_clips/{name}"].asstr()[:] for name in ("path", "class_name")]
        return Features(
            values=file["features"][:],
            paths=list(file["path"].asstr()[:]),
            class_names=list(file["class_name"].asstr()[:]),
            starts=file["start"][:] if "start" in file else None,
            without_clips=dict(zip(*lost, strict=True)),
            record=json.loads(file.attrs["record"]),
        )


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            if file.attrs.get("format") != FORMAT:
                raise TrainError(f"{path} holds no features; `train features` writes such files.")
            yield file
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        if not path.exists():
            raise TrainError(
                f"{path} does not exist; `train features` writes such files."
            ) from None
        reason = "a folder" if path.is_dir() else str(error).splitlines()[0]
        raise TrainError(
            f"{path} is damaged, or no file of features ({reason}); name another one."
        ) from None


def unit(values: np.ndarray) -> np.ndarray:
    """(N, D) float32 rows of L2 norm 1 (paper, Sec. 4.4); rows of zeros stay so."""
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, norms, out=np.zeros_like(values), where=norms > 0)
