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
