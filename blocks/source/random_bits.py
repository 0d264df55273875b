"""Random bits, as continuous streams or as words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import UInt8

from blocks import fields
from blocks.source.independent import IndependentSource
from pipeline.block import FieldType, param
from pipeline.frame import Array


class Bits(NamedTuple):
    """What a frame starts with."""

    bits: Annotated[UInt8[Array, "*word data"], fields.BITS]


class RandomBits(IndependentSource, name="source.random_bits"):
    """Independent, equally likely information bits.

    Bit n of a stream depends on the seed, the name of the block, the stream and n alone, so
    `length` and `words` change how a stream is cut and not its bits.

    bits    (length,) uint8, 0 or 1; with words > 0 (words, length)
    """

    purpose = "bits"

    length: int = param(default=1000, at_least=1, unit="bits", doc="bits per frame or word")

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        return {"bits": FieldType.of("uint8", "word data" if self.words else "data")}

    def process(self) -> Bits | None:
        bits = self._next()
        return None if bits is None else Bits(bits)

    def _draw(self, rng: np.random.Generator, count: int) -> Array:
        return rng.integers(2, size=count, dtype=np.uint8)

    def _format(self) -> str:
        return "bits"
