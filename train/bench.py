"""What limits a run: samples per second of the loader alone, the step alone, and both together."""

from __future__ import annotations

import itertools
import math
import os
import runpy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from train import TrainError
from train.data.answers import LabelAnswers
from train.data.dataset import ClipDataset
from train.data.loader import PREFETCH, Batch, Loader
from train.data.sampler import Order
from train.data.shards import ShardSet, open_shards
from train.device import Machine, choose_device, describe, use_bf16
from train.job import fields_in
from train.metrics import VALUES
from train.models.heads import set_rate
from train.ranks import Ranks
from train.recipe import PretrainRecipe
from train.step import Learner, Pending
from train.tasks.pretrain import Pretraining

ROUNDS = 5  # of turns between the loader and a baseline; the medians count


def run(
    labels: str,
    *,
    recipe: PretrainRecipe,
    machine: Machine,
    seconds: float,
    baseline: Path | None = None,
) -> str:
    """Measure and return a table for people; each line is measured for `seconds`.

    Parameters
    ----------
    labels : str
        Shards, as for `pretrain`.
    recipe, machine : frozen settings
        Batch, network and hardware.
    seconds : float
        Length of each measurement.
    baseline : path
        A Python file whose ``sampler(labels, folder)`` returns a function that loads one sample in
        another way; it may write to the folder. Both ways are timed in turns, on one core.
    """
    if not 0 < seconds < math.inf:
        raise TrainError(f"--seconds must be above 0 and finite, not {seconds}.")
    device = choose_device(machine.device)
    shards = open_shards(labels)
    bf16 = use_bf16(device, machine.precision)
    make_sampler = None if baseline is None else _sampler_of(baseline)
    step = Step(recipe, machine, device)
    fields = fields_in(shards, recipe, location=labels)
    with loader_of(shards, recipe=recipe, workers=0, device=device, fields=fields) as loader:
        drawn = next(batches(loader, shards, recipe=recipe))
    alone = rate(lambda: step(drawn), recipe.batch, seconds, finish=step.finish)
    workers = machine.workers
    with loader_of(shards, recipe=recipe, workers=workers, device=device, fields=fields) as loader:
        loads = batches(loader, shards, recipe=recipe)
        drain(loads, workers)
        loader_rate = rate(lambda: next(loads), recipe.batch, seconds)
        drain(loads, workers)
        both = rate(lambda: step(next(loads)), recipe.batch, seconds, finish=step.finish)
    frames = "JPEG" if shards.jpeg else "raw"
    lines = [
        f"{describe(device)}; {os.cpu_count()} cores; PyTorch {torch.__version__}",
        _line("loader alone", loader_rate, f"{frames} frames, {workers} workers"),
        _line("step alone", alone, f"{_precision(device, bf16=bf16)}, batch {recipe.batch}"),
    ]
    if bf16:
        plain = Step(recipe, replace(machine, precision="fp32", compiled=False), device, plain=True)
        slow = rate(lambda: plain(drawn), recipe.batch, seconds, finish=plain.finish)
        name = f"step, {_precision(device, bf16=False)} contiguous"
        lines.append(_line(name, slow, f"{alone / slow:.2f} x"))
    lines.append(_line("both", both))
    if make_sampler is not None and baseline is not None:
        lines += _compare(
            labels, shards, recipe, fields=fields, seconds=seconds, make_sampler=make_sampler,
            name=baseline.stem,
        )  # fmt: skip
    slower = "loader" if loader_rate < alone else "step"
    times = max(loader_rate, alone) / min(loader_rate, alone)
    lines.append(f"The {slower} limits: it is {times:.1f} times slower than the other.")
    return "\n".join(lines)


def _precision(device: torch.device, *, bf16: bool) -> str:
    if bf16:
        return "bf16"
    return "fp32" if device.type == "cpu" else "fp32, convolutions in TF32"


def _line(name: str, value: float, remark: str = "") -> str:
    return f"{name:<28}{value:10.1f} samples/s" + (f"  ({remark})" if remark else "")


def _sampler_of(baseline: Path) -> Callable[[str, Path], Callable[[], Any]]:
    try:
        make_sampler = runpy.run_path(str(baseline)).get("sampler")
    except Exception as error:
        raise TrainError(f"{baseline} cannot be run: {type(error).__name__}: {error}.") from None
    if not callable(make_sampler):
        raise TrainError(f"{baseline} defines no function sampler(labels, folder) to compare with.")
    return make_sampler


def _compare(
    labels: str,
    shards: ShardSet,
    recipe: PretrainRecipe,
    *,
    fields: tuple[str, ...],
    seconds: float,
    make_sampler: Callable[[str, Path], Callable[[], Any]],
    name: str,
) -> list[str]:
    ours, theirs = [], []
    with (
        loader_of(
            shards, recipe=recipe, workers=0, device=torch.device("cpu"), fields=fields
        ) as loader,
        tempfile.TemporaryDirectory() as folder,
    ):
        loads = batches(loader, shards, recipe=recipe)
        sample = make_sampler(labels, Path(folder))
        for _ in range(ROUNDS):
            ours.append(rate(lambda: next(loads), recipe.batch, seconds / ROUNDS))
            theirs.append(rate(sample, 1, seconds / ROUNDS))
    fast, slow = statistics.median(ours), statistics.median(theirs)
    return [
        _line("loader, one process", fast, f"best {max(ours):.0f}, worst {min(ours):.0f}"),
        _line(name, slow, f"{fast / slow:.0f} x slower"),
    ]


def loader_of(
    shards: ShardSet,
    *,
    recipe: PretrainRecipe,
    workers: int,
    device: torch.device,
    fields: tuple[str, ...] = (),
) -> Loader:
    """Return a loader of training samples, with `fields` of `LabelAnswers`."""
    dataset = ClipDataset(LabelAnswers(shards, fields=fields), seed=recipe.seed, views=recipe.views)
    return Loader(dataset, workers=workers, device=device)


def batches(loader: Loader, shards: ShardSet, *, recipe: PretrainRecipe) -> Iterator[Batch]:
    """Training batches without end, epoch after epoch."""
    order = Order(np.arange(shards.clips), recipe.batch // recipe.views, seed=recipe.seed)
    yield from loader.read(
        itertools.chain.from_iterable(order.steps_of(epoch) for epoch in itertools.count())
    )


def drain(loads: Iterator[Batch], workers: int) -> None:
    """Take what workers made ahead while they started: it took no time that is measured."""
    for _ in range(workers * PREFETCH + 1):
        next(loads)


class Step:
    """The loop's own step, at a learning rate of 0: a call launches one, and waits for the last.

    With `plain`, in float32 and with pixels in planes, as PyTorch does it unasked.
    """

    def __init__(
        self, recipe: PretrainRecipe, machine: Machine, device: torch.device, *, plain: bool = False
    ) -> None:
        moments = torch.stack([torch.zeros(27), torch.ones(27)])
        known = {"moments": moments, "counts": torch.ones(27, VALUES)}
        task = Pretraining(recipe, known=known, device=device)
        layout = torch.contiguous_format if plain else torch.channels_last_3d
        self._learner = Learner(
            task, recipe=recipe, machine=machine, ranks=Ranks(), device=device, layout=layout
        )
        self._learner.net.train()
        set_rate(self._learner.optimizer, 0.0)
        self._figures, self._plain = task.new_figures(), plain
        self._ahead: Pending | None = None

    def __call__(self, batch: Batch) -> None:
        """Take one step on a batch that is on the device."""
        if self._plain:
            planes = batch.frames.permute(0, 4, 1, 2, 3).contiguous()
            batch = batch._replace(frames=planes.permute(0, 2, 3, 4, 1))
        before, self._ahead = self._ahead, self._learner.step([batch], figures=self._figures)
        if before:
            before.read()

    def finish(self) -> None:
        """Wait for the last step."""
        if self._ahead:
            self._ahead.read()
            self._ahead = None


def rate(
    work: Callable[[], Any],
    samples: int,
    seconds: float,
    *,
    finish: Callable[[], Any] = lambda: None,
) -> float:
    """Return samples per second of `work`, which handles `samples` at a time, once warm."""
    work()
    finish()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        work()
        done += samples
    finish()
    return done / (time.perf_counter() - start)
