"""The flow kernels check no bounds: here their arrays lie at pages that may not be touched."""

from __future__ import annotations

import ctypes
import importlib
import mmap
import signal
import subprocess
import sys
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


KERNELS = {
    "tvl1": ("_solve_level", "gradient"),
    "brox": ("_solve_level", "gradient"),
    "pyramid": ("_blend",),
    "texture": ("_project",),
}
"""Where Python enters what is compiled, by module."""


def fenced(kernel, side):
    """Let a kernel have copies between such pages, and take back what it has written."""

    def call(*arguments):
        copies = []

        def fence(value):
            if isinstance(value, tuple):
                return type(value)(*map(fence, value))
            if not isinstance(value, np.ndarray) or not value.size:
                return value
            copy = guarded(value.shape, value.dtype, side)
            copy[...] = value
            copies.append((value, copy))
            return copy

        told = kernel(*map(fence, arguments))
        for value, copy in copies:
            if value.flags.writeable:
                value[...] = copy
        call.count += 1
        return told

    call.count = 0
    return call


def fence_all(side, patch):
    """Put pages around all arrays that the flow's kernels are given."""
    modules = {name: importlib.import_module(f"labelgen.flow.{name}") for name in KERNELS}
    calls = {}
    for name, kernels in KERNELS.items():
        for kernel in kernels:
            calls[name, kernel] = fenced(getattr(modules[name], kernel), side)
            patch.setattr(modules[name], kernel, calls[name, kernel])
    return calls


def solve_all(side):
    """Flow of noise and of a jump, at sizes around whole vectors, by both solvers."""
    from labelgen.flow.brox import BroxSettings, brox_flow
    from labelgen.flow.tvl1 import TVL1_PRESETS, Tvl1Settings, tvl1_flow

    ways = (
        lambda frames: tvl1_flow(frames, Tvl1Settings(warps=2, outer_iterations=2)),
        lambda frames: tvl1_flow(frames, TVL1_PRESETS["accurate"]),
        lambda frames: brox_flow(frames, BroxSettings(warps=1)),
    )
    for height, width in SIZES:
        noise = np.random.default_rng(0).integers(256, size=(2, height, width), dtype=np.uint8)
        jump = np.stack([np.zeros_like(noise[0]), np.full_like(noise[0], 255)])
        plain = [way(frames) for frames in (noise, jump) for way in ways]
        with pytest.MonkeyPatch.context() as patch:
            calls = fence_all(side, patch)
            fenced_in = [way(frames) for frames in (noise, jump) for way in ways]
        np.testing.assert_array_equal(fenced_in, plain)
    assert all(call.count for call in calls.values()), calls


def overrun(side):
    """Read the element before an array, or the one after it."""
    array = guarded(10, np.float32, side)
    item = ctypes.sizeof(ctypes.c_float)
    ctypes.string_at(array.ctypes.data + (-item if side == "start" else 10 * item), item)


def overrun_kernel(side):
    """Give a kernel a field of two rows, a page long, for an image of more."""
    from labelgen.flow import texture

    page = mmap.PAGESIZE // 8
    whole = np.zeros((page, page), np.float32)
    fenced(texture._project, side)(whole[1:, 1:], whole[:2], whole, whole, np.float32(1))


def run_here(what, side):
    command = [sys.executable, str(Path(__file__).resolve()), what, side]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("side", SIDES)
def test_solvers_touch_nothing_beyond_their_arrays(side):
    run = run_here("solve_all", side)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("what", ["overrun", "overrun_kernel"])
def test_an_overrun_would_be_seen(what, side):
    assert run_here(what, side).returncode in (-signal.SIGSEGV, -signal.SIGBUS)


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
