"""Numbers the frames of a stream where it starts: at a source, or where it is cut anew."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from pipeline.frame import Array, Frame, Kind, Scalar, StreamInfo
from pipeline.signature import FieldType

DATA = Kind.DATA

Clock = tuple[str, tuple[int, ...]]  # a field and the axes whose lengths advance the clock


def clock_of(writes: Sequence[tuple[str, FieldType]]) -> Clock | None:
    """The field and axes that count samples: `time` (and `word`), or else the first dim."""
    for name, kind in writes:
        if "time" in kind.dims:
            return name, tuple(i for i, dim in enumerate(kind.dims) if dim in ("time", "word"))
    for name, kind in writes:
        if kind.dims:
            return name, (0,)
    return None


class Numbering:
    """Numbers the frames of a stream that a source or a reframe block starts.

    given   of a stream that is cut anew: what it was before. If the rates differ, the clock of
            the new stream runs at its own.
    """

    def __init__(
        self, stream: str, info: StreamInfo, clock: Clock | None, given: StreamInfo | None = None
    ) -> None:
        self.stream, self.info = stream, info
        self._clock = clock
        known = given is not None and given.rate_hz > 0.0 and info.rate_hz > 0.0
        self._ratio = info.rate_hz / given.rate_hz if given is not None and known else 1.0
        self.seq = 0
        self.sample = 0
        self.frames = 0

    def start(self) -> Frame:
        """The frame that opens the stream."""
        return self._next(Kind.START, self.info.to_marks())

    def data(self, fields: Mapping[str, Array], born_ns: int, marks: Mapping[str, Scalar]) -> Frame:
        """The next data frame."""
        frame = Frame(DATA, self.stream, self.seq, self.sample, born_ns, fields, marks)
        self.seq += 1
        self.frames += 1
        if self._clock is None:
            self.sample += 1
        else:
            name, axes = self._clock
            shape = fields[name].shape
            count = 1
            for axis in axes:
                count *= shape[axis]
            self.sample += count
        return frame

    def gap(self, samples: int) -> Frame:
        """A frame that says how many samples were lost."""
        marks: dict[str, Scalar] = {"first": self.sample, "last": self.sample + samples - 1}
        frame = self._next(Kind.GAP, marks)
        self.sample += samples
        return frame

    def end(self) -> Frame:
        """The frame that closes the stream."""
        return self._next(Kind.END, {"frames": self.frames})

    def control(self, frame: Frame) -> Frame:
        """The frame of this numbering that stands for a control frame of the input."""
        if frame.kind is Kind.START:
            self.sample = self._converted(frame.sample)
            return self.start()
        if frame.kind is Kind.GAP:
            self.sample = self._converted(int(frame.marks["first"]))
            return self.gap(self._converted(int(frame.marks["last"]) + 1) - self.sample)
        return self.end()

    def _converted(self, sample: int) -> int:
        """The place of a sample of the input on the clock of this stream."""
        return sample if self._ratio == 1.0 else round(sample * self._ratio)

    def _next(self, kind: Kind, marks: Mapping[str, Scalar]) -> Frame:
        frame = Frame(kind, self.stream, self.seq, self.sample, time.monotonic_ns(), {}, marks)
        self.seq += 1
        return frame
