"""Mode S as it comes: a receiver that paces its samples, a flow, and a client of its messages.

    python -m bench.live --seconds 600

A process of its own talks like rtl_tcp and sends 2 million samples a second, in real time: the
shared recording modes1.bin every half second, with noise between (or, where it is not here, noise
with made-up messages). The flow detects and decodes, counts, and sends timed AVR lines to a client.
Latency is from when the last sample of a message was due to when its line has come to the client;
the length of a frame, in which samples have to gather, is taken off for what counts. Every line is
compared with those that a run over a file gives of the same samples. Resident memory is that of the
worker, from 5 s after its start to 1 s before its end. Exit code 1 if samples or messages were
lost, for latencies of 50 ms or more (99th percentile), or if memory has grown by more than 8 MiB.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pipeline.flow import Flow
from pipeline.local import run
from pipeline.roots import Limits
from pipeline.supervisor import Supervisor
from tests import mode_s_air as air

RATE_HZ, TICKS_HZ = 2_000_000, 12_000_000
PERIOD_S = 0.5
LENGTH = 16384  # of a frame, as in flows/modes_live.toml
CHUNK = 2000  # samples that the receiver sends at once: 1 ms
MIB = 1 << 20
BAR_MS, GROWTH_MIB, WARM_S = 50.0, 8.0, 5.0
HEADER = b"RTL0" + bytes([0, 0, 0, 5, 0, 0, 0, 29])

Line = tuple[int, str]  # ticks, digits


def content() -> np.ndarray:
    """One period of cu8."""
    rng = np.random.default_rng(4)
    numbers = np.rint(127.5 + rng.normal(0.0, 3.0, int(2 * PERIOD_S * RATE_HZ)))
    path = air.DATA / "modes1.bin"
    if path.exists():
        recorded = np.fromfile(path, np.uint8)
        numbers[: recorded.size] = recorded
    else:
        for begin in range(1000, int(PERIOD_S * RATE_HZ) - 1000, 2000):
            signal = 40.0 * air.envelope(air.squitter(rng), rng.random(), RATE_HZ, 300)
            numbers[2 * begin : 2 * begin + 600 : 2] += np.rint(signal)
    return numbers.clip(0, 255).astype(np.uint8)


def serve(path: str) -> None:
    """Send the period in `path` to one client, over and over, in real time.

    Prints the port; then, in ns of CLOCK_MONOTONIC, when sample 0 was due.
    """
    period = Path(path).read_bytes()
    step = 2 * CHUNK
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(HEADER)
        begin_ns, sent = time.monotonic_ns(), 0
        print(begin_ns, flush=True)
        with suppress(OSError):
            while True:
                sent += CHUNK
                due_ns = begin_ns + sent * 1_000_000_000 // RATE_HZ
                time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
                at = 2 * (sent - CHUNK) % len(period)
                client.sendall(period[at : at + step])


def flow(receiver: str = "", tape: str = "", **out: Any) -> Flow:
    """What `flows/modes_live.toml` has with one way out, or the same from a tape.

    out    parameters of the way out
    """
    found = Flow("live")
    if tape:
        found.add("receiver", "source.recording", path=tape, rate_hz=float(RATE_HZ))
    else:
        found.add(
            "receiver", "source.rtl_tcp", connect=receiver, rate_hz=float(RATE_HZ), length=LENGTH
        )
    found.add("magnitude", "frontend.magnitude")
    found.add("detector", "detector.modes")
    found.add("decoder", "decoder.modes")
    found.add("counts", "sink.modes_messages")
    found.add("avr", "sink.avr", timed=True, **out)
    found.connect("receiver -> magnitude -> detector -> decoder -> counts")
    found.connect("decoder -> avr")
    return found


def lines_of(text: str) -> Iterator[Line]:
    for line in text.split():
        yield int(line[1:13], 16), line[13:-1]


def expected(period: np.ndarray, folder: Path) -> tuple[list[Line], list[Line]]:
    """Lines of the first period and of each after it, by a run over a file of three."""
    tape, out = folder / "tape.cu8", folder / "lines"
    tape.write_bytes(3 * period.tobytes())
    run(flow(tape=str(tape), path=str(out)))
    lines = list(lines_of(out.read_text()))
    ticks = int(PERIOD_S * TICKS_HZ)
    parts = [
        [(at - n * ticks, digits) for at, digits in lines if at // ticks == n] for n in range(3)
    ]
    assert [digits for _, digits in parts[1]] == [digits for _, digits in parts[2]]
    return parts[0], parts[1]


def compare(got: list[Line], first: list[Line], later: list[Line]) -> tuple[int, int]:
    """How many lines are missing, and how many too many, between the first and the last."""
    ticks = int(PERIOD_S * TICKS_HZ)
    begin, end = got[0][0] - 2, got[-1][0] + 2  # times are rounded
    wanted: dict[str, list[int]] = {}
    count = 0
    for n in range(end // ticks + 1):
        for at, digits in later if n else first:
            if begin <= at + n * ticks <= end:
                wanted.setdefault(digits, []).append(at + n * ticks)
                count += 1
    known = {(digits, at + k) for digits, times in wanted.items() for at in times
             for k in (-1, 0, 1)}  # fmt: skip
    right = sum((digits, at) in known for at, digits in got)
    return count - right, len(got) - right


class Client(threading.Thread):
    """Reads AVR lines and notes when they came."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self.lines: list[Line] = []
        self.came_ns: list[int] = []

    def run(self) -> None:
        while True:
            try:
                server = socket.create_connection(("127.0.0.1", self._port))
                break
            except OSError:
                time.sleep(0.01)
        rest = b""
        with server:
            while part := server.recv(1 << 16):
                now_ns = time.monotonic_ns()
                whole, newline, rest = (rest + part).rpartition(b"\n")
                lines = list(lines_of((whole + newline).decode()))
                self.lines += lines
                self.came_ns += [now_ns] * len(lines)


def live(seconds: float) -> dict[str, Any]:
    """Run it all; returns what there is to tell."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        period = content()
        first, later = expected(period, folder)
        (folder / "period").write_bytes(period.tobytes())
        command = [sys.executable, "-m", "bench.live", "--serve", str(folder / "period")]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            receiver = f"127.0.0.1:{int(server.stdout.readline())}"
            return measured(seconds, receiver, server, first, later)
        finally:
            server.kill()
            server.wait()


def measured(
    seconds: float, receiver: str, server: subprocess.Popen[str], first: list[Line],
    later: list[Line],
) -> dict[str, Any]:  # fmt: skip
    """Run the flow on this receiver."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    client = Client(port)
    client.start()
    plan = flow(receiver, listen=f":{port}").check()
    supervisor = Supervisor(plan, limits=Limits(seconds=seconds))
    memory: list[tuple[float, float]] = []  # seconds, MiB

    def sample(summary: Mapping[str, Any]) -> None:
        for pid in supervisor.processes.values():  # of one worker
            with suppress(psutil.NoSuchProcess):
                rss = psutil.Process(pid).memory_info().rss / MIB
                memory.append((summary["seconds"], rss))

    outcome = supervisor.run(sample)
    client.join(5.0)
    for error in outcome.errors:
        print(f"error: {error}", file=sys.stderr)
    summary = outcome.summary
    assert server.stdout is not None
    begin_ns = int(server.stdout.readline())
    ends_ns = np.array([
        begin_ns + at * 1_000_000_000 // TICKS_HZ + 1000 * (8 + 4 * len(digits))
        for at, digits in client.lines
    ])  # fmt: skip
    late_ms = (np.array(client.came_ns) - ends_ns) / 1e6
    frame_ms = 1e3 * LENGTH / RATE_HZ
    missing, extra = compare(client.lines, first, later)
    seconds_of_end = (ends_ns - begin_ns) // 1_000_000_000
    # the picture that is drawn at the end takes 30 MiB
    settled = [rss for at, rss in memory if WARM_S <= at <= seconds - 1.0]
    source = summary["blocks"]["receiver"]
    results = summary["results"]
    return {
        "seconds": summary["seconds"],
        "code": outcome.code,
        "samples_lost": source["lost_samples"],
        "messages": results["counts"]["messages"],
        "lines": len(client.lines),
        "lines_missing": missing,
        "lines_too_many": extra,
        "lines_lost": results["avr"]["lost"],
        "latency_ms": {
            f"p{q:g}": float(np.percentile(late_ms, q) - frame_ms) for q in (50, 99, 99.9, 100)
        },
        "frame_ms": frame_ms,
        "busy": sum(block["busy_s"] for name, block in summary["blocks"].items()
                    if name != "receiver") / summary["seconds"],
        "memory_mib": {"start": settled[0], "end": settled[-1], "most": max(settled)},
        "memory_mib_by_second": memory[::4],
        "most_latency_ms_by_second": [
            float(late_ms[seconds_of_end == second].max() - frame_ms)
            for second in np.unique(seconds_of_end)
        ],
    }  # fmt: skip


def main() -> int:
    """Print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", metavar="FILE", help="write the numbers here, too")
    parser.add_argument("--serve", metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return 0
    found = live(options.seconds)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    latency, memory = found["latency_ms"], found["memory_mib"]
    print(
        f"{found['seconds']:.1f} s at 2 Msps: {found['samples_lost']} samples lost, "
        f"{found['messages']} messages, {found['lines']} lines to the client, of these "
        f"{found['lines_missing']} missing and {found['lines_too_many']} too many against a file\n"
        f"latency beyond a frame of {found['frame_ms']:.2f} ms: p50 {latency['p50']:.2f}, "
        f"p99 {latency['p99']:.2f}, p99.9 {latency['p99.9']:.2f}, most {latency['p100']:.2f} ms\n"
        f"worker: {100 * found['busy']:.0f} % of a core busy, resident {memory['start']:.1f} MiB "
        f"at {WARM_S:g} s, {memory['end']:.1f} before the end, {memory['most']:.1f} at most"
    )
    wrong = found["code"] or found["samples_lost"] or found["lines_missing"]
    wrong = wrong or found["lines_too_many"] or found["lines_lost"]
    grown = memory["end"] - memory["start"] > GROWTH_MIB
    return int(bool(wrong or grown or latency["p99"] >= BAR_MS))


if __name__ == "__main__":
    raise SystemExit(main())
