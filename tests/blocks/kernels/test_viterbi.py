import itertools

import numpy as np
import pytest

from blocks.kernels import trellis, viterbi

SIZES = [(2, 1), (2, 2), (2, 3), (4, 1), (4, 2)]  # order, memory


def metric_of(word, past, metrics, order, n_states):
    """Sum of branch metrics along a word, from the definition of branches."""
    state, total = past, 0.0
    for symbol, row in zip(word, metrics, strict=True):
        branch = state * order + symbol
        total += row[branch % len(row)]
        state = branch % n_states
    return total, state


def decided(metrics, order, start, end=None):
    words, length = metrics.shape[:2]
    path = np.tile(np.where(start, 0.0, np.inf).astype(metrics.dtype), (words, 1))
    survivors = np.empty((words, length, start.size), np.uint8)
    symbols = np.empty((words, length), np.uint8)
    viterbi.forward(metrics, 0, order, path, np.empty(start.size, metrics.dtype), survivors)
    if end is not None:
        path = path + np.where(end, 0.0, np.inf)
    viterbi.decide(survivors, path, order, symbols)
    return symbols


@pytest.mark.parametrize(("order", "memory"), SIZES)
@pytest.mark.parametrize("per", ["branch", "state"])
@pytest.mark.parametrize("start", ["known", "unknown"])
@pytest.mark.parametrize("end", ["known", "unknown"])
def test_no_word_has_a_smaller_metric_than_the_decided_one(order, memory, per, start, end):
    n_states, length = order**memory, 6 if order == 2 else 4
    rng = np.random.default_rng([order, memory])
    width = n_states * order if per == "branch" else n_states
    metrics = rng.exponential(size=(3, length, width))
    starts = trellis.start_states(start, 1, order, memory)
    ends = trellis.states_ending(1, memory if end == "known" else 0, order, memory)

    found = decided(metrics, order, starts, ends)

    for word in range(3):
        totals = {}
        for past in np.flatnonzero(starts):
            for symbols in itertools.product(range(order), repeat=length):
                total, last = metric_of(symbols, past, metrics[word], order, n_states)
                if ends[last]:
                    totals[symbols] = min(total, totals.get(symbols, np.inf))
        assert tuple(found[word]) == min(totals, key=totals.get)


def test_a_constant_added_to_the_metrics_of_a_sample_changes_nothing():
    rng = np.random.default_rng(3)
    metrics = rng.integers(0, 64, (2, 300, 16)).astype(np.float32)  # sums are exact
    added = rng.integers(-(2**16), 2**16, (2, 300, 1)).astype(np.float32)
    start = np.ones(8, bool)
    np.testing.assert_array_equal(decided(metrics + added, 2, start), decided(metrics, 2, start))


def proakis_c(snr_db, length, dtype):
    taps = np.array([0.227, 0.460, 0.688, 0.460, 0.227])
    rng = np.random.default_rng(11)
    sent = rng.choice([-1.0, 1.0], length)
    noise = rng.standard_normal(length) * 10 ** (-snr_db / 20)
    samples = (np.convolve(sent, taps)[:length] + noise).astype(np.float32)
    metrics = trellis.IsiMetrics(taps, trellis.ALPHABETS["bpsk"], silence=True, dtype=dtype)
    return metrics(samples[None], 0)


@pytest.mark.parametrize("snr_db", [12.0, 16.0])
def test_float32_decides_as_float64_does(snr_db):
    start = trellis.start_states("silence", 0, 2, 4)
    single = decided(proakis_c(snr_db, 20_000, np.float32), 2, start)
    double = decided(proakis_c(snr_db, 20_000, np.float64), 2, start)
    np.testing.assert_array_equal(single, double)


def pieces(length, cut, rng):
    edges = rng.integers(0, length, 30) if cut == "ragged" else np.arange(0, length, cut)
    edges = np.unique(edges)
    return np.split(np.arange(length), edges)


@pytest.mark.parametrize("cut", [1, 7, 1000, "ragged"])
@pytest.mark.parametrize("lag", [1, 2, 15, 400, 1001])
def test_fixed_lag_decisions_do_not_depend_on_the_cut(cut, lag):
    rng = np.random.default_rng(4)
    metrics = rng.exponential(size=(1000, 16)).astype(np.float32)
    whole = viterbi.FixedLag(np.ones(8, bool), 2, lag)
    expected = np.concatenate([whole.push(metrics), whole.finish()])
    stream = viterbi.FixedLag(np.ones(8, bool), 2, lag)
    found = [stream.push(metrics[piece]) for piece in pieces(1000, cut, rng)]
    np.testing.assert_array_equal(np.concatenate([*found, stream.finish()]), expected)


@pytest.mark.parametrize("lag", [1, 3, 20])
def test_window_k_is_decided_by_full_traceback_from_the_end_of_window_k_plus_1(lag):
    metrics = proakis_c(8.0, 200, np.float64)
    start = trellis.start_states("silence", 0, 2, 4)
    stream = viterbi.FixedLag(start, 2, lag, np.float64)
    found = stream.push(metrics[0])
    assert found.size == (200 // lag - 1) * lag
    for first in range(0, found.size, lag):
        full = decided(metrics[:, : first + 2 * lag], 2, start)[0]
        np.testing.assert_array_equal(found[first : first + lag], full[first : first + lag])
    rest = decided(metrics, 2, start)[0, found.size :]
    np.testing.assert_array_equal(stream.finish(), rest)


def test_a_lag_as_long_as_the_stream_gives_the_most_likely_sequence():
    metrics = proakis_c(8.0, 300, np.float32)
    start = trellis.start_states("silence", 0, 2, 4)
    stream = viterbi.FixedLag(start, 2, 300)
    assert stream.push(metrics[0]).size == 0
    np.testing.assert_array_equal(stream.finish(), decided(metrics, 2, start)[0])


def test_path_metrics_stay_within_the_metrics_of_one_memory():
    # The survivors of any two states differ in `memory` branches only, at most.
    metrics = np.random.default_rng(6).uniform(0, 1, (5000, 16)).astype(np.float32)
    stream = viterbi.FixedLag(np.ones(8, bool), 2, 15)
    for i in range(0, 5000, 500):
        stream.push(metrics[i : i + 500])
        path = stream.state()["path"]
        assert path.min() == 0
        assert path.max() <= 3


@pytest.mark.parametrize("cut", [0, 1, 14, 15, 29, 30, 31, 77])
def test_a_restored_stream_goes_on_exactly(cut):
    metrics = np.random.default_rng(8).exponential(size=(120, 8)).astype(np.float32)
    first = viterbi.FixedLag(np.ones(4, bool), 2, 15)
    first.push(metrics[:cut])
    second = viterbi.FixedLag(np.ones(4, bool), 2, 15)
    second.restore(first.state())
    np.testing.assert_array_equal(second.push(metrics[cut:]), first.push(metrics[cut:]))
    np.testing.assert_array_equal(second.finish(), first.finish())


def test_a_state_is_a_copy():
    metrics = np.random.default_rng(9).exponential(size=(40, 8)).astype(np.float32)
    stream = viterbi.FixedLag(np.ones(4, bool), 2, 5)
    stream.push(metrics[:20])
    kept = stream.state()
    before = {name: np.array(value) for name, value in kept.items()}
    stream.push(metrics[20:])
    for name, value in kept.items():
        np.testing.assert_array_equal(value, before[name])


def test_branches_of_infinite_metric_are_not_taken():
    metrics = np.zeros((1, 20, 8))
    metrics[:, :, 1::2] = np.inf  # symbol 1 cannot be sent
    metrics[:, :, ::2] = 5.0
    np.testing.assert_array_equal(decided(metrics, 2, np.ones(4, bool)), np.zeros((1, 20)))


def test_words_in_pieces_decide_as_words_at_once():
    metrics = np.random.default_rng(10).exponential(size=(3, 50, 16))
    path, survivors = np.zeros((3, 8)), np.empty((3, 50, 8), np.uint8)
    for piece in (slice(0, 7), slice(7, 8), slice(8, 50)):
        viterbi.forward(
            np.ascontiguousarray(metrics[:, piece]), piece.start, 2, path, np.empty(8), survivors
        )
    symbols = np.empty((3, 50), np.uint8)
    viterbi.decide(survivors, path, 2, symbols)
    np.testing.assert_array_equal(symbols, decided(metrics, 2, np.ones(8, bool)))


def test_kernels_take_read_only_metrics():
    metrics = np.random.default_rng(12).exponential(size=(30, 8))
    expected = viterbi.FixedLag(np.ones(4, bool), 2, 5, np.float64).push(metrics.copy())
    metrics.flags.writeable = False
    found = viterbi.FixedLag(np.ones(4, bool), 2, 5, np.float64).push(metrics)
    np.testing.assert_array_equal(found, expected)
