"""A function node that is no network, so that detectors can be tested without one."""

from __future__ import annotations

import numpy as np
import pytest

from blocks.kernels.trellis import ALPHABETS
from blocks.nodes import node
from blocks.nodes.node import Node


class Stub(Node):
    """Metrics slope |sample - mean|, both per class; taken for a dense network."""

    kind = "dense"

    @classmethod
    def of(cls, hyper, arrays):
        return cls(hyper["modulation"], hyper["memory"], arrays)

    def metrics(self, samples, metrics):
        metrics[:] = self.arrays["slope"] * np.abs(samples[:, None] - self.arrays["mean"])


def stub(modulation: str, memory: int, seed: int) -> Stub:
    """A node of random numbers."""
    rng = np.random.default_rng(seed)
    count = ALPHABETS[modulation].size ** memory
    mean = rng.standard_normal(count)
    if modulation == "qpsk":
        mean = mean + 1j * rng.standard_normal(count)
    return Stub(modulation, memory, {"mean": mean, "slope": rng.uniform(0.2, 3.0, count)})


@pytest.fixture
def dense_stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of kind "dense" give a stub, for one test."""
    monkeypatch.setitem(node.KINDS, "dense", "stub_nodes:Stub")
