"""Very many swaps in a running receiver: no frame lost, and each decided as its marks say.

    python -m bench.many_swaps                       # 10,000 weight swaps, 200 replacements
    python -m bench.many_swaps --swaps 500 --uses 20

A flow of three workers decides coded words of 136 symbols. First its detector, ViterbiNet, gets
other weights again and again, of two networks trained for different channels; in a second run
other detectors take its place in turn. The sink keeps what came and what was decided. Afterwards
every frame is decided again, offline, by the block and the weights of its marks. Exit code 1 where
a frame is lost, comes twice or out of order, or where a decision differs, or the run failed.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bench.learning import BLOCKS, OTHER_TAPS, TAPS, Line, line_to, network, receiver
from pipeline import catalogue
from pipeline.block import Block
from pipeline.errors import RunError
from pipeline.frame import Array
from pipeline.instance import drive
from pipeline.models import Models
from pipeline.supervisor import Outcome, Supervisor

#: What takes the place of the detector in turn; "" in a mark: the detector of the flow.
USES: Mapping[str, Mapping[str, Any]] = {
    "detector.viterbi": {"taps": TAPS},
    "detector.sum_product": {"taps": TAPS, "snr_db": 10.0},
    "detector.least_squares": {"taps": TAPS, "noise_var": 0.1},
    "detector.viterbinet": {},
}


def run(change: Callable[[Line, int], dict[str, Any]], count: int, rate: float) -> Outcome:
    """Run the receiver and change it `count` times; RunError where a change is refused."""
    flow = receiver("swaps", "net@1", frames=100_000_000, rate=rate)
    flow.add("kept", "sink.bench_decisions")
    flow.connect("detector -> kept")
    flow.assign("rx", ["detector"])
    flow.assign("last", ["kept"])
    boss = Supervisor(flow.check(), block_files=[BLOCKS])
    found: list[Outcome] = []
    thread = threading.Thread(target=lambda: found.append(boss.run()))
    thread.start()
    line = None
    try:
        line = line_to(boss, "kept")
        for number in range(count):
            answer = change(line, number)
            if number % 1000 == 999:
                print(f"    {number + 1} of {count}", flush=True)
            if "refused" in answer:
                raise RunError(answer["refused"])
        time.sleep(0.1)
    finally:
        if line is not None:
            line.ask({"verb": "stop"})
            line.close()
        thread.join()
    return found[0]


def swap_weights(line: Line, number: int) -> dict[str, Any]:
    """Give the detector version 2, 1, 2, 1 ..."""
    return line.ask({"verb": "swap", "block": "detector", "weights": _TEXTS[number % 2]})


def replace_block(line: Line, number: int) -> dict[str, Any]:
    """Let the next block of `USES` take over."""
    use = list(USES)[number % len(USES)]
    settings = [f"{name}={json.dumps(value)}" for name, value in USES[use].items()]
    return line.ask({"verb": "replace", "block": "detector", "use": use, "set": settings})


_TEXTS: list[str] = []


def judge(outcome: Outcome) -> dict[str, int]:
    """What is not as it should be, by counting: frames lost, repeated, decided otherwise."""
    if outcome.code:
        raise RunError("; ".join(outcome.errors))
    with np.load(outcome.folder / "decisions.npz") as file:
        kept = {name: file[name] for name in file.files}
    (outcome.folder / "decisions.npz").unlink()
    seq = kept["seq"]
    steps = np.diff(seq, prepend=0)
    differ = decided = 0
    other = 0  # frames on which the other version decides otherwise: swaps can be seen
    for use, version in sorted(
        set(zip(kept["use"].tolist(), kept["version"].tolist(), strict=True))
    ):
        chosen = (kept["use"] == use) & (kept["version"] == version)
        samples = kept["samples"][chosen][:, 0]
        again = _decide(use, version, samples)
        differ += int((again != kept["symbols"][chosen][:, 0]).any(axis=1).sum())
        decided += len(samples)
        if version:
            other += int((again != _decide(use, 3 - version, samples)).any(axis=1).sum())
    return {
        "frames": len(seq),
        "lost": int((steps[steps > 1] - 1).sum()),
        "twice or out of order": int((steps < 1).sum()),
        "decided again": decided,
        "decided otherwise": differ,
        "that the other version decides otherwise": other,
    }


def _decide(use: str, version: int, samples: Array) -> Array:
    """Symbols of words (word, time), decided by a block that has never run."""
    use = use or "detector.viterbinet"
    block: Block = catalogue.find(use)(**USES[use])
    weights = Models().load(f"net@{version}") if version else None

    class Ready(type(block)):  # type: ignore[misc]
        """The block with its weights."""

        def start(self) -> None:
            """Start with weights."""
            super().start()
            if weights is not None:
                self.take(weights)

    ready = Ready(**USES[use])
    (found,) = drive(ready, [{"samples": samples}])
    return found["symbols"]


def main(argv: list[str] | None = None) -> int:
    """Run both, and print what was counted; 1 where anything is not as it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--swaps", type=int, default=10_000, help="of weights")
    parser.add_argument("--uses", type=int, default=200, help="replacements of the block")
    parser.add_argument("--rate", type=float, default=1500.0, help="frames per second")
    asked = parser.parse_args(argv)
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="kalvit") as folder:
        os.environ.update(KALVIT_MODELS=f"{folder}/models", KALVIT_RUNS=f"{folder}/runs")
        for version, taps in enumerate((TAPS, OTHER_TAPS), 1):
            Models().add(network(taps).weights("net", version=version))
        _TEXTS[:] = [
            base64.b64encode(Models().load(f"net@{version}").to_bytes()).decode()
            for version in (2, 1)
        ]
        for what, change, count in (
            ("weight swaps", swap_weights, asked.swaps),
            ("replacements", replace_block, asked.uses),
        ):
            began = time.monotonic()
            outcome = run(change, count, asked.rate)
            found = judge(outcome)
            seconds = outcome.summary["seconds"]
            print(f"{count} {what} in {seconds:.1f} s: ", end="")
            print(", ".join(f"{key} {value}" for key, value in found.items()))
            model = outcome.summary["models"].get("detector", {})
            print(f"    the run's own counts: {model}, errors {outcome.errors}")
            print(f"    with the check {time.monotonic() - began:.1f} s", flush=True)
            bad = ("lost", "twice or out of order", "decided otherwise")
            wrong += sum(found[key] for key in bad)
            wrong += found["decided again"] != outcome.summary["frames"]
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
