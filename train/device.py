"""What a run computes on: device, precision, loader processes."""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from joblib import cpu_count

from train import TrainError

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt(3)."""


@dataclass(frozen=True)
class Machine:
    """How a run is computed; free to change when it is resumed, unlike the recipe."""

    device: str = "auto"  # auto, cpu, cuda or cuda:N
    precision: str = "auto"  # bf16, fp32, or auto: bf16 where a GPU multiplies it
    workers: int = 0  # loader processes per rank
    accumulate: int = 1  # parts of a batch computed one after the other, to save memory
    compiled: bool = False
    skip_bad: bool = False  # leave out clips that cannot be read


def ranks_here() -> int:
    """Ranks of this run on this machine, as torchrun tells; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def keep_freed_memory(device: torch.device) -> None:
    """Let what a step on a CPU frees serve the next one, from now on in this process.

    glibc gives large blocks back to the system at once, which must fill each with zeros again when
    the next step asks for it. Other libraries of C are left as they are.
    """
    library = ctypes.CDLL(None)
    if device.type == "cpu" and hasattr(library, "mallopt"):
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, -1)


def choose_device(name: str) -> torch.device:
    """Turn ``auto|cpu|cuda|cuda:N`` into a device that exists, one per local rank.

    Raises
    ------
    TrainError
        A GPU is asked for and there is none, or not that one, or one for several ranks.
    """
    if not re.fullmatch(r"auto|cpu|cuda|cuda:\d+", name):
        raise TrainError(f"--device takes auto, cpu, cuda or cuda:N, not {name!r}.")
    if name.startswith("cuda:") and ranks_here() > 1:
        raise TrainError(
            f"--device {name} names one GPU for {ranks_here()} ranks; use --device cuda, and "
            "CUDA_VISIBLE_DEVICES to choose among GPUs."
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    if name != "auto" and not count:
        raise TrainError(
            f"--device {name}: PyTorch {torch.__version__} sees no GPU; use --device cpu."
        )
    if ranks_here() > count:  # said by every rank, so that none waits for another
        raise TrainError(
            f"{ranks_here()} ranks need a GPU each, and this machine has {count}; start fewer, or "
            "use --device cpu."
        )
    index = int(name[5:]) if name.startswith("cuda:") else int(os.environ.get("LOCAL_RANK", 0))
    if index >= count:
        raise TrainError(
            f"--device {name}: there is no GPU {index}, only {count} (counted from 0)."
        )
    torch.cuda.set_device(index)
    # cuDNN multiplies in TF32 by default. Matrices stay in float32: they are those of the heads.
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda", index)


def use_bf16(device: torch.device, precision: str) -> bool:
    """Whether to autocast: where asked for, else where a GPU has bf16 matrix units.

    Raises
    ------
    TrainError
        It is asked for on a CPU. There PyTorch 2.13 computes the weights' gradients of 3D
        convolutions on small maps, such as conv5's 2x7x7, from memory that nobody has written.
    """
    if device.type == "cpu":
        if precision == "bf16":
            raise TrainError(
                "--precision bf16: on CPUs, PyTorch's gradients of 3D convolutions are wrong in "
                "bf16; use fp32."
            )
        return False
    if precision != "auto":
        return precision == "bf16"
    return torch.cuda.get_device_capability(device) >= (8, 0)


def default_workers(device: str) -> int:
    """Loader processes per rank: none where a CPU trains, else this rank's share of the cores.

    The cores are those that this process may use: affinity and container limits count.
    """
    if choose_device(device).type == "cpu":
        return 0
    return max(1, int(cpu_count()) // ranks_here())


def describe(device: torch.device) -> str:
    """Name the processor, for reports: a GPU's name, or the CPU's and the cores used."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", info.read_text()) if info.is_file() else []
    return f"{names[0] if names else 'CPU'}, {torch.get_num_threads()} threads"
