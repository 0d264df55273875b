"""What a worker holds, and what an edge holds while nobody takes frames from it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from bench import flows
from pipeline.flow import Flow
from pipeline.limits import WINDOW
from pipeline.supervisor import Supervisor

BAR_MB = 220
STOPPED_S = 1.2


def resident_mb(pid: int, key: str = "VmRSS") -> float:
    """Resident memory of a process in MB of 10^6 bytes; VmHWM: the most it ever had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(key))


def test_worker_without_torch(once, add, tmp_path):
    flow = Flow.load("isi_viterbi")
    flow.set("symbols.frames", 0)
    flow.assign("rx", ["detector"])
    from pipeline.roots import Limits

    supervisor = Supervisor(flow.check(), limits=Limits(seconds=2.0), runs=tmp_path)
    most: dict[str, float] = {}

    def look(summary):
        for name, pid in supervisor.processes.items():
            if Path(f"/proc/{pid}/status").exists():
                most[name] = max(most.get(name, 0.0), resident_mb(pid))

    outcome = once(supervisor.run, look)
    assert outcome.code == 0
    add(
        "worker without torch: resident, the detector alone",
        f"{most['rx']:.0f} MB",
        bar=f"<= {BAR_MB} MB",
        met=most["rx"] <= BAR_MB,
        how=f"the most seen in 2 s of isi_viterbi; the other worker {most['main']:.0f} MB",
    )


def held_by_edge(size: int, frames: int) -> tuple[int, float]:
    """The most bytes on an edge whose reader is stopped, and by how many MB its sender grew."""
    plan = flows.two_workers(size, frames).check()
    seen: list[tuple[int, float]] = []
    stopped_at = 0.0

    def look(summary):
        nonlocal stopped_at
        pids = supervisor.processes
        if not summary["frames"] or stopped_at < 0:
            return
        if not stopped_at:
            stopped_at = time.monotonic()
            os.kill(pids["rx"], signal.SIGSTOP)
        queue = summary["edges"]["source->sink"].get("queue", 0)
        seen.append((queue, resident_mb(pids["main"])))
        if time.monotonic() > stopped_at + STOPPED_S:
            os.kill(pids["rx"], signal.SIGCONT)
            stopped_at = -1.0

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        supervisor = Supervisor(plan, runs=Path(folder), block_files=[flows.BLOCKS])
        outcome = supervisor.run(look)
    assert outcome.code == 0, outcome.errors
    assert stopped_at < 0, "the run ended before its reader was stopped"
    assert outcome.summary["results"]["sink"]["frames"] == frames
    return max(queue for queue, _ in seen), seen[-1][1] - seen[0][1]


SIZES = {"1 KiB": (1 << 10, 300_000), "1 MiB": (1 << 20, 6_000), "16 MiB": (16 << 20, 120)}


@pytest.mark.parametrize("name", SIZES)
def test_edge_with_a_stopped_reader(once, add, name):
    size, frames = SIZES[name]
    held, grown = once(held_by_edge, size, frames)
    most = WINDOW + size + 4096  # and the head of the frame
    add(
        f"edge whose reader is stopped, frames of {name}",
        f"{held / (1 << 20):.2f} MiB",
        f"{most / (1 << 20):.2f} MiB",
        f"{held / most:.2f}",
        "window + one frame",
        met=held <= most,
        how=f"SIGSTOP to the reader's worker for {STOPPED_S} s; its sender grew {grown:.0f} MB",
    )
