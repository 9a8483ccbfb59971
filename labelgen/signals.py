"""Ctrl-C and SIGTERM: the first stops what is running, the next do not spoil the cleaning up.

Blocking signals in one thread would not do: another thread receives them, and Python then
interrupts the main thread all the same.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# People press Ctrl-C twice; but an interruption may also get lost in a callback from C, so that a
# later one must count again.
_DEAF_SECONDS = 3.0


class _State:
    stopped = float("-inf")  # when the last interruption was raised
    held = 0  # blocks that must run to their end
    waiting = False  # whether an interruption waits for the end of such a block


@contextmanager
def stop_once(*, at_end_of_process: bool = False) -> Iterator[None]:
    """Raise KeyboardInterrupt on the first Ctrl-C or SIGTERM, not on those that follow at once.

    In any thread but the main one, and inside another such block, nothing changes. A signal that
    is ignored, as in a job in the background, stays so.

    Parameters
    ----------
    at_end_of_process : bool, optional
        Whether nothing but the end of the process follows: once interrupted, it is not any more.
    """
    outer = signal.getsignal(signal.SIGTERM) is _stop
    if outer or threading.current_thread() is not threading.main_thread():
        yield
        return
    # None is a handler that somebody set from C.
    kept = (signal.SIG_IGN, None)
    chosen = [number for number in _SIGNALS if signal.getsignal(number) not in kept]
    _State.stopped = float("-inf")
    before = {number: signal.signal(number, _stop) for number in chosen}
    try:
        yield
    finally:
        ended = at_end_of_process and _State.stopped > float("-inf")
        _State.stopped = float("-inf")
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if ended else handler)


def raise_lost() -> None:
    """Raise KeyboardInterrupt if one was raised since `stop_once` began and got lost on its way."""
    if _State.stopped > float("-inf"):
        raise KeyboardInterrupt


@contextmanager
def held() -> Iterator[None]:
    """Let an interruption wait for the end of the block; a process started in it never hears one.

    Signals reach every process of a terminal, or of a batch job; the parent alone decides.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    _State.held += 1
    try:
        yield
    finally:
        _State.held -= 1
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if _State.waiting and not _State.held:
            _State.waiting = False
            raise KeyboardInterrupt


def _stop(number: int, frame: FrameType | None) -> None:
    if time.monotonic() - _State.stopped < _DEAF_SECONDS:
        return
    _State.stopped = time.monotonic()
    if _State.held:
        _State.waiting = True
        return
    raise KeyboardInterrupt
