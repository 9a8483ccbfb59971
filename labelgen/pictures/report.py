"""A page about a shard folder: what it holds, what went wrong, how its labels are distributed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labelgen import charts
from labelgen.errors import LabelgenError
from labelgen.labels.table import LABELS
from labelgen.page import Html, element, joined, page, picture, section, table, write_page
from labelgen.pictures.figure import figure_png
from labelgen.pictures.view import stored_view
from labelgen.progress import count_text, duration, size_text
from labelgen.shards.folder import find_shard_folder, read_run
from labelgen.shards.sequence import Shards
from labelgen.shards.status import FolderStatus, read_status
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
    run, status = read_run(folder), read_status(folder)
    body = [_heading(folder, status), _making(folder, status), _failures(status)]
    shards = Shards(folder)
    if len(shards) and run["config"].get("labels"):
        body += [
            _stillness(shards.energy),
            _distributions(count_labels(shards.files, workers=workers)),
            _examples(shards, examples),
        ]
    body += [_times(read_times(folder)), _settings(run)]
    write_page(output, page(f"Shards: {folder.name}", *body, style=charts.STYLE + _STYLE))


def _heading(folder: Path, status: FolderStatus) -> Html:
    rows = [
        (
            name,
            f"{part.sealed} of {part.shards}",
            str(part.videos),
            str(part.clips),
            size_text(part.bytes),
        )
        for name, part in status.sets.items()
    ]
    head = ("set", "shards sealed", "videos", "clips", "size")
    parts = status.sets.values()
    sentence = (
        f"{count_text(sum(part.clips for part in parts), 'clip')} of "
        f"{count_text(sum(part.videos for part in parts), 'video')} in "
        f"{count_text(sum(part.sealed for part in parts), 'shard')}, "
        f"{size_text(sum(part.bytes for part in parts))}."
    )
    title = element("h1", f"Shards: {folder.name}")
    return joined(title, element("p", sentence), table(head, rows, numbers=4))


def _making(folder: Path, status: FolderStatus) -> Html:
    """Tell of shards that are not there yet, and how long they take at the pace so far."""
    if status.is_complete:
        return element("p", "All planned shards are there, sealed.", class_="quiet")
    parts = status.sets.values()
    planned, sealed = sum(part.shards for part in parts), sum(part.sealed for part in parts)
    making = [name for part in parts for name in part.making]
    missing = [name for part in parts for name in part.missing]
    told = [
        f"{len(names)} of {count_text(planned, 'shard')} {what}: {', '.join(names[:_NAMED])}"
        f"{', ...' if len(names) > _NAMED else ''}. "
        for what, names in (("being made", making), ("missing", missing))
        if names
    ]
    clips = sum(part.clips for part in parts)
    told.append(_time_left(folder, clips / max(sealed, 1) * (planned - sealed)))
    if not making:
        told.append(" Running the same extract command again goes on.")
    meter = element("div", element("div", style=f"width:{sealed / planned:.0%}"), class_="meter")
    return section("Still to be made", meter, element("p", "".join(told)))


def _time_left(folder: Path, clips: float) -> str:
    times = read_times(folder)
    made, seconds = sum(run.clips for run in times), sum(run.seconds for run in times)
    if not made or not clips:
        return "How long that takes is not known yet."
    return f"At the pace so far, about {duration(seconds / made * clips)} left."


def _settings(run: Mapping[str, Any]) -> Html:
    def told(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
        for name, value in values.items():
            if isinstance(value, dict):
                yield from told(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value if isinstance(value, str) else json.dumps(value)

    settings = element("div", element("h3", "Settings"), table((), told(run["config"])))
    versions = element("div", element("h3", "Versions"), table((), told(run["versions"])))
    return section("How it was made", element("div", settings, versions, class_="cards"))


def _failures(status: FolderStatus) -> Html:
    by_reason = defaultdict(list)
    for part in status.sets.values():
        for failure in part.failures:
            by_reason[failure.reason].append(failure)
    if not by_reason:
        words = "Nothing: every video gave its clips."
        if not status.is_complete:
            words = "Nothing in the shards that are sealed so far."
        return section("What went wrong", element("p", words))
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
    return section("What went wrong", table(head, rows), some)


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
    return section("Where the time went", element("p", sentence), grid)


def _workers(times: Sequence[RunTimes]) -> str:
    fewest, most = min(one.workers for one in times), max(one.workers for one in times)
    return count_text(most, "worker") if fewest == most else f"{fewest} to {most} workers"


def _stillness(energy: np.ndarray) -> Html:
    still, slow = int((energy == 0).sum()), int((energy < _STILL).sum())
    quarter, half, most = np.quantile(energy, [0.25, 0.5, 0.75]).tolist()
    return section(
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
    return section("The 27 labels", element("p", explained), parts)


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
        return section("Examples", element("p", f"Not drawn: {error}."))
    return section("Examples", drawn)


def _example(shards: Shards, clip: int) -> Html:
    view = stored_view(shards, clip)
    alt = f"{view.video} from frame {view.start}: the blocks that its 27 labels name"
    image = picture(figure_png(view, dpi=_DPI), alt)
    sheet = element("div", element("div", image, class_="sheet"), class_="wide")
    words = f"Clip {clip}, motion energy {shards.energy[clip]:.2f}"
    return element("figure", sheet, element("figcaption", words))
