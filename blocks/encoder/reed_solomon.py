"""Reed-Solomon encoder: words of bits in, code words out."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import UInt8

from blocks import fields
from blocks.kernels import reed_solomon
from blocks.reed_solomon import ReedSolomonBlock
from pipeline.frame import Array


class Coded(NamedTuple):
    """What the encoder adds."""

    coded: Annotated[UInt8[Array, "word code"], fields.CODED]


class ReedSolomon(ReedSolomonBlock, name="encoder.reed_solomon"):
    """A code word of n bytes for each word of k bytes: the word itself, then n - k bytes of parity.

    The first bit is the most significant one of the first byte, which is the coefficient of the
    highest power.

    bits   (word, data) uint8, 0 or 1; 8 k bits per word
    coded  (word, code) uint8, 0 or 1; 8 n bits per word
    """

    def start(self) -> None:
        self._codec = reed_solomon.Codec(*self._numbers())
        self._codec.encode(np.empty((0, self.k), np.uint8))  # compiled before the first frame

    def process(self, bits: UInt8[Array, "word data"]) -> Coded:
        words = self._codec.encode(self._bytes("bits", bits, self.k))
        return Coded(coded=np.unpackbits(words, axis=1))
