import math

import numpy as np
import pytest
from numba import njit
from numba.core import config

from blocks.kernels import activations
from blocks.kernels.activations import LINEAR, SIGMOID, TANH
from blocks.kernels.unrolled import unrolled

FORMULAS = {
    SIGMOID: (activations.sigmoid, lambda x: 1.0 / (1.0 + np.exp(-x))),
    TANH: (activations.tanh, np.tanh),
}


@pytest.mark.parametrize("kind", FORMULAS)
def test_sigmoid_and_tanh_are_right_to_1e_6_in_lanes_and_in_numpy(kind):
    count = 800 if config.DISABLE_JIT else 80_000
    rows = np.linspace(-100.0, 100.0, count).astype(np.float32).reshape(-1, 16)
    ours, formula = FORMULAS[kind]
    with np.errstate(over="ignore"):
        expected = formula(rows.astype(np.float64))
    np.testing.assert_allclose(ours(rows), expected, rtol=0, atol=1e-6)
    activations.apply(kind, rows, 0, 16)
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-6)


def test_sigmoid_keeps_its_digits_where_it_is_small_and_is_never_denormal():
    rows = np.linspace(-200.0, -1.0, 800).astype(np.float32).reshape(-1, 8)
    exact = 1.0 / (1.0 + np.exp(-np.maximum(rows.astype(np.float64), -80.0)))
    activations.apply(SIGMOID, rows, 0, 8)
    np.testing.assert_allclose(rows, exact, rtol=2e-6)
    assert rows.min() > np.finfo(np.float32).tiny


@pytest.mark.parametrize("kind", [SIGMOID, TANH])
def test_nan_stays_nan_and_infinity_meets_the_limit(kind):
    rows = np.array([[math.nan, math.inf, -math.inf, 0.0, 1.0, -1.0, 89.0, -89.0]], np.float32)
    activations.apply(kind, rows, 0, 8)
    assert math.isnan(rows[0, 0])
    lowest = -1.0 if kind == TANH else 0.0
    np.testing.assert_allclose(rows[0, [1, 2, 6, 7]], [1.0, lowest, 1.0, lowest], atol=1e-6)
    assert rows[0, 3] == (0.0 if kind == TANH else 0.5)


def test_linear_changes_nothing():
    rows = np.arange(16, dtype=np.float32).reshape(2, 8)
    activations.apply(LINEAR, rows, 0, 8)
    np.testing.assert_array_equal(rows.ravel(), np.arange(16))


@unrolled
def one_tanh(x):
    return activations.tanh(x)


@njit
def call_tanh(x):
    return one_tanh(x)


def test_in_float64_tanh_is_right_to_1e_14():
    assert call_tanh(0.3) == pytest.approx(math.tanh(0.3), abs=1e-14)


@pytest.mark.parametrize("n", [2, 8, 13, 16, 37])
def test_log_softmax_of_sums_far_apart_is_that_of_float64(n):
    y = 40.0 * np.random.default_rng(n).standard_normal((9, 48)).astype(np.float32)
    exact = y[:, 1 : 1 + n].astype(np.float64)
    exact -= exact.max(axis=1, keepdims=True)
    exact -= np.log(np.exp(exact).sum(axis=1, keepdims=True))
    before = y[:, 0].copy()
    activations.log_softmax(y, 1, n)
    np.testing.assert_allclose(y[:, 1 : 1 + n], exact, rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(y[:, 0], before)


def test_a_constant_added_to_a_row_changes_no_log_probability_and_nan_spreads():
    y = np.random.default_rng(1).integers(-9, 9, (3, 8)).astype(np.float32)
    shifted = y + 64.0
    shifted[2, 3] = math.nan
    activations.log_softmax(y, 0, 8)
    activations.log_softmax(shifted, 0, 8)
    np.testing.assert_allclose(y[:2], shifted[:2], atol=1e-5)
    assert np.isnan(shifted[2]).all()
