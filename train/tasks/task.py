"""What the loop asks of a task, whatever is learnt: a network, a loss, figures, words for them."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from train.data.loader import Batch


class Figures(Protocol):
    """Sums over clips, from which all figures follow.

    Attributes
    ----------
    sums : float64 tensor
        They add up over batches and over ranks.
    """

    sums: torch.Tensor

    def add(self, predicted: torch.Tensor, targets: Any) -> None:
        """Add a batch, as the task's network and `targets` give it."""

    def is_empty(self) -> bool:
        """Whether no clip was added."""


class Task(Protocol):
    """What is learnt from clips and answers; the same on every rank.

    Attributes
    ----------
    net : torch.nn.Module
        On the device; takes clips (B, 16, 112, 112, 3) uint8.
    explanation : str
        What the figures mean, in a line.
    next_command : str
        What to do with a finished run, which stands in it as ``{run}``.
    """

    explanation: str
    next_command: str

    @property
    def net(self) -> nn.Module:
        """The network."""

    def targets(self, batch: Batch) -> Any:
        """Return what the loss compares with."""

    def loss(self, predicted: torch.Tensor, targets: Any) -> torch.Tensor:
        """Sum over clips of the loss; no clip, no loss."""

    def new_figures(self) -> Any:
        """Return empty figures, which predictions and targets are added to."""

    def objective(self, figures: Any) -> float:
        """Return the mean loss of the clips that figures have seen."""

    def report(self, figures: Any) -> dict[str, Any]:
        """Return figures for the log; ``clips`` is their number."""

    def headline(self, report: dict[str, Any]) -> str:
        """Return a report in half a line."""

    def table(self, report: dict[str, Any]) -> str:
        """Return a report as a Markdown table."""
