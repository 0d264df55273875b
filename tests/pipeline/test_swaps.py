"""Models of running blocks: what they start with, swaps between two frames, and their replay."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

import moving_blocks
import numpy as np
import pytest
from running import Running
from splits import results_of, run_alone

from pipeline import catalogue, cli
from pipeline.block import Block
from pipeline.draws import RandomStream
from pipeline.errors import RunError, WeightsError
from pipeline.flow import Flow
from pipeline.local import run as run_here
from pipeline.models import Models
from pipeline.roots import Limits
from pipeline.segment import BlockError
from pipeline.supervisor import Supervisor
from pipeline.swaps import Replay, SwapLog, read_swaps
from pipeline.weights import Weights
from pipeline.worker import Worker

pytestmark = pytest.mark.usefixtures("register")
register = moving_blocks.register

BLOCKS = Path(moving_blocks.__file__)
VERSION = "learned.version"


def gain(value: float, version: int = 1, **changed) -> Weights:
    return Weights(**{"name": "gain", "version": version, "arrays": {"gain": np.array(value)},
                      **changed})  # fmt: skip


@pytest.fixture
def place(monkeypatch):
    """A folder with versions 1 and 2 of `gain`, the gains 10 and 20, and 3, that fits no block."""
    folder = Path(tempfile.mkdtemp(prefix="kalvit"))  # short: paths of sockets are
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.delenv("KALVIT_RUNS", raising=False)
    monkeypatch.delenv("KALVIT_MODELS", raising=False)
    for weights in (gain(10.0), gain(20.0), gain(0.0, arrays={"gain": np.zeros(2)})):
        Models().add(weights)
    yield folder
    shutil.rmtree(folder)


def flow(model: str = "", trainer: bool = False, delay: int | str = "live", **source) -> Flow:
    flow = Flow("swapping", seed=4)
    flow.add("numbers", "source.numbers", **source)
    flow.add("learned", "detector.learned", **({"model": model} if model else {}))
    flow.add("end", "sink.journal", reads={"x": "x", "y": "y"})
    flow.connect("numbers -> learned -> end")
    if trainer:
        flow.add("trainer", "trainer.counting", every=7)
        flow.tap("learned -> trainer")
        flow.feedback("trainer ~> learned", delay=delay)
    return flow


def decided_with(log, gains: dict[int, float]) -> bool:
    """Whether every frame was multiplied by the gain of the version on it."""
    for stream in {entry[0] for entry in log}:
        draws = RandomStream(lambda rng, n: rng.standard_normal(n), 4, "numbers", stream, "numbers")
        for _, _, sample, marks, size, _, digest, _ in (e for e in log if e[0] == stream):
            product = draws.take(sample, size) * gains[marks.get(VERSION, 0)]
            if hashlib.sha256(product.tobytes()).hexdigest()[:8] != digest:
                return False
    return True


def changes(log) -> list[list]:
    """(stream, seq, version) where the version on the frames of a stream changes."""
    found, last = [], {}
    for stream, seq, _, marks, *_ in log:
        version = marks.get(VERSION, 0)
        if last.get(stream, 0) != version:
            last[stream] = version
            found.append([stream, seq, version])
    return sorted(found)


def logged(folder: Path) -> list[list]:
    lines = [json.loads(line) for line in (folder / "swaps.jsonl").read_text().splitlines()]
    assert {line["block"] for line in lines} == {"learned"}
    return sorted([line["stream"], line["seq"], line["version"]]
                  for line in lines if "refused" not in line)  # fmt: skip


# the model that a block starts with


@pytest.mark.parametrize("model", ["gain@2", "gain"])
def test_a_block_starts_with_its_model(place, model):
    Models().promote("gain@2")
    found = run_alone(flow(model, frames=6, gaps=[3], keys=["left", "right"]).check())
    log = results_of({"main": found})["end"]["log"]
    assert len(log) == 12
    assert {entry[3][VERSION] for entry in log} == {2}
    assert decided_with(log, {2: 20.0})
    name = {"name": "gain", "version": 2}
    assert found["models"]["learned"] == name | {"swaps": 0, "refused": 0, "rolled_back": 0}


def test_the_benchmark_without_the_runtime_starts_with_it_too(place):
    from pipeline.direct import DirectCalls

    calls = DirectCalls(flow("gain@1", frames=4).check())
    calls.run(Limits())
    entries = calls.results()["end"]["log"]
    assert decided_with([[*entry[:3], {VERSION: 1}, *entry[4:]] for entry in entries], {1: 10.0})


def test_a_trainer_goes_on_from_the_model(place):
    found = run_alone(flow("gain@1", trainer=True, frames=20).check())
    log = results_of({"main": found})["end"]["log"]
    assert [entry[3][VERSION] for entry in log] == [1] * 7 + [7] * 7 + [14] * 6
    assert decided_with(log, {1: 10.0, 7: 7.0, 14: 14.0})


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("gian", r"^flow swapping: no model named 'gian'; did you mean 'gain'"),
        ("gain", r"^flow swapping: no version of 'gain' is promoted"),
        ("gain@8", r"no model gain@8; there are gain@1, gain@2, gain@3"),
        ("gain@1", r"weights\.safetensors: .* the file was changed after it was written"),
    ],
)
def test_a_model_that_cannot_serve_is_told_before_anything_starts(place, model, text):
    file = Models().folder / "gain" / "1" / "weights.safetensors"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(WeightsError, match=text):
        flow(model).check()


def test_a_model_of_another_shape_ends_the_run_with_what_the_block_says(place):
    with pytest.raises(WeightsError, match=r"a gain of shape \(2,\)"):
        run_here(flow("gain@3"), frames=3)


# swaps


def test_swaps_in_a_running_flow_lose_no_frame_and_each_frame_says_what_decided_it(place):
    """Three workers, two streams, gaps; half the offers are refused."""
    source = {"keys": ["left", "right"], "gaps": [20, 50]}
    asked = flow("gain@1", frames=1_000_000, rate=300.0, **source)
    asked.assign("rx", ["learned"])
    asked.assign("last", ["end"])
    running = Running(asked, [BLOCKS])
    offers = [Models().load("gain@2"), Models().load("gain@1")]
    for number in range(60):
        weights = offers[number % 2]
        answer = running.swap(weights)
        assert (answer.get("name"), answer.get("version")) == ("gain", weights.version), answer
        refused = running.swap(Models().load("gain@3"))
        assert refused["refused"] == "a gain of shape (2,)"
    for wrong, text in {
        b"": "are no weights", gain(5.0).to_bytes()[:-9]: "are no weights", "%": "",
        gain(1.0, name="other"): "weights 'other' are no gain", None: "carries no weights",
    }.items():  # fmt: skip
        assert text in running.swap(wrong)["refused"]
    assert "no block 'end' with weights" in running.swap(offers[0], "end")["refused"]
    outcome = running.stop()
    assert (outcome.code, outcome.errors) == (0, [])
    log = outcome.summary["results"]["end"]["log"]
    model = outcome.summary["models"]["learned"]
    assert (model["version"], model["swaps"], model["refused"]) == (1, 60, 61)
    for key in ("left", "right"):
        data = [entry[1] for entry in log if entry[0] == key]
        assert data == [seq for seq in range(1, data[-1] + 1) if seq not in (21, 52)]
    assert decided_with(log, {1: 10.0, 2: 20.0})
    found = changes(log)
    assert found == logged(outcome.folder)
    assert len(found) > 20  # some may have come between the same two frames
    refusals = (outcome.folder / "swaps.jsonl").read_text().count('"refused"')
    assert refusals == 61

    # the replay: another split, the log in place of whoever asked
    asked = flow("gain@1", frames=max(entry[1] for entry in log), **source)
    again = Supervisor(asked.check(), block_files=[BLOCKS], replay=outcome.folder).run()
    assert (again.code, again.errors) == (0, [])
    repeated = {tuple(entry[:2]): entry for entry in again.summary["results"]["end"]["log"]}
    assert [repeated[tuple(entry[:2])] for entry in log] == log
    assert logged(again.folder) == logged(outcome.folder)


def test_a_replay_repeats_what_a_live_trainer_brought_about(place):
    """Three workers, the trainer behind a lossy tap: no two live runs need be alike."""
    learning = flow(trainer=True, frames=400, rate=1000.0, gaps=[50])
    learning.assign("rx", ["learned"])
    learning.assign("learn", ["trainer"])
    outcome = Supervisor(learning.check(), block_files=[BLOCKS]).run()
    assert (outcome.code, outcome.errors) == (0, [])
    log = outcome.summary["results"]["end"]["log"]
    found = changes(log)
    assert found
    assert found == logged(outcome.folder)
    assert decided_with(log, {0: 0.0} | {version: float(version) for _, _, version in found})
    again = flow(trainer=True, frames=400, gaps=[50])
    found = Supervisor(again.check(), block_files=[BLOCKS], replay=outcome.folder).run()
    assert found.summary["results"]["end"]["log"] == log
    assert logged(found.folder) == logged(outcome.folder)


def test_a_swap_is_refused_where_another_order_was_promised(place):
    running = Running(flow(trainer=True, delay=1, frames=1_000_000, rate=300.0), [BLOCKS])
    assert "its trainer emitted 1 frames before" in running.swap(gain(3.0))["refused"]
    outcome = running.stop()
    assert not (outcome.folder / "swaps.jsonl").exists()


class Asking:
    """A line to a worker on which one swap is asked for, once frames have come."""

    def __init__(self, weights: Weights) -> None:
        text = base64.b64encode(weights.to_bytes()).decode()
        self._messages = [{"verb": "swap", "block": "learned", "weights": text, "client": "00"}]
        self.answers: list[dict] = []

    def messages(self) -> list:
        return [self._messages.pop()] if self._messages else []

    def send(self, message) -> None:
        self.answers += [message] if message["verb"] == "swapped" else []


def test_a_run_that_repeats_another_takes_no_swaps(place):
    link = Asking(gain(3.0))
    replay = Replay({"learned": {("main", 5): gain(7.0, version=9)}})
    plan = flow("gain@1", frames=60, rate=600.0).check()
    log = Worker(plan, link=link, replay=replay).run()["results"]["end"]["log"]
    (answer,) = link.answers
    assert "repeats the swaps of another" in answer["refused"]
    assert changes(log) == [["main", 5, 9]]
    assert decided_with(log, {0: 0.0, 9: 7.0})


def test_a_block_that_fails_to_take_a_swap_is_named(place):
    class Fails(moving_blocks.LearnedGain):
        def take(self, weights):
            if weights.version == 8:
                raise KeyError("bias")

    plan = flow("gain@1", frames=60, rate=600.0).check()
    object.__setattr__(plan.blocks["learned"], "cls", Fails)
    with pytest.raises(BlockError, match=r"^learned raised KeyError: 'bias'"):
        Worker(plan, link=Asking(gain(3.0, version=8))).run()


# the log


def test_a_log_comes_back_as_it_was_written(tmp_path):
    first, second = SwapLog(tmp_path), SwapLog(tmp_path)  # two workers
    first.swapped("a", "main", 1, gain(1.0, 5))
    second.swapped("b", "main", 1, gain(1.0, 5))
    first.refused("a", "no good")
    first.swapped("a", "other", 7, gain(1.0, 6))
    first.swapped("a", "main", 9, gain(2.0, 7, arrays={"gain": np.arange(50_000.0)}))
    found = read_swaps(tmp_path).weights
    assert {(block, *place): weights.version for block, swaps in found.items()
            for place, weights in swaps.items()} == {
        ("a", "main", 1): 5, ("b", "main", 1): 5, ("a", "other", 7): 6, ("a", "main", 9): 7,
    }  # fmt: skip
    assert found["a"]["main", 9].arrays["gain"][-1] == 49_999.0
    assert len(list((tmp_path / "weights").iterdir())) == 2  # each once


@pytest.mark.parametrize(
    "line", ["x", "[]", "{}", '{"block": "a", "stream": "main", "seq": 1}', "5",
             '{"block": "a", "stream": "m", "seq": 1, "version": 1, "sha256": "../../x"}'],
)  # fmt: skip
def test_a_damaged_log_is_told_by_its_line(tmp_path, line):
    SwapLog(tmp_path).swapped("a", "main", 1, gain(1.0))
    with (tmp_path / "swaps.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(RunError, match=r"swaps\.jsonl:2: cannot be replayed"):
        read_swaps(tmp_path)


def test_weights_of_a_log_that_were_changed_are_told(tmp_path):
    SwapLog(tmp_path).swapped("a", "main", 1, gain(1.0))
    (file,) = (tmp_path / "weights").iterdir()
    good = file.read_bytes()
    told = 0
    for at in range(len(good)):
        file.write_bytes(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :])
        try:
            found = read_swaps(tmp_path).weights["a"]["main", 1]
        except RunError:
            told += 1
        else:  # a byte that only fills up
            assert (found.digest, found.version) == (gain(1.0).digest, 1)
    assert told > len(good) - 32


# the command line


@pytest.fixture
def kalvit(monkeypatch, capfd):
    """The command in this process: returns its exit code, standard output and error."""
    monkeypatch.setattr(catalogue, "_files", {})

    def call(*argv):
        monkeypatch.setattr(sys, "argv", ["kalvit", *argv])
        code = cli.run_app()
        return code, *capfd.readouterr()

    return call


def test_models_are_listed_shown_promoted_and_verified(place, kalvit, monkeypatch):
    monkeypatch.setattr(catalogue, "flows", dict)  # beside which other models are shipped
    assert kalvit("models", "list") == (0, "gain  3 versions, no current\n", "")
    assert kalvit("models", "promote", "gain@1") == (0, "gain@1 is current\n", "")
    assert kalvit("models", "promote", "gain@2") == (0, "gain@2 is current\n", "")
    assert kalvit("list", "models")[1] == "gain  3 versions, current gain@2\n"
    lines = kalvit("models", "list", "gain")[1].splitlines()
    assert [line.split()[0] for line in lines] == ["gain@1", "gain@2", "gain@3"]
    assert ["current" in line for line in lines] == [False, True, False]
    lines = kalvit("models", "show", "gain")[1].splitlines()
    shown = dict(re.split(r" {2,}", line, maxsplit=1) for line in lines if "  " in line)
    assert (shown["version"], shown["arrays"]) == ("2", "gain float64[]")
    assert shown["sha256"] == gain(20.0).digest
    assert kalvit("models", "rollback", "gain")[1] == "gain@1 is current\n"
    assert kalvit("models", "rollback", "gain")[0] == 2
    code, out, _ = kalvit("models", "verify")
    assert (code, out.count("is whole")) == (0, 4)
    (place / "models" / "gain" / "2" / "card.json").unlink()
    code, out, _ = kalvit("models", "verify", "gain")
    assert (code, out.count("is whole"), out.count("! ")) == (1, 3, 1)
    assert kalvit("models")[:2] == kalvit("models", "--help")[:2]
    for command in ("list", "show", "promote", "rollback", "verify"):
        code, _, err = kalvit("models", command, "gian")
        assert code == 2
        assert "did you mean 'gain'" in err


def test_swap_and_replay_from_the_command_line(place, kalvit):
    running = Running(flow("gain@1", frames=1_000_000, rate=300.0), [BLOCKS])
    run = running.boss.run_id
    assert kalvit("swap", run, "learned", "2")[:2] == (0, f"learned of {run} now has gain@2\n")
    assert kalvit("swap", run, "learned", "gain@1")[0] == 0
    code, out, err = kalvit("swap", run, "learned", "3")
    assert (code, out) == (2, "")
    assert err.endswith("refused gain@3: a gain of shape (2,); gain@1 serves on\n")
    assert "no model gain@9" in kalvit("swap", run, "learned", "9")[2]
    assert "did you mean 'learned'" in kalvit("swap", run, "lerned", "2")[2]
    assert "no run named" in kalvit("swap", "swapping-x", "learned", "2")[2]
    outcome = running.stop()
    file = place / "swapping.toml"
    log = outcome.summary["results"]["end"]["log"]
    flow("gain@1", frames=len(log)).save(file)
    options = ("run", str(file), "--blocks", str(BLOCKS), "--json", "again.json")
    Block.registry.clear()  # they come from the file
    code, _, err = kalvit(*options, "--replay", run)
    assert (code, err) == (0, "")
    again = json.loads((place / "again.json").read_text())
    assert again["results"]["end"]["log"] == log
    assert again["seed"] == 4
    assert "takes the same flow and seed" in kalvit(*options, "--replay", run, "--seed", "5")[2]
    assert "has no swaps.jsonl" in kalvit(*options, "--replay", "none")[2]
