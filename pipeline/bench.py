"""Measures a flow beside its limit: throughput and latency per frame, block by block.

The limit comes from the same run: the blocks called directly in a bare Python loop (direct.py),
and for each edge between workers a bare pyzmq pair that carries payloads of the same size
(transport/bare.py). Rounds are interleaved, so that both sides see the same machine; what is told
are medians over the rounds, and ratios of numbers of the same round.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.block import Source
from pipeline.direct import WARM_FRAMES
from pipeline.errors import RunError
from pipeline.flow import Flow
from pipeline.plan import Plan
from pipeline.roots import Limits
from pipeline.supervisor import ONE_THREAD, Supervisor
from pipeline.transport import bare

if TYPE_CHECKING:
    from rich.console import RenderableType

SECONDS = 2.0  # of a run for throughput
LOAD = 0.1  # of the measured throughput: frames come one at a time, and none waits for another
PACED_S = 1.5  # of a run for latency
PACED_FRAMES = 50  # in such a run, at least
PACED_MOST_S = 10.0
BARE_S = 0.5  # of a bare pair
TRACEBACK = "direct.txt"  # of direct calls that failed

Say = Callable[[str], None]


def measure(
    flow: Flow,
    *,
    limits: Limits | None = None,
    rounds: int = 3,
    block_files: Iterable[Path] = (),
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Numbers of the flow and of its limit, as `kalvit bench --json` writes them.

    Every source runs as fast as it can, and then at a tenth of the rate that came out.

    limits   of a run for throughput; by default SECONDS
    say      is told what is under way

    Raises RunError where a run of the flow fails, KeyboardInterrupt where it is stopped.
    """
    plan = _at(flow, {})
    folder = Path(tempfile.mkdtemp(prefix="kalvit-bench-"))
    bench = _Bench(plan, limits or Limits(seconds=SECONDS), tuple(block_files), folder)
    load = [os.getloadavg()[0]]
    try:
        say("warming up")
        bench.run(plan, Limits(frames=WARM_FRAMES))
        for number in range(rounds):
            for step in bench.steps():
                say(f"round {number + 1} of {rounds}: {step}")
    finally:
        if not any(folder.glob("*/errors/*")) and not (folder / TRACEBACK).exists():
            shutil.rmtree(folder, ignore_errors=True)  # else it says more than the error
    load.append(os.getloadavg()[0])
    return {**bench.findings(), "load_average": load}


class _Bench:
    """The rounds of one measurement and what they found."""

    def __init__(
        self, plan: Plan, limits: Limits, block_files: Sequence[Path], folder: Path
    ) -> None:
        self._plan, self._limits, self._folder = plan, limits, folder
        self._block_files = block_files
        self._runs: list[dict[str, Any]] = []  # summaries as fast as possible
        self._paced: list[dict[str, Any]] = []  # summaries at a tenth of that
        self._direct: list[dict[str, Any]] = []
        self._pairs: list[dict[str, dict[str, float]]] = []  # edge -> its bare pair

    def steps(self) -> Iterator[str]:
        """Measure everything once; yields what is about to be done."""
        yield "the flow"
        found = self.run(self._plan, self._limits)
        rates = {
            name: LOAD * found["blocks"][name]["frames"] / max(found["seconds"], 1e-9)
            for name, block in self._plan.blocks.items()
            if issubclass(block.cls, Source)
        }
        total = sum(rates.values())
        if not total:
            raise RunError(f"flow {self._plan.flow.name}: its sources emit no frame to measure")
        paced_s = min(max(PACED_S, PACED_FRAMES / total), PACED_MOST_S)
        yield "its blocks, called directly"
        direct = self._call_directly(total, paced_s)
        pairs = {}
        for name in self._crossing():
            yield f"a bare pyzmq pair beside {name}"
            size = round(self._bytes_per_frame(found, name)) - bare.HEADER_BYTES
            pairs[name] = _bare_pair(max(size, 1), total)
        yield f"the flow at {LOAD:.0%} of its rate"
        self._paced.append(self.run(_at(self._plan.flow, rates), Limits(seconds=paced_s)))
        self._runs.append(found)
        self._direct.append(direct)
        self._pairs.append(pairs)

    def run(self, plan: Plan, limits: Limits) -> dict[str, Any]:
        """The summary of one run in workers of its own."""
        supervisor = Supervisor(
            plan, limits=limits, runs=self._folder, block_files=self._block_files
        )
        outcome = supervisor.run()
        if outcome.code >= 128:
            raise KeyboardInterrupt
        if outcome.code or outcome.errors:
            raise RunError("; ".join(outcome.errors) or f"the flow ended with {outcome.code}")
        return outcome.summary

    def _call_directly(self, rate: float, paced_s: float) -> dict[str, Any]:
        """What the direct calls take, in a process set up like a worker."""
        order, result = self._folder / "order.json", self._folder / "direct.json"
        told = {
            "flow": self._plan.flow.to_dict(),
            "block_files": [str(file.resolve()) for file in self._block_files],
            "frames": self._limits.frames,
            "seconds": self._limits.seconds,
            "interval_s": 1.0 / rate,
            "paced_s": paced_s,
        }
        order.write_text(json.dumps(told), encoding="utf-8")
        reading, lifeline = os.pipe()
        try:
            done = subprocess.run(  # noqa: S603 (our own program)
                [sys.executable, "-m", "pipeline.direct", str(order), str(result), str(reading)],
                env={**os.environ, **{name: os.environ.get(name, "1") for name in ONE_THREAD}},
                stdin=subprocess.DEVNULL,
                pass_fds=[reading],
                start_new_session=True,  # Ctrl-C reaches this process alone, which ends that one
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            os.close(reading)
            os.close(lifeline)
        if done.returncode:
            (self._folder / TRACEBACK).write_text(done.stderr, encoding="utf-8")
            said = done.stderr.strip().splitlines() or ["it said nothing"]
            raise RunError(
                f"the blocks cannot be called directly: {said[-1]} "
                f"(traceback: {self._folder / TRACEBACK})"
            )
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return found

    def _crossing(self) -> dict[str, str]:
        """Data and tap edges between workers, with the block that each leads to."""
        worker = {name: block.worker for name, block in self._plan.blocks.items()}
        return {
            edge.name: edge.target
            for edge in self._plan.flow.edges
            if edge.kind != "weights" and worker[edge.source] != worker[edge.target]
        }

    def _bytes_per_frame(self, found: Mapping[str, Any], name: str) -> float:
        """Of data frames, with their heads."""
        frames = found["blocks"][self._crossing()[name]]["frames"]
        return float(found["edges"][name]["bytes"] / max(frames, 1))

    # what came out

    def findings(self) -> dict[str, Any]:
        """Medians over the rounds, and ratios."""
        both = list(zip(self._direct, self._pairs, strict=True))
        limits = [self._limit(direct, pairs) for direct, pairs in both]
        floors = [self._floor(direct, pairs) for direct, pairs in both]
        rates = [found["frames_per_s"] for found in self._runs]
        direct = [found["frames_per_s"] for found in self._direct]
        alone = [found["latency_us"]["p50"] for found in self._paced]
        return {
            "flow": self._plan.flow.name,
            "workers": {name: list(blocks) for name, blocks in self._plan.workers.items()},
            "rounds": len(self._runs),
            "frames": statistics.median(found["frames"] for found in self._runs),
            "throughput": {
                "frames_per_s": statistics.median(rates),
                "direct_frames_per_s": statistics.median(direct),
                "limit_frames_per_s": statistics.median(limits),
                "ratio_to_direct": _ratio(rates, direct),
                "ratio_to_limit": _ratio(rates, limits),
            },
            "latency_us": {
                "full_load": _medians(found["latency_us"] for found in self._runs),
                "one_in_flight": _medians(found["latency_us"] for found in self._paced),
                "one_in_flight_frames_per_s": statistics.median(
                    found["frames_per_s"] for found in self._paced
                ),
                "limit_p50": statistics.median(floors),
                "ratio_to_limit": _ratio(alone, floors),
            },
            "blocks": {name: self._block(name) for name in self._plan.blocks},
            "edges": {name: self._edge(name) for name in self._crossing()},
        }

    def _limit(self, direct: Mapping[str, Any], pairs: Mapping[str, Mapping[str, float]]) -> float:
        """Frames per second of the slowest part: the blocks of one worker, or one bare pair.

        The blocks of a worker run one after the other; workers are taken to run side by side.
        """
        busy = {name: block["busy_us"] for name, block in direct["blocks"].items()}
        most = max(sum(busy[name] for name in names) for names in self._plan.workers.values())
        blocks = direct["frames_per_s"] * sum(busy.values()) / most
        return float(min([blocks, *(pair["frames_per_s"] for pair in pairs.values())]))

    def _floor(self, direct: Mapping[str, Any], pairs: Mapping[str, Mapping[str, float]]) -> float:
        """Median latency of the direct calls, with the bare pairs on the way to each sink."""
        latency: list[float] = []
        for sink, took in direct["latency_us"].items():
            name, on_the_way = sink, 0.0
            while (edge := self._plan.parent(name)) is not None:
                on_the_way += pairs.get(edge.name, {}).get("latency_us", 0.0)
                name = edge.source
            latency += [us + on_the_way for us in took]
        return statistics.median(latency) if latency else 0.0

    def _block(self, name: str) -> dict[str, Any]:
        own = [found["blocks"][name]["us_per_frame"] for found in self._runs]
        direct = [found["blocks"][name] for found in self._direct]
        return {
            "us_per_frame": _medians(own),
            "direct_us_per_frame": {"p50": _medians(direct)["p50"], "p99": _medians(direct)["p99"]},
            "ratio": _ratio([us["p50"] for us in own], [us["p50"] for us in direct]),
        }

    def _edge(self, name: str) -> dict[str, float]:
        own = [found["edges"][name]["frames"] / found["seconds"] for found in self._runs]
        pairs = [found[name] for found in self._pairs]
        limit = [pair["frames_per_s"] for pair in pairs]
        return {
            "bytes_per_frame": statistics.median(
                self._bytes_per_frame(found, name) for found in self._runs
            ),
            "frames_per_s": statistics.median(own),
            "limit_frames_per_s": statistics.median(limit),
            "limit_latency_us": statistics.median(pair["latency_us"] for pair in pairs),
            "ratio": _ratio(own, limit),
        }


def _at(flow: Flow, rates: Mapping[str, float]) -> Plan:
    """The plan of a flow whose sources have these rates, by default as fast as possible."""
    flow = Flow.from_dict(flow.to_dict())
    for name, block in flow.check().blocks.items():
        if issubclass(block.cls, Source):
            flow.set(f"{name}.rate", rates.get(name, 0.0))
    return flow.check()


def _bare_pair(size: int, rate: float) -> dict[str, float]:
    """Throughput and latency of a bare pair with payloads of this size."""
    guess = bare.rate(size, max(8, min(2000, (64 << 20) // size)))
    interval_s = min(1.0 / rate, 0.02)
    return {
        "frames_per_s": bare.rate(size, max(8, int(guess * BARE_S))),
        "latency_us": bare.latency_us(size, max(20, int(BARE_S / interval_s)), interval_s),
    }


def _medians(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Key by key."""
    listed = list(rows)
    return {key: statistics.median(row[key] for row in listed) for key in listed[0]}


def _ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Median of the ratios of numbers that were measured in one round."""
    return statistics.median(a / max(b, 1e-9) for a, b in zip(over, under, strict=True))


# --- How it looks ---------------------------------------------------------------------------------


def report(found: Mapping[str, Any]) -> RenderableType:
    """Tables of what `measure` found."""
    from rich.console import Group
    from rich.text import Text

    workers = "; ".join(f"{name}: {', '.join(b)}" for name, b in found["workers"].items())
    load = " to ".join(f"{number:.2f}" for number in found["load_average"])
    head = (
        f"{found['flow']}  [{workers}]\n"
        f"medians of {found['rounds']} rounds of {found['frames']:,.0f} frames; "
        f"{os.cpu_count()} cores, load average {load}"
    )
    rate, latency = found["throughput"], found["latency_us"]
    whole = _table("flow", "this run", "limit", "ratio")
    whole.add_row(
        "frames/s", f"{rate['frames_per_s']:,.0f}", f"{rate['limit_frames_per_s']:,.0f}",
        f"{rate['ratio_to_limit']:.2f}",
    )  # fmt: skip
    whole.add_row(
        "us per frame, one loop", f"{1e6 / rate['frames_per_s']:,.1f}",
        f"{1e6 / rate['direct_frames_per_s']:,.1f}", f"{1 / rate['ratio_to_direct']:.2f}",
    )  # fmt: skip
    whole.add_row(
        f"latency us p50, {latency['one_in_flight_frames_per_s']:,.0f} frames/s",
        f"{latency['one_in_flight']['p50']:,.1f}", f"{latency['limit_p50']:,.1f}",
        f"{latency['ratio_to_limit']:.2f}",
    )  # fmt: skip
    whole.add_row("latency us p99", f"{latency['one_in_flight']['p99']:,.1f}", "", "")
    whole.add_row("latency us p50, full load", f"{latency['full_load']['p50']:,.1f}", "", "")
    blocks = _table("block, us per frame", "p50", "p99", "direct p50", "p99", "ratio")
    for name, block in found["blocks"].items():
        own, direct = block["us_per_frame"], block["direct_us_per_frame"]
        times = (own["p50"], own["p99"], direct["p50"], direct["p99"])
        blocks.add_row(name, *(f"{us:,.1f}" for us in times), f"{block['ratio']:.2f}")
    parts: list[RenderableType] = [Text(head), Text(), whole, Text(), blocks]
    if found["edges"]:
        edges = _table("edge", "bytes/frame", "frames/s", "bare pair", "ratio", "bare latency us")
        for name, edge in found["edges"].items():
            edges.add_row(
                name, f"{edge['bytes_per_frame']:,.0f}", f"{edge['frames_per_s']:,.0f}",
                f"{edge['limit_frames_per_s']:,.0f}", f"{edge['ratio']:.2f}",
                f"{edge['limit_latency_us']:,.1f}",
            )  # fmt: skip
        parts += [Text(), edges]
    parts += [Text(), Text(LIMITS)]
    return Group(*parts)


LIMITS = (
    "limits, from the same run: frames/s of the slowest worker's blocks called directly,\n"
    "or of a slower bare pyzmq pair; us per frame of all blocks called in one loop;\n"
    "latency of the direct calls with that of the bare pairs on the way."
)


def _table(first: str, *others: str) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first)
    for title in others:
        table.add_column(title, justify="right")
    return table
