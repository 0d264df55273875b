"""Cuts a continuous stream into frames of another length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Complex64, Float32

from blocks import fields
from pipeline.block import FieldType, Reframe, param
from pipeline.frame import Array, Scalar


class Samples(NamedTuple):
    """All that the new frames carry."""

    samples: Annotated[Float32[Array, "time"] | Complex64[Array, "time"], fields.SAMPLES]


class Cut(Reframe, name="frontend.cut"):
    """The same samples in frames of `length`; the last frame of a stream may be shorter.

    Frames are counted from the first sample of the stream, and anew after a gap. Other fields of
    the input end here.

    samples  (time,) float32 or complex64 [V]
    """

    length: int = param(default=1000, at_least=1, unit="samples", doc="length of the new frames")

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        return {"samples": reads["samples"]}

    def start(self) -> None:
        self._pieces: list[Array] = []  # samples not yet handed on, in order
        self._waiting = 0  # how many they are

    def process(self, samples: Float32[Array, "time"] | Complex64[Array, "time"]) -> list[Samples]:
        self._keep(samples)
        if self._waiting < self.length:
            return []
        whole = self._join()
        end = whole.size - whole.size % self.length
        self.start()
        self._keep(whole[end:].copy())  # a view would keep all of `whole` alive
        return [Samples(samples=whole[i : i + self.length]) for i in range(0, end, self.length)]

    def finish(self) -> list[Samples]:
        if self._waiting == 0:
            return []
        rest = Samples(samples=self._join())
        self.start()
        return [rest]

    def state(self) -> Mapping[str, Array | Scalar]:
        return {"rest": self._join()} if self._pieces else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        if "rest" in state:
            self._keep(state["rest"])

    def _keep(self, samples: Array) -> None:
        if samples.size:
            self._pieces.append(samples)
            self._waiting += samples.size

    def _join(self) -> Array:
        return self._pieces[0] if len(self._pieces) == 1 else np.concatenate(self._pieces)
