"""Motion boundaries: the spatial derivatives of flow, summed over a clip (paper, Eq. 1)."""

from __future__ import annotations

import numpy as np

from labelgen.kernels import kernel

_PREWITT = 1.0 / 6.0


def motion_boundaries(flow: np.ndarray) -> np.ndarray:
    """Return M_u and M_v of a clip (paper, Eq. 1).

    Derivatives are 3x3 Prewitt, scaled to be true derivatives, with half-sample symmetric borders.

    Parameters
    ----------
    flow : (T-1, 2, H, W) float32
        u (right) and v (down) of each frame pair, in pixels per frame.

    Returns
    -------
    (4, H, W) float32
        M_u = (x, y), then M_v = (x, y); pixels per frame and pixel, summed over the pairs.

    Raises
    ------
    ValueError
        If `flow` has another shape or type, or holds NaN or infinity.
    """
    return stored_boundaries(boundary_sums(checked_flow(flow)), dtype=np.float32)


def stored_boundaries(sums: np.ndarray, *, dtype: type = np.float16) -> np.ndarray:
    """Return (4, H, W) M_u and M_v as shards hold them, float16 unless another type is asked.

    Values beyond float16's range, far outside any real motion, are stored as its largest.
    """
    limit = np.finfo(dtype).max
    # By way of float32, so that what is stored is what `motion_boundaries` gives, rounded.
    boundaries = sums.reshape(4, *sums.shape[2:]).astype(np.float32)
    return boundaries.clip(-limit, limit).astype(dtype)


def motion_energy(sums: np.ndarray) -> float:
    """Return the mean over the frame of ``|M_u| + |M_v|``; 0 for a clip without motion."""
    return float(np.hypot(sums[:, 0], sums[:, 1]).sum(axis=0).mean())


def checked_flow(flow: np.ndarray) -> np.ndarray:
    """Return `flow` as contiguous float32; raise as `motion_boundaries` says."""
    flow = np.asarray(flow)
    if flow.ndim != 4 or flow.shape[1] != 2 or 0 in flow.shape:
        raise ValueError(f"flow must be (T-1, 2, H, W), got shape {flow.shape}")
    if flow.dtype not in (np.float16, np.float32, np.float64):
        raise ValueError(f"flow must hold floating-point pixels, got {flow.dtype}")
    flow = np.ascontiguousarray(flow, dtype=np.float32)
    if not np.isfinite(largest_displacement(flow)):
        raise ValueError("flow holds NaN or infinity; give finite displacements in pixels")
    return flow


def largest_displacement(flow: np.ndarray) -> float:
    """Return the largest absolute value of a contiguous float32 array; NaN or inf if it has any."""
    # Without their sign bit, float32 values are ordered as the integers of the same bits; NaN
    # comes last. Comparing integers takes a third of the time.
    return float(np.int32(_largest_bits(flow.reshape(-1).view(np.int32))).view(np.float32))


def boundary_sums(flow: np.ndarray) -> np.ndarray:
    """Return M_u and M_v in full precision.

    Parameters
    ----------
    flow : (T-1, 2, H, W) float32
        As `checked_flow` gives it.

    Returns
    -------
    (2, 2, H, W) float64
        ``sums[c] = (x, y)`` for component c: 0 is u, 1 is v.
    """
    components, height, width = flow.shape[1:]
    # Derivatives are linear: those of the summed flow are the sums of those of each pair.
    total = np.zeros((components, height, width))
    _add_pairs(flow, total)
    sums = np.empty((components, 2, height, width))
    _derive(total, sums)
    return sums


@kernel()
def _largest_bits(bits):  # type: ignore[no-untyped-def]
    largest = np.int32(0)
    for i in range(bits.size):
        largest = max(largest, bits[i] & np.int32(0x7FFFFFFF))
    return largest


@kernel()
def _add_pairs(flow, total):  # type: ignore[no-untyped-def]
    for pair in range(flow.shape[0]):
        values, sums = flow[pair].reshape(-1), total.reshape(-1)
        for i in range(sums.size):
            sums[i] += values[i]


@kernel()
def _derive(fields, derivatives):  # type: ignore[no-untyped-def]
    """Fill `derivatives` (C, 2, H, W) with the x and y derivatives of `fields` (C, H, W)."""
    components, height, width = fields.shape
    sums, differences = np.empty(width + 2), np.empty(width + 2)
    for c in range(components):
        for y in range(height):
            prewitt_columns(fields[c], y, sums, differences)
            for x in range(width):
                derivatives[c, 0, y, x] = x_derivative(sums, x)
            for x in range(width):
                derivatives[c, 1, y, x] = y_derivative(differences, x)


@kernel()
def prewitt_columns(field, y, sums, differences):  # type: ignore[no-untyped-def]
    """Fill what the derivatives of row `y` of an (H, W) field are made of.

    Of the three pixels of each column the sum, and the last less the first; both W + 2 long, with
    the edge repeated. In float64, where the sum of a few float32 values is exact or nearly so. One
    loop per array, as the compiler vectorises no loop that fills two.
    """
    height, width = field.shape
    upper, lower = max(y - 1, 0), min(y + 1, height - 1)
    for x in range(width):
        outer = np.float64(field[lower, x]) + np.float64(field[upper, x])
        sums[x + 1] = outer + np.float64(field[y, x])
    for x in range(width):
        differences[x + 1] = np.float64(field[lower, x]) - np.float64(field[upper, x])
    sums[0], sums[width + 1] = sums[1], sums[width]
    differences[0], differences[width + 1] = differences[1], differences[width]


@kernel(inline="always")
def x_derivative(sums, x):  # type: ignore[no-untyped-def]
    """Return the derivative along x at column `x`, from the sums of `prewitt_columns`."""
    return _PREWITT * (sums[x + 2] - sums[x])


@kernel(inline="always")
def y_derivative(differences, x):  # type: ignore[no-untyped-def]
    """Return the derivative along y at column `x`, from `prewitt_columns`' differences."""
    # The outer two first, so that a mirrored row gives the same number to the last bit.
    return _PREWITT * ((differences[x] + differences[x + 2]) + differences[x + 1])
