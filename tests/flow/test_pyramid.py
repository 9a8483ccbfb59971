from __future__ import annotations

import cv2
import numpy as np
import pytest
from flow_inputs import from_python

from labelgen.flow.pyramid import (
    blur,
    enlarge,
    gradient,
    interleave,
    level_sizes,
    median_filter,
    median_scratch,
    resize,
    warp_row,
    warp_scratch,
)
from labelgen.flow.vectors import round_up

MEDIAN_FILTER, WARP_ROW = from_python(median_filter), from_python(warp_row)
SIZES = [(128, 171), (16, 16), (17, 23), (1, 40), (40, 1), (3, 2), (1, 1)]


def noise(height, width, seed=0):
    return np.random.default_rng(seed).normal(scale=50, size=(height, width)).astype(np.float32)


def median_oracle(image):
    padded = np.pad(image, 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
    return np.median(windows, axis=(2, 3))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [3, 10**6], ids=["ties", "distinct"])
def test_median_filter(size, levels):
    height, width = size
    image = (np.random.default_rng(1).integers(levels, size=size) / 7).astype(np.float32)
    pitch = round_up(width) + 16
    field = np.zeros((height, pitch), np.float32)
    field[:, 8 : 8 + width] = image
    scratch = median_scratch(height, width)
    MEDIAN_FILTER(field.reshape(-1), 8, pitch, height, width, scratch)
    np.testing.assert_array_equal(field[:, 8 : 8 + width], median_oracle(image))


def test_median_network_on_every_pattern_of_zeros_and_ones():
    # A network of minima and maxima is right for all values if it is right for zeros and ones, and
    # it sees sorted columns: six counts of ones in each of five columns are all there is.
    counts = np.stack(np.meshgrid(*[np.arange(6)] * 5, indexing="ij"), -1).reshape(-1, 5)
    windows = (np.arange(5)[:, None] >= 5 - counts[:, None, :]).astype(np.float32)
    height, width = 5, 5 * len(windows)
    field = np.ascontiguousarray(windows.transpose(1, 0, 2).reshape(height, width))
    padded = np.zeros((height, round_up(width)), np.float32)
    padded[:, :width] = field
    scratch = median_scratch(height, width)
    MEDIAN_FILTER(padded.reshape(-1), 0, padded.shape[1], height, width, scratch)
    np.testing.assert_array_equal(padded[2, 2:width:5], counts.sum(1) >= 13)


def cubic_oracle(image, x, y):
    """Keys' bicubic with a = -.75 at one point, in float64, zeros outside."""

    def kernel(distance):
        t, a = abs(distance), -0.75
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0

    total = 0.0
    for row in range(int(np.floor(y)) - 1, int(np.floor(y)) + 3):
        for column in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                total += kernel(x - column) * kernel(y - row) * float(image[row, column])
    return total


def warp(taps, u, v):
    height, width = u.shape
    padded = round_up(width)
    scratch = warp_scratch(width)
    flow = np.zeros((2, height, padded + 8), np.float32)
    flow[0, :, :width], flow[1, :, :width] = u, v
    rows = []
    for y in range(height):
        start = y * (padded + 8)
        WARP_ROW(taps, flow.reshape(-1), start, start + flow[0].size, y, height, width, scratch)
        rows.append(scratch.samples[: 4 * width].reshape(width, 4).copy())
    return np.stack(rows).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [(12, 15), (1, 20), (20, 1)])
def test_warp_against_the_bicubic_oracle(size):
    height, width = size
    channels = [noise(height, width, seed) for seed in range(3)]
    random = np.random.default_rng(3)
    u, v = (random.normal(scale=4, size=size).astype(np.float32) for _ in range(2))
    found = warp(interleave(*channels), u, v)
    for channel, image in zip(found, channels, strict=False):
        for y in range(height):
            for x in range(width):
                expected = cubic_oracle(image, np.float32(x) + u[y, x], np.float32(y) + v[y, x])
                assert channel[y, x] == pytest.approx(expected, abs=2e-3)
    assert not found[3].any()


@pytest.mark.skipif(cv2.__version__ < "5", reason="OpenCV 4 rounds positions to 1/32 pixel")
def test_warp_agrees_with_opencv_inside_and_outside_the_frame():
    image = noise(40, 53)
    u, v = noise(40, 53, 1) / 10, noise(40, 53, 2) / 10
    y, x = np.mgrid[:40, :53].astype(np.float32)
    expected = cv2.remap(image, x + u, y + v, cv2.INTER_CUBIC)
    found = warp(interleave(image, image, image), u, v)[0]
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_warp_by_whole_pixels_copies_exactly_and_reads_zero_far_away():
    image = noise(20, 24)
    still = np.zeros((20, 24), np.float32)
    taps = interleave(image, image, image)
    np.testing.assert_array_equal(warp(taps, still, still)[0], image)
    np.testing.assert_array_equal(warp(taps, still + 3, still - 2)[0, 2:, :-3], image[:-2, 3:])
    for far in (1e6, -1e6, 3e38):
        assert not warp(taps, still + np.float32(far), still).any()


def test_repeated_border_reads_the_nearest_pixel():
    image = noise(9, 11)
    taps = interleave(image, image, image, border="nearest")
    still = np.zeros((9, 11), np.float32)
    found = warp(taps, still - 1, still)[0]
    np.testing.assert_array_equal(found[:, 0], image[:, 0])
    np.testing.assert_array_equal(found[:, 1:], image[:, :-1])


@pytest.mark.parametrize("size", [(128, 171), (33, 47)])
def test_resize_agrees_with_opencv(size):
    image = noise(*size)
    expected = cv2.resize(image, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_LINEAR)
    assert level_sizes(*size, scales=2, step=0.8)[1] == expected.shape
    found = resize(image, expected.shape, (1.25, 1.25))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    flow = np.stack([expected, -expected])
    larger = cv2.resize(expected, size[::-1], interpolation=cv2.INTER_LINEAR) / 0.8
    finer = np.empty((2, *size), np.float32)
    enlarge(flow, finer, 0.8)
    np.testing.assert_allclose(finer, [larger, -larger], atol=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_gradient(size):
    image = noise(*size)
    along_x, along_y = gradient(image)
    padded = np.pad(image, 1, mode="edge")
    np.testing.assert_array_equal(along_x, (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2)
    np.testing.assert_array_equal(along_y, (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2)


def test_levels_stop_before_a_side_is_shorter_than_sixteen():
    assert level_sizes(128, 171, scales=5, step=0.8) == [
        (128, 171), (102, 137), (82, 110), (66, 88), (53, 70)
    ]  # fmt: skip
    assert level_sizes(20, 400, scales=5, step=0.8) == [(20, 400), (16, 320)]
    assert level_sizes(1, 9, scales=5, step=0.8) == [(1, 9)]


@pytest.mark.parametrize("sigma", [0.6, 2.0, 1e-320])
def test_blur_is_a_gaussian_in_steps_of_grey(sigma):
    image = np.random.default_rng(0).integers(0, 256, (21, 30)).astype(np.float32)
    with np.errstate(over="raise"):
        blurred = blur(image, sigma)
    if sigma < 0.1:
        assert np.array_equal(blurred, image)
        return
    taps = np.exp(-0.5 * (np.arange(-6, 7) / sigma) ** 2)
    taps = np.outer(taps, taps) / taps.sum() ** 2
    padded = np.pad(image.astype(float), 6, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (13, 13))
    np.testing.assert_allclose(blurred, (windows * taps).sum((2, 3)), atol=2**-11 + 1e-4)
    assert np.array_equal(blurred, np.rint(blurred * 1024) / 1024)
