"""A server that talks like rtl_tcp, for tests: it sends what it is told and notes the commands."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

HEADER = b"RTL0" + (5).to_bytes(4, "big") + (29).to_bytes(4, "big")


class Server:
    """Serves connections until it is closed.

    serve   called with each connection and its number, 0, 1, 2 ..., in a thread of its own; when it
            returns the connection is closed
    """

    def __init__(self, serve: Callable[[socket.socket, int], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.closed = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        number = 0
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve_one, args=(connection, number), daemon=True).start()
            number += 1

    def _serve_one(self, connection: socket.socket, number: int) -> None:
        with connection, suppress(OSError):
            self._serve(connection, number)

    def close(self) -> None:
        self.closed.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sending(content: bytes, commands: list[bytes] | None = None) -> Server:
    """A server that sends this on every connection, then nothing until the client hangs up.

    commands   the 5-byte commands that come are appended to it
    """

    def serve(connection: socket.socket, number: int) -> None:
        connection.sendall(HEADER + content)
        with connection.makefile("rb") as file:
            while command := file.read(5):
                if commands is not None:
                    commands.append(command)

    return Server(serve)
