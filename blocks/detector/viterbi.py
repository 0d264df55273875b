"""The Viterbi algorithm as a block."""

from __future__ import annotations

import numpy as np
from jaxtyping import Complex64, Float32

from blocks.detector.isi import IsiDetector
from blocks.detector.sequence import Decided
from blocks.kernels import viterbi
from pipeline.frame import Array


class Viterbi(IsiDetector, name="detector.viterbi"):
    """The most likely sequence of symbols over a channel with known taps.

    Forney, "The Viterbi algorithm", Proc. IEEE 61(3), 1973, with soft metrics and traceback.

    A stream is decided in windows of `window` symbols, counted from its start. The symbols of a
    window are those of the most likely sequence from `lag` symbols before the window, before which
    anything may have been sent, to `lag` symbols past it; at the start and the end of the stream
    from and to there. So they do not depend on how the stream is cut, and many windows are decided
    side by side. A symbol comes up to window + lag symbols late. Words get the most likely word.

    samples  (time) or (word, time)  float32, or complex64 for complex taps or QPSK [V]
    symbols  as samples              int8, or complex64 for QPSK
    """

    def check(self) -> None:
        super().check()
        self._check_range(np.float32, 1.0, "give smaller taps")

    def process(
        self, samples: Float32[Array, "*word time"] | Complex64[Array, "*word time"]
    ) -> list[Decided]:
        return [Decided(*rows) for rows in self._detect(samples)]

    def finish(self) -> list[Decided]:
        return [Decided(*rows) for rows in self._rest()]

    def _recursion(self, is_complex: bool) -> viterbi.Viterbi:
        # float32: on Proakis C at 12 and 16 dB no decision differs from float64.
        metrics = self._metrics_of(np.float32, is_complex=is_complex)
        return viterbi.Viterbi(metrics, self._alphabet.size, self._start_states())

    def _fields(self, *results: Array) -> tuple[Array, ...]:
        return (self._symbols_of(*results),)
