"""Charts for pages, as SVG and HTML that take the page's colours, light or dark.

`labelgen.page` has the style that they are made for: colours ``--c0`` to ``--c6``, ``--ink``,
``--line`` and so on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from labelgen.page import Html, element, joined

COLOURS = 7
"""How many colours a page has for series; more series begin again with the first."""

STYLE = """
svg text { font: 11px system-ui, sans-serif; fill: var(--quiet); }
.bar { fill: var(--c0); }
.axis { stroke: var(--line); stroke-width: 1; fill: none; }
.reference { stroke: var(--c1); stroke-width: 1.5; stroke-dasharray: 4 3; fill: none; }
.key { display: inline-flex; align-items: center; margin: 0 1rem .25rem 0; font-size: .875rem; }
.key svg { margin-right: .4rem; flex: none; }
.tracks { display: grid; grid-template-columns: fit-content(60%) minmax(6rem, 1fr);
  gap: .1rem 1rem; align-items: center; font-size: .875rem; max-width: 50rem; }
.tracks > div:nth-child(odd) { overflow-wrap: anywhere; }
.track { position: relative; border-bottom: 1px solid var(--line); }
.track > * { position: absolute; margin-left: -8px; }
.stroke { display: inline-block; width: 2px; margin: 0 .6rem; align-self: stretch;
  background: var(--ink); }
.track .stroke { top: 2px; bottom: 2px; margin: 0 0 0 -1px; }
"""

_MARKS = (
    "M8 3a5 5 0 1 0 .01 0Z",  # circle
    "M3 3h10v10h-10Z",  # square
    "M8 2l6.5 11h-13Z",  # triangle
    "M8 1l7 7-7 7-7-7Z",  # diamond
    "M8 14l-6.5-11h13Z",  # triangle upside down
    "M6 2h4v4h4v4h-4v4h-4v-4h-4v-4h4Z",  # cross
    "M2 6h12v4h-12Z",  # bar
)
_LOWER = 0.6
_DASHES = ("none", "7 3", "2 3", "9 3 2 3")


class Series(NamedTuple):
    """One line of a chart.

    Attributes
    ----------
    name : str
    values : sequence of float or None
        At 1, 2, 3 and so on; None where there is none.
    colour : int
        Number of its colour.
    pattern : int
        Number of its dashes: 0 is drawn through.
    """

    name: str
    values: Sequence[float | None]
    colour: int
    pattern: int = 0


def bars(shares: Sequence[float], *, reference: float, alt: str) -> Html:
    """Return a histogram of a label's values from 1, and a line where all would be if uniform.

    Parameters
    ----------
    shares : sequence of float
        Of each value; they sum to 1.
    reference : float
        Height of the line.
    alt : str
        Words for those who do not see it.
    """
    width, height, foot, head = 272, 96, 16, 12
    most = max(*shares, reference, 1e-9)
    scale, step = (height - foot - head) / most, width / len(shares)
    marks = []
    for k, share in enumerate(shares):
        x, tall = k * step, share * scale
        bar = element(
            "rect",
            element("title", f"{k + 1}: {share:.1%}"),
            x=f"{x + 1:.1f}",
            y=f"{height - foot - tall:.1f}",
            width=f"{step - 2:.1f}",
            height=f"{tall:.1f}",
            class_="bar",
        )
        number = element(
            "text", str(k + 1), x=f"{x + step / 2:.1f}", y=height - 4, text_anchor="middle"
        )
        marks += [bar, number]
    level = height - foot - reference * scale
    line = element("path", d=f"M0 {level:.1f}H{width}", class_="reference")
    base = element("path", d=f"M0 {height - foot + 0.5}H{width}", class_="axis")
    top = element("text", f"{most:.0%}", x=0, y=9)
    return _svg(width, height, alt, *marks, base, line, top)


def curves(series: Sequence[Series], *, alt: str, unit: str, lowest: float | None = None) -> Html:
    """Return lines over 1, 2, 3 and so on, and a line at 0 where that is in sight.

    Parameters
    ----------
    series : sequence of Series
    alt : str
        Words for those who do not see it.
    unit : str
        What is counted across, such as ``epoch``.
    lowest : float, optional
        What lies below it is drawn on the lower edge.
    """
    width, height, left, foot, head = 440, 230, 40, 34, 8
    known = [value for one in series for value in one.values if value is not None]
    floor = -math.inf if lowest is None else lowest
    low, high = max(min([*known, 0.0]), floor), max([*known, 0.0])
    steps = ticks(low, high)
    low, high = min(low, steps[0]), max(high, steps[-1])
    longest = max([len(one.values) for one in series] + [1])

    def at(k: float, value: float) -> tuple[float, float]:
        across = (k - 1) / (longest - 1) if longest > 1 else 0.5
        up = (max(value, low) - low) / max(high - low, 1e-9)
        return left + across * (width - left - 8), height - foot - up * (height - foot - head)

    parts = []
    for value in steps:
        y = at(1, value)[1]
        parts.append(element("path", d=f"M{left} {y:.1f}H{width - 8}", class_="axis"))
        text = f"{value:g}"
        parts.append(element("text", text, x=left - 6, y=f"{y + 4:.1f}", text_anchor="end"))
    for k in ticks(1, longest):
        if k == int(k) and 1 <= k <= longest:
            x = at(k, low)[0]
            number = f"{k:g}"
            parts.append(
                element("text", number, x=f"{x:.1f}", y=height - foot + 15, text_anchor="middle")
            )
    parts.append(element("text", unit, x=width - 8, y=height - 4, text_anchor="end"))
    for one in series:
        points = [at(k, value) for k, value in enumerate(one.values, 1) if value is not None]
        parts.append(_line(points, one))
    return _svg(width, height, alt, *parts)


def _line(points: Sequence[tuple[float, float]], one: Series) -> Html:
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) if points else ""
    colour = f"var(--c{one.colour % COLOURS})"
    drawn = element(
        "path",
        d=path,
        fill="none",
        stroke=colour,
        stroke_width=1.2 if one.pattern else 2.4,
        stroke_dasharray=_DASHES[one.pattern % len(_DASHES)],
    )
    dots = (element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=2, fill=colour) for x, y in points)
    return element("g", element("title", one.name), drawn, dots)


def ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers that span an interval."""
    span = max(high - low, 1e-9)
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next((factor for factor in (1, 2, 5) if span / (factor * step) <= 5.01), 10)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def line_key(one: Series) -> Html:
    """Return the name of a series beside a piece of its line."""
    piece = _svg(28, 12, "", _line([(1, 6), (27, 6)], one), width=28, height=12)
    return element("span", piece, one.name, class_="key")


def mark_key(name: str, number: int) -> Html:
    """Return a name beside the mark of this number."""
    return element("span", _mark(number), name, class_="key")


def reference_key(name: str) -> Html:
    """Return a name beside the stroke that stands for a reference in `track`."""
    return element("span", _stroke(), name, class_="key")


def track(values: Sequence[float | None], *, reference: float | None = None) -> Html:
    """Return marks on a line from 0 to 1, one per value, and a stroke for what to compare with.

    Each mark lies a little lower than the one before, so that equal values are all seen.
    """
    marks = [] if reference is None else [_stroke(f"left:{_across(reference)}")]
    marks += [
        _mark(number, f"left:{_across(value)};top:{0.1 + _LOWER * number:.2f}rem")
        for number, value in enumerate(values)
        if value is not None
    ]
    height = 1.25 + _LOWER * (len(values) - 1)
    return element("div", marks, class_="track", style=f"height:{height:.2f}rem")


def _across(value: float) -> str:
    return f"{100 * min(max(value, 0.0), 1.0):.1f}%"


def _mark(number: int, style: str = "") -> Html:
    shape = element(
        "path",
        d=_MARKS[number % len(_MARKS)],
        fill=f"var(--c{number % COLOURS})",
        stroke="var(--paper)",
    )
    return _svg(16, 16, "", shape, width=16, height=16, style=style)


def _stroke(style: str = "") -> Html:
    return element("span", class_="stroke", style=style)


def tracks(rows: Iterable[tuple[str, Html]]) -> Html:
    """Return names and their tracks, row by row."""
    return element(
        "div", (joined(element("div", name), drawn) for name, drawn in rows), class_="tracks"
    )


def _svg(across: int, down: int, alt: str, *parts: str, **attributes: str | int | float) -> Html:
    told = {"role": "img", "aria_label": alt} if alt else {"aria_hidden": "true"}
    return element("svg", parts, viewBox=f"0 0 {across} {down}", **told, **attributes)
