"""Which clips, in which order and from which view: functions of the seed (paper, Sec. 3.4).

No choice depends on the process that makes it: the order of an epoch is a function of (seed,
epoch), the view of a clip one of (seed, epoch, clip). Workers, ranks and restarts change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from train import TrainError

# The first entropy word keeps the streams apart: NumPy pads short entropies with zeros, so that
# (seed, epoch) and (seed, epoch, 0) would be the same stream.
_ORDER, _VIEW, _SPLIT = 1, 2, 3

Key = tuple[int, int]  # (epoch, clip)


def view_of(seed: int, epoch: int, clip: int, crops: int) -> tuple[int, bool]:
    """Draw the crop (0 <= index < crops) and the mirror image (p = .5) of one sample."""
    rng = np.random.default_rng((_VIEW, seed, epoch, clip))
    return int(rng.integers(crops)), bool(rng.integers(2))


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
