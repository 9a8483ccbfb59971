"""Where a run computes: device, precision, ranks of a distributed run, and signals to stop."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist

from train import TrainError


@dataclass(frozen=True)
class Machine:
    """How a run is computed; free to change when it is resumed, unlike the recipe."""

    device: str = "auto"  # auto, cpu, cuda or cuda:N
    precision: str = "auto"  # bf16, fp32, or auto: bf16 where the hardware multiplies it
    workers: int = 0  # loader processes per rank
    accumulate: int = 1  # parts of a batch computed one after the other, to save memory
    compiled: bool = False


@dataclass(frozen=True)
class Ranks:
    """One process among those of a torchrun: 0 of 1 without it."""

    rank: int = 0
    count: int = 1

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over all ranks, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor


def choose_device(name: str) -> torch.device:
    """Turn ``auto|cpu|cuda|cuda:N`` into a device that exists, one per local rank.

    Raises
    ------
    TrainError
        A GPU is asked for and there is none, or not that one.
    """
    if not re.fullmatch(r"auto|cpu|cuda|cuda:\d+", name):
        raise TrainError(f"--device takes auto, cpu, cuda or cuda:N, not {name!r}.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    if name != "auto" and not count:
        raise TrainError(
            f"--device {name}: PyTorch {torch.__version__} sees no GPU; use --device cpu."
        )
    index = int(name[5:]) if name.startswith("cuda:") else int(os.environ.get("LOCAL_RANK", 0))
    if index >= count:
        raise TrainError(
            f"--device {name}: there is no GPU {index}, only {count} (counted from 0)."
        )
    torch.cuda.set_device(index)
    torch.set_float32_matmul_precision("high")  # TF32; cuDNN's convolutions use it by default
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda", index)


def use_bf16(device: torch.device, precision: str) -> bool:
    """Whether to autocast: where asked for, else where the hardware has bf16 matrix units."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return has_amx()


def has_amx() -> bool:
    """Whether the CPU has AMX bf16 tiles; other CPUs emulate bf16, slower than float32."""
    info = Path("/proc/cpuinfo")
    return info.is_file() and " amx_bf16" in info.read_text()


@contextmanager
def distributed(device: torch.device) -> Iterator[Ranks]:
    """Join the process group that torchrun describes; alone without it."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield Ranks()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


class StopRequest:
    """SIGTERM or Ctrl-C, remembered until the step is done; a second one ends at once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> StopRequest:
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.asked = True
        signal.signal(number, self._before[signal.Signals(number)])
