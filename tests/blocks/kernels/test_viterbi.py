import numpy as np
import pytest
from needs import compiled

from blocks.kernels import trellis
from blocks.kernels.table import Table
from blocks.kernels.viterbi import Viterbi

PROAKIS_C = np.array([0.227, 0.460, 0.688, 0.460, 0.227])


def proakis_c(snr_db, length, dtype):
    """Viterbi recursion, sent symbols (indices) and samples."""
    rng = np.random.default_rng([11, int(snr_db)])
    sent = rng.integers(0, 2, length)
    noise = rng.standard_normal(length) * 10 ** (-snr_db / 20)
    samples = (np.convolve(2.0 * sent - 1, PROAKIS_C)[:length] + noise).astype(np.float32)
    metrics = trellis.Metrics.of_channel(
        PROAKIS_C, trellis.ALPHABETS["bpsk"], is_complex=False, silence=True, dtype=dtype
    )
    return Viterbi(metrics, 2, trellis.start_states("silence", 0, 2, 4)), sent, samples


def decided(viterbi, samples):
    values = viterbi.metrics.flat(samples)
    return viterbi.decide(values, 1, 0, samples.size, at_start=True)[0][0]


@compiled
@pytest.mark.parametrize("snr_db", [12.0, 16.0])
def test_float32_decides_as_float64_does(snr_db):
    single, _, samples = proakis_c(snr_db, 100_000, np.float32)
    double, _, _ = proakis_c(snr_db, 1, np.float64)
    np.testing.assert_array_equal(decided(single, samples), decided(double, samples))


@compiled
@pytest.mark.parametrize("window", [20, 128])
def test_five_memories_of_lag_are_within_one_percent_of_the_full_traceback(window):
    # Proakis C at 12 dB, where survivors merge late: 26,000 errors of one million symbols.
    viterbi, sent, samples = proakis_c(12.0, 1_000_000, np.float32)
    full = decided(viterbi, samples)
    stream = viterbi.stream(window, 20)
    windows = np.concatenate([stream.push(samples)[0], stream.finish()[0]])
    exact = (full != sent).mean()
    assert 0.0250 < exact < 0.0275  # printed: 0.02645, of other noise
    assert (windows != sent).mean() < 1.01 * exact


def test_metrics_that_are_equal_leave_the_first_branch():
    metrics = trellis.Metrics.given(16, np.float32)
    for lanes in (True, False):
        viterbi = Viterbi(metrics, 2, np.ones(8, bool), lanes=lanes)
        (symbols,) = viterbi.decide(np.zeros(2 * 9 * 16, np.float32), 2, 9, 9, at_start=True)
        np.testing.assert_array_equal(symbols, 0)


def test_branches_of_infinite_metric_are_not_taken():
    metrics = np.full((20, 8), 5.0)
    metrics[:, 1::2] = np.inf  # symbol 1 cannot be sent
    viterbi = Viterbi(trellis.Metrics.given(8, np.float64), 2, np.ones(4, bool))
    (symbols,) = viterbi.decide(metrics.ravel(), 1, 0, 20, at_start=True)
    np.testing.assert_array_equal(symbols, 0)


@compiled
def test_metrics_may_drift_without_end():
    # By 50 per step: after 1e5 steps float32 sums would have no digits left for differences.
    metrics = np.random.default_rng(2).exponential(size=(1, 100_000, 16))
    start = np.ones(8, bool)
    drifting = Viterbi(trellis.Metrics.given(16, np.float32), 2, start)
    exact = Viterbi(trellis.Metrics.given(16, np.float64), 2, start)
    wide = metrics + 50.0
    values = drifting.metrics.flat(wide.astype(np.float32))
    found = drifting.decide(values, 1, 0, 100_000, at_start=True)[0]
    expected = exact.decide(values.astype(np.float64), 1, 0, 100_000, at_start=True)[0]
    assert (found != expected).mean() < 1e-4


@pytest.mark.parametrize("memory", [1, 3, 6])
def test_words_by_a_table_are_those_by_its_metrics(memory):
    """Samples beyond the table, too, of which the last word, that idle lanes repeat, has some."""
    n_classes = 2**memory
    means = np.random.default_rng(2).standard_normal(n_classes).astype(np.float32)

    def function(inputs, outputs):
        outputs[:] = -((inputs - means) ** 2)

    table = Table.of(function, n_classes, -1.5, 1.5, error=0.1)
    start = trellis.start_states("known", 1, 2, trellis.memory_of(memory))
    viterbi = Viterbi(trellis.Metrics.given(n_classes, np.float32), 2, start)
    for words, length in ((1, 40), (3, 1), (18, 16), (17, 37)):
        samples = np.random.default_rng(words).standard_normal((words, length)).astype(np.float32)
        samples[-1, length // 2] = 2.0
        metrics = np.empty((samples.size, n_classes), np.float32)
        assert table.log_probabilities(samples.reshape(-1), metrics) > 0
        end = trellis.states_ending(1, min(length, 2), 2, trellis.memory_of(memory))
        (expected,) = viterbi.decide(
            -metrics.reshape(-1), words, length, length, at_start=True, end=end
        )
        (found,) = viterbi.decide_by_table(table, samples, end=end)
        np.testing.assert_array_equal(found, expected)
