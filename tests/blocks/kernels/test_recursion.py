"""What holds for all recursions over a trellis: Viterbi, sum-product, max-log."""

import numpy as np
import pytest
import references
from needs import compiled

from blocks.kernels import tiles, trellis
from blocks.kernels.max_log import MaxLog
from blocks.kernels.sum_product import SumProduct
from blocks.kernels.viterbi import Viterbi

KINDS = [Viterbi, SumProduct, MaxLog]
SIZES = [(2, 1), (2, 2), (2, 3), (4, 1), (4, 2)]  # order, memory


def given(width, dtype=np.float64):
    return trellis.Metrics.given(width, dtype)


def decide(recursion, metrics, end=None, **options):
    """Results for metrics (words, length, width) of words."""
    words, length = metrics.shape[:2]
    values = recursion.metrics.flat(metrics)
    return recursion.decide(values, words, length, length, at_start=True, end=end, **options)


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("order", "memory", "lanes"),
    [*((*size, False) for size in SIZES), (2, 1, True), (2, 3, True), (4, 2, True)],
)
@pytest.mark.parametrize("per", ["branch", "state"])
@pytest.mark.parametrize("start", ["known", "unknown"])
@pytest.mark.parametrize("end", ["known", "unknown"])
def test_results_match_the_enumeration_of_all_words(order, memory, per, start, end, lanes):
    n_states, length = order**memory, 6 if order == 2 else 4
    width = n_states * order if per == "branch" else n_states
    metrics = np.random.default_rng([order, memory]).exponential(4.0, (2, length, width))
    starts = trellis.start_states(start, 1, order, memory)
    ends = trellis.states_ending(1, memory if end == "known" else 0, order, memory)

    (symbols,) = decide(Viterbi(given(width), order, starts, lanes=lanes), metrics, ends)
    marginal, posterior = decide(
        SumProduct(given(width), order, starts, lanes=lanes), metrics, ends
    )
    costs, shares = decide(MaxLog(given(width), order, starts, lanes=lanes), metrics, ends)

    for word in range(2):
        every = references.EveryWord(metrics[word], order, starts, ends)
        np.testing.assert_array_equal(symbols[word], every.best)
        np.testing.assert_allclose(posterior[word], every.posterior, rtol=0, atol=1e-7)
        newest = every.posterior.reshape(length, -1, order).sum(axis=1)
        np.testing.assert_allclose(marginal[word], newest, rtol=0, atol=1e-12)
        least = every.costs - every.costs.min(axis=1, keepdims=True)
        newest = least.reshape(length, -1, order).min(axis=1)
        np.testing.assert_allclose(costs[word], newest, rtol=0, atol=1e-12)
        likely = np.exp(-least) / np.exp(-least).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(shares[word], likely, rtol=0, atol=1e-7)


@pytest.mark.parametrize("lanes", [False, True])
def test_single_precision_posteriors_match_enumeration(lanes):
    metrics = np.random.default_rng(1).exponential(4.0, (3, 8, 16))
    start = trellis.start_states("known", 1, 2, 3)
    marginal, posterior = decide(SumProduct(given(16, np.float32), 2, start, lanes=lanes), metrics)
    assert marginal.dtype == np.float32
    for word in range(3):
        every = references.EveryWord(metrics[word], 2, start, np.ones(8, bool))
        np.testing.assert_allclose(posterior[word], every.posterior, rtol=0, atol=2e-6)


def channel(order, memory, is_complex, dtype, *, silence=True, noise_var=0.2):
    alphabet = trellis.ALPHABETS["bpsk" if order == 2 else "qpsk"]
    taps = np.exp(-0.3 * np.arange(memory + 1)) * (np.exp(0.7j) if is_complex else 1.0)
    return trellis.Metrics.of_channel(
        taps, alphabet, is_complex=is_complex, silence=silence, noise_var=noise_var, dtype=dtype
    )


def samples_of(metrics, shape, rng):
    values = rng.standard_normal((*shape, metrics.values)) * 2.0
    return values[..., 0] + 1j * values[..., 1] if metrics.parts == 2 else values[..., 0]


@compiled
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("order", "memory", "is_complex", "dtype"),
    [
        *((2, memory, False, np.float32) for memory in range(1, 9)),
        *((4, memory, True, np.float32) for memory in range(1, 5)),
        (2, 3, True, np.float32),
        (2, 3, False, np.float64),
    ],
)
def test_both_forms_give_the_same_numbers(kind, order, memory, is_complex, dtype):
    rng = np.random.default_rng([order, memory])
    metrics = channel(order, memory, is_complex, dtype)
    start = trellis.start_states("silence", 0, order, memory)
    end = trellis.states_ending(1, memory, order, memory)
    side_by_side = kind(metrics, order, start)
    one_by_one = kind(metrics, order, start, lanes=False)
    for words, length in ((1, 1), (3, 40), (tiles.WIDTH + 1, 35)):
        samples = samples_of(metrics, (words, length), rng)
        for at_end in (None, end if length > memory else None):
            found = decide(side_by_side, samples, at_end)
            assert_equal(found, decide(one_by_one, samples, at_end))


@compiled
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [8, 16])
def test_both_forms_agree_on_metrics_that_are_handed_in(kind, width):
    metrics = np.random.default_rng(2).exponential(4.0, (20, 70, width)).astype(np.float32)
    metrics[:, ::7, 3] = np.inf
    start = np.ones(8, bool)
    found = decide(kind(given(width, np.float32), 2, start), metrics)
    assert_equal(found, decide(kind(given(width, np.float32), 2, start, lanes=False), metrics))


@pytest.mark.parametrize("lanes", [False, True])
def test_a_sample_that_rules_out_every_branch_tells_nothing(lanes):
    metrics = np.random.default_rng(11).exponential(2.0, (3, 20, 8))
    metrics[:, 5], metrics[1, 9] = 0.0, 0.0
    recursion = SumProduct(given(8), 2, np.ones(4, bool), lanes=lanes)
    expected = decide(recursion, metrics)
    metrics[:, 5], metrics[1, 9] = np.inf, np.nan
    for one, other in zip(decide(recursion, metrics), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_of_samples_give_what_metrics_handed_in_give(kind):
    metrics = channel(2, 3, False, np.float64)
    samples = np.random.default_rng(3).standard_normal((3, 25))
    start = trellis.start_states("silence", 0, 2, 3)
    rows = [metrics(row, 0, 25, 0, np.empty(25 * 16)) for row in samples]
    found = decide(kind(metrics, 2, start), samples)
    assert_equal(found, decide(kind(given(16), 2, start), np.stack(rows)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_added_to_the_metrics_of_a_sample_changes_nothing(kind):
    rng = np.random.default_rng(4)
    metrics = rng.exponential(4.0, (2, 100, 16))
    added = metrics + rng.uniform(-1e3, 1e3, (2, 100, 1))
    recursion = kind(given(16), 2, np.ones(8, bool))
    plain = [np.array(one) for one in decide(recursion, metrics)]
    for one, other in zip(decide(recursion, added), plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lanes", [False, True])
def test_any_part_of_a_sequence_can_be_asked_for(kind, lanes):
    metrics = np.random.default_rng(5).exponential(4.0, (2, 60, 8))
    recursion = kind(given(8), 2, np.ones(4, bool), lanes=lanes)
    whole = [np.array(one) for one in decide(recursion, metrics)]
    for first, keep in ((0, 60), (0, 10), (17, 30), (59, 1), (60, 0)):
        some = decide(recursion, metrics, first=first, keep=keep)
        assert_equal(some, [one[:, first : first + keep] for one in whole])


@pytest.mark.parametrize("kind", KINDS)
def test_long_sequences_are_cut_into_chunks_that_do_not_show(kind, monkeypatch):
    metrics = np.random.default_rng(6).exponential(4.0, (1, 50, 16))
    recursion = kind(given(16), 2, np.ones(8, bool), lanes=False)
    whole = [np.array(one) for one in decide(recursion, metrics)]
    for chunk in (1, 7, 49):
        recursion.metrics.chunk = chunk
        assert_equal(decide(recursion, metrics), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_too_long_for_a_tile_go_one_by_one(kind, monkeypatch):
    metrics = np.random.default_rng(7).exponential(4.0, (2, 30, 8))
    expected = decide(kind(given(8), 2, np.ones(4, bool), lanes=False), metrics)
    monkeypatch.setattr("blocks.kernels.recursion._MOST", 100)
    recursion = kind(given(8), 2, np.ones(4, bool))
    monkeypatch.setattr(recursion, "_side_by_side", None)
    assert_equal(decide(recursion, metrics), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_no_words_and_empty_words_have_empty_results(kind):
    recursion = kind(given(8), 2, np.ones(4, bool))
    for words, length in ((0, 5), (3, 0), (0, 0)):
        for one in decide(recursion, np.empty((words, length, 8))):
            assert one.shape[:2] == (words, length)


@pytest.mark.parametrize("kind", KINDS)
def test_read_only_input_is_taken_and_left_as_it_is(kind):
    metrics = np.random.default_rng(8).exponential(size=(2, 30, 8))
    before = metrics.copy()
    metrics.flags.writeable = False
    decide(kind(given(8), 2, np.ones(4, bool)), metrics)
    np.testing.assert_array_equal(metrics, before)


# --- Streams ----------------------------------------------------------------------------------


def pushed(stream, values, per_step, cut, rng):
    steps = values.size // per_step
    edges = rng.integers(0, steps, 30) if cut == "ragged" else np.arange(cut, steps, cut)
    pieces = np.split(values, np.unique(edges) * per_step)
    found = [*(stream.push(piece) for piece in pieces), stream.finish()]
    return [np.concatenate(one) for one in zip(*found, strict=True)]


@compiled
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("window", "lag"), [(1, 1), (1, 5), (16, 15), (64, 20), (50, 400)])
def test_a_stream_does_not_depend_on_the_cut_nor_on_the_form(kind, window, lag):
    metrics = channel(2, 3, False, np.float32)
    start = trellis.start_states("silence", 0, 2, 3)
    values = np.random.default_rng(9).standard_normal(1000).astype(np.float32)
    rng = np.random.default_rng(10)
    expected = pushed(kind(metrics, 2, start).stream(window, lag), values, 1, 1000, rng)
    assert len(expected[0]) == 1000
    for cut in (1, 7, 333, "ragged"):
        for lanes in (True, False):
            stream = kind(metrics, 2, start, lanes=lanes).stream(window, lag)
            assert_equal(pushed(stream, values, 1, cut, rng), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("window", "lag"), [(4, 10), (10, 10), (20, 4)])
def test_a_window_is_decided_from_lag_steps_before_it_to_lag_steps_past_it(kind, window, lag):
    metrics = channel(2, 2, False, np.float64)
    start = trellis.start_states("silence", 0, 2, 2)
    values = np.random.default_rng(11).standard_normal(70)
    recursion = kind(metrics, 2, start, lanes=False)
    stream = kind(metrics, 2, start).stream(window, lag)
    found = stream.push(values)
    assert len(found[0]) == (70 - lag) // window * window
    for at in range(0, len(found[0]), window):
        first, last = max(0, at - lag), at + window + lag
        own = recursion.decide(
            values[first:], 1, 0, last - first,
            at_start=first == 0, first=at - first, keep=window,
        )  # fmt: skip
        assert_equal([one[at : at + window] for one in found], [one[0] for one in own])
    first, rest = max(0, len(found[0]) - lag), len(found[0])
    own = recursion.decide(
        values[first:], 1, 0, 70 - first, at_start=False, first=rest - first, keep=70 - rest
    )
    assert_equal(stream.finish(), [one[0] for one in own])


@pytest.mark.parametrize("kind", KINDS)
def test_a_lag_as_long_as_the_stream_gives_what_a_word_gives(kind):
    metrics = channel(2, 2, False, np.float64)
    recursion = kind(metrics, 2, trellis.start_states("silence", 0, 2, 2))
    values = np.random.default_rng(12).standard_normal(80)
    word = [np.array(one[0]) for one in decide(recursion, values[None])]
    assert_equal(pushed(recursion.stream(16, 80), values, 1, 11, None), word)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", [0, 1, 14, 35, 36, 77])
def test_a_restored_stream_goes_on_exactly(kind, cut):
    metrics = np.random.default_rng(13).exponential(4.0, (120, 8)).ravel()
    recursion = kind(given(8), 2, np.ones(4, bool))
    first, second = recursion.stream(20, 15), recursion.stream(20, 15)
    first.push(metrics[: 8 * cut])
    second.restore(first.state())
    assert_equal(second.push(metrics[8 * cut :]), first.push(metrics[8 * cut :]))
    assert_equal(second.finish(), first.finish())


def test_a_state_is_a_copy_and_a_stream_keeps_no_more_than_it_needs():
    stream = Viterbi(given(8), 2, np.ones(4, bool)).stream(20, 15)
    rng = np.random.default_rng(14)
    for _ in range(40):
        kept = stream.state()
        before = kept["values"].copy()
        stream.push(rng.exponential(size=8 * 7))
        np.testing.assert_array_equal(kept["values"], before)
        assert kept["values"].size <= 8 * (20 + 2 * 15 + 7)
