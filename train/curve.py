"""The learning curve of a run as a PNG: explained variance over epochs (docs/learning.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from train import TrainError
from train.log import read_log

WIDTH, HEIGHT, MARGIN = 900, 520, 70
COLOURS = {"motion": (180, 90, 20), "appearance": (40, 60, 200)}  # BGR


def draw_curve(run: Path, output: Path) -> None:
    """Draw explained variance over epochs: a line per branch, thick held-out, thin training."""
    history = read_log(run)
    if not history:
        raise TrainError(f"{run} has no finished epoch to draw yet.")
    series = _series(history)
    values = [v for line in series.values() for v in line if v is not None]
    low, high = min([*values, 0.0]), max([*values, 0.1])
    image = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    _draw_axes(image, epochs=len(history), low=low, high=high)
    for row, ((name, branch), line) in enumerate(series.items()):
        points = [
            _place(i + 1, v, len(history), low, high) for i, v in enumerate(line) if v is not None
        ]
        colour, thick = COLOURS[branch], 3 if name == "held_out" else 1
        cv2.polylines(image, [np.array(points, np.int32)], False, colour, thick, cv2.LINE_AA)
        for point in points:
            cv2.circle(image, point, thick + 1, colour, -1, cv2.LINE_AA)
        label = f"{branch}, {name.replace('_', '-')}"
        cv2.line(
            image,
            (MARGIN + 12, 60 + 22 * row),
            (MARGIN + 40, 60 + 22 * row),
            colour,
            thick,
            cv2.LINE_AA,
        )
        _write(image, label, (MARGIN + 48, 65 + 22 * row))
    if not cv2.imwrite(str(output), image):
        raise TrainError(
            f"Could not write {output}; is its folder there, and the name one of an image?"
        )


def _series(history: list[dict[str, Any]]) -> dict[tuple[str, str], list[float | None]]:
    return {
        (name, branch): [
            record[name]["branches"][branch]["explained_variance"] for record in history
        ]
        for name in ("train", "held_out")
        if history[0][name]
        for branch in history[0][name]["branches"]
    }


def _place(epoch: float, value: float, epochs: int, low: float, high: float) -> tuple[int, int]:
    x = MARGIN + (WIDTH - 2 * MARGIN) * (epoch - 0.5) / epochs
    y = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (value - low) / (high - low)
    return round(x), round(y)


def _draw_axes(image: np.ndarray, *, epochs: int, low: float, high: float) -> None:
    _write(image, "explained variance of the labels (0: always the mean)", (MARGIN, 40))
    for value in sorted({0.0, *np.linspace(low, high, 6).tolist()}):
        y = _place(1, value, epochs, low, high)[1]
        shade = (0, 0, 0) if value == 0 else (220, 220, 220)
        cv2.line(image, (MARGIN, y), (WIDTH - MARGIN, y), shade, 1)
        _write(image, f"{value:.2f}", (18, y + 4))
    for epoch in range(1, epochs + 1, max(1, epochs // 10)):
        _write(
            image, str(epoch), (_place(epoch, low, epochs, low, high)[0] - 5, HEIGHT - MARGIN + 22)
        )
    _write(image, "epoch", (WIDTH // 2 - 20, HEIGHT - 18))


def _write(image: np.ndarray, text: str, place: tuple[int, int]) -> None:
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
