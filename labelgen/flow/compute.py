"""Optical flow of the frames of a clip under given settings (paper, Sec. 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from labelgen.flow.methods import FlowSettings, flow_method, flow_settings
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


def clip_flow(
    frames: Sequence[Frame],
    settings: FlowSettings,
    *,
    previous: np.ndarray | None,
    stride: int,
) -> np.ndarray:
    """Return the flow (T-1, 2, 128, 171) float32 of a clip.

    Parameters
    ----------
    frames : sequence of Frame
        Of the clip; where they have grey frames of another size, flow is computed on those.
    settings : FlowSettings
    previous : (T-1, 2, 128, 171) float32 or None
        Flow of the clip that starts `stride` frames earlier; the pairs shared with it are kept.
    stride : int
        Frames from that clip's start to this one's.
    """
    shared = len(frames) - 1 - stride
    if previous is None or shared <= 0:
        return _flow(frames, settings)
    return np.concatenate([previous[-shared:], _flow(frames[shared:], settings)])


def _flow(frames: Sequence[Frame], settings: FlowSettings) -> np.ndarray:
    grey = [frame.grey for frame in frames if frame.grey is not None]
    if not grey:
        return flow_of(np.stack([frame.rgb for frame in frames]), settings)
    return resized_flow(flow_of_grey(np.stack(grey), settings), FRAME_SIZE)


def flow_of_grey(grey: np.ndarray, settings: FlowSettings) -> np.ndarray:
    """Return the flow of (T, H, W) uint8 grey frames; see `optical_flow`."""
    return flow_method(settings.method).compute(grey, **settings.parameters)


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
