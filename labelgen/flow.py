"""Optical flow of a clip by one of several methods (paper, Sec. 3.2: classic coarse-to-fine flow).

A method is one entry of `METHODS`; nothing else needs to know it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from labelgen.errors import LabelgenError

Parameters = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class FlowMethod:
    """A way to compute flow.

    Attributes
    ----------
    summary : str
        One line for the help.
    defaults : mapping
        Every parameter and its default; a value's type is the parameter's type.
    solver : callable
        Makes, of all parameters, a function from two consecutive (H, W) uint8 grey frames to
        their (H, W, 2) float32 flow.
    """

    summary: str
    defaults: Parameters
    solver: Callable[[Parameters], Callable[[np.ndarray, np.ndarray], np.ndarray]]


@dataclasses.dataclass(frozen=True)
class FlowSettings:
    """A method with every one of its parameters."""

    method: str
    parameters: Parameters

    def as_dict(self) -> dict[str, Any]:
        """Return what the shard's ``flow`` attribute holds."""
        return {"method": self.method, **self.parameters}


def optical_flow(frames: np.ndarray, *, method: str = "tvl1", **parameters: float) -> np.ndarray:
    """Return the flow of each pair of consecutive frames.

    Parameters
    ----------
    frames : (T, H, W, 3) uint8
        RGB, T at least 2.
    method : str, optional
        A name of `METHODS`.
    **parameters
        Of the method, in place of its defaults.

    Returns
    -------
    (T-1, 2, H, W) float32
        u (right) and v (down) in pixels per frame; flow i goes from frame i to frame i + 1.

    Raises
    ------
    LabelgenError
        If the method or a parameter is unknown, or a value has the wrong type.
    ValueError
        If `frames` has another shape or type.
    """
    settings = flow_settings(method, parameters)
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[0] < 2 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(
            "frames must be (T, H, W, 3) uint8 RGB with T >= 2, "
            f"got {frames.dtype} of shape {frames.shape}"
        )
    return flow_of(frames, settings)


def flow_of(frames: np.ndarray, settings: FlowSettings) -> np.ndarray:
    """Return the flow of checked frames under complete settings; see `optical_flow`."""
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    solve = METHODS[settings.method].solver(settings.parameters)
    pairs = [solve(first, second) for first, second in pairwise(grey)]
    return np.ascontiguousarray(np.stack(pairs).transpose(0, 3, 1, 2))


def flow_settings(method: str, parameters: Mapping[str, Any] | None = None) -> FlowSettings:
    """Return a method with its defaults overridden by `parameters`.

    Raises
    ------
    LabelgenError
        If the method or a parameter is unknown, or a value has the wrong type.
    """
    if method not in METHODS:
        raise LabelgenError(f"unknown flow method {method!r}; use one of {', '.join(METHODS)}")
    defaults = METHODS[method].defaults
    values = dict(defaults)
    for name, value in (parameters or {}).items():
        if name not in defaults:
            raise LabelgenError(
                f"flow method {method} has no parameter {name!r}; it has {', '.join(defaults)}"
            )
        values[name] = _typed(name, value, kind=type(defaults[name]))
    return FlowSettings(method, values)


def parse_flow(text: str) -> FlowSettings:
    """Return the settings that ``METHOD[:name=value,...]`` describes.

    Raises
    ------
    LabelgenError
        As `flow_settings`, or if a part is no ``name=value``.
    """
    method, _, rest = text.partition(":")
    parameters = {}
    for part in filter(None, rest.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise LabelgenError(f"--flow {text}: {part!r} is not name=value")
        parameters[name] = value
    return flow_settings(method, parameters)


def _typed(name: str, value: Any, *, kind: type) -> float:
    try:
        return kind(value)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise LabelgenError(f"flow parameter {name} must be {what}, got {value!r}") from None


def _dual_tvl1(parameters: Parameters) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    solver = cv2.optflow.DualTVL1OpticalFlow_create()
    for name, value in parameters.items():
        getattr(solver, f"set{name.title().replace('_', '')}")(value)
    return lambda first, second: solver.calc(first, second, None)


def _farneback(parameters: Parameters) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda first, second: cv2.calcOpticalFlowFarneback(
        first, second, None, **parameters, flags=0
    )


def _dis(parameters: Parameters) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    solver = cv2.DISOpticalFlow_create(int(parameters["preset"]))
    # Built anew for each pair, the first flow is not reused: pairs do not depend on each other.
    return lambda first, second: solver.calc(first, second, None)


METHODS = {
    "tvl1": FlowMethod(
        "total variation and L1 data term (OpenCV's DualTVL1, about 4 s per clip)",
        {
            "tau": 0.25,
            "lambda": 0.15,
            "theta": 0.3,
            "scales_number": 5,
            "scale_step": 0.8,
            "warpings_number": 5,
            "epsilon": 0.01,
            "inner_iterations": 30,
            "outer_iterations": 10,
            "median_filtering": 5,
        },
        _dual_tvl1,
    ),
    "farneback": FlowMethod(
        "polynomial expansion (fast; few of its motion labels agree with TV-L1's)",
        {
            "pyr_scale": 0.5,
            "levels": 3,
            "winsize": 15,
            "iterations": 3,
            "poly_n": 5,
            "poly_sigma": 1.2,
        },
        _farneback,
    ),
    "dis": FlowMethod(
        "dense inverse search (fastest; few of its motion labels agree with TV-L1's)",
        {"preset": 2},
        _dis,
    ),
}
"""The flow methods by name."""
