"""Many frames through three workers: none lost, none out of order, memory flat.

    python -m bench.soak --frames 1000000
    python -m bench.soak --frames 1000000 --every 5     # a line every 5 s

Frames of 1 KiB carry their number in every element; the sink checks number, order and content.
Resident memory is sampled four times a second. Its slope is that of a straight line through the
samples of each worker after the first third of the frames, when buffers and caches are filled;
"grown" is the slope times the frames of these samples. Exit code 1 if a frame is lost, out of
order or damaged, or if a worker has grown by more than `--allowed` MiB: an edge may hold its window
of 8 MiB, and takes and gives back memory with it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pipeline import catalogue
from pipeline.flow import Flow
from pipeline.supervisor import Outcome, Supervisor

BLOCKS = Path(__file__).with_name("bench_blocks.py")
MIB = 1 << 20


def flow(frames: int, size: int) -> Flow:
    """Source, block and sink, each in its own worker."""
    catalogue.load_file(BLOCKS)
    found = Flow("soak")
    found.add("numbers", "source.bench_numbered", frames=frames, bytes=size)
    found.add("through", "frontend.bench_through")
    found.add("order", "sink.bench_order")
    found.connect("numbers -> through -> order")
    found.assign("middle", ["through"])
    found.assign("end", ["order"])
    return found


class Memory:
    """Resident memory of every worker, over the frames that have been counted."""

    def __init__(self, supervisor: Supervisor, every: float) -> None:
        self._supervisor, self._every = supervisor, every
        self._processes: dict[str, psutil.Process] = {"supervisor": psutil.Process()}
        self._begin = self._printed = time.monotonic()
        self.frames: list[int] = []
        self.samples: dict[str, list[int]] = {}

    def sample(self, summary: Mapping[str, Any]) -> None:
        """Take one sample, and print one now and then."""
        for name, pid in self._supervisor.processes.items():
            self._processes.setdefault(name, psutil.Process(pid))
        try:
            now = {name: process.memory_info().rss for name, process in self._processes.items()}
        except psutil.NoSuchProcess:
            return
        self.frames.append(summary["results"].get("order", {}).get("frames", 0))
        for name, rss in now.items():
            self.samples.setdefault(name, []).append(rss)
        if self._every and time.monotonic() - self._printed > self._every:
            self._printed = time.monotonic()
            shown = "  ".join(f"{name} {rss / MIB:.1f}" for name, rss in now.items())
            print(
                f"{self._printed - self._begin:6.1f} s {self.frames[-1]:>10,} frames  MiB: {shown}"
            )

    def slopes(self) -> dict[str, dict[str, float | None]]:
        """For each process: MiB at the first and last sample, at most, per 1e6 frames, grown."""
        frames = np.array(self.frames, float)
        settled = frames >= frames[-1] / 3 if frames.size else np.zeros(0, bool)
        found: dict[str, dict[str, float | None]] = {}
        for name, samples in self.samples.items():
            rss = np.array(samples) / MIB
            slope = None
            if np.unique(frames[settled]).size >= 4:
                slope = float(np.polyfit(frames[settled], rss[settled], 1)[0])
            span = float(np.ptp(frames[settled])) if settled.any() else 0.0
            found[name] = {
                "first": float(rss[0]),
                "last": float(rss[-1]),
                "most": float(rss.max()),
                "per_million": None if slope is None else slope * 1e6,
                "grown": None if slope is None else slope * span,
            }
        return found


def soak(frames: int, size: int = 1024, every: float = 0.0) -> tuple[Outcome, Memory]:
    """Run the flow."""
    supervisor = Supervisor(flow(frames, size).check(), block_files=[BLOCKS])
    memory = Memory(supervisor, every)
    return supervisor.run(memory.sample), memory


def main() -> int:
    """Print what came, and how memory went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=1024, help="payload of a frame")
    parser.add_argument("--every", type=float, default=0.0, help="seconds between printed samples")
    parser.add_argument("--allowed", type=float, default=8.0, help="MiB that a worker may grow")
    parser.add_argument("--json", metavar="FILE", help="write the numbers here; - prints them")
    options = parser.parse_args()
    outcome, memory = soak(options.frames, options.bytes, options.every)
    result = outcome.summary["results"].get("order", {})
    slopes = memory.slopes()
    found = {
        "frames": result.get("frames", 0),
        "lost": options.frames - result.get("frames", 0),
        "out_of_order": result.get("out_of_order"),
        "damaged": result.get("damaged"),
        "seconds": outcome.summary["seconds"],
        "frames_per_s": outcome.summary["frames_per_s"],
        "edges": outcome.summary["edges"],
        "samples": len(memory.frames),
        "memory_mib": slopes,
        "workers": [name for name in slopes if name != "supervisor"],
        "folder": str(outcome.folder),
    }
    if options.json == "-":
        print(json.dumps(found, indent=2))
    else:
        print(
            f"{found['frames']:,} frames of {options.bytes} bytes in {found['seconds']:.1f} s "
            f"({found['frames_per_s']:,.0f} per s): {found['lost']} lost, "
            f"{found['out_of_order']} out of order, {found['damaged']} damaged"
        )
        print(f"resident memory in MiB, {found['samples']} samples")
        print("              first     last     most   per 1e6 frames   grown")
        for name, row in slopes.items():
            cells = [f"{row[key]:8.1f}" for key in ("first", "last", "most")]
            for key in ("per_million", "grown"):
                cells.append("       -" if row[key] is None else f"{row[key]:+8.2f}")
            print(f"  {name:<10} {' '.join(cells[:3])}   {cells[3]:>14} {cells[4]:>7}")
        if options.json:
            Path(options.json).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for error in outcome.errors:
        print(f"error: {error}", file=sys.stderr)
    wrong = found["lost"] or found["out_of_order"] or found["damaged"] or outcome.code
    grown = max((row["grown"] or 0.0 for row in slopes.values()), default=0.0)
    return int(bool(wrong) or grown > options.allowed)


if __name__ == "__main__":
    raise SystemExit(main())
