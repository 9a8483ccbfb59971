"""Optical flow of the frames of a clip under given settings (paper, Sec. 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from labelgen.errors import LabelgenError
from labelgen.flow.methods import FlowSettings, flow_method, flow_settings
from labelgen.flow.pyramid import resize
from labelgen.geometry import FRAME_SIZE
from labelgen.video.decode import Frame


def optical_flow(frames: np.ndarray, *, method: str = "tvl1", **parameters: float) -> np.ndarray:
    """Return the flow of each pair of consecutive frames.

    Parameters
    ----------
    frames : (T, H, W, 3) uint8
        RGB, T at least 2.
    method : str, optional
        A name of `labelgen.flow.methods.METHODS`, and after a colon one of its presets if you
        like: ``tvl1:fast``.
    **parameters
        Of the method, in place of its defaults.

    Returns
    -------
    (T-1, 2, H, W) float32
        u (right) and v (down) in pixels per frame; flow i goes from frame i to frame i + 1.

    Raises
    ------
    LabelgenError
        If the method, preset or a parameter is unknown, a value has the wrong type or range, or the
        method computes nothing.
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


def flow_of_frames(frames: Sequence[Frame], settings: FlowSettings) -> np.ndarray:
    """Return the flow of decoded frames under complete settings.

    Parameters
    ----------
    frames : sequence of T Frame
        Where they have grey frames of another size, flow is computed on those and then resized.
    settings : FlowSettings

    Returns
    -------
    (T-1, 2, 128, 171) float32
        In pixels of the 128x171 frame.
    """
    grey = [frame.grey for frame in frames if frame.grey is not None]
    if not grey:
        return flow_of(np.stack([frame.rgb for frame in frames]), settings)
    return resized_flow(flow_of_grey(np.stack(grey), settings), FRAME_SIZE)


def flow_of_grey(grey: np.ndarray, settings: FlowSettings) -> np.ndarray:
    """Return the flow of (T, H, W) uint8 grey frames; see `optical_flow`."""
    compute = flow_method(settings.method).compute
    if compute is None:
        raise LabelgenError(
            f"{settings.method} flow is read from images, not computed from frames; use "
            "labelgen.flow.precomputed.FlowImages, or another method"
        )
    return compute(grey, **settings.parameters)


def resized_flow(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return flow (N, 2, H, W) resized to another height and width, its vectors scaled along."""
    height, width = size
    ratios = (flow.shape[2] / height, flow.shape[3] / width)
    scale = np.array([width / flow.shape[3], height / flow.shape[2]], dtype=np.float32)
    planes = [resize(plane, size, ratios) for plane in flow.reshape(-1, *flow.shape[2:])]
    return np.stack(planes).reshape(len(flow), 2, height, width) * scale[:, None, None]
