import numpy as np
import pytest

from blocks.kernels import trellis
from blocks.kernels.max_log import MaxLog
from blocks.kernels.viterbi import Viterbi


def costs_of(metrics, lanes=True):
    """Costs and posterior of one word of metrics (length, 16), and its Viterbi decisions."""
    given = trellis.Metrics.given(16, np.float64)
    start, values = np.ones(8, bool), metrics.ravel().copy()
    found = MaxLog(given, 2, start, lanes=lanes).decide(values, 1, 0, len(metrics), at_start=True)
    (best,) = Viterbi(given, 2, start).decide(values, 1, 0, len(metrics), at_start=True)
    return found[0][0], found[1][0], best[0]


@pytest.mark.parametrize("lanes", [True, False])
def test_a_factor_on_all_metrics_is_a_factor_on_all_costs(lanes):
    metrics = np.random.default_rng(3).exponential(4.0, (100, 16))
    costs, _, _ = costs_of(metrics, lanes)
    for factor in (2.0**-200, 2.0**200):
        np.testing.assert_array_equal(costs_of(factor * metrics, lanes)[0], factor * costs)


def test_the_symbols_without_cost_are_those_of_the_most_likely_sequence():
    costs, _, best = costs_of(np.random.default_rng(5).exponential(4.0, (300, 16)))
    np.testing.assert_array_equal(costs.argmin(axis=1), best)
    # Every step sees the same best sequence, so all but its symbols cost something.
    assert (np.sort(costs, axis=1)[:, 0] == 0).all()
    assert (np.sort(costs, axis=1)[:, 1] > 0).all()


def test_branches_of_infinite_metric_are_ruled_out():
    metrics = np.ones((20, 16))
    metrics[:, 1::2] = np.inf  # symbol 1 cannot be sent
    costs, posterior, _ = costs_of(metrics)
    np.testing.assert_array_equal(costs, np.tile([0.0, np.inf], (20, 1)))
    np.testing.assert_allclose(posterior.sum(axis=1), 1, rtol=1e-6)
