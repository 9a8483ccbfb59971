"""The training loop: shards in, C3D checkpoint out (paper, Sec. 3.4 and 4.1).

    train pretrain --labels shards/ucf101-train1 --val shards/ucf101-test1 --out runs/ucf101
    torchrun --nproc-per-node 8 -m train.cli pretrain --labels shards/k400-train --recipe kinetics

Run the same command again to go on after a stop.
"""

from __future__ import annotations

import json
import math
import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from labelgen import LABELS, flip_labels
from labelgen.labels.crops import central_crop
from train import TrainError, checkpoint, log
from train.checkpoint import Progress
from train.data.dataset import ClipDataset, make_loader
from train.data.sampler import ClipSampler, ordered_batches, split_by_video
from train.data.shards import ShardSet, open_shards
from train.device import Machine, Ranks, StopRequest, choose_device, distributed, use_bf16
from train.metrics import LabelStats
from train.models.c3d import C3D
from train.models.heads import StatisticsNet, make_optimizer, set_rate
from train.recipe import Recipe, task_columns


class StoppedError(Exception):
    """SIGTERM or Ctrl-C: all is saved, the same command goes on."""


class NonFiniteLossError(Exception):
    """The loss is no longer a number; the last checkpoint is from before."""


@dataclass(frozen=True)
class Data:
    """Shards and the clips of them to train on and to hold out."""

    train: ShardSet
    train_clips: np.ndarray
    held: ShardSet | None
    held_clips: np.ndarray


def open_data(labels: str, val: str, *, recipe: Recipe) -> Data:
    """Open and check all shards; split by video where `val` is a fraction rather than a folder."""
    train = open_shards(labels)
    clips, held, held_clips = np.arange(train.clips), None, np.arange(0)
    try:
        fraction = float(val)
    except ValueError:
        held = open_shards(val)
        held_clips = np.arange(held.clips)
        if (held.profile, held.flow) != (train.profile, train.flow):
            raise TrainError(
                f"{labels} and {val} hold labels of different profiles or flows."
            ) from None
    else:
        if not 0 <= fraction < 1:
            raise TrainError(f"--val takes a folder or a fraction from 0 to below 1, not {val}.")
        if fraction:
            held = train
            clips, held_clips = split_by_video(train.videos(), fraction, seed=recipe.seed)
    if recipe.drop_still:
        clips = clips[train.motion_energy()[clips] >= recipe.drop_still]
        if held is not None:
            held_clips = held_clips[held.motion_energy()[held_clips] >= recipe.drop_still]
    if not len(clips) or (held is not None and not len(held_clips)):
        raise TrainError(
            f"--drop-still {recipe.drop_still} leaves no clips to train on or to hold out."
        )
    return Data(train, clips, held, held_clips)


def label_moments(data: Data) -> tuple[torch.Tensor, torch.Tensor]:
    """(27,) mean and standard deviation of the training labels, central crop and its flip."""
    stored = data.train.crop_labels(central_crop(data.train.crops))[data.train_clips]
    both = np.concatenate([stored, flip_labels(stored, profile=data.train.profile)]).astype(
        np.float64
    )
    # A constant label would divide by zero; it keeps its unit.
    std = np.where(both.std(axis=0) > 0, both.std(axis=0), 1.0)
    return torch.from_numpy(both.mean(axis=0)).float(), torch.from_numpy(std).float()


class Run:
    """One run on this rank: network, optimizer, data, and how far it is."""

    def __init__(
        self, data: Data, *, recipe: Recipe, machine: Machine, ranks: Ranks, device: torch.device
    ):
        self.data, self.recipe = data, recipe
        self.machine, self.ranks, self.device = machine, ranks, device
        self.columns = task_columns(recipe.tasks)
        chosen = [column for columns in self.columns.values() for column in columns]
        self.chosen = torch.tensor(chosen, device=device)
        self.progress = Progress()
        self._build_network()
        self._build_loaders()
        self.stats = self.new_stats()

    def _build_network(self) -> None:
        torch.manual_seed(self.recipe.seed)  # the same initial weights on every rank
        r = self.recipe
        backbone = C3D(batch_norm=r.batch_norm, pixels=r.pixels, width=r.width)
        outputs = {branch: len(columns) for branch, columns in self.columns.items()}
        self.net = StatisticsNet(outputs, backbone=backbone, init=r.init, width=r.width)
        mean, std = (moment[self.chosen.cpu()] for moment in label_moments(self.data))
        self.training_mean = mean
        if r.targets == "standard":
            self.net.mean.copy_(mean)
            self.net.std.copy_(std)
        if self.device.type == "cuda" and self.ranks.count > 1:
            self.net = nn.SyncBatchNorm.convert_sync_batchnorm(self.net)  # CUDA only in PyTorch
        self.net.to(self.device)
        # PyTorch's declarations do not know a layout as the only argument.
        self.net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.forward: nn.Module = self.net
        if self.machine.compiled:
            self.forward = cast(nn.Module, torch.compile(self.net))
        self.parallel = DistributedDataParallel(self.forward) if self.ranks.count > 1 else None
        self.optimizer = make_optimizer(
            self.net, lr=r.lr, momentum=r.momentum, weight_decay=r.weight_decay, bias_lr=r.bias_lr
        )
        self.bf16 = use_bf16(self.device, self.machine.precision)

    def _build_loaders(self) -> None:
        rank, ranks, data = self.ranks.rank, self.ranks.count, self.data
        workers, pin = self.machine.workers, self.device.type == "cuda"
        self.sampler = ClipSampler(
            data.train_clips, self.recipe.batch, seed=self.recipe.seed,
            accumulate=self.machine.accumulate, rank=rank, ranks=ranks,
        )  # fmt: skip
        drawn = ClipDataset(data.train, seed=self.recipe.seed, augment=True)
        self.loader = make_loader(drawn, self.sampler, workers=workers, pin=pin)
        self.held_loader = None
        if data.held is not None:
            size = self.recipe.batch // (ranks * self.machine.accumulate)
            batches = ordered_batches(data.held_clips, size, rank=rank, ranks=ranks)
            fixed = ClipDataset(data.held, augment=False)
            self.held_loader = make_loader(fixed, batches, workers=min(workers, 2), pin=pin)

    def new_stats(self) -> LabelStats:
        """Return empty statistics of the chosen labels."""
        labels = [LABELS[column] for column in self.chosen]
        names, cardinality = zip(*labels, strict=True)
        return LabelStats(names, cardinality, device=self.device)

    def predict(
        self, network: nn.Module, frames: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Move a batch to the device; return predictions and the chosen labels, (B, C) float32."""
        frames = frames.to(self.device, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True).float()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            predicted = network(frames)
        return predicted, labels[:, self.chosen]

    def loss(self, squares: torch.Tensor) -> torch.Tensor:
        """Weighted sum over branches of the mean of squared errors (..., C), in target units."""
        squares = squares / self.net.std**2
        total, first = torch.zeros((), device=squares.device), 0
        for branch, columns in self.columns.items():
            weight = getattr(self.recipe, f"{branch}_weight")
            total = total + weight * squares[..., first : first + len(columns)].mean()
            first += len(columns)
        return total

    def train_step(self, parts: list[list[torch.Tensor]]) -> torch.Tensor:
        """Gradients of one optimizer step; return this rank's loss."""
        loss = torch.zeros((), device=self.device)
        for index, (frames, labels, _) in enumerate(parts):
            last = index == len(parts) - 1
            # Ranks exchange gradients once a step, with its last part.
            with nullcontext() if last or not self.parallel else self.parallel.no_sync():
                predicted, wanted = self.predict(self.parallel or self.forward, frames, labels)
                part_loss = self.loss((predicted - wanted) ** 2) / len(parts)
                part_loss.backward()
            self.stats.add(predicted, wanted)
            loss += part_loss.detach()
        return loss

    def train_epoch(self, out: Path, stop: StopRequest, *, save_every: int) -> dict[str, float]:
        """Train to the end of the current epoch from wherever it stands; return speed figures."""
        progress, recipe, size = self.progress, self.recipe, self.machine.accumulate
        clock = log.Clock(
            epoch=progress.epoch, epochs=recipe.epochs, steps=self.sampler.steps,
            batch=recipe.batch, quiet=self.ranks.rank > 0,
        )  # fmt: skip
        set_rate(self.optimizer, recipe.rate(progress.epoch))
        self.sampler.start(progress.epoch, progress.step)
        self.net.train()
        batches = clock.waiting(self.loader)
        for _ in range(progress.step, self.sampler.steps):
            parts = [next(batches) for _ in range(size)]
            self.optimizer.zero_grad()
            loss = self.train_step(parts)
            # One wait for the device per step, so that no step is taken on a loss nobody has seen
            # and all ranks stop at the same step.
            status = torch.stack([loss, torch.tensor(float(stop.asked), device=self.device)])
            total, stopping = self.ranks.sum(status).tolist()
            self._check_finite(total, parts)
            self.optimizer.step()
            progress.step += 1
            clock.tick(progress.step, total / self.ranks.count)
            if stopping or (save_every and progress.step % save_every == 0):
                self.save(out / "last.pt")
            if stopping:
                raise StoppedError(
                    f"Stopped in epoch {progress.epoch + 1} after step {progress.step}."
                )
        return clock.speed()

    def _check_finite(self, loss: float, parts: list[list[torch.Tensor]]) -> None:
        if math.isfinite(loss):
            return
        where = [self.data.train.locate(int(clip)) for part in parts for clip in part[2]]
        clips = ", ".join(f"{shard.path.name}:{row}" for shard, row in where)
        raise NonFiniteLossError(
            f"The loss is {loss} in epoch {self.progress.epoch + 1}, "
            f"step {self.progress.step + 1}, on clips {clips}; "
            "last.pt is from before. Try a lower --lr, or --batch-norm."
        )

    @torch.no_grad()
    def evaluate(self, stop: StopRequest) -> LabelStats:
        """Statistics of the held-out clips, central crop, over all ranks."""
        stats = self.new_stats()
        self.net.eval()
        for frames, labels, _ in self.held_loader or ():
            if stop.asked:
                raise StoppedError("Stopped while evaluating; the epoch's training is saved.")
            stats.add(*self.predict(self.forward, frames, labels))
        self.ranks.sum(stats.sums)
        return stats

    def finish_epoch(self, out: Path, stop: StopRequest, speed: dict[str, float]) -> dict[str, Any]:
        """Evaluate, log, keep the best; leave the run at the start of the next epoch."""
        self.save(out / "last.pt")  # so that nothing is lost if evaluation is cut short
        held = self.evaluate(stop) if self.held_loader is not None else None
        self.ranks.sum(self.stats.sums)
        figures = {
            "train": self.stats.report(self.training_mean),
            "held_out": held.report(self.training_mean) if held else None,
        }
        objective = self.loss((held or self.stats).mse()).item()
        record = {
            "epoch": self.progress.epoch + 1,
            "lr": self.recipe.rate(self.progress.epoch),
            "loss": self.loss(self.stats.mse()).item(),
            "held_out_loss": objective if held else None,
            **speed,
            **figures,
        }
        better = objective < self.progress.best
        history = [*json.loads(self.progress.history), record]
        self.progress = Progress(
            epoch=self.progress.epoch + 1,
            best=min(objective, self.progress.best),
            history=json.dumps(history),
        )
        self.stats = self.new_stats()
        for name in ("best.pt", "last.pt") if better else ("last.pt",):
            self.save(out / name)
        return record

    def save(self, path: Path) -> None:
        """Write a checkpoint from rank 0; every rank must call it, to add up the statistics."""
        sums = self.ranks.sum(self.stats.sums.clone())
        if self.ranks.rank == 0:
            checkpoint.save(
                path, model=self.net, optimizer=self.optimizer, sums=sums,
                progress=self.progress, recipe=self.recipe, labels=self.label_record(),
            )  # fmt: skip

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint, if there is one, exactly where it was made."""
        if not path.exists():
            return
        content = checkpoint.load(path)
        checkpoint.check_same(content, path, recipe=self.recipe, labels=self.label_record())
        self.net.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.progress = Progress(**content["progress"])
        if self.ranks.rank == 0:  # the sums are those of all ranks: one keeps them
            self.stats.sums.copy_(content["sums"])

    def label_record(self) -> dict[str, str]:
        """Which labels this run learns from, as far as it matters to what is learnt."""
        train, held = self.data.train, self.data.held
        return {
            "labels": train.config_hash,
            "clips": f"{len(self.data.train_clips)} of {train.clips}",
            "held-out labels": held.config_hash if held else "none",
            "held-out clips": str(len(self.data.held_clips)),
            "profile": train.profile,
            "flow": train.flow,
        }


def pretrain(
    *,
    labels: str,
    out: Path,
    val: str,
    recipe: Recipe,
    machine: Machine,
    save_every: int = 0,
    tensorboard: bool = False,
) -> None:
    """Pre-train C3D on label shards, or go on with it.

    Parameters
    ----------
    labels : str
        Shard folder, or folder/prefix.
    out : path
        Folder of the run: ``last.pt``, ``best.pt``, ``log.jsonl``, ``recipe.json``.
    val : str
        Held-out shards, or a fraction of the videos of `labels`; ``0`` for none.
    recipe, machine : frozen settings
        What is learnt, and how it is computed.
    save_every : int
        Steps between checkpoints inside an epoch; 0 saves at its end only.

    Raises
    ------
    TrainError
        A mistake of the user's: shards, device, batch, tasks, another run in `out`.
    StoppedError
        After SIGTERM or Ctrl-C; ``last.pt`` is written.
    NonFiniteLossError
        Before the step that would have spoilt the weights.
    """
    device = choose_device(machine.device)
    with distributed(device) as ranks, StopRequest() as stop:
        data = open_data(labels, val, recipe=recipe)
        run = Run(data, recipe=recipe, machine=machine, ranks=ranks, device=device)
        run.resume(out / "last.pt")
        chief = ranks.rank == 0
        if chief:
            out.mkdir(parents=True, exist_ok=True)
            (out / "recipe.json").write_text(json.dumps(recipe.as_dict(), indent=1) + "\n")
            trained, held = len(data.train_clips), len(data.held_clips)
            _say(f"{trained} clips to train on, {held} held out, on {device}")
        board = log.TensorBoard(out / "tensorboard") if tensorboard and chief else None
        while run.progress.epoch < recipe.epochs:
            speed = run.train_epoch(out, stop, save_every=save_every)
            record = run.finish_epoch(out, stop, speed)
            if chief:
                log.write_log(out / "log.jsonl", json.loads(run.progress.history))
                _say(log.summary(record))
            if board:
                board.add(record)
        if chief:
            print(log.table(json.loads(run.progress.history)[-1]))


def _say(line: str) -> None:
    print(f"\r{line}\x1b[K" if sys.stderr.isatty() else line, file=sys.stderr)


def default_workers(device: str) -> int:
    """Loader processes per rank: none where a CPU trains, else up to 8 of this rank's cores."""
    if choose_device(device).type == "cpu":
        return 0
    return min(8, max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
