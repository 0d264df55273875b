"""Flows run in this process."""

import json
import subprocess
import sys
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from jaxtyping import Float32, Int8

import pipeline
from pipeline.block import Block, FrameInfo
from pipeline.errors import FlowError, ParameterError, RunError
from pipeline.flow import Flow
from pipeline.frame import Array
from pipeline.local import run
from pipeline.segment import BlockError

TCP = "tcp://127.0.0.1:1"  # nothing may open it


def flow(**detector):
    flow = Flow("toy", seed=4)
    flow.add("symbols", "source.random_symbols", length=50, frames=30)
    flow.add("channel", "channel.isi", taps=[1.0, 0.5], snr_db=5.0)
    flow.add("detector", "detector.viterbi", taps=[1.0, 0.5], **detector)
    flow.add("errors", "sink.error_rate")
    flow.connect("symbols -> channel -> detector")
    flow.connect("detector -> errors")
    return flow


def test_summary_has_the_keys_of_one_from_the_command_line():
    found = run(flow())
    assert (found["flow"], found["seed"], found["frames"]) == ("toy", 4, 30)
    assert list(found["blocks"]) == ["symbols", "channel", "detector", "errors"]
    assert {name: edge["frames"] for name, edge in found["edges"].items()} == {
        "symbols->channel": 30, "channel->detector": 30, "detector->errors": 30,
    }  # fmt: skip
    assert found["results"]["errors"]["symbols"] == 1500
    assert found["latency_us"]["p50"] > 0.0
    assert json.loads(json.dumps(found)) == found


def test_results_are_those_of_worker_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("KALVIT_RUNS", str(tmp_path / "runs"))
    flow().save(tmp_path / "toy.toml")
    subprocess.run(
        [sys.executable, "-m", "pipeline", "run", str(tmp_path / "toy.toml"), "--json",
         str(tmp_path / "a.json"), "--worker", "rx=detector"],
        check=True, capture_output=True,
    )  # fmt: skip
    there = json.loads((tmp_path / "a.json").read_text())["results"]["errors"]
    here = run(flow(), folder=tmp_path / "here")["results"]["errors"]
    assert here == there


def test_all_workers_run_as_one_without_a_socket():
    split = Flow.from_dict(flow().to_dict())
    split.edges.clear()
    split.connect("symbols -> channel")
    split.connect("channel -> detector", via=TCP)
    split.connect("detector -> errors")
    split.assign("rx", ["detector"])
    assert run(split)["results"] == run(flow())["results"]


def test_seed_and_nothing_else_changes_the_results():
    other = flow()
    other.seed = 5
    assert run(flow())["results"] == run(flow())["results"] != run(other)["results"]


def test_frames_and_seconds_stop_a_flow():
    assert run(flow(), frames=7)["frames"] == 7
    endless = flow()
    endless.set("symbols.frames", 0)
    assert 0.0 < run(endless, seconds=0.02)["seconds"] < 5.0


def test_a_flow_is_named_by_its_name_or_its_file(tmp_path):
    flow().save(tmp_path / "toy.toml")
    assert run(tmp_path / "toy.toml", frames=2)["flow"] == "toy"
    assert run("isi_viterbi", frames=2)["flow"] == "isi_viterbi"
    with pytest.raises(FlowError, match="no flow named 'isi'"):
        run("isi")


def test_pictures_come_only_where_a_folder_is_given(tmp_path):
    assert "picture" not in run(flow(), frames=2)["results"]["errors"]
    found = run(flow(), frames=2, folder=tmp_path / "new" / "run")
    assert (tmp_path / "new" / "run" / found["results"]["errors"]["picture"]).is_file()


def test_a_flow_that_does_not_fit_is_refused_before_anything_runs():
    with pytest.raises(ParameterError, match=r"flow toy: detector.viterbi: lag = -1"):
        run(flow(lag=-1))


def test_errors_meant_for_the_user_come_as_they_are(tmp_path):
    (tmp_path / "tape.f32").write_bytes(bytes(400))
    replay = Flow("replay")
    replay.add("tape", "source.recording", path=str(tmp_path / "tape.f32"), length=10)
    replay.add("again", "sink.recording", path=str(tmp_path / "copy"))
    replay.connect("tape -> again")
    (tmp_path / "copy.sigmf-meta.partial").mkdir()  # nothing can be written under this name
    with pytest.raises(RunError, match="cannot finish"):
        run(replay)


class Decided(NamedTuple):
    symbols: Int8[Array, "*word time"]


class Broken(Block, name="detector.broken"):
    def process(self, samples: Float32[Array, "*word time"], info: FrameInfo) -> Decided:
        if info.seq == 3:
            raise ZeroDivisionError("by design")
        return Decided(np.ones(samples.shape, np.int8))


del Block.registry["detector.broken"]


def test_a_bug_in_a_block_comes_with_block_and_frame(monkeypatch):
    monkeypatch.setitem(Block.registry, "detector.broken", Broken)
    broken = flow()
    broken.blocks["detector"] = replace(broken.blocks["detector"], use="detector.broken", params={})
    with pytest.raises(BlockError, match="detector raised ZeroDivisionError on main:3") as caught:
        run(broken)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_flow_and_run_are_all_that_a_notebook_needs():
    assert pipeline.Flow is Flow
    assert pipeline.run is run
    with pytest.raises(AttributeError, match="no attribute 'walk'"):
        pipeline.walk  # noqa: B018
