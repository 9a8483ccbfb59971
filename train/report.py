"""A page about runs, side by side: curves, figures per label beside chance, settings, speed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from labelgen import charts
from labelgen.charts import Series
from labelgen.page import Html, element, joined, page, section, table, write_page
from labelgen.progress import count_text, duration
from train import TrainError
from train.curve import FEW, GAIN, LOWEST, SKILL, gain, tells_values
from train.log import RECIPE_FILE, read_log
from train.state import run_status
from train.values import kind_of

_SETS = {"held_out": "held-out", "train": "training"}
_STYLE = """
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr));
  gap: 1rem; }
"""


class _Run(NamedTuple):
    """A run as its folder tells: its name, what was asked of it, and its finished epochs."""

    name: str
    state: str
    recipe: dict[str, Any]
    history: list[dict[str, Any]]

    @property
    def last(self) -> dict[str, Any]:
        """Figures of the last epoch: held-out ones, or those of training where nothing was."""
        record = self.history[-1]
        figures: dict[str, Any] = record["held_out"] or record["train"]
        return figures

    @property
    def of_labels(self) -> bool:
        return "branches" in self.history[0]["train"]

    def line(self, of: str, figure: Callable[[dict[str, Any]], float | None]) -> list[float | None]:
        """Return a figure of each epoch, of held-out or of training clips."""
        return [figure(record[of]) if record[of] else None for record in self.history]


def write_report(runs: Sequence[Path], output: Path) -> None:
    """Write a page about runs that needs no other file.

    Parameters
    ----------
    runs : sequence of Path
        Their folders; all of `train pretrain`, or all of `train finetune`.
    output : Path
        The HTML file.

    Raises
    ------
    LabelgenError
        A folder holds no finished epoch, runs are of two tasks, or the page cannot be written.
    """
    told = [_read(run) for run in runs]
    if len({run.of_labels for run in told}) > 1:
        raise TrainError(
            f"{runs[0]} and others are of different tasks: report on runs of `train pretrain` and "
            "of `train finetune` in pages of their own."
        )
    title = f"{'Run' if len(told) == 1 else 'Runs'}: {', '.join(run.name for run in told)}"
    of_labels = told[0].of_labels
    body = [
        element("h1", title),
        _overview(told),
        _caution(told),
        (_label_curves if of_labels else _class_curves)(told),
        (_labels if of_labels else _classes)(told),
        _settings(told),
        _speed(told),
    ]
    write_page(output, page(title, *body, style=charts.STYLE + _STYLE))


def _read(run: Path) -> _Run:
    history = read_log(run)
    if not history:
        raise TrainError(f"{run} has no finished epoch to report on yet.")
    try:
        recipe = json.loads((run / RECIPE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        recipe = {}
    try:
        state = run_status(run)[0]
    except TrainError:
        state = "unknown"
    return _Run(str(run), state, recipe, history)


def _overview(runs: Sequence[_Run]) -> Html:
    rows = []
    for run in runs:
        record, held = run.history[-1], run.history[-1]["held_out"]
        of = run.recipe.get("epochs", "?")
        rows.append(
            (
                run.name,
                run.state,
                f"{len(run.history)} of {of}",
                str(record["train"]["clips"]),
                str(held["clips"]) if held else "none",
                f"{record['loss']:.3f}",
                "-" if held is None else f"{record['held_out_loss']:.3f}",
            )
        )
    head = ("run", "state", "epochs", "samples", "held-out clips", "loss", "held-out loss")
    return table(head, rows, numbers=5)


def _caution(runs: Sequence[_Run]) -> Html:
    """Say what the figures cannot show."""
    held = [run.history[-1]["held_out"] for run in runs]
    words = []
    if None in held:
        words.append(
            "Where nothing was held out, figures are of the training clips themselves: they do not "
            "show what is learnt of other clips."
        )
    if any(one["clips"] < FEW for one in held if one is not None):
        words.append(
            f"Fewer than {FEW} held-out clips show that everything runs, not what is learnt."
        )
    return element("p", " ".join(words), class_="quiet") if words else Html("")


def _chart(
    title: str, runs: Sequence[_Run], figure: Callable[[dict[str, Any]], float | None]
) -> Html:
    series = [
        Series(f"{run.name}, {words}", run.line(of, figure), colour, pattern)
        for pattern, (of, words) in enumerate(_SETS.items())
        for colour, run in enumerate(runs)
        if run.history[0][of]
    ]
    drawn = charts.curves(series, alt=f"{title} over epochs", unit="epoch", lowest=LOWEST)
    return element("div", element("h3", title), drawn)


def _keys(runs: Sequence[_Run]) -> Html:
    return element(
        "p",
        (
            charts.line_key(Series(f"{run.name}, {words}", [], colour, pattern))
            for colour, run in enumerate(runs)
            for pattern, (of, words) in enumerate(_SETS.items())
            if run.history[0][of]
        ),
    )


def _label_curves(runs: Sequence[_Run]) -> Html:
    about = GAIN if any(tells_values(run.last) for run in runs) else SKILL
    of = "kinds" if about is GAIN else "branches"

    def figure(name: str) -> Callable[[dict[str, Any]], float | None]:
        def of_epoch(figures: dict[str, Any]) -> float | None:
            told = figures.get(of, {}).get(name)
            return told and (gain(told) if about is GAIN else told["skill"])

        return of_epoch

    names = dict.fromkeys(name for run in runs for name in run.last.get(of, {}))
    drawn = (_chart(name, runs, figure(name)) for name in names)
    words = (
        f"{about.meaning[0].upper()}{about.meaning[1:]}. 0 is that constant, 1 is perfect; what is "
        f"worse than {LOWEST} is drawn on the lower edge."
    )
    return section(
        "What is learnt",
        element("p", words),
        _keys(runs),
        element("div", drawn, class_="pair"),
    )


def _class_curves(runs: Sequence[_Run]) -> Html:
    drawn = (
        _chart("The likeliest class is right", runs, lambda figures: figures["top1"]),
        _chart("Loss", runs, lambda figures: figures["loss"]),
    )
    chances = ", ".join(f"{run.last['chance1']:.1%} for {run.name}" for run in runs)
    words = f"Always saying the most frequent class is right in {chances}."
    return section(
        "What is learnt",
        element("p", words),
        _keys(runs),
        element("div", drawn, class_="pair"),
    )


def _labels(runs: Sequence[_Run]) -> Html:
    """Tell of each label, by kind: accuracy beside chance as marks, and both as numbers."""
    names = dict.fromkeys(name for run in runs for name in run.last["labels"])
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(f"{name.split('/')[0]}: {kind_of(name)}", []).append(name)
    parts = [part for kind, members in kinds.items() for part in _kind(kind, members, runs)]
    words = (
        "Accuracy of the value it would bet on, from 0 on the left to 1 on the right, after the "
        "last epoch. Chance is the share of the most frequent value among the clips that are "
        "measured, drawn where it is the same of all runs; ev is explained variance: 0 for their "
        "own mean, 1 for perfection."
    )
    marks = [charts.mark_key(run.name, number) for number, run in enumerate(runs)]
    keys = element("p", marks, charts.reference_key("chance"))
    return section("Label by label", element("p", words), keys, parts)


def _kind(kind: str, names: Sequence[str], runs: Sequence[_Run]) -> list[Html]:
    figures = {name: [run.last["labels"].get(name, {}) for run in runs] for name in names}
    chances = {name: _shared(told, "chance") for name, told in figures.items()}
    tracks = charts.tracks(
        (
            name.split("/", 1)[1],
            charts.track([one.get("accuracy") for one in told], reference=chances[name]),
        )
        for name, told in figures.items()
    )
    head = ["label"]
    for run in runs:
        head += [f"{run.name}: accuracy", "chance", "ev"]
    rows = [
        [
            name.split("/", 1)[1],
            *(cell for one in told for cell in _cells(one)),
        ]
        for name, told in figures.items()
    ]
    means = [run.last.get("kinds", {}).get(kind, {}) for run in runs]
    mean = ["mean", *(cell for one in means for cell in _cells(one))]
    numbers = table(head, [*rows, mean], numbers=len(head) - 1)
    return [
        element("h3", kind),
        tracks,
        element("details", element("summary", "numbers"), numbers, open=""),
    ]


def _cells(told: dict[str, Any]) -> list[str]:
    return [
        _number(told.get("accuracy")),
        _number(told.get("chance")),
        _number(told.get("explained_variance"), signed=True),
    ]


def _shared(told: Iterable[dict[str, Any]], figure: str) -> float | None:
    """Return a figure in which runs agree: others were measured on other clips."""
    values = {one.get(figure) for one in told}
    return values.pop() if len(values) == 1 else None


def _number(value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.3f}" if signed else f"{value:.3f}"


def _classes(runs: Sequence[_Run]) -> Html:
    names = sorted({name for run in runs for name in run.last["classes"]})
    rows = (
        (
            name,
            charts.track([run.last["classes"].get(name, {}).get("top1") for run in runs]),
        )
        for name in names
    )
    marks = [charts.mark_key(run.name, number) for number, run in enumerate(runs)]
    words = "How many clips of each class are told, from 0 on the left to all on the right."
    return section("Class by class", element("p", words), element("p", marks), charts.tracks(rows))


def _settings(runs: Sequence[_Run]) -> Html:
    names = dict.fromkeys(name for run in runs for name in run.recipe)
    values = {name: [_shown(run.recipe.get(name)) for run in runs] for name in names}
    differ = {name: told for name, told in values.items() if len(set(told)) > 1}
    same = {name: told[:1] for name, told in values.items() if name not in differ}
    head = ["setting", *(run.name for run in runs)]
    parts: list[Html] = []
    if len(runs) > 1:
        rows = ([name, *told] for name, told in differ.items())
        none = element("p", "All settings are the same.")
        parts.append(table(head, rows) if differ else none)
    shared = table(("setting", "value"), ([name, *told] for name, told in same.items()))
    words = "all settings" if len(runs) == 1 else "settings that are the same"
    parts.append(element("details", element("summary", words), shared))
    return section("Settings" if len(runs) == 1 else "Settings that differ", parts)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)


def _speed(runs: Sequence[_Run]) -> Html:
    rows = []
    for run in runs:
        seconds = [record["seconds"] for record in run.history]
        waited = sum(record["data_wait"] * record["seconds"] for record in run.history)
        rows.append(
            (
                run.name,
                duration(sum(seconds)),
                f"{_mean(run.history, 'samples_per_second'):.3g}",
                f"{waited / max(sum(seconds), 1e-9):.1%}",
                f"{_mean(run.history, 'grad_norm'):.3g}",
                f"{max(record['grad_norm_max'] for record in run.history):.3g}",
                count_text(sum(record["left_out"] for record in run.history), "sample"),
            )
        )
    head = (
        *("run", "time in steps", "samples/s", "waiting for data"),
        *("gradient's norm", "its largest", "left out"),
    )
    return section("Speed", joined(table(head, rows, numbers=6)))


def _mean(history: Sequence[dict[str, Any]], figure: str) -> float:
    return float(sum(record[figure] for record in history) / len(history))
