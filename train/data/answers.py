"""What is asked about a clip: the 27 labels of one of its crops, or the class of its video."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from labelgen import LABELS, flip_labels
from labelgen.geometry import CLIP_LENGTH, CROP_SIZE, FRAME_SIZE
from labelgen.labels.crops import crop_positions
from labelgen.labels.table import in_range
from train.data.chunks import DamageError, StoredClips
from train.data.shards import ShardSet
from train.metrics import NO_CLASS, NO_LABEL

RIMMED = CROP_SIZE + 2
"""Side of a crop of fields, with a rim of one pixel, so that derivatives can be taken in it."""
_PAIRS = CLIP_LENGTH - 1
_SIGN, _EXPONENT = 0x8000, 0x7C00  # bits of a float16
_MIRRORED = {"motion_boundaries": (1, -1, -1, 1), "flow": (-1, 1) * _PAIRS}
"""Signs of the channels of a mirrored clip: u changes its sign, and so do derivatives along x."""


class Answers(Protocol):
    """What a sample holds beside its pixels.

    Attributes
    ----------
    shards : ShardSet
        Whose clips it is asked about.
    crops : (K, 2) int16
        Top and left of each crop that may be asked about.
    nothing : (A,) tensor
        The answer about a sample that is not to count.
    channels : int
        Of the fields.
    field_names : tuple of str
        Datasets that fields are cut out of.
    """

    shards: ShardSet
    crops: np.ndarray
    nothing: torch.Tensor
    channels: int
    field_names: tuple[str, ...]

    def about(self, clip: int, views: list[tuple[int, bool]], *, stored: StoredClips) -> np.ndarray:
        """Return (K, A): the answers about crops of a clip, mirrored or not.

        Raises
        ------
        DamageError
            They cannot be read.
        """

    def fields(
        self, clip: int, views: list[tuple[int, bool]], *, stored: StoredClips
    ) -> np.ndarray:
        """Return (K, F, 114, 114) float16: what lies at the pixels of crops, mirrored or not.

        Raises
        ------
        DamageError
            It cannot be read.
        """


class LabelAnswers:
    """The 27 labels of each crop, (27,) uint8, 1-based.

    Parameters
    ----------
    shards : ShardSet
    fields : tuple of str, optional
        Names of datasets to cut crops out of: ``motion_boundaries``, and ``flow``.
    """

    def __init__(self, shards: ShardSet, *, fields: tuple[str, ...] = ()) -> None:
        self.shards, self.crops = shards, shards.crops
        self.nothing = torch.full((len(LABELS),), NO_LABEL, dtype=torch.uint8)
        self.field_names = fields
        signs = np.concatenate([np.zeros(0), *(_MIRRORED[name] for name in fields)])
        self._turned, self.channels = signs < 0, len(signs)

    def about(self, clip: int, views: list[tuple[int, bool]], *, stored: StoredClips) -> np.ndarray:
        """Return (K, 27) uint8; see `Answers`."""
        labels = stored.labels(self.shards.locate(clip)[1])
        if not in_range(labels):
            raise DamageError("a label that is out of range")
        profile = self.shards.profile
        return np.stack(
            [
                flip_labels(labels[crop], profile=profile) if flip else labels[crop]
                for crop, flip in views
            ]
        )

    def fields(
        self, clip: int, views: list[tuple[int, bool]], *, stored: StoredClips
    ) -> np.ndarray:
        """Return (K, F, 114, 114) float16; see `Answers`."""
        cut = np.empty((len(views), self.channels, RIMMED, RIMMED), np.float16)
        if not self.field_names:
            return cut
        row = self.shards.locate(clip)[1]
        first = 0
        for name in self.field_names:
            maps = _in_float16(stored.field(name, row).reshape(-1, *FRAME_SIZE))
            for place, (crop, _) in enumerate(views):
                top, left = self.crops[crop].tolist()
                _cut_rimmed(maps, cut[place, first : first + len(maps)], top=top, left=left)
            first += len(maps)
        for place, (_, flip) in enumerate(views):
            if flip:
                cut[place] = cut[place, ..., ::-1]
                cut.view(np.uint16)[place, self._turned] ^= _SIGN
        return cut


def _in_float16(maps: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        maps = maps.astype(np.float16, copy=False)
    # NumPy's own test of float16 takes 15 times as long.
    if int((maps.view(np.uint16) & _EXPONENT).max()) == _EXPONENT:
        raise DamageError("motion that is no number in float16")
    return maps


def _cut_rimmed(maps: np.ndarray, out: np.ndarray, *, top: int, left: int) -> None:
    """Cut crops with their rim out of (F, 128, 171) maps into (F, 114, 114).

    The rim of a crop at the frame's edge is the edge again, as in the labels' derivatives.
    """
    height, width = FRAME_SIZE
    above, before = top == 0, left == 0
    below, behind = top + CROP_SIZE == height, left + CROP_SIZE == width
    out[:, above : RIMMED - below, before : RIMMED - behind] = maps[
        :, top - 1 + above : top + CROP_SIZE + 1, left - 1 + before : left + CROP_SIZE + 1
    ]
    for at_edge, edge, inside in ((above, 0, 1), (below, -1, -2)):
        if at_edge:
            out[:, edge] = out[:, inside]
    for at_edge, edge, inside in ((before, 0, 1), (behind, -1, -2)):
        if at_edge:
            out[:, :, edge] = out[:, :, inside]


class ClassAnswers:
    """The class of the clip's video, (1,) int64 from 0, whatever the crop: any of all 1020.

    Parameters
    ----------
    shards : ShardSet
    classes : (clips,) int64
        Of each clip; `NO_CLASS` where there is none.
    """

    def __init__(self, shards: ShardSet, classes: np.ndarray) -> None:
        self.shards, self.crops, self._classes = shards, crop_positions("all"), classes
        self.nothing, self.channels = torch.tensor([NO_CLASS]), 0
        self.field_names: tuple[str, ...] = ()

    def about(self, clip: int, views: list[tuple[int, bool]], *, stored: StoredClips) -> np.ndarray:
        """Return (K, 1) int64; see `Answers`."""
        return np.full((len(views), 1), self._classes[clip])

    def fields(
        self, clip: int, views: list[tuple[int, bool]], *, stored: StoredClips
    ) -> np.ndarray:
        """Return (K, 0, 114, 114): nothing; see `Answers`."""
        return np.empty((len(views), 0, RIMMED, RIMMED), np.float16)
