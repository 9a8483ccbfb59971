"""What one run is about: what is read, what is learnt of it, and what checkpoints keep of that."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from train import TrainError
from train.data.answers import Answers, ClassAnswers, LabelAnswers
from train.data.classes import checked_classes, videos_of
from train.data.shards import ShardSet
from train.data.split import Data, label_knowledge, open_data
from train.models.weights import Weights, read_weights
from train.recipe import SCRATCH, FinetuneRecipe, PretrainRecipe, Recipe, task_columns
from train.tasks.finetune import Finetuning
from train.tasks.losses import fields_of
from train.tasks.pretrain import Pretraining
from train.tasks.task import Task


class Job(ABC):
    """What the loop needs to know of one kind of run.

    Attributes
    ----------
    labels, val : str
        Shards, or for `val` a fraction of the videos of `labels`, as in `open_data`.
    recipe : Recipe
    group_by : str or None
        As in `open_data`.
    """

    labels: str
    val: str
    recipe: Recipe
    group_by: str | None
    labelled: bool
    """Whether the 27 labels are needed."""
    least = 1
    """Samples that each part of a batch needs."""

    def open_data(self) -> Data:
        """Open and check the shards; done on every rank."""
        return open_data(
            self.labels, self.val, recipe=self.recipe, group_by=self.group_by,
            labelled=self.labelled,
        )  # fmt: skip

    def record(self, data: Data) -> dict[str, str]:
        """Return what decides what can be learnt, beside the recipe, to compare runs by."""
        return data.record()

    @abstractmethod
    def prepare(self, data: Data) -> dict[str, Any]:
        """Return what the task must know of the data, for checkpoints to keep; done once."""

    @abstractmethod
    def task(self, prepared: dict[str, Any], device: torch.device) -> Task:
        """Return the task, with its network on the device."""

    @abstractmethod
    def answers(self, data: Data, prepared: dict[str, Any]) -> tuple[Answers, Answers | None]:
        """Return what is asked about training and held-out clips."""


@dataclass(frozen=True)
class PretrainJob(Job):
    """Learning the 27 labels; a checkpoint keeps what was known of them beforehand."""

    labels: str
    val: str
    recipe: PretrainRecipe
    group_by: str | None = None
    labelled = True

    def prepare(self, data: Data) -> dict[str, Any]:
        """Return moments and counts of the training labels, see `label_knowledge`.

        Raises
        ------
        TrainError
            More views are asked for than there are, or nothing moves and motion is to be shared.
        """
        crops = len(data.train.crops)
        if self.recipe.views > 2 * crops:
            raise TrainError(
                f"--views {self.recipe.views}: these shards have {crops} crops, so only "
                f"{2 * crops} views of a clip."
            )
        if _asked(self.recipe) and not data.train.motion_energy()[data.train_clips].any():
            raise TrainError(
                f"Nothing moves in the clips of {self.labels}, and --loss statistics learns how "
                "motion is shared; choose another loss, or --tasks appearance."
            )
        return dict(label_knowledge(data))

    def task(self, prepared: dict[str, Any], device: torch.device) -> Task:
        """Return the learning of labels."""
        return Pretraining(self.recipe, known=prepared, device=device)

    def answers(self, data: Data, prepared: dict[str, Any]) -> tuple[Answers, Answers | None]:
        """Return labels of crops."""
        held = data.held or data.train
        fields = fields_in(data.train, self.recipe, location=self.labels)
        if "flow" in set(fields).difference(fields_in(held, self.recipe, location=self.val)):
            raise TrainError(
                f"{self.val} holds no flow, and {self.labels} does, by which --loss statistics "
                "learns frames; extract both with --store-flow, or none."
            )
        asked_of_held = LabelAnswers(data.held, fields=fields) if data.held else None
        return LabelAnswers(data.train, fields=fields), asked_of_held


def fields_in(shards: ShardSet, recipe: PretrainRecipe, *, location: str) -> tuple[str, ...]:
    """Return which datasets, beside labels and frames, a recipe's loss reads of shards.

    Raises
    ------
    TrainError
        There is none of what it needs, or the labels are not by the paper's rules; `location` says
        where.
    """
    asked = _asked(recipe)
    if "motion_boundaries" in asked and "motion_boundaries" not in shards.fields:
        raise TrainError(
            f"{location} has no motion boundaries (extracted with --no-boundaries?), which "
            "--loss statistics needs."
        )
    if recipe.loss == "statistics" and shards.profile != "paper":
        raise TrainError(
            f"{location} holds labels of profile {shards.profile}, and --loss statistics is "
            "of the paper's rules; choose another loss."
        )
    return tuple(name for name in asked if name in shards.fields)


def _asked(recipe: PretrainRecipe) -> tuple[str, ...]:
    return fields_of(recipe.loss, list(task_columns(recipe.tasks).values()))


@dataclass(frozen=True)
class FinetuneJob(Job):
    """Classification of clips; a checkpoint keeps the names of the classes.

    Parameters
    ----------
    source : str
        What the backbone begins from: a run, a checkpoint, an exported file, or ``scratch``. The
        recipe must be of the same network, see `like_source`.
    """

    labels: str
    val: str
    recipe: FinetuneRecipe
    source: str = SCRATCH
    group_by: str | None = None
    labelled = False

    @property
    def least(self) -> int:  # type: ignore[override]
        """Samples that each part of a batch needs: what is standardised over one is nothing."""
        return 2 if self.recipe.freeze else 1

    @cached_property
    def _weights(self) -> Weights | None:
        return None if self.source == SCRATCH else read_weights(self.source)

    def record(self, data: Data) -> dict[str, str]:
        """Return the same, and a hash of the weights it begins from."""
        return {
            **super().record(data),
            "weights": self._weights.digest() if self._weights else SCRATCH,
        }

    def prepare(self, data: Data) -> dict[str, Any]:
        """Return the classes, in the order of their numbers."""
        videos = videos_of(data.train)
        classes = checked_classes(videos, self.labels)
        learnt = videos.numbers(classes)[videos.of_clip[data.train_clips]]
        unseen = sorted(set(range(len(classes))).difference(learnt.tolist()))
        if unseen:
            print(
                f"{len(unseen)} of {len(classes)} classes have no clip to train on (first: "
                f"{classes[unseen[0]]})",
                file=sys.stderr,
            )
        if data.held is not None and data.held is not data.train:
            unknown = set(checked_classes(videos_of(data.held), self.val)).difference(classes)
            if unknown:
                raise TrainError(
                    f"{self.val} holds classes that {self.labels} does not (first: {min(unknown)})."
                )
        return {"classes": list(classes)}

    def task(self, prepared: dict[str, Any], device: torch.device) -> Task:
        """Return the classification."""
        backbone = self._weights.backbone if self._weights else None
        return Finetuning(
            self.recipe, classes=prepared["classes"], device=device, backbone=backbone
        )

    def answers(self, data: Data, prepared: dict[str, Any]) -> tuple[Answers, Answers | None]:
        """Return classes of videos."""
        known = {shards: _classes(shards, prepared) for shards in (data.train, data.held) if shards}
        return known[data.train], known[data.held] if data.held else None


def _classes(shards: ShardSet, prepared: dict[str, Any]) -> ClassAnswers:
    videos = videos_of(shards)
    return ClassAnswers(shards, videos.numbers(prepared["classes"])[videos.of_clip])


def like_source(recipe: FinetuneRecipe, source: str, *, given: dict[str, Any]) -> FinetuneRecipe:
    """Return the recipe for the network of the weights that it shall begin from.

    Parameters
    ----------
    recipe : FinetuneRecipe
    source : str
        As in `FinetuneJob`.
    given : dict
        Fields that the user asked for, None where not.

    Raises
    ------
    TrainError
        What was asked for is another network, or there are no such weights.
    """
    if source == SCRATCH:
        return recipe
    theirs = read_weights(source).recipe
    network = {
        name: getattr(theirs, name) for name in ("backbone", "batch_norm", "pixels", "width")
    }
    # Some backbones have batch norm whatever their recipe says.
    for name, value in (network | {"batch_norm": theirs.network()["batch_norm"]}).items():
        asked = given.get(name)
        if asked not in (None, value):
            flag = f"--{'no-' * (asked is False)}{name.replace('_', '-')}"
            wish = flag if isinstance(asked, bool) else f"{flag} {asked}"
            raise TrainError(f"{source} has {name} {value}, unlike {wish}; leave the option away.")
    return replace(recipe, **network)
