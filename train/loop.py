"""The training loop: a job in, a checkpoint of what it learnt out (paper, Sec. 3.4 and 4.1).

    train pretrain --labels shards/ucf101-train1 --val shards/ucf101-test1 --out runs/ucf101
    torchrun --nproc-per-node 8 --no-python train pretrain --labels shards/k400-train

Run the same command again to go on after a stop.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch

from train import NonFiniteError, StoppedError, TrainError, checkpoint, log
from train.checkpoint import Progress
from train.data.dataset import ClipDataset
from train.data.loader import Batch, Loader
from train.data.sampler import Order, Share, held_out_batches
from train.data.split import Data
from train.device import Machine, choose_device, keep_freed_memory
from train.job import Job
from train.models.heads import set_rate
from train.ranks import Ranks, distributed
from train.recipe import Recipe
from train.step import Learner, Pending
from train.stop import GRACE, StopRequest
from train.tasks.task import Figures

_ROUNDS = 16
"""Batches of an evaluation between two questions whether another rank was asked to stop."""


class _Launched(NamedTuple):
    """A step that the device may still be at: its 1-based number in the epoch, and its clips."""

    step: int
    clips: list[int]
    report: Pending


class Run:
    """One run on this rank: what it learns, from which clips, and how far it is.

    Attributes
    ----------
    progress : Progress
    figures : Figures
        Of the unfinished epoch.
    """

    def __init__(
        self,
        job: Job,
        data: Data,
        *,
        machine: Machine,
        ranks: Ranks,
        device: torch.device,
        out: Path,
        content: dict[str, Any] | None = None,
    ) -> None:
        recipe = job.recipe
        self.job, self.data, self.recipe, self.ranks, self.out = job, data, recipe, ranks, out
        self.device = device
        self.prepared = ranks.once(lambda: content["prepared"] if content else job.prepare(data))
        self.task = job.task(self.prepared, device)
        self.learner = Learner(
            self.task, recipe=recipe, machine=machine, ranks=ranks, device=device
        )
        self.share = Share(ranks.rank, ranks.count, machine.accumulate)
        clips_per_step = recipe.batch // recipe.views
        smallest = clips_per_step // (ranks.count * machine.accumulate) * recipe.views
        if max(smallest, 1) < job.least:  # a rank without a sample looks at one
            raise TrainError(
                f"--batch {recipe.batch} over {ranks.count} ranks and --accumulate "
                f"{machine.accumulate} leaves {smallest} samples at a time, and this needs "
                f"{job.least}; use a larger --batch."
            )
        self.order = Order(data.train_clips, clips_per_step, seed=recipe.seed)
        answers, held = job.answers(data, self.prepared)
        dataset = ClipDataset(answers, held, seed=recipe.seed, views=recipe.views)
        self.loader = Loader(
            dataset, workers=machine.workers, device=device, skip_bad=machine.skip_bad
        )
        self.progress, self.figures = Progress(), self.task.new_figures()
        self._ahead: _Launched | None = None
        if content:
            self._go_on(content)

    def _go_on(self, content: dict[str, Any]) -> None:
        self.learner.net.load_state_dict(content["model"])
        self.learner.optimizer.load_state_dict(content["optimizer"])
        self.progress = Progress(**content["progress"])
        if self.ranks.chief:  # the sums are those of all ranks: one keeps them
            self.figures.sums.copy_(content["sums"])

    def train_epoch(self, stop: StopRequest, *, save_every: int) -> dict[str, float]:
        """Train to the end of the current epoch from wherever it stands; return speed figures."""
        progress, recipe, steps = self.progress, self.recipe, self.order.steps
        clock = log.Clock(
            epoch=progress.epoch, epochs=recipe.epochs, steps=steps, batch=recipe.batch,
            quiet=not self.ranks.chief,
        )  # fmt: skip
        self.learner.net.train()
        keys = self.order.steps_of(progress.epoch, start=progress.step)
        batches = clock.waiting(self.loader.read(part for k in keys for part in self.share.of(k)))
        for step in range(progress.step + 1, steps + 1):
            parts = [next(batches) for _ in range(self.share.parts(self.order.batch))]
            before, self._ahead = self._ahead, self._launch(step, parts, stop)
            # The step before is looked at while the device is at this one.
            stopping = self._settle(before, clock) or self._asked_alone(stop)
            progress.step = step
            save = stopping or (save_every and step % save_every == 0)
            if save or step == steps:
                before, self._ahead = self._ahead, None
                stopping |= self._settle(before, clock)
            if save or stopping:
                self.save("last.pt")
            if stopping:
                self.ranks.all_raise(
                    StoppedError(f"Stopped in epoch {progress.epoch + 1} after step {step}.")
                )
        return clock.speed()

    def _launch(self, step: int, parts: list[Batch], stop: StopRequest) -> _Launched:
        # Dropout is a function of the step, and of nothing that a restart could lose.
        torch.manual_seed(self._noise(step))
        done = self.progress.epoch + (step - 1) / self.order.steps
        set_rate(self.learner.optimizer, self.recipe.rate(done))
        report = self.learner.step(parts, figures=self.figures, stopping=stop.asked)
        return _Launched(step, [clip for part in parts for clip in part.clips], report)

    def _noise(self, step: int) -> int:
        key = f"{self.recipe.seed} {self.progress.epoch} {step} {self.ranks.rank}"
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")

    def _asked_alone(self, stop: StopRequest) -> bool:
        # Several ranks stop together, once each has heard it from the report of a step.
        return self.ranks.count == 1 and stop.asked

    def _settle(self, launched: _Launched | None, clock: log.Clock) -> bool:
        """Look at the report of a step, if there is one; return whether all ranks shall stop."""
        if launched is None:
            return False
        report = launched.report.read()
        if not report.finite:
            places = map(self.data.train.locate, filter(lambda clip: clip >= 0, launched.clips))
            clips = ", ".join(f"{shard.path.name}:{row}" for shard, row in places)
            self._not_finite(
                f"The loss is {report.loss} and the norm of its gradient {report.grad_norm} in "
                f"epoch {self.progress.epoch + 1}, step {launched.step}, on clips {clips}"
            )
        clock.tick(launched.step, loss=report.loss, grad_norm=report.grad_norm)
        return report.stopping

    def _not_finite(self, what: str) -> None:
        self.ranks.all_raise(
            NonFiniteError(
                f"{what}; the last checkpoint, if there is one, is from before. Try a lower --lr, "
                "--clip-grad, or --batch-norm."
            )
        )

    @torch.no_grad()
    def evaluate(self, stop: StopRequest) -> Figures:
        """Figures of the held-out clips, central crop, over all ranks."""
        figures = self.task.new_figures()
        # Processes on CPUs have batch norm's running figures each of its own.
        self.ranks.copy_from_chief(list(self.learner.net.buffers()))
        self.learner.net.eval()
        size = -(-self.recipe.batch // (self.share.ranks * self.share.accumulate))
        batches = held_out_batches(self.data.held_clips, size, share=self.share)
        mine = self.loader.read(batches)
        # Each rank has as many rounds; a rank may have no batch left for the last one.
        for number in range(-(-len(self.data.held_clips) // (size * self.share.ranks))):
            if self.ranks.count == 1 or number % _ROUNDS == 0:
                self._stop_evaluating(stop)
            for batch in itertools.islice(mine, 1):
                figures.add(*self.learner.predict(batch))
        self._stop_evaluating(stop)
        self.ranks.sum(figures.sums)
        if figures.is_empty():
            self.ranks.all_raise(TrainError("Not one held-out clip can be read."))
        return figures

    def _stop_evaluating(self, stop: StopRequest) -> None:
        """Stop on all ranks if one was asked to."""
        if self.ranks.sum(torch.full((), float(stop.asked), device=self.device)):
            self.ranks.all_raise(
                StoppedError("Stopped while evaluating; the epoch's training is saved.")
            )

    def finish_epoch(self, stop: StopRequest, speed: dict[str, float]) -> dict[str, Any]:
        """Evaluate, keep the best; leave the run at the start of the next epoch."""
        self.save("last.pt")  # so that nothing is lost if evaluation is cut short
        held = self.evaluate(stop) if self.data.held is not None else None
        self.ranks.sum(self.figures.sums)
        if self.figures.is_empty():
            self.ranks.all_raise(TrainError("Not one training clip of this epoch can be read."))
        record = self._record(held, speed)
        objective = record["loss"] if held is None else record["held_out_loss"]
        if not math.isfinite(objective):
            self._not_finite(
                f"The held-out loss is {objective} after epoch {record['epoch']}, though every "
                "step's was finite"
            )
        better = objective < self.progress.best
        self.progress = Progress(
            epoch=record["epoch"],
            best=min(objective, self.progress.best),
            history=json.dumps([*json.loads(self.progress.history), record]),
        )
        self.figures = self.task.new_figures()
        for name in ("best.pt", "last.pt") if better else ("last.pt",):
            self.save(name)
        return record

    def _record(self, held: Figures | None, speed: dict[str, float]) -> dict[str, Any]:
        train = self.task.report(self.figures)
        held_out = self.task.report(held) if held else None
        planned = self.order.steps * self.recipe.batch + len(self.data.held_clips)
        counted = train["clips"] + (held_out["clips"] if held_out else 0)
        return {
            "epoch": self.progress.epoch + 1,
            "lr": self.recipe.rate(self.progress.epoch + (self.order.steps - 1) / self.order.steps),
            "loss": self.task.objective(self.figures),
            "held_out_loss": self.task.objective(held) if held else None,
            "left_out": planned - counted,
            **speed,
            "train": train,
            "held_out": held_out,
        }

    def save(self, name: str) -> None:
        """Write a checkpoint from rank 0; every rank must call it, after its last step's report."""
        if not self.learner.is_finite():
            self._not_finite(f"A weight is not finite after epoch {self.progress.epoch + 1}")
        sums = self.ranks.sum(self.figures.sums.clone())
        self.ranks.once(
            lambda: checkpoint.save(
                self.out / name, model=self.learner.net, optimizer=self.learner.optimizer,
                sums=sums, prepared=self.prepared, progress=self.progress, recipe=self.recipe,
                labels=self.job.record(self.data),
            )
        )  # fmt: skip

    @property
    def history(self) -> list[dict[str, Any]]:
        """Records of the finished epochs."""
        records: list[dict[str, Any]] = json.loads(self.progress.history)
        return records


def learn(
    job: Job,
    out: Path,
    *,
    machine: Machine,
    save_every: int = 0,
    tensorboard: bool = False,
) -> None:
    """Do a job, or go on with it.

    Parameters
    ----------
    job : Job
        What is learnt, of which shards.
    out : path
        Folder of the run: ``last.pt``, ``best.pt``, ``log.jsonl``, ``recipe.json``, ``state.json``.
    machine : Machine
        How it is computed.
    save_every : int
        Steps between checkpoints inside an epoch; 0 saves at its end only.

    Raises
    ------
    TrainError
        A mistake of the user's: shards, device, batch, tasks, another run in `out`.
    StoppedError
        After SIGTERM or Ctrl-C, with ``last.pt`` written; or another rank is gone.
    NonFiniteError
        The weights were left as they were.
    """
    recipe = job.recipe
    with ExitStack() as stack:
        device = choose_device(machine.device)
        keep_freed_memory(device)
        ranks = stack.enter_context(distributed(device))
        stop = stack.enter_context(StopRequest(grace=GRACE if ranks.count > 1 else None))
        data = ranks.together(job.open_data)
        record = ranks.together(lambda: job.record(data))
        told = {"save_every": str(save_every), "torch": torch.__version__}
        ranks.same({**record, **_told(recipe), **_told(machine), **told})
        content = ranks.once(lambda: _checkpoint(out, recipe=recipe, record=record))
        run = Run(job, data, machine=machine, ranks=ranks, device=device, out=out, content=content)
        stack.enter_context(run.loader)
        reporter = log.Reporter(out, task=run.task, tensorboard=tensorboard)
        ranks.once(lambda: reporter.begin(run.history, recipe=recipe, where=_where(data, device)))
        while run.progress.epoch < recipe.epochs:
            speed = run.train_epoch(stop, save_every=save_every)
            run.finish_epoch(stop, speed)
            ranks.once(lambda: reporter.epoch(run.history))
        ranks.once(lambda: reporter.end(run.history))


def _told(settings: Recipe | Machine) -> dict[str, str]:
    return {name: str(value) for name, value in vars(settings).items()}


def _checkpoint(out: Path, *, recipe: Recipe, record: dict[str, str]) -> dict[str, Any] | None:
    path = out / "last.pt"
    if not path.exists():
        if (out / "best.pt").exists():
            raise TrainError(
                f"{out} holds best.pt of an earlier run, and no last.pt to go on from; use another "
                "--out to start anew."
            )
        return None
    content = checkpoint.load(path)
    checkpoint.check_same(content, path, recipe=recipe, labels=record)
    return content


def _where(data: Data, device: torch.device) -> str:
    trained, held = len(data.train_clips), len(data.held_clips)
    return f"{trained} clips to train on, {held} held out, on {device}"
