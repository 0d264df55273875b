"""A bare pyzmq pair over ipc: the limit that an edge between two workers is held against.

It sends [92-byte header, payload], or the payload alone, from one process to another with credit
in bytes, and maps what comes with `np.frombuffer`: the least that anything built on pyzmq has to
do. There is no codec, no numbering, no counting. Run as a program it is the receiving process.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from struct import Struct
from typing import Any

import numpy as np
import zmq

from pipeline.errors import RunError

HEADER_BYTES = 92
COPY_BELOW = 64 << 10  # bytes; larger payloads are sent without a copy, as edges do
WINDOW = 8 << 20  # bytes under way
PATIENCE_MS = 20_000  # neither process waits longer for the other

_NUMBER = Struct("<Q")


def rate(size: int, frames: int, *, parts: int = 2, window: int = WINDOW) -> float:
    """Frames per second of a pair that carries `frames` payloads of `size` bytes."""
    with _peer("count", size, frames, parts, window) as socket:
        header, copy = bytes(HEADER_BYTES), size <= COPY_BELOW
        payload: Any = np.zeros(size, np.uint8)
        sent = acked = 0
        begin = time.perf_counter()
        for _ in range(frames):
            while sent > acked and sent - acked + size > window:
                (acked,) = _NUMBER.unpack(socket.recv())
            if parts == 2:
                socket.send(header, zmq.SNDMORE)
            socket.send(payload, copy=copy)
            sent += size
        while acked < sent:
            (acked,) = _NUMBER.unpack(socket.recv())
        return frames / (time.perf_counter() - begin)


def latency_us(size: int, frames: int, interval_s: float) -> float:
    """Median time in us from before the send to after the map, one frame in flight.

    interval_s   from one frame to the next
    """
    with _peer("time", size, frames, 2, WINDOW) as socket:
        rest, copy = bytes(HEADER_BYTES - 8), size <= COPY_BELOW
        payload: Any = np.zeros(size, np.uint8)
        due = time.monotonic()
        for _ in range(frames):
            due += interval_s
            time.sleep(max(0.0, due - time.monotonic()))
            socket.send(_NUMBER.pack(time.monotonic_ns()) + rest, zmq.SNDMORE)
            socket.send(payload, copy=copy)
        took: list[int] = [_NUMBER.unpack(socket.recv())[0] for _ in range(frames)]
        return statistics.median(took) / 1e3


@contextmanager
def _peer(
    what: str, size: int, frames: int, parts: int, window: int
) -> Iterator[zmq.Socket[bytes]]:
    """A socket that is connected to a receiving process which is ready."""
    context = zmq.Context()
    with tempfile.TemporaryDirectory() as folder:
        endpoint = f"ipc://{folder}/pair"
        socket = _socket(context)
        socket.connect(endpoint)
        process = subprocess.Popen(  # noqa: S603 (our own program)
            [
                sys.executable, "-m", "pipeline.transport.bare",
                endpoint, what, *map(str, (size, frames, parts, window)),
            ],
            start_new_session=True,  # Ctrl-C reaches this process alone; the other one gives up
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            socket.recv()  # it is ready
            yield socket
            socket.send(b"")
            process.wait(PATIENCE_MS / 1e3)
        except zmq.Again:
            raise RunError("the bare pyzmq pair to compare with does not answer") from None
        finally:
            process.kill()
            process.wait()
            context.destroy(linger=0)


def _socket(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    for option in (zmq.SNDHWM, zmq.RCVHWM, zmq.LINGER):
        socket.setsockopt(option, 0)
    socket.setsockopt(zmq.RECONNECT_IVL, 10)
    socket.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
    return socket


def _count(socket: zmq.Socket[bytes], size: int, frames: int, parts: int, window: int) -> None:
    """Receive, map, and acknowledge every eighth of the window."""
    copy = size <= COPY_BELOW
    done = acked = 0
    for _ in range(frames):
        if parts == 2:
            socket.recv()
        payload: Any = socket.recv(copy=copy)  # bytes if copied, else a zmq.Frame
        array = np.frombuffer(payload if copy else payload.buffer, dtype=np.uint8)
        done += array.nbytes
        if done - acked >= window // 8 or done == frames * size:
            socket.send(_NUMBER.pack(done))
            acked = done


def _time(socket: zmq.Socket[bytes], size: int, frames: int) -> None:
    """Receive, map, and tell at the end how long each took to come."""
    copy = size <= COPY_BELOW
    took = []
    for _ in range(frames):
        (sent_ns,) = _NUMBER.unpack_from(socket.recv())
        payload: Any = socket.recv(copy=copy)
        np.frombuffer(payload if copy else payload.buffer, dtype=np.uint8)
        took.append(time.monotonic_ns() - sent_ns)
    for duration in took:
        socket.send(_NUMBER.pack(duration))


def main(endpoint: str, what: str, *numbers: str) -> None:
    """Be the receiving process of one pair."""
    size, frames, parts, window = map(int, numbers)
    socket = _socket(zmq.Context())
    socket.bind(endpoint)
    socket.send(b"")
    if what == "count":
        _count(socket, size, frames, parts, window)
    else:
        _time(socket, size, frames)
    socket.recv()


if __name__ == "__main__":
    main(*sys.argv[1:])
