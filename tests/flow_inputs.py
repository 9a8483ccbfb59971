"""Frame pairs with known flow, for the tests of the flow solvers."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from numba import njit

SHARED = Path(os.environ.get("LABELGEN_SHARED", Path(__file__).parents[1] / "../shared"))
MIDDLEBURY = ("RubberWhale", "Dimetrodon", "Venus", "Grove2")


def from_python(kernel):
    """Compile an inner kernel once more, with an entry from Python."""
    return njit(error_model="numpy")(kernel.py_func)


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth random texture (H, W) float64, grey levels 0..255, as a function of its size."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return 255 * (smooth - smooth.min()) / np.ptp(smooth)


def warped_pair(u: float, v: float, height: int = 96, width: int = 120) -> np.ndarray:
    """Two frames (2, H, W) uint8: what is at (x, y) moves to (x + u, y + v)."""
    large = texture(height + 40, width + 40)
    y, x = np.mgrid[20 : 20 + height, 20 : 20 + width].astype(np.float32)
    later = cv2.remap(large, x - np.float32(u), y - np.float32(v), cv2.INTER_CUBIC)
    return np.stack([large[20:-20, 20:-20], later]).round().clip(0, 255).astype(np.uint8)


def zoomed_pair(factor: float, height: int = 96, width: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Two frames that differ by a zoom about the centre, and the flow (2, H, W) between them."""
    large = texture(height + 40, width + 40)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    from_x, from_y = (x - middle_x) / factor + middle_x, (y - middle_y) / factor + middle_y
    later = cv2.remap(large, from_x + 20, from_y + 20, cv2.INTER_CUBIC)
    frames = np.stack([large[20:-20, 20:-20], later]).round().clip(0, 255).astype(np.uint8)
    flow = np.stack([(factor - 1) * (x - middle_x), (factor - 1) * (y - middle_y)])
    return frames, flow.astype(np.float32)


def fast_pair(height: int = 480, width: int = 640) -> tuple[np.ndarray, np.ndarray]:
    """Two frames with motion of 20 pixels, and the flow (2, H, W) between them.

    Two textured ellipses move over a textured ground, each in a direction of its own, by no whole
    number of pixels. Textures have detail of all sizes.
    """
    margin = 30
    size = (height + 2 * margin, width + 2 * margin)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    frames = np.zeros((2, height, width), np.float32)
    flow = np.zeros((2, height, width), np.float32)
    things = (
        ((-6.3, 2.6), (0.5, 0.5), (2.0, 2.0)),  # the ground: larger than the frame
        ((19.2, 5.6), (0.3, 0.45), (0.2, 0.28)),
        ((-12.4, -15.7), (0.78, 0.68), (0.17, 0.22)),
    )
    for number, (motion, centre, radii) in enumerate(things):
        surface = rich_texture(*size, seed=number).astype(np.float32)
        for t, frame in enumerate(frames):
            at_x, at_y = x - np.float32(t * motion[0]), y - np.float32(t * motion[1])
            layer = cv2.remap(surface, at_x + margin, at_y + margin, cv2.INTER_CUBIC)
            away = np.hypot(
                at_x / width - centre[0], (at_y / height - centre[1]) * radii[0] / radii[1]
            )
            depth = (radii[0] - away) * width  # pixels from the edge, about
            frame += np.clip(depth + 0.5, 0, 1) * (layer - frame)
            if t == 0:
                flow[:, depth > 0] = np.float32(motion)[:, None]
    return frames.round().clip(0, 255).astype(np.uint8), flow


def rich_texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Random texture (H, W) float64 with detail of all sizes, grey levels 0..255."""
    random = np.random.default_rng(seed)
    layers = [
        cv2.GaussianBlur(random.normal(size=(height, width)), (0, 0), size)
        for size in (1.5, 4, 10, 25)
    ]
    total = sum(layer / layer.std() for layer in layers)
    return 255 * (total - total.min()) / np.ptp(total)


def middlebury(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Frames (2, H, W) uint8 and true flow (2, H, W), NaN where unknown; skips where absent."""
    folder = SHARED / "data" / "flow" / name
    if not folder.is_dir():
        pytest.skip(f"the Middlebury pair {folder} is absent (set LABELGEN_SHARED)")
    return read_middlebury(folder)


def read_middlebury(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Frames (2, H, W) uint8 of a Middlebury pair and its flow (2, H, W), NaN where unknown."""
    frames = [cv2.imread(str(folder / f"frame{i}.png"), cv2.IMREAD_GRAYSCALE) for i in (10, 11)]
    raw = (folder / "flow10.flo").read_bytes()
    width, height = np.frombuffer(raw[4:12], np.int32)
    truth = np.frombuffer(raw[12:], np.float32).reshape(height, width, 2).transpose(2, 0, 1)
    return np.stack(frames), np.where(np.abs(truth) > 1e9, np.nan, truth)


def endpoint_error(flow: np.ndarray, truth: np.ndarray, border: int = 0) -> float:
    """Mean endpoint error in pixels, without a border and where the truth is known."""
    inside = (slice(border, s - border) for s in flow.shape[1:])
    difference = (flow - truth)[(slice(None), *inside)]
    return float(np.nanmean(np.hypot(*difference)))
