"""What the runtime adds to a block within a worker."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

BAR_US = 1.5
REACH_US = 0.8


def measure() -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.chain"]  # a process of its own, like a worker
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(found)


def test_five_blocks_that_do_nothing(once, add):
    found = once(measure)
    for kind, what in (("through", "adds nothing"), ("relabel", "adds a field")):
        row = found[kind]
        add(
            f"fused chain, 1 KiB, block that {what}: per block and frame",
            f"{row['block_us']:.2f} us",
            f"{row['direct_us']:.2f} us",
            f"{row['ratio']:.2f}",
            f"<= {BAR_US} us, reach {REACH_US}",
            met=row["block_us"] <= BAR_US,
            how="(5 blocks - none) / 5, timing on; limit: the same calls in a bare loop",
        )
        add(
            "  the whole of it per frame, with source and sink",
            f"{row['whole_us']:.2f} us",
            f"{row['ends_us']:.2f} us",
            how="second figure: source and sink alone, no block between them",
        )
