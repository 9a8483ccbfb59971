"""Optical flow of a clip by one of several methods (paper, Sec. 3.2: classic coarse-to-fine flow).

A method is one entry of `METHODS`; nothing else needs to know it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from labelgen.errors import LabelgenError
from labelgen.flow.brox import BroxSettings, brox_flow
from labelgen.flow.tvl1 import TVL1_PRESETS, Tvl1Settings, tvl1_flow
from labelgen.video.decode import SMALLEST_SIDE, frame_size_for_flow

Parameters = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class FlowMethod:
    """A way to compute flow.

    Attributes
    ----------
    defaults : mapping
        Every parameter and its default; a value's type is the parameter's type.
    compute : callable
        Takes (T, H, W) uint8 grey frames and all parameters by name; returns (T-1, 2, H, W)
        float32 flow.
    check : callable
        Takes all parameters by name; raises ValueError or cv2.error for a value out of range.
    presets : mapping of mappings, optional
        Named parameters in place of some defaults.
    """

    defaults: Parameters
    compute: Callable[..., np.ndarray]
    check: Callable[..., object]
    presets: Mapping[str, Parameters] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class FlowSettings:
    """A method with every one of its parameters, and the size of the frames it sees.

    Attributes
    ----------
    method : str
        A name of `METHODS`.
    parameters : mapping
        All of them.
    size : str
        As in `labelgen.video.decode.frame_size_for_flow`.
    """

    method: str
    parameters: Parameters
    size: str = "clip"

    def as_dict(self) -> dict[str, Any]:
        """Return what the shard's ``flow`` attribute holds."""
        return {"method": self.method, "size": self.size, **self.parameters}


def optical_flow(frames: np.ndarray, *, method: str = "tvl1", **parameters: float) -> np.ndarray:
    """Return the flow of each pair of consecutive frames.

    Parameters
    ----------
    frames : (T, H, W, 3) uint8
        RGB, T at least 2.
    method : str, optional
        A name of `METHODS`, and after a colon one of its presets if you like: ``tvl1:fast``.
    **parameters
        Of the method, in place of its defaults.

    Returns
    -------
    (T-1, 2, H, W) float32
        u (right) and v (down) in pixels per frame; flow i goes from frame i to frame i + 1.

    Raises
    ------
    LabelgenError
        If the method, preset or a parameter is unknown, or a value has the wrong type or range.
    ValueError
        If `frames` has another shape or type.
    """
    name, _, preset = method.partition(":")
    settings = flow_settings(name, parameters, preset=preset)
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[0] < 2 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(
            "frames must be (T, H, W, 3) uint8 RGB with T >= 2, "
            f"got {frames.dtype} of shape {frames.shape}"
        )
    return flow_of(frames, settings)


def flow_of(frames: np.ndarray, settings: FlowSettings) -> np.ndarray:
    """Return the flow of checked RGB frames under complete settings; see `optical_flow`."""
    return flow_of_grey(np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames]), settings)


def flow_of_grey(grey: np.ndarray, settings: FlowSettings) -> np.ndarray:
    """Return the flow of (T, H, W) uint8 grey frames; see `optical_flow`."""
    return METHODS[settings.method].compute(grey, **settings.parameters)


def resized_flow(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return flow (N, 2, H, W) resized to another height and width, its vectors scaled along."""
    height, width = size
    scale = (width / flow.shape[3], height / flow.shape[2])
    resized = [
        [
            cv2.resize(plane, (width, height)) * factor
            for plane, factor in zip(pair, scale, strict=True)
        ]
        for pair in flow
    ]
    return np.array(resized, dtype=np.float32)


def flow_settings(
    method: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    preset: str = "",
    size: str = "clip",
) -> FlowSettings:
    """Return a method with its defaults overridden by a preset, and that by `parameters`.

    Raises
    ------
    LabelgenError
        If the method, preset, size or a parameter is unknown, or a value has the wrong type or
        range.
    """
    if method not in METHODS:
        raise LabelgenError(f"unknown flow method {method!r}; use one of {', '.join(METHODS)}")
    known = METHODS[method]
    if preset and preset not in known.presets:
        presets = ", ".join(known.presets) or "none"
        raise LabelgenError(f"flow method {method} has no preset {preset!r}; it has {presets}")
    values = {**known.defaults, **known.presets.get(preset, {})}
    for name, value in (parameters or {}).items():
        if name not in values:
            raise LabelgenError(
                f"flow method {method} has no parameter {name!r}; it has {', '.join(values)}"
            )
        values[name] = _typed(name, value, kind=type(known.defaults[name]))
    frame_size_for_flow(size, (SMALLEST_SIDE, SMALLEST_SIDE))
    try:
        known.check(**values)
    except (ValueError, cv2.error) as error:
        raise LabelgenError(f"flow method {method} does not take {values}: {error}") from None
    return FlowSettings(method, values, size)


def parse_flow(text: str, *, size: str = "clip") -> FlowSettings:
    """Return the settings that ``METHOD[:PRESET][,name=value...]`` describes.

    A colon or a comma may stand before the first ``name=value``.

    Raises
    ------
    LabelgenError
        As `flow_settings`, or if a part is no ``name=value``.
    """
    method, *parts = text.replace(":", ",").split(",")
    preset = parts.pop(0) if parts and "=" not in parts[0] else ""
    parameters = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals:
            raise LabelgenError(f"--flow {text}: {part!r} is not name=value")
        parameters[name] = value
    return flow_settings(method, parameters, preset=preset, size=size)


def _typed(name: str, value: Any, *, kind: type) -> float:
    try:
        return kind(value)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise LabelgenError(f"flow parameter {name} must be {what}, got {value!r}") from None


def _trial(compute: Callable[..., np.ndarray]) -> Callable[..., object]:
    """Return a check that tries parameters on two small frames: OpenCV checks them only in use."""
    return functools.partial(compute, np.zeros((2, SMALLEST_SIDE, SMALLEST_SIDE), np.uint8))


def _by_pairs(
    grey: np.ndarray, solve: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    pairs = [solve(first, second) for first, second in pairwise(grey)]
    return np.ascontiguousarray(np.stack(pairs).transpose(0, 3, 1, 2))


def _tvl1(grey: np.ndarray, **parameters: Any) -> np.ndarray:
    return tvl1_flow(grey, settings=Tvl1Settings(**parameters))


def _brox(grey: np.ndarray, **parameters: Any) -> np.ndarray:
    return brox_flow(grey, settings=BroxSettings(**parameters))


def _opencv_tvl1(grey: np.ndarray, **parameters: float) -> np.ndarray:
    solver = cv2.optflow.DualTVL1OpticalFlow_create()
    for name, value in parameters.items():
        getattr(solver, f"set{name.title().replace('_', '')}")(value)
    return _by_pairs(grey, lambda first, second: solver.calc(first, second, None))


def _farneback(grey: np.ndarray, **parameters: Any) -> np.ndarray:
    return _by_pairs(
        grey,
        lambda first, second: cv2.calcOpticalFlowFarneback(
            first, second, None, **parameters, flags=0
        ),
    )


def _dis(grey: np.ndarray, *, preset: int) -> np.ndarray:
    solver = cv2.DISOpticalFlow_create(preset)
    return _by_pairs(grey, lambda first, second: solver.calc(first, second, None))


METHODS = {
    "tvl1": FlowMethod(
        dataclasses.asdict(Tvl1Settings()),
        _tvl1,
        Tvl1Settings,
        {name: dataclasses.asdict(preset) for name, preset in TVL1_PRESETS.items()},
    ),
    "brox": FlowMethod(dataclasses.asdict(BroxSettings()), _brox, BroxSettings),
    "opencv-tvl1": FlowMethod(
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
        _opencv_tvl1,
        _trial(_opencv_tvl1),
    ),
    "farneback": FlowMethod(
        {
            "pyr_scale": 0.5,
            "levels": 3,
            "winsize": 15,
            "iterations": 3,
            "poly_n": 5,
            "poly_sigma": 1.2,
        },
        _farneback,
        _trial(_farneback),
    ),
    "dis": FlowMethod({"preset": 2}, _dis, _trial(_dis)),
}
"""The flow methods by name; docs/flow.md says when to use which."""
