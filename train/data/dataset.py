"""Clips as samples: frames and labels of the view that was drawn for them (paper, Sec. 3.4)."""

from __future__ import annotations

import math
import signal
from typing import Any

import cv2
import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from labelgen import flip_labels
from labelgen.geometry import CROP_SIZE
from labelgen.labels.crops import central_crop
from labelgen.shards.reader import open_shard
from train import TrainError
from train.data.sampler import Key, view_of
from train.data.shards import Shard, ShardSet

OPEN_FILES = 64  # handles kept per process: far below the usual limit of 1024 per process


class ClipDataset(Dataset):
    """Map-style view of a shard set, keyed by (epoch, clip).

    An item is (frames, labels, clip): (16, 112, 112, 3) uint8 RGB, (27,) uint8 1-based, int. With
    `augment`, crop and flip are drawn; without, every epoch shows the central crop as it is.
    """

    def __init__(self, shards: ShardSet, *, seed: int = 0, augment: bool) -> None:
        self.shards = shards
        self.seed = seed
        self.augment = augment
        self._central = central_crop(shards.crops)
        self._open: dict[Shard, tuple[h5py.Dataset, h5py.Dataset]] = {}

    def __len__(self) -> int:
        return self.shards.clips

    def __getstate__(self) -> dict[str, Any]:
        # HDF5 handles must not cross processes: each worker opens its own.
        return {**self.__dict__, "_open": {}}

    def __getitem__(self, key: Key) -> tuple[torch.Tensor, torch.Tensor, int]:
        epoch, clip = key
        crop, flip = self._central, False
        if self.augment:
            crop, flip = view_of(self.seed, epoch, clip, len(self.shards.crops))
        shard, row = self.shards.locate(clip)
        all_labels, all_frames = self._datasets(shard)
        labels = all_labels[row, crop]
        if flip:
            labels = flip_labels(labels, profile=self.shards.profile)
        top, left = self.shards.crops[crop].tolist()
        cut = _cut_jpeg if self.shards.jpeg else _cut_raw
        try:
            frames = cut(_read_frames(all_frames, row), top=top, left=left, flip=flip)
        except (cv2.error, ValueError) as error:
            raise TrainError(
                f"{shard.path.name}, clip {row}: frames do not decode ({error})."
            ) from None
        return torch.from_numpy(frames), torch.from_numpy(labels), clip

    def _datasets(self, shard: Shard) -> tuple[h5py.Dataset, h5py.Dataset]:
        # Looking a name up in HDF5 takes longer than reading a clip's labels.
        if shard not in self._open:
            if len(self._open) >= OPEN_FILES:
                oldest = next(iter(self._open))
                self._open.pop(oldest)[0].file.close()
            file = open_shard(shard.path)
            self._open[shard] = file["labels"], file["frames"]
        return self._open[shard]


def _read_frames(frames: h5py.Dataset, row: int) -> np.ndarray:
    """Read one clip's frames: (16,) JPEGs, or (16, 128, 171, 3) pixels.

    Uncompressed pixels are taken as they lie in the file: h5py would check fletcher32 first, four
    fifths of the time. Checking content is the work of ``labelgen verify``.
    """
    clip = frames.shape[1:]
    as_stored = frames.compression is None and not frames.shuffle and frames.chunks == (1, *clip)
    if frames.ndim == 2 or not as_stored:
        return frames[row]
    _, chunk = frames.id.read_direct_chunk((row, *(0 for _ in clip)))
    return np.frombuffer(chunk, np.uint8, count=math.prod(clip)).reshape(clip)


def _cut_jpeg(encoded: np.ndarray, *, top: int, left: int, flip: bool) -> np.ndarray:
    """Decode 16 JPEGs and cut them: (16, 112, 112, 3) uint8 RGB."""
    frames = np.empty((len(encoded), CROP_SIZE, CROP_SIZE, 3), np.uint8)
    for data, frame in zip(encoded, frames, strict=True):
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError("not a JPEG")
        crop = image[top : top + CROP_SIZE, left : left + CROP_SIZE]
        cv2.cvtColor(cv2.flip(crop, 1) if flip else crop, cv2.COLOR_BGR2RGB, dst=frame)
    return frames


def _cut_raw(pixels: np.ndarray, *, top: int, left: int, flip: bool) -> np.ndarray:
    """Cut (16, 128, 171, 3) uint8 to (16, 112, 112, 3)."""
    crops = pixels[:, top : top + CROP_SIZE, left : left + CROP_SIZE]
    if not flip:
        return np.ascontiguousarray(crops)
    frames = np.empty_like(crops, order="C")
    for crop, frame in zip(crops, frames, strict=True):
        cv2.flip(crop, 1, dst=frame)  # NumPy's own mirror image is many times slower
    return frames


def make_loader(dataset: ClipDataset, batches: Any, *, workers: int, pin: bool) -> DataLoader:
    """Loader over batches of keys; `workers` 0 reads in this process.

    Workers are spawned, not forked: OpenCV, HDF5 and torch have threads by then.
    """
    cv2.setNumThreads(1)
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_start_worker,
        prefetch_factor=4 if workers else None,
    )


def _start_worker(_: int) -> None:
    # Stop signals reach the whole process group; the parent decides and then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(1)
