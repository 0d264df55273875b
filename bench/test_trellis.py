"""Viterbi and sum-product detectors beside other trellis and HMM libraries, on one core."""

from __future__ import annotations

import numpy as np
import pytest

from bench import limit, ours, workloads
from bench.sides import SYMBOLS, Bar, Ours, Peer, add_limit, add_ratio, contest, gnu_radio
from blocks.detector.viterbi import Viterbi

WORDS, LENGTH = 64, 1000
STREAM = 100_000
SOME = 8  # of these words, for peers that take longer

# Vector operations for one state and one symbol:
VITERBI = 7  # 2 multiply-adds (metrics), 2 additions, minimum, comparison, masked OR
MAX_LOG = 12  # forward, backward: the same without the decision; an addition and a minimum
QPSK = 20  # 4 branches of 2 multiply-adds and an addition; 3 minima, 3 comparisons, 2 masked ORs
EXACT = 28  # 2 exp of 11; a product and a multiply-add each forward, backward, and at the end


def errors(given, mine, peer) -> str:
    """Symbol error rates on the same words, as text; raises where they are no detector's."""
    assert 1e-3 < given.error_rate(mine.result) < 0.01
    if peer.absent:
        return ""
    theirs = given.error_rate(given.alphabet[peer.result.astype(int)])
    rate = given.error_rate(mine.result[: len(peer.result)])
    assert abs(theirs - rate) < 0.1 * rate, f"{peer.name}: {theirs} symbol errors, ours {rate}"
    return f"symbol errors {rate:.2e}, theirs {theirs:.2e}"


def ports(states: int, operations: int) -> tuple[float, str]:
    """Least seconds for a symbol, and how they come about."""
    how = f"{operations} vector operations per state at the rate of multiply-adds"
    return states * operations * limit.per_number(32), how


def compete(once, add, given, what, mine, peers, bar):
    """Ours beside peers; the first peer has the bar."""
    found = once(contest, [mine], peers)
    for k, peer in enumerate(peers):
        title = f"  beside {peer.name}" if k else what
        how = errors(given, mine, peer)
        add_ratio(add, title, mine, peer, found, SYMBOLS, None if k else bar, how)
    return found


@pytest.mark.parametrize(
    ("memory", "bar"),
    [(4, Bar(25, "60")), (6, Bar(20, "45")), (8, Bar(12, "25"))],
    ids=["16 states", "64 states", "256 states"],
)
def test_most_likely_words(once, add, memory, bar):
    given = workloads.isi(memory, WORDS, LENGTH)
    peers = [gnu_radio("viterbi_combined_fb", "viterbi", given.samples.size, given.for_peer())]
    if memory == 4:
        some = given.for_peer(SOME)
        size = SOME * LENGTH
        peers += [
            Peer("hmmlearn", "32 states", "markov.hmmlearn_viterbi", size, some),
            Peer("dynamax", "jit, 32 states", "markov.dynamax_viterbi", size, some),
        ]
    mine = Ours(ours.viterbi(given), given.samples.size)
    what = f"MLSE, {2**memory} states, {WORDS} words of {LENGTH}"
    found = compete(once, add, given, what, mine, peers, bar)
    add_limit(add, mine, found, SYMBOLS, *ports(2**memory, VITERBI), "reach 0.85" * (memory == 4))


def test_most_likely_sequence_of_one_stream(once, add):
    given = workloads.isi(4, 1, STREAM)
    mine = Ours(ours.viterbi_stream(given), STREAM)
    peers = [gnu_radio("viterbi_combined_fb", "viterbi", STREAM, given.for_peer())]
    found = compete(
        once, add, given, f"MLSE, 16 states, one stream of {STREAM:,}", mine, peers, Bar(12, "25")
    )
    add_limit(add, mine, found, SYMBOLS, *ports(16, VITERBI))


def test_most_likely_words_of_qpsk(once, add):
    given = workloads.isi(2, WORDS, LENGTH, "qpsk")
    mine = Ours(ours.viterbi(given), given.samples.size)
    peers = [gnu_radio("viterbi_combined_cb", "viterbi", given.samples.size, given.for_peer())]
    what = f"MLSE, QPSK, memory 2, {WORDS} words of {LENGTH}"
    found = compete(once, add, given, what, mine, peers, Bar(12, "30"))
    add_limit(add, mine, found, SYMBOLS, *ports(16, QPSK))


@pytest.mark.parametrize(
    ("mode", "bar", "operations"),
    [("max_log", Bar(25, "65"), MAX_LOG), ("exact", Bar(50, "110"), EXACT)],
    ids=["max-log", "exact"],
)
def test_sum_product(once, add, mode, bar, operations):
    given = workloads.isi(4, WORDS, LENGTH)
    exact, size = mode == "exact", SOME * LENGTH
    some = given.for_peer(SOME)
    form = f"siso_combined_f, {'sum-product' if exact else 'min-sum'}"
    peers = [gnu_radio(form, "sum_product", size, {**some, "exact": exact})]
    if exact:
        peers += [
            Peer("hmmlearn", "scaling, 32 states", "markov.hmmlearn_sum_product", size, some),
            Peer("dynamax", "smoother, jit, 32 states", "markov.dynamax_sum_product", size, some),
        ]
    mine = Ours(ours.sum_product(given, mode), given.samples.size)
    what = f"sum-product, {mode.replace('_', '-')}, 16 states, {WORDS} words of {LENGTH}"
    found = compete(once, add, given, what, mine, peers, bar)
    add_limit(add, mine, found, SYMBOLS, *ports(16, operations))


def test_lag_and_memory(once, add):
    """Proakis C at 12 dB, where survivors merge late: a stream beside the full traceback."""
    taps, symbols = (0.227, 0.460, 0.688, 0.460, 0.227), 1_000_000
    rng = np.random.default_rng(3)
    sent = rng.choice(np.array([-1, 1], np.int8), symbols)
    noise = rng.standard_normal(symbols) * 10.0 ** (-12 / 20)
    samples = (np.convolve(sent, taps)[:symbols] + noise).astype(np.float32)

    def measure():
        block = Viterbi(taps=taps)
        block.start()
        (full,) = block.process(samples[None])
        found, kept = [], []
        for part in np.split(samples, 1000):
            found += [decided.symbols for decided in block.process(part)]
            kept.append(sum(np.asarray(value).nbytes for value in block.state().values()))
        found += [decided.symbols for decided in block.finish()]
        return full.symbols[0], np.concatenate(found), kept

    full, found, kept = once(measure)
    exact, lagged = (full != sent).mean(), (found != sent).mean()
    apart = (found != full).mean()
    add(
        "fixed lag of 5 memories, Proakis C, 12 dB: symbol errors", f"{lagged:.5f}",
        f"{exact:.5f}", f"{lagged / exact:.4f}", "<= 1.01", lagged <= 1.01 * exact,
        f"second figure: full traceback; {apart:.1e} of {symbols:,} decisions differ",
    )  # fmt: skip
    most, early = max(kept[500:]), max(kept[:500])
    add(
        "  what the stream keeps, second half to first", f"{most:,} B", f"{early:,} B",
        f"{most / early:.2f}", "no growth", most <= early, "the greatest state() of 1000 frames",
    )  # fmt: skip
