"""What a run has come to, for whoever sees no exit code of its own: torchrun turns all into 1."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from labelgen.errors import LabelgenError
from labelgen.files import write_json
from labelgen.shards.claims import locked
from labelgen.shards.folder import RUN_FILE
from train import NonFiniteError, StoppedError, TrainError

EXIT_DONE, EXIT_ERROR, EXIT_MISTAKE, EXIT_NON_FINITE, EXIT_STOPPED = 0, 1, 2, 3, 75
"""75 is EX_TEMPFAIL: run the same command again."""

_FILE = "state.json"
_RUNNING = "running"


def exit_code(error: BaseException | None) -> int:
    """Return the exit code that stands for how a run ended; None: it is done."""
    if error is None:
        return EXIT_DONE
    for kind, code in (
        (StoppedError, EXIT_STOPPED),
        (KeyboardInterrupt, EXIT_STOPPED),
        (NonFiniteError, EXIT_NON_FINITE),
        (LabelgenError, EXIT_MISTAKE),
    ):
        if isinstance(error, kind):
            return code
    return EXIT_ERROR


def is_chief() -> bool:
    """Whether this process is rank 0, known before the ranks have met."""
    return int(os.environ.get("RANK", 0)) == 0


def write_running(out: Path, progress: str) -> None:
    """Record that a run is under way, and how far it is."""
    write_json(out / _FILE, {"state": _RUNNING, "message": progress})


@contextmanager
def recorded(out: Path) -> Iterator[None]:
    """Keep other runs out of a folder, and record there what becomes of the one in the block.

    It does so on rank 0 alone, for all of them. A process that is killed leaves its run running.

    Raises
    ------
    LabelgenError
        If another run uses the folder, it is a shard folder, or cannot be written to.
    """
    if not is_chief():
        yield
        return
    if (out / RUN_FILE).exists():
        raise TrainError(f"{out} holds shards; name another folder for the run with --out.")
    with locked(out):
        try:
            write_running(out, "beginning")
        except OSError as error:
            raise TrainError(f"{out} cannot be written to ({error.strerror}).") from None
        try:
            yield
        except BaseException as error:
            _write(out, exit_code(error), str(error) or type(error).__name__)
            raise
        _write(out, EXIT_DONE, "finished")


def _write(out: Path, code: int, message: str) -> None:
    # What became of the run matters more than that it cannot be recorded.
    try:
        write_json(out / _FILE, {"state": code, "message": message})
    except OSError as error:
        with suppress(OSError):
            print(f"{out / _FILE} cannot be written ({error.strerror})", file=sys.stderr)


def run_status(run: Path) -> tuple[str, int]:
    """Return what a run has come to as a sentence, and the exit code that stands for it.

    Raises
    ------
    TrainError
        There is no run.
    """
    try:
        content = json.loads((run / _FILE).read_text(encoding="utf-8"))
        state, message = content["state"], str(content["message"])
        code = EXIT_STOPPED if state == _RUNNING else int(state)
    except (OSError, ValueError, KeyError, TypeError):
        repeated = sorted(run.glob("seed-*"))
        below = f" below it, such as {repeated[0].name}" if repeated else ""
        raise TrainError(f"{run} holds no run; give the folder of one{below}.") from None
    if state != _RUNNING:
        return message, code
    try:
        with locked(run):
            return f"ended without a word, perhaps killed: {message}", code
    except LabelgenError:
        return f"running: {message}", code
