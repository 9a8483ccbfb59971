"""Checkpoints: written whole or not at all, read without running any code in them.

A checkpoint holds tensors, numbers and strings only, so ``torch.load(weights_only=True)`` reads
it. It needs no random state: dropout is a function of (seed, epoch, step, rank), and every choice
of the loader one of (seed, epoch, clip).
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from labelgen.files import replacing
from train import TrainError
from train.recipe import PretrainRecipe, Recipe

FORMAT = "motion-appearance-checkpoint"
FORMAT_VERSION = 2
_KEYS = {"model", "optimizer", "sums", "progress", "recipe", "labels"}


@dataclass
class Progress:
    """How far a run is: what a resumed run must know beside weights and optimizer."""

    epoch: int = 0  # of the next step, 0-based
    step: int = 0  # in that epoch
    best: float = float("inf")  # lowest held-out loss yet
    history: str = "[]"  # JSON, one record per finished epoch


def save(
    path: Path,
    *,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    sums: torch.Tensor,
    prepared: dict[str, Any],
    progress: Progress,
    recipe: Recipe,
    labels: dict[str, str],
) -> None:
    """Write a checkpoint beside its final name, then rename it: a crash leaves the old one whole.

    Parameters
    ----------
    sums : tensor
        Training statistics of the unfinished epoch, over all ranks.
    prepared : dict
        What the task must know of its data: ``moments`` and ``counts`` of labels, or names of
        ``classes``.
    labels : dict of str
        Which labels it was trained on: hashes, profile, flow and the held-out choice.

    Raises
    ------
    TrainError
        It cannot be written.
    """
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "sums": sums.cpu(),
        "task": recipe.task,
        **prepared,
        "progress": dict(vars(progress)),
        "recipe": recipe.as_dict(),
        "labels": labels,
    }
    # In memory first: torch tells of a full disk by an error of its own.
    image = io.BytesIO()
    torch.save(content, image)
    try:
        with replacing(path) as partial:
            partial.write_bytes(image.getbuffer())
    except OSError as error:
        raise TrainError(
            f"{path} cannot be written ({error.strerror or error}); see to it, and run the same "
            "command again to go on from the last checkpoint."
        ) from None


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises
    ------
    TrainError
        The file is absent, damaged, or not a checkpoint of this trainer.
    """
    if not path.is_file():
        repeated = sorted(path.parent.glob("seed-*"))
        below = f" below {path.parent}, such as {repeated[0].name}" if repeated else ""
        raise TrainError(f"There is no checkpoint {path}; give the folder of a run{below}.")
    try:
        with zipfile.ZipFile(path) as archive:
            spoilt = archive.testzip()  # torch looks at no checksum
        if spoilt is not None:
            raise ValueError(f"its part {spoilt} differs from its checksum")
        content = torch.load(path, map_location="cpu", weights_only=True)
        found = content.get("format"), content.get("format_version")
    except Exception as error:  # a damaged file raises nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainError(f"{path} is damaged or not a checkpoint ({reason}).") from None
    if found != (FORMAT, FORMAT_VERSION) or not content.keys() >= _KEYS:
        raise TrainError(f"{path} is not a checkpoint of this trainer (it says {found}).")
    known = ("moments", "counts", "classes")
    content["prepared"] = {key: content[key] for key in known if key in content}
    return content


def check_same(
    content: dict[str, Any], path: Path, *, recipe: Recipe, labels: dict[str, str]
) -> None:
    """Refuse to resume with another recipe or other labels, naming what differs.

    More epochs than before are no other recipe, unless the rate is planned over all of them.
    """
    done = content["progress"]["epoch"]
    if content.get("task", PretrainRecipe.task) != recipe.task:
        raise TrainError(f"{path} is of `train {content.get('task')}`; choose another --out.")
    if recipe.epochs < done:
        raise TrainError(
            f"{path} has learnt for {done} epochs already; --epochs {recipe.epochs} cannot undo it."
        )
    if recipe.task == PretrainRecipe.task and "counts" not in content["prepared"]:
        raise TrainError(
            f"{path} was begun by an older version, which kept less of the labels; use another "
            "--out to start anew."
        )
    # What a recipe of an older program does not hold is what it then was.
    then = type(recipe).from_dict(content["recipe"])
    asked, stored = {**recipe.as_dict(), **labels}, {**then.as_dict(), **content["labels"]}
    if recipe.schedule == then.schedule == "step":
        asked["epochs"] = stored["epochs"] = None
    differing = [
        f"{key} {stored.get(key)!r} there, {asked.get(key)!r} here"
        for key in sorted(asked.keys() | stored.keys())
        if asked.get(key) != stored.get(key)
    ]
    if differing:
        raise TrainError(
            f"{path} was trained differently ({'; '.join(differing)}); "
            "use another --out to start anew."
        )


def export(run: Path, output: Path) -> None:
    """Write the backbone of a run's best checkpoint as safetensors, its config in the metadata.

    Of a fine-tuned network the classifier too, by names that begin with ``head.``.
    """
    try:
        from safetensors.torch import save as packed
    except ImportError:
        raise TrainError(
            "Export needs the package safetensors; pip install safetensors, or the extra 'export'."
        ) from None
    content = load(run / "best.pt")
    prefix = "backbone."
    weights = {
        name.removeprefix(prefix): tensor.contiguous()
        for name, tensor in content["model"].items()
        if name.startswith((prefix, "head."))
    }
    metadata = {
        "architecture": content["recipe"].get("backbone", "c3d"),
        "recipe": json.dumps(content["recipe"], sort_keys=True),
        "labels": json.dumps(content["labels"], sort_keys=True),
        "classes": json.dumps(content.get("classes", [])),
        "epochs": str(content["progress"]["epoch"]),
    }
    try:
        with replacing(output) as partial:
            # The stream makes a file as others are made; by path, only its owner could read it.
            partial.write_bytes(packed(weights, metadata=metadata))
    except OSError as error:
        raise TrainError(f"{output} cannot be written ({error.strerror or error}).") from None
