"""Where frames enter a worker: its sources, and the edges that come in from other workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from pipeline.block import Context, Gap, Silence, Source, make
from pipeline.errors import FieldError, RunError
from pipeline.frame import Frame, Scalar, StreamInfo
from pipeline.instance import Fields, Instance
from pipeline.metrics import Meter
from pipeline.numbering import Numbering, clock_of
from pipeline.plan import Planned
from pipeline.segment import BlockError, Out, Segment
from pipeline.transport.edge import Receiver, Sender

now_ns = time.monotonic_ns

NO_MARKS: Mapping[str, Scalar] = MappingProxyType({})  # one for all frames: edges remember it
SLOW_NS = 2_000_000  # frames handed on together should take no longer
MOST_FRAMES = 1024  # in a message; a message of the smallest frames has some 700
STREAM_LIMIT = 64  # bytes of the key of a stream, as the wire carries it
WAIT_MS = 100  # a worker with nothing to do looks around this often

#: What can hold a root up: an edge without credit, a block that waits for weights.
Branch = Sender | Segment


@dataclass(frozen=True, slots=True)
class Limits:
    """When the sources stop by themselves; 0: no limit."""

    frames: int = 0  # data frames of each stream
    seconds: float = 0.0


def _blocked(branches: Sequence[Branch]) -> bool:
    for branch in branches:  # noqa: SIM110 (a generator costs five times as much)
        if branch.blocked:
            return True
    return False


class SourceRoot:
    """A source block: asks each of its streams in turn for the next frame."""

    def __init__(self, planned: Planned, seed: int, limits: Limits) -> None:
        self.planned, self.port = planned, planned.port()
        self.outs: list[Out] = []
        self.branches: list[Branch] = []
        self.meter = Meter()
        self.frames = 0
        self.gaps = self.lost_samples = 0
        self._ended = False
        self._seed, self._limits = seed, limits
        self._streams: list[tuple[Source, Instance, Numbering]] = []
        self._turn = 0
        self._interval_ns = 0.0
        self._next_ns = 0.0
        self._stop_ns = 0

    @property
    def done(self) -> bool:
        """Whether all streams have ended and all that they sent has been processed."""
        return self._ended and not _blocked(self.branches)

    def start(self) -> None:
        """Open every stream."""
        template = self.planned.block
        if not isinstance(template, Source):
            raise RunError(f"{self.planned.name} is no source")
        clock = clock_of(self.port.writes)
        streams = self._guard("", 0, template.streams)
        for stream in streams:
            if not isinstance(stream, str) or not 1 <= len(stream.encode()) <= STREAM_LIMIT:
                raise RunError(
                    f"{self.planned.name}: the key of a stream is {stream!r}; expected a text of "
                    f"1 to {STREAM_LIMIT} bytes"
                )
        if len(set(streams)) < len(streams):
            raise RunError(f"{self.planned.name}: two streams have the same key: {streams}")
        for stream in streams:
            context = Context(self.planned.name, stream, self._seed)
            making = partial(make, self.planned.cls, template.values(), context)
            block = self._guard(stream, 0, making)
            instance = self._guard(stream, 0, partial(Instance, block, self.port))
            if isinstance(block, Source):
                info = self._guard(stream, 0, block.describe)
                numbering = Numbering(stream, info or StreamInfo(), clock)
                self._streams.append((block, instance, numbering))
                if info is not None:
                    self._push(numbering.start())
        self._pace()
        self._next_ns = float(now_ns())
        if self._limits.seconds:
            self._stop_ns = now_ns() + int(self._limits.seconds * 1e9)

    def _pace(self) -> None:
        """Let each stream that is open have its rate."""
        self._ended = not self._streams
        rates = [block.rate for block, _, _ in self._streams]
        self._interval_ns = 1e9 / sum(rates) if all(rates) and rates else 0.0

    def stop(self) -> None:
        """Close every stream that is still open."""
        while self._streams:
            self._end(0)

    def close(self) -> None:
        """Release what the streams have open, without a word to anyone."""
        for block, _, _ in self._streams:
            with suppress(Exception):  # there is an error already that says more
                block.close()
        self._streams.clear()

    @property
    def frames_left(self) -> int | None:
        """Data frames still to come, if that is known."""
        left: list[int] = []
        for block, _, numbering in self._streams:
            known = self._guard(numbering.stream, numbering.seq, block.frames_left)
            if self._limits.frames:
                rest = self._limits.frames - numbering.frames
                known = rest if known is None else min(known, rest)
            if known is None:
                return None
            left.append(known)
        return sum(left)

    def wait_ms(self) -> int:
        """Time until the next frame, or the end, is due."""
        if self._ended or _blocked(self.branches):
            return WAIT_MS
        if not self._interval_ns:
            return 0  # it became free while the worker looked at its edges
        due = [at for at in (self._interval_ns and self._next_ns, self._stop_ns) if at]
        left = (min(due) - now_ns()) / 1e6 if due else WAIT_MS
        return max(0, min(WAIT_MS, int(left)))

    def pump(self, until_ns: int) -> bool:
        """Emit frames until the time is up, none is due, or a branch is out of credit."""
        worked = False
        while not self._ended and not _blocked(self.branches):
            now = now_ns()
            if self._stop_ns and now >= self._stop_ns:
                self.stop()
                return True
            if self._interval_ns and now < self._next_ns:
                return worked
            if now >= until_ns and worked:
                return True
            if not self._emit(now):
                return worked
            worked = True
        return worked

    def _emit(self, now: int) -> bool:
        """Ask for the next frame and send it; False where nothing has come yet."""
        place = self._turn % len(self._streams)
        block, instance, numbering = self._streams[place]
        self._turn = place + 1
        if self._limits.frames and numbering.frames >= self._limits.frames:
            self._end(place)
            return True
        try:
            result = block.process()  # type: ignore[attr-defined]
            if isinstance(result, Silence):
                return False
            if not numbering.seq:
                self._describe(block, numbering)
            if result is None:
                frame = None
            elif isinstance(result, Gap):
                if result.samples < 1:
                    raise FieldError(f"a gap of {result.samples} samples; expected at least 1")
                frame = numbering.gap(result.samples)
                self.gaps += 1
                self.lost_samples += result.samples
            else:
                fields: Fields = {}
                instance.store(fields, result)
                born = now_ns()
                frame = numbering.data(fields, born, NO_MARKS)
                self.meter.note(born - now)
                self.frames += 1
        except BlockError:
            raise  # of what follows, which the start of the stream has reached
        except Exception as error:
            raise BlockError(self.planned.name, numbering.stream, numbering.seq, error) from error
        self._next_ns += self._interval_ns
        if frame is None:
            self._end(place)
        else:
            self._push(frame)
        return True

    def _describe(self, block: Source, numbering: Numbering) -> None:
        """Start a stream that could not be described before."""
        info = self._guard(numbering.stream, 0, block.describe)
        numbering.info = info or StreamInfo()
        self._push(numbering.start())

    def _end(self, place: int) -> None:
        block, _, numbering = self._streams.pop(place)
        self._turn = place  # of the stream after it
        self._pace()
        if not numbering.seq:
            self._describe(block, numbering)
        self._guard(numbering.stream, numbering.seq, block.close)
        self._push(numbering.end())

    def _push(self, frame: Frame) -> None:
        for out in self.outs:
            out.push(frame)

    def _guard(self, stream: str, seq: int, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            raise BlockError(self.planned.name, stream, seq, error) from error


class EdgeRoot:
    """An edge that comes in: hands on what it receives until its streams have ended."""

    def __init__(self, receiver: Receiver, branches: list[Branch]) -> None:
        self.receiver, self.branches = receiver, branches
        receiver.stride = 1

    @property
    def blocked(self) -> bool:
        """Whether a branch is out of credit, or waits for weights."""
        return _blocked(self.branches)

    @property
    def done(self) -> bool:
        """Whether the sender has closed the edge and all that came has been processed."""
        return self.receiver.ended and not _blocked(self.branches)

    def pump(self, until_ns: int) -> bool:
        """Process messages until the time is up, none is left, or a branch is out of credit."""
        worked = False
        receiver = self.receiver
        before = now_ns()
        while not _blocked(self.branches):
            if not receiver.pump():
                break
            worked = True
            now = now_ns()
            if now - before > SLOW_NS:
                receiver.stride = 1
            elif receiver.stride < MOST_FRAMES:
                receiver.stride *= 2
            if now >= until_ns:
                break
            before = now
        return worked
