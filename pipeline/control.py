"""Messages between the supervisor, its workers and the command line: msgpack maps with a `verb`.

Workers say `hello`, `ready`, `status`, `failed` and `done`; the supervisor says `go`, `stop`,
`abort` and `exit`. A command line in another terminal asks `status` or `stop`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack
import zmq

from pipeline.errors import RunError

MESSAGE_LIMIT = 16 << 20  # bytes; results of sinks travel in one message
ANSWER_MS = 2000


def pack(message: Mapping[str, Any]) -> bytes:
    """A message as bytes."""
    packed: bytes = msgpack.packb(_plain(message))
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


def _plain(value: Any) -> Any:
    """Plain Python values, so that a sink may report numpy numbers, tuples and paths."""
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, (str, int)) else str(key): _plain(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
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
        """Send a message."""
        self.socket.send(pack(message))


def ask(endpoint: str, message: Mapping[str, Any]) -> dict[str, Any]:
    """Ask a running supervisor; RunError where it does not answer."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    try:
        socket.connect(endpoint)
        socket.send(pack(message))
        if not socket.poll(ANSWER_MS):
            raise RunError(f"{endpoint} does not answer; is the run still alive?")
        return unpack(socket.recv())
    finally:
        socket.close()
        context.term()
