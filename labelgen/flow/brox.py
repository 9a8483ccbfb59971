"""Optical flow of Brox, Bruhn, Papenberg and Weickert [1]_, which the labels' paper cites.

The flow (u, v) between I1 and I2 minimises Eq. 6 of [1]_, without the temporal term:
Psi(|I2(x + w) - I1|^2 + gamma |grad I2(x + w) - grad I1|^2) + alpha Psi(|grad u|^2 + |grad v|^2),
summed over the frame, with Psi(s^2) = sqrt(s^2 + epsilon^2). Coarse to fine, three nested loops:
warps (the outer fixed point of [1]_, Sec. 3.2), nonlinear iterations that freeze Psi', and
red-black SOR on the linear system that remains. The unknown is the whole flow, not its increment;
that gives the same system.

Where this differs from [1]_: frames are smoothed with a Gaussian of the smallest useful width, the
pyramid's step is coarser than .95 and has several warps in each level instead of one, and the data
term is switched off where the flow leads out of the frame.

References
----------
.. [1] T. Brox, A. Bruhn, N. Papenberg, J. Weickert, "High Accuracy Optical Flow Estimation Based on
   a Theory for Warping", ECCV 2004.
.. [2] J. Sanchez, N. Monzon, A. Salgado, "Robust Optical Flow Estimation", IPOL 2013.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from labelgen.flow.pyramid import (
    WarpScratch,
    blur,
    check_counts,
    check_range,
    check_scale_step,
    check_sigma,
    gradient,
    interleave,
    warp_row,
    warp_scratch,
)
from labelgen.flow.solver import Solver
from labelgen.flow.vectors import (
    STEPS,
    WIDE,
    Scalar,
    aligned_zeros,
    entry_kernel,
    fma,
    inner_kernel,
    load,
    load_every2,
    load_every4,
    maximum,
    minimum,
    round_up,
    splat,
    sqrt,
    store,
    store_every2,
)

# Planes in pixel order: the flow; the warped derivatives of I2; the parts of the three residuals
# that do not depend on the flow; the weight of the data term; Psi' of the smoothness term.
U, V, IX, IY, IXX, IXY, IYY, R0, R1, R2, INSIDE, SMOOTH, PLANES = range(13)
# Planes in checkerboard order: the flow and the linear system.
SU, SV, A12, B1, B2, INVERSE1, INVERSE2, EAST, SOUTH, SYSTEM = range(10)
TINY = np.float32(1e-20)


@dataclass(frozen=True)
class BroxSettings:
    """Parameters of `brox_flow`.

    Attributes
    ----------
    alpha : weight of the smoothness term
    gamma : weight of the gradient constancy
    epsilon : where Psi turns from quadratic to linear, in grey levels and in pixels
    sigma : standard deviation of the Gaussian that smooths the frames, in pixels; 0 for none
    scales, scale_step : number of pyramid levels at most, and their ratio of sizes
    warps : linearisations at each level
    nonlinear_iterations : updates of Psi' in each warp
    sor_iterations, omega : sweeps for each of them, and the over-relaxation
    """

    alpha: float = 10.0
    gamma: float = 10.0
    epsilon: float = 0.001
    sigma: float = 0.6
    scales: int = 10
    scale_step: float = 0.8
    warps: int = 3
    nonlinear_iterations: int = 2
    sor_iterations: int = 10
    omega: float = 1.9

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        check_range(self, "alpha", "gamma", "epsilon", "omega")
        check_counts(self, "scales", "warps", "nonlinear_iterations", "sor_iterations")
        check_scale_step(self.scale_step)
        check_sigma(self.sigma)
        if self.omega >= 2:
            raise ValueError(f"omega must be below 2, or SOR diverges, not {self.omega!r}.")


class Workspace(NamedTuple):
    """Memory of one pyramid level, used again for every frame pair of a clip.

    Attributes
    ----------
    height, width : of the level, in pixels
    stride : float32 elements of a row of `planes`: eight on the left, the pixels, at least one
        column more, up to a multiple of 16
    planes : flat; (height + 2, PLANES, stride), a row above the frame and one below it
    system : flat; (height + 2, SYSTEM, 2, stride / 2 + 8): even columns, then odd ones, so that the
        cells of one colour of the checkerboard lie side by side
    inside : one row, 1 in the frame and 0 right of it
    warp : scratch of `warp_row`
    row : scratch for one row of the system in pixel order
    """

    height: int
    width: int
    stride: int
    planes: np.ndarray
    system: np.ndarray
    inside: np.ndarray
    warp: WarpScratch
    row: np.ndarray


class Terms(NamedTuple):
    """What the iterations of one level need of the settings; names as in `BroxSettings`."""

    alpha: Scalar
    gamma: Scalar
    epsilon: Scalar
    omega: Scalar
    warps: int
    nonlinear: int
    sweeps: int


class Level(NamedTuple):
    """One pyramid level of one frame.

    Attributes
    ----------
    first, second : taps of the image and its gradient, and of its second derivatives
    grey, along_x, along_y : image and gradient, rows padded to whole vectors
    """

    first: np.ndarray
    second: np.ndarray
    grey: np.ndarray
    along_x: np.ndarray
    along_y: np.ndarray


@inner_kernel
def _linearise(work: Workspace, level: Level, after: Level) -> None:
    """Warp I2 and its derivatives; take from the residuals the part that the flow changes."""
    planes, stride, samples = work.planes, work.stride, work.warp.samples
    height, width, padded = work.height, work.width, work.stride - WIDE
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    for y in range(height):
        row = (y + 1) * PLANES * stride + WIDE
        at_u, at_v = row + U * stride, row + V * stride
        warp_row(after.second, planes, at_u, at_v, y, height, width, work.warp)
        for x in range(0, width, WIDE):
            store(planes, row + IXX * stride + x, load_every4(samples, 4 * x))
            store(planes, row + IXY * stride + x, load_every4(samples, 4 * x + 1))
            store(planes, row + IYY * stride + x, load_every4(samples, 4 * x + 2))
        warp_row(after.first, planes, at_u, at_v, y, height, width, work.warp)
        for x in range(0, width, WIDE):
            u, v = load(planes, at_u + x), load(planes, at_v + x)
            ix, iy = load_every4(samples, 4 * x + 1), load_every4(samples, 4 * x + 2)
            ixx, ixy = load(planes, row + IXX * stride + x), load(planes, row + IXY * stride + x)
            iyy = load(planes, row + IYY * stride + x)
            there = y * padded + x
            rest0 = load_every4(samples, 4 * x) - load(level.grey, there)
            rest1, rest2 = ix - load(level.along_x, there), iy - load(level.along_y, there)
            store(planes, row + IX * stride + x, ix)
            store(planes, row + IY * stride + x, iy)
            store(planes, row + R0 * stride + x, rest0 - fma(ix, u, iy * v))
            store(planes, row + R1 * stride + x, rest1 - fma(ixx, u, ixy * v))
            store(planes, row + R2 * stride + x, rest2 - fma(ixy, u, iyy * v))
            # 1 in the frame, 0 from one pixel outside it on
            px, py = splat(np.float32(x)) + load(STEPS, 0) + u, splat(np.float32(y)) + v
            px = minimum(px, splat(np.float32(width - 1)) - px)
            py = minimum(py, splat(np.float32(height - 1)) - py)
            weight = minimum(maximum(minimum(px, py) + one, zero), one)
            store(planes, row + INSIDE * stride + x, weight * load(work.inside, x))


@inner_kernel
def _weigh_smoothness(work: Workspace, epsilon: Scalar) -> None:
    """Psi' of the smoothness term from central differences of the flow; borders repeat."""
    planes, stride = work.planes, work.stride
    pitch = PLANES * stride
    half, floor2 = splat(np.float32(0.5)), splat(epsilon * epsilon)
    one = splat(np.float32(1))
    for y in range(work.height):
        row = (y + 1) * pitch + WIDE
        for x in range(row, row + stride - WIDE, WIDE):
            ux = (load(planes, x + U * stride + 1) - load(planes, x + U * stride - 1)) * half
            vx = (load(planes, x + V * stride + 1) - load(planes, x + V * stride - 1)) * half
            uy = (
                load(planes, x + pitch + U * stride) - load(planes, x - pitch + U * stride)
            ) * half
            vy = (
                load(planes, x + pitch + V * stride) - load(planes, x - pitch + V * stride)
            ) * half
            square = fma(ux, ux, fma(uy, uy, fma(vx, vx, fma(vy, vy, floor2))))
            store(planes, x + SMOOTH * stride, one / sqrt(square))


@inner_kernel
def _repeat_flow(work: Workspace) -> None:
    """Copy the flow of the border pixels one pixel outwards."""
    planes, stride, width = work.planes, work.stride, work.width
    pitch = PLANES * stride
    for plane in (U, V):
        first = pitch + WIDE + plane * stride
        for y in range(work.height):
            row = first + y * pitch
            planes[row - 1] = planes[row]
            planes[row + width] = planes[row + width - 1]
        last = first + (work.height - 1) * pitch
        for x in range(width):
            planes[first - pitch + x] = planes[first + x]
            planes[last + pitch + x] = planes[last + x]


@inner_kernel
def _build_system(work: Workspace, alpha: Scalar, gamma: Scalar, epsilon: Scalar) -> None:
    """Build the linear system of one nonlinear iteration, in checkerboard order."""
    planes, system, stride, row = work.planes, work.system, work.stride, work.row
    padded = stride - WIDE
    pitch = PLANES * stride
    half_stride = padded // 2 + WIDE
    g, floor2, one = splat(gamma), splat(epsilon * epsilon), splat(np.float32(1))
    share, tiny = splat(np.float32(0.5) * alpha), splat(TINY)
    row[:] = np.float32(0)  # the row's weights to the east and south are kept for the next
    for y in range(work.height):
        start = (y + 1) * pitch + WIDE
        south = share if y + 1 < work.height else splat(np.float32(0))
        for x in range(0, padded, WIDE):
            at = start + x
            u, v = load(planes, at + U * stride), load(planes, at + V * stride)
            ix, iy = load(planes, at + IX * stride), load(planes, at + IY * stride)
            ixx, ixy = load(planes, at + IXX * stride), load(planes, at + IXY * stride)
            iyy = load(planes, at + IYY * stride)
            r0, r1 = load(planes, at + R0 * stride), load(planes, at + R1 * stride)
            r2 = load(planes, at + R2 * stride)
            full0 = fma(ix, u, fma(iy, v, r0))
            full1 = fma(ixx, u, fma(ixy, v, r1))
            full2 = fma(ixy, u, fma(iyy, v, r2))
            square = fma(g, fma(full1, full1, full2 * full2), fma(full0, full0, floor2))
            data = load(planes, at + INSIDE * stride) / sqrt(square)
            gdata = g * data
            a11 = fma(data, ix * ix, gdata * fma(ixx, ixx, ixy * ixy))
            a12 = fma(data, ix * iy, gdata * fma(ixx, ixy, ixy * iyy))
            a22 = fma(data, iy * iy, gdata * fma(iyy, iyy, ixy * ixy))
            b1 = fma(data, ix * r0, gdata * fma(ixx, r1, ixy * r2))
            b2 = fma(data, iy * r0, gdata * fma(ixy, r1, iyy * r2))
            smooth = load(planes, at + SMOOTH * stride)
            east = (smooth + load(planes, at + SMOOTH * stride + 1)) * share
            east = east * load(work.inside, x + 1)
            below = (smooth + load(planes, at + pitch + SMOOTH * stride)) * south
            below = below * load(work.inside, x)
            near = WIDE + x
            above = load(row, SOUTH * stride + near)
            store(row, EAST * stride + near, east)
            store(row, SOUTH * stride + near, below)
            around = (east + load(row, EAST * stride + near - 1)) + (below + above)
            store(row, A12 * stride + near, a12)
            store(row, B1 * stride + near, b1)
            store(row, B2 * stride + near, b2)
            store(row, INVERSE1 * stride + near, one / maximum(a11 + around, tiny))
            store(row, INVERSE2 * stride + near, one / maximum(a22 + around, tiny))
            store(row, SU * stride + near, u * load(work.inside, x))
            store(row, SV * stride + near, v * load(work.inside, x))
        for plane in range(SYSTEM):
            source = plane * stride + WIDE
            to = ((y + 1) * SYSTEM + plane) * 2 * half_stride + WIDE
            for x in range(0, padded // 2, WIDE):
                store(system, to + x, load_every2(row, source + 2 * x))
                store(system, to + half_stride + x, load_every2(row, source + 2 * x + 1))


@inner_kernel
def _relax(work: Workspace, colour: int, omega: Scalar) -> None:
    """One SOR step for the cells of one colour, ``(x + y) % 2 == colour``."""
    system, padded = work.system, work.stride - WIDE
    half = padded // 2 + WIDE
    pitch = SYSTEM * 2 * half
    step, keep = splat(omega), splat(np.float32(1) - omega)
    for y in range(work.height):
        parity = (y + colour) % 2
        own = (y + 1) * pitch + WIDE + parity * half
        other = (y + 1) * pitch + WIDE + (1 - parity) * half
        west, east = other + parity - 1, other + parity
        for x in range(0, padded // 2, WIDE):
            at = own + x
            to_east, to_south = (
                load(system, at + EAST * 2 * half),
                load(system, at + SOUTH * 2 * half),
            )
            to_west = load(system, west + x + EAST * 2 * half)
            to_north = load(system, at - pitch + SOUTH * 2 * half)
            u, v = load(system, at + SU * 2 * half), load(system, at + SV * 2 * half)
            a12 = load(system, at + A12 * 2 * half)
            force = to_east * load(system, east + x + SU * 2 * half)
            force = fma(to_west, load(system, west + x + SU * 2 * half), force)
            force = fma(to_south, load(system, at + pitch + SU * 2 * half), force)
            force = fma(to_north, load(system, at - pitch + SU * 2 * half), force)
            force = force - fma(a12, v, load(system, at + B1 * 2 * half))
            u = fma(keep, u, step * (force * load(system, at + INVERSE1 * 2 * half)))
            store(system, at + SU * 2 * half, u)
            force = to_east * load(system, east + x + SV * 2 * half)
            force = fma(to_west, load(system, west + x + SV * 2 * half), force)
            force = fma(to_south, load(system, at + pitch + SV * 2 * half), force)
            force = fma(to_north, load(system, at - pitch + SV * 2 * half), force)
            force = force - fma(a12, u, load(system, at + B2 * 2 * half))
            v = fma(keep, v, step * (force * load(system, at + INVERSE2 * 2 * half)))
            store(system, at + SV * 2 * half, v)


@inner_kernel
def _read_solution(work: Workspace) -> None:
    """Bring the flow from checkerboard order back to pixel order."""
    padded = work.stride - WIDE
    half = padded // 2 + WIDE
    for y in range(work.height):
        for plane in (U, V):
            source = ((y + 1) * SYSTEM + plane) * 2 * half + WIDE
            to = ((y + 1) * PLANES + plane) * work.stride + WIDE
            for x in range(0, padded // 2, WIDE):
                even, odd = load(work.system, source + x), load(work.system, source + half + x)
                store_every2(work.planes, to + 2 * x, even, odd)


@entry_kernel
def _solve_level(work: Workspace, level: Level, after: Level, terms: Terms) -> None:
    """All warps of one level: the flow in `work` becomes the flow from I1 `level` to I2 `after`."""
    for _ in range(terms.warps):
        _linearise(work, level, after)
        for _ in range(terms.nonlinear):
            _repeat_flow(work)
            _weigh_smoothness(work, terms.epsilon)
            _build_system(work, terms.alpha, terms.gamma, terms.epsilon)
            for _ in range(terms.sweeps):
                _relax(work, 0, terms.omega)
                _relax(work, 1, terms.omega)
            _read_solution(work)


def _pad(image: np.ndarray) -> np.ndarray:
    height, width = image.shape
    padded = np.zeros((height, round_up(round_up(width + 1) // 2) * 2), np.float32)
    padded[:, :width] = image
    return padded.ravel()


class _Brox(Solver[Workspace, Level]):
    def __init__(self, settings: BroxSettings) -> None:
        super().__init__(settings)
        self._settings = settings

    def make_workspace(self, height: int, width: int) -> Workspace:
        padded = round_up(round_up(width + 1) // 2) * 2
        inside = aligned_zeros(padded + WIDE)
        inside[:width] = 1
        return Workspace(
            height,
            width,
            stride=WIDE + padded,
            planes=aligned_zeros((height + 2) * PLANES * (WIDE + padded) + WIDE),
            system=aligned_zeros((height + 2) * SYSTEM * (padded + 2 * WIDE) + WIDE),
            inside=inside,
            warp=warp_scratch(width),
            row=aligned_zeros(SYSTEM * (WIDE + padded) + WIDE),
        )

    def prepare(self, frame: np.ndarray) -> np.ndarray:
        return blur(frame.astype(np.float32), self._settings.sigma)

    def make_level(self, image: np.ndarray) -> Level:
        ix, iy = gradient(image)
        ixx, ixy = gradient(ix)
        _, iyy = gradient(iy)
        first = interleave(image, ix, iy, border="nearest")
        second = interleave(ixx, ixy, iyy, border="nearest")
        return Level(first, second, _pad(image), _pad(ix), _pad(iy))

    def start(self, work: Workspace) -> np.ndarray:
        planes = work.planes[:-WIDE].reshape(work.height + 2, PLANES, work.stride)
        return planes[1:-1, : V + 1, WIDE : WIDE + work.width].transpose(1, 0, 2)

    def solve(self, work: Workspace, level: Level, following: Level) -> None:
        settings = self._settings
        terms = Terms(
            alpha=np.float32(settings.alpha),
            gamma=np.float32(settings.gamma),
            epsilon=np.float32(settings.epsilon),
            omega=np.float32(settings.omega),
            warps=settings.warps,
            nonlinear=settings.nonlinear_iterations,
            sweeps=settings.sor_iterations,
        )
        _solve_level(work, level, following, terms)


def brox_flow(grey: np.ndarray, settings: BroxSettings = BroxSettings()) -> np.ndarray:
    """Flow (T - 1, 2, H, W) of a clip (T, H, W) uint8 [1]_; see `labelgen.flow.solver.Solver`."""
    return _Brox(settings).flow(grey)
