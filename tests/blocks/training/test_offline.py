import math

import needs
import numpy as np
import pytest

from blocks.kernels.sum_product import SumProduct
from blocks.kernels.trellis import Metrics
from blocks.nodes.dense import Dense
from blocks.nodes.node import labels_of
from blocks.nodes.taps import Taps
from blocks.training.offline import fit

pytestmark = needs.compiled  # thousands of steps

TAPS = np.exp(-0.2 * np.arange(4))


def received(count, snr_db, seed, *, scale=0.0):
    """Symbols, their samples behind tanh(scale y) if not 0, and classes."""
    rng = np.random.default_rng(seed)
    symbols = rng.integers(0, 2, count + 3)
    samples = np.convolve(2.0 * symbols - 1.0, TAPS, "valid")
    samples = samples + rng.standard_normal(count) * 10.0 ** (-snr_db / 20)
    if scale:
        samples = np.tanh(scale * samples)
    return symbols[3:], samples.astype(np.float32), labels_of(symbols, 4, 2)[3:]


def errors(node, symbols, samples):
    """Wrong decisions of sum-product on streams of 1000 symbols."""
    metrics = np.empty((samples.size, 16), np.float32)
    node.metrics(samples, metrics)
    recursion = SumProduct(Metrics.given(16, np.float32), 2, np.ones(8, bool), states=False)
    found, _ = recursion.decide(
        metrics.reshape(-1), samples.size // 1000, 1000, 1000, at_start=True
    )
    return int(np.sum((found.reshape(-1, 2)[:, 1] > 0.5) != symbols))


def fitted(samples, labels, seed, **options):
    rng = np.random.default_rng(seed)
    return fit(Dense.fresh("bpsk", 4, rng=rng), samples, labels, rng, **options)


def test_sum_product_with_learned_metrics_comes_near_exact_map():
    symbols, samples, _ = received(300_000, 8.0, 1)  # some 650 errors of MAP
    truth = Taps("bpsk", 4, {"taps": TAPS, "noise_var": np.array(10.0**-0.8)})
    learned = [errors(fitted(*received(5000, 8.0, seed)[1:], seed)[0], symbols, samples)
               for seed in (2, 3)]  # fmt: skip
    assert np.mean(learned) <= 1.3 * errors(truth, symbols, samples)


def test_behind_a_tanh_it_has_half_the_errors_of_least_squares():
    symbols, samples, _ = received(300_000, 10.0, 4, scale=0.5)  # some 230 of least squares
    known = received(5000, 10.0, 5, scale=0.5)[1:]
    linear = Taps("bpsk", 4, {}).fitted(*known)
    node, _ = fitted(*known, 5)
    assert errors(node, symbols, samples) <= 0.5 * errors(linear, symbols, samples)


def test_it_repeats_tells_its_progress_and_scores_what_it_returns():
    _, samples, labels = received(600, 8.0, 6)
    labels[:100] = -1
    told = []
    found = [
        fitted(samples, labels, 7, epochs=4, progress=lambda *now: told.append(now))
        for _ in range(2)
    ]
    (node, scores), (again, _) = found
    np.testing.assert_array_equal(node.parameters, again.parameters)
    assert [epoch for epoch, _, _ in told] == [1, 2, 3, 4] * 2
    assert scores["symbols"] == 450
    assert scores["loss"] == min(loss for epoch, _, loss in told if epoch > 1)
    assert told[int(scores["epochs"]) - 1] == (scores["epochs"], 4, scores["loss"])


def test_it_stops_when_averages_become_worse():
    rng = np.random.default_rng(8)
    samples, labels = rng.standard_normal(300).astype(np.float32), rng.integers(0, 16, 300)
    told = []
    _, scores = fitted(  # there is nothing to learn, but how to repeat the labels
        samples, labels, 9, epochs=40, rate=2e-2, progress=lambda *now: told.append(now)
    )
    assert len(told) == scores["epochs"] + 3 < 40


def test_it_says_why_there_is_no_node():
    _, samples, labels = received(50, 8.0, 10)
    with pytest.raises(ValueError, match="1 labelled samples, 1 of them held out; give more"):
        fitted(samples, np.where(np.arange(50) == 7, labels, -1), 11)
    samples[:] = math.nan
    with pytest.raises(ValueError, match="training gave no finite loss"):
        fitted(samples, labels, 11)
