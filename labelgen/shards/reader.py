"""A shard open for reading, by whoever reads one."""

from __future__ import annotations

from pathlib import Path

import h5py


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
