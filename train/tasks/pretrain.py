"""Regression of the 27 labels (paper, Sec. 3.4): network, targets, loss and figures."""

from __future__ import annotations

from typing import Any

import torch

from labelgen import LABELS
from train import TrainError
from train.metrics import NO_LABEL, LabelStats
from train.models.heads import StatisticsNet
from train.models.registry import make_backbone
from train.recipe import PretrainRecipe, task_columns


class Pretraining:
    """What is learnt from clips and labels; the same on every rank.

    Parameters
    ----------
    recipe : PretrainRecipe
    moments : (2, 27) float32
        Mean and standard deviation of the training labels.
    device : torch.device

    Raises
    ------
    TrainError
        No such tasks, or none of any weight.

    Attributes
    ----------
    net : StatisticsNet
        On the device, with the initial weights that the recipe's seed gives.
    """

    explanation = (
        "ev: 1 - squared error / that of the clips' own mean; skill: 1 - squared error / that of "
        "the training clips' mean; 0 is a constant, 1 is perfect"
    )
    next_command = (
        "train finetune --init {run} --labels SHARDS, train export {run} -o backbone.safetensors"
    )

    def __init__(
        self, recipe: PretrainRecipe, *, moments: torch.Tensor, device: torch.device
    ) -> None:
        self._recipe, self._device = recipe, device
        self._columns = task_columns(recipe.tasks)
        self._weights = {name: getattr(recipe, f"{name}_weight") for name in self._columns}
        if not any(self._weights.values()):
            options = " and ".join(f"--{name}-weight" for name in self._weights)
            raise TrainError(f"With {options} 0 there is nothing to learn.")
        chosen = [column for columns in self._columns.values() for column in columns]
        self._chosen = torch.tensor(chosen, device=device)
        self._training_mean, std = moments[:, chosen]
        self.net = self._network().to(device)
        if recipe.targets == "standard":
            self.net.mean.copy_(self._training_mean)
            self.net.std.copy_(std)

    def _network(self) -> StatisticsNet:
        r = self._recipe
        torch.manual_seed(r.seed)
        backbone = make_backbone(**r.network())
        outputs = {branch: len(columns) for branch, columns in self._columns.items()}
        return StatisticsNet(outputs, backbone=backbone, init=r.init, width=r.width)

    def targets(self, answers: torch.Tensor) -> torch.Tensor:
        """(B, 27) uint8 -> (B, C) float32: the labels that are learnt."""
        return answers[:, self._chosen].float()

    def loss(self, predicted: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sum over clips of the loss, from two (B, C) in label units; no clip, no loss."""
        there = targets != NO_LABEL
        return self._weighted(((predicted - targets) ** 2 * there).sum(0))

    def _weighted(self, squares: torch.Tensor) -> torch.Tensor:
        """Weighted sum over branches of the mean of squared errors (C,), in target units."""
        squares = squares / self.net.std**2
        total, first = torch.zeros((), device=squares.device), 0
        for branch, columns in self._columns.items():
            total = total + self._weights[branch] * squares[first : first + len(columns)].mean()
            first += len(columns)
        return total

    def new_figures(self) -> LabelStats:
        """Return empty figures, which predictions and targets are added to."""
        names, cardinality = zip(*(LABELS[column] for column in self._chosen), strict=True)
        return LabelStats(names, cardinality, device=self._device)

    def objective(self, figures: LabelStats) -> float:
        """Return the mean loss of the clips that figures have seen."""
        return float(self._weighted(figures.mse()))

    def report(self, figures: LabelStats) -> dict[str, Any]:
        """Return figures per branch and label, as `LabelStats.report`."""
        return figures.report(self._training_mean)

    def headline(self, report: dict[str, Any]) -> str:
        """Return a report in half a line: figures of each branch."""
        return ", ".join(
            f"{branch} mse {values['mse']:.3f} ev {_signed(values['explained_variance'])} "
            f"skill {_signed(values['skill'])}"
            for branch, values in report["branches"].items()
        )

    def table(self, report: dict[str, Any]) -> str:
        """Return figures per label as a Markdown table."""
        rows = [
            "| label | mse | explained variance | skill | accuracy | chance |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for name, v in report["labels"].items():
            rows.append(
                f"| {name} | {v['mse']:.3f} | {_signed(v['explained_variance'])} "
                f"| {_signed(v['skill'])} | {v['accuracy']:.3f} | {v['chance']:.3f} |"
            )
        return "\n".join(rows)


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"
