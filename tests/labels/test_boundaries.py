import numpy as np
import oracle
import pytest
from conftest import random_clip

import labelgen
from labelgen.labels.boundaries import boundary_sums, motion_energy, stored_boundaries


def test_equals_oracle():
    _, flow = random_clip(1)
    found = labelgen.motion_boundaries(flow)
    assert found.shape == (4, 128, 171)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, oracle.boundaries(flow), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (3, 2, 1, 7), (3, 2, 9, 1), (2, 2, 2, 2)])
def test_small_frames(shape):
    flow = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(labelgen.motion_boundaries(flow), oracle.boundaries(flow), atol=1e-6)


def test_a_ramp_has_its_slope_as_derivative():
    x, y = np.meshgrid(np.arange(20.0), np.arange(12.0))
    flow = np.array([[0.5 * x + 0.25 * y, -2.0 * y]] * 4, dtype=np.float32)
    inner = labelgen.motion_boundaries(flow)[:, 1:-1, 1:-1]
    np.testing.assert_allclose(
        inner,
        np.broadcast_to(np.array([2.0, 1.0, 0.0, -8.0])[:, None, None], inner.shape),
        atol=1e-5,
    )


def test_uniform_motion_has_no_boundary():
    flow = np.full((15, 2, 128, 171), 3.7, np.float32)
    assert not labelgen.motion_boundaries(flow).any()
    assert motion_energy(boundary_sums(flow)) == 0.0


def test_motion_energy():
    _, flow = random_clip(2)
    m = oracle.boundaries(flow)
    expected = (np.hypot(m[0], m[1]) + np.hypot(m[2], m[3])).mean()
    assert motion_energy(boundary_sums(flow)) == pytest.approx(expected, rel=1e-9)


def test_storage_saturates_instead_of_overflowing():
    sums = np.array([1e9, -1e9, 1.5, 0.0]).reshape(2, 2, 1, 1)
    np.testing.assert_array_equal(
        stored_boundaries(sums).ravel(), np.float16([65504, -65504, 1.5, 0])
    )


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        (np.zeros((15, 128, 171), np.float32), "shape"),
        (np.zeros((15, 3, 128, 171), np.float32), "shape"),
        (np.zeros((0, 2, 128, 171), np.float32), "shape"),
        (np.zeros((15, 2, 8, 8), np.int32), "floating-point"),
        (np.full((15, 2, 8, 8), np.nan, np.float32), "NaN"),
        (np.full((15, 2, 8, 8), np.inf, np.float32), "infinity"),
    ],
)
def test_wrong_input(flow, message):
    with pytest.raises(ValueError, match=message):
        labelgen.motion_boundaries(flow)
