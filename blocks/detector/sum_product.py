"""The sum-product algorithm as a block."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from jaxtyping import Complex64, Float32

from blocks.detector.isi import IsiDetector
from blocks.detector.sequence import SoftDecided
from blocks.kernels import max_log, sum_product
from blocks.kernels.recursion import SoftRecursion
from pipeline.block import param
from pipeline.errors import ParameterError
from pipeline.frame import Array


class SumProduct(IsiDetector, name="detector.sum_product"):
    """The most likely symbol each, and how likely, over a channel with known taps.

    Shlezinger et al., "Model-Based Deep Learning", Proc. IEEE 2023: Algorithm 5 (the BCJR
    algorithm), function node (26), exact, in the scaled probability domain.

    Mode "max_log" puts the best sequence in the place of the sum over all (Robertson, Villebrun and
    Hoeher, ICC 1995): an LLR is how much likelier the best sequence with bit 1 is than the best
    with bit 0, and symbols are those of the most likely sequence. A wrong noise level is a factor
    on all LLRs and changes no symbol. The posterior of a state is in proportion to its best
    sequence.

    A stream is decided in windows of `window` symbols, counted from its start. The symbols of a
    window are decided given the samples from `lag` symbols before the window, before which anything
    may have been sent, to `lag` symbols past it; at the start and the end of the stream from and to
    there. So they do not depend on how the stream is cut, and many windows are decided side by
    side. A symbol comes up to window + lag symbols late. Words are decided given all their samples.

    samples    (time) or (word, time)  float32, or complex64 for complex taps or QPSK [V]
    symbols    as samples              int8, or complex64 for QPSK
    posterior  (..., time, state)      float32; of the states of kernels/trellis.py: symbol indices
               to base 2 or 4, newest in the lowest digit, so posterior[..., 1::2] is for BPSK
               what the newest symbol +1 has. Before the first symbol of a stream or word after
               silence the digits are 0. With states = false it has no state
    llr        (..., time, bit)        float32 [nat]; one bit, or the signs of the real and the
               imaginary part of QPSK, within +-38 in single precision, within +-300 in double
               and in mode "max_log"
    """

    noise_var: float | None = param(
        default=None, above=0.0, unit="V^2",
        doc="noise variance per sample, of both parts if complex; or give snr_db",
    )  # fmt: skip
    mode: Literal["exact", "max_log"] = param(
        default="exact", doc="sum over all sequences, or the best one in its place"
    )
    states: bool = param(
        default=True, doc="give the posteriors of the states; without them it is faster"
    )
    precision: Literal["single", "double"] = param(
        default="single",
        doc="of the arithmetic; double holds LLRs beyond 38 nats, and bears a noise_var that is "
        "some 15 dB too small, where single decides wrongly; max_log bears any",
    )

    def check(self) -> None:
        super().check()
        if self.noise == "gaussian" and (self.noise_var is None) == (self.snr_db is None):
            came = "neither" if self.noise_var is None else "both"
            raise ParameterError(f"{came} of noise_var and snr_db given; posteriors need one")
        if self.noise == "poisson" and self.noise_var is not None:
            raise ParameterError("noise_var given, but Poisson noise has none; give snr_db alone")
        advice = "give more noise" if self.precision == "double" else "use precision = 'double'"
        self._check_range(self._dtype, self._noise_var, advice)

    @property
    def _noise_var(self) -> float:
        """Of Gaussian noise; Poisson noise has none, and this is not used."""
        if self.noise_var is None:
            return float(10.0 ** (-(self.snr_db or 0.0) / 10.0))
        return self.noise_var

    @property
    def _dtype(self) -> type[np.floating[Any]]:
        return np.float32 if self.precision == "single" else np.float64

    def process(
        self, samples: Float32[Array, "*word time"] | Complex64[Array, "*word time"]
    ) -> list[SoftDecided]:
        return [SoftDecided(*rows) for rows in self._detect(samples)]

    def finish(self) -> list[SoftDecided]:
        return [SoftDecided(*rows) for rows in self._rest()]

    def _recursion(self, is_complex: bool) -> SoftRecursion:
        metrics = self._metrics_of(self._dtype, is_complex=is_complex, noise_var=self._noise_var)
        kind = max_log.MaxLog if self.mode == "max_log" else sum_product.SumProduct
        return kind(metrics, self._alphabet.size, self._start_states(), states=self.states)

    def _fields(self, *results: Array) -> tuple[Array, ...]:
        marginal, posterior = results
        return self._soft_of(marginal, posterior, is_max_log=self.mode == "max_log")
