"""A fused chain of five blocks that do nothing, with timing on, beside plain calls of them.

`python -m bench.chain` prints, as JSON, medians over rounds in us. The cost of one block is that of
the chain less that of its source and sink alone, divided by five. For a profile:
`py-spy record -f raw -o FILE -- python -m bench.chain`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from bench import flows
from pipeline.direct import DirectCalls
from pipeline.roots import Limits
from pipeline.worker import Worker

BLOCKS = 5
SIZE = 1024  # bytes


def whole_us(kind: str, blocks: int, frames: int) -> float:
    """Time per frame of a chain in a worker, its source and sink included."""
    worker = Worker(flows.chain(kind, blocks, frames, SIZE).check())
    begin = time.perf_counter()
    worker.run()
    return (time.perf_counter() - begin) / frames * 1e6


def direct_us(kind: str, blocks: int, frames: int) -> float:
    """Time per frame of the same calls with no runtime around them."""
    calls = DirectCalls(flows.chain(kind, blocks, frames, SIZE).check())
    return calls.run(Limits()) / frames * 1e6


def measure(rounds: int, frames: int) -> dict[str, dict[str, float]]:
    """Medians over interleaved rounds, for blocks that add nothing and that add a field."""
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        ends = whole_us("through", 0, frames)
        direct_ends = direct_us("through", 0, frames)
        for kind in ("through", "relabel"):
            whole = whole_us(kind, BLOCKS, frames)
            direct = (direct_us(kind, BLOCKS, frames) - direct_ends) / BLOCKS
            block = (whole - ends) / BLOCKS
            row = {"block_us": block, "whole_us": whole, "ends_us": ends, "direct_us": direct}
            row["ratio"] = block / direct
            for key, value in row.items():
                found.setdefault(kind, {}).setdefault(key, []).append(value)
    return {
        kind: {key: statistics.median(values) for key, values in rows.items()}
        for kind, rows in found.items()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--frames", type=int, default=30_000)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.rounds, arguments.frames)))
