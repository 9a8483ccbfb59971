"""Optical flow of a clip by one of several methods (paper, Sec. 3.2: classic coarse-to-fine flow).

A method is one entry of `METHODS`; nothing else needs to know it. Its module is imported when the
method is first asked for, so that nobody loads a solver for the name of another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from labelgen.errors import LabelgenError
from labelgen.geometry import SMALLEST_SIDE, frame_size_for_flow

if TYPE_CHECKING:
    import numpy as np

Parameters = Mapping[str, float]

DEFAULT_METHOD = "tvl1"
PRECOMPUTED = "precomputed"
"""The method that reads flow in place of computing it, see `labelgen.flow.precomputed`."""
DEFAULT_BOUND = 20.0
"""Pixels that the largest level of its images stands for."""
FLOW_LAYOUTS = ("denseflow", "two-stream")
"""How flow images of a video lie: side by side, or in a folder for each component."""


@dataclasses.dataclass(frozen=True)
class FlowMethod:
    """A way to compute flow.

    Attributes
    ----------
    defaults : mapping
        Every parameter and its default; a value's type is the parameter's type.
    compute : callable
        Takes (T, H, W) uint8 grey frames and all parameters by name; returns (T-1, 2, H, W)
        float32 flow. None for flow that was computed before.
    check : callable
        Takes all parameters by name; raises ValueError for a value out of range.
    presets : mapping of mappings, optional
        Named parameters in place of some defaults.
    """

    defaults: Parameters
    compute: Callable[..., np.ndarray] | None
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
        As in `labelgen.geometry.frame_size_for_flow`.
    """

    method: str
    parameters: Parameters
    size: str = "clip"

    def as_dict(self) -> dict[str, Any]:
        """Return what the shard's ``flow`` attribute holds."""
        return {"method": self.method, "size": self.size, **self.parameters}


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
    known = flow_method(method)
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
    if known.compute is None and size != "clip":
        raise LabelgenError(
            f"the size of {method} flow is that of its images; leave --flow-size {size} away"
        )
    try:
        known.check(**values)
    except ValueError as error:
        raise LabelgenError(f"flow method {method}: {error}") from None
    return FlowSettings(method, values, size)


def parse_flow(text: str, *, size: str = "clip", bound: float | None = None) -> FlowSettings:
    """Return the settings that ``METHOD[:PRESET][,name=value...]`` describes.

    A colon or a comma may stand before the first ``name=value``. A `bound` is one more of them.

    Raises
    ------
    LabelgenError
        As `flow_settings`, or if a part is no ``name=value``.
    """
    method, *parts = text.replace(":", ",").split(",")
    preset = parts.pop(0) if parts and "=" not in parts[0] else ""
    parameters: dict[str, Any] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals:
            raise LabelgenError(f"--flow {text}: {part!r} is not name=value")
        parameters[name] = value
    if bound is not None:
        parameters["bound"] = bound
    return flow_settings(method, parameters, preset=preset, size=size)


def _typed(name: str, value: Any, *, kind: type) -> float:
    try:
        number = kind(value)
        # int(2.7) is 2 without a word.
        if not isinstance(value, str) and number != value:
            raise ValueError
        return number
    except (ValueError, TypeError, OverflowError):
        what = "a whole number" if kind is int else "a number"
        raise LabelgenError(f"flow parameter {name} must be {what}, got {value!r}") from None


@cache
def flow_method(name: str) -> FlowMethod:
    """Return a method by its name in `METHODS`."""
    return METHODS[name]()


def _tvl1() -> FlowMethod:
    from labelgen.flow.tvl1 import TVL1_PRESETS, Tvl1Settings, tvl1_flow

    return FlowMethod(
        dataclasses.asdict(Tvl1Settings()),
        lambda grey, **parameters: tvl1_flow(grey, Tvl1Settings(**parameters)),
        Tvl1Settings,
        {name: dataclasses.asdict(preset) for name, preset in TVL1_PRESETS.items()},
    )


def _brox() -> FlowMethod:
    from labelgen.flow.brox import BroxSettings, brox_flow

    return FlowMethod(
        dataclasses.asdict(BroxSettings()),
        lambda grey, **parameters: brox_flow(grey, BroxSettings(**parameters)),
        BroxSettings,
    )


def _opencv(function: str, **defaults: float) -> FlowMethod:
    from labelgen.flow import opencv

    compute = getattr(opencv, function)
    return FlowMethod(defaults, compute, partial(opencv.check, compute))


def _precomputed() -> FlowMethod:
    from labelgen.flow import precomputed

    return FlowMethod({"bound": DEFAULT_BOUND}, None, precomputed.check)


METHODS: Mapping[str, Callable[[], FlowMethod]] = {
    "tvl1": _tvl1,
    "brox": _brox,
    "opencv-tvl1": partial(
        _opencv,
        "tvl1_flow",
        **{
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
    ),
    "farneback": partial(
        _opencv,
        "farneback_flow",
        pyr_scale=0.5,
        levels=3,
        winsize=15,
        iterations=3,
        poly_n=5,
        poly_sigma=1.2,
    ),
    "dis": partial(_opencv, "dis_flow", preset=2),
    PRECOMPUTED: _precomputed,
}
"""The flow methods by name; docs/flow.md says when to use which."""
