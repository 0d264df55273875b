"""What benches of receivers that learn share: words, networks, flows, a line to one that runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from blocks.nodes.dense import Dense
from blocks.nodes.node import labels_of
from blocks.training import offline
from pipeline import catalogue
from pipeline.control import pack, unpack
from pipeline.errors import RunError
from pipeline.flow import Flow
from pipeline.frame import Array
from pipeline.rundir import find
from pipeline.supervisor import Supervisor

BLOCKS = Path(__file__).with_name("bench_blocks.py")
TAPS = (1.0, 0.8187, 0.6703, 0.5488)  # exp(-0.2 l), as in the papers
OTHER_TAPS = (1.0, -0.6, 0.3, 0.1)  # of a channel that is not there
N, K = 17, 15  # bytes: words of 136 bits, of which 120 are information
WAIT_S = 60.0


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


class Line:
    """A line to a running flow, as `kalvit swap` has one, that stays open."""

    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.connect(endpoint)

    def ask(self, message: Mapping[str, Any], wait_s: float = WAIT_S) -> dict[str, Any]:
        """The answer; RunError where none comes."""
        self._socket.send(pack(message))
        if not self._socket.poll(int(1000 * wait_s)):
            raise RunError(f"no answer to {message['verb']} within {wait_s:g} s")
        return unpack(self._socket.recv())

    def close(self) -> None:
        """Hang up."""
        self._context.destroy(linger=0)


def line_to(boss: Supervisor, block: str) -> Line:
    """A line to a flow that starts in another thread, once this block has seen frames."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            line = Line(find(boss.run_id)[1])
        except (RunError, AttributeError):  # it has no id yet
            time.sleep(0.05)
            continue
        blocks = line.ask({"verb": "status"})["summary"]["blocks"]
        if blocks.get(block, {}).get("frames", 0) > 10:
            return line
        line.close()
        time.sleep(0.05)
    raise RunError(f"no frame came within {WAIT_S:g} s")


__all__ = [
    "BLOCKS", "OTHER_TAPS", "TAPS", "K", "Line", "N", "labelled", "line_to", "network", "receiver",
]  # fmt: skip
