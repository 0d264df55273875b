"""Blocks that do nothing, to measure what the runtime adds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Float32, Int8

from pipeline.block import Block, Field, Sink, Source, param
from pipeline.frame import Array, FrameInfo

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


class Numbered(Source, name="source.bench_numbered"):
    """Emits frames that carry their number, from 1, in every element."""

    bytes: int = param(default=1024, at_least=4, unit="bytes", doc="payload of a frame")
    frames: int = param(default=0, at_least=0, doc="frames to emit; 0: endless")

    def start(self) -> None:
        """Count from zero."""
        self._count = 0

    def process(self) -> Payload | None:
        """The next number, or the end."""
        if self._count == self.frames > 0:
            return None
        self._count += 1
        return Payload(np.full(self.bytes // 4, self._count, np.float32))

    def frames_left(self) -> int | None:
        """What is still to come."""
        return self.frames - self._count if self.frames else None


class Order(Sink, name="sink.bench_order"):
    """Checks that the frames of source.bench_numbered come whole, all, and in order."""

    def start(self) -> None:
        """Expect the first frame, which follows the start of the stream."""
        self._frames = self._lost = self._out_of_order = self._damaged = 0
        self._expected = 1

    def process(self, samples: Float32[Array, "time"], info: FrameInfo = FrameInfo()) -> None:
        """Check the place of one frame and every element of it."""
        self._frames += 1
        if info.seq > self._expected:
            self._lost += info.seq - self._expected
        elif info.seq < self._expected:
            self._out_of_order += 1
        self._expected = max(self._expected, info.seq + 1)
        # float32 counts exactly up to 2^24
        if not (samples == np.float32(info.seq)).all():
            self._damaged += 1

    def report(self, folder: object) -> dict[str, int]:
        """The counts."""
        return {
            "frames": self._frames,
            "lost": self._lost,
            "out_of_order": self._out_of_order,
            "damaged": self._damaged,
        }


class Arrivals(Sink, name="sink.bench_arrivals"):
    """Notes when the first frame and the last one came, so that starting up is left out."""

    def start(self) -> None:
        """Nothing has come yet."""
        self._frames = self._first_ns = self._last_ns = 0

    def process(self, samples: Float32[Array, "..."] | Int8[Array, "..."]) -> None:
        """Look at the clock."""
        self._last_ns = time.monotonic_ns()
        if not self._frames:
            self._first_ns = self._last_ns
        self._frames += 1

    def report(self, folder: object) -> dict[str, int | float]:
        """Count, times in ns of CLOCK_MONOTONIC, and the rate between them."""
        seconds = (self._last_ns - self._first_ns) / 1e9
        rate = (self._frames - 1) / seconds if seconds else 0.0
        return {"frames": self._frames, "first_ns": self._first_ns, "frames_per_s": rate}


class Decisions(Sink, name="sink.bench_decisions"):
    """Keeps what was decided, and leaves it in a file `decisions.npz` at the end.

    seq, version (frame,) int64; use (frame,) text; samples, symbols (frame, word, time)
    """

    def start(self) -> None:
        """Nothing has come yet."""
        self._kept: list[tuple[int, int, str, Array, Array]] = []

    def process(
        self,
        samples: Float32[Array, "word time"],
        symbols: Int8[Array, "word time"],
        info: FrameInfo = FrameInfo(),
    ) -> None:
        """Keep one frame."""
        version = int(info.marks.get("detector.version", 0))
        use = str(info.marks.get("detector.use", ""))
        self._kept.append((info.seq, version, use, samples, symbols))

    def report(self, folder: Path | None) -> dict[str, int]:
        """How many frames have come."""
        if folder is not None and self._kept:
            names = ("seq", "version", "use", "samples", "symbols")
            columns = zip(names, zip(*self._kept, strict=True), strict=True)
            np.savez(folder / "decisions.npz", **{name: np.array(rows) for name, rows in columns})
        return {"frames": len(self._kept)}
