import itertools

import numpy as np
import pytest

from blocks.kernels import sum_product, trellis

SIZES = [(2, 1), (2, 2), (2, 3), (4, 1), (4, 2)]  # order, memory


def posteriors_of(metrics, order, start, end=None, piece=None, dtype=np.float64):
    """Posterior of states and newest symbols of words, by the kernels."""
    words, length = metrics.shape[:2]
    floor, n_states = sum_product.floor_of(dtype), start.size
    message = np.tile(start / start.sum(), (words, 1)).astype(dtype)
    forwards, scratch = np.empty((words, length, n_states), dtype), np.empty(n_states, dtype)
    posterior = np.empty((words, length, n_states), dtype)
    marginal = np.empty((words, length, order), dtype)
    edges = range(0, length, piece or length)
    factors = []
    for at in edges:
        part = np.ascontiguousarray(metrics[:, at : at + (piece or length)], dtype)
        factors.append(np.empty_like(part))
        sum_product.to_factors(part, floor, factors[-1])
        sum_product.forward(factors[-1], at, order, floor, message, forwards)
    message[:] = 1.0 if end is None else end
    for at in reversed(edges):
        sum_product.backward(
            factors.pop(), at, order, floor, message, scratch, forwards, posterior, marginal
        )
    return posterior, marginal


def posteriors_by_enumeration(metrics, order, starts, ends):
    """Posterior of the states of one word: every word and past, weighted by exp(-metrics)."""
    length, n_states = metrics.shape[0], starts.size
    posterior = np.zeros((length, n_states))
    for past in np.flatnonzero(starts):
        for symbols in itertools.product(range(order), repeat=length):
            states, state, total = [], past, 0.0
            for symbol, row in zip(symbols, metrics, strict=True):
                branch = state * order + symbol
                total += row[branch % len(row)]
                state = branch % n_states
                states.append(state)
            if ends[state]:
                posterior[range(length), states] += np.exp(-total)
    return posterior / posterior.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("order", "memory"), SIZES)
@pytest.mark.parametrize("per", ["branch", "state"])
@pytest.mark.parametrize("start", ["known", "unknown"])
@pytest.mark.parametrize("end", ["known", "unknown"])
@pytest.mark.parametrize(("dtype", "exact_to"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_posteriors_match_enumeration(order, memory, per, start, end, dtype, exact_to):
    n_states, length = order**memory, 6 if order == 2 else 4
    width = n_states * order if per == "branch" else n_states
    metrics = np.random.default_rng([order, memory]).exponential(4.0, (2, length, width))
    starts = trellis.start_states(start, 1, order, memory)
    ends = trellis.states_ending(1, memory if end == "known" else 0, order, memory)

    posterior, marginal = posteriors_of(metrics, order, starts, ends, dtype=dtype)

    assert posterior.dtype == dtype
    for word in range(2):
        expected = posteriors_by_enumeration(metrics[word], order, starts, ends)
        np.testing.assert_allclose(posterior[word], expected, rtol=0, atol=exact_to)
        newest = expected.reshape(length, -1, order).sum(axis=1)
        np.testing.assert_allclose(marginal[word], newest, rtol=0, atol=exact_to)
    np.testing.assert_allclose(posterior.sum(axis=2), 1, rtol=0, atol=exact_to)


def test_a_constant_added_to_the_metrics_of_a_sample_changes_nothing():
    rng = np.random.default_rng(3)
    metrics = rng.exponential(4.0, (2, 200, 16))
    start = np.ones(8, bool)
    plain = posteriors_of(metrics, 2, start)[0]
    added = posteriors_of(metrics + rng.uniform(-1e3, 1e3, (2, 200, 1)), 2, start)[0]
    np.testing.assert_allclose(added, plain, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_messages_and_factors_are_never_denormal(dtype):
    # 40 dB: metrics span 1e5 nats, far more than any exponent holds.
    rng = np.random.default_rng(5)
    taps, length = np.array([1.0, 0.6, 0.4, 0.2]), 2000
    sent = rng.choice([-1.0, 1.0], length)
    samples = np.convolve(sent, taps)[:length] + rng.standard_normal(length) * 1e-2
    metrics = trellis.IsiMetrics(
        taps, trellis.ALPHABETS["bpsk"], silence=True, noise_var=1e-4, dtype=dtype
    )(samples[None], 0)
    start = trellis.start_states("silence", 0, 2, 3)
    stream = sum_product.FixedLag(start, 2, 16, 15, dtype)

    posterior, marginal = stream.push(metrics[0])

    tiny = np.finfo(dtype).tiny
    state = stream.state()
    for name in ("forward", "factors", "forwards"):
        assert state[name].min() >= sum_product.floor_of(dtype) * 0.99
        assert state[name].min() ** 2 > tiny
    assert not ((posterior > 0) & (posterior < np.finfo(np.float32).tiny)).any()
    np.testing.assert_array_equal(marginal.argmax(axis=1), sent[: len(marginal)] > 0)
    np.testing.assert_allclose(posterior.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_messages_survive_a_noise_level_that_is_wrong_by_40_db(dtype):
    rng = np.random.default_rng(6)
    metrics = rng.exponential(1e4, (1, 500, 16))
    posterior, _ = posteriors_of(metrics, 2, np.ones(8, bool), dtype=dtype)
    assert np.isfinite(posterior).all()
    np.testing.assert_allclose(posterior.sum(axis=2), 1, atol=1e-5)


def test_branches_of_infinite_metric_have_no_weight():
    metrics = np.ones((1, 20, 8))
    metrics[:, :, 1::2] = np.inf  # symbol 1 cannot be sent
    _, marginal = posteriors_of(metrics, 2, np.ones(4, bool))
    np.testing.assert_allclose(marginal[0], np.tile([1.0, 0.0], (20, 1)), atol=1e-100)


def test_words_in_pieces_have_the_posteriors_of_words_at_once():
    metrics = np.random.default_rng(7).exponential(4.0, (3, 50, 16))
    start = trellis.start_states("known", 1, 2, 3)
    whole = posteriors_of(metrics, 2, start)
    for piece in (1, 7, 49):
        cut = posteriors_of(metrics, 2, start, piece=piece)
        np.testing.assert_array_equal(cut[0], whole[0])
        np.testing.assert_array_equal(cut[1], whole[1])


@pytest.mark.parametrize("lag", [1, 3, 20])
def test_window_k_has_the_posteriors_given_the_samples_of_windows_0_to_k_plus_1(lag):
    metrics = np.random.default_rng(8).exponential(4.0, (1, 90, 16))
    start = trellis.start_states("known", 1, 2, 3)
    stream = sum_product.FixedLag(start, 2, 16, lag)
    posterior, marginal = stream.push(metrics[0])
    assert len(posterior) == len(marginal) == (90 // lag - 1) * lag
    for first in range(0, len(marginal), lag):
        full = posteriors_of(metrics[:, : first + 2 * lag], 2, start)
        window = slice(first, first + lag)
        np.testing.assert_allclose(marginal[window], full[1][0, window], rtol=1e-12)
        np.testing.assert_allclose(posterior[window], full[0][0, window], rtol=1e-6)
    rest = stream.finish()
    full = posteriors_of(metrics, 2, start)
    np.testing.assert_allclose(rest[1], full[1][0, len(marginal) :], rtol=1e-12)
    np.testing.assert_allclose(rest[0], full[0][0, len(marginal) :], rtol=1e-6)


@pytest.mark.parametrize("cut", [1, 7, 333])
@pytest.mark.parametrize("lag", [1, 15, 501])
def test_fixed_lag_posteriors_do_not_depend_on_the_cut(cut, lag):
    metrics = np.random.default_rng(9).exponential(4.0, (1000, 16))
    whole = sum_product.FixedLag(np.ones(8, bool), 2, 16, lag)
    expected = [whole.push(metrics), whole.finish()]
    stream = sum_product.FixedLag(np.ones(8, bool), 2, 16, lag)
    found = [stream.push(metrics[at : at + cut]) for at in range(0, 1000, cut)]
    found.append(stream.finish())
    for output in (0, 1):
        np.testing.assert_array_equal(
            np.concatenate([part[output] for part in found]),
            np.concatenate([part[output] for part in expected]),
        )


@pytest.mark.parametrize("cut", [0, 1, 14, 15, 29, 30, 31, 77])
def test_a_restored_stream_goes_on_exactly(cut):
    metrics = np.random.default_rng(10).exponential(4.0, (120, 8))
    first = sum_product.FixedLag(np.ones(4, bool), 2, 8, 15)
    first.push(metrics[:cut])
    second = sum_product.FixedLag(np.ones(4, bool), 2, 8, 15)
    second.restore(first.state())
    for one, other in zip(second.push(metrics[cut:]), first.push(metrics[cut:]), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(second.finish(), first.finish(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_kernels_take_read_only_metrics():
    metrics = np.random.default_rng(12).exponential(size=(30, 8))
    expected = sum_product.FixedLag(np.ones(4, bool), 2, 8, 5).push(metrics.copy())
    metrics.flags.writeable = False
    found = sum_product.FixedLag(np.ones(4, bool), 2, 8, 5).push(metrics)
    np.testing.assert_array_equal(found[0], expected[0])
