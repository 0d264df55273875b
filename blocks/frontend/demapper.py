"""Demapper: samples of a channel without memory in, log-likelihood ratios of the bits out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

import numpy as np
from jaxtyping import Complex64, Float32

from blocks import fields
from blocks.kernels.trellis import ALPHABETS
from pipeline.block import Block, FieldType, param
from pipeline.errors import ConnectError, FieldError, ParameterError
from pipeline.frame import Array

LLR_LIMIT = 300.0  # nats, as detector.sum_product has it


class Demapped(NamedTuple):
    """What the demapper adds."""

    llr: Annotated[Float32[Array, "*word time bit"], fields.LLR]


class Demapper(Block, name="frontend.demapper"):
    """How likely each bit is 1, from one sample of white Gaussian noise each.

    A part of a sample (real, or imaginary of QPSK) is one of two levels a0 (bit 0) and a1 (bit 1)
    plus noise of variance v, so that its LLR is (a1 - a0) (2 y - a0 - a1) / (2 v). Complex samples
    have v = noise variance / 2, as channel.awgn makes it.

    samples  (time) or (word, time)  float32 or complex64, complex for QPSK [V]
    llr      (..., time, bit)        float32 [nat], within +-300; one bit, or two of QPSK
    """

    modulation: Literal["bpsk", "ook", "qpsk"] = param(
        default="bpsk", doc="alphabet of the symbols"
    )
    noise_var: float | None = param(
        default=None, above=0.0, unit="V^2",
        doc="noise variance per sample, of both parts if complex; or give snr_db",
    )  # fmt: skip
    snr_db: float | None = param(default=None, unit="dB", doc="1 / noise variance")

    def check(self) -> None:
        if (self.noise_var is None) == (self.snr_db is None):
            came = "neither" if self.noise_var is None else "both"
            raise ParameterError(
                f"{came} of noise_var and snr_db given; log-likelihood ratios need one"
            )

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        if self.modulation == "qpsk" and reads["samples"].dtypes != ("complex64",):
            raise ConnectError(
                f"'samples' is {reads['samples']}, but qpsk gives complex samples; expected "
                "complex64"
            )
        return {}

    def start(self) -> None:
        noise_var = self.noise_var
        if noise_var is None:
            noise_var = 10.0 ** (-(self.snr_db or 0.0) / 10.0)
        alphabet = ALPHABETS[self.modulation]
        self._low, self._high = float(alphabet[0].real), float(alphabet[-1].real)
        self._noise_var = noise_var

    def process(
        self, samples: Float32[Array, "*word time"] | Complex64[Array, "*word time"]
    ) -> Demapped:
        is_complex = samples.dtype.kind == "c"
        if not np.isfinite(samples).all():
            wrong = samples[~np.isfinite(samples)][0]
            raise FieldError(f"{self.name}: 'samples' holds {wrong}; expected finite numbers")
        variance = self._noise_var / 2.0 if is_complex else self._noise_var
        if self.modulation == "qpsk":
            parts = samples.view(np.float32).reshape(*samples.shape, 2)
        else:
            parts = samples.real[..., None]
        scale = (self._high - self._low) / (2.0 * variance)
        llr = scale * (2.0 * parts.astype(np.float64) - self._low - self._high)
        return Demapped(llr=llr.clip(-LLR_LIMIT, LLR_LIMIT).astype(np.float32))
