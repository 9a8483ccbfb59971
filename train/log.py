"""What a run tells: progress, one JSON line per epoch, a table, TensorBoard."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from labelgen.files import replacing, write_json
from labelgen.progress import duration
from train import TrainError
from train.recipe import Recipe
from train.state import write_running
from train.tasks.task import Task

LOG_FILE, RECIPE_FILE = "log.jsonl", "recipe.json"
SECONDS_BETWEEN_LINES = {True: 0.5, False: 60.0}  # on a terminal, in a file


class Clock:
    """Speed of one epoch: samples per second, the share of time spent waiting, time left."""

    def __init__(self, *, epoch: int, epochs: int, steps: int, batch: int, quiet: bool) -> None:
        self.epoch, self.epochs, self.steps = epoch, epochs, steps
        self.batch, self.quiet = batch, quiet
        self.start = self.said = time.monotonic()
        self.waited, self.done = 0.0, 0
        self.norms: list[float] = []

    def waiting(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Pass batches on, timing how long each took to come."""
        iterator = iter(batches)
        while True:
            before = time.monotonic()
            batch = next(iterator, None)
            self.waited += time.monotonic() - before
            if batch is None:
                return
            yield batch

    def tick(self, step: int, *, loss: float, grad_norm: float) -> None:
        """Count a step (1-based, in its epoch) and say so now and then, on stderr."""
        self.done += 1
        self.norms.append(grad_norm)
        now, terminal = time.monotonic(), sys.stderr.isatty()
        if self.quiet or now - self.said < SECONDS_BETWEEN_LINES[terminal]:
            return
        self.said = now
        steps_left = self.steps - step + (self.epochs - self.epoch - 1) * self.steps
        seconds = now - self.start
        rate = self.done * self.batch / seconds
        line = (
            f"epoch {self.epoch + 1}/{self.epochs}, step {step}/{self.steps}, loss {loss:.3f}, "
            f"{rate:.3g} samples/s, waiting {self.waited / seconds:.0%}, "
            f"{duration(steps_left * seconds / self.done)} left"
        )
        say(f"\r{line}\x1b[K" if terminal else f"{line}\n")

    def speed(self) -> dict[str, float]:
        """Figures for the log, over this epoch (since the restart, if it was resumed in it)."""
        seconds = max(time.monotonic() - self.start, 1e-9)
        return {
            "seconds": round(seconds, 2),
            "samples_per_second": round(self.done * self.batch / seconds, 4),
            "data_wait": round(self.waited / seconds, 4),
            "grad_norm": sum(self.norms) / max(len(self.norms), 1),
            "grad_norm_max": max(self.norms, default=0.0),
        }


def _write_log(path: Path, history: list[dict[str, Any]]) -> None:
    """Write all finished epochs, one JSON record a line; whole, so that resuming leaves no gap."""
    with replacing(path) as partial:
        partial.write_text(
            "".join(json.dumps(record) + "\n" for record in history), encoding="utf-8"
        )


def summary(record: dict[str, Any], *, task: Task) -> str:
    """One line for people about a finished epoch."""
    parts = [f"epoch {record['epoch']}: {record['samples_per_second']:.3g} samples/s"]
    for name in ("train", "held_out"):
        if record[name] is not None:
            parts.append(f"{name.replace('_', '-')} {task.headline(record[name])}")
    if record["left_out"]:
        parts.append(f"{record['left_out']} clips that cannot be read left out")
    return "; ".join(parts)


class Reporter:
    """Tells of a run: lines on stderr, ``log.jsonl``, ``state.json``, TensorBoard if asked for."""

    def __init__(self, out: Path, *, task: Task, tensorboard: bool) -> None:
        self._out, self._task, self._tensorboard = out, task, tensorboard
        self._board: TensorBoard | None = None

    def begin(self, history: list[dict[str, Any]], *, recipe: Recipe, where: str) -> None:
        """Say what begins, and bring the files up to what a checkpoint knows."""
        self._out.mkdir(parents=True, exist_ok=True)
        write_json(self._out / RECIPE_FILE, recipe.as_dict())
        self._epochs = recipe.epochs
        if self._tensorboard:
            self._board = TensorBoard(self._out / "tensorboard")
        self._write(history)
        _say_line(where)
        _say_line(self._task.explanation)

    def epoch(self, history: list[dict[str, Any]]) -> None:
        """Tell of an epoch that is finished."""
        self._write(history)
        _say_line(summary(history[-1], task=self._task))
        if self._board:
            self._board.add(history[-1])

    def end(self, history: list[dict[str, Any]]) -> None:
        """Print a table of held-out figures, else training ones, to stdout; say what comes next."""
        say(f"{self._task.table(history[-1]['held_out'] or history[-1]['train'])}\n", sys.stdout)
        run = shlex.quote(str(self._out))
        held = history[-1]["held_out"] is not None
        alone = "" if held else " (nothing was held out: its figures are of the training clips)"
        _say_line(
            f"{self._out} holds the run{alone}; next: train curve {run} -o curve.png, "
            + self._task.next_command.format(run=run)
        )

    def _write(self, history: list[dict[str, Any]]) -> None:
        if history:
            _write_log(self._out / LOG_FILE, history)
        write_running(self._out, f"{len(history)} of {self._epochs} epochs are done")


def say(text: str, file: TextIO | None = None) -> None:
    """Write to stderr, or another stream; that nobody listens any more ends no training."""
    stream = sys.stderr if file is None else file
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        # What is buffered would be tried, and fail, again when Python ends.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _say_line(line: str) -> None:
    say(f"\r{line}\x1b[K\n" if sys.stderr.isatty() else f"{line}\n")


class TensorBoard:
    """The same figures as the log, for TensorBoard."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise TrainError("--tensorboard needs the package; pip install tensorboard.") from None
        self.writer = SummaryWriter(str(folder))

    def add(self, record: dict[str, Any]) -> None:
        """Write one epoch."""
        for name in ("train", "held_out"):
            for tag, value in _scalars(record[name] or {}):
                self.writer.add_scalar(f"{name}/{tag}", value, record["epoch"])
        for figure, value in record.items():
            if isinstance(value, int | float):
                self.writer.add_scalar(f"run/{figure}", value, record["epoch"])
        self.writer.flush()


def _scalars(report: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the figures of a report, by names such as ``motion/mse``."""
    for figure, value in report.items():
        if isinstance(value, dict):
            for name, values in value.items():
                told = {tag: v for tag, v in values.items() if v is not None}
                macro = told.pop("macro", {})
                yield from ((f"{name}/{tag}".replace(": ", "/"), v) for tag, v in told.items())
                yield from ((f"{name}/macro/{t}", v) for t, v in macro.items() if v is not None)
        else:
            yield figure, value


def read_log(run: Path) -> list[dict[str, Any]]:
    """Finished epochs of a run.

    Raises
    ------
    TrainError
        The folder holds no log, or a damaged one.
    """
    path = run / LOG_FILE
    if not path.is_file():
        raise TrainError(
            f"There is no {path}; give the folder of a run of `train pretrain` or `train finetune`."
        )
    try:
        history = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        wanted = {"epoch", "train", "held_out"}
        if all(wanted <= record.keys() for record in history):
            return history
    except (OSError, ValueError, AttributeError):
        pass
    raise TrainError(f"{path} is damaged; going on with the run writes it again.")
