"""One hop between two processes, beside a bare pyzmq pair."""

from __future__ import annotations

import statistics

import pytest

from bench import flows, hop
from pipeline.transport import bare

PAIRS = 9
FRAMES = {1 << 10: 120_000, 16 << 10: 35_000, 256 << 10: 6_000, 4 << 20: 350}  # by bytes
BAR = 0.9
BARE = "bare pyzmq pair, [92-byte header, payload], same copy flag and window"


def workers_rate(size: int, frames: int) -> float:
    """Frames per second through the whole runtime: a source here, a sink in another worker."""
    return flows.run(flows.two_workers(size, frames))["results"]["sink"]["frames_per_s"]


def measure(size: int) -> list[dict[str, float]]:
    frames = FRAMES[size]
    return [{"workers": workers_rate(size, frames), **hop.pair(size, frames)} for _ in range(PAIRS)]


def name_of(size: int) -> str:
    return f"{size >> 10} KiB" if size < 1 << 20 else f"{size >> 20} MiB"


@pytest.mark.parametrize("size", FRAMES, ids=name_of)
def test_one_hop(once, add, size):
    runs = once(measure, size)

    def row(what: str, ours: str, limit: str, bar: float | None, how: str) -> None:
        ratio = hop.ratio(runs, ours, limit)
        rates = [statistics.median(run[key] for run in runs) for key in (ours, limit)]
        add(
            what,
            f"{rates[0]:,.0f} /s",
            f"{rates[1]:,.0f} /s",
            f"{ratio:.2f}",
            f">= {bar}" if bar else "",
            met=ratio >= bar if bar else None,
            how=how,
        )

    at = name_of(size)
    row(f"one hop, {at}, ends of an edge as workers use them", "hop", "bare2", BAR, BARE)
    row(f"one hop, {at}, two workers with source and sink", "workers", "bare2", BAR, BARE)
    row(f"  {at}, ends of an edge", "hop", "bare1", None, "bare pair that sends one part")
    if "unshared" in runs[0]:
        row(f"small frames sharing messages, {at}", "hop", "unshared", 1.3, "our hop, one each")
        row(f"small frames sharing messages, {at}", "hop", "bare2", 1.5, BARE)
        row(f"  {at}, one frame to a message", "unshared", "bare2", None, BARE)
    assert bare.HEADER_BYTES == 92
