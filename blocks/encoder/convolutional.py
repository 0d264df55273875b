"""Convolutional encoder: bits in, more bits out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from blocks import fields
from blocks.shift_register import ShiftRegisterBlock
from pipeline.frame import Array, Scalar


class Coded(NamedTuple):
    """What the encoder adds."""

    coded: Annotated[UInt8[Array, "*word code"], fields.CODED]


class Convolutional(ShiftRegisterBlock, name="encoder.convolutional"):
    """The code bits of a shift-register code, those of one bit next to each other.

    A stream is one endless code word: the register starts empty and goes on from frame to frame.
    Words start and end as `ending` says, each on its own: terminated words of L bits have
    outputs (L + memory) code bits, others outputs L.

    bits   (data) or (word, data)  uint8, 0 or 1
    coded  (code) or (word, code)  uint8, 0 or 1
    """

    def start(self) -> None:
        self._shifted = self._code()
        self._register = np.zeros(self._shifted.memory, np.uint8)  # the oldest bit first

    def process(self, bits: UInt8[Array, "*word data"]) -> Coded:
        code = self._shifted
        if bits.ndim == 1:
            coded = code.encode(bits, self._register)
            seen = np.concatenate([self._register, bits])
            self._register = seen[seen.size - code.memory :].copy()
            return Coded(coded=coded)
        empty = np.zeros((len(bits), code.memory), np.uint8)
        if self.ending == "terminated":
            return Coded(coded=code.encode(np.concatenate([bits, empty], axis=1), empty))
        if self.ending == "tail_biting":
            return Coded(coded=code.encode_rings(bits))
        return Coded(coded=code.encode(bits, empty))

    def state(self) -> Mapping[str, Array | Scalar]:
        return {"register": self._register.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._register = np.array(state["register"])
