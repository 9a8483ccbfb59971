"""The learning curve of a run as a picture: skill, or accuracy, over epochs (docs/learning.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from labelgen.files import replacing
from labelgen.progress import count_text
from train import TrainError
from train.log import read_log

COLOURS = {"motion": "#1f6fb4", "appearance": "#c8452d", "top1": "#1f6fb4", "chance1": "#777777"}
SHAPES = {"train": {"linewidth": 1.0, "alpha": 0.6}, "held_out": {"linewidth": 2.4}}
LOWEST = -0.5
"""Worse is drawn as a mark on the edge: how much worse than a constant says nothing."""
FEW = 50
"""Held-out clips below which a curve shows no more than that everything runs."""


def draw_curve(run: Path, output: Path) -> None:
    """Draw skill of labels or accuracy of classes over epochs: thick held-out, thin training.

    Parameters
    ----------
    run : Path
        Folder of the run.
    output : Path
        The picture; its suffix says which kind.

    Raises
    ------
    TrainError
        There is no finished epoch, matplotlib is absent, or the picture cannot be written.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        raise TrainError(
            "A curve needs the package matplotlib; pip install matplotlib, or the extra 'pictures'."
        ) from None
    history = read_log(run)
    if not history:
        raise TrainError(f"{run} has no finished epoch to draw yet.")
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.add_subplot()
    labels = "branches" in history[0]["train"]
    for (name, what), line in (_skills if labels else _accuracies)(history).items():
        label = f"{what}, {name.replace('_', '-')}"
        _draw(axes, line, label=label, color=COLOURS[what], **SHAPES[name])
    axes.axhline(0, color="black", linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", xlim=(0.5, len(history) + 0.5))
    axes.set_ylabel("skill" if labels else "accuracy of clips")
    low, high = axes.get_ylim()
    # Noise about 0 is not to fill the picture.
    axes.set_ylim(max(min(low, -0.1), LOWEST) if labels else 0, max(high, 0.1) if labels else 1)
    learnt = "what is learnt of the labels" if labels else "how often the class is told"
    axes.set_title(f"{run.name}: {learnt}", loc="left")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figure.supxlabel(_caption(history[-1], labels=labels), fontsize="small", x=0.01, ha="left")
    try:
        with replacing(output) as partial:
            figure.savefig(partial, dpi=120, format=output.suffix[1:] or "png")
    except (OSError, ValueError) as error:
        raise TrainError(f"{output} cannot be written: {error}.") from None


def _skills(history: list[dict[str, Any]]) -> dict[tuple[str, str], list[float | None]]:
    return {
        (name, branch): [record[name]["branches"][branch]["skill"] for record in history]
        for name in ("train", "held_out")
        if history[0][name]
        for branch in history[0][name]["branches"]
    }


def _accuracies(history: list[dict[str, Any]]) -> dict[tuple[str, str], list[float | None]]:
    return {
        (name, what): [record[name][what] for record in history]
        for name in ("train", "held_out")
        if history[0][name]
        for what in ("top1", "chance1")
    }


def _draw(axes: Any, line: list[float | None], **style: Any) -> None:
    points = [(epoch, value) for epoch, value in enumerate(line, 1) if value is not None]
    epochs = [epoch for epoch, _ in points]
    axes.plot(epochs, [max(value, LOWEST) for _, value in points], marker=".", **style)
    below = [epoch for epoch, value in points if value < LOWEST]
    axes.plot(below, [LOWEST] * len(below), "v", color=style["color"], markersize=9, clip_on=False)


def _caption(record: dict[str, Any], *, labels: bool) -> str:
    held = record["held_out"]
    lines = [
        "skill = 1 - squared error / that of always predicting the training clips' mean; "
        f"a mark on the lower edge: below {LOWEST}"
        if labels
        else "top1: the likeliest class is right; chance: the most frequent class, always"
    ]
    if held is None:
        lines.append("Nothing was held out: this does not show what is learnt of other clips.")
    elif held["clips"] < FEW:
        lines.append(
            f"Held out: only {count_text(held['clips'], 'clip')}, which shows that everything "
            "runs, not what is learnt. docs/learning.md has a curve that does."
        )
    return "\n".join(lines)
