"""What a run has come to, for whoever sees no exit code of its own: torchrun turns all into 1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labelgen.errors import LabelgenError
from labelgen.files import write_json
from labelgen.shards.folder import locked
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
        (NonFiniteError, EXIT_NON_FINITE),
        (LabelgenError, EXIT_MISTAKE),
    ):
        if isinstance(error, kind):
            return code
    return EXIT_ERROR


def write_running(out: Path, progress: str) -> None:
    """Record that a run is under way, and how far it is."""
    _write(out, _RUNNING, progress)


@contextmanager
def recorded(out: Path) -> Iterator[None]:
    """Record how what is done in the block ends; a process that is killed leaves it running."""
    write_running(out, "beginning")
    try:
        yield
    except BaseException as error:
        _write(out, exit_code(error), str(error) or type(error).__name__)
        raise
    _write(out, EXIT_DONE, "finished")


def _write(out: Path, state: int | str, message: str) -> None:
    try:
        write_json(out / _FILE, {"state": state, "message": message})
    except OSError as error:
        raise TrainError(f"{out / _FILE} cannot be written ({error.strerror}).") from None


def run_status(run: Path) -> tuple[str, int]:
    """Return what a run has come to as a sentence, and the exit code that stands for it.

    Raises
    ------
    TrainError
        There is no run.
    """
    try:
        content = json.loads((run / _FILE).read_text(encoding="utf-8"))
        state, message = content["state"], content["message"]
    except (OSError, ValueError, KeyError, TypeError):
        raise TrainError(f"{run} holds no run; give the --out of `train pretrain`.") from None
    if state != _RUNNING:
        return message, int(state)
    try:
        with locked(run):
            pass
    except LabelgenError:
        return f"running: {message}", EXIT_STOPPED
    return f"ended without a word, perhaps killed: {message}", EXIT_STOPPED
