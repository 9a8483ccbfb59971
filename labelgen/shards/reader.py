"""A shard open for reading, by whoever reads one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import h5py
import numpy as np

from labelgen.errors import LabelgenError


def open_shard(file: Path) -> h5py.File:
    """Open a shard, or an index over shards.

    A chunk holds a whole clip and is read once, so HDF5's chunk cache would only copy. Locking is
    best-effort because network file systems often have none.

    Raises
    ------
    OSError
        If it is absent or no HDF5 file.
    """
    return h5py.File(file, "r", rdcc_nbytes=0, locking="best-effort")


def read_frames(shard: h5py.File, row: int) -> np.ndarray:
    """Return the frames of a clip, (16, 128, 171, 3) uint8 RGB, however they are stored.

    Raises
    ------
    LabelgenError
        If there are none, or one of them cannot be decoded.
    """
    if "frames" not in shard:
        raise LabelgenError(
            f"{shard.filename} holds no frames (--frames none); extract with frames to see them"
        )
    stored = shard["frames"][row]
    if stored.dtype == np.uint8:
        return np.asarray(stored)
    images = [cv2.imdecode(jpeg, cv2.IMREAD_COLOR) for jpeg in stored]
    if any(image is None for image in images):
        raise LabelgenError(
            f"{shard.filename}: a frame of clip {row} cannot be decoded; labelgen verify says more"
        )
    return np.stack([cv2.cvtColor(image, cv2.COLOR_BGR2RGB) for image in images])


def clips_by_video(file: Path) -> Counter[str]:
    """Return how many clips of each video, by its path, a shard holds; none if it is damaged."""
    try:
        with open_shard(file) as shard:
            paths = shard["videos/path"].asstr()[:]
            counts = np.bincount(shard["clips/video"][:], minlength=len(paths))
            return Counter(dict(zip(paths, counts.tolist(), strict=True)))
    except (OSError, KeyError, RuntimeError, ValueError):
        return Counter()
