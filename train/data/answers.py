"""What is asked about a clip: the 27 labels of one of its crops, or the class of its video."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from labelgen import LABELS, flip_labels
from labelgen.labels.crops import crop_positions
from train.data.chunks import StoredClips
from train.data.shards import ShardSet
from train.metrics import NO_CLASS, NO_LABEL


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
    """

    shards: ShardSet
    crops: np.ndarray
    nothing: torch.Tensor

    def about(self, clip: int, views: list[tuple[int, bool]], *, stored: StoredClips) -> np.ndarray:
        """Return (K, A): the answers about crops of a clip, mirrored or not.

        Raises
        ------
        DamageError
            They cannot be read.
        """


class LabelAnswers:
    """The 27 labels of each crop, (27,) uint8, 1-based."""

    def __init__(self, shards: ShardSet) -> None:
        self.shards, self.crops = shards, shards.crops
        self.nothing = torch.full((len(LABELS),), NO_LABEL, dtype=torch.uint8)

    def about(self, clip: int, views: list[tuple[int, bool]], *, stored: StoredClips) -> np.ndarray:
        """Return (K, 27) uint8; see `Answers`."""
        labels = stored.labels(self.shards.locate(clip)[1])
        profile = self.shards.profile
        return np.stack(
            [
                flip_labels(labels[crop], profile=profile) if flip else labels[crop]
                for crop, flip in views
            ]
        )


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
        self.nothing = torch.tensor([NO_CLASS])

    def about(self, clip: int, views: list[tuple[int, bool]], *, stored: StoredClips) -> np.ndarray:
        """Return (K, 1) int64; see `Answers`."""
        return np.full((len(views), 1), self._classes[clip])
