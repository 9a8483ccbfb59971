from __future__ import annotations

import numpy as np
import pytest

from labelgen.flow.texture import ITERATIONS, STEP, THETA, without_structure


def structure_oracle(image):
    """The iterations of [2]_ in float64, with whole-array differences."""
    image = image.astype(np.float64)
    dual = np.zeros((2, *image.shape))
    for _ in range(ITERATIONS):
        x = np.diff(dual[0], axis=1, prepend=0)
        y = np.diff(dual[1], axis=0, prepend=0)
        structure = image + THETA * (x + y)
        slope_x = np.diff(structure, axis=1, append=structure[:, -1:])
        slope_y = np.diff(structure, axis=0, append=structure[-1:])
        dual = dual + STEP / THETA * np.stack([slope_x, slope_y])
        dual = dual / np.maximum(1, np.hypot(*dual))
    return structure


@pytest.mark.parametrize("size", [(20, 31), (1, 9), (9, 1), (1, 1)])
def test_structure_against_the_oracle(size):
    image = (255 * np.random.default_rng(0).random(size)).astype(np.float32)
    found = image - without_structure(image, 1.0)
    np.testing.assert_allclose(found, structure_oracle(image), atol=1e-2)


def test_structure_lowers_the_energy():
    image = (255 * np.random.default_rng(1).random((24, 30))).astype(np.float32)
    image[:, 15:] += 80

    def energy(u):
        x = np.diff(u, axis=1, append=u[:, -1:])
        y = np.diff(u, axis=0, append=u[-1:])
        return np.hypot(x, y).sum() + ((u - image) ** 2).sum() / (2 * THETA)

    structure = image - without_structure(image, 1.0)
    assert energy(structure) < 0.9 * energy(image)
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(scale=3, size=image.shape)
        assert energy(structure) < energy(structure + noise)


def test_a_share_of_the_structure():
    image = (255 * np.random.default_rng(2).random((12, 17))).astype(np.float32)
    whole, half = without_structure(image, 1.0), without_structure(image, 0.5)
    np.testing.assert_allclose(half, (image + whole) / 2, atol=1e-4)
    np.testing.assert_array_equal(without_structure(image, 0.0), image)


def test_a_flat_image_is_all_structure():
    assert not without_structure(np.full((5, 6), 100, np.float32), 1.0).any()
