"""Progress of a run: clips done, rate and time left, on a terminal or in plain lines."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_TERMINAL_SECONDS = 0.5
_PLAIN_SECONDS = 30.0
_UNITS = ("B", "kB", "MB", "GB", "TB")


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


class ProgressLine:
    """Prints progress until the ``with`` block ends, from a thread of its own.

    Parameters
    ----------
    done : callable
        Returns the number of clips done.
    expected : int
        About how many there will be; may be set anew.
    unit : str, optional
        What is counted.
    """

    def __init__(self, done: Callable[[], int], *, expected: int, unit: str = "clips") -> None:
        self._done = done
        self.expected = expected
        self._unit = unit
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

    def say(self, line: str) -> None:
        """Print a line that stays, above the progress."""
        sys.stderr.write(f"\r\x1b[K{line}\n" if self._terminal else f"{line}\n")
        sys.stderr.flush()

    def _run(self) -> None:
        while not self._stop.wait(_TERMINAL_SECONDS if self._terminal else _PLAIN_SECONDS):
            line = progress_text(
                self._done(),
                expected=self.expected,
                seconds=time.monotonic() - self._start,
                unit=self._unit,
            )
            sys.stderr.write(f"\r\x1b[K{line}" if self._terminal else f"{line}\n")
            sys.stderr.flush()


def each(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int, unit: str
) -> Iterator[Result]:
    """Yield what a function gives for each item, in order, and show progress.

    Parameters
    ----------
    function : callable
    items : sequence
    workers : int
        Threads.
    unit : str
        What the items are.
    """
    done = 0
    pool = ThreadPoolExecutor(max(workers, 1))
    try:
        with ProgressLine(lambda: done, expected=len(items), unit=unit):
            for result in pool.map(function, items):
                done += 1
                yield result
    finally:
        pool.shutdown(cancel_futures=True)


def progress_text(done: int, *, expected: int, seconds: float, unit: str = "clips") -> str:
    """Return one line of progress.

    Parameters
    ----------
    done, expected : int
        How many there are, and about how many there will be.
    seconds : float
        Since the start.
    unit : str, optional
        What is counted.
    """
    share = min(done / max(expected, 1), 1.0)
    text = f"{done} of about {max(expected, done)} {unit} ({share:.0%})"
    if not done:
        return text
    rate = done / seconds
    left = max(expected - done, 0) / rate
    return f"{text}, {rate:.2f} {unit}/s, {duration(left)} left"


def duration(seconds: float) -> str:
    """Return a time span for people: ``42 s``, ``3 min 05 s`` or ``7 h 12 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count_text(count: int, what: str) -> str:
    """Return how many there are of a thing for people: ``1 frame``, ``2 frames``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def size_text(count: float) -> str:
    """Return a number of bytes for people: ``512 B``, ``335.0 kB`` or ``1.2 TB``."""
    unit = 0
    while count >= 1000 and unit < len(_UNITS) - 1:
        count, unit = count / 1000, unit + 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"
