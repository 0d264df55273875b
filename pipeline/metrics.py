"""Counters and histograms of a running worker, and the summary of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

SUB = 16  # buckets per octave: a quantile is read off to 1 / 32 of its value


class Histogram:
    """Durations in logarithmic buckets, from 1 ns to centuries.

    >>> histogram = Histogram()
    >>> histogram.add(range(1, 1001))
    >>> 480 <= histogram.quantile(0.5) <= 520
    True
    """

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self._counts = np.zeros(64 * SUB, dtype=np.int64)
        for bucket, count in (counts or {}).items():
            self._counts[int(bucket)] += count

    def add(self, durations_ns: Iterable[int]) -> None:
        """Count durations in nanoseconds; those below 1 ns count as 1 ns."""
        values = np.fromiter(durations_ns, dtype=np.float64)
        if values.size:
            buckets = (np.log2(np.maximum(values, 1.0)) * SUB).astype(np.int64)
            self._counts += np.bincount(buckets, minlength=self._counts.size)

    def merge(self, other: Histogram) -> None:
        """Count what another histogram has counted."""
        self._counts += other._counts

    @property
    def count(self) -> int:
        """Number of durations."""
        return int(self._counts.sum())

    def quantile(self, q: float) -> float:
        """The q-quantile in ns, the middle of its bucket; 0 where nothing was counted."""
        total = self.count
        if not total:
            return 0.0
        rank = min(int(q * total), total - 1)
        bucket = int(np.searchsorted(np.cumsum(self._counts), rank, side="right"))
        return float(2.0 ** ((bucket + 0.5) / SUB))

    def counts(self) -> dict[int, int]:
        """Buckets that are not empty, to be sent and merged elsewhere."""
        return {int(b): int(self._counts[b]) for b in np.flatnonzero(self._counts)}


class Meter:
    """What one block has done: frames, busy time, and the time of each frame.

    `note` takes one duration in ns; it is a bare list append, so that timing stays on always.
    """

    def __init__(self) -> None:
        self._fresh: list[int] = []
        self.note = self._fresh.append
        self._frames = 0
        self._busy_ns = 0
        self._histogram = Histogram()

    def snapshot(self) -> dict[str, Any]:
        """Counts so far, with the histogram as buckets."""
        if self._fresh:
            self._frames += len(self._fresh)
            self._busy_ns += sum(self._fresh)
            self._histogram.add(self._fresh)
            self._fresh.clear()
        return {
            "frames": self._frames,
            "busy_ns": self._busy_ns,
            "histogram": self._histogram.counts(),
        }


def micros(histogram: Histogram, *quantiles: tuple[str, float]) -> dict[str, float]:
    """Named quantiles of a histogram in microseconds."""
    return {name: round(histogram.quantile(q) / 1e3, 3) for name, q in quantiles}


def summary(
    *,
    flow: str,
    seed: int,
    seconds: float,
    workers: Mapping[str, Mapping[str, Any]],
    order: Iterable[str],
    edges: Iterable[tuple[str, str, bool]],
) -> dict[str, Any]:
    """The summary of a run (DESIGN 8), from the last snapshot of each worker.

    order    names of all blocks, as the summary should have them
    edges    (source, target, whether it stays within one worker) of every data and tap edge
    """
    blocks: dict[str, Any] = {}
    latency = Histogram()
    found: dict[str, dict[str, int]] = {}
    models: dict[str, Any] = {}
    results: dict[str, Any] = {}
    frames = 0
    for snapshot in workers.values():
        for name, block in snapshot.get("blocks", {}).items():
            histogram = Histogram(block["histogram"])
            blocks[name] = {
                "frames": block["frames"],
                "busy_s": block["busy_ns"] / 1e9,
                "us_per_frame": micros(histogram, ("p50", 0.5), ("p99", 0.99)),
            }
            blocks[name] |= {key: block[key] for key in ("use", "replaced") if key in block}
            if "gaps" in block:  # of a source
                blocks[name] |= {"gaps": block["gaps"], "lost_samples": block["lost_samples"]}
        frames += sum(snapshot.get("emitted", {}).values())
        latency.merge(Histogram(snapshot.get("latency", {})))
        for name, counts in snapshot.get("edges", {}).items():
            merged = found.setdefault(name, {})
            for key, value in counts.items():
                merged[key] = max(merged.get(key, 0), value)
        models.update(snapshot.get("models", {}))
        results.update(snapshot.get("results", {}))
    ordered = list(order)
    blocks, models, results = (
        {name: table[name] for name in ordered if name in table}
        for table in (blocks, models, results)
    )
    flat: dict[str, dict[str, int]] = {}
    for source, target, inside in edges:
        name = f"{source}->{target}"
        inner = {"frames": blocks.get(target, {}).get("frames", 0), "bytes": 0}
        counts = inner if inside else found.get(name, {"frames": 0, "bytes": 0})
        flat[name] = {"lost": 0, "dropped": 0} | counts
    return {
        "flow": flow,
        "seed": seed,
        "frames": frames,
        "seconds": round(seconds, 6),
        "frames_per_s": round(frames / seconds, 3) if seconds > 0 else 0.0,
        "latency_us": micros(latency, ("p50", 0.5), ("p99", 0.99), ("p999", 0.999)),
        "blocks": blocks,
        "edges": flat,
        "models": models,
        "results": results,
    }
