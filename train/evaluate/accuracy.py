"""Action recognition (paper, Sec. 4.3): what clips say of a video's class, and how often."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labelgen.files import replacing
from train import TrainError
from train.metrics import TOP


@dataclass(frozen=True, eq=False)
class Recognition:
    """How often a class was recognised.

    Attributes
    ----------
    clip : dict of int to float
        k -> share of clips whose class is among the k likeliest, 0..1.
    video : dict of int to float
        The same of videos; those without a clip are wrong.
    clip_chance, video_chance : dict of int to float
        k -> share of the clips, or videos, that are of the k most frequent classes, the best
        constant guess; of a video without a clip nothing can be guessed.
    confusion : (C, C + 1) int64
        Videos by class and by what was said of them; the last column: nothing, for want of a clip.
    """

    clip: dict[int, float]
    video: dict[int, float]
    clip_chance: dict[int, float]
    video_chance: dict[int, float]
    confusion: np.ndarray

    def per_class(self) -> np.ndarray:
        """(C,) float64: the share of each class's videos that are right; nan without videos."""
        count = self.confusion.sum(axis=1)
        right = np.diagonal(self.confusion)
        return np.divide(right, count, out=np.full(len(count), np.nan), where=count > 0)


def recognise(
    logits: np.ndarray,
    videos: np.ndarray,
    *,
    classes: np.ndarray,
    without_clips: np.ndarray,
    average: str,
) -> Recognition:
    """Classify clips and videos, and compare.

    Parameters
    ----------
    logits : (N, C) float32
        Of clips.
    videos : (N,) int64
        The video of each clip, from 0.
    classes : (V,) int64
        Of videos that have clips, from 0.
    without_clips : (M,) int64
        Classes of videos that have none.
    average : str
        ``probabilities``: the mean of the clips' softmax decides; ``logits``: that of their logits.

    Raises
    ------
    TrainError
        A logit is no finite number.
    """
    if not np.isfinite(logits).all():
        raise TrainError("The network says of a clip what is no number; train with a lower --lr.")
    scores = softmax(logits) if average == "probabilities" else logits.astype(np.float64)
    of_video = np.zeros((len(classes), logits.shape[1]))
    np.add.at(of_video, videos, scores)
    of_video /= np.bincount(videos, minlength=len(classes))[:, None]
    confusion = np.zeros((logits.shape[1], logits.shape[1] + 1), np.int64)
    np.add.at(confusion, (classes, of_video.argmax(axis=1)), 1)
    confusion[:, -1] += np.bincount(without_clips, minlength=len(confusion))
    everything = len(classes) + len(without_clips)
    return Recognition(
        clip={k: float(_hits(logits, classes[videos], k).mean()) for k in TOP},
        video={k: float(_hits(of_video, classes, k).sum() / everything) for k in TOP},
        clip_chance=_chance(classes[videos], len(logits)),
        video_chance=_chance(classes, everything),
        confusion=confusion,
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    """(N, C) probabilities in double precision."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _chance(classes: np.ndarray, everything: int) -> dict[int, float]:
    frequent = np.sort(np.bincount(classes))[::-1]
    return {k: float(frequent[:k].sum() / everything) for k in TOP}


def _hits(scores: np.ndarray, classes: np.ndarray, k: int) -> np.ndarray:
    """(N,) bool: whether fewer than k classes stand before the true one; of equals the first does.

    A network that says the same of all classes thus always says the first.
    """
    own = scores[np.arange(len(scores)), classes][:, None]
    first = np.arange(scores.shape[1]) < classes[:, None]
    return ((scores > own) | ((scores == own) & first)).sum(axis=1) < k


def write_confusion(path: Path, recognition: Recognition, names: Sequence[str]) -> None:
    """Write the confusion matrix as CSV: a row per class, a column per answer."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["class", *names, "no clip", "accuracy"])
        for name, row, share in zip(
            names, recognition.confusion, recognition.per_class(), strict=True
        ):
            table.writerow([name, *row.tolist(), "" if np.isnan(share) else f"{share:.4f}"])


def draw_confusion(path: Path, recognition: Recognition, names: Sequence[str]) -> bool:
    """Draw the confusion matrix, each row as shares; False where matplotlib is absent."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    counts = recognition.confusion[:, :-1]
    shares = counts / np.maximum(recognition.confusion.sum(axis=1, keepdims=True), 1)
    size = min(4 + 0.28 * len(names), 30)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="said", ylabel="is", title=f"video accuracy {recognition.video[1]:.1%}")
    font = 9 if len(names) < 30 else 5
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=font)
    axes.set_yticks(range(len(names)), names, fontsize=font)
    if len(names) <= 12:
        for (row, column), share in np.ndenumerate(shares):
            colour = "white" if share > 0.5 else "black"
            text = str(counts[row, column])
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=font)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the class's videos")
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
    return True
