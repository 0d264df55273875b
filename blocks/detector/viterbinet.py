"""ViterbiNet as a block."""

from __future__ import annotations

from jaxtyping import Complex64, Float32

from blocks.detector.learned_isi import NetworkDetector
from blocks.detector.sequence import Decided
from blocks.kernels import viterbi
from pipeline.frame import Array


class ViterbiNet(NetworkDetector, name="detector.viterbinet"):
    """The most likely sequence of symbols, by branch metrics that a network has learned.

    Shlezinger, Farsad, Eldar and Goldsmith, "ViterbiNet: A deep learning based Viterbi algorithm
    for symbol detection", IEEE TWC 19(5), 2020. Learned: how likely a sample is given the `memory`
    symbols that it depends on. Model-based: the Viterbi algorithm. Departs from the paper in that
    the survivors are traced back, where the paper decides `memory` - 1 symbols late; in that the
    density of the sample, which all states share, is left out; and in that a word begins with
    symbols that are known, or any, not with metrics of zeros.

    Streams are decided in windows and words as a whole, as by detector.viterbi; a frame is decided
    with the metrics of the weights that served when it came.

    samples  (time) or (word, time)  float32, or complex64 for QPSK [V]
    symbols  as samples              int8, or complex64 for QPSK

    Raises WeightsError where it is to decide without weights.
    """

    trained_by = "blocks.trainer.offline:fit_network"

    def process(
        self, samples: Float32[Array, "*word time"] | Complex64[Array, "*word time"]
    ) -> list[Decided]:
        return [Decided(*rows) for rows in self._detect(samples)]

    def finish(self) -> list[Decided]:
        return [Decided(*rows) for rows in self._rest()]

    def _recursion(self, is_complex: bool) -> viterbi.Viterbi:
        return self._viterbi()

    def _fields(self, *results: Array) -> tuple[Array, ...]:
        return (self._symbols_of(*results),)
