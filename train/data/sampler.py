"""Which clips, in which order and from which views: functions of the seed (paper, Sec. 3.4).

No choice depends on the process that makes it: the order of an epoch is a function of (seed,
epoch), the views of a clip are one of (seed, epoch, clip). Workers, ranks and restarts change
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from train import TrainError

# The first entropy word keeps the streams apart: NumPy pads short entropies with zeros, so that
# (seed, epoch) and (seed, epoch, 0) would be the same stream.
_ORDER, _VIEW = 1, 2

Key = tuple[int, int]
"""(epoch, clip); a clip below 0 is ~clip without its labels, see `uncounted`."""
HELD_OUT = -1
"""In place of an epoch: a held-out clip, in its one fixed view."""


def views_of(
    seed: int, epoch: int, clip: int, *, crops: int, count: int = 1
) -> list[tuple[int, bool]]:
    """Draw crops (0 <= index < crops) and mirror images (p = .5) for the samples of one clip."""
    rng = np.random.default_rng((_VIEW, seed, epoch, clip))
    return [(int(rng.integers(crops)), bool(rng.integers(2))) for _ in range(count)]


def uncounted(key: Key) -> Key:
    """Return the key of the same clip without its labels: batch norm sees it, nothing else does."""
    epoch, clip = key
    return epoch, ~clip


@dataclass(frozen=True)
class Share:
    """Which part of each batch is this rank's, and in how many parts it is computed.

    Example: a step of 7 clips a..g, 2 ranks, accumulate 2

        part 0: rank 0 gets a c, rank 1 gets b d      part 1: rank 0 gets e g, rank 1 gets f
    """

    rank: int = 0
    ranks: int = 1
    accumulate: int = 1

    def parts(self, clips: int) -> int:
        """Return in how many parts a step of so many clips is computed: none is empty."""
        return min(self.accumulate, clips)

    def of(self, keys: list[Key]) -> list[list[Key]]:
        """Return this rank's keys of one step, a list per part.

        A rank without a share gets a clip to look at that is not to count.
        """
        parts = np.array_split(np.arange(len(keys)), self.parts(len(keys)))
        return [
            [keys[i] for i in part[self.rank :: self.ranks]] or [uncounted(keys[part[0]])]
            for part in parts
        ]


class Order:
    """The batches of every epoch, the same on all ranks.

    The last clips that do not fill a batch wait for another epoch's order.

    Parameters
    ----------
    clips : (N,) int64
        Clip numbers to draw from.
    batch : int
        Clips per optimizer step, over all ranks and parts.

    Attributes
    ----------
    steps : int
        Batches in an epoch.
    """

    def __init__(self, clips: np.ndarray, batch: int, *, seed: int) -> None:
        if batch > len(clips):
            raise TrainError(
                f"A batch of {batch} is larger than the training set of {len(clips)} clips."
            )
        self.clips, self.batch, self.seed = clips, batch, seed
        self.steps = len(clips) // batch

    def steps_of(self, epoch: int, *, start: int = 0) -> Iterator[list[Key]]:
        """Keys of each step of an epoch, from step `start` on."""
        order = np.random.default_rng((_ORDER, self.seed, epoch)).permutation(self.clips)
        for step in range(start, self.steps):
            drawn = order[step * self.batch : (step + 1) * self.batch]
            yield [(epoch, int(clip)) for clip in drawn]


def held_out_batches(clips: np.ndarray, batch: int, *, share: Share) -> list[list[Key]]:
    """Every held-out clip once, in order, shared by the ranks."""
    keys = [(HELD_OUT, int(clip)) for clip in clips[share.rank :: share.ranks]]
    return [keys[i : i + batch] for i in range(0, len(keys), batch)]
