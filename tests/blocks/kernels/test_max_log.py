import itertools

import numpy as np
import pytest

from blocks.kernels import max_log, trellis, viterbi

SIZES = [(2, 1), (2, 2), (2, 3), (4, 1), (4, 2)]  # order, memory


def costs_of(metrics, order, start, end=None, piece=None):
    """Posterior of the states and costs of the newest symbol of words, by the kernels."""
    words, length = metrics.shape[:2]
    n_states = start.size
    message = np.tile(np.where(start, 0.0, np.inf), (words, 1))
    forwards, scratch = np.empty((words, length, n_states)), np.empty(n_states)
    posterior, costs = np.empty((words, length, n_states)), np.empty((words, length, order))
    edges = range(0, length, piece or length)
    parts = [np.ascontiguousarray(metrics[:, at : at + (piece or length)]) for at in edges]
    for at, part in zip(edges, parts, strict=True):
        max_log.forward(part, at, order, message, forwards)
    message[:] = np.where(np.ones(n_states, bool) if end is None else end, 0.0, np.inf)
    for at, part in zip(reversed(edges), reversed(parts), strict=True):
        max_log.backward(part, at, order, message, scratch, forwards, posterior, costs)
    return posterior, costs


def costs_by_enumeration(metrics, order, starts, ends):
    """Least sum of metrics of all words through each state of one word, (length, n_states)."""
    length, n_states = metrics.shape[0], starts.size
    costs = np.full((length, n_states), np.inf)
    for past in np.flatnonzero(starts):
        for symbols in itertools.product(range(order), repeat=length):
            states, state, total = [], past, 0.0
            for symbol, row in zip(symbols, metrics, strict=True):
                branch = state * order + symbol
                total += row[branch % len(row)]
                state = branch % n_states
                states.append(state)
            if ends[state]:
                at = range(length), states
                costs[at] = np.minimum(costs[at], total)
    return costs


@pytest.mark.parametrize(("order", "memory"), SIZES)
@pytest.mark.parametrize("per", ["branch", "state"])
@pytest.mark.parametrize("start", ["known", "unknown"])
@pytest.mark.parametrize("end", ["known", "unknown"])
def test_costs_are_those_of_the_best_of_all_words(order, memory, per, start, end):
    n_states, length = order**memory, 6 if order == 2 else 4
    width = n_states * order if per == "branch" else n_states
    metrics = np.random.default_rng([order, memory]).exponential(4.0, (2, length, width))
    starts = trellis.start_states(start, 1, order, memory)
    ends = trellis.states_ending(1, memory if end == "known" else 0, order, memory)

    posterior, costs = costs_of(metrics, order, starts, ends)

    for word in range(2):
        expected = costs_by_enumeration(metrics[word], order, starts, ends)
        expected -= expected.min(axis=1, keepdims=True)
        newest = expected.reshape(length, -1, order).min(axis=1)
        np.testing.assert_allclose(costs[word], newest, rtol=0, atol=1e-12)
        likely = np.exp(-expected)
        likely /= likely.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(posterior[word], likely, rtol=0, atol=1e-12)


def test_a_factor_on_all_metrics_is_a_factor_on_all_costs():
    metrics = np.random.default_rng(3).exponential(4.0, (2, 200, 16))
    costs = costs_of(metrics, 2, np.ones(8, bool))[1]
    for factor in (2.0**-200, 2.0**200):
        scaled = costs_of(factor * metrics, 2, np.ones(8, bool))[1]
        np.testing.assert_array_equal(scaled, factor * costs)


def test_a_constant_added_to_the_metrics_of_a_sample_changes_nothing():
    rng = np.random.default_rng(4)
    metrics = rng.exponential(4.0, (2, 200, 16))
    added = metrics + rng.uniform(-1e3, 1e3, (2, 200, 1))
    for one, other in zip(
        costs_of(added, 2, np.ones(8, bool)), costs_of(metrics, 2, np.ones(8, bool)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)


def test_the_symbols_without_cost_are_those_of_the_most_likely_sequence():
    metrics = np.random.default_rng(5).exponential(4.0, (1, 300, 16))
    path, survivors = np.zeros((1, 8)), np.empty((1, 300, 8), np.uint8)
    viterbi.forward(metrics, 0, 2, path, np.empty(8), survivors)
    symbols = np.empty((1, 300), np.uint8)
    viterbi.decide(survivors, path, 2, symbols)
    costs = costs_of(metrics, 2, np.ones(8, bool))[1]
    np.testing.assert_array_equal(costs.argmin(axis=2), symbols)
    # Every step sees the same best sequence, so all but its symbols cost something.
    assert (np.sort(costs, axis=2)[:, :, 0] == 0).all()
    assert (np.sort(costs, axis=2)[:, :, 1] > 0).all()


def test_branches_of_infinite_metric_are_ruled_out():
    metrics = np.ones((1, 20, 8))
    metrics[:, :, 1::2] = np.inf  # symbol 1 cannot be sent
    posterior, costs = costs_of(metrics, 2, np.ones(4, bool))
    np.testing.assert_array_equal(costs[0], np.tile([0.0, np.inf], (20, 1)))
    np.testing.assert_allclose(posterior.sum(axis=2), 1, rtol=1e-12)


def test_words_in_pieces_have_the_costs_of_words_at_once():
    metrics = np.random.default_rng(7).exponential(4.0, (3, 50, 16))
    start = trellis.start_states("known", 1, 2, 3)
    whole = costs_of(metrics, 2, start)
    for piece in (1, 7, 49):
        cut = costs_of(metrics, 2, start, piece=piece)
        np.testing.assert_array_equal(cut[0], whole[0])
        np.testing.assert_array_equal(cut[1], whole[1])


@pytest.mark.parametrize("lag", [1, 3, 20])
def test_window_k_has_the_costs_given_the_samples_of_windows_0_to_k_plus_1(lag):
    metrics = np.random.default_rng(8).exponential(4.0, (1, 90, 16))
    start = trellis.start_states("known", 1, 2, 3)
    stream = max_log.FixedLag(start, 2, 16, lag)
    posterior, costs = stream.push(metrics[0])
    assert len(posterior) == len(costs) == (90 // lag - 1) * lag
    for first in range(0, len(costs), lag):
        full = costs_of(metrics[:, : first + 2 * lag], 2, start)
        window = slice(first, first + lag)
        np.testing.assert_allclose(costs[window], full[1][0, window], atol=1e-12)
        np.testing.assert_allclose(posterior[window], full[0][0, window], rtol=1e-6)
    rest = stream.finish()
    full = costs_of(metrics, 2, start)
    np.testing.assert_allclose(rest[1], full[1][0, len(costs) :], atol=1e-12)


@pytest.mark.parametrize("cut", [1, 7, 333])
@pytest.mark.parametrize("lag", [1, 15, 501])
def test_fixed_lag_costs_do_not_depend_on_the_cut(cut, lag):
    metrics = np.random.default_rng(9).exponential(4.0, (1000, 16))
    whole = max_log.FixedLag(np.ones(8, bool), 2, 16, lag)
    expected = [whole.push(metrics), whole.finish()]
    stream = max_log.FixedLag(np.ones(8, bool), 2, 16, lag)
    found = [stream.push(metrics[at : at + cut]) for at in range(0, 1000, cut)]
    found.append(stream.finish())
    for output in (0, 1):
        np.testing.assert_array_equal(
            np.concatenate([part[output] for part in found]),
            np.concatenate([part[output] for part in expected]),
        )


@pytest.mark.parametrize("cut", [0, 1, 14, 15, 30, 77])
def test_a_restored_stream_goes_on_exactly(cut):
    metrics = np.random.default_rng(10).exponential(4.0, (120, 8))
    start = trellis.start_states("known", 1, 2, 2)
    first = max_log.FixedLag(start, 2, 8, 15)
    first.push(metrics[:cut])
    second = max_log.FixedLag(start, 2, 8, 15)
    second.restore(first.state())
    for one, other in zip(second.push(metrics[cut:]), first.push(metrics[cut:]), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(second.finish(), first.finish(), strict=True):
        np.testing.assert_array_equal(one, other)
