"""The frozen settings of a run: the paper's recipes (Sec. 4.1) and what they leave open.

"Paper" is Wang et al., CVPR 2019; "release" is its authors' published code. A recipe decides what
is learnt; what only decides how fast (device, workers, precision) stands in `train.device`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from train import TrainError

BRANCHES = ("motion", "appearance")
PIXELS = {"raw": (0.0, 1.0), "unit": (0.0, 255.0), "centred": (127.5, 63.75)}
"""Name -> (shift, scale), x = (pixel - shift) / scale. The paper is silent, the release is raw."""
INITS = ("release", "kaiming")
TARGETS = ("raw", "standard")
_MOST = {"width": 8, "lr": 1e6, "seed": 2**63}
_NOT_NEGATIVE = (
    *("momentum", "weight_decay", "bias_lr", "motion_weight", "appearance_weight"),
    *("clip_grad", "drop_still", "seed"),
)
STILL = 0.05
"""`--drop-still` without a value: the motion energy below which a clip counts as still."""


@dataclass(frozen=True)
class Recipe:
    """What is learnt, and how. Each default is the paper's, or the release's where it is silent."""

    batch: int = 30  # samples per optimizer step, over all ranks and accumulated parts (paper)
    views: int = 1  # samples cut from each clip that a step reads (paper and release: 1)
    epochs: int = 20  # (paper)
    lr: float = 0.001  # (paper)
    lr_every: int = 5  # epochs between divisions of the rate by 10 (paper)
    momentum: float = 0.9  # (release)
    weight_decay: float = 0.005  # on fully connected weights only (release)
    bias_lr: float = 2.0  # biases learn at this multiple of the rate (release)
    tasks: tuple[str, ...] = BRANCHES  # label name prefixes (paper: all 27, and its ablations)
    motion_weight: float = 1.0  # of the branch's mean squared error in the loss (paper: silent)
    appearance_weight: float = 1.0
    batch_norm: bool = False  # (paper: none)
    init: str = "release"  # of weights; "kaiming" is the other (release)
    width: float = 1.0  # share of the paper's filters and hidden units
    pixels: str = "raw"  # key of PIXELS (release)
    targets: str = "raw"  # "raw": the 1-based labels (paper); "standard": zero mean, unit variance
    clip_grad: float = 0.0  # largest norm of a step's gradient; 0 takes any (neither has one)
    drop_still: float = 0.0  # leave out clips of less motion energy; 0 keeps all (paper: silent)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch", "views", "epochs", "lr_every", "lr", "width"):
            if not 0 < getattr(self, name) <= _MOST.get(name, math.inf):
                most = f" and at most {_MOST[name]}" if name in _MOST else ""
                raise TrainError(f"{_flag(name)} must be above 0{most}, not {getattr(self, name)}.")
        for name in _NOT_NEGATIVE:
            if not 0 <= getattr(self, name) < _MOST.get(name, math.inf):
                raise TrainError(
                    f"{_flag(name)} must be a number from 0 on, not {getattr(self, name)}."
                )
        if self.batch % self.views:
            raise TrainError(f"--batch {self.batch} must be a multiple of --views {self.views}.")
        if self.pixels not in PIXELS:
            raise TrainError(f"pixels must be one of {', '.join(PIXELS)}, not {self.pixels!r}.")
        if self.init not in INITS:
            raise TrainError(f"init must be one of {', '.join(INITS)}, not {self.init!r}.")
        if self.targets not in TARGETS:
            raise TrainError(f"targets must be one of {', '.join(TARGETS)}, not {self.targets!r}.")

    def rate(self, epoch: int) -> float:
        """Learning rate of a 0-based epoch: divided by 10 every `lr_every` epochs."""
        return self.lr * 0.1 ** (epoch // self.lr_every)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and checkpoints."""
        return {**dataclasses.asdict(self), "tasks": list(self.tasks)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Inverse of `as_dict`."""
        return cls(**{**values, "tasks": tuple(values["tasks"])})


RECIPES = {
    "ucf101": Recipe(),
    "kinetics": Recipe(lr=0.0005, lr_every=7),
    "small": Recipe(
        batch=8,
        epochs=9,
        lr=0.01,
        lr_every=6,
        batch_norm=True,
        init="kaiming",
        width=0.5,
        pixels="centred",
        targets="standard",
    ),
}
"""The two schedules of the paper (Sec. 4.1), and one for some hundred clips and a CPU.

The paper's is made for 3,568 steps an epoch; ``small`` for a hundred. Batch norm, Kaiming weights,
scaled pixels and standardised targets bear a rate ten times the paper's, small batches make more
steps of few clips, and half the filters and hidden units cost a quarter of the time.
"""


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


def _flag(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _under(prefix: str, name: str) -> bool:
    return name == prefix or name.startswith(prefix.rstrip("/") + "/")
