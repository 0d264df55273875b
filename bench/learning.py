"""What the benches of receivers that learn share: words, networks for them, and flows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from blocks.nodes.dense import Dense
from blocks.nodes.node import labels_of
from blocks.training import offline
from pipeline import catalogue
from pipeline.flow import Flow
from pipeline.frame import Array

BLOCKS = Path(__file__).with_name("bench_blocks.py")
TAPS = (1.0, 0.8187, 0.6703, 0.5488)  # exp(-0.2 l), as in the papers
OTHER_TAPS = (1.0, -0.6, 0.3, 0.1)  # of a channel that is not there
N, K = 17, 15  # bytes: words of 136 bits, of which 120 are information


def labelled(taps: tuple[float, ...], symbols: int, seed: int) -> tuple[Array, Array]:
    """BPSK samples over a channel, 10 dB, and the class of each; (time,) float32 and int64."""
    rng = np.random.default_rng(seed)
    indices = rng.integers(0, 2, symbols)
    sent = np.concatenate([-np.ones(len(taps) - 1), 2.0 * indices - 1.0])
    samples = np.convolve(sent, taps)[len(taps) - 1 :][:symbols]
    samples = samples + 10.0**-0.5 * rng.standard_normal(symbols)
    return samples.astype(np.float32), labels_of(indices, len(taps), 2, before=0)


def network(taps: tuple[float, ...], seed: int = 0) -> Dense:
    """ViterbiNet's network, trained on 5000 symbols."""
    rng = np.random.default_rng(seed)
    fresh = Dense.fresh("bpsk", len(taps), rng=rng)
    node, _ = offline.fit(fresh, *labelled(taps, 5000, seed), rng)
    return node


def receiver(name: str, model: str, *, frames: int, rate: float) -> Flow:
    """Words over a fading channel, decided by ViterbiNet: bits ... channel -> detector"""
    catalogue.load_file(BLOCKS)
    flow = Flow(name, seed=1)
    flow.add("bits", "source.random_bits", length=8 * K, words=1, frames=frames, rate=rate)
    flow.add("code", "encoder.reed_solomon", n=N, k=K)
    flow.add("modulator", "encoder.modulator")
    flow.add("channel", "channel.isi", taps=TAPS, before=-1, snr_db=10.0)
    flow.add("detector", "detector.viterbinet", model=model)
    flow.connect("bits -> code -> modulator -> channel -> detector")
    return flow


__all__ = ["BLOCKS", "OTHER_TAPS", "TAPS", "K", "N", "labelled", "network", "receiver"]
