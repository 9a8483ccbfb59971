"""Image pyramids for the flow solvers: blurs, levels, bicubic warps, a median filter for flow.

Images are (H, W) float32 in grey levels 0..255. Rows of everything that a warp reads are
interleaved, all channels of a pixel side by side, so that one gather of 4x4 pixels serves the image
and its derivatives alike.

References
----------
.. [1] J. Sanchez, E. Meinhardt-Llopis, G. Facciolo, "TV-L1 Optical Flow Estimation", IPOL 2013,
   Sec. 3.
.. [2] R. Keys, "Cubic Convolution Interpolation for Digital Image Processing", IEEE ASSP 1981.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from labelgen.flow.vectors import (
    STEPS,
    WIDE,
    aligned_zeros,
    entry_kernel,
    floor,
    fma,
    inner_kernel,
    load,
    load4,
    lower,
    maximum,
    minimum,
    round_up,
    sortable,
    splat,
    splat4,
    store,
    store_whole,
    upper,
)

Vectors = tuple[np.ndarray, ...]

MARGIN = 4  # zero pixels around an image, so that a 4x4 gather at the border needs no test
SMALLEST = 16  # a level is not made if a side would be shorter; OpenCV's rule
GREY_STEP = np.float32(2**-10)  # of smoothed frames, in grey levels
SHARPEST = 0.01  # a Gaussian of less is no other, and its squares would overflow
CUBIC = np.float32(-0.75)  # Keys' parameter; [2]_ prefers -.5, OpenCV uses -.75


def check_range(settings: object, *names: str) -> None:
    """Raise ValueError unless these attributes lie between 1e-9 and 1e9.

    Squares and quotients of numbers beyond are no float32 numbers any more.
    """
    for name in names:
        value = getattr(settings, name)
        if not 1e-9 <= value <= 1e9:
            raise ValueError(f"{name} must be between 1e-9 and 1e9, not {value!r}.")


def check_counts(settings: object, *names: str) -> None:
    """Raise ValueError unless these attributes are whole numbers of at least 1."""
    for name in names:
        value = getattr(settings, name)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}.")


def check_scale_step(step: float) -> None:
    """Raise ValueError unless the ratio of two levels' sizes lies between 0 and 1."""
    if not 0.1 <= step <= 0.95:
        raise ValueError(f"scale_step must be between 0.1 and 0.95, not {step!r}.")


def check_sigma(sigma: float) -> None:
    """Raise ValueError unless `blur` reaches three of this standard deviation."""
    if not 0 <= sigma <= 2:
        raise ValueError(f"sigma must be between 0 and 2 pixels, not {sigma!r}.")


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian of 13 taps (6 pixels reach three of the largest sigma), the border repeated.

    Grey levels are rounded to `GREY_STEP`, so that coarser levels of what is flat are flat as well
    with steps of .5 and .8, whose weights are exact: the last bits of resized fractions would be
    texture.
    """
    if sigma == 0:
        return image
    weights = np.exp(-0.5 * (np.arange(-6, 7) / max(sigma, SHARPEST)) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    for _ in range(2):
        padded = np.pad(image, ((6, 6), (0, 0)), mode="edge")
        blurred = np.zeros_like(image)
        for shift, weight in enumerate(weights):
            blurred += weight * padded[shift : shift + len(image)]
        image = np.ascontiguousarray(blurred.T)
    return np.rint(image / GREY_STEP) * GREY_STEP


def level_sizes(height: int, width: int, *, scales: int, step: float) -> list[tuple[int, int]]:
    """Sizes (height, width) of a pyramid's levels, finest first, each `step` times the last."""
    sizes = [(height, width)]
    while len(sizes) < scales:
        height, width = round(sizes[-1][0] * step), round(sizes[-1][1] * step)
        if min(height, width) < SMALLEST:
            break
        sizes.append((height, width))
    return sizes


def resize(image: np.ndarray, size: tuple[int, int], scales: tuple[float, float]) -> np.ndarray:
    """Bilinear resize; pixel centres map by ``(target + .5) * scale - .5``.

    OpenCV's own is not used, since its roundings depend on the processor.

    Parameters
    ----------
    image : (H, W) float32
    size : of the result, (h, w)
    scales : source pixels per target pixel along y and x. Between levels that is 1 / step, not the
        ratio of the rounded sizes, as in OpenCV; for flow it is the ratio.
    """
    target = np.empty(size, np.float32)
    rows, columns = map(_places, size, scales, image.shape)
    _blend(image, np.empty((len(image), size[1]), np.float32), target, rows, columns)
    return target


class _Blend(NamedTuple):
    """Along one axis, the two source pixels of each target pixel, and the weight of the second."""

    first: np.ndarray
    second: np.ndarray
    weight: np.ndarray


@lru_cache(maxsize=64)
def _places(count: int, scale: float, length: int) -> _Blend:
    """Source pixel at or before each target pixel's centre, the one after it, and its weight."""
    position = np.clip((np.arange(count) + 0.5) * scale - 0.5, 0, length - 1)
    first = np.floor(position)
    after = np.minimum(first + 1, length - 1)
    # Unsigned, so that the kernel need not look out for negative indices.
    weight = (position - first).astype(np.float32)
    return _Blend(first.astype(np.uint32), after.astype(np.uint32), weight)


@entry_kernel
def _blend(
    image: np.ndarray,
    wide: np.ndarray,
    target: np.ndarray,
    rows: _Blend,
    columns: _Blend,
) -> None:
    """Blend along x into `wide` (H, w), of which the target reads most rows twice, then along y."""
    left, right, weight = columns
    one = np.float32(1)
    for y in range(wide.shape[0]):
        for x in range(wide.shape[1]):
            w = weight[x]
            wide[y, x] = image[y, left[x]] * (one - w) + image[y, right[x]] * w
    for y in range(target.shape[0]):
        i, j, w = rows.first[y], rows.second[y], rows.weight[y]
        for x in range(target.shape[1]):
            target[y, x] = wide[i, x] * (one - w) + wide[j, x] * w


def enlarge(flow: np.ndarray, finer: np.ndarray, step: float) -> None:
    """Set flow (2, H, W) of a level from that of the next coarser one (2, h, w), in its pixels."""
    if flow.shape == finer.shape:
        finer[:] = flow
        return
    size = finer.shape[1:]
    ratios = flow.shape[1] / size[0], flow.shape[2] / size[1]
    for coarse, fine in zip(flow, finer, strict=True):
        np.multiply(resize(coarse, size, ratios), np.float32(1 / step), out=fine)


@entry_kernel
def gradient(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Central differences along x and along y of an (H, W) image.

    Outside the image the border pixel repeats, which halves the difference there, as in OpenCV.
    """
    height, width = image.shape
    half = np.float32(0.5)
    along_x, along_y = np.empty_like(image), np.empty_like(image)
    for y in range(height):
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            along_y[y, x] = (image[below, x] - image[above, x]) * half
        for x in range(1, width - 1):
            along_x[y, x] = (image[y, x + 1] - image[y, x - 1]) * half
        along_x[y, 0] = (image[y, min(1, width - 1)] - image[y, 0]) * half
        along_x[y, width - 1] = (image[y, width - 1] - image[y, max(width - 2, 0)]) * half
    return along_x, along_y


def interleave(*channels: np.ndarray, border: str = "zero") -> np.ndarray:
    """Up to four (H, W) channels side by side in a flat array, as `warp_row` reads them.

    It holds (H + 8, W + 8, 4) float32. The margin is zero, or with ``border="nearest"`` the nearest
    pixel of the image.
    """
    height, width = channels[0].shape
    taps = np.zeros((height + 2 * MARGIN, width + 2 * MARGIN, 4), np.float32)
    for index, channel in enumerate(channels):
        taps[MARGIN:-MARGIN, MARGIN:-MARGIN, index] = channel
    if border == "nearest":
        taps[:MARGIN], taps[-MARGIN:] = taps[MARGIN], taps[-MARGIN - 1]
        taps[:, :MARGIN] = taps[:, MARGIN, None]
        taps[:, -MARGIN:] = taps[:, -MARGIN - 1, None]
    return taps.reshape(-1)


class WarpScratch(NamedTuple):
    """What `warp_row` writes for one row of a level.

    Attributes
    ----------
    places : (2 * W rounded up) int32, first taps along x, then along y
    weights : flat; for every eight pixels eight vectors lie together, four along x and four along
        y: one address leads to all of a pixel's weights
    samples : flat float32, the result: four channels per pixel, W rounded up, and a vector more
    """

    places: np.ndarray
    weights: np.ndarray
    samples: np.ndarray


def warp_scratch(width: int) -> WarpScratch:
    """Return scratch for the rows of a level; its samples may be read in blocks of 16 pixels."""
    padded = round_up(width)
    samples = aligned_zeros(4 * round_up(round_up(width + 1) // 2) * 2 + WIDE)
    return WarpScratch(np.zeros(2 * padded, np.int32), aligned_zeros(WIDE * padded), samples)


@inner_kernel
def warp_row(
    taps: np.ndarray,
    flow: np.ndarray,
    u_at: int,
    v_at: int,
    y: int,
    height: int,
    width: int,
    scratch: WarpScratch,
) -> None:
    """Bicubic samples [2]_ of all channels at ``(x + u, y + v)`` for the pixels x of row y.

    What lies two or more pixels outside the image reads zeros only (OpenCV's constant border), so
    that any farther position may be moved there.

    Parameters
    ----------
    taps : flat float32 of the shape that `interleave` makes
    flow : flat float32; u is read from `u_at` on, v from `v_at` on, in whole vectors
    height, width : of the image, in pixels
    scratch : that `warp_scratch` makes; its samples are the result
    """
    places, weights = scratch.places, scratch.weights
    span = places.size // 2
    for x in range(0, width, WIDE):
        at_x = splat(np.float32(x)) + load(STEPS, 0) + load(flow, u_at + x)
        _prepare(at_x, width, places, x, weights, WIDE * x)
        at_y = splat(np.float32(y)) + load(flow, v_at + x)
        _prepare(at_y, height, places, span + x, weights, WIDE * (x + 4))
    pitch = 4 * (width + 2 * MARGIN)
    for x in range(width):
        at = 4 * places[x] + pitch * places[span + x]
        k = (WIDE - 1) * (x & -WIDE) + x  # its lane in the first of its block's eight vectors
        a, b = splat4(weights[k]), splat4(weights[k + WIDE])
        c, d = splat4(weights[k + 2 * WIDE]), splat4(weights[k + 3 * WIDE])
        value = splat4(weights[k + 4 * WIDE]) * _across(taps, at, a, b, c, d)
        value = fma(splat4(weights[k + 5 * WIDE]), _across(taps, at + pitch, a, b, c, d), value)
        value = fma(splat4(weights[k + 6 * WIDE]), _across(taps, at + 2 * pitch, a, b, c, d), value)
        value = fma(splat4(weights[k + 7 * WIDE]), _across(taps, at + 3 * pitch, a, b, c, d), value)
        store(scratch.samples, 4 * x, value)


@inner_kernel
def _prepare(
    position: np.ndarray, length: int, places: np.ndarray, at: int, weights: np.ndarray, first: int
) -> None:
    """First tap (an index into the padded image) and the weights of the four taps."""
    one, cubic = splat(np.float32(1)), splat(CUBIC)
    square, line = splat(CUBIC + np.float32(2)), splat(-CUBIC - np.float32(3))
    inside = minimum(maximum(position, splat(np.float32(-2))), splat(np.float32(length + 1)))
    whole = floor(inside)
    after = inside - whole
    before = one - after
    store_whole(places, at, whole + splat(np.float32(MARGIN - 1)))
    store(weights, first, cubic * (after * before) * before)
    store(weights, first + WIDE, fma(fma(square, after, line), after * after, one))
    store(weights, first + 2 * WIDE, fma(fma(square, before, line), before * before, one))
    store(weights, first + 3 * WIDE, cubic * (after * before) * after)


@inner_kernel
def _across(
    taps: np.ndarray, at: int, a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray
) -> np.ndarray:
    value = fma(b, load4(taps, at + 4), a * load4(taps, at))
    value = fma(c, load4(taps, at + 8), value)
    return fma(d, load4(taps, at + 12), value)


@inner_kernel
def _sort5(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, e: np.ndarray) -> Vectors:
    """Five vectors sorted lane by lane, in nine exchanges."""
    a, b = lower(a, b), upper(a, b)
    d, e = lower(d, e), upper(d, e)
    c, e = lower(c, e), upper(c, e)
    c, d = lower(c, d), upper(c, d)
    b, e = lower(b, e), upper(b, e)
    a, d = lower(a, d), upper(a, d)
    a, c = lower(a, c), upper(a, c)
    b, d = lower(b, d), upper(b, d)
    b, c = lower(b, c), upper(b, c)
    return a, b, c, d, e


@inner_kernel
def _sort_row(ranks: np.ndarray, at: int) -> Vectors:
    return _sort5(
        load(ranks, at - 2),
        load(ranks, at - 1),
        load(ranks, at),
        load(ranks, at + 1),
        load(ranks, at + 2),
    )


@inner_kernel
def _median25(ranks: np.ndarray, at: int, span: int) -> np.ndarray:
    """Median of 5 columns that are sorted already: rank i is found `i * span` after the smallest.

    Once the rows are sorted too, rank (i, j) has at least (i + 1) (j + 1) - 1 values below it and
    (5 - i) (5 - j) - 1 above: 6 of the 25 are too small to be the median, 6 too large, and the 7th
    of the other 13 is found by sixteen exchanges, of which mostly one side is needed. All values
    are `sortable`.
    """
    _, _, _, a3, a4 = _sort_row(ranks, at)
    _, _, b2, b3, b4 = _sort_row(ranks, at + span)
    _, c1, c2, c3, _ = _sort_row(ranks, at + 2 * span)
    d0, d1, d2, _, _ = _sort_row(ranks, at + 3 * span)
    e0, e1, _, _, _ = _sort_row(ranks, at + 4 * span)
    e0 = upper(b2, e0)
    c3 = lower(c3, b4)
    b3 = upper(d0, b3)
    b3 = lower(b3, d2)
    c2, e0 = lower(c2, e0), upper(c2, e0)
    c2, a4 = lower(c2, a4), upper(c2, a4)
    d1 = upper(c2, d1)
    e0 = lower(e0, c3)
    d1 = upper(a3, d1)
    e1 = lower(e1, a4)
    b3 = upper(c1, b3)
    e0, b3 = lower(e0, b3), upper(e0, b3)
    e1 = lower(e1, b3)
    d1, e0 = lower(d1, e0), upper(d1, e0)
    e1 = upper(d1, e1)
    return lower(e0, e1)


@inner_kernel
def median_filter(
    field: np.ndarray, start: int, pitch: int, height: int, width: int, scratch: np.ndarray
) -> None:
    """5x5 median in place, with the border repeated outwards.

    Parameters
    ----------
    field : flat float32; row y of the plane begins at ``start + y * pitch`` and owns `width`
        elements rounded up to whole vectors, the surplus being overwritten with anything finite
    scratch : what `median_scratch` makes
    """
    span = (width + WIDE - 1) // WIDE * WIDE + 2 * WIDE
    for y in range(-2, height + 2):
        source = start + min(max(y, 0), height - 1) * pitch
        row = (y + 2) * span + WIDE
        for x in range(0, width, WIDE):
            store(scratch, row + x, sortable(load(field, source + x)))
        scratch[row - 2] = scratch[row - 1] = scratch[row]
        scratch[row + width] = scratch[row + width + 1] = scratch[row + width - 1]
    ranks = (height + 4) * span
    for y in range(height):
        for x in range(0, span, WIDE):
            at = y * span + x
            _sort_column(scratch, at, ranks + x, span)
        for x in range(0, width, WIDE):
            median = _median25(scratch, ranks + WIDE + x, span)
            store(field, start + y * pitch + x, sortable(median))


@inner_kernel
def _sort_column(scratch: np.ndarray, at: int, ranks: int, span: int) -> None:
    a, b, c, d, e = _sort5(
        load(scratch, at),
        load(scratch, at + span),
        load(scratch, at + 2 * span),
        load(scratch, at + 3 * span),
        load(scratch, at + 4 * span),
    )
    store(scratch, ranks, a)
    store(scratch, ranks + span, b)
    store(scratch, ranks + 2 * span, c)
    store(scratch, ranks + 3 * span, d)
    store(scratch, ranks + 4 * span, e)


def median_scratch(height: int, width: int) -> np.ndarray:
    """Scratch for `median_filter`: the field with a border, and five rows of sorted columns."""
    return aligned_zeros((height + 9) * (round_up(width) + 2 * WIDE) + WIDE)
