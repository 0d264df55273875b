"""A bare pyzmq pair over ipc: the limit that one hop of the runtime is held against.

Sends [92-byte constant header, payload], or the payload alone, between two processes with credit
in bytes, and maps what comes with np.frombuffer. Run as a program it is the receiving process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zmq

HEADER = bytes(92)
COPY_BELOW = 64 << 10  # bytes; larger parts are sent without a copy, as the runtime does


def _socket(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    for option in (zmq.SNDHWM, zmq.RCVHWM, zmq.LINGER):
        socket.setsockopt(option, 0)
    return socket


def receive(endpoint: str, size: int, frames: int, parts: int, window: int) -> None:
    """Receive, map and acknowledge every eighth of the window."""
    socket = _socket(zmq.Context())
    socket.bind(endpoint)
    copy = size <= COPY_BELOW
    done = acked = 0
    for _ in range(frames):
        if parts == 2:
            socket.recv()
        payload = socket.recv(copy=copy)
        array = np.frombuffer(payload if copy else payload.buffer, dtype=np.float32)
        done += array.nbytes
        if done - acked >= window // 8 or done == frames * size:
            socket.send(done.to_bytes(8, "little"))
            acked = done
    socket.recv()


def rate(size: int, frames: int, *, parts: int = 2, window: int = 8 << 20) -> float:
    """Frames per second of one pair that carries `frames` payloads of `size` bytes."""
    with tempfile.TemporaryDirectory() as folder:
        endpoint = f"ipc://{folder}/pair"
        peer = subprocess.Popen(
            [sys.executable, "-m", "bench.bare", endpoint, *map(str, (size, frames, parts, window))],
            cwd=Path(__file__).parent.parent,
        )
        socket = _socket(zmq.Context())
        socket.connect(endpoint)
        payload = np.zeros(size // 4, np.float32)
        copy = size <= COPY_BELOW
        sent = acked = 0
        while not Path(endpoint.removeprefix("ipc://")).exists():
            time.sleep(0.01)
        time.sleep(0.1)
        begin = time.perf_counter()
        for _ in range(frames):
            while sent and sent + size - acked > window:
                acked = int.from_bytes(socket.recv(), "little")
            if parts == 2:
                socket.send(HEADER, zmq.SNDMORE)
            socket.send(payload, copy=copy)
            sent += size
        while acked < sent:
            acked = int.from_bytes(socket.recv(), "little")
        seconds = time.perf_counter() - begin
        socket.send(b"")
        peer.wait(10)
        return frames / seconds


if __name__ == "__main__":
    receive(sys.argv[1], *map(int, sys.argv[2:6]))
