"""A learned factor graph as a block."""

from __future__ import annotations

from jaxtyping import Complex64, Float32

from blocks.detector.learned_isi import NetworkDetector, SoftLearnedDetector, transition_of
from blocks.detector.sequence import SoftDecided
from pipeline.frame import Array
from pipeline.weights import Weights


class LearnedFactorGraph(
    NetworkDetector, SoftLearnedDetector, name="detector.learned_factor_graph"
):
    """The most likely symbol each, and how likely, by function nodes that were learned.

    Shlezinger et al., "Model-Based Deep Learning", Proc. IEEE 2023: Example 6 with Algorithm 5;
    Shlezinger, Farsad, Eldar and Goldsmith, "Learned factor graphs for inference from stationary
    time sequences", IEEE TSP 70, 2022. Learned: the function node f = p(x_i | s_i) p(s_i | s_{i-1})
    of a sample, its first part by a network (27), its second by a histogram, the array
    "transition" of the weights; where they have none, all symbols are equally likely. Model-based:
    the sum-product algorithm. A state here has memory - 1 symbols, and what the papers call s_i is
    a branch, so that nothing is computed twice.

    Streams are decided in windows and words given all their samples, as by detector.sum_product; a
    frame is decided with the function nodes of the weights that served when it came.

    samples    (time) or (word, time)  float32, or complex64 for QPSK [V]
    symbols    as samples              int8, or complex64 for QPSK
    posterior  (..., time, state)      float32; memory - 1 symbol indices (one at least) to base 2
               or 4, newest in the lowest digit. With states = false it has no state
    llr        (..., time, bit)        float32 [nat]; one bit, or the signs of the real and the
               imaginary part of QPSK, within +-38

    Raises WeightsError where it is to decide without weights.
    """

    trained_by = "blocks.trainer.offline:fit_factor_graph"

    def process(
        self, samples: Float32[Array, "*word time"] | Complex64[Array, "*word time"]
    ) -> list[SoftDecided]:
        return [SoftDecided(*rows) for rows in self._detect(samples)]

    def finish(self) -> list[SoftDecided]:
        return [SoftDecided(*rows) for rows in self._rest()]

    @property
    def _algorithm(self) -> str:
        return "sum_product"

    def _prior_of(self, weights: Weights, where: str) -> Array | None:
        order = self._alphabet.size
        return transition_of(weights.arrays, (order ** (self.memory - 1), order), where)
