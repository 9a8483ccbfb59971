import numpy as np
import oracle
import pytest
from conftest import random_clip
from hypothesis import given, settings
from hypothesis import strategies as st

import labelgen
from labelgen import LABELS, clip_labels, flip_labels
from labelgen.errors import LabelgenError
from labelgen.labels.motion import ORIENTATIONS, _orientation_bin

NAMES = [label.name for label in LABELS]
NEAR_TIE = 1e-6


def label(labels, name):
    return int(labels[NAMES.index(name)])


def test_table_is_that_of_the_specification():
    assert len(LABELS) == 27
    assert NAMES[:4] == [
        "motion/grid/u_location",
        "motion/grid/u_orientation",
        "motion/grid/v_location",
        "motion/grid/v_orientation",
    ]
    assert NAMES[12:15] == [
        "motion/global/u_frame",
        "motion/global/v_frame",
        "appearance/grid/diverse_location",
    ]
    assert NAMES[-1] == "appearance/global/color"
    assert [label.cardinality for label in LABELS] == (
        [16, 8, 16, 8, 4, 8, 4, 8, 8, 8, 8, 8, 15, 15, 16, 8, 16, 8, 4, 8, 4, 8, 8, 8, 8, 8, 8]
    )


@pytest.mark.parametrize("profile", ["paper", "authors"])
def test_golden_clips(golden, profile):
    for clip in golden:
        found = clip_labels(clip["frames"], clip["flow"], clip["crops"], profile=profile)
        np.testing.assert_array_equal(found, clip[profile], err_msg=clip["name"])


@pytest.mark.parametrize("seed", range(4))
def test_equals_oracle(seed):
    frames, flow = random_clip(seed)
    crops = np.array([[0, 0], [16, 59], [8, 29], [3, 44]])
    for (top, left), found in zip(crops, clip_labels(frames, flow, crops), strict=True):
        expected, margin = oracle.labels(frames, flow, top, left)
        sure = margin > NEAR_TIE
        assert sure.sum() >= 25
        np.testing.assert_array_equal(found[sure], expected[sure])


@pytest.mark.parametrize("profile", ["paper", "authors"])
def test_flip_equals_labels_of_the_mirrored_clip(profile):
    for seed in range(3):
        frames, flow = random_clip(seed)
        mirrored = flow[..., ::-1] * np.array([-1, 1], np.float32)[:, None, None]
        crops = np.array([[0, 0], [9, 12], [16, 59]])
        there = clip_labels(frames, flow, crops, profile=profile)
        across = np.column_stack([crops[:, 0], 59 - crops[:, 1]])
        here = clip_labels(frames[:, :, ::-1], mirrored, across, profile=profile)
        np.testing.assert_array_equal(flip_labels(there, profile=profile), here)


@pytest.mark.parametrize("profile", ["paper", "authors"])
def test_flipping_twice_changes_nothing(profile):
    rng = np.random.default_rng(0)
    labels = rng.integers(1, [label.cardinality + 1 for label in LABELS], (50, 3, 27), np.uint8)
    flipped = flip_labels(labels, profile=profile)
    assert flipped.dtype == np.uint8
    assert (flipped != labels).any()
    np.testing.assert_array_equal(flip_labels(flipped, profile=profile), labels)


def test_flip_of_known_values():
    labels = np.ones(27, np.uint8)
    flipped = flip_labels(labels)
    assert label(flipped, "motion/grid/u_location") == 4
    assert label(flipped, "motion/grid/u_orientation") == 8
    assert label(flipped, "motion/grid/v_orientation") == 4
    assert label(flipped, "motion/triangles/u_location") == 4
    assert label(flipped, "motion/rings/u_location") == 1
    assert label(flipped, "motion/global/u_frame") == 1
    assert label(flipped, "appearance/global/color") == 1


def test_flip_keeps_the_mark_of_no_motion():
    labels = np.ones(27, np.uint8)
    labels[:2] = 0
    assert flip_labels(labels, profile="authors")[:2].tolist() == [0, 0]


@given(st.integers(-5, 5), st.integers(-5, 5))
@settings(deadline=None, max_examples=200)
def test_orientation_bins_are_those_of_the_angle(x, up):
    expected = int(np.floor(np.degrees(np.arctan2(up, x)) % 360 / 45)) if (x or up) else 0
    assert _orientation_bin.py_func(float(x), float(up)) == expected
    assert 0 <= expected < ORIENTATIONS


def test_known_motion():
    """A square of motion to the right, in one block of the centre crop, in two frame pairs."""
    frames, _ = random_clip(0)
    flow = np.zeros((15, 2, 128, 171), np.float32)
    # Rows 72..79 and columns 30..37 of the centre crop, which begins at (8, 29).
    window = np.s_[8 + 72 : 8 + 80, 29 + 30 : 29 + 38]
    flow[(6, 0, *window)] = 4
    flow[(7, 0, *window)] = 1
    labels = clip_labels(frames, flow)[0]
    assert label(labels, "motion/grid/u_location") == 2 * 4 + 1 + 1
    assert label(labels, "motion/rings/u_location") == 2
    assert label(labels, "motion/triangles/u_location") == 5
    assert label(labels, "motion/global/u_frame") == 7
    # Nothing moves down.
    assert label(labels, "motion/grid/v_location") == 1
    assert label(labels, "motion/grid/v_orientation") == 1
    assert label(labels, "motion/global/v_frame") == 1


@pytest.mark.parametrize(
    ("derivative", "orientation"),
    [((1, 0), 1), ((1, -1.0), 2), ((0, -1), 3), ((-1, -0.5), 4), ((-1, 0), 5), ((0.1, 1), 7)],
)
def test_known_orientation(derivative, orientation):
    """u rises along one direction over the whole frame: every block has that orientation."""
    frames, _ = random_clip(0)
    x, y = np.meshgrid(np.arange(171.0), np.arange(128.0))
    flow = np.zeros((15, 2, 128, 171), np.float32)
    flow[:, 0] = 0.25 * (derivative[0] * x + derivative[1] * y)
    labels = clip_labels(frames, flow, np.array([[8, 29]]))[0]
    for partition in ("grid", "rings", "triangles"):
        assert label(labels, f"motion/{partition}/u_orientation") == orientation


def test_known_colour_change():
    """One block turns from red to blue half way; all else is still, and mostly green."""
    frames = np.zeros((16, 128, 171, 3), np.uint8)
    frames[..., 1] = 200
    block = np.s_[8 + 28 : 8 + 56, 29 + 84 : 29 + 112]
    frames[(slice(None), *block)] = (250, 10, 10)
    frames[(slice(10, None), *block)] = (10, 10, 250)
    labels = clip_labels(frames, np.zeros((15, 2, 128, 171), np.float32))[0]
    assert label(labels, "appearance/grid/diverse_location") == 8
    assert label(labels, "appearance/grid/diverse_color") == 1 + 4 + 2  # red for 10 of 16 frames
    assert label(labels, "appearance/grid/stable_location") == 1
    assert label(labels, "appearance/grid/stable_color") == 1 + 4 + 1
    # Of the block, ring 3 and ring 4 have as many pixels; ring 3 is the smaller.
    assert label(labels, "appearance/rings/diverse_location") == 3
    assert label(labels, "appearance/triangles/diverse_location") == 4
    assert label(labels, "appearance/global/color") == 1 + 4 + 1


def test_still_clip_gets_first_values():
    frames = np.full((16, 128, 171, 3), 77, np.uint8)
    labels = clip_labels(frames, np.zeros((15, 2, 128, 171), np.float32))[0]
    assert labels[:14].tolist() == [1] * 14
    authors = clip_labels(frames, np.zeros((15, 2, 128, 171), np.float32), profile="authors")[0]
    assert authors[:14].tolist() == [0, 0, 0, 0] + [1] * 10


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 37.0, 1e6])
def test_labels_do_not_depend_on_the_scale_of_flow(scale):
    frames, flow = random_clip(5)
    crops = np.array([[8, 29], [0, 40]])
    expected = clip_labels(frames, flow, crops)
    np.testing.assert_array_equal(clip_labels(frames, flow * np.float32(scale), crops), expected)


@given(st.integers(0, 16), st.integers(0, 59))
@settings(deadline=None, max_examples=10)
def test_shifting_clip_and_crop_together_changes_nothing(top, left):
    """Appearance depends on the pixels of the crop alone, not on where it lies."""
    frames, _ = random_clip(3)
    still = np.zeros((15, 2, 128, 171), np.float32)
    shifted = np.roll(frames, (8 - top, 29 - left), axis=(1, 2))
    here = clip_labels(frames, still, np.array([[top, left]]))
    np.testing.assert_array_equal(clip_labels(shifted, still, "center"), here)


def test_order_of_frames_does_not_change_appearance():
    frames, flow = random_clip(4)
    order = np.random.default_rng(0).permutation(16)
    np.testing.assert_array_equal(
        clip_labels(frames[order], flow)[:, 14:], clip_labels(frames, flow)[:, 14:]
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"profile": "mine"}, LabelgenError, "unknown profile 'mine'"),
        ({"crops": "left"}, LabelgenError, "unknown crops 'left'"),
        ({"crops": "all", "profile": "authors"}, LabelgenError, "authors"),
        ({"crops": np.array([[0, 60]])}, ValueError, r"\(0, 60\) lies outside"),
        ({"crops": np.array([[-1, 0]])}, ValueError, "outside"),
        ({"crops": np.array([[0.5, 0]])}, ValueError, "integers"),
        ({"crops": np.array([1, 2])}, ValueError, "shape"),
        ({"frames": np.zeros((16, 112, 112, 3), np.uint8)}, ValueError, "frames must be"),
        ({"frames": np.zeros((16, 128, 171, 3), np.float32)}, ValueError, "uint8"),
        ({"flow": np.zeros((16, 2, 128, 171), np.float32)}, ValueError, "flow must be"),
        ({"flow": np.full((15, 2, 128, 171), np.nan, np.float32)}, ValueError, "NaN"),
    ],
)
def test_wrong_input(change, error, message):
    arguments = {
        "frames": np.zeros((16, 128, 171, 3), np.uint8),
        "flow": np.zeros((15, 2, 128, 171), np.float32),
    }
    with pytest.raises(error, match=message):
        clip_labels(**(arguments | change))


def test_flip_of_wrong_labels():
    with pytest.raises(ValueError, match="shape"):
        flip_labels(np.ones(26, np.uint8))
    with pytest.raises(ValueError, match="range"):
        flip_labels(np.full(27, 9, np.uint8))


def test_names_are_offered_by_the_package():
    for name in labelgen.__all__:
        assert getattr(labelgen, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        labelgen.nothing  # noqa: B018
