from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
from flow_inputs import (
    MIDDLEBURY,
    endpoint_error,
    fast_pair,
    from_python,
    middlebury,
    texture,
    warped_pair,
    zoomed_pair,
)

from labelgen.flow import tvl1
from labelgen.flow.brox import brox_flow
from labelgen.flow.tvl1 import TVL1_PRESETS, Tvl1Settings, tvl1_flow
from labelgen.flow.vectors import WIDE

ITERATE = from_python(tvl1._iterate)
LINEARISE = from_python(tvl1._linearise)
PLAIN = Tvl1Settings(scales=1, warps=1, outer_iterations=1, inner_iterations=1, median_size=1)


def opencv_flow(pair, settings):
    solver = cv2.optflow.DualTVL1OpticalFlow_create(
        tau=settings.tau,
        theta=settings.theta,
        nscales=settings.scales,
        warps=settings.warps,
        epsilon=settings.epsilon,
        innnerIterations=settings.inner_iterations,
        outerIterations=settings.outer_iterations,
        scaleStep=settings.scale_step,
        medianFiltering=settings.median_size,
    )
    solver.setLambda(settings.lambda_)
    return solver.calc(pair[0], pair[1], None).transpose(2, 0, 1)


def blocks_of(work, first, count):
    """View (H, blocks, count, 8) of `count` fields that lie vector by vector from plane `first`."""
    rows = work.rows[:-WIDE].reshape(work.height + 2, -1)[1:-1]
    start, length = first * work.stride + WIDE, work.stride - WIDE
    return rows[:, start : start + count * length].reshape(work.height, -1, count, WIDE)


def iteration_oracle(u, v, p, data, settings):
    """One iteration by [2]_, in float64; returns the new flow, duals (2, 2, H, W) and change."""
    ix, iy, rho = data
    bound, norm = settings.lambda_ * settings.theta, ix**2 + iy**2
    residual = rho + ix * u + iy * v
    shift = np.clip(-residual / np.where(norm > 0, norm, 1), -bound, bound)
    flow, dual, change = [], [], 0.0
    for old, (px, py), slope in ((u, p[0], ix), (v, p[1], iy)):
        divergence = px - np.pad(px, ((0, 0), (1, 0)))[:, :-1]
        divergence += py - np.pad(py, ((1, 0), (0, 0)))[:-1]
        new = old + shift * slope + settings.theta * divergence
        gx = np.diff(new, axis=1, append=new[:, -1:])
        gy = np.diff(new, axis=0, append=new[-1:])
        rate = settings.tau / settings.theta
        dual.append(np.stack([px + rate * gx, py + rate * gy]) / (1 + rate * np.hypot(gx, gy)))
        change += ((new - old) ** 2).sum()
        flow.append(new)
    return *flow, np.stack(dual), change


@pytest.mark.parametrize("size", [(9, 13), (16, 24), (1, 11), (11, 1), (5, 31)])
@pytest.mark.parametrize("count", [1, 2, 5, tvl1.LONGEST_WAVE])
def test_wave_of_iterations_against_the_oracle(size, count):
    settings = Tvl1Settings()
    random = np.random.default_rng(count)
    u, v, ix, iy, rho = random.normal(size=(5, *size))
    work = tvl1._Tvl1(settings).make_workspace(*size)
    planes = work.rows[:-WIDE].reshape(size[0] + 2, tvl1.PLANES, work.stride)
    inside = planes[1:-1, :, WIDE : WIDE + size[1]]
    inside[:, tvl1.U], inside[:, tvl1.V] = u, v
    coefficients = np.zeros((4, size[0], work.stride - WIDE), np.float32)
    coefficients[..., : size[1]] = ix, iy, rho, -1 / (ix**2 + iy**2)
    data = blocks_of(work, tvl1.DATA, 4)
    data[:] = coefficients.reshape(4, size[0], -1, WIDE).transpose(1, 2, 0, 3)
    bound = np.float32(settings.lambda_ * settings.theta)
    found = ITERATE(work, bound, np.float32(settings.tau / settings.theta), count)
    dual = np.zeros((2, 2, *size))
    for _ in range(count):
        u, v, dual, change = iteration_oracle(u, v, dual, (ix, iy, rho), settings)
    np.testing.assert_allclose(inside[:, tvl1.U], u, atol=2e-5)
    np.testing.assert_allclose(inside[:, tvl1.V], v, atol=2e-5)
    found_dual = inside[:, tvl1.PUX : tvl1.PVX + 1].swapaxes(0, 1)
    np.testing.assert_allclose(found_dual, [dual[0, 0], dual[1, 0]], atol=2e-5)
    down = blocks_of(work, tvl1.DOWN, 2).transpose(2, 0, 1, 3).reshape(2, size[0], -1)
    np.testing.assert_allclose(down[..., : size[1]], [dual[0, 1], dual[1, 1]], atol=2e-5)
    assert found == pytest.approx(change, rel=1e-4)


def test_wave_gives_the_bits_of_single_iterations():
    pair = warped_pair(1.5, -0.5, 50, 61)
    solver = tvl1._Tvl1(Tvl1Settings())
    works = [solver.make_workspace(50, 61) for _ in range(2)]
    first, second = (solver.make_level(solver.prepare(frame)) for frame in pair)
    for work, counts in zip(works, ([6, 5, 1], [1] * 12), strict=True):
        LINEARISE(work, first.grey, second.taps)
        for count in counts:
            ITERATE(work, np.float32(0.045), np.float32(0.25 / 0.3), count)
    np.testing.assert_array_equal(works[0].rows, works[1].rows)


@pytest.mark.parametrize(
    "settings",
    [PLAIN, replace(PLAIN, inner_iterations=7), replace(PLAIN, median_size=5, outer_iterations=3)],
)
def test_one_warp_agrees_with_opencv(settings):
    pair = warped_pair(0.4, -0.3)
    np.testing.assert_allclose(tvl1_flow(pair, settings)[0], opencv_flow(pair, settings), atol=1e-4)


def test_whole_method_agrees_with_opencv_where_the_flow_is_well_defined():
    pair = warped_pair(2.3, -1.2)
    difference = tvl1_flow(pair)[0] - opencv_flow(pair, Tvl1Settings())
    assert np.abs(difference[:, 8:-8, 8:-8]).max() < 0.05


@pytest.mark.parametrize("settings", [Tvl1Settings(), *TVL1_PRESETS.values()])
@pytest.mark.parametrize("motion", [(1.0, 0.0), (0.0, 1.0), (-2.5, 1.5), (4.0, -3.0)])
def test_translation_is_found(settings, motion):
    truth = np.broadcast_to(np.float32(motion)[:, None, None], (2, 96, 120))
    flow = tvl1_flow(warped_pair(*motion), settings)
    assert flow.shape == (1, 2, 96, 120)
    assert flow.dtype == np.float32
    assert endpoint_error(flow[0], truth, border=10) < 0.1


def test_zoom_is_found():
    pair, truth = zoomed_pair(1.04)
    assert endpoint_error(tvl1_flow(pair)[0], truth, border=10) < 0.1


@pytest.mark.parametrize("name", MIDDLEBURY)
def test_middlebury_error_is_within_two_percent_of_opencv(name):
    pair, truth = middlebury(name)
    theirs = endpoint_error(opencv_flow(pair, Tvl1Settings()), truth)
    assert endpoint_error(tvl1_flow(pair)[0], truth) <= 1.02 * theirs


def test_accurate_is_truer_on_middlebury():
    pairs = [middlebury(name) for name in MIDDLEBURY]
    errors = [
        [endpoint_error(tvl1_flow(pair, settings)[0], truth) for pair, truth in pairs]
        for settings in (Tvl1Settings(), TVL1_PRESETS["accurate"])
    ]
    assert np.mean(errors[1]) <= 0.16
    assert (np.less(errors[1], errors[0])).all()


def test_accurate_finds_motion_of_twenty_pixels():
    pair, truth = fast_pair()
    assert np.hypot(*truth).max() >= 20
    assert endpoint_error(tvl1_flow(pair, TVL1_PRESETS["accurate"])[0], truth) <= 1


def test_accurate_sees_through_a_change_of_light():
    pair, truth = zoomed_pair(1.03)
    shade = np.linspace(0.95, 1.05, pair.shape[2], dtype=np.float32)
    pair = np.stack([0.7 * pair[0] + 30, 0.7 * pair[1] * shade + 30]).round().astype(np.uint8)
    errors = [
        endpoint_error(tvl1_flow(pair, settings)[0], truth, border=10)
        for settings in (Tvl1Settings(), TVL1_PRESETS["accurate"])
    ]
    assert errors[1] < min(0.1, 0.6 * errors[0])


@pytest.mark.parametrize("size", [(128, 171), (17, 19), (1, 1), (1, 50), (50, 1), (2, 3), (8, 7)])
@pytest.mark.parametrize("settings", [Tvl1Settings(), TVL1_PRESETS["accurate"]])
def test_still_pair_gives_exactly_zero(size, settings):
    frame = texture(*(max(side, 8) for side in size))[: size[0], : size[1]].astype(np.uint8)
    flow = tvl1_flow(np.stack([frame, frame, frame]), settings)
    assert flow.shape == (2, 2, *size)
    assert not flow.any()


@pytest.mark.parametrize("size", [(128, 171), (97, 131), (64, 64)])
def test_light_that_changes_on_a_flat_frame_moves_nothing(size):
    for grey in np.random.default_rng(0).integers(0, 256, (12, 2)):
        frames = np.broadcast_to(grey[:, None, None].astype(np.uint8), (2, *size)).copy()
        for flow in (tvl1_flow(frames, TVL1_PRESETS["accurate"]), brox_flow(frames)):
            assert not flow.any(), grey


@pytest.mark.parametrize("along", [0, 1])
def test_frame_one_pixel_wide_moves_along_itself(along):
    line = warped_pair(*((0.0, 1.0) if along == 0 else (1.0, 0.0)), 64, 64)
    pair = line[:, :, 30:31] if along == 0 else line[:, 30:31]
    flow = tvl1_flow(np.ascontiguousarray(pair))[0]
    assert np.median(flow[1 - along]) == pytest.approx(1.0, abs=0.2)
    assert not flow[along].any()


def test_clip_gives_the_flow_of_its_pairs():
    frames = np.concatenate([warped_pair(1.0, 0.5, 40, 50), warped_pair(-1.0, 0.0, 40, 50)])
    pairs = [tvl1_flow(frames[i : i + 2])[0] for i in range(3)]
    np.testing.assert_array_equal(tvl1_flow(frames), pairs)


def test_threads_and_processes_give_the_same_bits():
    pair = warped_pair(2.0, 1.0)
    expected = tvl1_flow(pair)
    with ThreadPoolExecutor(4) as pool:
        for flow in pool.map(tvl1_flow, [pair] * 8):
            np.testing.assert_array_equal(flow, expected)
    script = (
        "import sys, numpy as np; from labelgen.flow.tvl1 import tvl1_flow;"
        "pair = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(2, 96, 120);"
        "sys.stdout.buffer.write(tvl1_flow(pair).tobytes())"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], input=pair.tobytes(), capture_output=True, check=True
    )
    assert run.stdout == expected.tobytes()


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 20, 20), np.float32),
        np.full((2, 20, 20), np.nan),
        np.zeros((2, 20, 20, 3), np.uint8),
        np.zeros((1, 20, 20), np.uint8),
        np.zeros((2, 0, 20), np.uint8),
        [[0]],
    ],
)
def test_other_input_is_refused(frames):
    with pytest.raises(ValueError, match="frames"):
        tvl1_flow(frames)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tau", 0.0), ("lambda_", -1.0), ("theta", float("nan")), ("epsilon", float("inf")),
        ("scales", 0), ("warps", 2.5), ("scale_step", 1.0), ("median_size", 3),
        ("inner_iterations", 0), ("outer_iterations", -1), ("sigma", 3.0), ("texture", 1.5),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        replace(Tvl1Settings(), **{name: value})
