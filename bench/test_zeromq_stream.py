"""Floats from a flow graph of GNU Radio, over ZeroMQ, beside another flow graph that takes them."""

from __future__ import annotations

import socket
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench import flows
from bench.sides import DEBIAN, ROOT
from pipeline import catalogue
from pipeline.flow import Flow

ROUNDS = 5
SECONDS = 1.0
SIDE = ROOT / "bench" / "peers" / "gnu_radio_stream.py"


@contextmanager
def sender(address: str) -> Iterator[None]:
    """A flow graph that sends to one who comes."""
    process = subprocess.Popen([DEBIAN, str(SIDE), "send", address], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def theirs(address: str) -> float:
    """Floats per second that another flow graph takes."""
    command = [DEBIAN, str(SIDE), "take", address, str(SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return float(done.stdout)


def ours(address: str, length: int, frames: int) -> float:
    """Floats per second that a flow takes, in frames of some length."""
    catalogue.load_file(flows.BLOCKS)
    flow = Flow("bench_stream")
    flow.add(
        "source", "source.zeromq_stream",
        address=address, format="f32", length=length, frames=frames,
    )  # fmt: skip
    flow.add("sink", "sink.bench_arrivals")
    flow.connect("source -> sink")
    return flows.run(flow)["results"]["sink"]["frames_per_s"] * length


def free_tcp() -> str:
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{there.getsockname()[1]}"


def measure(where: str, length: int) -> list[dict[str, float]]:
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            address = free_tcp() if where == "tcp" else f"ipc://{folder}/{number}"
            with sender(address):
                peer = theirs(address)
                # as long as theirs, if it is as fast
                mine = ours(address, length, max(100, int(peer * SECONDS / length)))
            runs.append({"ours": mine, "theirs": peer})
    return runs


@pytest.mark.parametrize(("where", "length"), [("tcp", 4096), ("ipc", 65536)])
def test_from_gnu_radio(once, add, where, length):
    asked = [DEBIAN, "-c", "from gnuradio import gr, zeromq; print(gr.version())"]
    found = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    what = f"GNU Radio sends floats over {where}, frames of {length}"
    if found.returncode:
        add(what, "", "absent", how="GNU Radio: Debian's package gnuradio")
        return
    runs = once(measure, where, length)
    medians = {key: statistics.median(run[key] for run in runs) for key in ("ours", "theirs")}
    ratio = statistics.median(run["ours"] / run["theirs"] for run in runs)
    add(
        what,
        f"{medians['ours'] / 1e6:.0f} M/s",
        f"{medians['theirs'] / 1e6:.0f} M/s",
        f"{ratio:.2f}",
        how=f"GNU Radio {found.stdout.strip()}, ZMQ PUSH Sink to PULL Source, two processes",
    )
