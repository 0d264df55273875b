"""Flows of the bench blocks, and runs of them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from pipeline import catalogue
from pipeline.flow import Flow
from pipeline.limits import WINDOW
from pipeline.supervisor import Status, Supervisor

BLOCKS = Path(__file__).with_name("bench_blocks.py")


def chain(kind: str, count: int, frames: int, size: int = 1024) -> Flow:
    """Constant source, `count` blocks that add nothing ("through") or a field each, sink."""
    catalogue.load_file(BLOCKS)
    flow = Flow("bench_chain")
    flow.add("source", "source.bench_constant", bytes=size, frames=frames)
    names = ["source"]
    for place in range(count):
        names.append(f"block{place}")
        if kind == "through":
            flow.add(names[-1], "frontend.bench_through")
        else:
            writes = {"relabelled": f"added{place}"}
            flow.add(names[-1], "frontend.bench_relabel", writes=writes)
    flow.add("sink", "sink.bench_count")
    flow.connect(" -> ".join([*names, "sink"]))
    return flow


def two_workers(size: int, frames: int, rate: float = 0.0, window: int = WINDOW) -> Flow:
    """A constant source in one worker, a sink that notes arrivals in another.

    window   in bytes; 1: a frame goes when the one before was acknowledged
    """
    catalogue.load_file(BLOCKS)
    flow = Flow("bench_hop")
    flow.add("source", "source.bench_constant", bytes=size, frames=frames, rate=rate)
    flow.add("sink", "sink.bench_arrivals")
    flow.connect("source -> sink")
    flow.assign("rx", ["sink"])
    flow.window = window
    return flow


def run(flow: Flow, on_status: Status | None = None) -> dict[str, Any]:
    """The summary of a run in worker processes; whatever goes wrong, or is lost, raises."""
    with tempfile.TemporaryDirectory() as folder:
        supervisor = Supervisor(flow.check(), runs=Path(folder), block_files=[BLOCKS])
        outcome = supervisor.run(on_status)
    if outcome.code or outcome.errors:
        raise RuntimeError(f"exit code {outcome.code}: {outcome.errors}")
    lost = {name: edge["lost"] for name, edge in outcome.summary["edges"].items() if edge["lost"]}
    if lost:
        raise RuntimeError(f"frames lost: {lost}")
    return outcome.summary
