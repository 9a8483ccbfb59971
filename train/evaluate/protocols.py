"""Named protocols: what published evaluations do differently, and a hash that tells them apart.

1. D. Xu et al., Self-supervised Spatiotemporal Learning via Video Clip Order Prediction, CVPR 2019
   (VCOP): github.com/xudejing/video-clip-order-prediction, datasets/ucf101.py, retrieve_clips.py.
2. T. Han et al., Self-supervised Co-training for Video Representation Learning, NeurIPS 2020
   (CoCLR): github.com/TengdaHan/CoCLR, eval/main_classifier.py.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from train import TrainError

AVERAGES = ("probabilities", "logits")
USED = {
    "evaluate": ("clips", "average"),
    "retrieve": ("clips", "layer", "centre", "drop_last"),
    "similarity": ("clips", "layer"),
    "scenes": ("clips", "layer"),
}
"""By command, the settings that it looks at."""


@dataclass(frozen=True)
class Protocol:
    """How clips become a figure.

    Attributes
    ----------
    name : str
    clips : int
        Per video, at even distances among those stored; 0 takes all.
    average : str
        What is averaged over the clips of a video to classify it: ``probabilities`` or ``logits``.
    centre : bool
        In retrieval, subtract from queries and from gallery each its own mean.
    drop_last : int
        In retrieval, lose the last videos that do not fill a batch of so many; 0 loses none.
    layer : str
        Where features are taken.
    """

    name: str
    clips: int = 0
    average: str = "probabilities"
    centre: bool = False
    drop_last: int = 0
    layer: str = "pool5"

    def __post_init__(self) -> None:
        if self.clips < 0 or self.average not in AVERAGES:
            raise TrainError(
                f"A protocol takes clips from 0 on and averages {' or '.join(AVERAGES)}, not "
                f"{self.clips} and {self.average!r}."
            )

    def record(self, command: str, **details: Any) -> dict[str, Any]:
        """Return all settings that a command looks at, and a hash of them.

        Parameters
        ----------
        command : str
            Key of `USED`.
        details
            What else decides, such as the C of an SVM. The name decides nothing.
        """
        decisive = {**{name: getattr(self, name) for name in USED[command]}, **details}
        content = json.dumps({"command": command, **decisive}, sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()
        return {"name": self.name, **decisive, "hash": digest[:16]}

    def chosen(self, count: int) -> list[int]:
        """Return which of a video's stored clips are taken, rising.

        Of shards with a clip at every frame (``--clip-stride 1``) these are the very clips of [1],
        which counts those twice that it chooses twice, as it does below 25 frames.
        """
        if not self.clips:
            return list(range(count))
        between = max(self.clips - 1, 1)
        return sorted({place * (count - 1) // between for place in range(self.clips)})

    def kept(self, count: int) -> int:
        """Return how many of so many videos are left where the last do not fill a batch."""
        return count - count % self.drop_last if self.drop_last else count


PROTOCOLS = {
    "ours": Protocol("ours"),
    "vcop": Protocol("vcop", clips=10, average="logits", drop_last=8),
    "coclr": Protocol("coclr", centre=True),
}
"""Ours loses nothing and tells everything. In [1] the last videos of queries and of gallery that
fill no batch of 8 vanish; in [2] features are centred. That [2] changes colours at random at test
is not repeated."""
