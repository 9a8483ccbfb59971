from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from labelgen.flow import vectors
from labelgen.flow.vectors import (
    WIDE,
    aligned_zeros,
    floor,
    fma,
    load,
    load4,
    load_every2,
    load_every4,
    lower,
    maximum,
    minimum,
    round_up,
    sortable,
    splat,
    splat4,
    sqrt,
    store,
    store_every2,
    store_whole,
    upper,
)


def add(source, target):
    store(target, 0, load(source, 0) + load(source, 8))


def subtract(source, target):
    store(target, 0, load(source, 0) - load(source, 8))


def multiply(source, target):
    store(target, 0, load(source, 0) * load(source, 8))


def divide(source, target):
    store(target, 0, load(source, 0) / load(source, 8))


def smaller(source, target):
    store(target, 0, minimum(load(source, 0), load(source, 8)))


def larger(source, target):
    store(target, 0, maximum(load(source, 0), load(source, 8)))


def root(source, target):
    positive = load(source, 0) * load(source, 0)
    store(target, 0, sqrt(positive))


def down(source, target):
    store(target, 0, floor(load(source, 0)))


def multiply_add(source, target):
    store(target, 0, fma(load(source, 0), load(source, 8), load(source, 16)))


def unaligned(source, target):
    store(target, 3, load(source, 5))


def four(source, target):
    store(target, 1, load4(source, 2) * splat4(source[0]))


def low(source, target):
    store(target, 0, sortable(lower(sortable(load(source, 0)), sortable(load(source, 8)))))


def high(source, target):
    store(target, 0, sortable(upper(sortable(load(source, 0)), sortable(load(source, 8)))))


def constant(source, target):
    store(target, 0, splat(source[7]) - load(source, 0))


def apart(source, target):
    store(target, 0, load_every2(source, 1))
    store(target, 8, load_every4(source, 3))


def whole(source, target):
    store_whole(target.view(np.int32), 8, floor(load(source, 0)))


def woven(source, target):
    store_every2(target, 2, load(source, 0), load(source, 8))


PROGRAMS = (
    add, subtract, multiply, divide, smaller, larger, root, down, multiply_add,
    unaligned, four, low, high, constant, apart, whole, woven,
)  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_compiled_operation_gives_the_bits_of_its_python_twin(program):
    compiled = njit(program)
    for seed in range(20):
        source = np.random.default_rng(seed).normal(scale=100, size=64).astype(np.float32)
        expected, found = np.zeros(32, np.float32), np.zeros(32, np.float32)
        program(source, expected)
        compiled(source, found)
        assert expected.any()
        np.testing.assert_array_equal(found, expected)


def test_sortable_lanes_are_in_the_order_of_the_floats():
    floats = np.array([-np.inf, -3e38, -1.5, -1e-45, 0, 1e-45, 2, np.inf], np.float32)
    for turned in range(WIDE):
        other = np.roll(floats, turned)
        both = sortable(floats), sortable(other)
        np.testing.assert_array_equal(sortable(lower(*both)), np.minimum(floats, other))
        np.testing.assert_array_equal(sortable(upper(*both)), np.maximum(floats, other))


def test_fma_rounds_once():
    # 1 + 2**-12 squared is 1 + 2**-11 + 2**-24, whose last term a rounded product loses
    source = np.zeros(64, np.float32)
    source[:16] = 1 + 2.0**-12
    source[16:24] = -(1 + 2.0**-11)
    target = np.zeros(32, np.float32)
    njit(multiply_add)(source, target)
    np.testing.assert_array_equal(target[:8], np.float32(2.0**-24))


def test_arrays_start_at_a_cache_line():
    for length in (1, 17, 1000):
        array = aligned_zeros(length)
        assert array.ctypes.data % 64 == 0
        assert array.shape == (length,)
        assert not array.any()


@pytest.mark.parametrize(("length", "rounded"), [(0, 0), (1, 8), (8, 8), (9, 16)])
def test_lengths_round_up_to_whole_vectors(length, rounded):
    assert round_up(length) == rounded
    assert vectors.WIDE == WIDE == 8
