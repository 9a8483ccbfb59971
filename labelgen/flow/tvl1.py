"""TV-L1 optical flow: Zach, Pock and Bischof's duality-based method [1]_, as laid out in [2]_.

The flow u between images I0 and I1 minimises the total variation of u plus lambda times the L1 norm
of rho(u) = I1(x + u0) + (u - u0) . grad I1(x + u0) - I0(x), coarse to fine, linearised anew at each
warp. One iteration is a pointwise step towards the data (the thresholding TH of [2]_, Sec. 2), a
primal step ``u = v + theta div p`` and a dual step ``p = (p + tau/theta grad u) / (1 + tau/theta
|grad u|)``.

Where OpenCV's DualTVL1 differs from [2]_, this file follows OpenCV, because published TV-L1 flow of
video was mostly made with it:

* grey levels stay 0..255 and are not smoothed; the pyramid is made by bilinear resizing, step .8;
* iterations come in up to 10 rounds of 30, and a 5x5 median filter runs over the flow before each;
* a warp ends when the squared change summed over the frame is at most ``epsilon**2 * H * W``;
* outside the frame I1 and its derivatives are 0; the dual variables live on from warp to warp.

It differs from OpenCV in the order of float32 sums, and where `_planned` says. Settings that OpenCV
does not have, and the preset ``accurate`` uses, smooth the frames first and take structure out of
every level, see `labelgen.flow.texture`.

References
----------
.. [1] C. Zach, T. Pock, H. Bischof, "A Duality Based Approach for Realtime TV-L1 Optical Flow",
   DAGM 2007.
.. [2] J. Sanchez, E. Meinhardt-Llopis, G. Facciolo, "TV-L1 Optical Flow Estimation", IPOL 2013.
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
    median_filter,
    median_scratch,
    warp_row,
    warp_scratch,
)
from labelgen.flow.solver import Solver
from labelgen.flow.texture import without_structure
from labelgen.flow.vectors import (
    WIDE,
    Scalar,
    aligned_zeros,
    entry_kernel,
    fma,
    inner_kernel,
    load,
    load_every4,
    maximum,
    minimum,
    round_up,
    splat,
    sqrt,
    store,
)

Vectors = tuple[np.ndarray, ...]

# A row of the workspace begins with four planes: the flow and its dual variables along x, which are
# read at x - 1 and x + 1 too. The rest is read at x only and lies vector by vector, so that few
# addresses lead to all that an iteration reads: the data term (the warped derivatives, the constant
# part of rho and -1 / |grad I1|^2) and the dual variables along y.
U, V, PUX, PVX, DATA, DOWN, PLANES = 0, 1, 2, 3, 4, 8, 10
IX, IY, RHO, INVERSE = 0, WIDE, 2 * WIDE, 3 * WIDE
PUY, PVY = 0, WIDE
FLAT = np.finfo(np.float32).eps  # squared gradients below this count as this, to divide by them
LONGEST_WAVE = 6  # iterations in flight; more gained nothing in measurements


@dataclass(frozen=True)
class Tvl1Settings:
    """Parameters of `tvl1_flow`; the defaults are those of OpenCV's DualTVL1.

    Attributes
    ----------
    tau : time step of the dual iteration; [1]_ proves convergence up to .125, .25 works
    lambda_ : weight of the data term; smaller is smoother
    theta : coupling of the two half-problems; smaller is tighter and slower
    scales, scale_step : number of pyramid levels at most, and their ratio of sizes
    warps : linearisations at each level
    epsilon : a warp ends once the flow moves less than this in an iteration, root mean square, in
        pixels
    inner_iterations, outer_iterations : at most this many iterations between median filters, and
        rounds
    median_size : 5 for a 5x5 median filter before each round, 1 for none
    sigma : standard deviation of the Gaussian that smooths the frames, in pixels; 0 for none
    texture : share of the structure of each level that is taken away, 0 to 1
    """

    tau: float = 0.25
    lambda_: float = 0.15
    theta: float = 0.3
    scales: int = 5
    scale_step: float = 0.8
    warps: int = 5
    epsilon: float = 0.01
    inner_iterations: int = 30
    outer_iterations: int = 10
    median_size: int = 5
    sigma: float = 0.0
    texture: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        check_range(self, "tau", "lambda_", "theta", "epsilon")
        check_counts(self, "scales", "warps", "inner_iterations", "outer_iterations")
        check_scale_step(self.scale_step)
        check_sigma(self.sigma)
        if not 0 <= self.texture <= 1:
            raise ValueError(f"texture must be between 0 and 1, not {self.texture!r}.")
        if self.median_size not in (1, 5):
            raise ValueError(f"median_size must be 1 (no filter) or 5, not {self.median_size!r}.")


TVL1_PRESETS = {
    "fast": Tvl1Settings(epsilon=0.0112, warps=3, outer_iterations=2),
    "accurate": Tvl1Settings(lambda_=0.4, scales=30, sigma=0.6, texture=0.7),
}


class Workspace(NamedTuple):
    """Memory of one pyramid level, used again for every frame pair of a clip.

    Attributes
    ----------
    height, width : of the level, in pixels
    stride : float32 elements of one row of a plane: eight zeros on the left, the pixels, one column
        more and zeros up to whole vectors
    rows : flat; (height + 2, PLANES * stride), a row above the frame and one below it, each with
        all of its fields, in the order said above, since each iteration reads them all
    theta : one row of theta, zero beyond the frame, where the flow therefore stands still
    warp : scratch of `warp_row`
    scratch : scratch of `median_filter`
    moved : (8) the squared change of the flow in the last iteration, lane by lane
    """

    height: int
    width: int
    stride: int
    rows: np.ndarray
    theta: np.ndarray
    warp: WarpScratch
    scratch: np.ndarray
    moved: np.ndarray


class Terms(NamedTuple):
    """What the iterations of one level need of the settings.

    Attributes
    ----------
    bound : largest step of the thresholding per unit of gradient, lambda theta
    rate : of the dual step, tau / theta
    tolerance : squared change of the flow, summed over the frame, at which a warp ends
    warps, rounds, inner : linearisations; rounds in each; iterations in a round, at most
    median : whether a median filter precedes each round
    """

    bound: Scalar
    rate: Scalar
    tolerance: float
    warps: int
    rounds: int
    inner: int
    median: bool


class Level(NamedTuple):
    """One pyramid level of one frame: grey values, rows padded to whole vectors, and taps."""

    grey: np.ndarray
    taps: np.ndarray


@inner_kernel
def _primal_step(
    rows: np.ndarray,
    row: int,
    x: int,
    stride: int,
    theta: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    change: np.ndarray,
    last: bool,
) -> Vectors:
    """``u = v + theta div p`` for eight pixels, v being the thresholding step from the old u."""
    at, data, down = row + x, row + DATA * stride + 4 * x, row + DOWN * stride + 2 * x
    up = down - PLANES * stride
    u, v = load(rows, at + U * stride), load(rows, at + V * stride)
    ix, iy = load(rows, data + IX), load(rows, data + IY)
    rho = fma(ix, u, fma(iy, v, load(rows, data + RHO)))
    shift = minimum(maximum(rho * load(rows, data + INVERSE), lower), upper)
    along_u = load(rows, at + PUX * stride) - load(rows, at + PUX * stride - 1)
    along_v = load(rows, at + PVX * stride) - load(rows, at + PVX * stride - 1)
    down_u = load(rows, down + PUY) - load(rows, up + PUY)
    down_v = load(rows, down + PVY) - load(rows, up + PVY)
    new_u = fma(theta, along_u + down_u, fma(shift, ix, u))
    new_v = fma(theta, along_v + down_v, fma(shift, iy, v))
    store(rows, at + U * stride, new_u)
    store(rows, at + V * stride, new_v)
    if last:
        moved_u, moved_v = new_u - u, new_v - v
        change = fma(moved_u, moved_u, fma(moved_v, moved_v, change))
    return new_u, new_v, change


@inner_kernel
def _dual_step(
    rows: np.ndarray,
    row: int,
    x: int,
    stride: int,
    below_u: np.ndarray,
    below_v: np.ndarray,
    rate: np.ndarray,
) -> None:
    """``p = (p + rate grad u) / (1 + rate |grad u|)`` for eight pixels of u and of v."""
    at, down = row + x, row + DOWN * stride + 2 * x
    one = splat(np.float32(1))
    u, v = load(rows, at + U * stride), load(rows, at + V * stride)
    ux, uy = load(rows, at + U * stride + 1) - u, below_u - u
    vx, vy = load(rows, at + V * stride + 1) - v, below_v - v
    shrink_u = one / fma(rate, sqrt(fma(ux, ux, uy * uy)), one)
    shrink_v = one / fma(rate, sqrt(fma(vx, vx, vy * vy)), one)
    store(rows, at + PUX * stride, fma(rate, ux, load(rows, at + PUX * stride)) * shrink_u)
    store(rows, at + PVX * stride, fma(rate, vx, load(rows, at + PVX * stride)) * shrink_v)
    store(rows, down + PUY, fma(rate, uy, load(rows, down + PUY)) * shrink_u)
    store(rows, down + PVY, fma(rate, vy, load(rows, down + PVY)) * shrink_v)


@inner_kernel
def _iterate_row(
    rows: np.ndarray,
    theta: np.ndarray,
    row: int,
    stride: int,
    bound: Scalar,
    step: Scalar,
    moved: np.ndarray,
    last: bool,
) -> None:
    """One primal step of a row and, with it, the dual step of the row above.

    What the flow has moved is added to `moved` in the last iteration of a wave only: nobody asks
    before.

    The dual step needs the flow of its own row and of the one below, and so can run one row behind
    the primal step, and eight pixels behind it, while the values below are still in registers. In
    lockstep it would wait for the primal step of the same eight pixels.
    """
    lower, upper, rate = splat(-bound), splat(bound), splat(step)
    change = load(moved, 0)
    above, padded = row - PLANES * stride, stride - WIDE
    u, v, change = _primal_step(rows, row, 0, stride, load(theta, 0), lower, upper, change, last)
    for x in range(WIDE, padded, WIDE):
        new_u, new_v, change = _primal_step(
            rows, row, x, stride, load(theta, x), lower, upper, change, last
        )
        _dual_step(rows, above, x - WIDE, stride, u, v, rate)
        u, v = new_u, new_v
    _dual_step(rows, above, padded - WIDE, stride, u, v, rate)
    store(moved, 0, change)


@inner_kernel
def _iterate(work: Workspace, bound: Scalar, rate: Scalar, count: int) -> float:
    """`count` iterations over the frame as a wave: each runs one row behind the one before it.

    A row is so used `count` times while it is in the cache, and each iteration sees exactly what it
    would if it ran alone. The row below the frame is a copy of the last one, where the gradient
    along y is therefore zero; the first row's dual step, on the row above the frame, has rate zero.
    Likewise the column beyond the frame is a copy of the last. With this no border needs code of
    its own.

    Returns the squared change of the flow in the last of the iterations, summed over the frame.
    """
    rows, stride, height = work.rows, work.stride, work.height
    pitch = PLANES * stride
    work.moved[:] = np.float32(0)
    for front in range(height + count):
        for k in range(max(0, front - height), min(count, front + 1)):
            row = (front - k + 1) * pitch + WIDE
            if front - k == height:
                _copy_above(rows, row, pitch, work.width)
                _copy_above(rows, row + V * stride, pitch, work.width)
            step = rate if front > k else np.float32(0)
            last = k == count - 1
            _iterate_row(rows, work.theta, row, stride, bound, step, work.moved, last)
            rows[row + work.width] = rows[row + work.width - 1]
            end = row + V * stride + work.width
            rows[end] = rows[end - 1]
    change = 0.0
    for lane in range(WIDE):
        change += work.moved[lane]
    return change


@inner_kernel
def _copy_above(rows: np.ndarray, row: int, pitch: int, width: int) -> None:
    for x in range(row, row + width + 1):
        rows[x] = rows[x - pitch]


@inner_kernel
def _linearise(work: Workspace, grey: np.ndarray, taps: np.ndarray) -> None:
    """Warp I1 and its derivatives by the flow and write the data term's coefficients."""
    rows, stride, samples = work.rows, work.stride, work.warp.samples
    for y in range(work.height):
        row = (y + 1) * PLANES * stride + WIDE
        warp_row(taps, rows, row, row + V * stride, y, work.height, work.width, work.warp)
        for x in range(0, work.width, WIDE):
            at, data = row + x, row + DATA * stride + 4 * x
            ix, iy = load_every4(samples, 4 * x + 1), load_every4(samples, 4 * x + 2)
            known = fma(ix, load(rows, at + U * stride), iy * load(rows, at + V * stride))
            known = known + load(grey, y * (stride - WIDE) + x)
            norm = maximum(fma(ix, ix, iy * iy), splat(FLAT))
            store(rows, data + IX, ix)
            store(rows, data + IY, iy)
            store(rows, data + RHO, load_every4(samples, 4 * x) - known)
            store(rows, data + INVERSE, splat(np.float32(-1)) / norm)


@inner_kernel
def _smooth(work: Workspace) -> None:
    """Median-filter the flow and renew the column beyond the frame."""
    pitch = PLANES * work.stride
    for plane in (U, V):
        start = pitch + WIDE + plane * work.stride
        median_filter(work.rows, start, pitch, work.height, work.width, work.scratch)
        for y in range(work.height):
            end = start + y * pitch + work.width
            work.rows[end] = work.rows[end - 1]


@inner_kernel
def _planned(change: float, tolerance: Scalar, left: int) -> int:
    """Plan the next wave: single iterations near the end, since a wave cannot stop in between.

    Below three times the tolerance the change falls by 5 to 10% an iteration on real video, so that
    a wave planned like this seldom overruns the iteration where OpenCV stops, and never by more
    than five.
    """
    if change >= 3 * tolerance:
        return min(LONGEST_WAVE, left)
    return min(max(int(5 * (change / tolerance - 1)), 1), LONGEST_WAVE, left)


@entry_kernel
def _solve_level(work: Workspace, grey: np.ndarray, taps: np.ndarray, terms: Terms) -> None:
    """All warps of one level: the flow in `work` becomes the flow from I0 `grey` to I1 `taps`."""
    wave, tolerance = LONGEST_WAVE, terms.tolerance
    for _ in range(terms.warps):
        _linearise(work, grey, taps)
        change = np.inf
        taken = 0
        for _ in range(terms.rounds):
            if change <= tolerance:
                break
            if terms.median:
                _smooth(work)
            left = terms.inner
            while left > 0 and change > tolerance:
                count = min(wave, left) if taken == 0 else _planned(change, tolerance, left)
                change = _iterate(work, terms.bound, terms.rate, count)
                left -= count
                taken += count
        # Each warp takes fewer iterations than the one before: a first wave that is a quarter of
        # those seldom overruns the iteration where OpenCV stops.
        wave = min(max(taken // 4, 1), LONGEST_WAVE)


class _Tvl1(Solver[Workspace, Level]):
    def __init__(self, settings: Tvl1Settings) -> None:
        super().__init__(settings)
        self._settings = settings

    def make_workspace(self, height: int, width: int) -> Workspace:
        padded = round_up(width + 1)
        stride = WIDE + padded
        theta = aligned_zeros(padded)
        theta[:width] = self._settings.theta
        return Workspace(
            height,
            width,
            stride,
            rows=aligned_zeros((height + 2) * PLANES * stride + WIDE),
            theta=theta,
            warp=warp_scratch(width),
            scratch=median_scratch(height, width),
            moved=aligned_zeros(WIDE),
        )

    def prepare(self, frame: np.ndarray) -> np.ndarray:
        return blur(frame.astype(np.float32), self._settings.sigma)

    def make_level(self, image: np.ndarray) -> Level:
        image = without_structure(image, self._settings.texture)
        height, width = image.shape
        grey = np.zeros((height, round_up(width + 1)), np.float32)
        grey[:, :width] = image
        return Level(grey.ravel(), interleave(image, *gradient(image)))

    def start(self, work: Workspace) -> np.ndarray:
        planes = work.rows[:-WIDE].reshape(work.height + 2, PLANES, work.stride)
        planes[:, PUX:DATA] = planes[:, DOWN:] = 0
        return planes[1:-1, : V + 1, WIDE : WIDE + work.width].transpose(1, 0, 2)

    def solve(self, work: Workspace, level: Level, following: Level) -> None:
        settings = self._settings
        terms = Terms(
            bound=np.float32(settings.lambda_ * settings.theta),
            rate=np.float32(settings.tau / settings.theta),
            tolerance=settings.epsilon**2 * work.height * work.width,
            warps=settings.warps,
            rounds=settings.outer_iterations,
            inner=settings.inner_iterations,
            median=settings.median_size == 5,
        )
        _solve_level(work, level.grey, following.taps, terms)


def tvl1_flow(grey: np.ndarray, settings: Tvl1Settings = Tvl1Settings()) -> np.ndarray:
    """TV-L1 flow (T - 1, 2, H, W) of a clip (T, H, W) uint8; see `labelgen.flow.solver.Solver`."""
    return _Tvl1(settings).flow(grey)
