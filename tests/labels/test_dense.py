"""All crops at once give just what each crop gives by itself."""

import itertools
import os

import numpy as np
import oracle
import pytest
from conftest import random_clip

from labelgen import LABELS, clip_labels, flip_labels, optical_flow, read_clips
from labelgen.labels.appearance import appearance_labels, block_scores
from labelgen.labels.boundaries import boundary_sums
from labelgen.labels.crops import crop_positions
from labelgen.labels.dense import _every_score, every_crop_appearance, every_crop_motion
from labelgen.labels.motion import motion_labels, motion_maps
from labelgen.labels.partitions import MASKS, edge_lines, row_ends

NEAR_TIE = 1e-6

ALL = crop_positions("all").astype(np.int64)

# A few real clips in every run; set it to 200 for a long one.
REAL_CLIPS = int(os.environ.get("LABELGEN_REAL_CLIPS", "6"))


def assert_dense_equals_single(frames, flow, crops=ALL, message=""):
    maps = motion_maps(flow, boundary_sums(flow))
    numbers = crops[:, 0] * 60 + crops[:, 1]
    motion, appearance = every_crop_motion(maps), every_crop_appearance(frames)
    assert motion.shape == (1020, 14)
    assert appearance.shape == (1020, 13)
    np.testing.assert_array_equal(motion[numbers], motion_labels(maps, crops), message)
    np.testing.assert_array_equal(appearance[numbers], appearance_labels(frames, crops), message)


def test_golden_clips(golden):
    for clip in golden:
        assert_dense_equals_single(clip["frames"], clip["flow"], message=clip["name"])


def test_random_clips():
    for seed in range(2):
        assert_dense_equals_single(*random_clip(seed), crops=ALL[seed::7])


@pytest.mark.parametrize("seed", range(2))
def test_scores_are_the_bits_of_single_crops(seed):
    frames, _ = random_clip(seed)
    scores = _every_score(frames)
    for top, left in itertools.chain(ALL[seed::13], itertools.product((0, 16), (0, 59))):
        crop = frames[:, top : top + 112, left : left + 112]
        np.testing.assert_array_equal(scores[:, top, left], block_scores(crop))


def test_flat_and_extreme_clips():
    """Ties everywhere, full counts in one bin, and motion in a single pixel."""
    still = np.zeros((15, 2, 128, 171), np.float32)
    point = still.copy()
    point[3, :, 60, 80] = 1e4
    for level in (0, 255):
        frames = np.full((16, 128, 171, 3), level, np.uint8)
        assert_dense_equals_single(frames, still, crops=ALL[::50])
        assert_dense_equals_single(frames, point, crops=ALL[::50])


def real_clips(shared, count):
    """Clips from all over the real videos: the first of each, then the second, and so on."""
    videos = sorted(
        path for path in (shared / "data").rglob("*") if path.suffix in (".avi", ".mp4", ".mkv")
    )
    videos = videos[:: max(1, len(videos) // count)]
    numbered = ((number, path) for number in itertools.count() for path in videos)
    for number, path in itertools.islice(numbered, count):
        for start, frames in itertools.islice(read_clips(path), number, number + 1):
            yield f"{path.name} {start}", frames


def test_real_clips(shared):
    count = 0
    for name, frames in real_clips(shared, REAL_CLIPS):
        flow = optical_flow(frames, method="farneback")
        assert_dense_equals_single(frames, flow, message=name)
        mirrored = flow[..., ::-1] * np.array([-1, 1], np.float32)[:, None, None]
        there = clip_labels(frames, flow, "all").reshape(17, 60, 27)
        across = clip_labels(frames[:, :, ::-1], mirrored, "all").reshape(17, 60, 27)
        flipped = flip_labels(there)[:, ::-1]
        for top, left, label in np.argwhere(flipped != across):
            # The first of two equals is another one after a flip.
            _, margin = oracle.labels(frames, flow, top, 59 - left)
            assert margin[label] < NEAR_TIE, (name, top, left, LABELS[label])
        count += 1
    # A few videos have no second clip.
    assert 0.9 * REAL_CLIPS <= count <= REAL_CLIPS


def test_many_crops_take_the_dense_path_unnoticed():
    frames, flow = random_clip(3)
    some = ALL[np.random.default_rng(0).permutation(1020)[:64]]
    few = np.concatenate([clip_labels(frames, flow, part) for part in np.split(some, 8)])
    np.testing.assert_array_equal(clip_labels(frames, flow, some), few)
    assert clip_labels(frames, flow, "all").shape == (1020, 27)


@pytest.mark.parametrize("block", range(len(MASKS)))
def test_edges_describe_the_block(block):
    """Sums by row ends, and by lines of them, against the mask itself."""
    values = np.random.default_rng(block).integers(0, 1000, (112, 112))
    expected = values[MASKS[block]].sum()
    prefix = np.pad(values.cumsum(axis=1), ((0, 0), (1, 0)))
    ends = row_ends(MASKS[block])
    assert (prefix[ends[:, 0], ends[:, 1]] * ends[:, 2]).sum() == expected
    total = 0
    lines = edge_lines(MASKS[block])
    assert len(lines) <= 4
    for slope, row, column, length, sign in lines:
        k = np.arange(length)
        total += sign * prefix[row + k, column + slope * k].sum()
    assert total == expected


def test_memory_stays_small():
    """The extra memory of one call, as tracemalloc sees NumPy's arrays."""
    import tracemalloc

    frames, flow = random_clip(0)
    clip_labels(frames, flow, "all")
    tracemalloc.start()
    clip_labels(frames, flow, "all")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 2**20
