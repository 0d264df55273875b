"""The other ends of ZeroMQ streams, by hand, for tests of the blocks that talk to GNU Radio."""

from __future__ import annotations

import socket as socketlib
import struct
import threading
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from blocks.formats.pmt import dumps

ANYWHERE = "tcp://127.0.0.1:*"
MOST_ITEMS = 700  # in a reply


def header(item: int, *tags: tuple[int, str, Any]) -> bytes:
    """A tag header: number of the first item, and (item, key, value) of each tag."""
    written = [struct.pack("<Q", at) + raw_tag(key, value) for at, key, value in tags]
    return struct.pack("<HBQQ", 0x5FF0, 1, item, len(tags)) + b"".join(written)


def raw_tag(key: str, value: Any, setter: Any = "me") -> bytes:
    """Key, value and setter of a tag."""
    return dumps(key) + dumps(value) + dumps(setter)


def bound(socket: zmq.Socket[bytes]) -> str:
    """Bind a socket anywhere on this machine; returns where."""
    socket.bind(ANYWHERE)
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def free_address() -> str:
    """A tcp address of this machine where nobody listens."""
    with socketlib.socket() as there:
        there.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{there.getsockname()[1]}"


@cache
def replier(content: bytes, size: int) -> str:
    """Address of one who replies to REQ sockets with these items, from the first for each of them.

    Every 500th item has a tag. Replies hold 700 items at most; after the last item none comes.

    size   of an item, in bytes
    """
    socket = zmq.Context.instance().socket(zmq.ROUTER)
    socket.setsockopt(zmq.LINGER, 0)
    address = bound(socket)

    def serve() -> None:
        places: dict[bytes, int] = {}
        while True:
            client, _, request = socket.recv_multipart()
            first = places.get(client, 0)
            stop = min(first + struct.unpack("<I", request)[0], first + MOST_ITEMS)
            items = content[first * size : stop * size]
            if items:
                places[client] = stop = first + len(items) // size
                tags = [(at, "mark", at) for at in range(-(-first // 500) * 500, stop, 500)]
                socket.send_multipart([client, b"", header(first, *tags) + items])

    threading.Thread(target=serve, daemon=True).start()
    return address


def from_replier(array: np.ndarray) -> Callable[[Path], Mapping[str, Any]]:
    """Parameters of source.zeromq_stream that fetch this array of floats in 24 frames."""
    return lambda folder: {
        "address": replier(array.tobytes(), array.itemsize), "pattern": "req", "format": "f32",
        "pass_tags": True, "length": 100, "frames": 24,
    }  # fmt: skip
