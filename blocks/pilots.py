"""Pilots: words whose information bits the receiver knows beforehand."""

from __future__ import annotations

import numpy as np

from pipeline.block import param
from pipeline.draws import RandomStream
from pipeline.frame import Array

EVERY = param(
    default=0, at_least=0, unit="words",
    doc="words 0, n, 2 n ... of a stream are pilots, whose bits the receiver knows; 0: none are",
)  # fmt: skip
SEED = param(default=0, at_least=0, doc="of the bits of pilots; give source and decoder the same")


class Pilots:
    """The pilots among the words of a stream, counted from its start.

    Their bits depend on the seed and the number of the word alone, and are the same on all
    streams, whatever the seed of the flow.
    """

    def __init__(self, every: int, seed: int) -> None:
        self.every = every
        self._bits = RandomStream(
            lambda rng, count: rng.integers(2, size=count, dtype=np.uint8), "pilots", seed
        )

    def put(self, bits: Array, first: int) -> Array:
        """Write the known bits over those of pilots; return which words these are, (word,) bool.

        bits   (word, data)  uint8, written
        first  number of the first of these words in the stream
        """
        if not self.every:
            return np.zeros(len(bits), np.bool_)
        numbers = np.arange(first, first + len(bits))
        pilot: Array = numbers % self.every == 0
        length = bits.shape[1]
        for row in np.flatnonzero(pilot):
            bits[row] = self._bits.take(int(numbers[row]) * length, length)
        return pilot
