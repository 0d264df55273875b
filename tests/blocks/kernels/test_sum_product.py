import numpy as np
import pytest

from blocks.kernels import trellis
from blocks.kernels.sum_product import SumProduct, floor_of


def received(snr_db, length, dtype):
    """Sum-product recursion, sent symbols (+-1) and samples over four taps."""
    rng = np.random.default_rng(5)
    taps, noise_var = np.array([1.0, 0.6, 0.4, 0.2]), 10 ** (-snr_db / 10)
    sent = rng.choice([-1.0, 1.0], length)
    samples = np.convolve(sent, taps)[:length] + rng.standard_normal(length) * noise_var**0.5
    metrics = trellis.Metrics.of_channel(
        taps, trellis.ALPHABETS["bpsk"], is_complex=False, silence=True, noise_var=noise_var,
        dtype=dtype,
    )  # fmt: skip
    return SumProduct(metrics, 2, trellis.start_states("silence", 0, 2, 3)), sent, samples


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_messages_and_factors_are_never_denormal(dtype):
    # 40 dB: metrics span 1e5 nats, far more than any exponent holds.
    recursion, sent, samples = received(40.0, 200, dtype)
    values = recursion.metrics.flat(samples)
    for lanes in (True, False):
        recursion._lanes = lanes
        marginal, posterior = recursion.decide(values, 1, 0, 200, at_start=True)
        forwards = recursion._scratch["forwards"][: 201 * 8 * (16 if lanes else 1)]
        for used in (forwards, recursion._scratch["factors"]):
            used = used[np.isfinite(used) & (used != 0)][:1000]
            assert used.min() >= floor_of(dtype) * 0.99
            assert floor_of(dtype) ** 2 > np.finfo(dtype).tiny
        assert not ((posterior > 0) & (posterior < np.finfo(np.float32).tiny)).any()
        np.testing.assert_array_equal(marginal[0].argmax(axis=1), sent > 0)
        np.testing.assert_allclose(posterior[0].sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_messages_survive_a_noise_level_that_is_wrong_by_40_db(dtype):
    metrics = np.random.default_rng(6).exponential(1e4, 100 * 16)
    recursion = SumProduct(trellis.Metrics.given(16, dtype), 2, np.ones(8, bool))
    _, posterior = recursion.decide(recursion.metrics.flat(metrics), 1, 0, 100, at_start=True)
    np.testing.assert_allclose(posterior[0].sum(axis=1), 1, atol=1e-5)


def test_branches_of_infinite_metric_have_no_weight():
    metrics = np.ones((20, 8))
    metrics[:, 1::2] = np.inf  # symbol 1 cannot be sent
    recursion = SumProduct(trellis.Metrics.given(8, np.float64), 2, np.ones(4, bool))
    marginal, _ = recursion.decide(metrics.ravel(), 1, 0, 20, at_start=True)
    np.testing.assert_allclose(marginal[0], np.tile([1.0, 0.0], (20, 1)), atol=1e-100)


def test_posteriors_are_calibrated():
    # Of symbols said to be +1 with probability p, a share p is +1.
    recursion, sent, samples = received(2.0, 40_000, np.float32)
    values = recursion.metrics.flat(samples)
    marginal, _ = recursion.decide(values, 40, 1000, 1000, at_start=False)
    p, one = marginal[:, :, 1].ravel(), sent > 0
    for low in np.arange(0.0, 1.0, 0.1):
        chosen = (p >= low) & (p < low + 0.1)
        expected, count = p[chosen].mean(), chosen.sum()
        half = 4 * np.sqrt(expected * (1 - expected) / count) + 2e-3  # errors come in bursts
        assert abs(one[chosen].mean() - expected) < half


def test_posteriors_of_states_are_left_out_where_not_wanted():
    metrics = np.random.default_rng(7).exponential(4.0, 3 * 30 * 16)
    given = trellis.Metrics.given(16, np.float64)
    whole = SumProduct(given, 2, np.ones(8, bool)).decide(metrics, 3, 30, 30, at_start=True)
    alone = SumProduct(given, 2, np.ones(8, bool), states=False)
    marginal, posterior = alone.decide(metrics, 3, 30, 30, at_start=True)
    assert posterior.shape == (3, 30, 0)
    np.testing.assert_array_equal(marginal, whole[0])
