"""Requests to stop: SIGTERM or Ctrl-C, remembered until the step is done."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from types import FrameType

from train.state import EXIT_STOPPED

GRACE = 25.0
"""Seconds that several ranks have for the end of a step; torchrun and Slurm kill after 30."""


class StopRequest:
    """A signal to stop, remembered until the step is done; a second one ends at once.

    Parameters
    ----------
    grace : float or None
        Seconds after which the process ends anyway: it may be waiting for a rank that is gone,
        deep inside a library where Python hears no signal. None waits for ever.
    """

    def __init__(self, *, grace: float | None = None) -> None:
        self.asked = False
        self._grace = grace
        self._ended = threading.Event()

    def __enter__(self) -> StopRequest:
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        if self._grace is not None:
            # The system writes to it at once, whatever the main thread is busy with.
            self._heard, self._written = socket.socketpair()
            self._written.setblocking(False)
            self._wakeup = signal.set_wakeup_fd(self._written.fileno(), warn_on_full_buffer=False)
            self._watcher = threading.Thread(target=self._watch, args=(self._grace,), daemon=True)
            self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        # One of several ranks that ends by an error is sent SIGTERM at once, but has still to
        # record why.
        ignored = kind is not None and self._grace is not None
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if ignored else handler)
        if self._grace is not None:
            signal.set_wakeup_fd(self._wakeup)
            self._written.close()
            self._watcher.join()
            self._heard.close()

    def _note(self, number: int, _: FrameType | None) -> None:
        self.asked = True
        signal.signal(number, signal.default_int_handler)

    def _watch(self, grace: float) -> None:
        heard = self._heard.recv(1)
        while heard and heard[0] not in (signal.SIGTERM, signal.SIGINT):
            heard = self._heard.recv(1)
        if not heard or self._ended.wait(grace):
            return
        print(
            f"train: no end of a step within {grace:.0f} s of being asked to stop; another rank "
            "may be gone. The last checkpoint stands. Run the same command again to go on.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT_STOPPED)
