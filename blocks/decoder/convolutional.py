"""Decoder of convolutional codes: soft bits in, information bits out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Int8, UInt8

from blocks import fields
from blocks.kernels import convolutional
from blocks.kernels.windows import Windows
from blocks.late import LateRows
from blocks.shift_register import ShiftRegisterBlock
from pipeline.block import FieldType, param
from pipeline.errors import FieldError
from pipeline.frame import Array, Scalar

LARGEST = 1e15  # of a log-likelihood ratio [nat]: sums must not overflow float32


class Decoded(NamedTuple):
    """What the decoder adds."""

    payload: Annotated[UInt8[Array, "*word data"], fields.PAYLOAD]


class Convolutional(ShiftRegisterBlock, name="decoder.convolutional"):
    """The most likely information bits of a convolutional code, by the Viterbi algorithm.

    Heller and Jacobs, IEEE Trans. Commun. Technol. 19(5), 1971. Path metrics are float32 for
    log-likelihood ratios, and integers for soft bits (`reads = { llr = "soft" }`), which is faster.

    Words get the bits of the most likely code word. A tail-biting word is decoded as if it were
    repeated without end, from `lag` bits before it to `lag` bits past it; where that is no
    tail-biting word, all states at its ends are tried, which takes some 2^memory times as long.
    (The first may miss the most likely word by a hair, in one of a thousand very noisy words.)

    A stream is decided in windows of `window` bits, counted from its start. The bits of a window
    are those of the most likely sequence from `lag` bits before the window, where the register may
    hold anything, to `lag` bits past it; at the start and the end of the stream from and to there.
    So they do not depend on how the stream is cut, and many windows are decoded side by side. A bit
    comes up to window + lag bits late. Code bits that make no whole bit at the end of the stream
    are left over.

    llr      (time, bit) or (word, time, bit)  float32 [nat], or int8; positive for bit 1, in the
             order of the code bits
    payload  (data) or (word, data)            uint8, 0 or 1
    """

    start_state: Literal["known", "unknown"] = param(
        default="known",
        doc="register before a stream, also after a gap, and before words that are not "
        "tail-biting: empty, or anything",
    )
    metric_bits: Literal[8, 16] = param(
        default=16,
        unit="bits",
        doc="of path metrics for int8 soft bits; 8 is faster and rounds the soft bits further",
    )
    window: int = param(
        default=256, at_least=1, at_most=65536, unit="bits", doc="bits of a stream decided at once"
    )
    lag: int = param(
        default=0, at_least=0, at_most=10_000, unit="bits",
        doc="bits before and past a window of a stream, or a tail-biting word, that its decision "
        "looks at; 0: 8 memories",
    )  # fmt: skip

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        dims = "word data" if "word" in reads["llr"].dims else "data"
        return {"payload": FieldType.of("uint8", dims)}

    def start(self) -> None:
        self._decoders: dict[str, convolutional.Decoder] = {}
        self._windows: Windows | None = None  # until the first values tell the dtype
        self._late = LateRows(np.empty(0, np.uint8))

    def process(
        self, llr: Float32[Array, "*word time bit"] | Int8[Array, "*word time bit"]
    ) -> list[Decoded]:
        if llr.dtype.kind == "f" and not (np.abs(llr) < LARGEST).all():
            wrong = llr[~(np.abs(llr) < LARGEST)][0]
            raise FieldError(
                f"{self.name}: 'llr' holds {wrong}; expected finite numbers below {LARGEST:g} nat"
            )
        decoder = self._decoder_of(llr.dtype.name)
        if llr.ndim == 3:
            self._late.check_idle(self.name)
            coded = llr.reshape(llr.shape[0], llr.shape[1] * llr.shape[2])
            return [Decoded(payload=self._words(decoder, coded))]
        if self._windows is None:
            self._windows = self._stream(decoder)
        before = self._windows.steps
        decided = self._windows.push(llr.reshape(-1))
        self._late.expect(self._windows.steps - before)
        self._late.add(*decided)
        return [Decoded(*rows) for rows in self._late.complete()]

    def finish(self) -> list[Decoded]:
        if self._windows is not None:
            self._late.add(*self._windows.finish())
        return [Decoded(*rows) for rows in self._late.complete()]

    def _decoder_of(self, dtype: str) -> convolutional.Decoder:
        if dtype not in self._decoders:
            integers: Literal["uint8", "uint16"] = "uint8" if self.metric_bits == 8 else "uint16"
            metrics = "float32" if dtype == "float32" else integers
            self._decoders[dtype] = convolutional.Decoder(self._code(), metrics)
        return self._decoders[dtype]

    def _lag_of(self, decoder: convolutional.Decoder) -> int:
        return self.lag or 8 * decoder.code.memory

    def _stream(self, decoder: convolutional.Decoder) -> Windows:
        return decoder.stream(
            self.window, self._lag_of(decoder), known_start=self.start_state == "known"
        )

    def _words(self, decoder: convolutional.Decoder, coded: Array) -> Array:
        """Bits (word, data) of the soft values (word, code) of words."""
        code = decoder.code
        words, size = coded.shape
        steps = size // code.outputs
        tail = code.memory if self.ending == "terminated" else 0
        if size % code.outputs or steps < tail:
            outputs, after = code.outputs, f" + {tail}" if tail else ""
            raise FieldError(
                f"{self.name}: 'llr' has {size} values per word, but {self.ending} words of L bits "
                f"have {outputs} (L{after}); set `ending` and the code as the encoder has them"
            )
        if self.ending == "tail_biting":
            return decoder.decode_rings(coded, self._lag_of(decoder))
        return decoder.decode(
            coded.reshape(-1), words, size, steps,
            known_start=self.start_state == "known", known_end=tail > 0,
            first=0, count=steps - tail,
        )  # fmt: skip

    def state(self) -> Mapping[str, Array | Scalar]:
        windows = {} if self._windows is None else self._windows.state()
        return {**windows, **self._late.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._late.restore(state)
        if "values" in state:
            decoder = self._decoder_of(state["values"].dtype.name)
            self._windows = self._stream(decoder)
            self._windows.restore(state)
