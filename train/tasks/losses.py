"""What a network is asked about the labels: their numbers (paper, Sec. 3.4), or distributions.

Every loss takes the same samples and gives a loss per label, and what the network says in the same
terms, so that figures can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch.nn.functional import pad

from labelgen import LABELS
from labelgen.labels.partitions import blocks_of
from train import TrainError
from train.data.loader import Batch
from train.data.shards import FIELDS
from train.metrics import NO_LABEL, Reading, place
from train.tasks.statistics import BOUNDARIES, CropStatistics
from train.values import MOST, neighbours, shared_outputs

SHARPNESS = 4.0
"""Power of shares, since labels ask for the largest."""
GAIN = 4.0
"""Logits are outputs times this: a softmax over many values moves its mean slowly otherwise."""
_TINY = 1e-12


class Targets(NamedTuple):
    """What is wanted of a batch.

    Attributes
    ----------
    labels : (B, C) uint8
        1-based; `NO_LABEL` for a sample that is not to count.
    wanted : tensor or tuple of tensors
        What the loss compares with, as it needs it.
    """

    labels: torch.Tensor
    wanted: torch.Tensor | tuple[torch.Tensor, ...]


class Loss(Protocol):
    """How predictions are compared with labels.

    Attributes
    ----------
    outputs : tuple of int
        Numbers of the network's outputs for each branch.
    """

    outputs: tuple[int, ...]

    def targets(self, batch: Batch) -> Targets:
        """Return what is wanted of a batch."""

    def losses(self, predicted: torch.Tensor, targets: Targets) -> torch.Tensor:
        """(B, outputs) -> (B, C): the loss of each label, 0 for a sample that is not to count."""

    def read(self, predicted: torch.Tensor, targets: Targets) -> Reading:
        """Return what predictions say of each label."""


class SquaredError:
    """The paper's: each label is a number, and its mean is predicted (Sec. 3.4)."""

    def __init__(self, branches: Sequence[Sequence[int]], *, device: torch.device) -> None:
        self.outputs = tuple(len(columns) for columns in branches)
        chosen = [column for columns in branches for column in columns]
        self._chosen = torch.tensor(chosen, device=device)
        self._cardinality = torch.tensor([LABELS[c].cardinality for c in chosen], device=device)

    def targets(self, batch: Batch) -> Targets:
        """Return the labels as numbers."""
        labels = batch.answers[:, self._chosen]
        return Targets(labels, labels.float())

    def losses(self, predicted: torch.Tensor, targets: Targets) -> torch.Tensor:
        """Return squared errors in label units."""
        there = targets.labels != NO_LABEL
        return (predicted - targets.wanted) ** 2 * there  # type: ignore[operator]

    def read(self, predicted: torch.Tensor, targets: Targets) -> Reading:
        """Return the numbers as they are, and rounded; they say nothing of what is likely."""
        rounded = predicted.round().clamp(min=1).minimum(self._cardinality)
        return Reading(predicted, rounded, None)


class _Distributions:
    """What losses share that predict how likely each value of a label is."""

    def __init__(self, branches: Sequence[Sequence[int]], *, device: torch.device) -> None:
        chosen = [column for columns in branches for column in columns]
        self._chosen = torch.tensor(chosen, device=device)
        self._values = torch.arange(1, MOST + 1, dtype=torch.float32, device=device)

    def _reading(self, log_likely: torch.Tensor, targets: Targets) -> Reading:
        """Return mean and likeliest value, and how unlikely the true one was thought.

        `log_likely` (B, C, 16) is the log probability of each value, -inf where there is none.
        """
        expected = log_likely.exp() @ self._values.to(log_likely.dtype)
        true = place(targets.labels)[..., None]
        surprise = -log_likely.gather(2, true)[..., 0]
        return Reading(expected, log_likely.argmax(2) + 1.0, surprise)


class CrossEntropy(_Distributions):
    """A softmax per label; with `soft`, values beside the true one share in its weight."""

    def __init__(
        self, branches: Sequence[Sequence[int]], *, soft: bool, device: torch.device
    ) -> None:
        super().__init__(branches, device=device)
        sizes = [[LABELS[column].cardinality for column in columns] for columns in branches]
        self.outputs = tuple(map(sum, sizes))
        chosen = self._chosen.tolist()
        self._spread = (
            neighbours(chosen) if soft else torch.eye(MOST).expand(len(chosen), -1, -1)
        ).to(device)
        # Place of each value's logit; one past the last where a label has no such value.
        self._places = torch.full((len(chosen), MOST), sum(self.outputs), device=device)
        first = 0
        for row, size in enumerate(size for branch in sizes for size in branch):
            self._places[row, :size] = torch.arange(first, first + size)
            first += size
        self._absent = self._places == first
        self._shared = shared_outputs(chosen).to(device)

    def targets(self, batch: Batch) -> Targets:
        """Return a distribution over the values of each label, (B, C, 16)."""
        labels = batch.answers[:, self._chosen]
        there = labels != NO_LABEL
        rows = torch.arange(labels.shape[1], device=labels.device)
        return Targets(labels, self._spread[rows, place(labels)] * there[..., None])

    def losses(self, predicted: torch.Tensor, targets: Targets) -> torch.Tensor:
        """Return cross-entropies in nats."""
        # What is impossible is wanted of nobody; 0 times infinity would be no number.
        log_likely = self._log_likely(predicted).masked_fill(self._absent, 0)
        return -(log_likely * targets.wanted).sum(-1)  # type: ignore[union-attr]

    def read(self, predicted: torch.Tensor, targets: Targets) -> Reading:
        """Return mean and likeliest value, and how unlikely the true one was thought."""
        return self._reading(self._log_likely(predicted), targets)

    def _log_likely(self, predicted: torch.Tensor) -> torch.Tensor:
        """Return the log softmax over each label's own outputs, (B, C, 16)."""
        none = predicted.new_zeros(len(predicted), 1)
        outputs = torch.cat([predicted, none], dim=1)[:, self._places]
        logits = GAIN * torch.einsum("bcv,cwv->bcw", outputs, self._shared.to(outputs.dtype))
        return logits.masked_fill(self._absent, -torch.inf).log_softmax(2)


class _Group(NamedTuple):
    """Labels that are asked about together: a place and what is found there, or one alone.

    Attributes
    ----------
    row : int
        Of the first label among those that are learnt.
    column : int
        Of the first label among the 27.
    places : int
        Number of values of the first.
    things : int
        Number of values of the other; 0 where there is none.
    """

    row: int
    column: int
    places: int
    things: int

    @property
    def outputs(self) -> int:
        return self.places * (1 + self.things)


class Statistics(_Distributions):
    """The statistics whose largest the labels name, in place of the labels.

    Asked are which share of the mean motion of all blocks each has, and how it is shared among
    directions; how the crop's motion is shared among frame pairs; which places of colour are
    likely, and how the pixels of each block are shared among colours. A label of a direction or
    colour is what is found at the place that wins, and that is what is read. Shares are taken to
    the power `SHARPNESS`, and add up to 1 again; what is found in a block counts as much as the
    block is wanted. Places of colour are those of `CrossEntropy`, and frames too where no flow is
    stored.

    Raises
    ------
    TrainError
        A direction or a colour is asked for without its place.
    """

    def __init__(self, branches: Sequence[Sequence[int]], *, device: torch.device) -> None:
        super().__init__(branches, device=device)
        chosen = self._chosen.tolist()
        self._groups, outputs, row = [], [], 0
        for columns in branches:
            grouped = _grouped(columns, first=row)
            self._groups += grouped
            outputs.append(sum(group.outputs for group in grouped))
            row += len(columns)
        self.outputs = tuple(outputs)
        self._spread = neighbours(chosen).to(device)
        self._shared = shared_outputs(chosen).to(device)
        self._statistics = CropStatistics(device)

    def targets(self, batch: Batch) -> Targets:
        """Return what is wanted of each label: (B, values), or (B, places, values) with its place.

        Each sums to 1, or to 0 where nothing is asked.
        """
        labels = batch.answers[:, self._chosen]
        rows = torch.arange(labels.shape[1], device=labels.device)
        near = self._spread[rows, place(labels)]
        found = _Found(self._statistics, batch)
        there = labels[:, :1] != NO_LABEL
        wanted = [
            each * there.reshape(-1, *[1] * (each.ndim - 1))
            for group in self._groups
            for each in found.of(group, near[:, group.row])
        ]
        return Targets(labels, tuple(wanted))

    def losses(self, predicted: torch.Tensor, targets: Targets) -> torch.Tensor:
        """Return cross-entropies in nats: of places, and of what is found there, given them."""
        said = [each for group in self._said(predicted) for each in group]
        pairs = zip(said, targets.wanted, strict=True)
        return torch.stack([-(w * log).flatten(1).sum(1) for log, w in pairs], dim=1)

    def read(self, predicted: torch.Tensor, targets: Targets) -> Reading:
        """Return what predictions say: mean and surprise of values wherever they may be found.

        The value of what is found is that at the likeliest place.
        """
        anywhere, likeliest = [], []
        for places, *things in self._said(predicted):
            best = places.argmax(1)
            rows = torch.arange(len(best), device=best.device)
            anywhere += [places, *((places[..., None] + each).logsumexp(1) for each in things)]
            likeliest += [places, *(each[rows, best] for each in things)]
        value = _padded(likeliest).argmax(2) + 1.0
        return self._reading(_padded(anywhere), targets)._replace(value=value)

    def _said(self, predicted: torch.Tensor) -> list[list[torch.Tensor]]:
        """Return log probabilities by group: (B, places), and (B, places, things) given those."""
        said = []
        parts = predicted.split([group.outputs for group in self._groups], dim=1)
        for part, group in zip(parts, self._groups, strict=True):
            places, things = part[:, : group.places], part[:, group.places :]
            shared = self._shared[group.row, : group.places, : group.places].to(part.dtype)
            said.append([(GAIN * places @ shared.T).log_softmax(1)])
            if group.things:
                of_place = things.unflatten(1, (group.places, group.things))
                said[-1].append((GAIN * of_place).log_softmax(2))
        return said


def _padded(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """C times (B, values) -> (B, C, 16), -inf where a label has no such value."""
    return torch.stack(
        [pad(each, (0, MOST - each.shape[1]), value=-torch.inf) for each in values], dim=1
    )


class _Found:
    """The statistics of a batch, as distributions."""

    def __init__(self, statistics: CropStatistics, batch: Batch) -> None:
        self._statistics, self._batch = statistics, batch
        self._timed = batch.fields.shape[1] > BOUNDARIES

    @cached_property
    def _motion(self) -> torch.Tensor:
        return self._statistics.motion(self._batch.fields)

    @cached_property
    def _pairs(self) -> torch.Tensor:
        return self._statistics.pairs(self._batch.fields)

    @cached_property
    def _colours(self) -> torch.Tensor:
        return self._statistics.colours(self._batch.frames)

    def of(self, group: _Group, near: torch.Tensor) -> list[torch.Tensor]:
        """Return what is wanted of each label; `near` (B, 16) is `CrossEntropy`'s of the first."""
        name = LABELS[group.column].name
        branch, partition, _ = name.split("/")
        component = int("/v_" in name)
        near = near[:, : group.places]
        if partition == "global" and branch == "appearance":
            return [_shares(self._colours[:, -1])]
        if partition == "global":
            if self._timed:
                return [_shares(self._pairs[:, component])]
            moved = self._motion[:, component].flatten(1).any(1)
            return [near * moved[:, None]]
        blocks = blocks_of(partition)
        if branch == "motion":
            inside = self._motion[:, component, blocks]
            places = _shares(inside.sum(2))
        else:
            inside, places = self._colours[:, blocks], near
        if not group.things:
            return [places]
        return [places, places[..., None] * _shares(inside)]


def _shares(values: torch.Tensor) -> torch.Tensor:
    """Return sharpened shares of the sum along the last axis; of nothing, nothing."""
    largest = values.amax(-1, keepdim=True)
    sharpened = (values / largest.clamp(min=_TINY)) ** SHARPNESS
    return sharpened / sharpened.sum(-1, keepdim=True).clamp(min=_TINY)


def _grouped(columns: Sequence[int], *, first: int) -> list[_Group]:
    groups: list[_Group] = []
    for row, column in enumerate(columns, first):
        name, values = LABELS[column]
        if name.endswith("_location") and column + 1 in columns:
            groups.append(_Group(row, column, values, LABELS[column + 1].cardinality))
        elif name.endswith(("_location", "_frame")) or name == "appearance/global/color":
            groups.append(_Group(row, column, values, 0))
        elif column - 1 not in columns:
            raise TrainError(
                f"--loss statistics learns {name} together with its place; name "
                f"{name.rsplit('/', 1)[0]} in --tasks."
            )
    return groups


def fields_of(name: str, branches: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """Return which of `FIELDS` a loss reads for the columns of each branch, if they are stored."""
    names = [LABELS[column].name for columns in branches for column in columns]
    motion = [each for each in names if each.startswith("motion")]
    if name != "statistics" or not motion:
        return ()
    return FIELDS if any(each.endswith("_frame") for each in motion) else FIELDS[:1]


def make_loss(name: str, branches: Sequence[Sequence[int]], *, device: torch.device) -> Loss:
    """Return the loss of a recipe, for the columns that each branch learns."""
    if name == "mse":
        return SquaredError(branches, device=device)
    if name == "statistics":
        return Statistics(branches, device=device)
    return CrossEntropy(branches, soft=name == "ce-soft", device=device)
