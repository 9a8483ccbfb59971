"""Motion and appearance labels of video clips for self-supervised pre-training.

The labels are those of Wang et al., "Self-supervised Spatio-temporal Representation Learning for
Videos by Predicting Motion and Appearance Statistics", CVPR 2019. The names below are the stable
interface; each is loaded when it is first used, so that ``import labelgen`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labelgen.flow.compute import optical_flow
    from labelgen.labels.boundaries import motion_boundaries
    from labelgen.labels.compute import clip_labels
    from labelgen.labels.table import LABELS, flip_labels
    from labelgen.shards.sequence import Shards
    from labelgen.video.clips import read_clips

__all__ = [
    "LABELS",
    "Shards",
    "clip_labels",
    "flip_labels",
    "motion_boundaries",
    "optical_flow",
    "read_clips",
]

__version__ = "0.1.0"

_HOMES = {
    "LABELS": "labelgen.labels.table",
    "Shards": "labelgen.shards.sequence",
    "clip_labels": "labelgen.labels.compute",
    "flip_labels": "labelgen.labels.table",
    "motion_boundaries": "labelgen.labels.boundaries",
    "optical_flow": "labelgen.flow.compute",
    "read_clips": "labelgen.video.clips",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
