"""Detection with a channel that is told: what no receiver knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Complex64, Float32

from blocks.detector.sequence import Decided, SequenceDetector
from blocks.kernels import viterbi
from blocks.kernels.recursion import Recursion
from blocks.kernels.trellis import Metrics
from blocks.nodes.taps import Taps
from pipeline.block import FieldType, param
from pipeline.errors import FieldError
from pipeline.frame import Array, FrameInfo


class FullKnowledge(SequenceDetector, name="detector.full_knowledge"):
    """The most likely words, told the taps of each moment: how good a receiver could be at best.

    The Viterbi algorithm on what channel.isi made before it saturated and quantised. All that it
    reads is truth, so a flow has to say `genie = true` of it.

    undistorted  (word, time)  float32, or complex64 for QPSK [V]
    taps         (block, tap)  float32, of the coherence blocks from the first sample on
    symbols      (word, time)  int8, or complex64 for QPSK
    """

    memory: int = param(
        default=4, at_least=1, at_most=16, unit="symbols", doc="taps of the channel"
    )
    start_state: Literal["known", "unknown"] = param(
        default="known", doc="before each word: always known_symbol, or any symbols"
    )
    coherence: int = param(
        default=0, at_least=0, unit="symbols", doc="of the channel; 0: one word, as there"
    )
    largest: ClassVar[float] = 1e6

    @property
    def _span(self) -> int:
        return self.memory

    def _refusal(self, is_complex: bool) -> str:
        if is_complex == (self.modulation == "qpsk"):
            return ""
        return f"those of {self.modulation} are {'real' if is_complex else 'complex'}"

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        return super().narrow({"samples": reads["undistorted"]})

    def start(self) -> None:
        super().start()
        self._channels: list[Taps] = []  # of the words of a frame

    def process(
        self,
        undistorted: Float32[Array, "word time"] | Complex64[Array, "word time"],
        taps: Float32[Array, "block tap"],
        info: FrameInfo = FrameInfo(),
    ) -> Decided:
        if taps.shape[1] != self.memory:
            raise FieldError(
                f"{self.name}: the channel has {taps.shape[1]} taps, but memory = {self.memory}"
            )
        words, time = undistorted.shape
        coherence = self.coherence or time
        if coherence % time:
            raise FieldError(
                f"{self.name}: coherence = {coherence} symbols, but words have {time}; the taps "
                "must stay the same within a word"
            )
        numbers = (info.sample + time * np.arange(words)) // coherence - info.sample // coherence
        found = taps[np.minimum(numbers, len(taps) - 1)]  # one row, where they stay the same
        self._channels = [self._channel(row) for row in found]
        ((symbols,),) = self._detect(undistorted)
        return Decided(symbols)

    def _channel(self, taps: Array) -> Taps:
        wide = np.complex128 if self.modulation == "qpsk" else np.float64
        arrays = {"taps": taps.astype(wide), "noise_var": np.array(1.0)}
        return Taps(self.modulation, self.memory, arrays)

    def _recursion(self, is_complex: bool) -> Recursion:
        given = Metrics.given(self._alphabet.size**self.memory, np.float32)
        return viterbi.Viterbi(given, self._alphabet.size, self._start_states())

    def _values(self, recursion: Recursion, samples: Array) -> Array:
        metrics = np.empty((*samples.shape, recursion.metrics.width), np.float32)
        for channel, word, out in zip(self._channels, samples, metrics, strict=True):
            channel.metrics(word, out)
        return metrics.reshape(-1)

    def _fields(self, *results: Array) -> tuple[Array, ...]:
        return (self._symbols_of(*results),)
