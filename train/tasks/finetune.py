"""Classification of clips by a network that was pre-trained, or was not (paper, Sec. 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from train.data.loader import Batch
from train.metrics import NO_CLASS, TOP, ClassStats
from train.models.heads import ClassifierNet
from train.models.registry import make_backbone
from train.recipe import FinetuneRecipe


class Finetuning:
    """What is learnt from clips and their classes; the same on every rank.

    Parameters
    ----------
    recipe : FinetuneRecipe
    classes : sequence of str
    device : torch.device
    backbone : dict of tensors, optional
        Weights that the backbone begins from; without them it begins from those of the recipe.

    Attributes
    ----------
    net : ClassifierNet
        On the device; its new layers are those that the recipe's seed gives.
    """

    explanation = (
        "top1, top5: share of clips whose class is the likeliest, or one of the five likeliest; "
        "chance: the best constant guess"
    )
    next_command = "train evaluate {run} --labels SHARDS"

    def __init__(
        self,
        recipe: FinetuneRecipe,
        *,
        classes: Sequence[str],
        device: torch.device,
        backbone: dict[str, torch.Tensor] | None = None,
    ) -> None:
        self._device, self._classes = device, list(classes)
        torch.manual_seed(recipe.seed)
        self.net = ClassifierNet(
            len(classes), backbone=make_backbone(**recipe.network()), init=recipe.init,
            width=recipe.width, dropout=recipe.dropout, freeze=recipe.freeze,
        )  # fmt: skip
        if backbone is not None:
            self.net.backbone.load_state_dict(backbone)
        self.net.to(device)

    def targets(self, batch: Batch) -> torch.Tensor:
        """Return the class of each sample, (B,) int64, from 0."""
        return batch.answers[:, 0]

    def loss(self, predicted: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sum over clips of the cross-entropy in nats, from (B, C) logits; no clip, no loss."""
        return cross_entropy(predicted, targets, ignore_index=NO_CLASS, reduction="sum")

    def new_figures(self) -> ClassStats:
        """Return empty figures, which logits and classes are added to."""
        return ClassStats(len(self._classes), device=self._device)

    def objective(self, figures: ClassStats) -> float:
        """Return the mean loss of the clips that figures have seen."""
        return figures.loss()

    def report(self, figures: ClassStats) -> dict[str, Any]:
        """Return figures over all clips and per class, as `ClassStats.report`."""
        return figures.report(self._classes)

    def headline(self, report: dict[str, Any]) -> str:
        """Return a report in half a line."""
        return f"loss {report['loss']:.3f}" + "".join(
            f" top{k} {report[f'top{k}']:.3f} (chance {report[f'chance{k}']:.3f})"
            for k in TOP
            if k < len(self._classes)
        )

    def table(self, report: dict[str, Any]) -> str:
        """Return accuracy per class as a Markdown table."""
        rows = ["| class | clips | top1 |", "| --- | --- | --- |"]
        for name, values in report["classes"].items():
            share = "-" if values["top1"] is None else f"{values['top1']:.3f}"
            rows.append(f"| {name} | {values['clips']} | {share} |")
        rows.append(f"| all | {report['clips']} | {report['top1']:.3f} |")
        return "\n".join(rows)
