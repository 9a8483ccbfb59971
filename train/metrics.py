"""What was learnt: per label, the explained variance and the accuracy beside chance.

Explained variance is 1 - sum (y - p)^2 / sum (y - mean y)^2: 0 for always predicting the mean
of the very clips that are measured (the best constant there is), 1 for perfection, below 0 for
worse than that constant. Skill is the same against always predicting the training clips' mean,
which is all that one can know beforehand: where held-out videos differ from the training ones,
even that mean explains less than nothing. A branch's figures are those of the sums over its
labels. Chance is the share of the most frequent value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

VALUES = 17  # labels run from 1 to at most 16; the released code's also know 0
NO_LABEL = 255
"""In place of each label of a sample that stands for no clip, and counts nowhere."""


class LabelStats:
    """Sums over clips from which all figures follow; they add up over batches and over ranks.

    Parameters
    ----------
    names : sequence of str
        Names of the C labels, branch first (``motion/...``).
    cardinality : sequence of int
        Number of values of each.
    """

    def __init__(
        self, names: Sequence[str], cardinality: Sequence[int], *, device: torch.device
    ) -> None:
        self.names = list(names)
        self.cardinality = torch.tensor(cardinality, device=device)
        # Rows: clips, sum y, sum y^2, sum (y - p)^2, hits, then how often each value occurs.
        self.sums = torch.zeros(5 + VALUES, len(names), dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(self, predicted: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch: both (B, C), in label units."""
        there = labels != NO_LABEL
        p, y = predicted.double(), labels.double() * there
        rounded = p.round().clamp(min=1).minimum(self.cardinality)
        seen = torch.nn.functional.one_hot(y.long(), VALUES) * there[..., None]
        rows = [there, y, y * y, (y - p) ** 2 * there, (rounded == y) & there]
        self.sums += torch.cat([torch.stack([row.sum(0) for row in rows]), seen.sum(0).T])

    def mse(self) -> torch.Tensor:
        """(C,) mean squared error of each label, float32."""
        return (self.sums[3] / self.sums[0]).float()

    def report(self, training_mean: torch.Tensor) -> dict[str, Any]:
        """Figures per branch and label; None where labels do not vary.

        Parameters
        ----------
        training_mean : (C,) tensor
            Of the labels, the yardstick of skill.
        """
        clips, y, yy, errors, hits = self.sums[:5].cpu()
        spread = yy - y * y / clips
        mean = training_mean.cpu().double()
        distance = yy - 2 * mean * y + clips * mean**2
        chance = self.sums[5:].cpu().amax(0) / clips
        labels = {
            name: {
                "mse": float(errors[i] / clips[i]),
                "explained_variance": _explained(errors[i], spread[i]),
                "skill": _explained(errors[i], distance[i]),
                "accuracy": float(hits[i] / clips[i]),
                "chance": float(chance[i]),
            }
            for i, name in enumerate(self.names)
        }
        branches = {}
        for branch in dict.fromkeys(name.split("/")[0] for name in self.names):
            mine = [i for i, name in enumerate(self.names) if name.split("/")[0] == branch]
            branches[branch] = {
                "mse": float(errors[mine].sum() / clips[mine].sum()),
                "explained_variance": _explained(errors[mine].sum(), spread[mine].sum()),
                "skill": _explained(errors[mine].sum(), distance[mine].sum()),
            }
        return {"clips": int(clips[0]), "branches": branches, "labels": labels}


def _explained(errors: torch.Tensor, spread: torch.Tensor) -> float | None:
    return float(1 - errors / spread) if spread > 1e-9 else None
