"""Samples from GNU Radio, or from any other program that speaks its ZeroMQ format."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import zmq
from jaxtyping import Complex64, Float32, Int8, Int16, Int32, Int64, UInt8

from blocks import fields
from blocks.formats import gnuradio
from pipeline.block import FieldType, Gap, Silence, Source, param
from pipeline.errors import RunError
from pipeline.frame import Array, StreamInfo

KINDS = {"pull": zmq.PULL, "sub": zmq.SUB, "req": zmq.REQ}
WAIT_MS = 50  # for more to come, before the flow is given its turn
NANOSECONDS = 1_000_000_000
MOST_SAMPLES = 1 << 62  # on the clock of a stream
NO_SAMPLES = np.empty(0, np.int64)  # that have tags
NO_BYTES = np.empty(0, np.uint8)
NO_SAMPLES.flags.writeable = NO_BYTES.flags.writeable = False


class Received(NamedTuple):
    """What a frame starts with."""

    samples: Annotated[
        Complex64[Array, "*word time"]
        | Float32[Array, "*word time"]
        | Int32[Array, "*word time"]
        | Int16[Array, "*word time"]
        | Int8[Array, "*word time"]
        | UInt8[Array, "*word time"],
        fields.SAMPLES,
    ]
    tag_sample: Annotated[Int64[Array, "tag"], fields.TAG_SAMPLE]
    tags: Annotated[UInt8[Array, "tag_byte"], fields.TAGS]


class ZeromqStream(Source, name="source.zeromq_stream"):
    """The items that a ZMQ sink of GNU Radio sends, in frames of `length`, as they are.

    `pattern` names this end: pull beside a ZMQ PUSH Sink, sub beside a PUB Sink (whose key must
    begin with `key`), req beside a REP Sink. `format`, `vlen`, `key` and `pass_tags` are to be
    those of the sink: a message does not say what is in it, and what does not fit is an error
    only if it shows. Messages may have any size.

    With `pass_tags` the numbers of the items are known: items that were lost become a gap, and the
    frame before it is shorter. rx_rate, rx_freq and rx_time at the first item say what the stream
    is (rx_time is taken as UTC); they must not contradict `rate_hz` and `centre_hz`. All other tags
    stand in the fields, which sink.zeromq_stream sends on.

    PUSH and REP over tcp lose nothing while both ends run. A PUB sink drops what is not fetched in
    time; over ipc, some of the last messages are lost if the sink ends while this flow is held up
    (libzmq issue 4660). Without `pass_tags` no loss shows. With req, a sink that starts anew is not
    asked again.

    The stream ends after `frames`, or when nothing has come for `idle_s` after the first message;
    the last frame may be shorter. Nobody is authenticated: whoever reaches the address takes part.

    Mode S from a GNU Radio graph with a ZMQ PUSH Sink, 1090 MHz at 2 Msps:

        [blocks.radio]
        use = "source.zeromq_stream"
        address = "tcp://127.0.0.1:5555"
        rate_hz = 2e6
        [blocks.magnitude]
        use = "frontend.magnitude"
        [blocks.detector]
        use = "detector.modes"
        [blocks.decoder]
        use = "decoder.modes"
        [blocks.counts]
        use = "sink.modes_messages"
        [edges]
        data = ["radio -> magnitude -> detector -> decoder -> counts"]

    samples     (time), or (word, time) of vectors of `vlen`, in the dtype of `format`
    tag_sample  (tag) int64, numbers of the samples that have tags
    tags        (tag_byte) uint8, three PMT values of each (see blocks/formats/pmt.py): key, value,
                who set it

    Raises RunError while it runs: for an address that is taken, for messages that are not as
    declared, and for numbers of items that run backwards, as when the sink starts anew.
    """

    address: str = param(doc="as in tcp://127.0.0.1:5555 or ipc:///tmp/samples")
    pattern: Literal["pull", "sub", "req"] = param(default="pull", doc="kind of socket, this end")
    bind: bool = param(default=False, doc="bind the address; false: connect to one who does")
    key: str = param(default="", doc="of sub: what keys must begin with; empty: there are none")
    format: gnuradio.Format = param(
        default="cf32", doc="type of the items: complex, float, int, short, byte (s8 or u8)"
    )
    vlen: int = param(default=1, at_least=1, unit="samples", doc="length of vectors; 1: no vectors")
    pass_tags: bool = param(default=False, doc="whether the sender passes tags")
    rate_hz: float = param(
        default=0.0, at_least=0.0, unit="Hz", doc="samples per second; 0: as tags say, or unknown"
    )
    centre_hz: float = param(
        default=0.0, unit="Hz", doc="radio frequency at 0 Hz; 0: as tags say, or unknown"
    )
    length: int = param(default=4096, at_least=1, unit="items", doc="items per frame")
    frames: int = param(default=0, at_least=0, unit="frames", doc="frames to read; 0: all")
    idle_s: float = param(
        default=0.0, at_least=0.0, unit="s", doc="silence that ends the stream; 0: none does"
    )
    hwm: int = param(
        default=1000, at_least=0, unit="messages", doc="that may wait to be read; 0: any number"
    )

    _context: zmq.Context[gnuradio.Socket] | None = None

    def check(self) -> None:
        gnuradio.check_address(self.address)
        gnuradio.check_key(self.key, self.pattern, "sub")

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        dims = "word time" if self.vlen > 1 else "time"
        return {"samples": FieldType.of(gnuradio.FORMATS[self.format], dims)}

    def start(self) -> None:
        self.close()
        self._dtype = np.dtype(gnuradio.FORMATS[self.format])
        self._shape = (self.vlen,) if self.vlen > 1 else ()
        self._item_bytes = self._dtype.itemsize * self.vlen
        self._items = self._new_frame(0)  # of the last message
        self._at = 0  # of them already in a frame
        self._frame = self._new_frame(self.length)
        self._filled = 0
        self._first = 0  # number of the first item of the frame, from the first one received
        self._origin = 0  # its number at the sender
        self._due = 0  # number that comes next, at the sender
        self._lost = 0  # items before those of the last message
        self._tags: deque[tuple[int, bytes]] = deque()  # numbers of items from the first one
        self._sent = 0  # frames
        self._asked = False
        self._heard_ns = 0  # 0: never
        self._info: StreamInfo | None = None
        if not self.pass_tags:
            self._info = self._described({})
        self._context = zmq.Context()
        options = {
            zmq.RCVHWM: self.hwm, zmq.RCVTIMEO: WAIT_MS, zmq.SNDTIMEO: WAIT_MS, zmq.LINGER: 0,
        }  # fmt: skip
        self._socket = gnuradio.open_socket(
            self._context, KINDS[self.pattern], self.address, self.bind, options
        )
        if self.pattern == "sub":
            self._socket.setsockopt(zmq.SUBSCRIBE, self.key.encode())

    def describe(self) -> StreamInfo | None:
        return self._info

    def process(self) -> Received | Gap | Silence | None:
        if self._context is None or (self.frames and self._sent >= self.frames):
            return None
        until_ns = time.monotonic_ns() + WAIT_MS * 1_000_000
        while self._filled < self.length:
            if self._at == len(self._items):
                if self._receive(until_ns):
                    continue
                if not self._idle():
                    return Silence()
                self.close()
                return self._next_frame() if self._filled else None
            if self._lost:
                if self._filled:
                    break
                lost, self._lost = self._lost, 0
                self._first += lost
                return Gap(lost * self.vlen)
            stop = min(self._filled + len(self._items) - self._at, self.length)
            count = stop - self._filled
            self._frame[self._filled : stop] = self._items[self._at : self._at + count]
            self._filled, self._at = stop, self._at + count
        return self._next_frame()

    def frames_left(self) -> int | None:
        return self.frames - self._sent if self.frames else None

    def close(self) -> None:
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None

    def _new_frame(self, items: int) -> Array:
        return np.empty((items, *self._shape), self._dtype)

    def _next_frame(self) -> Received:
        """What the frame holds so far; a new one is begun."""
        samples = self._frame[: self._filled]
        self._first += self._filled
        self._frame, self._filled = self._new_frame(self.length), 0
        self._sent += 1
        if not self._tags or self._tags[0][0] >= self._first:
            return Received(samples, NO_SAMPLES, NO_BYTES)
        numbers, raw = [], []
        while self._tags and self._tags[0][0] < self._first:
            number, tag = self._tags.popleft()
            numbers.append(number * self.vlen)
            raw.append(tag)
        tags = np.frombuffer(b"".join(raw), np.uint8)
        return Received(samples, np.array(numbers, np.int64), tags)

    def _idle(self) -> bool:
        """Whether nothing has come for so long that the stream ends."""
        silent_ns = time.monotonic_ns() - self._heard_ns
        return bool(self.idle_s and self._heard_ns) and silent_ns >= self.idle_s * NANOSECONDS

    def _receive(self, until_ns: int) -> bool:
        """Take the next message; False if none comes in time."""
        if time.monotonic_ns() >= until_ns:
            return False
        try:
            if self.pattern == "req" and not self._asked:
                self._socket.send(gnuradio.REQUEST.pack(self.length - self._filled))
                self._asked = True
            parts = self._socket.recv_multipart(copy=False)
        except zmq.Again:
            return False
        self._asked = False
        self._heard_ns = time.monotonic_ns()
        if len(parts) != 1 + bool(self.key):
            expected = "a key and items are 2" if self.key else "items are 1; do they have a key?"
            raise RunError(
                f"{self.name}: a message from {self.address} has {len(parts)} parts, but {expected}"
            )
        self._take(parts[-1].buffer)
        return True

    def _take(self, message: memoryview) -> None:
        """Make the items of a message those that come next."""
        header = None
        if self.pass_tags:
            try:
                header = gnuradio.read_header(message)
            except gnuradio.HeaderError as error:
                raise self._wrong(
                    message,
                    f"has no tag header that can be read: {error}; does the sender pass tags?",
                ) from None
        body = message[header.size if header else 0 :]
        count, rest = divmod(len(body), self._item_bytes)
        if rest:
            hint = "is it another format, or another vlen?"
            if not self.pass_tags and gnuradio.has_header(message):
                hint = "it seems to have a tag header: set pass_tags = true"
            raise self._wrong(message, f"holds no whole items of {self._item_bytes} bytes; {hint}")
        if header is not None:
            self._follow(header, count, message)
        self._items, self._at = np.frombuffer(body, self._dtype).reshape(-1, *self._shape), 0

    def _follow(self, header: gnuradio.Header, count: int, message: memoryview) -> None:
        """Note the tags of a message of `count` items, and how many were lost before it."""
        info, opening = self._info, self._info is None
        if info is None:
            self._origin = self._due = header.item
            told = [gnuradio.says(tag) for tag in header.tags if tag.item == header.item]
            pairs = dict(pair for said in told for pair in said.items())
            info = self._info = self._described(pairs)
        if header.item < self._due:
            raise self._wrong(
                message, f"begins with item {header.item}, but {self._due} was to come: the sender "
                "has started anew, or several send here; start the flow anew, too"
            )  # fmt: skip
        self._lost += header.item - self._due
        self._due = header.item + count
        if (self._due - self._origin) * self.vlen > MOST_SAMPLES:
            raise self._wrong(message, f"begins with item {header.item}; no stream lasts so long")
        for tag in sorted(header.tags, key=lambda tag: tag.item):
            if not header.item <= tag.item < self._due:
                raise self._wrong(
                    message, f"has a tag on item {tag.item}, but items {header.item} to "
                    f"{self._due - 1}"
                )  # fmt: skip
            said = gnuradio.says(tag)
            if opening and said and tag.item == header.item:
                continue  # it has become part of the description
            self._agreed("rate_hz", info.rate_hz, said)
            self._tags.append((tag.item - self._origin, tag.raw))

    def _described(self, told: Mapping[str, Any]) -> StreamInfo:
        """What the parameters say, and the tags on the first item."""
        return StreamInfo(
            rate_hz=self._agreed("rate_hz", self.rate_hz, told),
            epoch_utc_ns=told.get("epoch_utc_ns", 0),
            centre_hz=self._agreed("centre_hz", self.centre_hz, told),
            format=f"gr-zeromq {self.format}",
        )

    def _agreed(self, name: str, known: float, told: Mapping[str, Any]) -> float:
        found: float = told.get(name, known)
        if known and found != known:
            raise RunError(
                f"{self.name}: {name} is {known} Hz, but a tag from {self.address} says {found} "
                "Hz; a stream has one: correct the parameter, or start the flow anew"
            )
        return found

    def _wrong(self, message: memoryview, text: str) -> RunError:
        return RunError(
            f"{self.name}: a message of {len(message)} bytes from {self.address} {text}"
        )
