"""Trained weights, from wherever they lie, and the network that they are of."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from train import TrainError, checkpoint
from train.models.backbone import Backbone
from train.models.heads import ClassifierNet, initialise
from train.models.registry import make_backbone
from train.recipe import FinetuneRecipe, PretrainRecipe, Recipe

_CLIP = (16, 112, 112, 3)


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of a backbone, and of the classifier behind it if there is one.

    Attributes
    ----------
    name : str
        Where they came from, for people.
    recipe : Recipe
        Of the run that made them; it says which network they are of.
    backbone, head : dict of tensors
        By name; `head` is empty where there is no classifier.
    classes : tuple of str
        What the classifier tells apart.
    shards : tuple of str
        Hashes of the shards that it was trained on, and chosen by, as `ShardSet.content`, where
        they are known.
    begun : str
        Hash of the weights that a fine-tuned network began from, or `train.recipe.SCRATCH`.
    """

    name: str
    recipe: Recipe
    backbone: dict[str, torch.Tensor]
    head: dict[str, torch.Tensor]
    classes: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()
    begun: str = ""

    def digest(self) -> str:
        """Return a hash of the network and of all weights."""
        content = hashlib.sha256(json.dumps(self.recipe.network(), sort_keys=True).encode())
        for part in (self.backbone, self.head):
            for name, tensor in sorted(part.items()):
                values = tensor.detach().cpu().contiguous()
                content.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
                content.update(values.numpy().tobytes())
        return content.hexdigest()[:16]

    def network(self) -> FeatureNet:
        """Return the network with these weights, in inference mode."""
        net = self._drawn()
        backbone = net.backbone if isinstance(net, ClassifierNet) else net
        try:
            backbone.load_state_dict(self.backbone)
            if isinstance(net, ClassifierNet):
                net.head.load_state_dict(self.head)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise TrainError(f"{self.name} does not fit its own network ({reason}).") from None
        return FeatureNet(net)

    def randomised(self, seed: int) -> Weights:
        """Return random weights of the same network, drawn as its recipe draws them."""
        torch.manual_seed(seed)
        net = self._drawn()
        return replace(
            self,
            name=f"random weights, seed {seed}",
            backbone=(net.backbone if isinstance(net, ClassifierNet) else net).state_dict(),
            head=net.head.state_dict() if isinstance(net, ClassifierNet) else {},
        )

    def _drawn(self) -> Backbone | ClassifierNet:
        backbone = make_backbone(**self.recipe.network())
        if not self.classes:
            initialise(backbone, self.recipe.init, outputs=[])
            return backbone
        freeze = isinstance(self.recipe, FinetuneRecipe) and self.recipe.freeze
        return ClassifierNet(
            len(self.classes), backbone=backbone, init=self.recipe.init, width=self.recipe.width,
            freeze=freeze,
        )  # fmt: skip


class FeatureNet(nn.Module):
    """A trained network as a source of features; in inference mode, without gradients."""

    def __init__(self, net: Backbone | ClassifierNet) -> None:
        super().__init__()
        self._net = net
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what the network makes of clips.

        Parameters
        ----------
        clips : (B, 16, 112, 112, 3) uint8
            RGB.

        Returns
        -------
        dict of tensors
            ``conv5`` after its ReLU, (B, 256, 2, 7, 7) for C3D; ``pool5``, (B, 4096) for C3D; of a
            fine-tuned network also ``fc6`` and ``fc7`` after their ReLU where it has them, and
            ``logits``, (B, classes).

        Raises
        ------
        TrainError
            These are no such clips.
        """
        if clips.dtype != torch.uint8 or clips.shape[1:] != _CLIP:
            raise TrainError(
                f"Clips are (B, 16, 112, 112, 3) uint8, RGB from 0 to 255, not "
                f"{tuple(clips.shape)} {clips.dtype}."
            )
        return self._net.stages(clips)


def load_backbone(source: str | Path, *, device: str | torch.device = "cpu") -> FeatureNet:
    """Load a trained network to take features from.

    Parameters
    ----------
    source : path
        A run's folder (its ``best.pt``), a checkpoint, a file that `train export` wrote, or a
        state dict of torchvision's ``r3d_18`` or ``r2plus1d_18``.
    device : str or torch.device, optional

    Returns
    -------
    FeatureNet
        Takes (B, 16, 112, 112, 3) uint8 RGB clips; returns a dict, see `FeatureNet.forward`.

    Raises
    ------
    TrainError
        There is no such file, or it holds no weights of a known network.
    """
    return read_weights(source).network().to(device)


def read_weights(source: str | Path) -> Weights:
    """Read trained weights; `source` and errors are as for `load_backbone`."""
    path = Path(source)
    if path.is_dir():
        return _of_checkpoint(path / "best.pt")
    if not path.exists():
        raise TrainError(
            f"{path} does not exist; give a run's folder, a checkpoint or an exported file."
        )
    if path.suffix == ".safetensors":
        return _of_export(path)
    return _of_torchvision(path) or _of_checkpoint(path)


def _of_checkpoint(path: Path) -> Weights:
    content = checkpoint.load(path)
    weights = _weights(str(path), content["model"], content["recipe"], content.get("classes", ()))
    return _known(weights, content["labels"])


def _of_export(path: Path) -> Weights:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise TrainError(
            f"{path} needs the package safetensors; pip install safetensors, or the extra 'export'."
        ) from None
    try:
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
            content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        recipe = json.loads(told["recipe"])
        labels, classes = (json.loads(told.get(key, "{}")) for key in ("labels", "classes"))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainError(f"{path} is damaged or was not exported by `train` ({error}).") from None
    named = {n if n.startswith("head.") else f"backbone.{n}": t for n, t in content.items()}
    return _known(_weights(str(path), named, recipe, classes), labels)


def _known(weights: Weights, labels: dict[str, str]) -> Weights:
    """Return weights with what a run recorded of the data that it learnt from."""
    shards = tuple(labels[key] for key in ("shards", "held-out shards") if key in labels)
    return replace(weights, shards=shards, begun=labels.get("weights", ""))


def _of_torchvision(path: Path) -> Weights | None:
    """Return the weights of a plain state dict with torchvision's names; None of anything else."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        is_one = "stem.0.weight" in content
    except Exception:  # a damaged file raises nearly anything, and is told of as a checkpoint
        is_one = False
    if not is_one:
        return None
    name = "r2plus1d-18" if "stem.3.weight" in content else "r3d-18"
    recipe = PretrainRecipe(backbone=name, pixels="kinetics")
    named = {f"backbone.{n}": t for n, t in content.items() if not n.startswith("fc.")}
    return _weights(str(path), named, recipe.as_dict(), ())


def _weights(name: str, content: dict[str, Any], recipe: dict[str, Any], classes: Any) -> Weights:
    kind = FinetuneRecipe if "dropout" in recipe else PretrainRecipe
    try:
        known = kind.from_dict(recipe)
    except (TrainError, TypeError, AttributeError) as error:  # of a newer program, or of none
        reason = str(error).rstrip(".")
        raise TrainError(f"{name} holds a recipe unknown to this program ({reason}).") from None
    backbone, head = _part(content, "backbone"), _part(content, "head")
    return Weights(name, known, backbone, head, tuple(classes))


def _part(content: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    prefix = f"{part}."
    return {n.removeprefix(prefix): t for n, t in content.items() if n.startswith(prefix)}
