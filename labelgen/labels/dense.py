"""The labels of every crop of a clip at once: the same decisions, from sums that are shared.

What a label is stands in `motion.decide` and `appearance.decide`; here stands only how the numbers
that they compare are found for all 17 x 60 crops. Two facts do the work, both of them
about where the runs of a block's pixels end (`labelgen.labels.partitions.row_ends`):

- A sum over a block is a signed sum of row prefix sums at those ends. The ends lie on a few
  straight lines, and a sum along a line is a difference of two prefix sums along its slope. So any
  block, triangle or ring included, costs two look-ups per line, wherever it lies.
- A block that moves by one pixel gains and loses just the pixels at its ends, so its histograms
  slide. What it gains and loses on the way down slides itself when the block moves to the right,
  and changes just at its corners: four pixels for a square, eight for a ring. A triangle loses its
  diagonal on the way down, which slides along itself, by two pixels.

Magnitudes and counts are whole numbers, so all sums are exact and equal those of single crops.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from labelgen.geometry import (
    CLIP_LENGTH,
    CROP_SIZE,
    FRAME_SIZE,
    MAX_LEFT,
    MAX_TOP,
    OCTANTS,
    ORIENTATIONS,
)
from labelgen.kernels import kernel
from labelgen.labels import appearance, motion
from labelgen.labels.appearance import APPEARANCE_LABELS, octant, overlap
from labelgen.labels.motion import MOTION_LABELS, MotionMaps
from labelgen.labels.partitions import AREAS, BOUNDS, MASKS, edge_lines

_TOPS, _LEFTS = MAX_TOP + 1, MAX_LEFT + 1
_LEVELS = 256
_BINS = CLIP_LENGTH * _LEVELS
_SLOPES = 3

# A pixel's values in all frames of a clip, a byte each, lie side by side in two words.
_FRAMES_PER_WORD = 8
_WORDS = CLIP_LENGTH // _FRAMES_PER_WORD


def _block_lines() -> np.ndarray:
    """Return (L, 6) int64: the block of each line, then `edge_lines`."""
    return np.concatenate(
        [np.insert(edge_lines(mask), 0, block, axis=1) for block, mask in enumerate(MASKS)]
    )


_LINES = _block_lines()


def every_crop_motion(maps: MotionMaps) -> np.ndarray:
    """Return the motion labels of all crops of one clip.

    Parameters
    ----------
    maps : MotionMaps
        Of a 128x171 clip.

    Returns
    -------
    (1020, 14) uint8
        Equal to `labelgen.labels.motion.motion_labels` of the crops of `crop_positions("all")`.
    """
    labels = np.empty((_TOPS * _LEFTS, MOTION_LABELS), dtype=np.uint8)
    for c in range(2):
        planes = np.zeros((*maps.magnitude.shape[1:], ORIENTATIONS))
        _spread(maps.magnitude[c], maps.orientation[c], planes)
        _label_motion(_tables(planes), maps.pairs[c], _LINES, AREAS, BOUNDS, c, labels)
    return labels


def every_crop_appearance(frames: np.ndarray) -> np.ndarray:
    """Return the appearance labels of all crops of one clip.

    Parameters
    ----------
    frames : (16, 128, 171, 3) uint8
        RGB.

    Returns
    -------
    (1020, 13) uint8
        Equal to `labelgen.labels.appearance.appearance_labels` of all crops.
    """
    scores = _every_score(frames)
    planes = np.zeros((*frames.shape[1:3], OCTANTS))
    _count_octants(frames, planes)
    labels = np.empty((_TOPS * _LEFTS, APPEARANCE_LABELS), dtype=np.uint8)
    _label_appearance(_tables(planes), scores, _LINES, BOUNDS, labels)
    return labels


def _tables(planes: np.ndarray) -> np.ndarray:
    """Return prefix sums of row prefix sums along the three slopes.

    Parameters
    ----------
    planes : (H, W, B) float64
        Whole numbers.

    Returns
    -------
    (3, H + 1, W + 3, B) float64
        At (slope + 1, y, x + 1): the row prefix sums at (y - 1, x - slope), (y - 2, x - 2 slope)
        and so on, added up.
    """
    height, width, bins = planes.shape
    tables = np.zeros((_SLOPES, height + 1, width + 3, bins))
    _fill_tables(planes, tables)
    return tables


@kernel()
def _fill_tables(planes, tables):  # type: ignore[no-untyped-def]
    height, width, bins = planes.shape
    prefix = np.empty((width + 1, bins))
    for y in range(height):
        prefix[0] = 0.0
        for x in range(width):
            for k in range(bins):
                prefix[x + 1, k] = prefix[x, k] + planes[y, x, k]
        for slope in range(_SLOPES):
            for x in range(width + 1):
                for k in range(bins):
                    tables[slope, y + 1, x + slope, k] = tables[slope, y, x + 1, k] + prefix[x, k]


@kernel()
def _block_sums(tables, lines, top, left, sums):  # type: ignore[no-untyped-def]
    """Fill `sums` (28, B) with the sums over the blocks of one crop."""
    sums[:] = 0.0
    for i in range(lines.shape[0]):
        block, slope, row, column, length, sign = lines[i]
        y, x = top + row, left + column + 1
        begin = tables[slope + 1, y, x]
        end = tables[slope + 1, y + length, x + slope * length]
        for k in range(sums.shape[1]):
            sums[block, k] += sign * (end[k] - begin[k])


@kernel()
def _spread(magnitude, orientation, planes):  # type: ignore[no-untyped-def]
    for y in range(magnitude.shape[0]):
        for x in range(magnitude.shape[1]):
            planes[y, x, orientation[y, x]] = magnitude[y, x]


@kernel()
def _label_motion(tables, pairs, lines, areas, bounds, c, labels):  # type: ignore[no-untyped-def]
    bins = np.empty((areas.size, ORIENTATIONS))
    totals = np.zeros((pairs.shape[2], pairs.shape[0]))
    for top in range(_TOPS):
        _slide_totals(pairs, top, totals)
        for left in range(_LEFTS):
            _block_sums(tables, lines, top, left, bins)
            motion.decide(bins, areas, bounds, totals[left], c, labels[top * _LEFTS + left])


@kernel()
def _slide_totals(pairs, top, totals):  # type: ignore[no-untyped-def]
    """Bring `totals` (60, T-1), the sums over crops at `top` - 1, to `top`."""
    for pair in range(pairs.shape[0]):
        for left in range(pairs.shape[2]):
            if top == 0:
                totals[left, pair] = pairs[pair, :CROP_SIZE, left].sum()
            else:
                gained = pairs[pair, top + CROP_SIZE - 1, left]
                totals[left, pair] += gained - pairs[pair, top - 1, left]


@kernel()
def _count_octants(frames, planes):  # type: ignore[no-untyped-def]
    for t in range(frames.shape[0]):
        for y in range(frames.shape[1]):
            for x in range(frames.shape[2]):
                red, green, blue = frames[t, y, x]
                planes[y, x, octant(red, green, blue)] += 1.0


@kernel()
def _label_appearance(tables, scores, lines, bounds, labels):  # type: ignore[no-untyped-def]
    octants = np.empty((scores.shape[0], OCTANTS))
    for top in range(_TOPS):
        for left in range(_LEFTS):
            _block_sums(tables, lines, top, left, octants)
            of_crop = np.ascontiguousarray(scores[:, top, left])
            appearance.decide(of_crop, octants, bounds, labels[top * _LEFTS + left])


class _Ends(NamedTuple):
    """Pixels that change sides when a block moves.

    Attributes
    ----------
    offsets : (E,) int64
        Of the pixel from the block's corner, in words of `_words`.
    signs : (E,) int16
        1 for pixels gained, -1 for pixels lost.
    """

    offsets: np.ndarray
    signs: np.ndarray

    @classmethod
    def of(cls, ends: np.ndarray) -> _Ends:
        """Take rows of row, column and sign."""
        offsets = _WORDS * (FRAME_SIZE[1] * ends[:, 0] + ends[:, 1])
        return cls(offsets, ends[:, 2].astype(np.int16))


class _Moves(NamedTuple):
    """How the histograms of a block move.

    Attributes
    ----------
    pixels : _Ends
        The block's own pixels, all gained.
    right, down : _Ends
        What changes when the block moves by one pixel.
    corners : _Ends
        What `down` itself gains and loses when the block moves to the right.
    """

    pixels: _Ends
    right: _Ends
    down: _Ends
    corners: _Ends


class _Triangle(NamedTuple):
    """How the histograms of a quadrant's lower triangle move: down, from its diagonal to a row.

    Attributes
    ----------
    pixels, right : _Ends
        As in `_Moves`.
    below, below_right : _Ends
        The row of pixels below it, which it gains on the way down; what changes when the row moves
        to the right.
    diagonal, diagonal_on : _Ends
        The diagonal, all lost on the way down; what changes when it moves along itself.
    slope : int
        Rows down per column to the right along the diagonal, 1 or -1.
    """

    pixels: _Ends
    right: _Ends
    below: _Ends
    below_right: _Ends
    diagonal: _Ends
    diagonal_on: _Ends
    slope: int

    @classmethod
    def of(cls, lower: np.ndarray, upper: np.ndarray) -> _Triangle:
        """Take the masks of both triangles of a quadrant."""
        pixels, right, _, _ = _moves(lower)
        columns, rows = np.nonzero((lower & upper).T)
        below, below_right = _strip(np.full_like(rows, rows.max() + 1), columns)
        lost, lost_on = (_Ends(e.offsets, -e.signs) for e in _strip(rows, columns))
        slope = int(rows[1] - rows[0])
        return cls(pixels, right, below, below_right, lost, lost_on, slope)


def _strip(rows: np.ndarray, columns: np.ndarray) -> tuple[_Ends, _Ends]:
    """Return a straight strip's pixels, and what changes when it moves along itself."""
    first, second, last = (np.array([rows[k], columns[k], 1]) for k in (0, 1, -1))
    ends = np.stack([first, last + second - first])
    ends[0, 2] = -1
    return _Ends.of(np.column_stack([rows, columns, np.ones_like(rows)])), _Ends.of(ends)


def _moves(mask: np.ndarray) -> _Moves:
    padded = np.pad(mask.astype(np.int64), 1)
    right = padded[1:-1, :-1] - padded[1:-1, 1:]
    down = padded[:-1, 1:-1] - padded[1:, 1:-1]
    # The down ends, moved to the right.
    corners = np.pad(down, ((0, 0), (1, 0))) - np.pad(down, ((0, 0), (0, 1)))
    return _Moves(*(_Ends.of(_nonzero(ends)) for ends in (mask, right, down, corners)))


def _nonzero(values: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(values)
    return np.column_stack([rows, columns, values[rows, columns]])


def _quadrants() -> list[tuple[int, int, _Moves, _Triangle]]:
    """Return per quadrant its lower and upper block, and the moves of square and lower triangle."""
    first = int(BOUNDS[2])
    pairs = []
    for one in range(first, int(BOUNDS[3]), 2):
        square = MASKS[one] | MASKS[one + 1]
        # The lower triangle is the one with the quadrant's whole last row.
        lower, upper = sorted((one, one + 1), key=lambda block: -_last_row(block, square))
        triangle = _Triangle.of(MASKS[lower], MASKS[upper])
        pairs.append((lower, upper, _moves(square), triangle))
    return pairs


def _last_row(block: int, square: np.ndarray) -> int:
    return int(MASKS[block][np.nonzero(square)[0].max()].sum())


# Blocks of one row of the grid are one shape at overlapping positions, so they walk once.
_GRID = 4
_BLOCK = CROP_SIZE // _GRID
_GRID_MOVES = _moves(MASKS[0])
_RING_MOVES = [(block, _moves(MASKS[block])) for block in range(int(BOUNDS[1]), int(BOUNDS[2]))]
_QUADRANTS = _quadrants()


def _every_score(frames: np.ndarray) -> np.ndarray:
    """Return (28, 17, 60) float64: the stability of each block of each crop."""
    scores = np.zeros((len(MASKS), _TOPS, _LEFTS))
    rows = np.zeros((_GRID, _TOPS, _LEFTS + (_GRID - 1) * _BLOCK))
    for words in _words(frames):
        for row in range(_GRID):
            _walk_block(words, row * _BLOCK, _GRID_MOVES, rows[row])
        for block, moves in _RING_MOVES:
            _walk_block(words, 0, moves, scores[block])
        for lower, upper, square, triangle in _QUADRANTS:
            _walk_quadrant(words, square, triangle, scores[lower], scores[upper])
    for block in range(_GRID * _GRID):
        row, column = divmod(block, _GRID)
        scores[block] = rows[row, :, column * _BLOCK : column * _BLOCK + _LEFTS]
    return scores / 3.0


def _words(frames: np.ndarray) -> np.ndarray:
    """Return (3, H * W * 2) uint64: per channel and pixel, the values of its 16 frames."""
    return np.ascontiguousarray(frames.transpose(3, 1, 2, 0)).reshape(3, -1).view(np.uint64)


@kernel()
def _walk_block(words, first, moves, scores):  # type: ignore[no-untyped-def]
    """Add one channel's stability of a block to `scores` (17, columns), `first` rows down."""
    bins, extremes = np.empty(_BINS, np.int16), np.empty(2 * _LEVELS, np.int16)
    lowest, highest = extremes[:_LEVELS], extremes[_LEVELS:]
    # The histograms at the top, and what they gain on the way down to each next row.
    top = np.zeros(_BINS, np.int16)
    gains = np.zeros((_TOPS - 1, _BINS), np.int16)
    for x in range(scores.shape[1]):
        _slide(words, first, x, moves.pixels, moves.right, top)
        bins[:] = top
        for row in range(_TOPS):
            _extremes(bins, extremes)
            scores[row, x] += overlap(lowest, highest)
            if row < _TOPS - 1:
                gain = gains[row]
                _slide(words, first + row, x, moves.down, moves.corners, gain)
                _accumulate(bins, gain)


@kernel()
def _walk_quadrant(words, square, triangle, lower_scores, upper_scores):  # type: ignore[no-untyped-def]
    """Add one channel's stability of both triangles of a quadrant.

    Moving down, the lower triangle first loses its diagonal; what is left of it then is just what
    the upper triangle, which has the diagonal too, lacks of the square. So both come from one.
    """
    whole_top, top = np.zeros(_BINS, np.int16), np.zeros(_BINS, np.int16)
    whole, bins = np.empty(_BINS, np.int16), np.empty(_BINS, np.int16)
    # No more than the 56 pixels of a side: a byte holds them.
    whole_gains, gains = np.zeros((_TOPS, _BINS), np.int8), np.zeros((_TOPS, _BINS), np.int8)
    diagonals = np.zeros((_TOPS, _BINS), np.int8)
    extremes = np.empty(2 * _LEVELS, np.int16)
    lowest, highest = extremes[:_LEVELS], extremes[_LEVELS:]
    for x in range(_LEFTS):
        _slide(words, 0, x, square.pixels, square.right, whole_top)
        _slide(words, 0, x, triangle.pixels, triangle.right, top)
        whole[:] = whole_top
        bins[:] = top
        for row in range(_TOPS):
            diagonal = _slide_diagonal(words, row, x, triangle, diagonals)
            _extremes_before(bins, diagonal, extremes)
            lower_scores[row, x] += overlap(lowest, highest)
            if row < _TOPS - 1:
                _slide(words, row, x, square.down, square.corners, whole_gains[row])
                _slide(words, row, x, triangle.below, triangle.below_right, gains[row])
            _extremes_of_rest(whole, bins, whole_gains[row], gains[row], extremes)
            upper_scores[row, x] += overlap(lowest, highest)


@kernel(inline="always")
def _slide(words, row, x, pixels, ends, bins):  # type: ignore[no-untyped-def]
    """Count the pixels of a shape at column 0, or bring its counts on from the column before."""
    if x == 0:
        _add(words, _at(row, 0), pixels, bins)
    else:
        _add(words, _at(row, x - 1), ends, bins)


@kernel()
def _slide_diagonal(words, row, x, triangle, diagonals):  # type: ignore[no-untyped-def]
    """Return the counts of the diagonal, less than 0, from those of the column before."""
    before = row - triangle.slope
    bins = diagonals[(row - triangle.slope * x) % _TOPS]
    if x == 0 or before < 0 or before >= _TOPS:
        bins[:] = 0
        _add(words, _at(row, x), triangle.diagonal, bins)
    else:
        _add(words, _at(before, x - 1), triangle.diagonal_on, bins)
    return bins


@kernel(inline="always")
def _at(y, x):  # type: ignore[no-untyped-def]
    return _WORDS * (y * FRAME_SIZE[1] + x)


@kernel()
def _add(words, corner, ends, bins):  # type: ignore[no-untyped-def]
    """Count some pixels, all frames of each, in `bins`: 256 levels of each frame in turn."""
    for i in range(ends.offsets.size):
        sign = ends.signs[i]
        at = np.uint64(corner + ends.offsets[i])
        for half in range(_WORDS):
            word = words[at + np.uint64(half)]
            for t in range(_FRAMES_PER_WORD):
                frame = np.uint64((half * _FRAMES_PER_WORD + t) * _LEVELS)
                level = (word >> np.uint64(8 * t)) & np.uint64(255)
                bins[frame + level] += sign


@kernel()
def _accumulate(bins, gain):  # type: ignore[no-untyped-def]
    for k in range(bins.size):
        bins[k] += gain[k]


# Minima and maxima lie in one array, and what changes lies in arrays of its own: where there are
# more, or views of one, the compiler cannot tell that they do not overlap, and uses no vectors.


@kernel()
def _extremes(bins, extremes):  # type: ignore[no-untyped-def]
    """Fill the minimum over frames of each level, then the maximum."""
    for k in range(_LEVELS):
        low = high = bins[k]
        for t in range(1, CLIP_LENGTH):
            count = bins[t * _LEVELS + k]
            low = count if count < low else low
            high = count if count > high else high
        extremes[k] = low
        extremes[_LEVELS + k] = high


@kernel()
def _extremes_before(bins, gain, extremes):  # type: ignore[no-untyped-def]
    """Do as `_extremes`, and in the same pass as `_accumulate`."""
    for k in range(_LEVELS):
        low = high = bins[k]
        bins[k] = low + gain[k]
        for t in range(1, CLIP_LENGTH):
            at = t * _LEVELS + k
            count = bins[at]
            low = count if count < low else low
            high = count if count > high else high
            bins[at] = count + gain[at]
        extremes[k] = low
        extremes[_LEVELS + k] = high


@kernel()
def _extremes_of_rest(whole, part, whole_gain, gain, extremes):  # type: ignore[no-untyped-def]
    """Do as `_extremes_before`, with what `part` lacks of `whole`, for both."""
    for k in range(_LEVELS):
        everything, some = whole[k], part[k]
        low = high = np.int16(everything - some)
        whole[k] = everything + whole_gain[k]
        part[k] = some + gain[k]
        for t in range(1, CLIP_LENGTH):
            at = t * _LEVELS + k
            everything, some = whole[at], part[at]
            count = np.int16(everything - some)
            low = count if count < low else low
            high = count if count > high else high
            whole[at] = everything + whole_gain[at]
            part[at] = some + gain[at]
        extremes[k] = low
        extremes[_LEVELS + k] = high
