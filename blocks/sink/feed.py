"""What the sinks that hand Mode S messages to other programs share: where the messages go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blocks.network import Outlet, address
from blocks.sink.new_file import NewFile
from pipeline.block import Sink, param
from pipeline.errors import ParameterError


class Feed(Sink):
    """Messages to readers that connect, to a server, or into a file; at least one of them.

    Readers that connect get what comes from then on. A server that goes away is called again, and
    what waits is kept for it. Neither ever slows the flow: a reader for which more than
    `most_waiting` bytes wait is dropped, for a server the oldest messages are. What readers send is
    not looked at. At the end of the flow what waits is sent, for `linger_s` at most.

    The summary tells the address, with the port that was free if 0 was asked for; messages is how
    many there were, sent and bytes what was sent, summed over the readers, lost how many messages a
    reader should have had and did not get; connections counts readers that came and servers that
    were reached, readers those that are there now; slow_readers were dropped, refused_readers were
    turned away or sent too much.

    Raises ParameterError, when it is made, for an address that is none or a file that exists or
    cannot be made; RunError, on start, where it cannot listen.
    """

    listen: str = param(
        default="",
        doc='where readers may connect, "host:port"; ":port" for this machine only, port 0 for any '
        "that is free; empty: nowhere",
    )
    connect: str = param(
        default="",
        doc='server to send to, "host:port"; it is called again when it goes away; empty: none',
    )
    path: str = param(default="", doc="file to write; empty: none")
    overwrite: bool = param(default=False, doc="replace the file if it is there already")
    most_waiting: int = param(
        default=1 << 20, at_least=1024, unit="bytes",
        doc="most that may wait: a slower reader is dropped, of a server the oldest messages are",
    )  # fmt: skip
    linger_s: float = param(
        default=0.4, at_least=0.0, unit="s", doc="most that readers may take at the end"
    )

    _outlet: Outlet | None = None
    _file: NewFile | None = None

    def check(self) -> None:
        self._listen = address("listen", self.listen, least=0) if self.listen else None
        self._server = address("connect", self.connect) if self.connect else None
        if self.path:
            self._file = NewFile(self.name, self.path, self.overwrite)
        elif not (self._listen or self._server):
            raise ParameterError(
                'nowhere to send to: give listen = "127.0.0.1:0", connect = "host:port" or a path'
            )

    def start(self) -> None:
        self._close()
        self._messages = self._written = 0
        if self._listen or self._server:
            self._outlet = Outlet(self.name, self._listen, self._server, self.most_waiting)

    def send(self, messages: Sequence[bytes]) -> None:
        """Hand over whole messages, as the readers get them."""
        self._messages += len(messages)
        if self._outlet is not None:
            self._outlet.send(messages)
        if self._file is not None and messages:
            content = b"".join(messages)
            self._file.write(content)
            self._written += len(content)

    def finish(self) -> list[None]:
        self._close()
        return []

    def _close(self) -> None:
        if self._outlet is not None:
            self._outlet.close(self.linger_s)
        if self._file is not None:
            self._file.close()

    def report(self, folder: Path | None) -> Mapping[str, Any]:
        found: dict[str, Any] = {"messages": self._messages}
        if self._file is not None:
            found |= {"path": self.path, "bytes_written": self._written}
        if self._outlet is None:
            return found
        counts = self._outlet.counts
        if self._outlet.address:
            found["address"] = self._outlet.address
        found |= {
            "sent": counts.sent,
            "bytes": counts.bytes,
            "lost": counts.lost,
            "connections": counts.connections,
            "readers": counts.readers,
            "slow_readers": counts.slow,
            "refused_readers": counts.refused,
        }
        if self._outlet.trouble:
            found["trouble"] = f"{self.connect}: {self._outlet.trouble}"
        return found
