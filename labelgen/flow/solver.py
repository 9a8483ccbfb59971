"""The coarse-to-fine skeleton of the flow solvers: which level when, and what one hands the next.

A method says what happens at one level; the order of levels and frame pairs stands here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Protocol, TypeVar

import numpy as np

from labelgen.flow.pyramid import enlarge, level_sizes, resize

Work = TypeVar("Work", bound="Sized")
Level = TypeVar("Level")


class Sized(Protocol):
    """Memory of one pyramid level, used again for every frame pair of a clip."""

    @property
    def height(self) -> int:
        """Of the level, in pixels."""

    @property
    def width(self) -> int:
        """Of the level, in pixels."""


class PyramidSettings(Protocol):
    """What the skeleton needs to know of a method's settings."""

    @property
    def scales(self) -> int:
        """Number of pyramid levels at most."""

    @property
    def scale_step(self) -> float:
        """Ratio of the sizes of two levels."""


class Solver(ABC, Generic[Work, Level]):
    """One method with its settings.

    Parameters
    ----------
    settings : PyramidSettings
        Of the method.
    """

    def __init__(self, settings: PyramidSettings) -> None:
        self._pyramid = settings

    @abstractmethod
    def make_workspace(self, height: int, width: int) -> Work:
        """Return the memory of one level."""

    @abstractmethod
    def prepare(self, frame: np.ndarray) -> np.ndarray:
        """Return the image (H, W) float32 that the pyramid of a grey frame (H, W) is made of."""

    @abstractmethod
    def make_level(self, image: np.ndarray) -> Level:
        """Return what `solve` reads of one level's image (h, w) float32."""

    @abstractmethod
    def start(self, work: Work) -> np.ndarray:
        """Clear what must not outlive a pair; return the flow in `work`, a view (2, h, w)."""

    @abstractmethod
    def solve(self, work: Work, level: Level, following: Level) -> None:
        """Improve the flow in `work`, from the frame of `level` to that of `following`."""

    def flow(self, grey: np.ndarray) -> np.ndarray:
        """Flow between consecutive frames of a clip.

        Parameters
        ----------
        grey : (T, H, W) uint8, T >= 2

        Returns
        -------
        flow : (T - 1, 2, H, W) float32
            Flow i takes the pixels of frame i to frame i + 1: channel 0 is u, to the right,
            channel 1 is v, down, in pixels per frame. Two equal frames give exactly zero.

        Raises
        ------
        ValueError
            If `grey` is not uint8 of that shape.
        """
        _check_grey(grey)
        pyramid = self._pyramid
        sizes = level_sizes(*grey.shape[1:], scales=pyramid.scales, step=pyramid.scale_step)
        works = [self.make_workspace(height, width) for height, width in sizes]
        flow = np.empty((len(grey) - 1, 2, *grey.shape[1:]), np.float32)
        # Each frame's levels serve two pairs.
        levels = self._levels(grey[0], sizes)
        for index, frame in enumerate(grey[1:]):
            following = self._levels(frame, sizes)
            flow[index] = self._pair_flow(levels, following, works)
            levels = following
        return flow

    def _levels(self, frame: np.ndarray, sizes: list[tuple[int, int]]) -> list[Level]:
        """Return the levels of a frame, the finest first."""
        image, scale = self.prepare(frame), 1 / self._pyramid.scale_step
        levels = [self.make_level(image)]
        for size in sizes[1:]:
            image = resize(image, size, (scale, scale))
            levels.append(self.make_level(image))
        return levels

    def _pair_flow(
        self, levels: list[Level], following: list[Level], works: list[Work]
    ) -> np.ndarray:
        """Return the flow (2, H, W) of one pair, from coarse to fine."""
        flow = np.zeros((2, works[-1].height, works[-1].width), np.float32)
        for level, after, work in reversed(list(zip(levels, following, works, strict=True))):
            inside = self.start(work)
            enlarge(flow, inside, self._pyramid.scale_step)
            self.solve(work, level, after)
            flow = np.ascontiguousarray(inside)
        return flow


def _check_grey(grey: np.ndarray) -> None:
    """Raise ValueError unless `grey` is (T >= 2, H >= 1, W >= 1) uint8."""
    found = f"{grey.dtype} of shape {grey.shape}" if isinstance(grey, np.ndarray) else type(grey)
    if not isinstance(grey, np.ndarray) or grey.dtype != np.uint8 or grey.ndim != 3:
        raise ValueError(f"Grey frames must be a uint8 array of shape (T, H, W), not {found}.")
    if grey.shape[0] < 2 or 0 in grey.shape:
        raise ValueError(f"Optical flow needs at least 2 frames of at least 1 pixel, not {found}.")
