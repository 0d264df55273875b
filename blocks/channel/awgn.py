"""A channel that adds white Gaussian noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Complex64, Float32, Int8

from blocks import fields
from blocks.channel.noise import gaussian, received_type, standard_normal, variance
from blocks.position import Position
from pipeline.block import Block, FieldType, param
from pipeline.frame import Array, FrameInfo, Scalar


class Received(NamedTuple):
    """What the channel adds."""

    samples: Annotated[
        Float32[Array, "*word time"] | Complex64[Array, "*word time"], fields.SAMPLES
    ]


class Awgn(Block, name="channel.awgn"):
    """The symbols plus white Gaussian noise: samples = sent + noise.

    BPSK and OOK get real noise of variance 1 / SNR. QPSK gets circular complex noise of *total*
    variance 1 / SNR, half of it in each part, so that SNR is Es/N0 for unit-energy symbols; for
    BPSK in real noise of that variance Es/N0 is SNR / 2.

    sent     (..., time) int8 or complex64
    samples  (..., time) float32 or complex64 [V]
    """

    snr_db: float = param(
        default=10.0, at_least=-100.0, at_most=300.0, unit="dB", doc="1 / noise variance"
    )

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        return {"samples": received_type(reads["sent"])}

    def start(self) -> None:
        self._normals = self.draws("noise", standard_normal)
        self._position = Position()

    def process(
        self,
        sent: Int8[Array, "*word time"] | Complex64[Array, "*word time"],
        info: FrameInfo = FrameInfo(),
    ) -> Received:
        is_complex = sent.dtype.kind == "c"
        noise_var = variance(self.snr_db)
        first = self._position.take(info, sent.size)
        noise = gaussian(self._normals, first, sent.shape, noise_var, is_complex)
        return Received(samples=(sent + noise).astype(np.complex64 if is_complex else np.float32))

    def state(self) -> Mapping[str, Array | Scalar]:
        return {"position": self._position.next}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._position.next = int(state["position"])
