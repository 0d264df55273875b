"""Random bits, as continuous streams or as words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import UInt8

from blocks import fields, pilots
from blocks.source.independent import IndependentSource
from pipeline.block import FieldType, param
from pipeline.errors import ParameterError
from pipeline.frame import Array


class Bits(NamedTuple):
    """What a frame starts with."""

    bits: Annotated[UInt8[Array, "*word data"], fields.BITS]


class RandomBits(IndependentSource, name="source.random_bits"):
    """Independent, equally likely information bits.

    Bit n of a stream depends on the seed, the name of the block, the stream and n alone, so
    `length` and `words` change how a stream is cut and not its bits. Of words some may be pilots,
    with bits that the receiver knows (`decoder.reed_solomon` of the same parameters does).

    bits    (length,) uint8, 0 or 1; with words > 0 (words, length)
    """

    purpose = "bits"

    length: int = param(default=1000, at_least=1, unit="bits", doc="bits per frame or word")
    pilot_every: int = pilots.EVERY
    pilot_seed: int = pilots.SEED

    def check(self) -> None:
        if self.pilot_every and not self.words:
            raise ParameterError(
                f"pilot_every = {self.pilot_every} counts words, but words = 0 makes a continuous "
                "stream; set words, or pilot_every = 0"
            )

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        return {"bits": FieldType.of("uint8", "word data" if self.words else "data")}

    def start(self) -> None:
        super().start()
        self._pilots = pilots.Pilots(self.pilot_every, self.pilot_seed)

    def process(self) -> Bits | None:
        first = self._position // self.length
        bits = self._next()
        if bits is not None and self.words:
            self._pilots.put(bits, first)
        return None if bits is None else Bits(bits)

    def _draw(self, rng: np.random.Generator, count: int) -> Array:
        return rng.integers(2, size=count, dtype=np.uint8)

    def _format(self) -> str:
        return "bits"
