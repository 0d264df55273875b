"""Histograms and meters, and the summary made of what workers report."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metrics import SUB, Histogram, Meter, summary

WIDTH = 2.0 ** (1.0 / SUB)  # of a bucket, as a ratio
DURATIONS = st.lists(st.integers(1, 1 << 62), min_size=1, max_size=200)


@given(DURATIONS, st.floats(0.0, 1.0))
def test_quantiles_are_those_of_the_durations_within_a_bucket(durations, q):
    histogram = Histogram()
    histogram.add(durations)
    # the q-quantile is between these two whatever the convention
    low = np.quantile(durations, q, method="lower")
    high = np.quantile(durations, min(q + 1.0 / len(durations), 1.0), method="higher")
    assert low / WIDTH <= histogram.quantile(q) <= high * WIDTH


@pytest.mark.parametrize("q", [0.01, 0.5, 0.99, 0.999])
def test_quantiles_of_many_durations_are_numpys(q):
    durations = np.random.default_rng(3).lognormal(10.0, 1.5, 200_000).astype(np.int64) + 1
    histogram = Histogram()
    for part in np.array_split(durations, 7):
        histogram.add(part)
    assert histogram.count == 200_000
    assert histogram.quantile(q) == pytest.approx(np.quantile(durations, q), rel=0.6 * (WIDTH - 1))


@given(st.lists(DURATIONS, max_size=4))
def test_merged_histograms_are_the_histogram_of_all(parts):
    merged, whole = Histogram(), Histogram()
    for part in parts:
        one = Histogram()
        one.add(part)
        merged.merge(Histogram(json.loads(json.dumps(one.counts()))))
        whole.add(part)
    assert merged.counts() == whole.counts()
    assert merged.count == sum(len(part) for part in parts)


def test_an_empty_histogram_says_zero_and_durations_below_one_count_as_one():
    histogram = Histogram()
    assert (histogram.count, histogram.quantile(0.5)) == (0, 0.0)
    histogram.add([])
    histogram.add([0, -5, 1])
    assert histogram.counts() == {0: 3}
    assert histogram.quantile(1.0) == pytest.approx(1.0, rel=WIDTH - 1)


def test_a_meter_counts_frames_and_busy_time_once():
    meter = Meter()
    for duration in (1000, 2000, 3000):
        meter.note(duration)
    assert meter.snapshot() == meter.snapshot()
    meter.note(4000)
    found = meter.snapshot()
    assert (found["frames"], found["busy_ns"]) == (4, 10_000)
    assert sum(found["histogram"].values()) == 4


def block(*durations: int) -> dict[str, object]:
    meter = Meter()
    for duration in durations:
        meter.note(duration)
    return meter.snapshot()


def test_a_summary_puts_the_workers_together():
    latency = Histogram()
    latency.add([5000] * 99)
    late = Histogram()
    late.add([80_000])
    workers = {
        "main": {
            "blocks": {"symbols": block(1000, 1000, 1000), "errors": block(2000, 2000)},
            "emitted": {"symbols": 3},
            "latency": latency.counts(),
            "edges": {"symbols->detector": {"frames": 3, "bytes": 400, "dropped": 1, "queue": 7}},
            "models": {},
            "results": {"errors": {"errors": 5}},
        },
        "rx": {
            "blocks": {"detector": block(4_000_000, 6_000_000)},
            "emitted": {},
            "latency": late.counts(),
            "edges": {"symbols->detector": {"frames": 2, "lost": 1}},
            "models": {"detector": {"version": 4, "swaps": 3, "refused": 0, "rolled_back": 0}},
            "results": {},
        },
    }
    edges = [("symbols", "detector", False), ("detector", "errors", True), ("a", "b", False)]
    order = ["symbols", "detector", "errors"]
    found = summary(flow="toy", seed=3, seconds=1.5, workers=workers, order=order, edges=edges)
    assert list(found["blocks"]) == order
    assert (found["flow"], found["seed"], found["frames"]) == ("toy", 3, 3)
    assert found["frames_per_s"] == 2.0
    assert found["blocks"]["detector"]["frames"] == 2
    assert found["blocks"]["detector"]["busy_s"] == 0.01
    assert found["blocks"]["detector"]["us_per_frame"]["p50"] == pytest.approx(5000, rel=0.25)
    assert found["latency_us"]["p50"] == pytest.approx(5.0, rel=WIDTH - 1)
    assert found["latency_us"]["p999"] == pytest.approx(80.0, rel=WIDTH - 1)
    assert found["edges"] == {
        "symbols->detector": {"frames": 3, "bytes": 400, "lost": 1, "dropped": 1, "queue": 7},
        "detector->errors": {"frames": 2, "bytes": 0, "lost": 0, "dropped": 0},
        "a->b": {"frames": 0, "bytes": 0, "lost": 0, "dropped": 0},
    }
    assert found["models"]["detector"]["version"] == 4
    assert found["results"] == {"errors": {"errors": 5}}


def test_a_summary_of_nothing_yet_has_every_key():
    found = summary(flow="toy", seed=0, seconds=0.0, workers={"main": {}}, order=[], edges=[])
    assert list(found) == [
        "flow", "seed", "frames", "seconds", "frames_per_s", "latency_us", "blocks", "edges",
        "models", "results",
    ]  # fmt: skip
    assert found["frames_per_s"] == 0.0
    assert found["latency_us"] == {"p50": 0.0, "p99": 0.0, "p999": 0.0}
