"""The learning curve of a run as a picture: skill, gain or accuracy over epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from labelgen.files import replacing
from labelgen.progress import count_text
from train import TrainError
from train.log import read_log

COLOURS = {
    "motion": "#1f6fb4", "appearance": "#c8452d", "top1": "#1f6fb4", "chance1": "#777777",
    "motion: where": "#1f6fb4", "motion: which way": "#2a9d8f", "motion: when": "#7b5ea7",
    "appearance: where": "#c8452d", "appearance: colour": "#e0a030",
}  # fmt: skip
SHAPES = {"train": {"linewidth": 1.0, "alpha": 0.6}, "held_out": {"linewidth": 2.4}}
LOWEST = -0.5
"""Worse is drawn as a mark on the edge: how much worse than a constant says nothing."""
FEW = 50
"""Held-out clips below which a curve shows no more than that everything runs."""


def draw_curve(run: Path, output: Path) -> None:
    """Draw skill or gain of labels, or accuracy of classes: thick held-out, thin training.

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
    about = _about(history[0]["train"])
    for (name, what), line in _lines(history).items():
        label = f"{what}, {name.replace('_', '-')}"
        _draw(axes, line, label=label, color=COLOURS[what], **SHAPES[name])
    axes.axhline(0, color="black", linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel="epoch", xlim=(0.5, len(history) + 0.5))
    axes.set_ylabel(about.figure)
    low, high = axes.get_ylim()
    # Noise about 0 is not to fill the picture.
    axes.set_ylim(max(min(low, -0.1), LOWEST) if about.signed else 0, max(high, about.least))
    axes.set_title(f"{run.resolve().name}: {about.question}", loc="left")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figure.supxlabel(_caption(history[-1]), fontsize="small", x=0.01, ha="left")
    try:
        with replacing(output) as partial:
            figure.savefig(partial, dpi=120, format=output.suffix[1:] or "png")
    except (OSError, ValueError) as error:
        raise TrainError(f"{output} cannot be written: {error}.") from None


class _About(NamedTuple):
    """Words about what is drawn; whether it may be below 0; what the picture reaches at least."""

    figure: str
    question: str
    meaning: str
    signed: bool
    least: float


_MARK = f"a mark on the lower edge: below {LOWEST}"
SKILL = _About(
    "skill", "what is learnt of the labels",
    "skill = 1 - squared error / that of always predicting the training clips' mean",
    signed=True, least=0.1,
)  # fmt: skip
GAIN = _About(
    "gain of accuracy", "what is learnt of the labels",
    "gain = (accuracy - prior's) / (1 - prior's), of each kind of label; the prior always says "
    "what is most\nfrequent among the training clips",
    signed=True, least=0.1,
)  # fmt: skip
_CLASSES = _About(
    "accuracy of clips", "how often the class is told",
    "top1: the likeliest class is right; chance: the most frequent class, always",
    signed=False, least=1,
)  # fmt: skip


def _about(figures: dict[str, Any]) -> _About:
    if "branches" not in figures:
        return _CLASSES
    return GAIN if tells_values(figures) else SKILL


def tells_values(figures: dict[str, Any]) -> bool:
    """Whether figures are of a network that says how likely values are, rather than numbers."""
    return any(kind["surprise"] is not None for kind in figures.get("kinds", {}).values())


def gain(kind: dict[str, Any]) -> float | None:
    """Return which share of what a prior gets wrong is right: 0 is the prior, 1 is perfect."""
    prior: float = kind["prior_accuracy"]
    return (kind["accuracy"] - prior) / (1 - prior) if prior < 1 else None


def _drawn(figures: dict[str, Any]) -> dict[str, float | None]:
    about = _about(figures)
    if about is GAIN:
        return {kind: gain(values) for kind, values in figures["kinds"].items()}
    if about is SKILL:
        return {branch: values["skill"] for branch, values in figures["branches"].items()}
    return {what: figures[what] for what in ("top1", "chance1")}


def _lines(history: list[dict[str, Any]]) -> dict[tuple[str, str], list[float | None]]:
    return {
        (name, what): [_drawn(record[name])[what] for record in history]
        for name in ("train", "held_out")
        if history[0][name]
        for what in _drawn(history[0][name])
    }


def _draw(axes: Any, line: list[float | None], **style: Any) -> None:
    points = [(epoch, value) for epoch, value in enumerate(line, 1) if value is not None]
    epochs = [epoch for epoch, _ in points]
    axes.plot(epochs, [max(value, LOWEST) for _, value in points], marker=".", **style)
    below = [epoch for epoch, value in points if value < LOWEST]
    if not below:
        return  # an empty line that is not clipped would take up room
    axes.plot(below, [LOWEST] * len(below), "v", color=style["color"], markersize=9, clip_on=False)


def _caption(record: dict[str, Any]) -> str:
    held, about = record["held_out"], _about(record["train"])
    lines = [f"{about.meaning}; {_MARK}" if about.signed else about.meaning]
    if held is None:
        lines.append("Nothing was held out: this does not show what is learnt of other clips.")
    elif held["clips"] < FEW:
        lines.append(
            f"Held out: only {count_text(held['clips'], 'clip')}, which shows that everything "
            "runs, not what is learnt."
        )
    return "\n".join(lines)
