"""Messages between the supervisor, its workers and the command line: msgpack maps with a `verb`.

Workers say `hello`, `ready`, `status`, `swapped`, `failed` and `done`; the supervisor says `go`,
`swap`, `replace`, `lost`, `stop`, `abort` and `exit`. A command line in another terminal asks
`status`, `swap`, `replace` or `stop`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgpack
import zmq

from pipeline.errors import RunError

ANSWER_MS = 2000


def pack(message: Mapping[str, Any]) -> bytes:
    """A message as bytes. What a sink reports may be odd; the line must carry it all the same."""
    packed: bytes = msgpack.packb(plain(message), unicode_errors="backslashreplace")
    return packed


def unpack(data: bytes) -> dict[str, Any]:
    """A message from bytes; RunError where they are none."""
    try:
        message = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise RunError(f"a control message that cannot be read: {error}") from None
    if not isinstance(message, dict) or not isinstance(message.get("verb"), str):
        raise RunError("a control message without a verb")
    return message


def plain(value: Any) -> Any:
    """Values that msgpack and JSON both carry, so that a sink may report numpy numbers and paths.

    A number that is not finite becomes None, what has no counterpart its text.

    >>> plain({"rate": float("nan"), "ci95": (0, 1), 5: b"x"})
    {'rate': None, 'ci95': [0, 1], 5: "b'x'"}
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, (str, int)) else str(key): plain(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 64:
        return value
    return str(value)


class WorkerLink:
    """A worker's line to its supervisor."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, name: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 1000)
        self.socket.setsockopt(zmq.ROUTING_ID, f"worker:{name}".encode())
        self.socket.connect(endpoint)

    def messages(self) -> list[Mapping[str, Any]]:
        """Messages that have come."""
        found: list[Mapping[str, Any]] = []
        try:
            while True:
                found.append(unpack(self.socket.recv(zmq.NOBLOCK)))
        except zmq.Again:
            return found

    def wait_for(self, *verbs: str) -> Mapping[str, Any]:
        """The next message with one of these verbs; others are dropped."""
        while True:
            message = unpack(self.socket.recv())
            if message["verb"] in verbs:
                return message

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; a status is left out where the supervisor does not read, halted maybe."""
        if message["verb"] == "status":
            with suppress(zmq.Again):
                self.socket.send(pack(message), zmq.NOBLOCK)
        else:
            self.socket.send(pack(message))


def ask(endpoint: str, message: Mapping[str, Any], wait_ms: int = ANSWER_MS) -> dict[str, Any]:
    """Ask a running supervisor; RunError where it does not answer in time."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    try:
        socket.connect(endpoint)
        socket.send(pack(message))
        if not socket.poll(wait_ms):
            raise RunError(f"{endpoint} does not answer; is the run still alive?")
        return unpack(socket.recv())
    finally:
        socket.close()
        context.term()
