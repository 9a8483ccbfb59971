"""Clips as samples: frames and answers of the views that were drawn for them (paper, Sec. 3.4)."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from labelgen.geometry import CLIP_LENGTH, CROP_SIZE
from labelgen.labels.crops import central_crop
from train.data.answers import RIMMED, Answers
from train.data.chunks import DamageError, StoredClips
from train.data.sampler import HELD_OUT, Key, views_of
from train.data.shards import Shard


class Item(NamedTuple):
    """What the loader makes batches of.

    Attributes
    ----------
    frames : (K, 16, 112, 112, 3) uint8
        RGB.
    answers : (K, A)
        As the dataset's `Answers` say; their `nothing` where the clip is not to count, in no loss
        and no figure.
    fields : (K, F, 114, 114) float16
        What lies at the crop's pixels and a rim of one pixel; no channels where none is asked for.
    clip : int
    wrong : str
        Why the clip cannot be had, one sentence; empty if it can.
    """

    frames: torch.Tensor
    answers: torch.Tensor
    fields: torch.Tensor
    clip: int
    wrong: str


class ClipDataset(Dataset):
    """Samples of the clips of two shard sets, by key: (epoch, clip), or (HELD_OUT, clip).

    For training, crop and mirror image of each of K views are drawn; of a held-out clip, there is
    one, the central crop as it is.

    Parameters
    ----------
    train, held : Answers
        About clips of an epoch, and held-out ones; `train` is about both without `held`.
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
        train: Answers,
        held: Answers | None = None,
        *,
        seed: int = 0,
        views: int = 1,
    ) -> None:
        self._train, self._held = train, held or train
        self._seed, self._views = seed, views
        self._known: dict[Shard, StoredClips] = {}
        self._open: dict[Shard, None] = {}
        self._most_open = _files_to_keep()

    def __getstate__(self) -> dict[str, Any]:
        # Open files must not cross processes: each worker opens its own.
        return {**self.__dict__, "_known": {}, "_open": {}}

    def __getitem__(self, key: Key) -> Item:
        epoch, clip = key
        if clip < 0:
            item = self[epoch, ~clip]
            nothing = self._train.nothing.expand_as(item.answers)
            return item._replace(answers=nothing.clone(), clip=clip)
        if epoch == HELD_OUT:
            asked, views = self._held, [(central_crop(self._held.crops), False)]
        else:
            asked = self._train
            views = views_of(self._seed, epoch, clip, crops=len(asked.crops), count=self._views)
        shard, row = asked.shards.locate(clip)
        stored = self._stored(shard, asked.field_names)
        item = _nothing(asked, len(views), clip)
        try:
            answers, images = asked.about(clip, views, stored=stored), stored.frames(row)
            fields = asked.fields(clip, views, stored=stored)
        except (cv2.error, DamageError) as error:
            wrong = f"{shard.path}, clip {row}: it cannot be read ({_short(error)})"
            return item._replace(wrong=wrong)
        for view, (crop, flip) in enumerate(views):
            top, left = asked.crops[crop].tolist()
            _cut(images, item.frames[view].numpy(), top=top, left=left, flip=flip)
        return item._replace(answers=torch.from_numpy(answers), fields=torch.from_numpy(fields))

    def _stored(self, shard: Shard, fields: tuple[str, ...]) -> StoredClips:
        if shard not in self._known:
            self._known[shard] = StoredClips(shard.path, stamp=shard.stamp, fields=fields)
        stored = self._known[shard]
        self._open.pop(shard, None)
        self._open[shard] = None  # now the most recently used
        if len(self._open) > self._most_open:
            oldest = next(iter(self._open))
            del self._open[oldest]
            self._known[oldest].close()
        return stored


def _nothing(asked: Answers, views: int, clip: int) -> Item:
    frames = torch.zeros(views, CLIP_LENGTH, CROP_SIZE, CROP_SIZE, 3, dtype=torch.uint8)
    fields = torch.zeros(views, asked.channels, RIMMED, RIMMED, dtype=torch.float16)
    return Item(frames, asked.nothing.repeat(views, 1), fields, clip, "")


def _files_to_keep() -> int:
    """Return how many shards a process keeps open: half of what the system lets it."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The other half is for what loaders, GPUs and libraries open.
    return sys.maxsize if limit == resource.RLIM_INFINITY else max(1, limit // 2)


def _short(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _cut(clip: Sequence[np.ndarray], out: np.ndarray, *, top: int, left: int, flip: bool) -> None:
    """Cut 16 frames to (16, 112, 112, 3), mirrored or not."""
    for image, frame in zip(clip, out, strict=True):
        crop = image[top : top + CROP_SIZE, left : left + CROP_SIZE]
        if flip:
            cv2.flip(crop, 1, dst=frame)  # NumPy's own mirror image is many times slower
        else:
            frame[:] = crop
