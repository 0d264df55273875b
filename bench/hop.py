"""One hop of the runtime over ipc, beside a bare pyzmq pair, in one run.

The hop is the two ends of an edge as workers use them: codec with CRC, credit in bytes,
acknowledgements, sequence check, counters; small frames share messages unless told otherwise.
`python -m bench.hop` prints medians and ratios over interleaved pairs; one pair for a profile:
`py-spy record --subprocesses -f raw -o FILE -- python -m bench.hop --pairs 1 --bytes 1024`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import MappingProxyType

import numpy as np
import zmq

from pipeline.frame import Frame, Kind
from pipeline.limits import FRAME_CAP
from pipeline.transport import bare, edge
from pipeline.transport.sockets import bind, connect, data_socket
from pipeline.wire import Codec

SIZES = {1 << 10: 200_000, 16 << 10: 50_000, 256 << 10: 8_000, 4 << 20: 500}  # bytes: frames


def receive(endpoint: str) -> None:
    """The receiving end: count what comes until the sender closes."""
    socket = data_socket(zmq.Context(), FRAME_CAP)
    bind(socket, endpoint, None)
    frames = 0

    def take(frame: Frame) -> None:
        nonlocal frames
        frames += 1

    receiver = edge.Receiver("s->k", socket, Codec(), take)
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    while not receiver.ended:
        if not receiver.pump() and not poller.poll(1):
            receiver.ack()
            poller.poll(100)
    if receiver.lost or receiver.refused:
        raise SystemExit(f"{receiver.lost} lost, {receiver.refused} refused")
    poller.poll(1000)  # the sender closes first


def rate(size: int, frames: int, *, shared: bool = True) -> float:
    """Frames per second of one hop that carries `frames` payloads of `size` bytes."""
    with tempfile.TemporaryDirectory() as folder:
        endpoint = f"ipc://{folder}/hop"
        peer = subprocess.Popen(
            [sys.executable, "-m", "bench.hop", "--receive", endpoint],
            cwd=Path(__file__).parent.parent,
        )
        socket = data_socket(zmq.Context(), FRAME_CAP)
        connect(socket, endpoint, None)
        while not Path(endpoint.removeprefix("ipc://")).exists():
            time.sleep(0.01)
        time.sleep(0.1)
        sender = edge.Sender("s->k", socket, Codec(), ("samples",))
        kept = edge.SHARED_BELOW
        edge.SHARED_BELOW = kept if shared else 0
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        payload = np.zeros(size // 4, np.float32)
        payload.flags.writeable = False
        fields = {"samples": payload}
        marks: MappingProxyType[str, int] = MappingProxyType({})
        begin = time.perf_counter()
        for seq in range(frames):
            sender.push(Frame(Kind.DATA, "main", seq, seq, 0, fields, marks))
            while sender.blocked:
                poller.poll(100)
                sender.poll()
        sender.close()
        while not sender.settled:
            poller.poll(100)
            sender.flush()
        seconds = time.perf_counter() - begin
        edge.SHARED_BELOW = kept
        socket.send(b"")
        if peer.wait(10):
            raise SystemExit("the receiving end failed")
        return frames / seconds


def pair(size: int, frames: int) -> dict[str, float]:
    """Frames per second of a hop and of bare pairs, measured one after the other."""
    found = {"hop": rate(size, frames)}
    if size < edge.SHARED_BELOW:
        found["unshared"] = rate(size, frames, shared=False)
    found["bare2"] = bare.rate(size, frames)
    found["bare1"] = bare.rate(size, frames, parts=1)
    return found


def ratio(runs: list[dict[str, float]], over: str, under: str) -> float:
    """Median of the ratios within each round."""
    return statistics.median(run[over] / run[under] for run in runs)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--bytes", type=int, action="append", help="only this payload")
    parser.add_argument("--receive", metavar="ENDPOINT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.receive:
        receive(arguments.receive)
        return
    print(
        "   bytes     hop/s  bare 2 parts  1 part  hop:bare2  hop:bare1  "
        "unshared:bare2  hop:unshared"
    )
    for size in arguments.bytes or SIZES:
        runs = [pair(size, SIZES[size]) for _ in range(arguments.pairs)]
        hop, two, one = (
            statistics.median(run[key] for run in runs) for key in ("hop", "bare2", "bare1")
        )
        line = f"{size:>8} {hop:>9.0f} {two:>13.0f} {one:>7.0f}"
        line += f" {ratio(runs, 'hop', 'bare2'):>10.2f} {ratio(runs, 'hop', 'bare1'):>10.2f}"
        if "unshared" in runs[0]:
            line += f" {ratio(runs, 'unshared', 'bare2'):>15.2f}"
            line += f" {ratio(runs, 'hop', 'unshared'):>13.2f}"
        print(line)


if __name__ == "__main__":
    main()
