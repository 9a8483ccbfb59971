"""What every worker is doing, in a file that all processes map into memory.

A worker that died can tell nothing; what it was on can still be read here.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

_CLIPS, _VIDEO, _SINCE, _THREADS, _COLUMNS = range(5)
_NONE = -1


class Tally:
    """One row per task; the task's worker writes all of it but the number of threads.

    Parameters
    ----------
    file : Path
        Made by `create`.
    """

    def __init__(self, file: Path) -> None:
        self._rows = np.memmap(file, dtype=np.int64, mode="r+").reshape(-1, _COLUMNS)

    @classmethod
    def create(cls, file: Path, tasks: int) -> Tally:
        """Make a tally of tasks that have not begun, with one thread each."""
        rows = np.zeros((tasks, _COLUMNS), dtype=np.int64)
        rows[:, _VIDEO], rows[:, _THREADS] = _NONE, 1
        rows.tofile(file)
        return cls(file)

    def begin(self, task: int) -> None:
        """Count a task's clips from 0 again; no video has begun."""
        self._rows[task, _CLIPS], self._rows[task, _VIDEO] = 0, _NONE

    def begin_video(self, task: int, number: int) -> None:
        """Note that a task is now on its video of this number, 0-based."""
        self._rows[task, _SINCE] = time.monotonic_ns()
        self._rows[task, _VIDEO] = number

    def end_videos(self, task: int) -> None:
        """Note that a task is on no video any more."""
        self._rows[task, _VIDEO] = _NONE

    def add_clip(self, task: int) -> None:
        """Count one more clip of a task."""
        self._rows[task, _CLIPS] += 1

    def allow(self, task: int, threads: int) -> None:
        """Let a task use this many threads from its next clip on."""
        self._rows[task, _THREADS] = threads

    def threads(self, task: int) -> int:
        """Return how many threads a task may use."""
        return int(self._rows[task, _THREADS])

    def video(self, task: int) -> tuple[int, float] | None:
        """Return the number of the video that a task is on and the seconds since it began."""
        _, number, since, _ = self._rows[task].tolist()
        if number == _NONE:
            return None
        return number, (time.monotonic_ns() - since) / 1e9

    def clips(self) -> int:
        """Return the clips of all tasks."""
        return int(self._rows[:, _CLIPS].sum())
