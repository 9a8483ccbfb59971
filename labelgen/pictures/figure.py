"""One picture of a clip and its 27 labels: what the paper's Figures 3 to 5 show, for any clip."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labelgen.errors import LabelgenError
from labelgen.files import replacing
from labelgen.geometry import CLIP_LENGTH, CROP_SIZE, FRAME_SIZE
from labelgen.labels.partitions import PARTITIONS
from labelgen.labels.table import LABELS
from labelgen.pictures.palette import COLOURS, STYLES, flow_colours, value_words
from labelgen.pictures.view import ClipView, Mark, film_view, stored_view, window
from labelgen.shards.sequence import Shards

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Everything is placed in inches from the upper left corner, so that columns and rows line up.
_KINDS = ("png", "jpg", "pdf", "svg", "tif", "webp")
_WIDTH, _MARGIN, _GAP = 12.6, 0.2, 0.15
_PANEL = 1.8
_FRAME = _PANEL * FRAME_SIZE[1] / FRAME_SIZE[0]
_THUMB = (_WIDTH - 2 * _MARGIN) / CLIP_LENGTH
_THUMB_HEIGHT = _THUMB * FRAME_SIZE[0] / FRAME_SIZE[1]
_ROW = _PANEL + 0.42
_SMALL, _TEXT, _LARGE = 7.5, 8.5, 12
_QUIET = "#555555"
_MIDDLE = CLIP_LENGTH // 2
_ARROW = 17.0
_LONGEST = 44
_ROWS = (("u",), ("v",), ("diverse", "stable"))
_PROFILES = {"paper": "", "authors": "  |  labels of the released code"}
_ALONG = {"u": "x", "v": "y"}
_MEANING = """Ink: how much motion along {axis} changes from pixel
to pixel, over all 16 frames. Of each partition the
block with most of it, and which way motion grows there.
Above, the two frames between which it changes most."""
_STILL = "Nothing moves: the labels of motion are what\nties give, the first of all values."
_LEGEND = (
    "D, dashed: the block whose colours change most over the 16 frames.   S, dotted: least.   "
    "Squares: which of eight colours fills most of it."
)


def show(
    source: Path,
    output: Path,
    *,
    clip: int | None = None,
    video: str | None = None,
    start: int | None = None,
    crop: tuple[int, int] | None = None,
) -> ClipView:
    """Draw one clip of a shard folder, or of a video file.

    Parameters
    ----------
    source : Path
        A shard folder, or a video.
    output : Path
        The picture; its suffix says which kind.
    clip : int, optional
        The clip's number in the folder; 0 by default.
    video : str, optional
        In its place, the path of its video as the manifest has it.
    start : int, optional
        First frame in the video; by default its first clip.
    crop : (int, int), optional
        Top and left; by default the most central one that is stored.

    Returns
    -------
    ClipView
        What was drawn.

    Raises
    ------
    LabelgenError
        If there is no such clip or crop, or the picture cannot be drawn or written.
    """
    if source.is_file():
        if clip is not None or video is not None:
            raise LabelgenError(
                f"{source} is a video: --clip and --video choose from shards; say --start F"
            )
        view = film_view(source, start or 0, crop)
    else:
        shards = Shards(source)
        if video is not None:
            if clip is not None:
                raise LabelgenError("give --clip or --video, not both")
            clip = shards.find(video, start)
        elif start is not None:
            raise LabelgenError(f"--start {start} needs the --video that it is a frame of")
        view = stored_view(shards, clip or 0, crop)
    write_figure(view, output)
    return view


def write_figure(view: ClipView, output: Path) -> None:
    """Draw a view into a file; errors as of `show`."""
    kind = output.suffix[1:].lower()
    if kind not in _KINDS:
        raise LabelgenError(f"{output} is no name for a picture; end it in .{', .'.join(_KINDS)}")
    figure = clip_figure(view)
    try:
        with replacing(output) as partial:
            figure.savefig(partial, dpi=130, format=kind)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise LabelgenError(f"{output} cannot be written: {reason}") from None


def figure_png(view: ClipView, *, dpi: int) -> bytes:
    """Return the picture of a view as a PNG."""
    stream = io.BytesIO()
    clip_figure(view).savefig(stream, dpi=dpi, format="png")
    return stream.getvalue()


def clip_figure(view: ClipView) -> Figure:
    """Return the picture of a view, 12.6 inches wide.

    Raises
    ------
    LabelgenError
        If matplotlib is absent.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise LabelgenError(
            "a picture needs the package matplotlib; pip install matplotlib, or the extra "
            "'pictures'"
        ) from None
    strips = _THUMB_HEIGHT + 0.3 + (_THUMB_HEIGHT + 0.1 if view.flow is not None else 0)
    height = 0.5 + strips + 0.1 + 3 * _ROW + 0.3
    sheet = _Sheet(Figure(figsize=(_WIDTH, height)), height)
    # Whatever stands in a file's name is no formula.
    sheet.text(_MARGIN, 0.14, _title(view), size=_LARGE, weight="bold", parse_math=False)
    y = _draw_strips(sheet, view, 0.5)
    for what in _ROWS:
        _draw_row(sheet, view, what, y)
        y += _ROW
    _draw_legend(sheet, y + 0.05)
    return sheet.figure


class _Sheet:
    """A figure on which things are placed in inches from the upper left corner."""

    def __init__(self, figure: Figure, height: float) -> None:
        self.figure, self._height = figure, height

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        box = (x / _WIDTH, 1 - (y + height) / self._height, width / _WIDTH, height / self._height)
        axes = self.figure.add_axes(box)
        axes.set_axis_off()
        return axes

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        style = {"size": _TEXT, "va": "top", **style}
        self.figure.text(x / _WIDTH, 1 - y / self._height, text, **style)

    def line(self, xs: list[float], ys: list[float], **style: Any) -> None:
        from matplotlib.lines import Line2D

        across, down = np.array(xs) / _WIDTH, 1 - np.array(ys) / self._height
        self.figure.add_artist(Line2D(across, down, **style))

    def box(self, x: float, y: float, width: float, height: float, **style: Any) -> None:
        from matplotlib.patches import Rectangle

        corner = (x / _WIDTH, 1 - (y + height) / self._height)
        size = (width / _WIDTH, height / self._height)
        self.figure.add_artist(Rectangle(corner, *size, **style))


def _title(view: ClipView) -> str:
    top, left = view.crop
    still = ", a still clip" if _is_still(view) else ""
    # The end of a path tells more than its beginning.
    name = view.video if len(view.video) <= _LONGEST else f"...{view.video[3 - _LONGEST :]}"
    return (
        f"{name}, frames {view.start} to {view.start + CLIP_LENGTH - 1}{still}"
        f"  |  crop at top {top}, left {left}{_PROFILES[view.profile]}"
    )


def _is_still(view: ClipView) -> bool:
    return view.boundaries is not None and not view.boundaries.any()


def _draw_strips(sheet: _Sheet, view: ClipView, y: float) -> float:
    """Draw all frames, where motion is largest, and the flow; return how far down it went."""
    for t in range(CLIP_LENGTH):
        axes = sheet.axes(_MARGIN + t * _THUMB + 0.02, y, _THUMB - 0.04, _THUMB_HEIGHT)
        _show(axes, None if view.frames is None else view.frames[t])
        outlined = _halo("black", width=1.0)
        axes.text(7, 7, str(t + 1), size=_SMALL, color="white", va="top", path_effects=outlined)
    y += _THUMB_HEIGHT + 0.03
    if view.flow is not None:
        _draw_flow(sheet, view.flow, y + 0.04)
    below = y + 0.04 + (_THUMB_HEIGHT + 0.06 if view.flow is not None else 0)
    for k, (c, pair) in enumerate(view.pairs.items()):
        # Where both are largest in one pair, one bracket bears both letters.
        if k and pair == view.pairs["u"]:
            continue
        letters = ", ".join(name for name, other in view.pairs.items() if other == pair)
        middle = _MARGIN + pair * _THUMB
        ends = [middle - 0.5 * _THUMB + 0.05, middle + 0.5 * _THUMB - 0.05]
        colour = STYLES[c].colour
        sheet.line(
            [ends[0], ends[0], ends[1], ends[1]],
            [below, below + 0.06, below + 0.06, below],
            color=colour,
            linewidth=2,
        )
        sheet.text(middle, below + 0.09, letters, ha="center", color=colour, weight="bold")
    return below + 0.3


def _draw_flow(sheet: _Sheet, flow: np.ndarray, y: float) -> None:
    """Draw the flow of each pair between its two frames, and the wheel of its colours."""
    longest = float(np.percentile(np.hypot(flow[:, 0], flow[:, 1]), 99.5))
    for pair, colours in enumerate(flow_colours(flow, longest=longest)):
        x = _MARGIN + (pair + 0.5) * _THUMB + 0.02
        _show(sheet.axes(x, y, _THUMB - 0.04, _THUMB_HEIGHT), colours, edge=True)
    side = _THUMB / 2 - 0.06
    row, column = np.mgrid[-1:1:101j, -1:1:101j]
    wheel = flow_colours(np.stack([column, row]), longest=1.0)
    wheel[np.hypot(row, column) > 1] = 255
    axes = sheet.axes(_WIDTH - _MARGIN - side, y, side, side)
    axes.imshow(wheel)
    sheet.text(
        _WIDTH - _MARGIN - side / 2,
        y + side + 0.02,
        f"{longest:.1f} px",
        ha="center",
        size=6.5,
    )
    sheet.text(_MARGIN, y + 0.02, "flow", size=_SMALL, color=_QUIET)


def _draw_row(sheet: _Sheet, view: ClipView, what: tuple[str, ...], y: float) -> None:
    """Draw one kind of label: the whole frame, the crop under each partition, the numbers."""
    image, scale = _background(view, what[0])
    top, left = view.crop
    _caption_row(sheet, view, what[0], y)
    axes = sheet.axes(_MARGIN, y + 0.2, _FRAME, _PANEL)
    _show(axes, image, edge=True, **scale)
    x0, y0 = left - 0.5, top - 0.5
    box = [x0, x0 + CROP_SIZE], [y0, y0 + CROP_SIZE]
    across, down = [box[0][k] for k in (0, 1, 1, 0, 0)], [box[1][k] for k in (0, 0, 1, 1, 0)]
    axes.plot(across, down, color="black", linewidth=1.2, path_effects=_halo())
    x = _MARGIN + _FRAME + _GAP
    for partition in PARTITIONS:
        axes = sheet.axes(x, y + 0.2, _PANEL, _PANEL)
        _show(axes, image, window(view.crop), edge=True, **scale)
        _draw_edges(axes, partition.masks)
        marks = [m for m in view.marks if m.partition == partition.name and m.what in what]
        together = len({mark.block for mark in marks}) < len(marks)
        for number, mark in enumerate(marks):
            _draw_mark(axes, mark, shift=(2 * number - 1) * 9.0 if together else 0.0)
        _caption_panel(sheet, partition.name, marks, x, y)
        x += _PANEL + _GAP
    _write_numbers(sheet, view, what, x + 0.05, y + 0.19)


def _background(view: ClipView, what: str) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Return what labels are drawn over: magnitudes of M as ink on paper, or the middle frame."""
    if what in _ALONG and view.boundaries is not None:
        first = 2 * "uv".index(what)
        size = np.hypot(*view.boundaries[first : first + 2])
        most = max(float(np.percentile(size, 99.5)), 1e-9)
        return size, {"cmap": "gray_r", "vmin": 0, "vmax": 1.25 * most}
    return (None if view.frames is None else view.frames[_MIDDLE]), {}


def _show(
    axes: Axes,
    image: np.ndarray | None,
    part: tuple[slice, slice] = np.s_[:, :],
    *,
    edge: bool = False,
    **scale: Any,
) -> None:
    """Show an image or a part of it, or paper where there is none."""
    if image is None:
        image, scale = np.full((*FRAME_SIZE, 3), 235, np.uint8), {}
    axes.imshow(image[part], aspect="auto", **scale)
    axes.autoscale(False)
    if edge:
        axes.set_axis_on()
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color="#999999", linewidth=0.5)


def _draw_edges(axes: Axes, masks: np.ndarray) -> None:
    for mask in masks:
        for path in _outlines(mask):
            axes.plot(*path, color="#777777", linewidth=0.5, path_effects=_halo(width=1.1))


def _outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Return the closed lines around a block, each (2, P): x and y in the crop."""
    from contourpy import contour_generator

    lines = contour_generator(z=np.pad(mask.astype(float), 1)).lines(0.5)
    return [np.clip(np.asarray(line).T - 1, -0.5, CROP_SIZE - 0.5) for line in lines]


def _draw_mark(axes: Axes, mark: Mark, *, shift: float) -> None:
    style = STYLES[mark.what]
    for path in _outlines(mark.mask):
        axes.plot(
            *path, color=style.colour, linestyle=style.line, linewidth=2.2, path_effects=_halo()
        )
    row, column = mark.anchor
    if style.hatch:
        from matplotlib import rc_context

        padded = np.pad(mark.mask.astype(float), 1)
        places = np.arange(-1, CROP_SIZE + 1)
        with rc_context({"hatch.color": style.colour, "hatch.linewidth": 0.7}):
            axes.contourf(places, places, padded, [0.5, 1.5], colors="none", hatches=[style.hatch])
        axes.text(
            column + shift,
            row,
            style.letter,
            color=style.colour,
            size=_TEXT,
            weight="bold",
            ha="center",
            va="center",
            bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": style.colour},
        )
    if mark.angle is not None:
        turn = np.deg2rad(mark.angle)
        way = _ARROW / 2 * np.array([np.cos(turn), -np.sin(turn)])
        end, begin = np.array([column, row]) + way, np.array([column, row]) - way
        axes.annotate(
            "",
            xy=tuple(end),
            xytext=tuple(begin),
            arrowprops={
                "arrowstyle": "-|>",
                "mutation_scale": 13,
                "linewidth": 2,
                "color": style.colour,
                "shrinkA": 0,
                "shrinkB": 0,
                "path_effects": _halo(),
            },
        )


def _halo(colour: str = "white", *, width: float = 1.6) -> list[Any]:
    """Return what draws a line of another colour around another, to be seen on any picture."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.4 * width, foreground=colour)]


def _caption_row(sheet: _Sheet, view: ClipView, what: str, y: float) -> None:
    if what in _ALONG:
        pair = view.pairs[what]
        along = f"$M_{what}$, motion along {_ALONG[what]}"
        sheet.text(_MARGIN, y, f"{along}; most from {pair} to {pair + 1}")
        return
    name, colour = COLOURS[view.colour - 1]
    sheet.text(_MARGIN, y, f"frame {_MIDDLE + 1}; whole crop mostly {name}")
    sheet.box(_MARGIN + _FRAME - 0.14, y + 0.01, 0.13, 0.13, facecolor=colour, edgecolor="black")


def _caption_panel(sheet: _Sheet, partition: str, marks: list[Mark], x: float, y: float) -> None:
    sheet.text(x, y, partition, color=_QUIET)
    right = x + _PANEL
    for mark in reversed(marks):
        letter = STYLES[mark.what].letter
        text = f"{letter}: block {mark.block}"
        if mark.colour is not None:
            # The colour's name stands among the numbers.
            text, colour = f"{letter}: {mark.block}", COLOURS[mark.colour - 1][1]
            sheet.box(right - 0.1, y + 0.02, 0.1, 0.11, facecolor=colour, edgecolor="black")
            right -= 0.13
        sheet.text(right, y, text, ha="right", size=_SMALL, color=STYLES[mark.what].colour)
        right -= 0.058 * len(text) + 0.1


def _write_numbers(
    sheet: _Sheet, view: ClipView, what: tuple[str, ...], x: float, y: float
) -> None:
    """Write the labels of a row by name: value, number of values, and what the value stands for."""
    of_motion = what[0] in _ALONG
    chosen = [
        label
        for label in LABELS
        if (f"/{what[0]}_" in label.name if of_motion else label.name.startswith("appearance"))
    ]
    mono: dict[str, Any] = {"size": _SMALL, "family": "monospace"}
    for number, (name, cardinality) in enumerate(chosen):
        line, value = y + 0.139 * number, view.labels[name]
        sheet.text(x, line, name, **mono)
        sheet.text(x + 2.55, line, str(value), ha="right", weight="bold", **mono)
        sheet.text(x + 2.6, line, f"of {cardinality}", color=_QUIET, **mono)
        words = value_words(name, value, profile=view.profile) if value else "no motion"
        sheet.text(x + 2.98, line, words, **mono)
    if of_motion:
        meaning = _STILL if _is_still(view) else _MEANING.format(axis=_ALONG[what[0]])
        below = y + 0.139 * len(chosen) + 0.12
        sheet.text(x, below, meaning, size=_SMALL, color=_QUIET, linespacing=1.35)


def _draw_legend(sheet: _Sheet, y: float) -> None:
    sheet.text(_MARGIN, y, _LEGEND, size=_SMALL, color=_QUIET)
