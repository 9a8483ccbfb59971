"""What was learnt: of labels, explained variance and accuracy beside chance; of classes, the hits.

Explained variance is 1 - sum (y - p)^2 / sum (y - mean y)^2: 0 for always predicting the mean
of the very clips that are measured (the best constant there is), 1 for perfection, below 0 for
worse than that constant. Skill is the same against always predicting the training clips' mean,
which is all that one can know beforehand: where held-out videos differ from the training ones,
even that mean explains less than nothing. A branch's figures are those of the sums over its
labels. Chance is the share of the most frequent value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from labelgen import LABELS
from train.values import kind_of

VALUES = 17  # labels run from 1 to at most 16; the released code's also know 0
NO_LABEL = 255
"""In place of each label of a sample that stands for no clip, and counts nowhere."""
NO_CLASS = -1
"""In place of a class: none that is known."""
_ROWS = 8  # sums before those of values
_VALUES_OF = {label.name: label.cardinality for label in LABELS}
_INCOMPARABLE = ("mse", "distance", "prior_distance")  # among labels of several kinds
TOP = (1, 5)
"""A class is told by the k likeliest, for each k of these; of so few classes it says nothing."""


class Reading(NamedTuple):
    """What a network says of C labels of a batch, in the same terms whatever it was asked.

    Attributes
    ----------
    expected : (B, C) float
        The number it expects, in label units.
    value : (B, C) float
        The value it would bet on, a whole number.
    surprise : (B, C) float or None
        - log of how likely it thought the true value, in nats; None where it says no such thing.
    """

    expected: torch.Tensor
    value: torch.Tensor
    surprise: torch.Tensor | None


Judge = Callable[[torch.Tensor, Any], tuple[torch.Tensor, torch.Tensor, Reading]]


class LabelStats:
    """Sums over clips from which all figures follow; they add up over batches and over ranks.

    Parameters
    ----------
    names : sequence of str
        Names of the C labels, branch first (``motion/...``).
    distances : (C, 16, 16) float32
        How far the values of each label lie apart, see `train.values`.
    judge : callable
        Takes predictions and targets; returns labels (B, C), their loss (B, C) and a `Reading`.
    """

    def __init__(
        self, names: Sequence[str], *, distances: torch.Tensor, judge: Judge, device: torch.device
    ) -> None:
        self.names = list(names)
        self._distances, self._judge = distances.to(device), judge
        self._rows = torch.arange(len(names), device=device)
        # Rows: clips, sum y, sum y^2, sum (y - p)^2, hits, losses, surprise, distance; then how
        # often each value occurs.
        self.sums = torch.zeros(_ROWS + VALUES, len(names), dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(self, predicted: torch.Tensor, targets: Any) -> None:
        """Add a batch, as the judge takes it."""
        labels, losses, said = self._judge(predicted.double(), targets)
        there = labels != NO_LABEL
        p, y = said.expected, labels.double() * there
        surprise = torch.full_like(p, torch.nan) if said.surprise is None else said.surprise
        true, bet = place(labels), place(said.value)
        apart = self._distances[self._rows, true, bet]
        seen = torch.nn.functional.one_hot(y.long(), VALUES) * there[..., None]
        rows = [there, y, y * y, (y - p) ** 2 * there, (bet == true) & there]
        rows += [losses, surprise.where(there, 0), apart * there]
        self.sums += torch.cat([torch.stack([row.sum(0) for row in rows]), seen.sum(0).T])

    def is_empty(self) -> bool:
        """Whether no clip was added."""
        return not self.sums[0].any()

    def losses(self) -> torch.Tensor:
        """(C,) mean loss of each label, float32."""
        return (self.sums[5] / self.sums[0]).float()

    def report(self, training_mean: torch.Tensor, training: torch.Tensor) -> dict[str, Any]:
        """Figures per branch, kind and label; None where there is nothing to compare with.

        Parameters
        ----------
        training_mean : (C,) tensor
            Of the labels, the yardstick of skill.
        training : (C, 17) tensor
            How many views of training clips have each value from 0 to 16: the prior.
        """
        squares = self._squares(training_mean)
        labels = self._labels(squares, training.cpu().double())
        groups: dict[str, list[dict[str, Any]]] = {}
        for name, figures in labels.items():
            groups.setdefault(f"{name.split('/')[0]}: {kind_of(name)}", []).append(figures)
        return {
            "clips": int(self.sums[0, 0]),
            "branches": self._branches(squares, labels),
            "kinds": {kind: _means(members) for kind, members in groups.items()},
            "labels": labels,
        }

    def _squares(self, training_mean: torch.Tensor) -> torch.Tensor:
        """(3, C): sums of squared distances from what was predicted, own mean, training mean."""
        clips, y, yy, errors = self.sums[:4].cpu()
        mean = training_mean.cpu().double()
        return torch.stack([errors, yy - y * y / clips, yy - 2 * mean * y + clips * mean**2])

    def _labels(self, squares: torch.Tensor, training: torch.Tensor) -> dict[str, dict[str, Any]]:
        sums, apart = self.sums.cpu(), self._distances.cpu().double()
        seen = sums[_ROWS:] / sums[0]
        told = {}
        for i, name in enumerate(self.names):
            errors, spread, distance = squares[:, i]
            clips, hits, surprise, away = (float(sums[row, i]) for row in (0, 4, 6, 7))
            prior = _Prior(training[i], values=_VALUES_OF[name], apart=apart[i])
            told[name] = {
                "mse": float(errors / clips),
                "explained_variance": _explained(errors, spread),
                "skill": _explained(errors, distance),
                "accuracy": hits / clips,
                "chance": float(place_shares(seen[:, i]).max()),
                "prior_accuracy": prior.accuracy(seen[:, i]),
                "surprise": None if math.isnan(surprise) else surprise / clips,
                "prior_surprise": prior.surprise(seen[:, i]),
                "distance": away / clips,
                "prior_distance": prior.distance(seen[:, i]),
            }
            if kind_of(name) == "colour":
                told[name] |= {"distance": None, "prior_distance": None}
            told[name]["information"] = _gained([told[name]])
        return told

    def _branches(
        self, squares: torch.Tensor, labels: dict[str, dict[str, Any]]
    ) -> dict[str, dict[str, Any]]:
        branches, clips = {}, self.sums[0].cpu()
        for branch in dict.fromkeys(name.split("/")[0] for name in self.names):
            mine = [i for i, name in enumerate(self.names) if name.split("/")[0] == branch]
            errors, spread, distance = squares[:, mine].sum(1)
            branches[branch] = {
                "mse": float(errors / clips[mine].sum()),
                "explained_variance": _explained(errors, spread),
                "skill": _explained(errors, distance),
                "macro": _means([labels[self.names[i]] for i in mine], leave_out=_INCOMPARABLE),
            }
        return branches


class _Prior:
    """What one knows of a label before seeing a clip: how often training clips have each value.

    Half a view more of each value, so that nothing is impossible. Of constants that are equally
    good the mean counts: a direction and its mirror image are equally frequent among views, and
    the lower number is no better a bet.
    """

    def __init__(self, counts: torch.Tensor, *, values: int, apart: torch.Tensor) -> None:
        counts = place_shares(counts)[:values] + 0.5
        self._shares, self._apart = counts / counts.sum(), apart[:values, :values]

    def accuracy(self, seen: torch.Tensor) -> float:
        return float(self._of(seen)[self._shares == self._shares.max()].mean())

    def surprise(self, seen: torch.Tensor) -> float:
        return -float((self._of(seen) * self._shares.log()).sum())

    def distance(self, seen: torch.Tensor) -> float:
        """Return the mean distance of the constant that is nearest to the training clips."""
        far = self._shares @ self._apart
        # Sums of mirrored terms differ in their last bits.
        best = torch.isclose(far, far.min(), rtol=1e-9, atol=0)
        return float((self._of(seen) @ self._apart[:, best]).mean())

    def _of(self, seen: torch.Tensor) -> torch.Tensor:
        return place_shares(seen)[: len(self._shares)]


def _gained(members: list[dict[str, Any]]) -> float | None:
    """Return what share of the prior's surprise is gone, of labels that vary."""
    varied = [m for m in members if m["chance"] < 1 and m["surprise"] is not None]
    alone = sum(m["prior_surprise"] for m in varied)
    return 1 - sum(m["surprise"] for m in varied) / alone if varied else None


def place(labels: torch.Tensor) -> torch.Tensor:
    """1-based labels -> int64 places from 0.

    `NO_LABEL` and 0 are the first: a clip without motion has location 1 by our rules, where the
    released code says 0. So is what is no number: the step's loss tells of it.
    """
    numbers = torch.nan_to_num(labels) if labels.is_floating_point() else labels.long()
    return torch.where(labels == NO_LABEL, 0, numbers.long() - 1).clamp(0, VALUES - 2)


def place_shares(shares: torch.Tensor) -> torch.Tensor:
    """(17,) shares of values from 0 -> (16,) shares of places."""
    placed = shares[1:].clone()
    placed[0] += shares[0]
    return placed


def _means(members: list[dict[str, Any]], leave_out: Sequence[str] = ()) -> dict[str, float | None]:
    """Mean of each figure over labels that have it; of information, that of all together."""
    means: dict[str, float | None] = {}
    for figure in members[0]:
        if figure not in leave_out:
            known = [member[figure] for member in members if member[figure] is not None]
            means[figure] = sum(known) / len(known) if known else None
    return {**means, "information": _gained(members)}


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
        # Nothing is selected: the host would wait for the device to know how much.
        there = classes != NO_CLASS
        logits, known = logits.float(), classes.clamp(min=0)
        best = logits.topk(min(5, self._classes), dim=1).indices
        losses = torch.nn.functional.cross_entropy(
            logits, classes, ignore_index=NO_CLASS, reduction="none"
        )
        rows = self.sums.new_zeros(len(classes), self._classes + 2)
        rows.scatter_(1, best[:, :1], 1)
        rows[:, -2] = losses.double()
        rows[:, -1] = (best == known[:, None]).any(dim=1).double()
        self.sums.index_add_(0, known, rows.where(there[:, None], 0))

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
