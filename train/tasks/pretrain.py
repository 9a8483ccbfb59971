"""Learning the 27 labels (paper, Sec. 3.4): network, loss, figures, and words for them."""

from __future__ import annotations

from typing import Any

import torch

from labelgen import LABELS
from train import TrainError
from train.data.loader import Batch
from train.metrics import LabelStats, Reading
from train.models.heads import StatisticsNet
from train.models.registry import make_backbone
from train.recipe import PretrainRecipe, task_columns
from train.tasks.losses import Targets, make_loss
from train.values import distances

_OF_NUMBERS = (
    "ev: 1 - squared error / that of the clips' own mean; skill: 1 - squared error / that of "
    "the training clips' mean; 0 is a constant, 1 is perfect"
)
_OF_VALUES = (
    "accuracy of labels by kind, mean over the labels of a kind; in brackets that of always saying "
    "what is most frequent among the training clips"
)


class Pretraining:
    """What is learnt from clips and labels; the same on every rank.

    Parameters
    ----------
    recipe : PretrainRecipe
    known : dict of tensors
        Of the training labels: ``moments`` (2, 27) float32, mean and standard deviation; and
        ``counts`` (27, 17), how often each has each value from 0.
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

    next_command = (
        "train finetune --init {run} --labels SHARDS, train export {run} -o backbone.safetensors"
    )

    def __init__(
        self, recipe: PretrainRecipe, *, known: dict[str, torch.Tensor], device: torch.device
    ) -> None:
        self._recipe, self._device = recipe, device
        self.explanation = _OF_NUMBERS if recipe.loss == "mse" else _OF_VALUES
        self._columns = task_columns(recipe.tasks)
        self._weights = {name: getattr(recipe, f"{name}_weight") for name in self._columns}
        if not any(self._weights.values()):
            options = " and ".join(f"--{name}-weight" for name in self._weights)
            raise TrainError(f"With {options} 0 there is nothing to learn.")
        self._chosen = [column for columns in self._columns.values() for column in columns]
        self._training_mean, std = known["moments"][:, self._chosen].to(device)
        self._training = known["counts"][self._chosen]
        self._loss = make_loss(recipe.loss, list(self._columns.values()), device=device)
        self.net = self._network().to(device)
        if recipe.loss == "mse" and recipe.targets == "standard":
            self.net.mean.copy_(self._training_mean)
            self.net.std.copy_(std)

    def _network(self) -> StatisticsNet:
        r = self._recipe
        torch.manual_seed(r.seed)
        backbone = make_backbone(**r.network())
        outputs = dict(zip(self._columns, self._loss.outputs, strict=True))
        return StatisticsNet(outputs, backbone=backbone, init=r.init, width=r.width)

    def targets(self, batch: Batch) -> Targets:
        """Return the labels that are learnt, and what the loss compares with."""
        return self._loss.targets(batch)

    def loss(self, predicted: torch.Tensor, targets: Targets) -> torch.Tensor:
        """Sum over clips of the loss; no clip, no loss."""
        return self._weighted(self._loss.losses(predicted, targets).sum(0))

    def _weighted(self, losses: torch.Tensor) -> torch.Tensor:
        """Weighted sum over branches of the mean over labels of losses (C,)."""
        if self._recipe.loss == "mse":
            losses = losses / self.net.std**2  # in target units
        total, first = torch.zeros((), device=losses.device), 0
        for branch, columns in self._columns.items():
            total = total + self._weights[branch] * losses[first : first + len(columns)].mean()
            first += len(columns)
        return total

    def new_figures(self) -> LabelStats:
        """Return empty figures, which predictions and targets are added to."""
        return LabelStats(
            [LABELS[column].name for column in self._chosen], distances=distances(self._chosen),
            judge=self._judge, device=self._device,
        )  # fmt: skip

    def _judge(
        self, predicted: torch.Tensor, targets: Targets
    ) -> tuple[torch.Tensor, torch.Tensor, Reading]:
        losses = self._loss.losses(predicted, targets)
        return targets.labels, losses, self._loss.read(predicted, targets)

    def objective(self, figures: LabelStats) -> float:
        """Return the mean loss of the clips that figures have seen."""
        return float(self._weighted(figures.losses()))

    def report(self, figures: LabelStats) -> dict[str, Any]:
        """Return figures per branch, kind and label, as `LabelStats.report`."""
        return figures.report(self._training_mean, self._training)

    def headline(self, report: dict[str, Any]) -> str:
        """Return a report in half a line: figures of each branch, or of each kind of label."""
        if self._recipe.loss != "mse":
            return ", ".join(
                f"{kind.replace(':', '')} {values['accuracy']:.3f} ({values['prior_accuracy']:.3f})"
                for kind, values in report["kinds"].items()
            )
        return ", ".join(
            f"{branch} mse {values['mse']:.3f} ev {_signed(values['explained_variance'])} "
            f"skill {_signed(values['skill'])}"
            for branch, values in report["branches"].items()
        )

    def table(self, report: dict[str, Any]) -> str:
        """Return figures per label, and means per kind, as a Markdown table."""
        rows = [f"| label | {' | '.join(_COLUMNS)} |", "| --- " * (1 + len(_COLUMNS)) + "|"]
        for name, values in (report["labels"] | report["kinds"]).items():
            cells = [_cell(figure, values[figure]) for figure in _COLUMNS.values()]
            rows.append(f"| {name} | {' | '.join(cells)} |")
        return "\n".join(rows)


_COLUMNS = {
    "mse": "mse", "explained variance": "explained_variance", "skill": "skill",
    "accuracy": "accuracy", "chance": "chance", "prior": "prior_accuracy",
    "information": "information", "distance": "distance", "prior's distance": "prior_distance",
}  # fmt: skip
_ABOUT_NOTHING = ("explained_variance", "skill", "information")


def _cell(figure: str, value: float | None) -> str:
    if value is None:
        return "-"
    return _signed(value) if figure in _ABOUT_NOTHING else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"
