"""The flow kernels check no bounds: here their arrays lie at pages that may not be touched."""

from __future__ import annotations

import ctypes
import mmap
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

SIZES = (
    (1, 1), (1, 8), (8, 1), (1, 9), (3, 15), (3, 16), (3, 17), (5, 31), (17, 16), (16, 33),
    (15, 200), (200, 15), (40, 64), (128, 171),
)  # fmt: skip
SIDES = ("start", "end")


def guarded(shape, dtype, side):
    """Zeros that begin just after a page that may not be touched, or end just before one."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    page = mmap.PAGESIZE
    inside = -(-size // page) * page
    area = mmap.mmap(-1, inside + 2 * page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(area))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    for forbidden in (base, base + page + inside):
        assert protect(forbidden, page, 0) == 0
    first = page if side == "start" else page + inside - size
    return np.frombuffer(area, dtype, size // np.dtype(dtype).itemsize, first).reshape(shape)


def guard(side):
    """Let the flow modules make all arrays of numbers that kernels use so."""
    from labelgen.flow import brox, pyramid, texture, tvl1

    class Numpy(types.ModuleType):
        def __getattr__(self, name):
            return getattr(np, name)

        def zeros(self, shape, dtype=np.float64):
            return guarded(shape, dtype, side)

        empty = zeros

    for module in (brox, pyramid, texture, tvl1):
        module.np = Numpy("np")
        module.aligned_zeros = lambda length: guarded(length, np.float32, side)


def solve_all(side):
    """Flow of noise and of a jump, at sizes around whole vectors, by both solvers."""
    from labelgen.flow.brox import BroxSettings, brox_flow
    from labelgen.flow.tvl1 import TVL1_PRESETS, Tvl1Settings, tvl1_flow

    guard(side)
    for height, width in SIZES:
        noise = np.random.default_rng(0).integers(256, size=(2, height, width), dtype=np.uint8)
        jump = np.stack([np.zeros_like(noise[0]), np.full_like(noise[0], 255)])
        for frames in (noise, jump):
            flows = [tvl1_flow(frames, Tvl1Settings(warps=2, outer_iterations=2))]
            flows.append(tvl1_flow(frames, TVL1_PRESETS["accurate"]))
            flows.append(brox_flow(frames, BroxSettings(warps=1)))
            assert np.isfinite(flows).all()


def overrun(side):
    """Read the element before an array, or the one after it."""
    array = guarded(10, np.float32, side)
    item = ctypes.sizeof(ctypes.c_float)
    ctypes.string_at(array.ctypes.data + (-item if side == "start" else 10 * item), item)


def run_here(what, side):
    command = [sys.executable, str(Path(__file__).resolve()), what, side]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("side", SIDES)
def test_solvers_touch_nothing_beyond_their_arrays(side):
    run = run_here("solve_all", side)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("side", SIDES)
def test_an_overrun_would_be_seen(side):
    assert run_here("overrun", side).returncode in (-signal.SIGSEGV, -signal.SIGBUS)


if __name__ == "__main__":
    {"solve_all": solve_all, "overrun": overrun}[sys.argv[1]](sys.argv[2])
