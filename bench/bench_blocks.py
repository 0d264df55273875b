"""Blocks that do nothing, to measure what the runtime adds."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Float32

from pipeline.block import Block, Field, Sink, Source, param
from pipeline.frame import Array

SAMPLES = Field("a constant payload", unit="V")


class Payload(NamedTuple):
    """What the constant source emits."""

    samples: Annotated[Float32[Array, "time"], SAMPLES]


class Constant(Source, name="source.bench_constant"):
    """Emits the same array again and again, so that making it costs nothing."""

    bytes: int = param(default=1024, at_least=4, unit="bytes", doc="payload of a frame")
    frames: int = param(default=0, at_least=0, doc="frames to emit; 0: endless")

    def start(self) -> None:
        """Make the payload."""
        self._payload = Payload(np.zeros(self.bytes // 4, np.float32))
        self._count = 0

    def process(self) -> Payload | None:
        """The payload, or the end."""
        if self._count == self.frames > 0:
            return None
        self._count += 1
        return self._payload


class Through(Block, name="frontend.bench_through"):
    """Reads the samples and adds nothing."""

    def process(self, samples: Float32[Array, "time"]) -> None:
        """Nothing."""


class Added(NamedTuple):
    """What the relabelling block adds."""

    relabelled: Annotated[Float32[Array, "time"], Field("the same samples again", unit="V")]


class Relabel(Block, name="frontend.bench_relabel"):
    """Adds the samples again under another name (`writes` in the flow renames it further)."""

    def process(self, samples: Float32[Array, "time"]) -> Added:
        """The input."""
        return Added(samples)


class Count(Sink, name="sink.bench_count"):
    """Reads the samples, so that they travel, and counts frames."""

    def start(self) -> None:
        """Count from zero."""
        self._frames = 0

    def process(self, samples: Float32[Array, "time"]) -> None:
        """Count."""
        self._frames += 1

    def report(self, folder: object) -> dict[str, int]:
        """The count."""
        return {"frames": self._frames}
