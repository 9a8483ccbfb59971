"""The labels as the paper's released code computes them, quirks included (profile "authors").

It differs from the paper's profile in that the crop is cut before derivatives are taken, that
orientations are assigned softly to two bins, in what a dominant colour is, and in one slip in the
colours of ring 2. Each difference is named where it stands. This path favours likeness to the
released code over speed.
"""

from __future__ import annotations

import cv2
import numpy as np

from labelgen.geometry import CROP_SIZE, ORIENTATIONS
from labelgen.labels.appearance import APPEARANCE_LABELS, block_scores, octant
from labelgen.labels.boundaries import boundary_sums
from labelgen.labels.motion import MOTION_LABELS, motion_maps
from labelgen.labels.partitions import AREAS, BOUNDS, MASKS, PARTITIONS

_BIN_WIDTH = 360.0 / ORIENTATIONS

# Released kernels are unscaled [-1 0 1] rows and columns, applied by true convolution, which turns
# them round: six times the true derivative, with the opposite sign.
_KERNEL_FACTOR = -6.0

_RING_2 = int(BOUNDS[1]) + 1


def authors_labels(frames: np.ndarray, flow: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """Return all labels of some crops of one clip, as the released code gives them.

    Parameters
    ----------
    frames : (T, H, W, 3) uint8
        RGB.
    flow : (T-1, 2, H, W) float32
        Pixels per frame.
    crops : (K, 2) int64
        Top and left of each crop.

    Returns
    -------
    (K, 27) uint8
        1-based; both labels of the grid are 0 in a component without any motion.
    """
    labels = np.empty((len(crops), MOTION_LABELS + APPEARANCE_LABELS), dtype=np.uint8)
    for row, (top, left) in zip(labels, crops, strict=True):
        window = np.s_[top : top + CROP_SIZE, left : left + CROP_SIZE]
        row[:MOTION_LABELS] = _motion_labels(flow[(..., *window)])
        row[MOTION_LABELS:] = _appearance_labels(frames[(slice(None), *window)])
    return labels


def _motion_labels(flow: np.ndarray) -> np.ndarray:
    """Return the 14 motion labels of a crop's flow, (T-1, 2, 112, 112)."""
    # The borders are those of the crop, not of the frame.
    flow = np.ascontiguousarray(flow)
    sums = boundary_sums(flow)
    pairs = motion_maps(flow, sums).pairs.sum(axis=(2, 3))
    labels = np.empty(MOTION_LABELS, dtype=np.uint8)
    for c in range(2):
        x, y = _KERNEL_FACTOR * sums[c]
        magnitude, angle = cv2.cartToPolar(x, y, angleInDegrees=True)
        for p, _ in enumerate(PARTITIONS):
            labels[4 * p + 2 * c : 4 * p + 2 * c + 2] = _largest_block(magnitude, angle, p)
        labels[4 * len(PARTITIONS) + c] = 1 + pairs[c].argmax()
    return labels


def _largest_block(magnitude: np.ndarray, angle: np.ndarray, partition: int) -> tuple[int, int]:
    blocks = slice(BOUNDS[partition], BOUNDS[partition + 1])
    sums = np.array([magnitude[mask].sum() for mask in MASKS[blocks]])
    if PARTITIONS[partition].name == "grid" and not sums.any():
        return 0, 0
    block = int((sums / AREAS[blocks]).argmax())
    mask = MASKS[blocks][block]
    return 1 + block, 1 + int(_soft_bins(magnitude[mask], angle[mask]).argmax())


def _soft_bins(magnitude: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Share each magnitude between the bin of its angle and the next one."""
    position = angle / _BIN_WIDTH
    lower = np.floor(position)
    share = position - lower
    low = lower.astype(np.int64) % ORIENTATIONS
    high = (low + 1) % ORIENTATIONS
    return np.bincount(low, magnitude * (1 - share), ORIENTATIONS) + np.bincount(
        high, magnitude * share, ORIENTATIONS
    )


def _appearance_labels(frames: np.ndarray) -> np.ndarray:
    """Return the 13 appearance labels of a crop's frames, (T, 112, 112, 3)."""
    scores = block_scores(np.ascontiguousarray(frames))
    labels = np.empty(APPEARANCE_LABELS, dtype=np.uint8)
    for p, _ in enumerate(PARTITIONS):
        first, last = BOUNDS[p], BOUNDS[p + 1]
        chosen = (scores[first:last].argmin(), scores[first:last].argmax())
        for k, block in enumerate(chosen):
            labels[4 * p + 2 * k] = 1 + block
            labels[4 * p + 2 * k + 1] = _commonest_octant(_block_pixels(frames, first + block))
    labels[-1] = _commonest_octant(frames.reshape(-1, 3))
    return labels


def _block_pixels(frames: np.ndarray, block: int) -> np.ndarray:
    """Return the pixels whose colours count for a block, (P, 3)."""
    if block == _RING_2:
        return _ring_2_pixels(frames)
    return frames[:, MASKS[block]].reshape(-1, 3)


def _ring_2_pixels(frames: np.ndarray) -> np.ndarray:
    """Return the released code's pixels of ring 2.

    The slice for its bottom strip falls on the time axis: in place of 14 rows of all frames it
    takes the whole square of the first two frames, with the inner square blackened.
    """
    square = frames[:, 28:84, 28:84].copy()
    square[:, 14:42, 14:42] = 0
    strips = [square[:, :14], square[:, 14:42, :14], square[:, 14:42, 42:], square[:2]]
    return np.concatenate([strip.reshape(-1, 3) for strip in strips])


def _commonest_octant(pixels: np.ndarray) -> int:
    """Return the 1-based octant of the single most frequent colour, not the fullest octant."""
    red, green, blue = pixels.astype(np.int64).T
    codes, counts = np.unique((blue << 16) + (green << 8) + red, return_counts=True)
    code = int(codes[counts.argmax()])
    return 1 + int(octant.py_func(code & 255, (code >> 8) & 255, code >> 16))
