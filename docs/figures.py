"""Draw the figures of labels.md: partitions, and how the labels of one clip are found.

python docs/figures.py data/demo/bigbuckbunny.mp4 --start 32 --crop 8,45 docs/
"""

import argparse
import io
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from labelgen import clip_labels, motion_boundaries, optical_flow, read_clips
from labelgen.geometry import CROP_SIZE, OCTANTS, ORIENTATIONS
from labelgen.labels.appearance import block_scores
from labelgen.labels.partitions import BOUNDS, PARTITIONS
from labelgen.labels.table import LABELS
from labelgen.pictures.palette import COLOURS, STYLES, orientation_angle
from labelgen.pictures.view import block_anchor, window

_QUIET = "#777777"
_ALONG = {"u": "along x", "v": "along y"}
_NAMES = [label.name for label in LABELS]


class Measured(NamedTuple):
    """What the labels of one crop are decided by.

    Attributes
    ----------
    frames : (16, 112, 112, 3) uint8
    fields : dict of str to (2, 112, 112) float32
        M_u and M_v.
    means : dict of str to (3,) list of (B,) float64
        Mean magnitude of M_u and M_v in each block, for each partition.
    pairs : dict of str to (15,) float64
        Magnitude of each pair's own boundaries, summed over the crop.
    scores : list of (B,) float64
        Equation 2, for each partition.
    labels : dict of str to int
    """

    frames: np.ndarray
    fields: dict[str, np.ndarray]
    means: dict[str, list[np.ndarray]]
    pairs: dict[str, np.ndarray]
    scores: list[np.ndarray]
    labels: dict[str, int]


def measure(frames: np.ndarray, crop: tuple[int, int]) -> Measured:
    """Measure a clip, (16, 128, 171, 3) uint8, at one crop."""
    flow = optical_flow(frames)
    rows, columns = window(crop)
    m = motion_boundaries(flow)[:, rows, columns]
    fields = {"u": m[:2], "v": m[2:]}
    one_by_one = np.stack([motion_boundaries(flow[k : k + 1]) for k in range(len(flow))])
    cut = one_by_one[..., rows, columns].astype(np.float64)
    labels = clip_labels(frames, flow, np.array([crop]))[0].tolist()
    scores = block_scores(np.ascontiguousarray(frames[:, rows, columns]))
    return Measured(
        frames=frames[:, rows, columns],
        fields=fields,
        means={
            c: [block_means(np.hypot(*m), p.masks) for p in PARTITIONS] for c, m in fields.items()
        },
        pairs={
            c: np.hypot(cut[:, k], cut[:, k + 1]).sum(axis=(1, 2)) for c, k in (("u", 0), ("v", 2))
        },
        scores=[scores[a:b] for a, b in pairwise(BOUNDS.tolist())],
        labels=dict(zip(_NAMES, labels, strict=True)),
    )


def block_means(size: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return the mean of a (112, 112) array over each of B masks."""
    return np.array([size[mask].mean(dtype=np.float64) for mask in masks])


def bin_sums(field: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the magnitude of a field, (2, 112, 112), in each orientation bin over a block."""
    a, b = field[:, mask].astype(np.float64)
    angle = np.degrees(np.arctan2(-b, a)) % 360
    return np.bincount((angle // 45).astype(int), np.hypot(a, b), minlength=ORIENTATIONS)


def colour_counts(frames: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return how many pixels of a block, over all frames, have each of the eight colours."""
    red, green, blue = (frames[:, mask].reshape(-1, 3) >= 128).T.astype(int)
    return np.bincount(4 * (1 - blue) + 2 * red + green, minlength=OCTANTS)


def draw_partitions(frame: np.ndarray) -> Figure:
    """Draw the numbered blocks of each partition."""
    figure, panels = _panels(3)
    for axes, (name, masks, _) in zip(panels, PARTITIONS, strict=True):
        axes.imshow(frame, alpha=0.35)
        axes.set_title(f"{name}: {len(masks)} blocks")
        for number, mask in enumerate(masks, 1):
            _outline(axes, mask, colors="black", linewidths=1)
            row, column = block_anchor(mask)
            axes.text(column, row, str(number), ha="center", va="center", weight="bold")
    return figure


def draw_motion(seen: Measured) -> Figure:
    """Draw the mean of |M| in every block, for u and v, with the largest outlined."""
    figure, panels = _panels(3, 2)
    for axes, (c, k) in zip(panels, ((c, k) for c in "uv" for k in range(3)), strict=True):
        size = np.hypot(*seen.fields[c])
        axes.imshow(size, cmap="gray_r", vmax=1.6 * np.percentile(size, 99.5))
        axes.set_title(f"$M_{c}$ ({_ALONG[c]}), {PARTITIONS[k].name}")
        _write_blocks(axes, k, seen.means[c][k], "{:.2f}", {c: int(seen.means[c][k].argmax())})
    return figure


def draw_orientation(seen: Measured) -> Figure:
    """Draw the bins; those of a disc that moves to the right; those of a winning block."""
    figure, (wheel, disc, bars) = _panels(3)
    _draw_bins(wheel)
    rows, columns = np.mgrid[:CROP_SIZE, :CROP_SIZE] - (CROP_SIZE - 1) / 2
    flow = np.zeros((1, 2, CROP_SIZE, CROP_SIZE), np.float32)
    flow[0, 0] = 1 / (1 + np.exp((np.hypot(rows, columns) - 34) / 3))
    field = motion_boundaries(flow)[:2]
    size = np.hypot(*field)
    disc.imshow(size, cmap="gray_r", vmax=2 * size.max())
    disc.set_title("$M_u$ of a disc that moves to the right")
    for value in range(1, ORIENTATIONS + 1):
        turn = np.radians(orientation_angle(value, profile="paper"))
        way = np.array([np.cos(turn), -np.sin(turn)])
        middle = np.full(2, (CROP_SIZE - 1) / 2)
        _arrow(disc, middle - 43 * way, middle - 25 * way)
        disc.text(*(middle - 50 * way), str(value), ha="center", va="center", weight="bold")
    block = int(seen.means["u"][0].argmax())
    sums = bin_sums(seen.fields["u"], PARTITIONS[0].masks[block])
    _draw_bars(bars, sums, f"$M_u$ in block {block + 1} of the clip's grid", "orientation bin")
    return figure


def _draw_bins(axes) -> None:
    axes.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal")
    axes.set_title("the eight bins of 45 degrees")
    for value in range(1, ORIENTATIONS + 1):
        angle = np.radians(orientation_angle(value, profile="paper"))
        edge = np.radians(45 * (value - 1))
        axes.plot([0, np.cos(edge)], [0, np.sin(edge)], color=_QUIET, linewidth=0.8)
        _arrow(axes, (0.15 * np.cos(angle), 0.15 * np.sin(angle)), (np.cos(angle), np.sin(angle)))
        axes.text(
            1.17 * np.cos(angle),
            1.17 * np.sin(angle),
            str(value),
            ha="center",
            va="center",
            weight="bold",
        )


def draw_frames(seen: Measured) -> Figure:
    """Draw how large the boundaries of each pair of frames are."""
    figure, panels = _panels(2, height=2.3, width=9)
    for axes, c in zip(panels, "uv", strict=True):
        title = f"{_ALONG[c]}: {c}_frame = {seen.labels[f'motion/global/{c}_frame']}"
        _draw_bars(axes, seen.pairs[c], title, "pair of frames")
    return figure


def draw_appearance(seen: Measured) -> Figure:
    """Draw the score of every block, with the largest and the smallest outlined."""
    figure, panels = _panels(3)
    for k, axes in enumerate(panels):
        axes.imshow(seen.frames[8], alpha=0.5)
        axes.set_title(PARTITIONS[k].name)
        won = {"diverse": int(seen.scores[k].argmin()), "stable": int(seen.scores[k].argmax())}
        _write_blocks(axes, k, seen.scores[k], "{:.2f}", won)
    return figure


def draw_colours(seen: Measured) -> Figure:
    """Draw the octants of the RGB cube, and how many of a block's pixels each holds."""
    figure, (cube, bars) = _panels(2, height=2.6, width=9)
    cube.set(xlim=(-0.1, 4.1), ylim=(-0.3, 2.1))
    cube.set_title("the eight colours")
    for number, (name, shade) in enumerate(COLOURS, 1):
        row, column = divmod(number - 1, 4)
        box = cube.bar(column + 0.5, 0.7, 0.9, 1.2 - row, color=shade, edgecolor="black")[0]
        ink = "white" if name in ("blue", "dark", "red", "magenta") else "black"
        x, y = column + 0.5, box.get_y() + 0.35
        cube.text(x, y, f"{number}\n{name}", ha="center", va="center", color=ink)
    block = int(seen.scores[0].argmin())
    counts = colour_counts(seen.frames, PARTITIONS[0].masks[block])
    _draw_bars(bars, counts, f"pixels of block {block + 1} (D in the grid)", "colour")
    for bar, (_, shade) in zip(bars.patches, COLOURS, strict=True):
        bar.set(facecolor=shade, edgecolor="black")
    return figure


def _panels(columns: int, rows: int = 1, *, width: float = 9.0, height: float = 0.0):
    figure = Figure(figsize=(width, height or 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.title.set_size("medium")
    return figure, panels


def _outline(axes, mask: np.ndarray, **style) -> None:
    places = np.arange(-1, CROP_SIZE + 1)
    axes.contour(places, places, np.pad(mask.astype(float), 1), [0.5], **style)
    axes.set(xlim=(-1.5, CROP_SIZE + 0.5), ylim=(CROP_SIZE + 0.5, -1.5))


def _write_blocks(axes, k: int, values: np.ndarray, form: str, won: dict[str, int]) -> None:
    """Write a value into each block of partition k, and outline those that won."""
    for number, mask in enumerate(PARTITIONS[k].masks):
        _outline(axes, mask, colors=_QUIET, linewidths=0.6)
        row, column = block_anchor(mask)
        bold = number in won.values()
        axes.text(
            column,
            row,
            form.format(values[number]),
            ha="center",
            va="center",
            size=8,
            weight="bold" if bold else "normal",
            bbox={
                "boxstyle": "round,pad=0.1",
                "facecolor": "white",
                "edgecolor": "none",
                "alpha": 0.8,
            },
        )
    for what, number in won.items():
        style = STYLES[what]
        _outline(
            axes,
            PARTITIONS[k].masks[number],
            colors=style.colour,
            linewidths=3,
            linestyles=style.line,
        )


def _arrow(axes, begin, end) -> None:
    style = {"arrowstyle": "-|>", "color": STYLES["u"].colour, "linewidth": 2, "mutation_scale": 14}
    axes.annotate("", xy=tuple(end), xytext=tuple(begin), arrowprops=style)


def _draw_bars(axes, values: np.ndarray, title: str, what: str) -> None:
    """Draw values as bars that are numbered from 1; the highest has the colour of what wins."""
    numbers = np.arange(1, len(values) + 1)
    colours = [
        STYLES["u"].colour if k == values.argmax() else "#bbbbbb" for k in range(len(values))
    ]
    axes.bar(numbers, values, color=colours)
    axes.set(xticks=numbers, xlabel=what)
    axes.set_title(title)
    axes.spines["bottom"].set_visible(True)


def main(video: Path, folder: Path, *, start: int, crop: tuple[int, int]) -> None:
    """Draw all figures of one clip into a folder."""
    frames = next(frames for begin, frames in read_clips(video, stride=1) if begin == start)
    seen = measure(frames, crop)
    for name, figure in {
        "partitions": draw_partitions(seen.frames[8]),
        "motion": draw_motion(seen),
        "orientation": draw_orientation(seen),
        "frames": draw_frames(seen),
        "appearance": draw_appearance(seen),
        "colours": draw_colours(seen),
    }.items():
        stream = io.BytesIO()
        figure.savefig(stream, dpi=90)
        # Few colours make small files.
        small = Image.open(stream).convert("RGB").quantize(96)
        small.save(folder / f"labels-{name}.png", optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--crop", default="8,29")
    chosen = parser.parse_args()
    top, left = map(int, chosen.crop.split(","))
    main(chosen.video, chosen.folder, start=chosen.start, crop=(top, left))
