"""Pre-train networks on motion and appearance statistics (Wang et al., CVPR 2019, Sec. 3.4).

`load_backbone` gives a trained network to take features from; PyTorch is loaded when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labelgen.errors import LabelgenError

if TYPE_CHECKING:
    from train.models.weights import load_backbone

__all__ = ["NonFiniteError", "StoppedError", "TrainError", "load_backbone"]


class TrainError(LabelgenError):
    """A mistake in what the user asked of the trainer, told in one sentence."""

    silent = False  # whether another rank says it


class StoppedError(Exception):
    """The run ended before its end, by a signal or the loss of a rank; the same command goes on."""

    silent = False


class NonFiniteError(Exception):
    """A loss, gradient or weight is no number any more; the last checkpoint is from before."""

    silent = False


def __getattr__(name: str) -> Any:
    if name != "load_backbone":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from train.models.weights import load_backbone

    return load_backbone
