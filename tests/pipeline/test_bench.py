"""The limit is that of the same work, and the numbers belong together."""

from __future__ import annotations

import io
import json
import statistics
from pathlib import Path

import moving_blocks
import pytest
from rich.console import Console
from splits import run_alone
from typer.testing import CliRunner

from pipeline import bench, direct
from pipeline.cli import app
from pipeline.errors import RunError
from pipeline.flow import Flow
from pipeline.roots import Limits
from pipeline.transport import bare

register, chain = moving_blocks.register, moving_blocks.chain


def tree(**source) -> Flow:
    """Branches, one of which cuts frames anew, twice."""
    flow = chain(**source)
    flow.add("cut", "frontend.recut", reads={"x": "decided"}, writes={"y": "part"}, length=4)
    flow.add("again", "frontend.recut", reads={"x": "part"}, writes={"y": "piece"}, length=3)
    flow.add("parts", "sink.journal", reads={"x": "part"})
    flow.add("pieces", "sink.journal", reads={"x": "piece"})
    flow.connect("b -> cut -> again -> pieces")
    flow.connect("cut -> parts")
    return flow


@pytest.mark.usefixtures("register")
@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("build", [chain, tree])
@pytest.mark.parametrize(
    "source",
    [{}, {"gaps": [4, 11]}, {"keys": ["left", "right"], "more": 3, "gaps": [0, 7]}],
    ids=["plain", "gaps", "streams"],
)
def test_direct_calls_find_what_the_runtime_finds(build, source, timed):
    plan = build(**source).check()
    calls = direct.DirectCalls(plan, timed=timed)
    calls.run(Limits())
    found = run_alone(plan)
    assert calls.results() == found["results"]
    assert calls.frames == found["emitted"]["numbers"]
    counts = {name: len(durations) for name, durations in calls.durations.items()}
    if timed:
        streams = len(source.get("keys", ["main"]))
        counts["numbers"] -= streams * (1 + len(source.get("gaps", [])))  # ends and gaps
        assert counts == {name: block["frames"] for name, block in found["blocks"].items()}
    else:
        assert not any(counts.values())


@pytest.mark.usefixtures("register")
def test_direct_calls_stop_at_the_limit_of_frames_in_each_stream():
    calls = direct.DirectCalls(chain(keys=["left", "right"]).check())
    calls.run(Limits(frames=7))
    assert calls.frames == 14
    assert len(calls.results()["end"]["log"]) == 14


@pytest.mark.usefixtures("register")
def test_direct_calls_decide_with_the_weights_of_the_frame_before():
    flow = Flow("learning")
    flow.add("numbers", "source.numbers", frames=6, lengths=[1])
    flow.add("learned", "detector.learned")
    flow.add("trainer", "trainer.counting")
    flow.add("end", "sink.journal", reads={"x": "y"})
    flow.connect("numbers -> learned -> end")
    flow.connect("learned -> trainer")
    flow.feedback("trainer ~> learned", delay=1)
    plan = flow.check()
    calls = direct.DirectCalls(plan)
    calls.run(Limits())
    place = 5  # of the digest of what was decided
    decided = [entry[place] for entry in calls.results()["end"]["log"]]
    expected = [entry[place] for entry in run_alone(plan)["results"]["end"]["log"]]
    assert decided == expected
    assert len(set(decided)) == 6


@pytest.mark.usefixtures("register")
def test_times_of_direct_calls_are_given_for_each_block_and_sink():
    found = direct.measure(tree().check(), Limits(frames=20), interval_s=1e-4, paced_s=0.01)
    assert found["frames"] == 20
    assert found["frames_per_s"] > 0
    assert set(found["blocks"]) == set(tree().blocks)
    assert set(found["latency_us"]) == {"end", "parts", "pieces"}
    for block in found["blocks"].values():
        assert 0 < block["p50"] <= block["p99"]
        assert block["busy_us"] > 0


@pytest.mark.parametrize("parts", [1, 2])
def test_a_bare_pair_carries_every_payload_under_a_window_that_is_too_small_for_one(parts):
    assert bare.rate(1000, 30, parts=parts, window=900) > 0


def test_a_bare_pair_tells_the_latency_of_small_and_large_payloads():
    assert 0 < bare.latency_us(100, 5, 1e-3) < 1e6
    assert 0 < bare.latency_us(100_000, 5, 1e-3) < 1e6


@pytest.fixture(scope="module")
def measured():
    """One short measurement of the ready flow in two workers."""
    flow = Flow.load("isi_viterbi")
    flow.assign("rx", ["detector"])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"PACED_S": 0.2, "PACED_FRAMES": 10, "BARE_S": 0.02}.items():
            patch.setattr(bench, name, value)
        return bench.measure(flow, limits=Limits(frames=100), rounds=1)


def test_the_limit_is_no_faster_than_any_edge_and_any_worker(measured):
    throughput, edges = measured["throughput"], measured["edges"]
    assert set(edges) == {"channel->detector", "detector->errors"}
    for edge in edges.values():
        assert throughput["limit_frames_per_s"] <= edge["limit_frames_per_s"]
        assert edge["ratio"] == edge["frames_per_s"] / edge["limit_frames_per_s"]
        assert edge["limit_latency_us"] > 0
    # two workers share the blocks: no faster than twice one loop, no slower than one
    one_loop = throughput["direct_frames_per_s"]
    slowest_pair = min(edge["limit_frames_per_s"] for edge in edges.values())
    assert min(one_loop, slowest_pair) <= throughput["limit_frames_per_s"] <= 2.001 * one_loop


def test_ratios_are_those_of_the_numbers_beside_them(measured):
    throughput, latency = measured["throughput"], measured["latency_us"]
    own = throughput["frames_per_s"]
    assert throughput["ratio_to_limit"] == own / throughput["limit_frames_per_s"]
    assert throughput["ratio_to_direct"] == own / throughput["direct_frames_per_s"]
    assert latency["ratio_to_limit"] == latency["one_in_flight"]["p50"] / latency["limit_p50"]
    for block in measured["blocks"].values():
        assert block["ratio"] == block["us_per_frame"]["p50"] / block["direct_us_per_frame"]["p50"]
    assert json.loads(json.dumps(measured)) == measured


def test_payloads_beside_an_edge_are_as_large_as_its_frames(measured):
    # 1000 symbols: sent int8 and samples float32 before the detector, sent and symbols after it
    bytes_of = {name: edge["bytes_per_frame"] for name, edge in measured["edges"].items()}
    assert 5000 <= bytes_of["channel->detector"] <= 5000 + 200
    assert 2000 <= bytes_of["detector->errors"] <= 2000 + 200


def test_the_flow_that_is_measured_for_latency_runs_at_a_tenth_of_its_rate(measured):
    rate = measured["latency_us"]["one_in_flight_frames_per_s"]
    assert rate == pytest.approx(0.1 * measured["throughput"]["frames_per_s"], rel=0.2)


def test_the_tables_name_every_block_worker_and_edge(measured):
    written = io.StringIO()
    Console(file=written, width=100).print(bench.report(measured))
    text = written.getvalue()
    for name in ("isi_viterbi", "symbols", "channel", "detector", "errors", "rx", "frames/s"):
        assert name in text
    assert all(edge in text for edge in measured["edges"])


def test_medians_and_ratios_are_taken_within_rounds():
    assert bench._ratio([1.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == 2.0
    assert bench._ratio([3.0, 1.0, 2.0], [1.0, 1.0, 4.0]) == statistics.median([3.0, 1.0, 0.5])
    assert bench._medians([{"a": 1.0, "b": 5.0}, {"a": 3.0, "b": 1.0}, {"a": 2.0, "b": 2.0}]) == {
        "a": 2.0,
        "b": 2.0,
    }


@pytest.mark.usefixtures("register")
def test_a_flow_that_emits_nothing_is_refused():
    flow = Flow("nothing")
    flow.add("numbers", "source.numbers", frames=0)
    flow.add("end", "sink.journal")
    flow.connect("numbers -> end")
    with pytest.raises(RunError, match="flow nothing: its sources emit no frame to measure"):
        bench.measure(flow, rounds=1, block_files=[Path(moving_blocks.__file__)])


def test_the_command_refuses_what_it_cannot_measure(tmp_path):
    missing = str(tmp_path / "no" / "numbers.json")
    result = CliRunner().invoke(app, ["bench", "isi_viterbi", "--json", missing])
    assert isinstance(result.exception, RunError)
    assert "there is no directory" in str(result.exception)
