"""What swapping weights, and retraining beside the stream, cost a receiver.

    python -m bench.swapping                     # 5 pairs of rounds
    python -m bench.swapping --pairs 2 --seconds 2

ViterbiNet, without a table, decides coded words of 136 symbols over a channel that fades. Its
capacity, in frames per second, is measured first; then the source is paced to half of it, and the
99 % quantile of the latency, source to sink, is compared:

    swapping    twice a second other weights, asked for as `kalvit swap` does
    retraining  a trainer on the other core, 5 steps of Adam on the accepted ones of each 100 words
                (--lesson) that reach it, its versions live

each against the same receiver left alone, in rounds ABBA: a ratio is that of the two inner rounds
to the two outer ones. The bar is a median of at most 1.25. Last, without a pace, frames per second
with the trainer against those without; the bar is at least 0.9. Both cores should be idle
otherwise: the load of the machine is printed with the figures. Exit code 1 where a bar is missed or
a run failed.
"""

from __future__ import annotations

import argparse
import base64
import os
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import Any

from bench.learning import BLOCKS, TAPS, K, N, line_to, network, receiver
from pipeline.errors import RunError
from pipeline.models import Models
from pipeline.roots import Limits
from pipeline.supervisor import Supervisor

SWAPS_PER_S = 2.0
LATENCY_BAR, RATE_BAR = 1.25, 0.9
FRAMES = 100_000_000


def run(seconds: float, rate: float, *, lesson: int = 0, swaps: bool = False) -> Mapping[str, Any]:
    """The summary of a run of the receiver; RunError where it fails.

    rate    frames per second; 0: as fast as possible
    lesson  words from one training to the next; 0: no trainer
    """
    flow = receiver("swapping", "net@1", frames=FRAMES, rate=rate)
    flow.set("channel.fading", "cosine")
    flow.set("channel.coherence", N * 8)
    flow.set("detector.table", False)
    flow.add("hard", "frontend.hard_bits")
    flow.add("decoder", "decoder.reed_solomon", n=N, k=K)
    flow.add("errors", "sink.error_rate")
    flow.connect("detector -> hard -> decoder -> errors")
    if lesson:
        flow.add("trainer", "trainer.decision_feedback", model="net@1", lesson=lesson)
        flow.tap("decoder -> trainer")
        flow.feedback("trainer ~> detector", delay="live")
        flow.assign("learn", ["trainer"])
    boss = Supervisor(flow.check(), block_files=[BLOCKS], limits=Limits(seconds=seconds))
    ended = threading.Event()
    swapper = threading.Thread(target=_swap, args=(boss, ended))
    if swaps:
        swapper.start()
    try:
        outcome = boss.run()
    finally:
        ended.set()
        if swaps:
            swapper.join()
    if outcome.code or outcome.summary["warnings"]:
        found = [*outcome.errors, *outcome.summary["warnings"]]
        raise RunError("; ".join(found) or f"exit code {outcome.code}")
    return outcome.summary


def _swap(boss: Supervisor, ended: threading.Event) -> None:
    """Swap weights until the run has ended."""
    texts = [
        base64.b64encode(Models().load(f"net@{version}").to_bytes()).decode() for version in (2, 1)
    ]
    line = line_to(boss, "errors")
    number = 0
    while not ended.wait(1.0 / SWAPS_PER_S):
        try:
            message = {"verb": "swap", "block": "detector", "weights": texts[number % 2]}
            line.ask(message, 1.0)
        except RunError:
            break  # the run has ended meanwhile
        number += 1
    line.close()


def ratios(pairs: int, alone: Callable[[], float], beside: Callable[[], float]) -> list[float]:
    """What `beside` gives over what `alone` gives, from rounds ABBA."""
    found = []
    for _ in range(pairs):
        first, second, third, fourth = alone(), beside(), beside(), alone()
        found.append((second + third) / (first + fourth))
        print(
            f"    {first:,.0f} {second:,.0f} {third:,.0f} {fourth:,.0f}: {found[-1]:.3f}",
            flush=True,
        )
    return found


def p99(summary: Mapping[str, Any]) -> float:
    """Latency in us."""
    return float(summary["latency_us"]["p99"])


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and say by the exit code whether the bars are met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=5, help="of rounds ABBA")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a round")
    parser.add_argument("--lesson", type=int, default=100, help="words between two trainings")
    asked = parser.parse_args(argv)
    pairs, seconds = asked.pairs, asked.seconds
    with tempfile.TemporaryDirectory(prefix="kalvit") as folder:
        os.environ.update(KALVIT_MODELS=f"{folder}/models", KALVIT_RUNS=f"{folder}/runs")
        for version in (1, 2):
            Models().add(network(TAPS, seed=version).weights("net", version=version))
        run(1.0, 0.0, lesson=1)  # kernels are compiled
        capacity = statistics.median(run(seconds, 0.0)["frames_per_s"] for _ in range(3))
        half = capacity / 2.0
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        print(f"capacity {capacity:,.0f} frames/s; paced to {half:,.0f}; p99 in us:")
        missed = 0
        for what, changed in (
            ("swapping", {"swaps": True}),
            ("retraining", {"lesson": asked.lesson}),
        ):
            found = ratios(
                pairs,
                lambda: p99(run(seconds, half)),
                lambda changed=changed: p99(run(seconds, half, **changed)),
            )
            missed += _told(what, found, at_most=LATENCY_BAR)
        print("frames/s, no pace:")
        found = ratios(
            pairs,
            lambda: run(seconds, 0.0)["frames_per_s"],
            lambda: run(seconds, 0.0, lesson=asked.lesson)["frames_per_s"],
        )
        missed += _told("throughput beside a trainer", found, at_least=RATE_BAR)
        last = run(seconds, half, lesson=asked.lesson)
        swaps, took_s = last["models"]["detector"]["swaps"], last["seconds"]
        trainer = {k: v for k, v in last["results"]["trainer"].items() if isinstance(v, int)}
        print(f"in such a run: {swaps / took_s:.0f} swaps per second; the trainer: {trainer}")
        print(f"load {os.getloadavg()[0]:.1f}")
    return int(missed > 0)


def _told(what: str, found: list[float], at_most: float = 0.0, at_least: float = 0.0) -> bool:
    """Print a median ratio beside its bar; whether it was missed."""
    median = statistics.median(found)
    missed = median > at_most if at_most else median < at_least
    bar = f"at most {at_most}" if at_most else f"at least {at_least}"
    print(f"{what}: median ratio {median:.3f}, bar {bar}{', MISSED' if missed else ''}", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(main())
