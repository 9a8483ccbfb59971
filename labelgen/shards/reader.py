"""A shard open for reading, by whoever reads one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import h5py
import numpy as np


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


def clips_by_video(file: Path) -> Counter[str]:
    """Return how many clips of each video, by its path, a shard holds; none if it is damaged."""
    try:
        with open_shard(file) as shard:
            paths = shard["videos/path"].asstr()[:]
            counts = np.bincount(shard["clips/video"][:], minlength=len(paths))
            return Counter(dict(zip(paths, counts.tolist(), strict=True)))
    except (OSError, KeyError, RuntimeError, ValueError):
        return Counter()
