"""Clips as samples: frames and labels of the views that were drawn for them (paper, Sec. 3.4)."""

from __future__ import annotations

import math
import resource
from typing import Any, NamedTuple

import cv2
import h5py
import numpy as np
import torch
from torch.utils.data import Dataset

from labelgen import LABELS, flip_labels
from labelgen.geometry import CLIP_LENGTH, CROP_SIZE
from labelgen.labels.crops import central_crop
from labelgen.shards.reader import open_shard
from train.data.sampler import HELD_OUT, NO_CLIP, WINDOW, Key, views_of
from train.data.shards import Shard, ShardSet


class Item(NamedTuple):
    """What the loader makes batches of.

    Attributes
    ----------
    frames : (K, 16, 112, 112, 3) uint8
        RGB.
    labels : (K, 27) uint8
        1-based; 0 where there is no clip: such a sample counts in no loss and no figure.
    clip : int
    wrong : str
        Why the clip cannot be had, one sentence; empty if it can.
    """

    frames: torch.Tensor
    labels: torch.Tensor
    clip: int
    wrong: str


class ClipDataset(Dataset):
    """Samples of the clips of two shard sets, by key: (epoch, clip), or (HELD_OUT, clip).

    For training, crop and mirror image of each of K views are drawn; of a held-out clip, there is
    one, the central crop as it is.

    Parameters
    ----------
    train, held : ShardSet
        Where clips of an epoch, and held-out ones, are found.
    seed : int
        Of the views.
    views : int
        Samples per training clip.

    Raises
    ------
    OSError
        From an item: its shard cannot be opened.
    """

    def __init__(
        self,
        train: ShardSet,
        held: ShardSet | None = None,
        *,
        seed: int = 0,
        views: int = 1,
    ) -> None:
        self._train, self._held = train, held
        self._seed, self._views = seed, views
        self._open: dict[Shard, tuple[h5py.Dataset, h5py.Dataset]] = {}
        self._most_open = _files_to_keep()

    def __getstate__(self) -> dict[str, Any]:
        # HDF5 handles must not cross processes: each worker opens its own.
        return {**self.__dict__, "_open": {}}

    def __getitem__(self, key: Key) -> Item:
        epoch, clip = key
        held = self._held if epoch == HELD_OUT else None
        if held is not None:
            shards, views = held, [(central_crop(held.crops), False)]
        else:
            shards = self._train
            drawn = {"crops": len(shards.crops), "count": self._views}
            views = views_of(self._seed, epoch, max(clip, 0), **drawn)
        frames = np.zeros((len(views), CLIP_LENGTH, CROP_SIZE, CROP_SIZE, 3), np.uint8)
        labels = np.zeros((len(views), len(LABELS)), np.uint8)
        wrong = ""
        if clip != NO_CLIP:
            shard, row = shards.locate(clip)
            all_labels, all_frames = self._datasets(shard)
            try:
                stored = all_labels[row]
                clip_frames = _decode(all_frames, row) if shards.jpeg else _pixels(all_frames, row)
            except (cv2.error, OSError, ValueError) as error:
                wrong = f"{shard.path}, clip {row}: it cannot be read ({_short(error)})"
            else:
                self._show(views, shards, clip_frames, stored, frames=frames, labels=labels)
        return Item(torch.from_numpy(frames), torch.from_numpy(labels), clip, wrong)

    def _show(
        self,
        views: list[tuple[int, bool]],
        shards: ShardSet,
        clip_frames: np.ndarray | list[np.ndarray],
        stored: np.ndarray,
        *,
        frames: np.ndarray,
        labels: np.ndarray,
    ) -> None:
        for view, (crop, flip) in enumerate(views):
            top, left = shards.crops[crop].tolist()
            _cut(clip_frames, frames[view], top=top, left=left, flip=flip)
            labels[view] = stored[crop]
            if flip:
                labels[view] = flip_labels(stored[crop], profile=shards.profile)

    def _datasets(self, shard: Shard) -> tuple[h5py.Dataset, h5py.Dataset]:
        # Opening a file and looking names up in it takes longer than reading a clip's labels.
        if shard in self._open:
            self._open[shard] = self._open.pop(shard)  # now the most recently used
        else:
            if len(self._open) >= self._most_open:
                oldest = next(iter(self._open))
                self._open.pop(oldest)[0].file.close()
            file = open_shard(shard.path)
            self._open[shard] = file["labels"], file["frames"]
        return self._open[shard]


def _files_to_keep() -> int:
    """Return how many shards a process may keep open: all it reads from, if the system lets it."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The other half is for what loaders, GPUs and libraries open.
    return WINDOW if limit == resource.RLIM_INFINITY else max(1, min(WINDOW, limit // 2))


def _short(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _pixels(frames: h5py.Dataset, row: int) -> np.ndarray:
    """Read one clip's raw frames, (16, 128, 171, 3) uint8 RGB.

    Uncompressed pixels are taken as they lie in the file: h5py would check fletcher32 first, four
    fifths of the time. Checking content is the work of ``labelgen verify``.
    """
    clip = frames.shape[1:]
    as_stored = frames.compression is None and not frames.shuffle and frames.chunks == (1, *clip)
    if not as_stored:
        return frames[row]
    _, chunk = frames.id.read_direct_chunk((row, *(0 for _ in clip)))
    return np.frombuffer(chunk, np.uint8, count=math.prod(clip)).reshape(clip)


def _decode(frames: h5py.Dataset, row: int) -> list[np.ndarray]:
    """Read and decode one clip's JPEGs: 16 of (128, 171, 3) uint8 RGB."""
    images = []
    for data in frames[row]:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise ValueError("not a JPEG")
        images.append(image)
    return images


def _cut(
    clip: np.ndarray | list[np.ndarray], out: np.ndarray, *, top: int, left: int, flip: bool
) -> None:
    """Cut 16 frames to (16, 112, 112, 3), mirrored or not."""
    for image, frame in zip(clip, out, strict=True):
        crop = image[top : top + CROP_SIZE, left : left + CROP_SIZE]
        if flip:
            cv2.flip(crop, 1, dst=frame)  # NumPy's own mirror image is many times slower
        else:
            frame[:] = crop
