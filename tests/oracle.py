"""The labels again, in slow and plain NumPy written from the specification, sharing no code."""

import numpy as np

SIDE = 112


def prewitt(field):
    """True x and y derivatives with half-sample symmetric borders."""
    f = np.pad(field.astype(np.float64), 1, mode="symmetric")
    fx = (f[:-2, 2:] - f[:-2, :-2] + f[1:-1, 2:] - f[1:-1, :-2] + f[2:, 2:] - f[2:, :-2]) / 6
    fy = (f[2:, :-2] - f[:-2, :-2] + f[2:, 1:-1] - f[:-2, 1:-1] + f[2:, 2:] - f[:-2, 2:]) / 6
    return fx, fy


def boundaries(flow):
    """(4, H, W) sums over pairs: M_u = (x, y), M_v = (x, y)."""
    total = np.zeros((4, *flow.shape[2:]))
    for pair in flow:
        for c in range(2):
            fx, fy = prewitt(pair[c])
            total[2 * c] += fx
            total[2 * c + 1] += fy
    return total


def blocks(partition):
    """Pixel sets of a partition, as lists of (row, column)."""
    pixels = [(r, c) for r in range(SIDE) for c in range(SIDE)]
    if partition == "grid":
        return [
            [(r, c) for r in range(28 * i, 28 * i + 28) for c in range(28 * j, 28 * j + 28)]
            for i in range(4)
            for j in range(4)
        ]
    if partition == "rings":
        squares = [
            {(r, c) for r, c in pixels if 56 - h <= r < 56 + h and 56 - h <= c < 56 + h}
            for h in (14, 28, 42, 56)
        ]
        return [sorted(squares[0])] + [sorted(squares[k] - squares[k - 1]) for k in (1, 2, 3)]
    rules = [
        lambda r, c: r < 56 and c < 56 and r >= c,
        lambda r, c: r < 56 and c < 56 and r <= c,
        lambda r, c: r < 56 and c >= 56 and r + c <= 111,
        lambda r, c: r < 56 and c >= 56 and r + c >= 111,
        lambda r, c: r >= 56 and c < 56 and r + c <= 111,
        lambda r, c: r >= 56 and c < 56 and r + c >= 111,
        lambda r, c: r >= 56 and c >= 56 and r >= c,
        lambda r, c: r >= 56 and c >= 56 and r <= c,
    ]
    return [[(r, c) for r, c in pixels if rule(r, c)] for rule in rules]


PARTITIONS = ("grid", "rings", "triangles")
BLOCKS = {name: [tuple(np.array(block).T) for block in blocks(name)] for name in PARTITIONS}


def relative_margin(values):
    """Distance of the best to the second best value, relative to the best in size."""
    first, second = sorted(values, reverse=True)[:2]
    return (first - second) / max(abs(first), abs(second), 1e-300)


def labels(frames, flow, top, left):
    """The 27 labels of one crop, and for each the relative margin of the decision."""
    window = np.s_[..., top : top + SIDE, left : left + SIDE]
    m = boundaries(flow)[window]
    out, margins = [], []

    def decide(values):
        out.append(1 + int(np.argmax(values)))
        margins.append(relative_margin(values))
        return out[-1] - 1

    for name in PARTITIONS:
        for c in range(2):
            a, b = m[2 * c], m[2 * c + 1]
            magnitude = np.sqrt(a**2 + b**2)
            angle = np.degrees(np.arctan2(-b, a)) % 360
            bins = np.floor(angle / 45).astype(int) % 8
            where = decide([magnitude[block].mean() for block in BLOCKS[name]])
            block = BLOCKS[name][where]
            decide([magnitude[block][bins[block] == k].sum() for k in range(8)])
            # An orientation can be no surer than the block it is taken from.
            margins[-1] = min(margins[-2:])
    for c in range(2):
        sums = []
        for pair in flow:
            fx, fy = prewitt(pair[c])
            sums.append(np.sqrt(fx**2 + fy**2)[window].sum())
        decide(sums)
    crop = frames[:, top : top + SIDE, left : left + SIDE]
    octants = octant(crop)
    for name in PARTITIONS:
        scores = [score(crop[:, block[0], block[1]]) for block in BLOCKS[name]]
        for sign in (-1, 1):
            where = decide([sign * s for s in scores])
            block = BLOCKS[name][where]
            decide(octant_counts(octants[:, block[0], block[1]]))
            margins[-1] = min(margins[-2:])
    decide(octant_counts(octants))
    return np.array(out), np.array(margins)


def octant(pixels):
    """0-based colour octant."""
    r, g, b = (pixels[..., k] >= 128 for k in range(3))
    return 4 * (~b) + 2 * r + g


def octant_counts(octants):
    return np.bincount(octants.ravel(), minlength=8)


def score(block):
    """Stability of a block, (T, P, 3): histogram intersection over union, mean over channels."""
    ious = []
    for k in range(3):
        histograms = np.array([np.bincount(frame[:, k], minlength=256) for frame in block])
        ious.append(histograms.min(axis=0).sum() / histograms.max(axis=0).sum())
    return np.mean(ious)
