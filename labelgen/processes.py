"""Worker processes, which may die and be replaced, and the connection to each.

They are processes of their own rather than those of a pool, since a pool cannot say which worker
died on what, and takes all of them down with one.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

_SERVE = (
    "import sys; sys.path[:] = {path!r}; "
    "from {module} import serve; serve({channel}, parent={parent})"
)
_PR_SET_PDEATHSIG = 1


class WorkerProcess:
    """One process and the connection to it; begin it where `labelgen.signals.held`.

    Parameters
    ----------
    module : str
        Has a function ``serve(channel, *, parent)``, which the process runs: `channel` is the
        descriptor of its end of the connection, `parent` the number of this process.
    kept : sequence of int, optional
        Descriptors of files that it holds as well.

    Attributes
    ----------
    process : Popen
    connection : Connection
        Ended when the process is.
    """

    def __init__(self, module: str, *, kept: Sequence[int] = ()) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            code = _SERVE.format(
                path=sys.path, module=module, channel=theirs.fileno(), parent=os.getpid()
            )
            # Its output goes where messages go: what a command prints is nobody else's.
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                pass_fds=[theirs.fileno(), *kept],
                stdin=subprocess.DEVNULL,
                stdout=2,
            )
        self.connection = Connection(ours.detach())

    def send(self, what: Any) -> None:
        """Send something; that it has died meanwhile is found out when it is listened to."""
        with suppress(OSError):
            self.connection.send(what)

    def stop(self, *, patience: float = 0.0) -> int:
        """End it, if it does not end by itself in so many seconds, and return its exit code."""
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.connection.close()
        return code


def has_parent(parent: int) -> bool:
    """Return whether the process that this one was begun by is still there."""
    return os.getppid() == parent


def die_with_parent() -> None:
    """Ask the kernel for an end when the parent ends, however that does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def how_it_ended(code: int) -> str:
    """Return what an exit code of a process means, for people."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"died of {signal.Signals(-code).name}"
    except ValueError:
        return f"died of signal {-code}"
