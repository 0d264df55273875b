"""The two ends of an edge between workers.

A data edge is ordered, blocking and lossless: the sender stops when `window` bytes are not yet
acknowledged (one larger frame goes alone), the receiver acknowledges what it has processed, in
total bytes, every eighth of the window and when it falls idle. A tap never slows its sender: while
the receiver is behind, the newest frame replaces the one that waits, and each replaced one is
counted as dropped; `start`, `end` and `gap` frames always go.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import zmq

from pipeline.errors import FrameError
from pipeline.frame import Array, Frame, Kind
from pipeline.limits import WINDOW
from pipeline.wire import PART_LIMIT, Codec

TAP_WINDOW = 64 << 10  # bytes under way on a tap: a slow reader should see new frames
SHARED_BELOW = 8 << 10  # smaller frames share messages while a backlog stands
STALE_NS = 500_000  # a message that is being filled leaves after this time

DATA = Kind.DATA
END = Kind.END
NOBLOCK, SNDMORE = int(zmq.NOBLOCK), int(zmq.SNDMORE)  # an enum costs a microsecond a call
_ACK = struct.Struct("<Q")
Socket = zmq.Socket[bytes]


class Sender:
    """The sending end of an edge; frames are pushed, `poll` does the rest."""

    def __init__(
        self,
        name: str,
        socket: Socket,
        codec: Codec,
        carried: Sequence[str] | None,
        *,
        lossless: bool = True,
        window: int = WINDOW,
    ) -> None:
        self.name, self.socket = name, socket
        self._codec = codec
        self._carried = None if carried is None else tuple(carried)
        self._n_carried = -1 if carried is None else len(carried)
        self._lossless = lossless
        self._window = window
        self.frames = 0
        self.dropped = 0
        self.blocked = False  # no credit is left: the blocks before this edge must pause
        self._granted = 0  # bytes counted against the window so far
        self._wired = 0  # of them, bytes handed to the socket
        self._acked = 0
        self._shared: list[bytes | Array] = []  # pieces of the message that is being filled
        self._shared_bytes = 0
        self._shared_since = 0
        self._waiting: deque[_Packed] = deque()
        self._closing = False
        self._closed = False
        self.abandoned = False  # the receiver has died: what a tap sends then is dropped

    @property
    def settled(self) -> bool:
        """Whether the edge is closed and the receiver has acknowledged all that was pushed."""
        return self.abandoned or (self._closed and self._acked == self._granted)

    @property
    def queue(self) -> int:
        """Bytes under way or waiting."""
        return self._granted - self._acked + sum(packed.size for packed in self._waiting)

    def counts(self) -> dict[str, int]:
        """Numbers for the summary."""
        return {
            "frames": self.frames, "bytes": self._granted, "dropped": self.dropped,
            "queue": self.queue,
        }  # fmt: skip

    def push(self, frame: Frame) -> None:
        """Send a frame, or keep it until there is credit."""
        if len(frame.fields) != self._n_carried:
            frame = self._project(frame)
        pieces, size, large = self._codec.pack(frame)
        granted = self._granted + size
        if (
            self._shared
            and size < SHARED_BELOW
            and granted - self._acked <= self._window
            and self._shared_bytes + size <= PART_LIMIT
            and not self._waiting
        ):  # the common case under load, all in one place: one more frame for the message
            self._shared += pieces
            self._shared_bytes += size
            self._granted = granted
            self.frames += 1
            return
        if self._waiting or not self._send(pieces, size, large):
            packed = _Packed(pieces, size, large, frame.stream if frame.kind is DATA else None)
            if not self._lossless and frame.kind is DATA:
                self._drop_waiting(frame.stream)
            self._waiting.append(packed)
            self.blocked = self._lossless
        elif self._granted - self._acked >= self._window:
            self.blocked = self._lossless

    def poll(self) -> None:
        """Read acknowledgements, send what has credit now, and let no message grow stale."""
        if self._acked != self._wired:
            self._read_acks()
        while self._waiting:
            packed = self._waiting[0]
            if not self._send(packed.pieces, packed.size, packed.large):
                break
            self._waiting.popleft()
        self.blocked = self._lossless and (
            bool(self._waiting) or self._granted - self._acked >= self._window
        )
        if self._shared and (
            self._acked == self._wired or time.monotonic_ns() - self._shared_since > STALE_NS
        ):
            self._flush()

    def close(self) -> None:
        """Tell the receiver, after all that was pushed, that nothing more comes."""
        self._closing = True
        self.flush()

    def flush(self) -> None:
        """Hand everything that has credit to the socket: the worker is about to wait."""
        self.poll()
        if self._shared:
            self._flush()
        if self._closing and not self._closed and not self._waiting:
            self.socket.send(b"")
            self._closed = True

    def _project(self, frame: Frame) -> Frame:
        """The frame with the fields that someone downstream reads, and no others."""
        if frame.kind is not DATA or self._carried is None:
            return frame
        kind, stream, seq, sample, born_ns, fields, marks = frame
        kept = {name: fields[name] for name in self._carried}
        return Frame(kind, stream, seq, sample, born_ns, kept, marks)

    def _drop_waiting(self, stream: str) -> None:
        """Newest wins: drop the waiting data frame of this stream, if there is one."""
        for place, packed in enumerate(self._waiting):
            if packed.data_of == stream:
                del self._waiting[place]
                self.dropped += 1
                return

    def _send(self, pieces: list[bytes | Array], size: int, large: bool) -> bool:
        """Send one frame, unless its bytes exceed the window."""
        under_way = self._granted - self._acked
        if under_way and under_way + size > self._window and not self._credit(size):
            return False
        if large:
            if self._shared:
                self._flush()
            self._send_parts(pieces)
            self._wired += size
        elif size < SHARED_BELOW and (self._shared or self._backlog()):
            if self._shared_bytes + size > PART_LIMIT:
                self._flush()
            if not self._shared:
                self._shared_since = time.monotonic_ns()
            self._shared += pieces
            self._shared_bytes += size
        else:
            if self._shared:
                self._flush()
            self.socket.send(b"".join(cast("list[bytes]", pieces)))
            self._wired += size
        self._granted += size
        self.frames += 1
        return True

    def _credit(self, size: int) -> bool:
        """Whether acknowledgements that have come make room for `size` bytes."""
        self._read_acks()
        under_way = self._granted - self._acked
        if under_way and under_way + size > self._window:
            if self._shared:
                self._flush()
            return False
        return True

    def _backlog(self) -> bool:
        """Whether the receiver still has something to do."""
        if self._acked != self._wired:
            self._read_acks()
        return self._acked != self._wired

    def _send_parts(self, pieces: Sequence[Any]) -> None:
        head, *arrays = pieces
        last = len(arrays) - 1
        self.socket.send(head, SNDMORE)
        for place, array in enumerate(arrays):
            # copied if small: libzmq then needs no call back into Python to release it
            self.socket.send(array, SNDMORE if place < last else 0, copy=array.nbytes < 4096)

    def _flush(self) -> None:
        self.socket.send(b"".join(cast("list[bytes]", self._shared)))
        self._wired += self._shared_bytes
        self._shared.clear()
        self._shared_bytes = 0

    def _read_acks(self) -> None:
        try:
            while True:
                (self._acked,) = _ACK.unpack(self.socket.recv(NOBLOCK))
        except zmq.Again:
            return


class _Packed(NamedTuple):
    """A frame that waits for credit."""

    pieces: list[bytes | Array]
    size: int
    large: bool
    data_of: str | None  # its stream, if it is a data frame


class Receiver:
    """The receiving end of an edge; `pump` hands what has come to `out`."""

    def __init__(
        self,
        name: str,
        socket: Socket,
        codec: Codec,
        out: Callable[[Frame], None],
        *,
        lossless: bool = True,
        window: int = WINDOW,
    ) -> None:
        self.name, self.socket = name, socket
        self._codec = codec
        self._out = out
        self._lossless = lossless
        self._ack_every = window // 8
        self.frames = 0
        self.bytes = 0  # of messages that are processed
        self.lost = 0
        self.refused = 0
        self.ended = False  # the sender has closed the edge
        self.last_refusal = ""
        self.stride = 1 << 16  # frames handed on at a time; a worker sets it by how long they take
        self._rest: deque[Frame] = deque()  # of a message under way
        self._size = 0
        self._acked = 0
        self._next: dict[str, int] = {}

    def counts(self) -> dict[str, int]:
        """Numbers for the summary."""
        counts = {"frames": self.frames, "lost": self.lost}
        return counts | ({"refused": self.refused} if self.refused else {})

    def pump(self) -> bool:
        """Process one message, if one has come, or `stride` frames of it."""
        rest = self._rest
        frames: Sequence[Frame]
        if rest:
            frames = [rest.popleft() for _ in range(min(self.stride, len(rest)))]
        else:
            socket = self.socket
            try:
                message = socket.recv(NOBLOCK, copy=False)
            except zmq.Again:
                return False
            part = message.bytes
            size = len(part)
            if not size:
                self.ended = True
                self.ack()
                return True
            parts: list[memoryview] = []
            while message.more:
                message = socket.recv(copy=False)
                parts.append(message.buffer)
                size += len(message)
            self._size = size
            try:
                frames = self._codec.decode(part, parts)
            except FrameError as error:
                self.refused += 1
                self.last_refusal = str(error)
                frames = ()
            if len(frames) > self.stride:
                rest.extend(frames[self.stride :])
                frames = frames[: self.stride]
        out = self._out
        stream, expected = "", 0
        for frame in frames:
            if frame.stream != stream:
                if stream:
                    self._next[stream] = expected
                stream = frame.stream
                expected = self._next.get(stream, 0)
            seq = frame.seq
            if seq != expected and self._lossless:
                self.lost += abs(seq - expected)
            expected = seq + 1
            if frame.kind is END:
                expected = 0
            out(frame)
        if stream:
            self._next[stream] = expected
        self.frames += len(frames)
        if not rest:
            self.bytes += self._size
            if self.bytes - self._acked >= self._ack_every:
                self.ack()
        return True

    @property
    def unacknowledged(self) -> bool:
        """Whether the sender does not know yet that all it sent was processed."""
        return self._acked != self.bytes

    def ack(self) -> None:
        """Acknowledge everything processed so far."""
        if self._acked != self.bytes:
            try:
                self.socket.send(_ACK.pack(self.bytes), NOBLOCK)
            except zmq.Again:
                return  # nobody is there: the worker that sends has died
            self._acked = self.bytes
