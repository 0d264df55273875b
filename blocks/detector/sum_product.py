"""The sum-product algorithm as a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Complex64, Float32, Int8

from blocks import fields
from blocks.detector.isi import IsiDetector
from blocks.kernels import max_log, sum_product
from blocks.late import LateRows
from pipeline.block import FieldType, param
from pipeline.errors import ParameterError
from pipeline.frame import Array, Scalar

LLR_LIMIT = 300.0  # nats: beyond it the floors of the messages show


class Decided(NamedTuple):
    """What the detector adds."""

    symbols: Annotated[Int8[Array, "*word time"] | Complex64[Array, "*word time"], fields.SYMBOLS]
    posterior: Annotated[Float32[Array, "*word time state"], fields.POSTERIOR]
    llr: Annotated[Float32[Array, "*word time bit"], fields.LLR]


class SumProduct(IsiDetector, name="detector.sum_product"):
    """The most likely symbol each, and how likely, over a channel with known taps.

    Shlezinger et al., "Model-Based Deep Learning", Proc. IEEE 2023: Algorithm 5 (the BCJR
    algorithm), function node (26), exact, in the scaled probability domain.

    Mode "max_log" puts the best sequence in the place of the sum over all (Robertson, Villebrun and
    Hoeher, ICC 1995): an LLR is how much likelier the best sequence with bit 1 is than the best
    with bit 0, and symbols are those of the most likely sequence. A wrong noise level is a factor
    on all LLRs and changes no symbol. The posterior of a state is in proportion to its best
    sequence.

    A stream is decided in windows of `lag` symbols, each given all samples up to the end of the
    next window; the forward message goes on from frame to frame, so nothing depends on how the
    stream is cut. Words are decided one by one, each given all of its samples.

    samples    (time) or (word, time)  float32, or complex64 for complex taps or QPSK [V]
    symbols    as samples              int8, or complex64 for QPSK
    posterior  (..., time, state)      float32; of the states of kernels/trellis.py: symbol indices
               to base 2 or 4, newest in the lowest digit, so posterior[..., 1::2] is for BPSK
               what the newest symbol +1 has. Before the first symbol of a stream or word after
               silence the digits are 0
    llr        (..., time, bit)        float32 [nat]; one bit, or the signs of the real and the
               imaginary part of QPSK, within +-300
    """

    noise_var: float | None = param(
        default=None, above=0.0, unit="V^2",
        doc="noise variance per sample, of both parts if complex; or give snr_db",
    )  # fmt: skip
    mode: Literal["exact", "max_log"] = param(
        default="exact", doc="sum over all sequences, or the best one in its place"
    )

    def check(self) -> None:
        super().check()
        if self.noise == "gaussian" and (self.noise_var is None) == (self.snr_db is None):
            came = "neither" if self.noise_var is None else "both"
            raise ParameterError(f"{came} of noise_var and snr_db given; posteriors need one")
        if self.noise == "poisson" and self.noise_var is not None:
            raise ParameterError("noise_var given, but Poisson noise has none; give snr_db alone")

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        return {"symbols": self._symbols_type(reads["samples"])}

    def start(self) -> None:
        noise_var = self.noise_var
        if noise_var is None:
            noise_var = 10.0 ** (-(self.snr_db or 0.0) / 10.0)
        # float64 for its exponents: LLRs to 300 nats, and a noise level that is far off.
        self._metrics = self._isi_metrics(np.float64, noise_var)
        start, order = self._start_states(), self._alphabet.size
        kernel = max_log if self.mode == "max_log" else sum_product
        self._detector = kernel.FixedLag(start, order, start.size * order, self._lag)
        bits = np.arange(order).astype(np.uint8)[:, None] >> np.arange(order.bit_length() - 1)
        self._bit_is_one = (bits & 1).astype(bool)  # (symbol index, bit)
        self._late = LateRows(
            self._alphabet[:0],
            np.empty((0, start.size), np.float32),
            np.empty((0, bits.shape[1]), np.float32),
        )

    def process(
        self, samples: Float32[Array, "*word time"] | Complex64[Array, "*word time"]
    ) -> list[Decided]:
        if self._checked(samples).ndim == 2:
            return [self._decided(*self._words(samples))]
        self._late.expect(samples.size)
        for piece in self._chunks(samples.size, self._metrics.chunk):
            metrics = self._metrics(samples[None, piece], self._detector.position)
            self._late.add(*self._decided(*self._detector.push(metrics[0])))
        return [Decided(*rows) for rows in self._late.complete()]

    def finish(self) -> list[Decided]:
        self._late.add(*self._decided(*self._detector.finish()))
        return [Decided(*rows) for rows in self._late.complete()]

    def _decided(self, posterior: Array, marginal: Array) -> Decided:
        """Decisions and LLRs from the posteriors of the newest symbol, or from its costs."""
        if self.mode == "max_log":
            best = marginal.argmin(axis=-1)
            llr = self._least(marginal, ~self._bit_is_one) - self._least(marginal, self._bit_is_one)
        else:
            best = marginal.argmax(axis=-1)
            with np.errstate(divide="ignore"):  # a symbol that is ruled out: the limit holds
                llr = np.log(marginal @ self._bit_is_one) - np.log(marginal @ ~self._bit_is_one)
        return Decided(
            symbols=self._alphabet[best],
            posterior=posterior,
            llr=llr.clip(-LLR_LIMIT, LLR_LIMIT).astype(np.float32),
        )

    @staticmethod
    def _least(costs: Array, which: Array) -> Array:
        """The least cost of the symbols that count for each bit, (..., bit)."""
        return np.asarray(np.where(which, costs[..., None], np.inf).min(axis=-2))

    def _words(self, samples: Array) -> tuple[Array, Array]:
        words, length = samples.shape
        order, start, end = self._alphabet.size, self._start_states(), self._end_states(length)
        posterior = np.empty((words, length, start.size), np.float32)
        marginal = np.empty((words, length, order))
        for group in self._chunks(words, max(1, self._metrics.chunk // max(length, 1))):
            self._group(samples[group], start, end, posterior[group], marginal[group])
        return posterior, marginal

    def _group(
        self, samples: Array, start: Array, end: Array, posterior: Array, marginal: Array
    ) -> None:
        """Both passes over some words. Long words keep messages, and compute factors twice."""
        words, length = samples.shape
        order, floor = self._alphabet.size, sum_product.floor_of(np.float64)
        scratch, forwards = np.empty(start.size), np.empty((words, length, start.size))
        pieces = list(self._chunks(length, self._metrics.chunk))
        if self.mode == "max_log":
            message = np.tile(np.where(start, 0.0, np.inf), (words, 1))
            for piece in pieces:
                metrics = self._metrics(samples[:, piece], piece.start)
                max_log.forward(metrics, piece.start, order, message, forwards)
            message[:] = np.where(end, 0.0, np.inf)
            for piece in reversed(pieces):
                metrics = self._metrics(samples[:, piece], piece.start)
                max_log.backward(
                    metrics, piece.start, order, message, scratch, forwards, posterior, marginal
                )
            return
        message = np.tile(start / start.sum(), (words, 1))
        for piece in pieces:
            factors = self._factors(samples, piece)
            sum_product.forward(factors, piece.start, order, floor, message, forwards)
        message[:] = end
        for piece in reversed(pieces):
            if piece is not pieces[-1]:
                factors = self._factors(samples, piece)
            sum_product.backward(
                factors, piece.start, order, floor, message, scratch, forwards, posterior, marginal
            )

    def _factors(self, samples: Array, piece: slice) -> Array:
        metrics = self._metrics(samples[:, piece], piece.start)
        sum_product.to_factors(metrics, sum_product.floor_of(np.float64), metrics)
        return metrics

    def state(self) -> Mapping[str, Array | Scalar]:
        return {**self._detector.state(), **self._late.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._detector.restore(state)
        self._late.restore(state)
