"""What the sources of independent values share: all but what a value is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from pipeline.block import Source, param
from pipeline.frame import Array, Scalar, StreamInfo


class IndependentSource(Source):
    """Independent, equally likely values, in words or as one continuous stream.

    Value n of a stream depends on the seed, the name of the block, the stream and n alone, so
    `length` and `words` change how a stream is cut and not what comes.
    """

    purpose: ClassVar[str]  # of the random numbers

    frames: int = param(
        default=1000, at_least=0, unit="frames", doc="frames of each stream; 0: endless"
    )
    length: int = param(default=1000, at_least=1, doc="values per frame or word")
    words: int = param(
        default=0, at_least=0, unit="words", doc="words per frame; 0: one continuous stream"
    )
    count: int = param(
        default=1, at_least=1, unit="streams", doc="streams; more than one are named 0, 1, 2 ..."
    )

    @abstractmethod
    def _draw(self, rng: np.random.Generator, count: int) -> Array:
        """So many values."""

    @abstractmethod
    def _format(self) -> str:
        """What the stream is said to hold."""

    def streams(self) -> tuple[str, ...]:
        return tuple(str(n) for n in range(self.count)) if self.count > 1 else ("main",)

    def describe(self) -> StreamInfo:
        return StreamInfo(format=self._format(), continuous=self.words == 0, replayable=True)

    def start(self) -> None:
        self._values = self.draws(self.purpose, self._draw)
        self._position = 0  # values given

    def _next(self) -> Array | None:
        """The values of the next frame; None after the last."""
        if self.frames_left() == 0:
            return None
        shape = (self.words, self.length) if self.words else (self.length,)
        values = self._values.take(self._position, self._per_frame)
        self._position += self._per_frame
        return values.reshape(shape)

    def frames_left(self) -> int | None:
        if self.frames == 0:
            return None
        return max(0, self.frames - self._position // self._per_frame)

    def state(self) -> Mapping[str, Array | Scalar]:
        return {"position": self._position}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._position = int(state["position"])

    @property
    def _per_frame(self) -> int:
        return self.length * max(self.words, 1)
