"""Progress of a run: clips done, rate and time left, on a terminal or in plain lines."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np

_TERMINAL_SECONDS = 0.5
_PLAIN_SECONDS = 30.0


class Stopwatch:
    """Seconds spent per stage.

    Attributes
    ----------
    seconds : Counter
        By stage name.
    """

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of a ``with`` block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start  # type: ignore[assignment]


class Tally:
    """Clips done by each of many tasks, in a file that several processes map into memory.

    Parameters
    ----------
    file : Path
        Holds one int64 per task; made by `create`.
    """

    def __init__(self, file: Path) -> None:
        self._counts = np.memmap(file, dtype=np.int64, mode="r+")

    @classmethod
    def create(cls, file: Path, tasks: int) -> Tally:
        """Make a tally of zeros."""
        np.zeros(tasks, dtype=np.int64).tofile(file)
        return cls(file)

    def add(self, task: int) -> None:
        """Count one more clip of a task; each task has one writer."""
        self._counts[task] += 1

    def total(self) -> int:
        """Return the clips of all tasks."""
        return int(self._counts.sum())


class ProgressLine:
    """Prints progress until the ``with`` block ends, from a thread of its own.

    Parameters
    ----------
    done : callable
        Returns the number of clips done.
    expected : int
        About how many there will be.
    """

    def __init__(self, done: Callable[[], int], *, expected: int) -> None:
        self._done = done
        self._expected = expected
        self._start = time.monotonic()
        self._stop = threading.Event()
        self._terminal = sys.stderr.isatty()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> ProgressLine:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _run(self) -> None:
        while not self._stop.wait(_TERMINAL_SECONDS if self._terminal else _PLAIN_SECONDS):
            line = progress_text(
                self._done(), expected=self._expected, seconds=time.monotonic() - self._start
            )
            sys.stderr.write(f"\r\x1b[K{line}" if self._terminal else f"{line}\n")
            sys.stderr.flush()


def progress_text(done: int, *, expected: int, seconds: float) -> str:
    """Return one line of progress.

    Parameters
    ----------
    done, expected : int
        Clips.
    seconds : float
        Since the start.
    """
    share = min(done / max(expected, 1), 1.0)
    text = f"{done} of about {max(expected, done)} clips ({share:.0%})"
    if not done:
        return text
    rate = done / seconds
    left = max(expected - done, 0) / rate
    return f"{text}, {rate:.2f} clips/s, {duration(left)} left"


def duration(seconds: float) -> str:
    """Return a time span for people: ``42 s``, ``3 min 05 s`` or ``7 h 12 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
