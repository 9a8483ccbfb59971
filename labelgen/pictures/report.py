"""A page about a shard folder: what it holds, what went wrong, how its labels are distributed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from labelgen import charts
from labelgen.errors import LabelgenError
from labelgen.labels.table import LABELS
from labelgen.page import Html, element, joined, page, picture, table, write_page
from labelgen.pictures.figure import figure_png
from labelgen.pictures.view import stored_view
from labelgen.progress import count_text, duration, size_text
from labelgen.shards.folder import find_shard_folder, planned_files, read_run
from labelgen.shards.seal import failures_of, read_seal, seal_of
from labelgen.shards.sequence import Shards
from labelgen.shards.summary import LabelCounts, count_labels
from labelgen.shards.times import RunTimes, read_times

_STILL = 0.05
"""Motion energy below which a clip counts as still, as for `train pretrain --drop-still`."""
_NAMED = 3
_DPI = 105
_STYLE = """
.sheet { min-width: 60rem; }
.card code { font-size: .8rem; }
.meter { height: .75rem; background: var(--panel); border: 1px solid var(--line); }
.meter div { height: 100%; background: var(--c0); }
.stages { display: grid; grid-template-columns: max-content 1fr max-content; gap: .25rem .75rem;
  align-items: center; max-width: 40rem; }
"""
_GROUPS = (
    ("Where motion is largest", "motion", "_location"),
    ("Which way it grows there", "motion", "_orientation"),
    ("When it is largest", "motion", "_frame"),
    ("Where colours change most and least", "appearance", "_location"),
    ("Which colour dominates", "appearance", "color"),
)


class _Facts(NamedTuple):
    """What is known of a folder without opening a shard."""

    folder: Path
    run: dict[str, Any]
    files: dict[str, list[Path]]
    seals: dict[Path, dict[str, Any]]

    def total(self, key: str, files: Iterable[Path]) -> int:
        return sum(self.seals[file][key] for file in files if file in self.seals)

    @property
    def missing(self) -> list[Path]:
        return [file for files in self.files.values() for file in files if file not in self.seals]


def write_report(path: Path, output: Path, *, examples: int = 3, workers: int = 1) -> None:
    """Write a page about a shard folder that needs no other file.

    Parameters
    ----------
    path : Path
        The shard folder; it may still be in the making.
    output : Path
        The HTML file.
    examples : int, optional
        How many clips are drawn.
    workers : int, optional
        Threads that count labels.

    Raises
    ------
    LabelgenError
        If there is no shard folder, or the page cannot be written.
    """
    folder = find_shard_folder(path)
    run = read_run(folder)
    files = planned_files(folder, run)
    found = {file: read_seal(file) for of_set in files.values() for file in of_set}
    facts = _Facts(folder, run, files, {file: seal for file, seal in found.items() if seal})
    body = [_heading(facts), _making(facts), _failures(facts)]
    shards = Shards(folder)
    if len(shards) and run["config"].get("labels"):
        body += [
            _stillness(shards.energy),
            _distributions(count_labels(list(facts.seals), workers=workers)),
            _examples(shards, examples),
        ]
    body += [_times(read_times(folder)), _settings(run)]
    write_page(output, page(f"Shards: {folder.name}", *body, style=charts.STYLE + _STYLE))


def _section(title: str, *content: str | Iterable[str]) -> Html:
    return element("section", element("h2", title), *content)


def _heading(facts: _Facts) -> Html:
    rows = [
        (
            name,
            f"{len([file for file in files if file in facts.seals])} of {len(files)}",
            str(facts.total("videos", files)),
            str(facts.total("clips", files)),
            size_text(facts.total("bytes", files)),
        )
        for name, files in facts.files.items()
    ]
    head = ("set", "shards sealed", "videos", "clips", "size")
    sealed = list(facts.seals)
    sentence = (
        f"{count_text(facts.total('clips', sealed), 'clip')} of "
        f"{count_text(facts.total('videos', sealed), 'video')} in "
        f"{count_text(len(sealed), 'shard')}, {size_text(facts.total('bytes', sealed))}."
    )
    title = element("h1", f"Shards: {facts.folder.name}")
    return joined(title, element("p", sentence), table(head, rows, numbers=4))


def _making(facts: _Facts) -> Html:
    missing = facts.missing
    if not missing:
        return element("p", "All planned shards are there, sealed.", class_="quiet")
    planned = len(missing) + len(facts.seals)
    share = len(facts.seals) / planned
    names = ", ".join(file.name for file in missing[:_NAMED])
    meter = element("div", element("div", style=f"width:{share:.0%}"), class_="meter")
    return _section(
        "Still to be made",
        meter,
        element(
            "p",
            f"{len(missing)} of {count_text(planned, 'shard')} missing: {names}"
            f"{', ...' if len(missing) > _NAMED else ''}. {_time_left(facts)} Running the same "
            "extract command again goes on.",
        ),
    )


def _time_left(facts: _Facts) -> str:
    ends = sorted(seal_of(file).stat().st_mtime for file in facts.seals)
    if len(ends) < 2 or ends[0] == ends[-1]:
        return "How long that takes is not known yet."
    each = (ends[-1] - ends[0]) / (len(ends) - 1)
    return f"At the pace of those that are there, about {duration(each * len(facts.missing))} left."


def _settings(run: Mapping[str, Any]) -> Html:
    def told(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
        for name, value in values.items():
            if isinstance(value, dict):
                yield from told(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value if isinstance(value, str) else json.dumps(value)

    settings = element("div", element("h3", "Settings"), table((), told(run["config"])))
    versions = element("div", element("h3", "Versions"), table((), told(run["versions"])))
    return _section("How it was made", element("div", settings, versions, class_="cards"))


def _failures(facts: _Facts) -> Html:
    by_reason = defaultdict(list)
    for seal in facts.seals.values():
        for failure in failures_of(seal):
            by_reason[failure.reason].append(failure)
    if not by_reason:
        return _section("What went wrong", element("p", "Nothing: every video gave its clips."))
    rows = [
        (
            reason,
            str(len(failures)) if not k else "",
            element("code", failure.path),
            failure.message,
        )
        for reason, failures in sorted(by_reason.items(), key=lambda item: -len(item[1]))
        for k, failure in enumerate(failures[:_NAMED])
    ]
    some = element(
        "p",
        f"At most {_NAMED} of each reason; failures.csv lists all, and the README says what to do.",
        class_="quiet",
    )
    head = ("reason", "videos", "for example", "what was seen")
    return _section("What went wrong", table(head, rows), some)


def _times(times: Sequence[RunTimes]) -> Html:
    stages: Counter[str] = Counter()
    for one in times:
        stages.update(one.stages)
    clips, total = sum(one.clips for one in times), sum(stages.values())
    if not clips or not total:
        return Html("")
    lines = [
        joined(
            element("div", name),
            element("div", element("div", style=f"width:{took / total:.1%}"), class_="meter"),
            element("div", f"{took / total:.0%}, {1e3 * took / clips:.0f} ms per clip"),
        )
        for name, took in stages.most_common()
    ]
    seconds = sum(one.seconds for one in times)
    sentence = (
        f"{count_text(clips, 'clip')} in {duration(seconds)} with "
        f"{_workers(times)}: {clips / max(seconds, 1e-9):.2f} clips/s."
    )
    grid = element("div", lines, class_="stages")
    return _section("Where the time went", element("p", sentence), grid)


def _workers(times: Sequence[RunTimes]) -> str:
    fewest, most = min(one.workers for one in times), max(one.workers for one in times)
    return count_text(most, "worker") if fewest == most else f"{fewest} to {most} workers"


def _stillness(energy: np.ndarray) -> Html:
    still, slow = int((energy == 0).sum()), int((energy < _STILL).sum())
    quarter, half, most = np.quantile(energy, [0.25, 0.5, 0.75]).tolist()
    return _section(
        "How much moves",
        element(
            "p",
            f"{_share(still, energy)} without any motion, {_share(slow, energy)} below a motion "
            f"energy of {_STILL}, which ",
            element("code", "train pretrain --drop-still"),
            " leaves out. Half of all clips "
            f"lie between {quarter:.2f} and {most:.2f}, the middle one at {half:.2f}: the "
            "mean over the frame of |M_u| + |M_v|.",
        ),
    )


def _share(count: int, energy: np.ndarray) -> str:
    return f"{count_text(count, 'clip')} ({count / len(energy):.1%})"


def _distributions(counts: LabelCounts) -> Html:
    numbers = {label.name: number for number, label in enumerate(LABELS)}
    parts: list[Html] = []
    for title, branch, ending in _GROUPS:
        names = [name for name in numbers if name.startswith(branch) and name.endswith(ending)]
        cards = (_card(numbers[name], counts) for name in names)
        parts += [element("h3", title), element("div", cards, class_="cards")]
    explained = (
        "Of all stored crops of all clips, how often each value occurs. The dashed line is where "
        "all would be if each were as frequent."
    )
    if counts.pairs:
        explained += " Neighbours are crops one pixel apart: how many of them differ in the label."
    return _section("The 27 labels", element("p", explained), parts)


def _card(number: int, counts: LabelCounts) -> Html:
    name, cardinality = LABELS[number]
    row = counts.counts[number]
    shares = row[1 : cardinality + 1] / max(row.sum(), 1)
    told = [f"most frequent: {int(shares.argmax()) + 1}, {shares.max():.0%}"]
    if row[0]:
        told.append(f"none: {row[0] / row.sum():.0%}")
    if counts.pairs:
        told.append(f"neighbours differ: {counts.differing[number] / counts.pairs:.1%}")
    words = "; ".join(told)
    chart = charts.bars(shares.tolist(), reference=1 / cardinality, alt=f"{name}: {words}")
    caption = element("div", words, class_="quiet")
    return element("div", element("code", name), chart, caption, class_="card")


def _examples(shards: Shards, examples: int) -> Html:
    """Draw clips from the one with most motion to one with little, evenly by rank."""
    if not examples:
        return Html("")
    order = np.argsort(-shards.energy, kind="stable")
    places = np.linspace(0, 0.75 * (len(order) - 1), min(examples, len(order))).round().astype(int)
    try:
        drawn = [_example(shards, int(clip)) for clip in order[places]]
    except LabelgenError as error:
        return _section("Examples", element("p", f"Not drawn: {error}."))
    return _section("Examples", drawn)


def _example(shards: Shards, clip: int) -> Html:
    view = stored_view(shards, clip)
    alt = f"{view.video} from frame {view.start}: the blocks that its 27 labels name"
    image = picture(figure_png(view, dpi=_DPI), alt)
    sheet = element("div", element("div", image, class_="sheet"), class_="wide")
    words = f"Clip {clip}, motion energy {shards.energy[clip]:.2f}"
    return element("figure", sheet, element("figcaption", words))
