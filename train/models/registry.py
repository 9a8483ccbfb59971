"""Backbones by name: the keys of `train.recipe.BACKBONES`."""

from __future__ import annotations

from train import TrainError
from train.models.backbone import Backbone
from train.models.c3d import C3D, C3DLarge
from train.models.resnet import VideoResNet
from train.recipe import BACKBONES


def make_backbone(
    name: str, *, batch_norm: bool = False, pixels: str = "raw", width: float = 1.0
) -> Backbone:
    """Return a backbone with random weights.

    Parameters
    ----------
    name : str
        Of `BACKBONES`.
    batch_norm : bool
        Of ``c3d``; the others always have it.
    pixels : str
        Key of `train.recipe.PIXELS`.
    width : float
        Filters, as a share of the published.

    Raises
    ------
    TrainError
        There is no such backbone.
    """
    if name == "c3d":
        return C3D(batch_norm=batch_norm, pixels=pixels, width=width)
    if name == "c3d-bn8":
        return C3DLarge(pixels=pixels, width=width)
    if name not in BACKBONES:
        raise TrainError(f"There is no backbone {name!r}; choose from {', '.join(BACKBONES)}.")
    blocks = 2 if name.endswith("-18") else 1
    return VideoResNet(
        blocks=blocks, factored=name.startswith("r2plus1d"), joint=blocks == 1, pixels=pixels,
        width=width,
    )  # fmt: skip
