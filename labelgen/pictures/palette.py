"""Colours and words of pictures: of marks, of the eight dominant colours, of flow.

Marks have the colours of Okabe and Ito, which the colour-blind tell apart, and differ by line and
letter too, for print without colour.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from labelgen.geometry import ORIENTATIONS


class Style(NamedTuple):
    """How a mark looks: its colour, the pattern of its line and of its area, its letter."""

    colour: str
    line: str
    hatch: str
    letter: str


_MOTION, _DIVERSE, _STABLE = "#D55E00", "#0072B2", "#009E73"

STYLES = {
    "u": Style(_MOTION, "solid", "", "u"),
    "v": Style(_MOTION, "solid", "", "v"),
    "diverse": Style(_DIVERSE, "dashed", "///", "D"),
    "stable": Style(_STABLE, "dotted", "...", "S"),
}
"""By what a location label tells: its name's last part without ``_location``."""

COLOURS = (
    ("blue", "#4040c0"),
    ("cyan", "#40c0c0"),
    ("magenta", "#c040c0"),
    ("light", "#c0c0c0"),
    ("dark", "#404040"),
    ("green", "#40c040"),
    ("red", "#c04040"),
    ("yellow", "#c0c040"),
)
"""Name, and the colour in the middle, of each octant of the RGB cube, in the order of labels."""


def value_words(name: str, value: int, *, profile: str) -> str:
    """Return what a label's value stands for, such as ``45-90°``, ``8 to 9`` or ``red``.

    Parameters
    ----------
    name : str
        Of the label.
    value : int
        From 1.
    profile : {"paper", "authors"}

    Returns
    -------
    str
        Empty for places: they are what is drawn.
    """
    if name.endswith("_orientation"):
        first = orientation_angle(value, profile=profile) - 180.0 / ORIENTATIONS
        last = first + 360.0 / ORIENTATIONS
        return f"{first % 360:g}-{last if last <= 360 else last - 360:g}°"
    if name.endswith("_frame"):
        return f"{value} to {value + 1}"
    return COLOURS[value - 1][0] if name.endswith("color") else ""


def orientation_angle(value: int, *, profile: str) -> float:
    """Return the angle of M that an orientation label stands for, the middle of its bin.

    Parameters
    ----------
    value : int
        1..8.
    profile : {"paper", "authors"}

    Returns
    -------
    float
        Degrees in [0, 360), counterclockwise from the right as seen on the screen.
    """
    step = 360.0 / ORIENTATIONS
    if profile == "paper":
        return (value - 0.5) * step
    # The released code's derivatives have the other sign, and its angles run clockwise; its soft
    # bins are centred on multiples of 45 degrees.
    return (180.0 - (value - 1) * step) % 360.0


# From red by yellow, green, cyan, blue and magenta to red again: how many steps, the channel that
# is full, the one that changes, and whether it grows.
_STAGES = (
    *((15, 0, 1, 1), (6, 1, 0, -1), (4, 1, 2, 1)),
    *((11, 2, 1, -1), (13, 2, 0, 1), (6, 0, 2, -1)),
)


def _wheel() -> np.ndarray:
    parts = []
    for count, full, changing, sign in _STAGES:
        part = np.zeros((count, 3))
        part[:, full] = 1.0
        steps = np.arange(count) / count
        part[:, changing] = steps if sign > 0 else 1 - steps
        parts.append(part)
    return np.concatenate(parts)


_WHEEL = _wheel()


def flow_colours(flow: np.ndarray, *, longest: float) -> np.ndarray:
    """Return flow in the usual colours: direction as hue, white where nothing moves.

    Parameters
    ----------
    flow : (..., 2, H, W) float32
        u (right) and v (down).
    longest : float
        The displacement that has full colour; longer ones are darker.

    Returns
    -------
    (..., H, W, 3) uint8
        The colours of the wheel of Baker et al., "A Database and Evaluation Methodology for Optical
        Flow", IJCV 2011: red to the right, yellow downward.
    """
    u, v = np.moveaxis(flow, -3, 0) / max(longest, 1e-9)
    length = np.hypot(u, v)[..., None]
    place = (np.arctan2(-v, -u) / np.pi + 1) / 2 * (len(_WHEEL) - 1)
    low = np.floor(place).astype(int)
    share = (place - low)[..., None]
    hue = (1 - share) * _WHEEL[low] + share * _WHEEL[(low + 1) % len(_WHEEL)]
    colour = np.where(length <= 1, 1 - length * (1 - hue), 0.75 * hue)
    return (255 * colour).astype(np.uint8)
