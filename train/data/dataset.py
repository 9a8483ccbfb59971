"""Clips as samples: a crop and a flip for each (seed, epoch, clip) (paper, Sec. 3.4).

No choice depends on the process that makes it: the order of an epoch is a function of (seed,
epoch), the view of a clip one of (seed, epoch, clip). Workers, ranks and restarts change nothing.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from typing import Any

import cv2
import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from labelgen import flip_labels
from train import TrainError
from train.data.shards import Shard, ShardSet, open_file

CROP = 112
OPEN_FILES = 64  # handles kept per process: far below the usual limit of 1024 per process

# The first entropy word keeps the streams apart: NumPy pads short entropies with zeros, so that
# (seed, epoch) and (seed, epoch, 0) would be the same stream.
_ORDER, _VIEW, _SPLIT = 1, 2, 3

Key = tuple[int, int]  # (epoch, clip)


def view_of(seed: int, epoch: int, clip: int, crops: int) -> tuple[int, bool]:
    """Draw the crop (0 <= index < crops) and the mirror image (p = .5) of one sample."""
    rng = np.random.default_rng((_VIEW, seed, epoch, clip))
    return int(rng.integers(crops)), bool(rng.integers(2))


def central_crop(crops: np.ndarray) -> int:
    """Index of the stored crop nearest to the middle of the 128x171 frame: the held-out view."""
    return int(np.abs(crops - np.array([8.0, 29.5])).sum(axis=1).argmin())


def split_by_video(
    videos: np.ndarray, fraction: float, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Clips to train on and clips to hold out, never two of one video on both sides.

    Parameters
    ----------
    videos : (N,) int64
        The video of each clip.
    fraction : float
        Share of the videos to hold out, at least one.

    Returns
    -------
    train, held_out : int64 arrays
        Clip numbers, rising.
    """
    names = np.unique(videos)
    if len(names) < 2:
        raise TrainError("A held-out split needs two videos and there is one; use --val 0.")
    count = min(max(1, round(fraction * len(names))), len(names) - 1)
    chosen = np.random.default_rng((_SPLIT, seed)).permutation(names)[:count]
    held = np.isin(videos, chosen)
    return np.flatnonzero(~held), np.flatnonzero(held)


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
            file = open_file(shard.path)
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
    frames = np.empty((len(encoded), CROP, CROP, 3), np.uint8)
    for data, frame in zip(encoded, frames, strict=True):
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError("not a JPEG")
        crop = image[top : top + CROP, left : left + CROP]
        cv2.cvtColor(cv2.flip(crop, 1) if flip else crop, cv2.COLOR_BGR2RGB, dst=frame)
    return frames


def _cut_raw(pixels: np.ndarray, *, top: int, left: int, flip: bool) -> np.ndarray:
    """Cut (16, 128, 171, 3) uint8 to (16, 112, 112, 3)."""
    crops = pixels[:, top : top + CROP, left : left + CROP]
    if not flip:
        return np.ascontiguousarray(crops)
    frames = np.empty_like(crops, order="C")
    for crop, frame in zip(crops, frames, strict=True):
        cv2.flip(crop, 1, dst=frame)  # NumPy's own mirror image is many times slower
    return frames


class ClipSampler(Sampler[list[Key]]):
    """Batches of (epoch, clip) for one rank, from any step of any epoch.

    Example: batch 8, 2 ranks, accumulate 2; a step takes clips a..h of the epoch's order

        part 0: rank 0 gets a c, rank 1 gets b d      part 1: rank 0 gets e g, rank 1 gets f h

    The last clips that do not fill a batch wait for another epoch's order.

    Parameters
    ----------
    clips : (N,) int64
        Clip numbers to draw from.
    batch : int
        Clips per optimizer step over all ranks and parts; a multiple of ranks x accumulate.
    """

    def __init__(
        self,
        clips: np.ndarray,
        batch: int,
        *,
        seed: int,
        accumulate: int = 1,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if batch > len(clips):
            raise TrainError(
                f"A batch of {batch} is larger than the training set of {len(clips)} clips."
            )
        if batch % (ranks * accumulate):
            raise TrainError(
                f"A batch of {batch} cannot be shared by {ranks} ranks x {accumulate} parts; "
                f"choose a multiple of {ranks * accumulate}."
            )
        self.clips, self.batch, self.seed = clips, batch, seed
        self.accumulate, self.rank, self.ranks = accumulate, rank, ranks
        self.steps = len(clips) // batch
        self.epoch = self.step = 0

    def start(self, epoch: int, step: int) -> None:
        """Let the next iteration begin at this step of this epoch."""
        self.epoch, self.step = epoch, step

    def __len__(self) -> int:
        return (self.steps - self.step) * self.accumulate

    def __iter__(self) -> Iterator[list[Key]]:
        order = np.random.default_rng((_ORDER, self.seed, self.epoch)).permutation(self.clips)
        for step in range(self.step, self.steps):
            total = order[step * self.batch : (step + 1) * self.batch]
            for part in np.split(total, self.accumulate):
                yield [(self.epoch, int(clip)) for clip in part[self.rank :: self.ranks]]


def ordered_batches(clips: np.ndarray, batch: int, *, rank: int, ranks: int) -> list[list[Key]]:
    """Every clip once, in order, shared by the ranks: for evaluation."""
    keys = [(0, int(clip)) for clip in clips[rank::ranks]]
    return [keys[i : i + batch] for i in range(0, len(keys), batch)]


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
