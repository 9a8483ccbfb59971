"""Batches from other processes, and onto the device while it computes the one before."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple

import cv2
import torch
from torch.utils.data import DataLoader

from train import TrainError
from train.data.dataset import ClipDataset
from train.data.sampler import Key
from train.data.shards import REMEDY

PREFETCH = 4
"""Batches that each loader process makes ahead."""
_MOST_BAD = 0.1  # of the clips read; more than that is no matter of single frames
_FEW = 10
_DEATHS = ("DataLoader worker", "Pin memory thread")  # how torch's messages begin


class Batch(NamedTuple):
    """Samples of a share of a step, as `Item` has them, one after the other; and their clips."""

    frames: torch.Tensor
    answers: torch.Tensor
    fields: torch.Tensor
    clips: list[int]


class _Planned:
    """The keys to read next, which `DataLoader` asks for whenever it is iterated."""

    def __init__(self) -> None:
        self.batches: Iterable[list[Key]] = ()

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)


class Loader:
    """Reads batches of keys, training and held-out ones, with one set of worker processes.

    Use it in a ``with`` block: at its end, however it comes, no worker is left.

    Parameters
    ----------
    dataset : ClipDataset
    workers : int
        Processes; 0 reads in this one.
    device : torch.device
        Where the tensors of batches shall be.
    skip_bad : bool
        Whether clips that cannot be read are left out, and named once, instead of ending the run.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        *,
        workers: int,
        device: torch.device,
        skip_bad: bool = False,
    ) -> None:
        cv2.setNumThreads(1)
        self._planned, self._device, self._skip_bad = _Planned(), device, skip_bad
        self._named: set[str] = set()
        self._others = set(multiprocessing.active_children())
        self._clips = self._bad = 0
        # Spawned, not forked: OpenCV, HDF5 and torch have threads by then.
        self._loader: DataLoader = DataLoader(
            dataset,
            batch_sampler=self._planned,
            num_workers=workers,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
            multiprocessing_context="spawn" if workers else None,
            worker_init_fn=_start_worker,
            prefetch_factor=PREFETCH if workers else None,
        )

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The public way is to forget the iterator, which an error's traceback still remembers.
        iterator: Any = self._loader._iterator
        # A worker that dies meanwhile makes torch raise, in whatever line Python is.
        with suppress(RuntimeError):
            if iterator is not None:
                iterator._shutdown_workers()
        for worker in set(multiprocessing.active_children()) - self._others:
            # Python would end them by SIGTERM, which they ignore, and wait for ever.
            worker.kill()
            worker.join()
        if isinstance(error, RuntimeError) and str(error).startswith(_DEATHS):
            raise _death(error) from None

    def read(self, batches: Iterable[list[Key]]) -> Iterator[Batch]:
        """Yield a batch for each list of keys, in order.

        Raises
        ------
        TrainError
            A clip or a shard cannot be read.
        """
        self._planned.batches = batches
        read = self._read()
        return read if self._device.type == "cpu" else _copied(read, self._device)

    def _read(self) -> Iterator[Batch]:
        try:
            for item in self._loader:
                yield self._checked(*item)
        except (ConnectionError, EOFError) as error:
            raise _death(error) from None
        except OSError as error:
            # That of a worker comes with its traceback before it.
            reason = str(error).strip().splitlines()[-1]
            raise TrainError(f"A shard cannot be read any more ({reason}).") from None

    def _checked(
        self,
        frames: torch.Tensor,
        answers: torch.Tensor,
        fields: torch.Tensor,
        clips: torch.Tensor,
        wrong: list[str],
    ) -> Batch:
        bad = [sentence for sentence in wrong if sentence]
        if bad and not self._skip_bad:
            raise TrainError(f"{bad[0]}; {REMEDY} (--skip-bad leaves such clips out).")
        for sentence in set(bad) - self._named:
            self._named.add(sentence)
            with suppress(OSError):
                print(f"left out: {sentence}", file=sys.stderr)
        self._clips, self._bad = self._clips + len(wrong), self._bad + len(bad)
        if self._bad > max(_FEW, _MOST_BAD * self._clips):
            raise TrainError(
                f"{self._bad} of {self._clips} clips cannot be read (last: {bad[-1]}); that is too "
                "many to leave out: see whether the disk is well, and `labelgen verify` the shards."
            )
        if bad:
            _cover(frames, [bool(sentence) for sentence in wrong])
        return Batch(
            frames.flatten(0, 1), answers.flatten(0, 1), fields.flatten(0, 1), clips.tolist()
        )


def _cover(frames: torch.Tensor, bad: list[bool]) -> None:
    """Let good clips stand in for bad ones, which count nowhere but in batch norm's figures."""
    good = [place for place, is_bad in enumerate(bad) if not is_bad]
    for place, is_bad in enumerate(bad):
        if is_bad and good:
            frames[place] = frames[good[place % len(good)]]


def _death(error: BaseException) -> TrainError:
    reason = str(error).splitlines()[0].rstrip(". ") if str(error) else "no word of it"
    return TrainError(
        f"A loader process died ({reason}); where memory is short, use fewer --workers."
    )


def _copied(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Copy each batch to a GPU on a stream of its own while the one before is worked on."""
    side = torch.cuda.Stream(device)
    ahead: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(side):
            frames, answers, fields = (part.to(device, non_blocking=True) for part in batch[:3])
            copied = torch.cuda.Event()
            copied.record(side)
        if ahead is not None:
            yield _ready(*ahead)
        ahead = Batch(frames, answers, fields, batch.clips), copied
    if ahead is not None:
        yield _ready(*ahead)


def _ready(batch: Batch, copied: torch.cuda.Event) -> Batch:
    now = torch.cuda.current_stream(batch.frames.device)
    now.wait_event(copied)
    for tensor in batch[:3]:
        # Or the memory could be given away while this stream still reads it.
        tensor.record_stream(now)
    return batch


def _start_worker(_: int) -> None:
    # Signals to stop reach every process of a terminal or batch job; the parent decides, finishes
    # its step, and then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(1)
