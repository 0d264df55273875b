"""Learned detectors: from samples to decisions, and what a receiver with one holds."""

from __future__ import annotations

import statistics
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from bench import workloads
from bench.sides import SYMBOLS, Bar, Ours, Peer, add_ratio, contest
from bench.test_memory import BAR_MB, resident_mb
from blocks.detector.learned_factor_graph import LearnedFactorGraph
from blocks.detector.least_squares import LeastSquares
from blocks.detector.viterbinet import ViterbiNet
from blocks.nodes.dense import Dense
from blocks.nodes.node import labels_of
from blocks.nodes.taps import Taps
from pipeline.flow import Flow
from pipeline.models import Models
from pipeline.roots import Limits
from pipeline.supervisor import Supervisor

MEMORY, LENGTH = 4, 136
RATE = 50.0  # Msym/s
PUBLISHED = 15e-3  # Msym/s, of the published code


@cache
def network() -> Dense:
    """ViterbiNet's layers after 3000 steps of Adam on 5000 symbols."""
    rng = np.random.default_rng(1)
    given = workloads.isi(MEMORY - 1, 1, 5000)
    labels = labels_of(given.sent[0], MEMORY, 2, before=0)
    fresh = Dense.fresh("bpsk", MEMORY, rng=rng)
    return fresh.descended(given.samples[0], labels, steps=3000, rate=5e-3, batch=50, rng=rng)


def deciding(cls, node, samples, **values):
    """A call that decides these words."""
    block = cls(memory=MEMORY, **values)
    block.start()
    block.take(node.weights("net"))
    return lambda: block.process(samples)[0].symbols


def published(given) -> Peer:
    arrays = {name: network().arrays[name] for k in range(3) for name in (f"weight{k}", f"bias{k}")}
    return Peer(
        "published ViterbiNet", "its layers and its recursion, rebuilt", "viterbinet.published",
        given.samples.size, {"samples": given.samples, **arrays},
    )  # fmt: skip


def errors(given, symbols) -> float:
    """Symbol error rate."""
    return given.error_rate(symbols)


@pytest.mark.parametrize(("words", "bar"), [(1, Bar(100, "")), (300, None)])
def test_viterbinet_beside_the_published_form(once, add, words, bar):
    given = workloads.isi(MEMORY - 1, words, LENGTH)
    mine = Ours(deciding(ViterbiNet, network(), given.samples), given.samples.size)
    peer = published(given)
    found = once(contest, [mine], [peer])
    how = f"symbol errors {errors(given, mine.result):.2e}"
    if not peer.absent:
        how += f", theirs {errors(given, given.alphabet[peer.result]):.2e}"
    add_ratio(add, f"ViterbiNet, words of {LENGTH}: {words}", mine, peer, found, SYMBOLS, bar, how)
    if words == 1 and not peer.absent:
        rate = 1e-6 / statistics.median(found[peer])
        add(
            "  the rebuilt form beside the published code", f"{1e3 * rate:.1f} ksym/s",
            f"{1e3 * PUBLISHED:.1f} ksym/s", f"{rate / PUBLISHED:.2f}", "0.5 ... 2",
            0.5 <= rate / PUBLISHED <= 2.0, "the published code: elsewhere, on a loaded machine",
        )  # fmt: skip


@pytest.mark.parametrize(("words", "length"), [(1000, LENGTH), (10_000, LENGTH), (1000, 2000)])
def test_viterbinet_on_many_words(once, add, words, length):
    given = workloads.isi(MEMORY - 1, words, length)
    mine = Ours(deciding(ViterbiNet, network(), given.samples), given.samples.size)
    found = once(contest, [mine], [])
    rate = 1e-6 / statistics.median(found[mine])
    table = network().table
    assert table is not None
    add(
        f"ViterbiNet, {words:,} words of {length:,}", f"{rate:.0f} Msym/s", f"{RATE:.0f} Msym/s",
        f"{rate / RATE:.2f}", f">= {RATE:.0f} Msym/s", rate >= RATE,
        f"a table of {len(table.values) - 2} cells; symbol errors "
        f"{errors(given, mine.result):.2e}",
    )  # fmt: skip


def test_the_others_on_many_words(once, add):
    given = workloads.isi(MEMORY - 1, 1000, LENGTH)
    channel = Taps("bpsk", MEMORY, {"taps": given.taps, "noise_var": np.array(given.noise_var)})
    for name, cls, node, values in (
        ("learned factor graph", LearnedFactorGraph, network(), {"states": False}),
        ("least squares, Viterbi", LeastSquares, channel, {}),
    ):
        mine = Ours(deciding(cls, node, given.samples, **values), given.samples.size)
        found = contest([mine], [])
        rate = 1e-6 / statistics.median(found[mine])
        how = f"symbol errors {errors(given, mine.result):.2e}"
        add(f"{name}, 1,000 words of {LENGTH}", f"{rate:.0f} Msym/s", how=how)
    once(lambda: None)


def test_a_receiver_holds_no_torch(once, add, tmp_path, monkeypatch):
    monkeypatch.setenv("KALVIT_MODELS", str(tmp_path / "models"))
    models = Models()
    models.promote(f"net@{models.add(network().weights('net')).version}")
    flow = Flow("viterbinet")
    flow.add("symbols", "source.random_symbols", length=LENGTH, words=100)
    flow.add("channel", "channel.isi", decay=0.5, normalise=True, before=-1)
    flow.add("detector", "detector.viterbinet", model="net")
    flow.add("errors", "sink.error_rate")
    flow.connect("symbols -> channel -> detector -> errors")
    supervisor = Supervisor(flow.check(), limits=Limits(seconds=2.0), runs=tmp_path)
    most = peak = 0.0

    def look(summary):
        nonlocal most, peak
        for pid in supervisor.processes.values():
            if summary["frames"] and Path(f"/proc/{pid}/status").exists():
                most = max(most, resident_mb(pid))
                peak = max(peak, resident_mb(pid, "VmHWM"))

    outcome = once(supervisor.run, look)
    assert outcome.code == 0
    found = outcome.summary["results"]["errors"]["symbol_error_rate"]
    add(
        "a flow with ViterbiNet in one worker: resident", f"{most:.0f} MB", f"{BAR_MB} MB",
        f"{most / BAR_MB:.2f}", f"<= {BAR_MB} MB", most <= BAR_MB,
        f"the most seen in 2 s; {peak:.0f} MB while it started; symbol errors {found:.2e}",
    )  # fmt: skip
