"""Random symbols of a constellation, as continuous streams or as words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

import numpy as np
from jaxtyping import Complex64, Int8

from blocks import fields
from blocks.source.independent import IndependentSource
from pipeline.block import FieldType, param
from pipeline.frame import Array

ALPHABETS: dict[str, Array] = {
    "bpsk": np.array([1, -1], np.int8),
    "ook": np.array([0, 1], np.int8),
    "qpsk": (np.array([1 + 1j, -1 + 1j, 1 - 1j, -1 - 1j]) / np.sqrt(2)).astype(np.complex64),
}


class Sent(NamedTuple):
    """What a frame starts with."""

    sent: Annotated[Int8[Array, "*word time"] | Complex64[Array, "*word time"], fields.SENT]


class RandomSymbols(IndependentSource, name="source.random_symbols"):
    """Independent, equally likely symbols.

    Symbol n of a stream depends on the seed, the name of the block, the stream and n alone, so
    `length` and `words` change how a stream is cut and not what is sent.

    sent    (length,) int8, or complex64 for QPSK; with words > 0 (words, length)
    """

    purpose = "symbols"

    modulation: Literal["bpsk", "ook", "qpsk"] = param(
        default="bpsk", doc="alphabet: +1, -1; 0, 1; or (+-1 +-1j) / sqrt(2)"
    )
    length: int = param(default=1000, at_least=1, unit="symbols", doc="symbols per frame or word")

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        dtype = ALPHABETS[self.modulation].dtype.name
        return {"sent": FieldType.of(dtype, "word time" if self.words else "time")}

    def process(self) -> Sent | None:
        sent = self._next()
        return None if sent is None else Sent(sent)

    def _draw(self, rng: np.random.Generator, count: int) -> Array:
        alphabet = ALPHABETS[self.modulation]
        return alphabet[rng.integers(alphabet.size, size=count)]

    def _format(self) -> str:
        return self.modulation
