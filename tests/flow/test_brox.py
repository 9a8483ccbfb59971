from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
from flow_inputs import (
    MIDDLEBURY,
    endpoint_error,
    from_python,
    middlebury,
    texture,
    warped_pair,
    zoomed_pair,
)

from labelgen.flow import brox
from labelgen.flow.brox import BroxSettings, brox_flow
from labelgen.flow.vectors import WIDE

REPEAT_FLOW = from_python(brox._repeat_flow)
WEIGH_SMOOTHNESS = from_python(brox._weigh_smoothness)
BUILD_SYSTEM = from_python(brox._build_system)
RELAX = from_python(brox._relax)
READ_SOLUTION = from_python(brox._read_solution)


def planes_of(work):
    rows = work.planes[:-WIDE].reshape(work.height + 2, brox.PLANES, work.stride)
    return rows[1:-1, :, WIDE : WIDE + work.width].swapaxes(0, 1)


def energy_gradient(u, v, coefficients, weights, settings):
    """Left-hand side of the Euler-Lagrange equations with the robust weights frozen, in float64."""
    ix, iy, ixx, ixy, iyy, r0, r1, r2 = coefficients
    data, smooth = weights
    e0, e1, e2 = r0 + ix * u + iy * v, r1 + ixx * u + ixy * v, r2 + ixy * u + iyy * v
    sums = []
    for field, a0, a1, a2 in ((u, ix, ixx, ixy), (v, iy, ixy, iyy)):
        flux = np.zeros_like(u)
        for axis in (0, 1):
            between = (np.delete(smooth, 0, axis) + np.delete(smooth, -1, axis)) / 2
            step = between * np.diff(field, axis=axis)
            before, after = [[(0, 0), (0, 0)] for _ in range(2)]
            before[axis], after[axis] = (1, 0), (0, 1)
            flux += np.pad(step, after) - np.pad(step, before)
        sums.append(data * (e0 * a0 + settings.gamma * (e1 * a1 + e2 * a2)) - settings.alpha * flux)
    return sums


@pytest.mark.parametrize("size", [(12, 19), (9, 16), (1, 17), (17, 1)])
def test_sor_solves_the_euler_lagrange_equations(size):
    settings = BroxSettings()
    random = np.random.default_rng(0)
    work = brox._Brox(settings).make_workspace(*size)
    planes = planes_of(work)
    values = random.normal(size=(10, *size)).astype(np.float32)
    planes[: brox.R2 + 1] = values
    planes[brox.INSIDE] = random.uniform(0.5, 1, size)
    inside = planes[brox.INSIDE].astype(np.float64)
    REPEAT_FLOW(work)
    WEIGH_SMOOTHNESS(work, np.float32(0.5))
    padded = [np.pad(field, 1, mode="edge").astype(np.float64) for field in values[:2]]
    slopes = [
        (f[1 + dy : f.shape[0] - 1 + dy, 1 + dx : f.shape[1] - 1 + dx]
         - f[1 - dy : f.shape[0] - 1 - dy, 1 - dx : f.shape[1] - 1 - dx]) / 2
        for f in padded for dy, dx in ((0, 1), (1, 0))
    ]  # fmt: skip
    smooth = 1 / np.sqrt(sum(slope**2 for slope in slopes) + 0.25)
    np.testing.assert_allclose(planes[brox.SMOOTH], smooth, rtol=1e-4)
    u, v, ix, iy, ixx, ixy, iyy, r0, r1, r2 = values.astype(np.float64)
    errors = [r0 + ix * u + iy * v, r1 + ixx * u + ixy * v, r2 + ixy * u + iyy * v]
    square = errors[0] ** 2 + settings.gamma * (errors[1] ** 2 + errors[2] ** 2) + 0.25
    weights = (inside / np.sqrt(square), smooth)
    alpha, gamma = np.float32(settings.alpha), np.float32(settings.gamma)
    BUILD_SYSTEM(work, alpha, gamma, np.float32(0.5))
    for _ in range(400):
        RELAX(work, 0, np.float32(1.5))
        RELAX(work, 1, np.float32(1.5))
    READ_SOLUTION(work)
    u, v = planes[:2].astype(np.float64)
    left = energy_gradient(u, v, (ix, iy, ixx, ixy, iyy, r0, r1, r2), weights, settings)
    np.testing.assert_allclose(left, 0, atol=2e-3)
    before = energy_gradient(*values[:2].astype(np.float64), values[2:], weights, settings)
    assert np.abs(before).max() > 1


@pytest.mark.parametrize("motion", [(1.0, 0.0), (0.0, 1.0), (-2.5, 1.5), (4.0, -3.0)])
def test_translation_is_found(motion):
    truth = np.broadcast_to(np.float32(motion)[:, None, None], (2, 96, 120))
    flow = brox_flow(warped_pair(*motion))
    assert flow.shape == (1, 2, 96, 120)
    assert flow.dtype == np.float32
    assert endpoint_error(flow[0], truth, border=10) < 0.1


def test_zoom_is_found():
    pair, truth = zoomed_pair(1.04)
    assert endpoint_error(brox_flow(pair)[0], truth, border=10) < 0.1


def test_gradient_constancy_ignores_a_change_of_brightness():
    pair = warped_pair(1.0, 0.5)
    darker = np.stack([pair[0], (pair[1] * 0.8 + 10).astype(np.uint8)])
    truth = np.broadcast_to(np.float32([1.0, 0.5])[:, None, None], (2, 96, 120))
    with_gradient = endpoint_error(brox_flow(darker)[0], truth, border=10)
    without = brox_flow(darker, replace(BroxSettings(), gamma=1e-6))[0]
    assert with_gradient < 0.5 * endpoint_error(without, truth, border=10)


def test_middlebury_error_is_on_average_within_a_tenth_of_opencv_tvl1():
    ours, theirs = [], []
    for name in MIDDLEBURY:
        pair, truth = middlebury(name)
        solver = cv2.optflow.DualTVL1OpticalFlow_create()
        reference = solver.calc(pair[0], pair[1], None).transpose(2, 0, 1)
        theirs.append(endpoint_error(reference, truth))
        ours.append(endpoint_error(brox_flow(pair)[0], truth))
    assert np.mean(ours) <= 1.1 * np.mean(theirs)


@pytest.mark.parametrize("size", [(128, 171), (17, 19), (1, 1), (1, 50), (50, 1), (2, 3), (8, 7)])
def test_still_pair_gives_exactly_zero(size):
    frame = texture(*(max(side, 8) for side in size))[: size[0], : size[1]].astype(np.uint8)
    flow = brox_flow(np.stack([frame, frame, frame]))
    assert flow.shape == (2, 2, *size)
    assert not flow.any()


def test_unrelated_frames_give_finite_flow():
    noise = np.random.default_rng(0).integers(0, 256, (3, 40, 56), np.uint8)
    assert np.isfinite(brox_flow(noise)).all()


def test_clip_gives_the_flow_of_its_pairs_whatever_the_threads():
    frames = np.concatenate([warped_pair(1.0, 0.5, 40, 50), warped_pair(-1.0, 0.0, 40, 50)])
    whole = brox_flow(frames)
    with ThreadPoolExecutor(3) as pool:
        pairs = list(pool.map(brox_flow, [frames[i : i + 2] for i in range(3)]))
    np.testing.assert_array_equal(whole, [pair[0] for pair in pairs])


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 20, 20), np.float32),
        np.full((2, 20, 20), np.nan),
        np.zeros((1, 20, 20), np.uint8),
        np.zeros((2, 0, 20), np.uint8),
    ],
)
def test_other_input_is_refused(frames):
    with pytest.raises(ValueError, match="frames"):
        brox_flow(frames)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", 0.0), ("gamma", float("nan")), ("epsilon", -1.0), ("sigma", 3.0), ("omega", 2.0),
        ("warps", 0), ("nonlinear_iterations", 1.5), ("sor_iterations", 0), ("scale_step", 0.0),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        replace(BroxSettings(), **{name: value})
