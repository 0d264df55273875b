import math

import numpy as np
import pytest
from numba import njit
from numba.core import config

from blocks.kernels import unrolled
from blocks.kernels.unrolled import LANES, is_nan, lanes, put_lanes, sqrt, where


def formula(x, A):
    """One of everything."""
    first = x[0] * A[0][1] - 2.0 * x[1] / A[1][0] + 0.0 * x[0]
    return (first, sqrt(x[1]), -x[0]), where(x[0] > x[1], 1.0 - x[0], 1.0 / x[1])


made = unrolled.unrolled(formula)


@njit
def call(x, A):
    return made(x, A)


def test_compiled_code_computes_what_the_python_does():
    for x in ((0.5, 2.0), (3.0, 1.25)):
        A = ((1.0, 2.5), (4.0, 0.5))
        (first, root, negative), chosen = formula(x, A)
        np.testing.assert_allclose(call(x, A)[0], (first, root, negative), rtol=1e-15)
        assert call(x, A)[1] == pytest.approx(float(chosen), rel=1e-15)


@unrolled.unrolled
def fold(x):
    return x * 0.0 + 3.0, x - 0.0, 0.0 / x, x * 1.0, x * -1.0


@njit
def call_fold(x):
    return fold(x)


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="constants fold while compiling")
def test_a_product_with_the_constant_zero_is_zero_whatever_the_other_factor():
    assert call_fold(math.inf) == (3.0, math.inf, 0.0, math.inf, -math.inf)


@unrolled.unrolled
def mark(values):
    return tuple(where(is_nan(value), 0.0, 1.0) for value in values), sqrt(values[1])


@njit
def call_mark(values):
    return mark(values)


def test_nan_is_seen_and_the_root_of_what_is_negative_is_nan():
    flags, root = call_mark((math.nan, -1.0))
    assert tuple(float(flag) for flag in flags) == (0.0, 1.0)
    assert math.isnan(root)


@unrolled.unrolled
def spread(source, target, scale, row):
    value = lanes(source, row)
    put_lanes(target, where(value > 0.0, scale * value, sqrt(-1.0 * value)), 1)
    target[0, 3] = source[row, 2] + 1.0


@njit
def call_spread(source, target, scale, row):
    spread(source, target, scale, row)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lanes_compute_eight_problems_at_once(dtype):
    source = np.random.default_rng(1).standard_normal((3, LANES)).astype(dtype)
    source.flags.writeable = False
    target = np.zeros((2, LANES), dtype)
    call_spread(source, target, 2.0, 2)
    value = source[2]
    expected = np.where(value > 0, 2.0 * value, np.sqrt(np.maximum(-value, 0.0)))
    np.testing.assert_allclose(target[1], expected, rtol=1e-6 if dtype == np.float32 else 1e-15)
    assert target[0, 3] == pytest.approx(source[2, 2] + 1.0, rel=1e-6)
    assert target[0].nonzero()[0].tolist() == [3]


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="types are looked at while compiling")
def test_what_is_no_number_is_refused():
    with pytest.raises(Exception, match="take floats, indices, tuples and arrays"):
        njit(lambda: made("a", 1.0))()


@unrolled.unrolled
def put_last(array):
    array[-1] = 1.0


@unrolled.unrolled
def put_first(array):
    array[0] = 1.0


@unrolled.unrolled
def double(array):
    put_lanes(array, 2.0 * lanes(array, 0), 0)


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="types are looked at while compiling")
def test_arrays_that_would_be_misread_are_refused():
    fixed = np.zeros((1, LANES))
    fixed.flags.writeable = False
    with pytest.raises(Exception, match="counts from the end"):
        njit(lambda array: put_last(array))(np.zeros(3))
    with pytest.raises(Exception, match="read-only"):
        njit(lambda array: put_first(array))(fixed[0])
    with pytest.raises(Exception, match="read-only"):
        njit(lambda array: double(array))(fixed)
    with pytest.raises(Exception, match="lie side by side"):
        njit(lambda array: double(array))(np.zeros((1, 2 * LANES))[:, ::2])


def test_single_numbers_are_read_and_written_with_strides():
    array = np.zeros(8)[::4]
    njit(lambda array: put_first(array))(array)
    np.testing.assert_array_equal(array, [1.0, 0.0])
