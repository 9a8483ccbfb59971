"""The flow methods of OpenCV, for comparison and for those who have always used them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from labelgen.geometry import SMALLEST_SIDE


def check(compute: Callable[..., np.ndarray], **parameters: Any) -> None:
    """Raise ValueError unless a method takes its parameters: OpenCV looks at them only in use."""
    compute(np.zeros((2, SMALLEST_SIDE, SMALLEST_SIDE), np.uint8), **parameters)


def tvl1_flow(grey: np.ndarray, **parameters: float) -> np.ndarray:
    """DualTVL1 flow (T - 1, 2, H, W) float32 of grey frames (T, H, W) uint8."""
    solver = cv2.optflow.DualTVL1OpticalFlow_create()
    for name, value in parameters.items():
        getattr(solver, f"set{name.title().replace('_', '')}")(value)
    return _by_pairs(grey, lambda first, second: solver.calc(first, second, None))


def farneback_flow(grey: np.ndarray, **parameters: Any) -> np.ndarray:
    """Farneback flow (T - 1, 2, H, W) float32 of grey frames (T, H, W) uint8."""
    return _by_pairs(
        grey,
        lambda first, second: cv2.calcOpticalFlowFarneback(
            first, second, None, **parameters, flags=0
        ),
    )


def dis_flow(grey: np.ndarray, *, preset: int) -> np.ndarray:
    """DIS flow (T - 1, 2, H, W) float32 of grey frames (T, H, W) uint8."""
    solver = cv2.DISOpticalFlow_create(preset)
    return _by_pairs(grey, lambda first, second: solver.calc(first, second, None))


def _by_pairs(
    grey: np.ndarray, solve: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    try:
        pairs = [solve(first, second) for first, second in pairwise(grey)]
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(str(error)) from None
        size = f"{grey.shape[2]}x{grey.shape[1]}"
        what = error.err or error
        raise ValueError(f"OpenCV refuses this for frames of {size}: {what}") from None
    return np.ascontiguousarray(np.stack(pairs).transpose(0, 3, 1, 2))
