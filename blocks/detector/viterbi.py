"""The Viterbi algorithm as a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Complex64, Float32, Int8

from blocks import fields
from blocks.detector.isi import IsiDetector
from blocks.kernels import viterbi
from blocks.late import LateRows
from pipeline.block import FieldType
from pipeline.frame import Array, Scalar


class Decided(NamedTuple):
    """What the detector adds."""

    symbols: Annotated[Int8[Array, "*word time"] | Complex64[Array, "*word time"], fields.SYMBOLS]


class Viterbi(IsiDetector, name="detector.viterbi"):
    """The most likely sequence of symbols over a channel with known taps.

    Forney, "The Viterbi algorithm", Proc. IEEE 61(3), 1973, with soft metrics and traceback.

    A stream is decided in windows of `lag` symbols, each once the samples of the next window are
    in; path metrics and survivors go on from frame to frame, so the decisions are the same
    however the stream is cut. Words are decided one by one, from their best final state.

    samples  (time) or (word, time)  float32, or complex64 for complex taps or QPSK [V]
    symbols  as samples              int8, or complex64 for QPSK
    """

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        return {"symbols": self._symbols_type(reads["samples"])}

    def start(self) -> None:
        # float32: on Proakis C at 12 and 16 dB no decision differs from float64.
        self._metrics = self._isi_metrics(np.float32)
        self._detector = viterbi.FixedLag(
            self._start_states(), self._alphabet.size, self._lag, np.float32
        )
        self._late = LateRows(self._alphabet[:0])

    def process(
        self, samples: Float32[Array, "*word time"] | Complex64[Array, "*word time"]
    ) -> list[Decided]:
        if self._checked(samples).ndim == 2:
            return [Decided(symbols=self._words(samples))]
        self._late.expect(samples.size)
        for piece in self._chunks(samples.size, self._metrics.chunk):
            metrics = self._metrics(samples[None, piece], self._detector.position)
            self._late.add(self._alphabet[self._detector.push(metrics[0])])
        return [Decided(*rows) for rows in self._late.complete()]

    def finish(self) -> list[Decided]:
        self._late.add(self._alphabet[self._detector.finish()])
        return [Decided(*rows) for rows in self._late.complete()]

    def _words(self, samples: Array) -> Array:
        words, length = samples.shape
        order, start = self._alphabet.size, np.where(self._start_states(), 0.0, np.inf)
        end = np.where(self._end_states(length), 0.0, np.inf).astype(np.float32)
        scratch = np.empty(start.size, np.float32)
        symbols = np.empty(samples.shape, np.uint8)
        for group in self._chunks(words, max(1, self._metrics.chunk // max(length, 1))):
            path = np.tile(start.astype(np.float32), (group.stop - group.start, 1))
            survivors = np.empty((path.shape[0], length, start.size), np.uint8)
            for piece in self._chunks(length, self._metrics.chunk):
                metrics = self._metrics(samples[group, piece], piece.start)
                viterbi.forward(metrics, piece.start, order, path, scratch, survivors)
            viterbi.decide(survivors, path + end, order, symbols[group])
        return self._alphabet[symbols]

    def state(self) -> Mapping[str, Array | Scalar]:
        return {**self._detector.state(), **self._late.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._detector.restore(state)
        self._late.restore(state)
