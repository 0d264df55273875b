"""Samples to GNU Radio, or to any other program that speaks its ZeroMQ format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zmq
from jaxtyping import Complex64, Float32, Int8, Int16, Int32, Int64, UInt8

from blocks.formats import gnuradio, pmt
from pipeline.block import Sink, param
from pipeline.errors import RunError
from pipeline.frame import Array, FrameInfo, StreamInfo

KINDS = {"push": zmq.PUSH, "pub": zmq.PUB, "rep": zmq.REP}
LARGE = 1 << 16  # bytes of messages that are handed over without a copy
NOT_BEGUN = -1


class ZeromqStream(Sink, name="sink.zeromq_stream"):
    """Sends the field it reads to ZMQ sources of GNU Radio, one message per frame.

    `pattern` names this end: push beside a ZMQ PULL Source, pub beside SUB Sources (whose key must
    begin with ours), rep beside a REQ Source, which gets as many items as it asks for. The items
    go out as they are, words as vectors: the source there must have the same type, vector length,
    key and setting of tags, since a message does not say what is in it. Another field is sent by
    `reads = { samples = "symbols" }`.

    With `pass_tags` the items are numbered, so that the source may see gaps; rx_time, rx_rate and
    rx_freq stand at the first item and, rx_time alone, after a gap, as far as they are known. Tags
    that source.zeromq_stream has found go on with their samples.

    Where nobody takes the samples, push and rep hold the flow up (it is then stopped by force only,
    without its last numbers) and pub throws them away uncounted, as in GNU Radio; `when_full`
    changes that. A subscriber to pub hears nothing from before it came. In the end, what is still
    under way has `linger_s` to be taken; over ipc some of the last messages are lost all the same
    if the source is held up then (libzmq issue 4660), over tcp none.

    samples     (time), or (word, time) sent as vectors: complex64 (complex), float32 (float),
                int32 (int), int16 (short), int8 or uint8 (byte)
    tag_sample  (tag) int64, numbers of the samples that have tags
    tags        (tag_byte) uint8, three PMT values of each

    Raises RunError for an address that is taken, and for a second stream where pattern is not pub
    (other streams than main put their name before the key).
    """

    address: str = param(doc="as in tcp://127.0.0.1:5555 or ipc:///tmp/samples")
    pattern: Literal["push", "pub", "rep"] = param(default="push", doc="kind of socket, this end")
    bind: bool = param(default=True, doc="bind the address; false: connect to one who does")
    key: str = param(default="", doc="of pub: sent before the items; empty: none")
    pass_tags: bool = param(default=False, doc="whether the receiver takes tags")
    when_full: Literal["auto", "wait", "drop"] = param(
        default="auto", doc="when nobody takes the samples; auto: pub drops them, others wait"
    )
    hwm: int = param(
        default=1000, at_least=0, unit="messages", doc="that may wait to be taken; 0: any number"
    )
    linger_s: float = param(
        default=5.0, at_least=0.0, unit="s", doc="patience with those who are slow, in the end"
    )

    _context: zmq.Context[gnuradio.Socket] | None = None

    def check(self) -> None:
        gnuradio.check_address(self.address)
        gnuradio.check_key(self.key, self.pattern, "pub")

    def start(self) -> None:
        if self._context is not None:
            self._context.destroy(linger=0)
        self._infos: dict[str, StreamInfo] = {}
        self._next: dict[str, int] = {}  # number of the sample after the last one of each stream
        self._samples = self._dropped = self._bad_requests = 0
        waits = self.when_full == "wait" or (self.when_full == "auto" and self.pattern != "pub")
        self._flags = 0 if waits else zmq.NOBLOCK
        options = {zmq.SNDHWM: self.hwm, zmq.LINGER: int(1e3 * self.linger_s)}
        if self.pattern == "pub":
            options[zmq.XPUB_NODROP] = waits
        self._context = zmq.Context()
        self._socket = gnuradio.open_socket(
            self._context, KINDS[self.pattern], self.address, self.bind, options
        )

    def open(self, stream: str, info: StreamInfo) -> None:
        self._infos[stream] = info
        self._next[stream] = NOT_BEGUN

    def process(
        self,
        samples: (
            Complex64[Array, "*word time"]
            | Float32[Array, "*word time"]
            | Int32[Array, "*word time"]
            | Int16[Array, "*word time"]
            | Int8[Array, "*word time"]
            | UInt8[Array, "*word time"]
        ),
        tag_sample: Int64[Array, "tag"] | None = None,
        tags: UInt8[Array, "tag_byte"] | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> None:
        if samples.size == 0:
            return
        self._next.setdefault(info.stream, NOT_BEGUN)
        if self.pattern != "pub" and len(self._next) > 1:
            raise RunError(
                f'{self.name}: the streams {", ".join(self._next)} come here, but "{self.pattern}" '
                'has one; use pattern = "pub", whose keys tell them apart'
            )
        key = self.key if info.stream == "main" else info.stream + self.key
        marked: list[tuple[int, bytes]] = []
        if self.pass_tags:
            marked = self._own_tags(samples, info)
            if tag_sample is not None and tags is not None:
                marked += _split(tag_sample // _width(samples), tags.tobytes())
        self._next[info.stream] = info.sample + samples.size
        first, at = info.sample // _width(samples), 0
        while at < len(samples):
            wanted = self._wanted() if self.pattern == "rep" else len(samples)
            items = samples[at : at + wanted]
            if not wanted or not self._send(key.encode(), first + at, items, marked):
                self._dropped += samples[at:].size
                break
            at += wanted

    def finish(self) -> list[None]:
        if self._context is not None:
            self._context.destroy()  # once the messages are gone, or linger_s has passed
            self._context = None
        return []

    def report(self, folder: Path | None) -> Mapping[str, Any]:
        found = {"samples": self._samples, "dropped": self._dropped}
        if self.pattern == "rep":
            found["bad_requests"] = self._bad_requests
        return found

    def _own_tags(self, samples: Array, info: FrameInfo) -> list[tuple[int, bytes]]:
        """Tags that say what the stream is, where it begins or goes on after a gap."""
        begun = self._next[info.stream]
        if info.sample == begun:
            return []
        about = self._infos.get(info.stream, self.context.info)
        return [
            (
                info.sample // _width(samples),
                b"".join(map(pmt.dumps, (key, value, self.context.name))),
            )
            for key, value in gnuradio.tags_of(about, info.sample).items()
            if begun == NOT_BEGUN or key == "rx_time"
        ]

    def _wanted(self) -> int:
        """How many items are asked for; 0 if none are and nobody waits for that."""
        while True:
            try:
                request = self._socket.recv(self._flags)
            except zmq.Again:
                return 0
            if len(request) == gnuradio.REQUEST.size:
                (wanted,) = gnuradio.REQUEST.unpack(request)
                if wanted:
                    return int(wanted)
            self._bad_requests += 1
            self._socket.send(b"")

    def _send(self, key: bytes, first: int, items: Array, marked: list[tuple[int, bytes]]) -> bool:
        """Send one message; False if nobody takes it and nobody waits for that.

        first   number of the first item
        marked  tags, among them those of these items
        """
        body: Any = np.ascontiguousarray(items).reshape(-1).view(np.uint8)
        # copied if it is small, or if somebody may still write to it
        copy = body.size < LARGE or items.flags.writeable
        if self.pass_tags:
            there = [(item, raw) for item, raw in marked if first <= item < first + len(items)]
            body = b"".join([gnuradio.write_header(first, there), body])
        try:
            self._socket.send_multipart([key, body] if key else [body], self._flags, copy=copy)
        except zmq.Again:
            return False
        self._samples += items.size
        return True


def _width(samples: Array) -> int:
    """Samples in one item."""
    return samples.shape[1] if samples.ndim == 2 else 1


def _split(items: Array, raw: bytes) -> list[tuple[int, bytes]]:
    """The tags that stand one after another in `raw`, with their items."""
    found, at = [], 0
    for item in items.tolist():
        begin = at
        for _ in range(3):  # key, value, who set it
            _, at = pmt.loads(raw, at)
        found.append((item, raw[begin:at]))
    return found
