"""What was learnt: of labels, explained variance and accuracy beside chance; of classes, the hits.

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
NO_CLASS = -1
"""In place of a class: none that is known."""
TOP = (1, 5)
"""A class is told by the k likeliest, for each k of these; of so few classes it says nothing."""


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

    def is_empty(self) -> bool:
        """Whether no clip was added."""
        return not self.sums[0].any()

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


class ClassStats:
    """Counts of clips by class and predicted class; they add up over batches and over ranks.

    Parameters
    ----------
    classes : int
    """

    def __init__(self, classes: int, *, device: torch.device) -> None:
        # A row per class: how often each class was predicted for it; then the sum of losses, and
        # how often the class was among the five most likely.
        self.sums = torch.zeros(classes, classes + 2, dtype=torch.float64, device=device)
        self._classes = classes

    @torch.no_grad()
    def add(self, logits: torch.Tensor, classes: torch.Tensor) -> None:
        """Add a batch: (B, C) logits and (B,) classes."""
        there = classes != NO_CLASS
        logits, classes = logits[there].float(), classes[there]
        losses = torch.nn.functional.cross_entropy(logits, classes, reduction="none")
        best = logits.topk(min(5, self._classes), dim=1).indices
        rows = torch.zeros(len(classes), self._classes + 2, dtype=torch.float64)
        rows = rows.to(self.sums.device)
        rows[torch.arange(len(classes)), best[:, 0]] = 1
        rows[:, -2] = losses.double()
        rows[:, -1] = (best == classes[:, None]).any(dim=1).double()
        self.sums.index_add_(0, classes, rows)

    def is_empty(self) -> bool:
        """Whether no clip was added."""
        return not self.sums.any()

    def loss(self) -> float:
        """Mean cross-entropy of the clips, in nats."""
        return float(self.sums[:, -2].sum() / self._clips())

    def report(self, names: Sequence[str]) -> dict[str, Any]:
        """Figures over all clips and per class.

        `chance1`, `chance5` are what the best constant guess would give: the share of the most
        frequent class, or of the five most frequent.
        """
        counts = self.sums[:, : self._classes].cpu()
        of_class, clips = counts.sum(dim=1), self._clips()
        most = of_class.sort(descending=True).values
        return {
            "clips": int(clips),
            "loss": self.loss(),
            "top1": float(counts.diagonal().sum() / clips),
            "top5": float(self.sums[:, -1].sum() / clips),
            "chance1": float(most[0] / clips),
            "chance5": float(most[:5].sum() / clips),
            "classes": {
                name: {"clips": int(of_class[i]), "top1": _share(counts[i, i], of_class[i])}
                for i, name in enumerate(names)
            },
        }

    def _clips(self) -> torch.Tensor:
        return self.sums[:, : self._classes].sum()


def _share(part: torch.Tensor, whole: torch.Tensor) -> float | None:
    return float(part / whole) if whole else None
