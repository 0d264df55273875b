"""Hard bits: decided symbols as the bits that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Complex64, Int8, UInt8

from blocks import fields
from pipeline.block import Block, FieldType
from pipeline.frame import Array


class Demapped(NamedTuple):
    """What this block adds."""

    hard: Annotated[UInt8[Array, "*word code"], fields.HARD]


class HardBits(Block, name="frontend.hard_bits"):
    """What encoder.modulator was given, where the symbols were decided rightly.

    symbols  (time) or (word, time)  int8, or complex64 for QPSK, whose two bits are the signs of
             its real and its imaginary part
    hard     (code) or (word, code)  uint8, 1 for a positive symbol or part, else 0
    """

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        dims = "word code" if "word" in reads["symbols"].dims else "code"
        return {"hard": FieldType.of("uint8", dims)}

    def process(
        self, symbols: Int8[Array, "*word time"] | Complex64[Array, "*word time"]
    ) -> Demapped:
        parts = symbols.view(np.float32) if symbols.dtype.kind == "c" else symbols
        return Demapped(hard=(parts > 0).astype(np.uint8))
