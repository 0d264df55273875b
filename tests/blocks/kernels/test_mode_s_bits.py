import mode_s_air
import numpy as np
import pytest

from blocks.kernels.max_log import MaxLog
from blocks.kernels.mode_s import syndromes
from blocks.kernels.mode_s_bits import Sequence, decide, fit, solve
from blocks.kernels.mode_s_detection import RATES, model_of
from blocks.kernels.trellis import Metrics

#: Message printed in "The 1090 Megahertz Riddle", chapter on error control, as free of errors.
CLEAN = mode_s_air.digits(0x8D406B902015A678D4D220AA4BDA, 112)


def samples_of(bits, response, begin, chip, count):
    """a + sum of c_k h(distance): the model written out, a = 0.2."""
    chips = mode_s_air.chips_of(bits)
    distance = (np.arange(count) - begin)[:, None] / chip - np.arange(chips.size)
    return (0.2 + response(distance) @ chips).astype(np.float32)


def line(distance):
    """A response that the model of either rate can take on: lines between values at its knots."""
    return np.interp(
        distance, [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5], [0, 0.1, 0.5, 1, 0.7, 0.3, 0]
    )


@pytest.mark.parametrize("rate_hz", [2.0e6, 2.4e6])
@pytest.mark.parametrize("size", [56, 112])
def test_the_fit_on_right_bits_leaves_nothing_of_samples_that_obey_the_model(rate_hz, size):
    rate = RATES[rate_hz]._replace(pull=0.0)
    model = model_of(rate)
    bits = np.random.default_rng(size).integers(0, 2, size, np.uint8)
    bits[0] = size == 112
    scratch = Sequence(model, (0,), 1)._scratch
    for p in range(rate.phases):
        begin = 3 + (p / rate.phases if rate_hz == 2.4e6 else 0)  # at 2.0 any phase is in the taps
        y = samples_of(bits, line, begin, rate.chip, 320)
        start = 3 if rate_hz == 2.4e6 or p / rate.phases <= 0.5 else 2
        gains = np.where(bits == 1, 1.0, -1.0).astype(np.float32)
        rest = fit(y, start, p, size, model, gains, scratch)
        assert rest < 1e-4 * y.var()
        gains[:] = 0
        decide(y, start, p, size, model, scratch, gains)
        np.testing.assert_array_equal(gains > 0, bits == 1)


@pytest.mark.parametrize("rate_hz", [2.0e6, 2.4e6])
@pytest.mark.parametrize("size", [56, 112])
def test_gains_are_those_of_the_general_max_log_recursion(rate_hz, size):
    rng = np.random.default_rng(5)
    model = model_of(RATES[rate_hz])
    scratch = Sequence(model, (0,), 1)._scratch
    scratch.weights[:] = rng.standard_normal(scratch.weights.size)
    gains = np.empty(size)
    decide(rng.random(320, np.float32), 4, 1, size, model, scratch, gains)
    metrics = scratch.metrics[: size + 1]
    assert (metrics.sum(axis=1) > 0).all()
    recursion = MaxLog(Metrics.given(4, np.float64), 2, np.array([False, True]), states=False)
    costs, _ = recursion.decide(
        metrics.copy().reshape(-1), 1, size + 1, size + 1,
        at_start=True, end=np.array([True, False]), keep=size,
    )  # fmt: skip
    np.testing.assert_allclose(gains, costs[0, :, 0] - costs[0, :, 1], atol=1e-12)


def test_a_printed_message_has_no_remainder_and_each_bit_adds_its_own():
    weights = syndromes(112).astype(np.int64)
    assert np.bitwise_xor.reduce(weights[CLEAN == 1]) == 0
    for k in (0, 17, 87, 88, 111):
        assert weights[k] == mode_s_air.remainder(np.arange(112) == k)


def test_solve_agrees_with_lapack():
    rng = np.random.default_rng(2)
    half = rng.standard_normal((6, 9))
    normal, right = half @ half.T, rng.standard_normal(6)
    expected = np.linalg.solve(normal, right)
    found = right.copy()
    product = solve(normal.copy(), found)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert product == pytest.approx(right @ expected, rel=1e-10)
