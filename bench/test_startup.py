"""How long a user waits for the first word, and for the first frame."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench import flows
from pipeline.flow import Flow

ROUNDS = 7
KALVIT = [str(Path(sys.executable).with_name("kalvit"))]


def seconds_of(*command: str) -> float:
    begin = time.perf_counter()
    subprocess.run([*KALVIT, *command], check=True, capture_output=True)
    return time.perf_counter() - begin


def python_alone() -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - begin


def median_of(measure, *args: str) -> float:
    return statistics.median(measure(*args) for _ in range(ROUNDS))


def test_help(once, add):
    took = once(median_of, seconds_of, "--help")
    add(
        "kalvit --help",
        f"{took:.2f} s",
        f"{median_of(python_alone):.2f} s",
        bar="<= 0.5 s",
        met=took <= 0.5,
        how="second figure: python -c pass",
    )


def test_list_blocks(once, add):
    took = once(median_of, seconds_of, "list", "blocks")
    command = [sys.executable, "-X", "importtime", *KALVIT, "list", "blocks"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    heavy = sorted({"torch", "numba", "scipy", "matplotlib"} & imported)
    add(
        "kalvit list blocks",
        f"{took:.2f} s",
        ", ".join(heavy) or "none",
        bar="neither torch nor numba",
        met=not {"torch", "numba"} & set(heavy),
        how="second figure: which of torch, numba, scipy, matplotlib it imports",
    )


def to_first_frame(flow: Path, runs: Path) -> float:
    """Seconds from the start of `kalvit run` until the first decided frame is at a sink."""
    begin_ns = time.monotonic_ns()
    subprocess.run(
        [
            *KALVIT, "run", str(flow), "--frames", "3", "--blocks", str(flows.BLOCKS),
            "--json", str(runs / "out.json"),
        ],
        check=True, capture_output=True, env={**os.environ, "KALVIT_RUNS": str(runs)},
    )  # fmt: skip
    found = json.loads((runs / "out.json").read_text())
    return (found["results"]["first"]["first_ns"] - begin_ns) / 1e9


def test_first_frame(once, add, tmp_path):
    from pipeline import catalogue

    catalogue.load_file(flows.BLOCKS)
    flow = Flow.load("isi_viterbi")
    flow.add("first", "sink.bench_arrivals", reads={"samples": "symbols"})
    flow.connect("detector -> first")
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    flow.save(one)
    flow.assign("rx", ["detector"])
    flow.save(two)
    to_first_frame(two, tmp_path)  # fills the caches
    for file, what in ((one, "one worker"), (two, "two workers")):
        took = [to_first_frame(file, tmp_path) for _ in range(ROUNDS)]
        if file is one:
            took.append(once(to_first_frame, file, tmp_path))
        middle = statistics.median(took)
        add(
            f"kalvit run isi_viterbi to the first frame, {what}",
            f"{middle:.2f} s",
            bar="<= 2 s",
            met=middle <= 2.0,
            how="from the start of the command until a decided frame is at a sink; warm caches",
        )
