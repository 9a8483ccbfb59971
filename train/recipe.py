"""The frozen settings of a run: the paper's recipes (Sec. 4.1) and what they leave open.

"Paper" is Wang et al., CVPR 2019; "release" is its authors' published code. A recipe decides what
is learnt; what only decides how fast (device, workers, precision) stands in `train.device`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from train import TrainError

BRANCHES = ("motion", "appearance")
BACKBONES = ("c3d", "c3d-bn8", "r3d", "r2plus1d", "r3d-18", "r2plus1d-18")
"""The paper's, the three of the authors' joint release, and two with 18 layers."""
PIXELS: dict[str, tuple[Any, Any]] = {
    "raw": (0.0, 1.0),
    "unit": (0.0, 255.0),
    "centred": (127.5, 63.75),
    "kinetics": ((110.2008, 100.63983, 95.99475), (58.14765, 56.46975, 55.332195)),
    "mean": ((104.0, 117.0, 128.0), 1.0),
}
"""Name -> (shift, scale), numbers or one per channel (RGB): x = (pixel - shift) / scale.

The paper is silent, the release is raw. ``kinetics`` is what torchvision's Kinetics weights were
trained with, ``mean`` what MMAction2 takes in place of C3D's mean volume.
"""
LOSSES = ("mse", "ce", "ce-soft", "statistics")
SCHEDULES = ("step", "one-cycle")
_RISE = 0.3  # share of all steps in which the rate of one cycle rises
INITS = ("release", "kaiming", "c3d")
TARGETS = ("raw", "standard")
DECAYS = ("linear", "all")
SCRATCH = "scratch"
"""In place of weights to begin from: none."""
_CHOICES = {
    "backbone": BACKBONES, "pixels": tuple(PIXELS), "init": INITS, "targets": TARGETS,
    "decay": DECAYS, "loss": LOSSES, "schedule": SCHEDULES,
}  # fmt: skip
_READ_WITH = {"lr_every": ("schedule", "step"), "targets": ("loss", "mse")}
_MOST = {"width": 8, "lr": 1e6, "seed": 2**63, "dropout": 1}
_POSITIVE = ("batch", "views", "epochs", "lr_every", "lr", "width")
_NOT_NEGATIVE = (
    *("momentum", "weight_decay", "bias_lr", "motion_weight", "appearance_weight"),
    *("clip_grad", "drop_still", "dropout", "seed"),
)
STILL = 0.05
"""`--drop-still` without a value: the motion energy below which a clip counts as still."""

AnyRecipe = TypeVar("AnyRecipe", bound="Recipe")


@dataclass(frozen=True)
class Recipe:
    """What every task shares. Each default is the paper's, or the release's where it is silent."""

    task: ClassVar[str] = ""

    batch: int = 30  # samples per optimizer step, over all ranks and accumulated parts (paper)
    views: int = 1  # samples cut from each clip that a step reads (paper and release: 1)
    epochs: int = 20  # (paper)
    lr: float = 0.001  # (paper)
    schedule: str = "step"  # of the rate: "step" (paper), or "one-cycle"
    lr_every: int = 5  # of "step": epochs between divisions of the rate by 10 (paper)
    momentum: float = 0.9  # (release)
    weight_decay: float = 0.005  # (release)
    decay: str = "linear"  # weights that decay: fully connected ones, or convolutions too (release)
    bias_lr: float = 2.0  # biases learn at this multiple of the rate (release)
    backbone: str = "c3d"  # key of BACKBONES (paper)
    batch_norm: bool = False  # of c3d; the other backbones always have it (paper: none)
    init: str = "release"  # of weights: "release", "kaiming", or "c3d", of Tran et al.'s own code
    width: float = 1.0  # share of the paper's filters and hidden units
    pixels: str = "raw"  # key of PIXELS (release)
    clip_grad: float = 0.0  # largest norm of a step's gradient; 0 takes any (neither has one)
    drop_still: float = 0.0  # leave out clips of less motion energy; 0 keeps all (paper: silent)
    seed: int = 0

    def __post_init__(self) -> None:
        values = vars(self)
        for name in _POSITIVE:
            if not 0 < values[name] <= _MOST.get(name, math.inf):
                most = f" and at most {_MOST[name]}" if name in _MOST else ""
                raise TrainError(f"{_flag(name)} must be above 0{most}, not {values[name]}.")
        for name in filter(values.__contains__, _NOT_NEGATIVE):
            if not 0 <= values[name] < _MOST.get(name, math.inf):
                below = f" to below {_MOST[name]}" if name in _MOST else " on"
                raise TrainError(
                    f"{_flag(name)} must be a number from 0{below}, not {values[name]}."
                )
        if self.batch % self.views:
            raise TrainError(f"--batch {self.batch} must be a multiple of --views {self.views}.")
        for name in filter(values.__contains__, _CHOICES):
            if values[name] not in _CHOICES[name]:
                known = ", ".join(_CHOICES[name])
                raise TrainError(f"{name} must be one of {known}, not {values[name]!r}.")

    def rate(self, epochs: float) -> float:
        """Learning rate after so many epochs, parts of one included.

        ``step`` divides it by 10 every `lr_every` epochs. ``one-cycle`` (Smith and Topin 2019)
        rises from a 25th of the rate to it, and then falls to a 10,000th of it, each along half a
        cosine.
        """
        if self.schedule == "step":
            return self.lr * 0.1 ** (int(epochs) // self.lr_every)
        done = epochs / self.epochs
        if done < _RISE:
            return _cosine(self.lr / 25, self.lr, done / _RISE)
        return _cosine(self.lr, self.lr / 1e4, (done - _RISE) / (1 - _RISE))

    def network(self) -> dict[str, Any]:
        """Return what decides the shape and the input of the backbone, for `make_backbone`."""
        return {
            "name": self.backbone,
            "batch_norm": self.batch_norm or self.backbone != "c3d",
            "pixels": self.pixels,
            "width": self.width,
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and checkpoints."""
        values = dataclasses.asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls: type[AnyRecipe], values: dict[str, Any]) -> AnyRecipe:
        """Inverse of `as_dict`; what an older program did not know is as it was then."""
        given: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in values.items()
        }
        return cls(**given)


@dataclass(frozen=True)
class PretrainRecipe(Recipe):
    """Learning the 27 labels, by regression (paper, Sec. 3.4) or another loss."""

    task: ClassVar[str] = "pretrain"

    loss: str = "mse"  # key of LOSSES (paper: the mean squared error of the 27 numbers)
    tasks: tuple[str, ...] = BRANCHES  # label name prefixes (paper: all 27, and its ablations)
    motion_weight: float = 1.0  # of the branch in the loss (paper: silent)
    appearance_weight: float = 1.0
    targets: str = "raw"  # "raw": the 1-based labels (paper); "standard": zero mean, unit variance

    def __post_init__(self) -> None:
        super().__post_init__()
        # Order, repetition and a slash at the end make no other recipe.
        names = {task.strip("/") for task in self.tasks}
        ordered = sorted(names, key=lambda name: (name.split("/")[0] != BRANCHES[0], name))
        object.__setattr__(self, "tasks", tuple(ordered))


@dataclass(frozen=True)
class FinetuneRecipe(Recipe):
    """Classification of clips (paper, Sec. 4.1): convolutions kept, fully connected layers new."""

    task: ClassVar[str] = "finetune"

    dropout: float = 0.5  # after each hidden layer (paper: silent; Tran et al.: .5)
    freeze: bool = False  # learn one linear layer on pool5 and nothing else


_SMALL: dict[str, Any] = {
    "batch": 8, "epochs": 9, "lr": 0.01, "lr_every": 6, "batch_norm": True, "init": "kaiming",
    "width": 0.5, "pixels": "centred",
}  # fmt: skip

RECIPES = {
    "ucf101": PretrainRecipe(),
    "kinetics": PretrainRecipe(lr=0.0005, lr_every=7),
    "small": PretrainRecipe(**{**_SMALL, "lr": 0.02, "schedule": "one-cycle"}, targets="standard"),
}
"""The two schedules of the paper (Sec. 4.1), and one for some hundred clips and a CPU.

The paper's is made for 3,568 steps an epoch; ``small`` for a hundred. Batch norm, Kaiming weights,
scaled pixels and standardised targets bear a rate twenty times the paper's, small batches make more
steps of few clips, and half the filters and hidden units cost a quarter of the time.
"""

FINETUNE_RECIPES = {
    "paper": FinetuneRecipe(),
    "c3d-ucf101": FinetuneRecipe(
        epochs=17, lr=0.003, lr_every=6, decay="all", init="c3d", pixels="mean"
    ),
    "small": FinetuneRecipe(**_SMALL),
}
"""The paper's schedule; that of C3D's authors for UCF101 from scratch; one for small sets.

``c3d-ucf101`` is facebookarchive/C3D, examples/c3d_train_ucf101: the rate divided by 10 every
20,000 of 60,000 steps, which are 5.6 and 16.8 passes over the clips of UCF101's first list.
"""


def overridden(named: AnyRecipe, given: dict[str, Any]) -> AnyRecipe:
    """Return a named recipe with some of its fields given.

    Raises
    ------
    TrainError
        A value is out of range, or is one that nothing would read.
    """
    recipe = dataclasses.replace(named, **given)
    for name in filter(given.__contains__, _READ_WITH):
        field, value = _READ_WITH[name]
        if getattr(recipe, field) != value:
            raise TrainError(
                f"{_flag(name)} has no effect with {_flag(field)} {getattr(recipe, field)}: leave "
                f"it out, or give {_flag(field)} {value}."
            )
    return recipe


def task_columns(tasks: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Columns of the labels that each branch learns.

    Parameters
    ----------
    tasks : tuple of str
        Whole name parts from the left: ``motion``, ``motion/grid``, ``appearance/global/color``.

    Returns
    -------
    dict of str to tuple of int
        Branch -> 0-based columns in the order of `labelgen.LABELS`; branches with none are absent.

    Raises
    ------
    TrainError
        A task fits no label name.
    """
    from labelgen import LABELS

    names = [label.name for label in LABELS]
    for task in tasks:
        if not any(_under(task, name) for name in names):
            known = sorted({name.rsplit("/", depth)[0] for name in names for depth in (1, 2)})
            raise TrainError(f"Unknown task {task!r}; choose from {', '.join(known)}.")
    columns = {
        branch: tuple(
            column
            for column, name in enumerate(names)
            if _under(branch, name) and any(_under(task, name) for task in tasks)
        )
        for branch in BRANCHES
    }
    return {branch: chosen for branch, chosen in columns.items() if chosen}


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _flag(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _under(prefix: str, name: str) -> bool:
    return name == prefix or name.startswith(prefix.rstrip("/") + "/")
