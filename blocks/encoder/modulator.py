"""Modulator: bits in, symbols of a constellation out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Complex64, Int8, UInt8

from blocks import fields
from blocks.kernels.trellis import ALPHABETS
from pipeline.block import Block, FieldType, param
from pipeline.errors import FieldError
from pipeline.frame import Array, Scalar


class Sent(NamedTuple):
    """What the modulator adds."""

    sent: Annotated[Int8[Array, "*word time"] | Complex64[Array, "*word time"], fields.SENT]


class Modulator(Block, name="encoder.modulator"):
    """Symbols of BPSK (bit 1 is +1), OOK (bit 1 is 1), or QPSK with Gray labels.

    Of the two bits of a QPSK symbol the first is the sign of its real part, the second that of its
    imaginary part, 1 for plus. Where a frame of a stream ends within a symbol, the symbol belongs
    to the frame in which it is complete. Words hold whole symbols.

    coded  (code) or (word, code)  uint8, 0 or 1
    sent   (time) or (word, time)  int8, or complex64 for QPSK
    """

    modulation: Literal["bpsk", "ook", "qpsk"] = param(
        default="bpsk", doc="alphabet: -1, +1; 0, 1; or (+-1 +-1j) / sqrt(2)"
    )

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        dims = "word time" if "word" in reads["coded"].dims else "time"
        return {"sent": FieldType.of(ALPHABETS[self.modulation].dtype.name, dims)}

    def start(self) -> None:
        self._rest = np.empty(0, np.uint8)  # bits of a symbol that is not complete

    def process(self, coded: UInt8[Array, "*word code"]) -> Sent:
        alphabet = ALPHABETS[self.modulation]
        per_symbol = alphabet.size.bit_length() - 1
        if per_symbol == 1:
            return Sent(sent=alphabet[coded])
        if coded.ndim == 1:
            bits = np.concatenate([self._rest, coded])
            whole = bits.size - bits.size % per_symbol
            coded, self._rest = bits[:whole], bits[whole:].copy()
        elif coded.shape[1] % per_symbol:
            raise FieldError(
                f"{self.name}: 'coded' has {coded.shape[1]} bits per word, but a symbol of "
                f"{self.modulation} takes {per_symbol}; choose words of another length"
            )
        pairs = coded.reshape(*coded.shape[:-1], coded.shape[-1] // per_symbol, per_symbol)
        return Sent(sent=alphabet[pairs @ (1 << np.arange(per_symbol))])

    def state(self) -> Mapping[str, Array | Scalar]:
        return {"rest": self._rest.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._rest = np.array(state["rest"])
