"""AIS messages as sentences of NMEA, for chart programs."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Int32, UInt8

from blocks.formats import ais, nmea
from blocks.network import address
from blocks.sink.new_file import NewFile
from pipeline.block import Sink, param
from pipeline.errors import RunError
from pipeline.frame import Array, Scalar

KEPT = 20_000  # sentences that are left in the folder of the run, the last ones


class Nmea(Sink, name="sink.nmea"):
    """The !AIVDM sentences of AIS messages: into a file, and to a chart program by UDP.

    IEC 61162-1; a message of more than 60 characters takes several sentences. Each sentence is a
    datagram of its own and a line of the file, both with carriage return and line feed. Packets
    that are no message of types 1 ... 27 are left out. The last 20,000 sentences are also left in
    the folder of the run, as sentences.nmea.

    messages and sentences are how many there were; undelivered is how many datagrams the system
    refused, which does not stop the flow.

    packet_bytes  (packet, byte) uint8, packet_length (packet) int32 [bytes]

    Raises ParameterError, when it is made, for an address that is none, or if the file of `path`
    exists or cannot be made; RunError, on start, where the host is not known.
    """

    path: str = param(default="", doc="file for the sentences; empty: none")
    overwrite: bool = param(default=False, doc="replace the file if it is there already")
    udp: str = param(
        default="", doc='where to send datagrams, "host:port", such as "127.0.0.1:10110"; empty: no'
    )
    channel: Literal["A", "B"] = param(
        default="A", doc="channel that the sentences name: A is 161.975 MHz, B is 162.025 MHz"
    )

    _file: NewFile | None = None
    _socket: socket.socket | None = None
    _to: Any = None  # address, as sockets take it

    def check(self) -> None:
        self._place = address("udp", self.udp) if self.udp else None
        if self.path:
            self._file = NewFile(self.name, self.path, self.overwrite)

    def start(self) -> None:
        self._close()
        self._messages = self._sentences = self._undelivered = 0
        self._parted = 0  # messages of several sentences: they are numbered
        self._last: deque[str] = deque(maxlen=KEPT)
        if self._place is not None:
            try:
                found = socket.getaddrinfo(*self._place, type=socket.SOCK_DGRAM)
                family, kind, _, _, self._to = found[0]
            except OSError as error:
                raise RunError(f"{self.name}: udp = {self.udp!r}: {error.strerror}") from None
            self._socket = socket.socket(family, kind)
            self._socket.setblocking(False)

    def process(
        self,
        packet_bytes: UInt8[Array, "packet byte"],
        packet_length: Int32[Array, "packet"],
    ) -> None:
        for row, length in zip(packet_bytes, packet_length.tolist(), strict=True):
            message = row[:length].tobytes()
            if not 1 <= ais.message_type(message) <= ais.MOST_TYPES:
                continue
            sentences = nmea.sentences(message, self.channel, self._parted)
            self._messages += 1
            self._sentences += len(sentences)
            self._parted += len(sentences) > 1
            self._last.extend(sentences)
            for sentence in sentences:
                self._send(sentence.encode() + b"\r\n")

    def _send(self, line: bytes) -> None:
        if self._file is not None:
            self._file.write(line)
        if self._socket is not None:
            try:
                self._socket.sendto(line, self._to)
            except OSError:  # nobody listens, or there is no way to it: others may be served
                self._undelivered += 1

    def finish(self) -> list[None]:
        self._close()
        return []

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def report(self, folder: Path | None) -> Mapping[str, Any]:
        found: dict[str, Any] = {"messages": self._messages, "sentences": self._sentences}
        if self.udp:
            found["undelivered"] = self._undelivered
        if folder is not None and self._last:
            text = "".join(f"{sentence}\r\n" for sentence in self._last)
            (folder / "sentences.nmea").write_bytes(text.encode())
            found["file"] = "sentences.nmea"
        return found

    def state(self) -> Mapping[str, Array | Scalar]:
        return {
            "messages": self._messages, "sentences": self._sentences,
            "undelivered": self._undelivered, "parted": self._parted,
            "last": "\n".join(self._last),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        self._messages, self._sentences = int(state["messages"]), int(state["sentences"])
        self._undelivered, self._parted = int(state["undelivered"]), int(state["parted"])
        self._last = deque(str(state["last"]).split(), maxlen=KEPT)
