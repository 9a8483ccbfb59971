"""Clips of 16 consecutive frames cut from a video (paper, Sec. 3.4: non-overlapping clips)."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

from labelgen.geometry import CLIP_LENGTH, FRAME_SIZE
from labelgen.video.decode import Video

T = TypeVar("T")


def read_clips(
    path: str | os.PathLike[str],
    *,
    clip_length: int = CLIP_LENGTH,
    stride: int = CLIP_LENGTH,
    size: tuple[int, int] = FRAME_SIZE,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the clips of a video, holding no more than one clip in memory.

    Parameters
    ----------
    path : path-like
        The video file.
    clip_length : int, optional
        Frames per clip, at least 1.
    stride : int, optional
        Frames from the start of one clip to the start of the next, at least 1.
    size : (int, int), optional
        Height and width of the frames, in pixels.

    Yields
    ------
    start : int
        First frame of the clip in the video, 0-based.
    frames : (clip_length, H, W, 3) uint8
        RGB. An incomplete last clip is dropped.

    Raises
    ------
    VideoError
        If the video is missing, cannot be opened or gives not even one clip.
    ValueError
        If `clip_length`, `stride` or `size` is not positive.
    """
    if min(clip_length, stride, *size) < 1:
        raise ValueError(
            f"clip_length, stride and size must be positive, got {clip_length}, {stride}, {size}"
        )
    return _clips_of(Video(path, size=size), clip_length=clip_length, stride=stride)


def _clips_of(video: Video, *, clip_length: int, stride: int) -> Iterator[tuple[int, np.ndarray]]:
    with video:
        for start, frames in cut_clips(video, clip_length=clip_length, stride=stride):
            yield start, np.stack([frame.rgb for frame in frames])
        video.check_length(clip_length)


def cut_clips(
    frames: Iterable[T], *, clip_length: int, stride: int
) -> Iterator[tuple[int, list[T]]]:
    """Cut a stream of frames into clips.

    ::

        frame    0 1 2 3 4 5 6 7 8 9 10      clip_length 4, stride 3
        clip 0   x x x x
        clip 1         x x x x
        clip 2               x x x x         frame 10 starts no whole clip and is dropped

    Parameters
    ----------
    frames : iterable
        Consecutive frames.
    clip_length, stride : int
        As in `read_clips`.

    Yields
    ------
    (int, list)
        First frame of the clip, and its frames.
    """
    window: deque[T] = deque(maxlen=clip_length)
    for position, frame in enumerate(frames):
        window.append(frame)
        start = position - clip_length + 1
        if start >= 0 and start % stride == 0:
            yield start, list(window)
