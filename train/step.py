"""One optimizer step: predictions, gradients over all ranks, an update where all is finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from train.data.loader import Batch
from train.device import Machine, use_bf16
from train.models.heads import make_optimizer
from train.ranks import Ranks
from train.recipe import Recipe
from train.tasks.task import Figures, Task


class StepReport(NamedTuple):
    """What a step came to, the same on all ranks.

    Attributes
    ----------
    loss : float
        Mean over the batch.
    stopping : bool
        Whether a rank was asked to stop before the step.
    grad_norm : float
        Of all gradients together, before clipping.
    """

    loss: float
    stopping: bool
    grad_norm: float

    @property
    def finite(self) -> bool:
        """Whether the step changed the weights."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


class Pending:
    """A report that the device has yet to finish; reading it waits for that step and no later."""

    def __init__(self, values: torch.Tensor) -> None:
        self._values = values.to("cpu", non_blocking=True)
        self._copied = torch.cuda.Event() if values.is_cuda else None
        if self._copied:
            self._copied.record()

    def read(self) -> StepReport:
        """Wait for the step and return its report."""
        if self._copied:
            self._copied.synchronize()
        loss, stopping, norm = self._values.tolist()
        return StepReport(loss, stopping > 0, norm)


class Learner:
    """The network of a task on this rank's device, and how it learns.

    Attributes
    ----------
    net : torch.nn.Module
        The task's network.
    optimizer : torch.optim.Optimizer
    """

    def __init__(
        self,
        task: Task,
        *,
        recipe: Recipe,
        machine: Machine,
        ranks: Ranks,
        device: torch.device,
        layout: torch.memory_format = torch.channels_last_3d,
    ) -> None:
        self.task, self.net = task, task.net
        self._recipe, self._ranks, self._device, self._layout = recipe, ranks, device, layout
        self._bf16 = use_bf16(device, machine.precision)
        if device.type == "cuda" and ranks.count > 1:  # PyTorch has it for CUDA only
            nn.SyncBatchNorm.convert_sync_batchnorm(self.net)
        # PyTorch's declarations do not know a layout as the only argument.
        self.net.to(memory_format=layout)  # type: ignore[call-overload]
        self._forward: nn.Module = self.net
        if machine.compiled:
            self._forward = cast(nn.Module, torch.compile(self.net))
        self._parallel = DistributedDataParallel(self._forward) if ranks.count > 1 else None
        self.optimizer = make_optimizer(
            self.net,
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            bias_lr=recipe.bias_lr,
            decay=recipe.decay,
        )

    def predict(
        self, batch: Batch, *, network: nn.Module | None = None
    ) -> tuple[torch.Tensor, Any]:
        """Predictions (B, outputs) float32 and targets of a batch on the device.

        By `network`, which for gradients is the one that shares them among ranks.
        """
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            predicted = (network or self._forward)(batch.frames)
        return predicted, self.task.targets(batch)

    def step(self, parts: Sequence[Batch], *, figures: Figures, stopping: bool = False) -> Pending:
        """Take one step on this rank's share of a batch, without waiting for the device.

        Weights stay as they are where the loss or a gradient is not finite. Ranks exchange
        gradients once, with the last part; the loss is divided by the size of the whole batch, so
        that neither parts nor shares, however uneven, change the result.

        Parameters
        ----------
        parts : sequence of Batch
            On the device.
        figures : LabelStats
            What predictions are added to.
        stopping : bool
            Whether this rank was asked to stop; the report tells all ranks.
        """
        self.optimizer.zero_grad()
        loss = torch.zeros((), device=self._device)
        for number, part in enumerate(parts, 1):
            wait = self._parallel is not None and number < len(parts)
            with self._parallel.no_sync() if self._parallel and wait else nullcontext():
                predicted, targets = self.predict(part, network=self._parallel)
                part_loss = self.task.loss(predicted, targets) / self._recipe.batch
                (part_loss * self._ranks.count).backward()  # they take the mean over ranks
            figures.add(predicted.detach(), targets)
            loss += part_loss.detach()
        return self._update(loss, stopping=stopping)

    def _update(self, loss: torch.Tensor, *, stopping: bool) -> Pending:
        most = self._recipe.clip_grad or math.inf
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), most)
        shared = torch.stack([loss, torch.full_like(loss, stopping)])
        self._ranks.sum(shared)
        finite = torch.isfinite(shared[0]) & torch.isfinite(norm)
        self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        return Pending(torch.cat([shared, norm.reshape(1)]))

    def is_finite(self) -> bool:
        """Whether all that a checkpoint would hold is finite, on every rank."""
        held = [
            *self.net.state_dict().values(),
            *(value for state in self.optimizer.state.values() for value in state.values()),
        ]
        checks = [torch.isfinite(t).all() for t in held if torch.is_tensor(t)]
        spoilt = (~torch.stack(checks)).any().float()
        return not bool(self._ranks.sum(spoilt))
