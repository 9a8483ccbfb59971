"""The life of a worker process: it makes the shards it is given, and ends when its parent does."""

from __future__ import annotations

import os
import traceback
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection

from labelgen.processes import die_with_parent, has_parent

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
    die_with_parent()
    if not has_parent(parent):
        return
    # What takes long to import comes after there is somebody to end it.
    from labelgen.errors import Interrupted, LabelgenError
    from labelgen.run.worker import make_shard

    with Connection(channel) as connection, suppress(EOFError, ConnectionError, Interrupted):
        while True:
            task = connection.recv()
            try:
                connection.send(
                    make_shard(task, tell=connection.send, go_on=partial(has_parent, parent))
                )
            except LabelgenError as error:
                connection.send(error)
            except MemoryError:
                # A new process begins with all of its memory free; this one's may be in pieces.
                os._exit(_OUT_OF_MEMORY)
            except Exception:
                # What goes wrong inside a video is the video's; this is a defect of ours.
                connection.send(RuntimeError(f"in a worker process:\n{traceback.format_exc()}"))
