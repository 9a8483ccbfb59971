"""The life of a worker process: it makes the shards it is given, and ends when its parent does."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection

SERVE = (
    "import sys; sys.path[:] = {path!r}; "
    "from labelgen.run.serve import serve; serve({channel}, parent={parent})"
)
"""What such a process runs."""

_PR_SET_PDEATHSIG = 1
_OUT_OF_MEMORY = 12  # ENOMEM


def serve(channel: int, *, parent: int) -> None:
    """Make shards until the connection closes.

    Parameters
    ----------
    channel : int
        Descriptor of the socket on which tasks come, and failures, reports and errors go.
    parent : int
        Process number of the parent.
    """
    _die_with_parent()

    def has_parent() -> bool:
        return os.getppid() == parent

    if not has_parent():
        return
    # What takes long to import comes after there is somebody to end it.
    from labelgen.errors import Interrupted, LabelgenError
    from labelgen.run.worker import make_shard

    with Connection(channel) as connection, suppress(EOFError, ConnectionError, Interrupted):
        while True:
            task = connection.recv()
            try:
                connection.send(make_shard(task, tell=connection.send, go_on=has_parent))
            except LabelgenError as error:
                connection.send(error)
            except MemoryError:
                # A new process begins with all of its memory free; this one's may be in pieces.
                os._exit(_OUT_OF_MEMORY)
            except Exception:
                # What goes wrong inside a video is the video's; this is a defect of ours.
                connection.send(RuntimeError(f"in a worker process:\n{traceback.format_exc()}"))


def _die_with_parent() -> None:
    """Ask the kernel for an end when the parent ends, however that does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
