"""What limits a run: clips per second of the loader alone, the step alone, and both together."""

from __future__ import annotations

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

from labelgen.geometry import CROP_SIZE
from train import TrainError
from train.data.dataset import ClipDataset, make_loader
from train.data.sampler import ClipSampler
from train.data.shards import ShardSet, open_shards
from train.device import Machine, choose_device, use_bf16
from train.models.c3d import C3D
from train.models.heads import StatisticsNet, make_optimizer
from train.recipe import BRANCHES, Recipe, task_columns

ROUNDS = 5  # of turns between the loader and a baseline; the medians count


def run(
    labels: str,
    *,
    recipe: Recipe,
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
    device = choose_device(machine.device)
    bf16 = use_bf16(device, machine.precision)
    shards = open_shards(labels)
    batch = recipe.batch
    loads = batches(shards, recipe=recipe, workers=machine.workers, pin=device.type == "cuda")
    step, plain = Step(recipe, machine, device, bf16=bf16), None
    if bf16:
        contiguous = replace(machine, compiled=False)
        plain = Step(recipe, contiguous, device, bf16=False, layout=torch.contiguous_format)
    clips = torch.randint(0, 256, (batch, 16, CROP_SIZE, CROP_SIZE, 3), dtype=torch.uint8)
    values = torch.randint(1, 5, (batch, 27), dtype=torch.uint8)

    loader = rate(lambda: next(loads), batch, seconds)
    alone = rate(lambda: step(clips, values), batch, seconds)
    both = rate(lambda: step(*next(loads)[:2]), batch, seconds)
    where = f"{device}, {'bf16' if bf16 else 'fp32'}, {machine.workers} workers, batch {batch}"
    lines = [
        f"{'loader alone':<28}{loader:10.1f} clips/s  ({'JPEG' if shards.jpeg else 'raw'} frames)",
        f"{'step alone':<28}{alone:10.1f} clips/s  ({where})",
        f"{'both':<28}{both:10.1f} clips/s",
        f"The {'loader' if loader < alone else 'step'} limits: "
        f"{max(loader, alone) / min(loader, alone):.1f} times slower than the other.",
    ]
    if plain is not None:
        slow = rate(lambda: plain(clips, values), batch, seconds)
        lines.insert(
            2, f"{'step, fp32 contiguous':<28}{slow:10.1f} clips/s  ({alone / slow:.2f} x)"
        )
    if baseline is not None:
        lines.append(_compare(labels, shards, recipe=recipe, seconds=seconds, baseline=baseline))
    return "\n".join(lines)


def _compare(
    labels: str, shards: ShardSet, *, recipe: Recipe, seconds: float, baseline: Path
) -> str:
    make_sampler = runpy.run_path(str(baseline)).get("sampler")
    if make_sampler is None:
        raise TrainError(f"{baseline} defines no function sampler(labels, folder) to compare with.")
    loads = batches(shards, recipe=recipe, workers=0, pin=False)
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        sample = make_sampler(labels, Path(folder))
        for _ in range(ROUNDS):
            ours.append(rate(lambda: next(loads), recipe.batch, seconds / ROUNDS))
            theirs.append(rate(sample, 1, seconds / ROUNDS))
    fast, slow = statistics.median(ours), statistics.median(theirs)
    return (
        f"{'loader, one process':<28}{fast:10.1f} clips/s  (best {max(ours):.0f}, worst "
        f"{min(ours):.0f})\n{baseline.stem:<28}{slow:10.1f} clips/s  ({fast / slow:.0f} x slower)"
    )


def batches(shards: ShardSet, *, recipe: Recipe, workers: int, pin: bool) -> Iterator[Any]:
    """Training batches without end, epoch after epoch."""
    sampler = ClipSampler(np.arange(shards.clips), recipe.batch, seed=recipe.seed)
    dataset = ClipDataset(shards, seed=recipe.seed, augment=True)
    loader = make_loader(dataset, sampler, workers=workers, pin=pin)
    while True:
        yield from loader
        sampler.start(sampler.epoch + 1, 0)


class Step:
    """One whole optimizer step, as the loop takes it, until the device is done."""

    def __init__(
        self,
        recipe: Recipe,
        machine: Machine,
        device: torch.device,
        *,
        bf16: bool,
        layout: torch.memory_format = torch.channels_last_3d,
    ) -> None:
        outputs = {branch: len(columns) for branch, columns in task_columns(BRANCHES).items()}
        backbone = C3D(batch_norm=recipe.batch_norm, width=recipe.width)
        net = StatisticsNet(outputs, backbone=backbone, width=recipe.width)
        self.net = net.to(device).to(memory_format=layout)  # type: ignore[call-overload]
        self.forward = torch.compile(self.net) if machine.compiled else self.net
        self.optimizer = make_optimizer(
            self.net, lr=1e-6, momentum=recipe.momentum, weight_decay=0.0, bias_lr=recipe.bias_lr
        )
        self.device, self.bf16, self.layout = device, bf16, layout

    def __call__(self, frames: torch.Tensor, labels: torch.Tensor) -> float:
        """(B, 16, 112, 112, 3) uint8 and (B, 27) uint8 -> loss."""
        frames = frames.to(self.device, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True).float()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            predicted = self.forward(frames)
        loss = ((predicted - labels) ** 2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def rate(work: Callable[[], Any], clips: int, seconds: float) -> float:
    """Clips per second of `work`, which handles `clips` at a time, after one unmeasured call."""
    work()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        work()
        done += clips
    return done / (time.perf_counter() - start)
