import math

import numpy as np
import pytest
from needs import compiled
from numba import njit

from blocks.kernels import unrolled
from blocks.kernels.traced import LANES
from blocks.kernels.unrolled import is_nan, lanes, put_lanes, sqrt, where


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


@compiled
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


@compiled
def test_what_is_no_number_is_refused():
    with pytest.raises(Exception, match="take floats, indices, tuples and arrays"):
        njit(lambda: made("a", 1.0))()


@unrolled.unrolled
def exponential(x):
    return unrolled.exp(x)


@njit
def call_exponential(values, out):
    for i in range(values.size):
        out[i] = exponential(values[i])


@unrolled.unrolled
def exponential_lanes(values, out, row):
    put_lanes(out, unrolled.exp(lanes(values, row)), row)


@njit
def call_exponential_lanes(values, out):
    for row in range(values.shape[0]):
        exponential_lanes(values, out, row)


@pytest.mark.parametrize(("dtype", "error"), [(np.float32, 2.5e-7), (np.float64, 4e-16)])
def test_exp_is_that_of_numpy_and_equal_in_lanes(dtype, error):
    values = np.linspace(-87, 88, 8 * 5001).astype(dtype)
    one, many = np.empty_like(values), np.empty((5001, LANES), dtype)
    call_exponential(values, one)
    call_exponential_lanes(values.reshape(-1, LANES), many)
    np.testing.assert_allclose(one, np.exp(values.astype(np.float64)), rtol=error)
    np.testing.assert_array_equal(many.ravel(), one)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exp_beyond_its_range_stays_finite_and_normal_and_nan_stays_nan(dtype):
    values = np.array([-np.inf, -1e5, 1e5, np.inf, np.nan, 0, 0, 0], dtype)
    out = np.empty_like(values)
    call_exponential(values, out)
    assert (out[:2] >= np.finfo(dtype).tiny).all()
    assert (out[:2] < 2e-38).all()
    assert np.isfinite(out[2:4]).all()
    assert (out[2:4] > 1e38).all()
    assert np.isnan(out[4])


@unrolled.unrolled
def signs(source, target):
    a, b = lanes(source, 0), lanes(source, 1)
    found = unrolled.shift_in(None, a < b)
    found = unrolled.shift_in(found, a > 0.0)
    found = unrolled.shift_in(found, where(a > 0.0, a < b, b < a))
    put_lanes(target, found, 0)
    put_lanes(target, found << 29 | found >> 1 & 1, 1)
    put_lanes(source, unrolled.fma(a, b, b), 2)


@njit
def call_signs(source, target):
    signs(source, target)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_comparisons_are_shifted_into_words_bit_by_bit(dtype):
    source = np.random.default_rng(5).standard_normal((3, LANES)).astype(dtype)
    target = np.empty((2, LANES), np.int32)
    call_signs(source, target)
    a, b = source[:2]
    expected = 4 * (a < b) + 2 * (a > 0) + 1 * np.where(a > 0, a < b, b < a)
    np.testing.assert_array_equal(target[0], expected)
    np.testing.assert_array_equal(target[1], (expected << 29 | (a > 0)).astype(np.int32))
    np.testing.assert_allclose(source[2], a * b + b, rtol=1e-5)


@unrolled.unrolled
def turn(flat, out, step, size):
    rows = tuple(lanes(flat, step * size + k * LANES) for k in range(LANES))
    for k, row in enumerate(unrolled.transposed(rows)):
        put_lanes(out, row, (k + step) * LANES)


@njit
def call_turn(flat, out, step, size):
    turn(flat, out, step, size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_vectors_are_loaded_from_computed_places_and_transposed(dtype):
    flat = np.random.default_rng(6).integers(0, 99, 3 * 64).astype(dtype)
    out = np.zeros(80, dtype)
    call_turn(flat, out, 2, 64)
    expected = flat[128:].reshape(LANES, LANES).T
    np.testing.assert_array_equal(out[2 * LANES : 2 * LANES + 64].reshape(LANES, LANES), expected)
    assert not out[: 2 * LANES].any()


@unrolled.unrolled
def loops(source, target, first, count):
    def step(i, carried):
        total, (vector,) = carried
        return total + source[first + i * 2, 1], (vector + lanes(source, first + i, 3),)

    start = (source[0, 0], (lanes(source, 0),))
    total, (vector,) = unrolled.repeat(count, step, start)
    put_lanes(target, vector, first, 2)
    unrolled.repeat(count, lambda i, nothing: put_lanes(target, total, i + 4) or nothing, ())
    return total


@njit
def call_loops(source, target, first, count):
    return loops(source, target, first, count)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_loop_carries_numbers_and_vectors_and_indices_add_up(count):
    source = np.random.default_rng(4).standard_normal((12, LANES + 3)).astype(np.float32)
    target = np.zeros((12, LANES + 3), np.float32)
    total = call_loops(source, target, 1, count)
    assert total == pytest.approx(source[0, 0] + source[1 : 1 + 2 * count : 2, 1].sum(), rel=1e-6)
    vector = source[0, :LANES] + source[1 : 1 + count, 3:].sum(axis=0)
    np.testing.assert_allclose(target[1, 2 : 2 + LANES], vector, rtol=1e-5)
    np.testing.assert_array_equal(target[4 : 4 + count, :LANES], np.float32(total))
    assert not target[4 + count :].any()


@unrolled.unrolled
def rearrange(source, target):
    a, b = lanes(source, 0), lanes(source, 1)
    put_lanes(target, unrolled.shuffle(a, b, (8, 7, 9, 6, 10, 5, 11, 4)), 0)
    put_lanes(target, unrolled.floor(a) + source[1, unrolled.index(unrolled.item(b, 2))], 1)
    greatest = unrolled.fold(a, lambda p, q: where(p > q, p, q))
    return greatest, unrolled.fold(b, lambda p, q: p + q), unrolled.item(a, 5)


@njit
def call_rearrange(source, target):
    return rearrange(source, target)


def test_entries_of_vectors_move_and_fold_to_one_number():
    a = np.array([0.5, -1.5, 7.25, 3.0, -2.0, 1.75, 6.0, -0.25])
    b = np.array([1.0, 2.0, 5.0, 4.0, 8.0, 16.0, 32.0, 64.0])
    target = np.zeros((2, LANES))
    assert call_rearrange(np.stack([a, b]), target) == (7.25, 132.0, 1.75)
    np.testing.assert_array_equal(target[0], [b[0], a[7], b[1], a[6], b[2], a[5], b[3], a[4]])
    np.testing.assert_array_equal(target[1], np.floor(a) + b[5])


@unrolled.unrolled
def put_last(array):
    array[-1] = 1.0


@unrolled.unrolled
def put_first(array):
    array[0] = 1.0


@unrolled.unrolled
def double(array):
    put_lanes(array, 2.0 * lanes(array, 0), 0)


@compiled
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


@unrolled.unrolled
def compete(metrics, costs, places, out, words):
    size = unrolled.lanes_of(metrics)
    a = unrolled.lanes(metrics, 0) - 1 + unrolled.lanes(costs, unrolled.index_at(places, 1))
    b = -unrolled.lanes(metrics, size)
    unrolled.put_lanes(out, where(a <= b, a, b), 0)
    found = unrolled.shift_in(unrolled.shift_in(None, a <= b), a > 0)
    unrolled.put_lanes(words, found, 0)
    unrolled.put_lanes(words, found + 300, size)


@njit
def call_compete(metrics, costs, places, out, words):
    compete(metrics, costs, places, out, words)


@pytest.mark.parametrize(
    ("dtype", "size"), [("uint8", 32), ("int8", 32), ("uint16", 16), ("int16", 16), ("int32", 8)]
)
def test_vectors_of_integers_wrap_around_and_fill_a_register(dtype, size):
    metrics, costs = np.random.default_rng(7).integers(0, 256, (2, 2 * size)).astype(dtype)
    out, words = np.zeros(2 * size, dtype), np.zeros(2 * size, dtype)
    call_compete(metrics, costs, np.array([0, size - 1]), out, words)
    with np.errstate(over="ignore"):
        a = metrics[:size] - np.array(1, dtype) + costs[size - 1 : 2 * size - 1]
        b = np.array(0, dtype) - metrics[size:]
    np.testing.assert_array_equal(out[:size], np.minimum(a, b))
    assert not out[size:].any()
    found = 2 * (a <= b) + 1 * (a > 0)
    np.testing.assert_array_equal(words[:size], found)
    np.testing.assert_array_equal(words[size:], (found + 300).astype(dtype))


@unrolled.unrolled
def turn_narrow(flat, out):
    size = unrolled.lanes_of(out)
    rows = tuple(unrolled.lanes(flat, k * size, count=size) for k in range(size))
    for k, row in enumerate(unrolled.transposed(rows)):
        unrolled.put_lanes(out, row, k * size)


@njit
def call_turn_narrow(flat, out):
    turn_narrow(flat, out)


@pytest.mark.parametrize(
    ("dtype", "to", "size"),
    [("int8", "int8", 32), ("int8", "int16", 16), ("uint16", "uint8", 32), ("uint8", "int32", 8)],
)
def test_narrow_vectors_are_transposed_and_stored_in_another_width(dtype, to, size):
    flat = np.random.default_rng(8).integers(-100, 100, size * size).astype(dtype)
    out = np.zeros(size * size, to)
    call_turn_narrow(flat, out)
    expected = flat.reshape(size, size).T.astype(to)
    np.testing.assert_array_equal(out.reshape(size, size), expected)


@unrolled.unrolled
def scale(values, factor, place):
    unrolled.put_lanes(values, unrolled.scaled(unrolled.lanes(values, place), factor), place)


@njit
def call_scale(values, factor):
    for place in range(0, values.size, 32):
        scale(values, factor, place)


@pytest.mark.parametrize("factor", [0, 1, 129, 4001, 32767])
def test_bytes_are_scaled_to_the_nearest(factor):
    before = np.arange(-128, 128).astype(np.int8)
    values = before.copy()
    call_scale(values, factor)
    np.testing.assert_array_equal(values, np.floor(before.astype(float) * factor / 2**15 + 0.5))
