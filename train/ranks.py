"""The processes of a distributed run: what they agree on, and what happens when one is gone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist

from labelgen.errors import LabelgenError
from train import NonFiniteError, StoppedError, TrainError
from train.state import exit_code

Result = TypeVar("Result")

_FAILURE = "motion-appearance/failure"


@dataclass(frozen=True)
class Ranks:
    """One process among those of a torchrun: 0 of 1 without it."""

    rank: int = 0
    count: int = 1

    @property
    def chief(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over all ranks, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def copy_from_chief(self, tensors: list[torch.Tensor]) -> None:
        """Give every rank the values that rank 0 has, in place."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def together(self, work: Callable[[], Result]) -> Result:
        """Do the same on every rank; where it fails on one, all raise what that one raised.

        Raises
        ------
        TrainError
            With the sentence of the first rank that failed.
        """
        return self._settle(work, who=range(self.count))

    def once(self, work: Callable[[], Result]) -> Result:
        """Do something on rank 0 alone and give all ranks its result, or its error."""
        result = self._settle(work, who=range(1))
        if self.count == 1:
            return result
        shared = [result]
        dist.broadcast_object_list(shared, 0)
        return shared[0]

    def same(self, values: dict[str, str]) -> None:
        """Check that all ranks have the same values.

        Raises
        ------
        TrainError
            On every rank, naming the first that differs from rank 0.
        """
        everyone = self._gather(values)
        for rank, theirs in enumerate(everyone):
            differing = [
                f"{key} {value!r} on rank 0, {theirs.get(key)!r} on rank {rank}"
                for key, value in everyone[0].items()
                if theirs.get(key) != value
            ]
            if differing:
                self.all_raise(TrainError(f"The ranks differ: {'; '.join(differing)}."))

    def all_raise(self, error: TrainError | StoppedError | NonFiniteError) -> NoReturn:
        """Raise what all ranks raise at this place; one of them says it."""
        error.silent = not self.chief
        raise error

    def _settle(self, work: Callable[[], Result], *, who: range) -> Any:
        result: Result | None = None
        failed: LabelgenError | None = None
        if self.rank in who:
            try:
                result = work()
            except LabelgenError as error:
                failed = error
            except OSError as error:
                what, why = error.filename or "a file", error.strerror or error
                failed = TrainError(f"{what} cannot be read or written ({why}).")
        if self.count == 1 and failed:
            raise failed
        said = self._gather(None if failed is None else str(failed))
        for rank, sentence in enumerate(said):
            if sentence is not None:
                self.all_raise(TrainError(f"{sentence} (rank {rank})" if rank else sentence))
        return result

    def _gather(self, value: Any) -> list[Any]:
        if self.count == 1:
            return [value]
        values = [None] * self.count
        dist.all_gather_object(values, value)
        return values


@contextmanager
def distributed(device: torch.device) -> Iterator[Ranks]:
    """Join the process group that torchrun describes; alone without it.

    Raises
    ------
    TrainError, NonFiniteError, StoppedError
        What another rank failed with, if it could still tell; or that it is gone, and then the same
        command goes on.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield Ranks()
        return
    store, rank, count = next(dist.rendezvous("env://"))
    backend = "nccl" if device.type == "cuda" else "gloo"
    # Opening thousands of shards on a slow disk takes one rank longer than another.
    limit = timedelta(minutes=30)
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=limit)
    try:
        yield Ranks(rank, count)
    except Exception as error:
        if not _is_lost(error):
            # For the ranks that will only see that this one is gone.
            store.set(_FAILURE, json.dumps([exit_code(error), f"{error} (rank {rank})"]))
            raise
        raise _failure_of_another(store, rank) from error
    # After an error the others may be waiting in a collective, and leaving in order would wait
    # for them: the process ends instead.
    dist.destroy_process_group()


def _is_lost(error: Exception) -> bool:
    """Whether an error is one of talking to other ranks; gloo's have no class of their own."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "third_party/gloo" in str(error)
    )


def _failure_of_another(store: dist.Store, rank: int) -> Exception:
    try:
        told = json.loads(store.get(_FAILURE)) if store.check([_FAILURE]) else None
    except (RuntimeError, ValueError):  # the store may be gone with its rank
        told = None
    if told is None:
        return StoppedError(f"Another rank is gone; rank {rank} ends too.")
    code, sentence = told
    kinds = {exit_code(kind()): kind for kind in (TrainError, NonFiniteError, StoppedError)}
    error = kinds.get(code, RuntimeError)(sentence)
    if not isinstance(error, RuntimeError):
        error.silent = True  # it has been told
    return error
