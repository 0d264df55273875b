"""Random bits, as continuous streams or as words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from blocks import fields
from pipeline.block import FieldType, Source, param
from pipeline.frame import Array, Scalar, StreamInfo


class Bits(NamedTuple):
    """What a frame starts with."""

    bits: Annotated[UInt8[Array, "*word data"], fields.BITS]


class RandomBits(Source, name="source.random_bits"):
    """Independent, equally likely information bits.

    Bit n of a stream depends on the seed, the name of the block, the stream and n alone, so
    `length` and `words` change how a stream is cut and not its bits.

    bits    (length,) uint8, 0 or 1; with words > 0 (words, length)
    """

    frames: int = param(
        default=1000, at_least=0, unit="frames", doc="frames of each stream; 0: endless"
    )
    length: int = param(default=1000, at_least=1, unit="bits", doc="bits per frame or word")
    words: int = param(
        default=0, at_least=0, unit="words", doc="words per frame; 0: one continuous stream"
    )
    count: int = param(
        default=1, at_least=1, unit="streams", doc="streams; more than one are named 0, 1, 2 ..."
    )

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        return {"bits": FieldType.of("uint8", "word data" if self.words else "data")}

    def streams(self) -> tuple[str, ...]:
        return tuple(str(n) for n in range(self.count)) if self.count > 1 else ("main",)

    def describe(self) -> StreamInfo:
        return StreamInfo(format="bits", continuous=self.words == 0, replayable=True)

    def start(self) -> None:
        self._bits = self.draws("bits", lambda rng, n: rng.integers(2, size=n, dtype=np.uint8))
        self._position = 0  # bits given

    def process(self) -> Bits | None:
        if self.frames_left() == 0:
            return None
        shape = (self.words, self.length) if self.words else (self.length,)
        bits = self._bits.take(self._position, self._per_frame)
        self._position += self._per_frame
        return Bits(bits=bits.reshape(shape))

    def frames_left(self) -> int | None:
        if self.frames == 0:
            return None
        return max(0, self.frames - self._position // self._per_frame)

    def state(self) -> Mapping[str, Array | Scalar]:
        return {"position": self._position}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._position = int(state["position"])

    @property
    def _per_frame(self) -> int:
        return self.length * max(self.words, 1)
