"""Detection with a Gaussian per class, as a block."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Complex64, Float32

from blocks.detector.learned_isi import FittedDetector, gaussians_of
from blocks.detector.sequence import SoftDecided
from blocks.nodes.node import Node
from blocks.nodes.taps import Taps
from pipeline.frame import Array


class StateGaussian(FittedDetector, name="detector.state_gaussian"):
    """Symbols by the mean and the variance of samples given the symbols that they depend on.

    Learned: a Gaussian for each combination of symbols, by counting (blocks/nodes/class_gaussians
    .py): what can be had of a channel that is not linear without a network. Model-based: the
    Viterbi or the sum-product algorithm.

    Streams are decided in windows and words as a whole, as by detector.viterbi and
    detector.sum_product; a frame is decided with the metrics of the weights that served when it
    came.

    samples    (time) or (word, time)  float32, or complex64 for QPSK [V]
    symbols    as samples              int8, or complex64 for QPSK
    posterior  (..., time, state)      float32; memory - 1 symbol indices (one at least) to base 2
               or 4, newest in the lowest digit. No state with states = false or algorithm "viterbi"
    llr        (..., time, bit)        float32 [nat]; one bit, or the signs of the real and the
               imaginary part of QPSK, within +-38, or +-300 by max_log. No bit by algorithm
               "viterbi"

    Raises WeightsError where it is to decide with neither weights nor taps.
    """

    kinds: ClassVar[tuple[str, ...]] = ("class_gaussians",)

    def process(
        self, samples: Float32[Array, "*word time"] | Complex64[Array, "*word time"]
    ) -> list[SoftDecided]:
        return [SoftDecided(*rows) for rows in self._detect(samples)]

    def finish(self) -> list[SoftDecided]:
        return [SoftDecided(*rows) for rows in self._rest()]

    def _node_of(self, channel: Taps) -> Node:
        return gaussians_of(channel)
