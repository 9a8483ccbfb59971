import cv2
import numpy as np
import pytest
from conftest import moving_square

from labelgen import optical_flow
from labelgen.errors import LabelgenError
from labelgen.flow.compute import resized_flow
from labelgen.flow.methods import (
    METHODS,
    PRECOMPUTED,
    flow_settings,
    parse_flow,
)
from labelgen.geometry import frame_size_for_flow

COMPUTED = [name for name in METHODS if name != PRECOMPUTED]


@pytest.mark.parametrize("method", COMPUTED)
def test_known_motion(method):
    """A square that moves two pixels to the right and nothing else."""
    frames = moving_square(3)
    flow = optical_flow(frames, method=method)
    assert flow.shape == (2, 2, 120, 160)
    assert flow.dtype == np.float32
    assert flow.flags.c_contiguous
    inside = flow[0, :, 46:64, 16:34]
    assert np.median(inside[0]) == pytest.approx(2, abs=0.4)
    assert np.median(inside[1]) == pytest.approx(0, abs=0.4)
    assert np.abs(flow[0, :, 90:, 80:]).max() < 0.5


@pytest.mark.parametrize("size", ["huge", "short:8", "4x4", "short:", "300"])
def test_wrong_size(size):
    with pytest.raises(LabelgenError, match="unknown flow size"):
        parse_flow("dis", size=size)


@pytest.mark.parametrize("method", COMPUTED)
def test_pairs_do_not_depend_on_each_other(method):
    frames = moving_square(4)
    whole = optical_flow(frames, method=method)
    for pair in range(3):
        alone = optical_flow(frames[pair : pair + 2], method=method)
        np.testing.assert_array_equal(whole[pair], alone[0])


def test_a_still_pair_has_no_flow():
    frames = np.repeat(moving_square(1), 2, axis=0)
    assert not optical_flow(frames, method="tvl1").any()


def test_parameters_reach_the_method():
    frames = moving_square(2)
    plain = optical_flow(frames, method="farneback")
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    expected = cv2.calcOpticalFlowFarneback(*grey, None, 0.5, 3, 9, 3, 5, 1.2, 0)
    found = optical_flow(frames, method="farneback", winsize=9)
    np.testing.assert_array_equal(found[0], expected.transpose(2, 0, 1))
    assert (found != plain).any()


def test_description_of_a_method():
    assert parse_flow("farneback:winsize=9,poly_sigma=1.5") == flow_settings(
        "farneback", {"winsize": 9, "poly_sigma": 1.5}
    )
    assert parse_flow("dis").as_dict() == {"method": "dis", "size": "clip", "preset": 2}
    fast, accurate = parse_flow("tvl1:fast"), parse_flow("tvl1:accurate,tau=0.2")
    assert fast != parse_flow("tvl1")
    assert accurate.parameters["tau"] == 0.2
    assert accurate.parameters["scales"] > parse_flow("tvl1").parameters["scales"]


@pytest.mark.parametrize(
    ("size", "expected"),
    [("clip", None), ("source", (240, 320)), ("short:120", (120, 160)), ("200x100", (100, 200))],
)
def test_sizes(size, expected):
    assert frame_size_for_flow(size, (240, 320)) == expected


def test_resized_flow_keeps_the_motion_relative_to_the_frame():
    flow = np.ones((3, 2, 60, 40), np.float32)
    resized = resized_flow(flow, (30, 80))
    np.testing.assert_allclose(resized[:, 0], 2.0)
    np.testing.assert_allclose(resized[:, 1], 0.5)
    assert resized.shape == (3, 2, 30, 80)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("horn", "unknown flow method 'horn'; use one of tvl1"),
        ("tvl1:speed=3", "no parameter 'speed'; it has tau"),
        ("farneback:winsize=many", "winsize must be a whole number, got 'many'"),
        ("farneback:winsize", "farneback has no preset 'winsize'; it has none"),
        ("tvl1:slow", "tvl1 has no preset 'slow'; it has fast, accurate"),
        ("tvl1:fast,tau", "'tau' is not name=value"),
        ("tvl1:tau=-1", "flow method tvl1: tau must be between 1e-9 and 1e9, not -1"),
        ("precomputed:bound=0", "flow method precomputed: the bound must be above 0, got 0"),
        ("precomputed:bound=nan", "the bound must be above 0, got nan"),
    ],
)
def test_mistakes(text, message):
    with pytest.raises(LabelgenError, match=message):
        parse_flow(text)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((1, 8, 8, 3), np.uint8),
        np.zeros((2, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 3), np.float32),
    ],
)
def test_wrong_frames(frames):
    with pytest.raises(ValueError, match="frames must be"):
        optical_flow(frames, method="farneback")


def test_a_fraction_is_no_whole_number():
    for value in (2.7, "2.7", "nan"):
        with pytest.raises(LabelgenError, match="warps must be a whole number"):
            flow_settings("tvl1", {"warps": value})
    assert flow_settings("tvl1", {"warps": 3.0}).parameters["warps"] == 3


@pytest.mark.parametrize("method", COMPUTED)
def test_tiny_frames_are_measured_or_refused_in_one_sentence(method):
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    if method == "dis":
        with pytest.raises(ValueError, match="OpenCV refuses this for frames of 8x8"):
            optical_flow(frames, method=method)
    else:
        assert optical_flow(frames, method=method).shape == (1, 2, 8, 8)


@pytest.mark.parametrize("value", [1e-25, 0, -1, 1e30, float("inf")])
@pytest.mark.parametrize("name", ["alpha", "gamma", "epsilon"])
def test_parameters_that_overflow_are_refused(name, value):
    with pytest.raises(LabelgenError, match=f"{name} must be between 1e-9 and 1e9"):
        flow_settings("brox", {name: value})


@pytest.mark.parametrize("epsilon", [1e-9, 1e9])
def test_the_ends_of_the_range_give_finite_flow(epsilon):
    flow = optical_flow(moving_square(2), method="brox", epsilon=epsilon)
    assert np.isfinite(flow).all()


def test_what_opencv_refuses_says_why():
    with pytest.raises(LabelgenError, match="flow method farneback: .*[a-z]{4}") as caught:
        flow_settings("farneback", {"poly_n": -5})
    assert not str(caught.value).endswith("None")
