"""Random symbols of a constellation, as continuous streams or as words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Complex64, Int8

from blocks import fields
from pipeline.block import FieldType, Source, param
from pipeline.frame import Array, Scalar, StreamInfo

ALPHABETS: dict[str, Array] = {
    "bpsk": np.array([1, -1], np.int8),
    "ook": np.array([0, 1], np.int8),
    "qpsk": (np.array([1 + 1j, -1 + 1j, 1 - 1j, -1 - 1j]) / np.sqrt(2)).astype(np.complex64),
}


class Sent(NamedTuple):
    """What a frame starts with."""

    sent: Annotated[Int8[Array, "*word time"] | Complex64[Array, "*word time"], fields.SENT]


class RandomSymbols(Source, name="source.random_symbols"):
    """Independent, equally likely symbols.

    Symbol n of a stream depends on the seed, the name of the block, the stream and n alone, so
    `length` and `words` change how a stream is cut and not what is sent.

    sent    (length,) int8, or complex64 for QPSK; with words > 0 (words, length)
    """

    modulation: Literal["bpsk", "ook", "qpsk"] = param(
        default="bpsk", doc="alphabet: +1, -1; 0, 1; or (+-1 +-1j) / sqrt(2)"
    )
    frames: int = param(
        default=1000, at_least=0, unit="frames", doc="frames of each stream; 0: endless"
    )
    length: int = param(default=1000, at_least=1, unit="symbols", doc="symbols per frame or word")
    words: int = param(
        default=0, at_least=0, unit="words", doc="words per frame; 0: one continuous stream"
    )
    count: int = param(
        default=1, at_least=1, unit="streams", doc="streams; more than one are named 0, 1, 2 ..."
    )

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        dtype = ALPHABETS[self.modulation].dtype.name
        return {"sent": FieldType.of(dtype, "word time" if self.words else "time")}

    def streams(self) -> tuple[str, ...]:
        return tuple(str(n) for n in range(self.count)) if self.count > 1 else ("main",)

    def describe(self) -> StreamInfo:
        return StreamInfo(format=self.modulation, continuous=self.words == 0, replayable=True)

    def start(self) -> None:
        size = ALPHABETS[self.modulation].size
        self._indices = self.draws("symbols", lambda rng, n: rng.integers(size, size=n))
        self._position = 0  # symbols sent

    def process(self) -> Sent | None:
        if self.frames_left() == 0:
            return None
        shape = (self.words, self.length) if self.words else (self.length,)
        indices = self._indices.take(self._position, self._per_frame)
        self._position += self._per_frame
        return Sent(sent=ALPHABETS[self.modulation][indices].reshape(shape))

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
