"""Two processes of ours beside two processes of ezmsg: the same payload, the same pace."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import pytest

from bench import flows
from pipeline.transport import bare

PAIRS = 5
FRAMES = 100_000  # ours, as fast as possible
PEER_FRAMES = 8_000  # theirs: about the same time
RATE = 500.0  # frames per second, where frames come one by one
PACED_FRAMES = 400
CLOSED_FRAMES = 1_500


def peer(size: int, frames: int, *more: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.ezmsg_peer", *more]
    command += ["--bytes", str(size), "--frames", str(frames)]
    found = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return json.loads(found.stdout)


def measure(size: int) -> list[dict[str, float]]:
    runs = []
    for _ in range(PAIRS):
        fast = flows.run(flows.two_workers(size, FRAMES))
        peer_fast = peer(size, PEER_FRAMES)
        closed = flows.run(flows.two_workers(size, CLOSED_FRAMES, window=1))
        peer_closed = peer(size, CLOSED_FRAMES, "--closed")
        paced = flows.run(flows.two_workers(size, PACED_FRAMES, RATE))
        peer_paced = peer(size, PACED_FRAMES, "--rate", str(RATE))
        runs.append(
            {
                "rate": fast["results"]["sink"]["frames_per_s"],
                "peer_rate": peer_fast["frames_per_s"],
                "closed": closed["latency_us"]["p50"],
                "peer_closed": peer_closed["latency_us"],
                "paced": paced["latency_us"]["p50"],
                "peer_paced": peer_paced["latency_us"],
                "bare": bare.latency_us(size, PACED_FRAMES, 1.0 / RATE),
            }
        )
    return runs


@pytest.mark.parametrize("size", [1 << 10, 16 << 10], ids=["1 KiB", "16 KiB"])
def test_against_ezmsg(once, add, size):
    runs = once(measure, size)
    medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    rate = statistics.median(run["rate"] / run["peer_rate"] for run in runs)
    at = f"{size >> 10} KiB"
    add(
        f"against ezmsg, two processes, {at}",
        f"{medians['rate']:,.0f} /s",
        f"{medians['peer_rate']:,.0f} /s",
        f"{rate:.1f}",
        ">= 3",
        met=rate >= 3,
        how="publisher and subscriber unit, shared memory, defaults",
    )
    hows = {
        "closed": "a frame goes when the one before has come; median from birth to the sink",
        "paced": f"both send {RATE:.0f} frames/s, so that the machine falls idle between them; "
        f"a bare pyzmq pair: {medians['bare']:.0f} us",
    }
    for key, how in hows.items():
        ratio = statistics.median(run[key] / run[f"peer_{key}"] for run in runs)
        add(
            f"  latency, one frame in flight, {key}, {at}",
            f"{medians[key]:.0f} us",
            f"{medians[f'peer_{key}']:.0f} us",
            f"{ratio:.2f}",
            "<= 0.3",
            met=ratio <= 0.3,
            how=how,
        )
