"""Other blocks in the place of one that runs: who decided each frame, refusals, and replays."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import moving_blocks
import numpy as np
import pytest
from jaxtyping import Float64, Int64
from moving_blocks import Summed
from running import Running

from pipeline import catalogue, cli
from pipeline.block import Block, Context
from pipeline.draws import RandomStream
from pipeline.errors import ConnectError, FlowError
from pipeline.flow import Flow
from pipeline.frame import Array, Frame, Kind
from pipeline.models import Models
from pipeline.replacing import Newcomer, asked, planned_as
from pipeline.supervisor import Supervisor
from pipeline.swaps import Use
from pipeline.weights import Weights
from pipeline.weights_input import WeightsInput

pytestmark = pytest.mark.usefixtures("register")
register = moving_blocks.register

BLOCKS = Path(moving_blocks.__file__)
USE, VERSION = "middle.use", "middle.version"


@pytest.fixture
def place(monkeypatch):
    """A folder with versions 1 and 2 of `gain`: the gains 10 and 20."""
    folder = Path(tempfile.mkdtemp(prefix="kalvit"))  # short: paths of sockets are
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.delenv("KALVIT_RUNS", raising=False)
    monkeypatch.delenv("KALVIT_MODELS", raising=False)
    for version in (1, 2):
        Models().add(Weights("gain", version, {"gain": np.array(10.0 * version)}))
    yield folder
    shutil.rmtree(folder)


def flow(use: str = "frontend.sum", *, params=None, **source) -> Flow:
    flow = Flow("replacing", seed=4)
    flow.add("numbers", "source.numbers", **{"frames": 1_000_000, "rate": 600.0, **source})
    flow.add("middle", use, reads={"x": "x"}, writes={"y": "z"}, **(params or {}))
    flow.add("end", "sink.journal", reads={"x": "x", "y": "z"})
    flow.connect("numbers -> middle -> end")
    return flow


def decided_again(log, lines, first, gains) -> list[str]:
    """Digests of what each frame should hold, by what the log of swaps says decided it.

    first   (use, factor) of the block of the flow
    gains   version -> gain
    """
    uses = {(line["stream"], line["seq"]): line for line in lines if "use" in line}
    serving, sums, last, found = {}, {}, {}, []
    for stream, seq, sample, marks, size, *_ in log:
        draws = RandomStream(lambda rng, n: rng.standard_normal(n), 4, "numbers", stream, "numbers")
        x = draws.take(sample, size)
        use, factor = serving.setdefault(stream, first)
        if (stream, seq) in uses:
            line = uses[stream, seq]
            use, factor = serving[stream] = line["use"], line["params"].get("factor", 1.0)
            sums[stream] = 0.0
        if last.get(stream, seq - 1) != seq - 1:
            sums[stream] = 0.0  # after a gap
        last[stream] = seq
        if (stream, seq) in uses or serving[stream] != first:
            assert marks[USE] == use
        if use == "detector.learned":
            y = x * gains[marks[VERSION]]
        else:
            y = sums.get(stream, 0.0) + np.cumsum(x)
            sums[stream] = float(y[-1])
            y = y * (factor if use == "frontend.sum" else 1.0)
        found.append(hashlib.sha256(y.tobytes()).hexdigest()[:8])
    return found


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "swaps.jsonl").read_text().splitlines()]


ROUND = (
    ("detector.later", "lag=7"),
    ("detector.learned", "model='gain@1'"),
    ("frontend.sum", "factor=2.0"),
    ("detector.learned",),
    ("detector.later",),
    ("frontend.sum",),
)


@pytest.mark.parametrize("workers", [{}, {"rx": ["middle"], "last": ["end"]}], ids=["1", "3"])
def test_blocks_in_turn_lose_no_frame_and_each_frame_says_what_decided_it(place, workers):
    """Two streams and gaps; the replay runs in another split, and repeats every decision."""
    source = {"keys": ["left", "right"], "gaps": [20, 50], "lengths": [3, 1]}
    asked = flow(**source)
    for worker, blocks in workers.items():
        asked.assign(worker, blocks)
    running = Running(asked, [BLOCKS], watched="middle")
    for use, *settings in ROUND * 3:
        assert running.use("middle", use, *settings).get("use") == use
        time.sleep(0.02)
        answer = running.swap(Models().load("gain@2"), "middle")
        if use == "detector.learned":
            assert answer["version"] == 2
        else:
            assert "with weights" in answer["refused"] or "takes none" in answer["refused"]
        time.sleep(0.02)
    running.use("middle", "detector.learned")
    running.wait_for(running.frames + 200)
    status = running.status()
    assert status["blocks"]["middle"]["use"] == "detector.learned"
    assert status["models"]["middle"]["version"] == 2
    outcome = running.stop()
    assert (outcome.code, outcome.errors) == (0, [])
    log = outcome.summary["results"]["end"]["log"]
    assert outcome.summary["blocks"]["middle"]["replaced"] == 19
    for key in ("left", "right"):
        data = [entry[1] for entry in log if entry[0] == key]
        assert data == [seq for seq in range(1, data[-1] + 1) if seq not in (21, 52)]
    lines = lines_of(outcome.folder)
    gains = {1: 10.0, 2: 20.0}
    assert [e[6] for e in log] == decided_again(log, lines, ("frontend.sum", 1.0), gains)
    assert {line["params"].get("factor") for line in lines if "use" in line} == {None, 2.0}

    again = flow(**source | {"rate": 0.0, "frames": max(entry[1] for entry in log)})
    if not workers:
        again.assign("rx", ["middle"])
    found = Supervisor(again.check(), block_files=[BLOCKS], replay=outcome.folder).run()
    assert (found.code, found.errors) == (0, [])
    repeated = {tuple(entry[:2]): entry for entry in found.summary["results"]["end"]["log"]}
    assert [repeated[tuple(entry[:2])] for entry in log] == log

    def key(line):
        return line["stream"], line["seq"], "use" in line

    assert sorted(lines_of(found.folder), key=key) == sorted(lines, key=key)


REFUSALS = {
    "detector.latr": "no block named 'detector.latr'; did you mean 'detector.later'",
    "source.numbers": "source.numbers starts a stream; only a block that answers each frame",
    "sink.journal": "sink.journal ends a branch",
    "trainer.counting": "trainer.counting ends a branch",
    "frontend.recut": "frontend.recut cuts frames anew",
    "detector.later lag=-1": "lag = -1",
    "detector.later lagg=1": "no parameter 'lagg'; did you mean 'lag'",
    "detector.later lag": "write BLOCK.PARAMETER=VALUE",
    "detector.learned model='gian'": "no model named 'gian'; did you mean 'gain'",
    "frontend.raises at=-1 where='start'": "frontend.raises raised ValueError: no more",
    "detector.two": "reads 'w', but nothing before it writes them",
    "detector.peeks": "reads 'place' of numbers, which is truth",
    "detector.mute": "detector.mute writes no 'z', which blocks after middle read",
    "detector.whole": "'y' is int64 with dims (time); expected float64 with dims (time)",
    "detector.early": "detector.early raised KeyError: 'not yet'",
}  # fmt: skip


def test_what_cannot_take_over_is_refused_and_nothing_has_changed(place):
    asked = flow()
    asked.assign("rx", ["middle"])
    running = Running(asked, [BLOCKS], watched="middle")
    for text, expected in REFUSALS.items():
        use, *settings = text.split()
        answer = running.use("middle", use, *settings)
        assert expected in answer["refused"], text
    for name, expected in (("end", "end ends a branch"), ("numbers", "numbers starts a stream"),
                           ("midle", "no block 'midle'; did you mean 'middle'")):  # fmt: skip
        assert expected in running.use(name, "detector.later")["refused"]
    outcome = running.stop()
    assert (outcome.code, outcome.errors) == (0, [])
    log = outcome.summary["results"]["end"]["log"]
    assert not [entry for entry in log if entry[3]]
    assert [e[6] for e in log] == decided_again(log, [], ("frontend.sum", 1.0), {})
    assert not (outcome.folder / "swaps.jsonl").exists()


def test_a_field_keeps_its_type_even_where_those_after_take_any(monkeypatch):
    class Any(moving_blocks.Sum):
        def process(self, x: Float64[Array, "time"] | Int64[Array, "time"]) -> Summed: ...

    monkeypatch.setitem(Block.registry, "frontend.any", Any)
    any_after = flow()
    any_after.add("after", "frontend.any", reads={"x": "z"}, writes={"y": "after"})
    any_after.add("last", "sink.journal", reads={"x": "x", "y": "after"})
    any_after.connect("middle -> after -> last")
    any_after.edges = [edge for edge in any_after.edges if edge.target != "end"]
    del any_after.blocks["end"]
    text = r"^detector.whole writes 'z' as int64 with dims \(time\), but in this flow it is float64"
    with pytest.raises(ConnectError, match=text):
        planned_as(any_after.check(), "middle", Use("detector.whole", {}))


def test_parameters_keep_their_values_until_others_are_given():
    plan = flow(params={"factor": 3.0}).check()
    assert asked(plan, "middle", None, "frontend.sum", []).params == {"factor": 3.0}
    later = asked(plan, "middle", None, "detector.later", ["lag=9"])
    assert later == Use("detector.later", {"lag": 9})
    assert asked(plan, "middle", later, "frontend.sum", []).params == {"factor": 3.0}
    half = asked(plan, "middle", later, "frontend.sum", ["middle.factor=0.5"])
    assert half.params == {"factor": 0.5}
    assert asked(plan, "middle", half, "frontend.sum", []).params == {"factor": 0.5}


# alternatives


def with_sums(alternatives: list[str]) -> Flow:
    """numbers -> sums -> middle -> end, where only `detector.extra` reads the sums"""
    flow = Flow("replacing", seed=4)
    flow.add("numbers", "source.numbers", frames=1_000_000, rate=600.0)
    flow.add("sums", "frontend.sum", writes={"y": "summed"})
    flow.add("middle", "frontend.sum", writes={"y": "z"}, alternatives=alternatives)
    flow.add("end", "sink.journal", reads={"x": "x", "y": "z"})
    flow.connect("numbers -> sums -> middle -> end")
    flow.assign("rx", ["middle"])
    flow.assign("last", ["end"])
    return flow


def test_alternatives_have_what_they_read_carried_over_edges(place):
    bare = with_sums([]).check()
    (edge,) = (edge for edge in bare.flow.edges if edge.target == "middle")
    assert bare.carried(edge) == ("place", "x")
    text = r"reads 'summed', which the edges before middle do not carry; alternatives = "
    with pytest.raises(ConnectError, match=text):
        planned_as(bare, "middle", Use("detector.extra", {}))
    asked = with_sums(["detector.extra"])
    assert Flow.from_dict(asked.to_dict()) == asked
    assert asked.check().carried(edge) == ("place", "summed", "x")
    running = Running(asked, [BLOCKS], watched="middle")
    assert running.use("middle", "detector.extra")["use"] == "detector.extra"
    time.sleep(0.05)
    outcome = running.stop()
    assert (outcome.code, outcome.errors) == (0, [])
    log = outcome.summary["results"]["end"]["log"]
    assert [entry[1] for entry in log] == list(range(1, len(log) + 1))
    draws = RandomStream(lambda rng, n: rng.standard_normal(n), 4, "numbers", "main", "numbers")
    total, by_extra = 0.0, 0
    for _, _, sample, marks, size, _, digest, _ in log:
        x = draws.take(sample, size)
        sums = total + np.cumsum(x)
        total = float(sums[-1])
        by_extra += USE in marks
        z = x + sums if USE in marks else sums
        assert hashlib.sha256(z.tobytes()).hexdigest()[:8] == digest
    assert 0 < by_extra < len(log)


@pytest.mark.parametrize(
    ("alternative", "error", "text"),
    [
        ("detector.latr", FlowError, "no block named 'detector.latr'; did you mean"),
        ("sink.journal", FlowError, "sink.journal ends a branch"),
        ("detector.two", ConnectError, r"middle \(detector.two\) reads 'w', but nothing before"),
        ("detector.peeks", ConnectError, "reads 'place' of numbers, which is truth"),
        ("detector.mute", ConnectError, "detector.mute writes no 'z', which blocks after middle"),
    ],
)
def test_an_alternative_that_could_never_serve_is_told_before_anything_starts(
    alternative, error, text
):
    with pytest.raises(error, match=text):
        with_sums([alternative]).check()


def test_alternatives_are_a_list_of_names():
    with pytest.raises(FlowError, match=r"alternatives = 'x', but it must be a list of blocks"):
        Flow.from_dict({"name": "a", "blocks": {"b": {"use": "c", "alternatives": "x"}}})


# weights that come while another block serves


def learning(delay: int | str) -> Flow:
    learning = flow("detector.learned", rate=400.0)
    learning.add("trainer", "trainer.counting")
    learning.tap("middle -> trainer")
    learning.feedback("trainer ~> middle", delay=delay)
    return learning


@pytest.mark.parametrize("delay", ["live", 2])
def test_a_learned_block_that_returns_has_the_newest_weights(place, delay):
    """The trainer goes on while another block serves: version n comes after frame n."""
    running = Running(learning(delay), [BLOCKS], watched="middle")
    for _ in range(3):
        assert running.use("middle", "frontend.sum", "factor=2.0")["use"] == "frontend.sum"
        time.sleep(0.05)
        assert running.use("middle", "detector.learned")["use"] == "detector.learned"
        time.sleep(0.05)
    outcome = running.stop()
    assert (outcome.code, outcome.errors) == (0, [])
    log = outcome.summary["results"]["end"]["log"]
    lines = lines_of(outcome.folder)
    gains = {version: float(version) for version in range(len(log) + 2)}
    for entry in log[:2]:
        entry[3].setdefault(VERSION, 0)
    assert [e[6] for e in log] == decided_again(log, lines, ("detector.learned", 0.0), gains)
    behind = 1 if delay == "live" else delay  # in one worker the trainer answers at once
    learned = [e for e in log if e[3].get(USE, "detector.learned") == "detector.learned"]
    assert all(e[3][VERSION] == max(0, e[1] - behind) for e in learned)
    assert len(learned) < len(log)
    if delay == 2:
        with pytest.raises(ConnectError, match=r"detector\.later answers later, but middle waits"):
            planned_as(learning(2).check(), "middle", Use("detector.later", {}))


def test_a_learned_block_begins_with_the_first_weights_that_fit_it(place):
    """Offered newest first: what came, what served by each name, the model it has, none."""
    other = Weights("other", 5, {"gain": np.array(1.0)})
    first, second = Models().load("gain@1"), Models().load("gain@2")

    def begins_with(*served: Weights, settings=(), **params) -> Weights | None:
        came = WeightsInput("middle", "live")
        for weights in served:
            came.begin(weights, only=True)
        plan = flow(params=params, use="detector.learned").check()
        x = np.ones(3)
        frame = Frame(Kind.DATA, "main", 1, 0, 0, {"x": x}, {})
        newcomer = Newcomer(
            plan, "middle", "detector.learned", settings, serving=None,
            latest=(frame, {"x": x}), context=Context("middle"), feedback=came,
        )  # fmt: skip
        newcomer.run()
        assert newcomer.error == ""
        return newcomer.first_weights(came.newest)

    def digest(weights: Weights | None) -> str:
        return "" if weights is None else weights.digest

    assert begins_with(first, second) is second
    assert begins_with(second, first, other) is first
    assert digest(begins_with(other, model="gain@2")) == second.digest
    assert digest(begins_with(second, settings=["model='gain@1'"])) == first.digest
    assert begins_with(other) is None
    assert begins_with() is None


# the command line


def test_a_block_is_replaced_and_the_run_replayed_from_the_command_line(place, monkeypatch, capfd):
    monkeypatch.setattr(catalogue, "_files", {})

    def kalvit(*argv):
        monkeypatch.setattr(sys, "argv", ["kalvit", *argv])
        code = cli.run_app()
        return code, *capfd.readouterr()

    asked = with_sums(["detector.extra"])
    running = Running(asked, [BLOCKS], watched="middle")
    run = running.boss.run_id
    code, out, _ = kalvit("swap", run, "middle", "--use", "detector.later", "--set", "lag=2")
    assert (code, out) == (0, f"middle of {run} is now detector.later\n")
    assert kalvit("swap", run, "middle", "--use", "detector.extra")[0] == 0
    code, _, err = kalvit("swap", run, "middle", "--use", "detector.two")
    assert code == 2
    assert err.endswith("; nothing has changed\n")
    for words in ((), ("7", "--use", "detector.later"), ("7", "--set", "lag=2")):
        assert "give either a VERSION" in kalvit("swap", run, "middle", *words)[2]
    running.wait_for(running.frames + 20)
    assert "middle: detector.extra serves, replaced 2 times" in kalvit("status")[1]
    outcome = running.stop()
    log = outcome.summary["results"]["end"]["log"]
    plain = with_sums([])  # what the log names is carried all the same
    plain.blocks["numbers"].params["frames"] = len(log)
    plain.save("replacing.toml")
    Block.registry.clear()  # they come from the file
    options = ("run", "replacing.toml", "--blocks", str(BLOCKS), "--json", "again.json")
    code, _, err = kalvit(*options, "--replay", run)
    assert (code, err) == (0, "")
    assert json.loads(Path("again.json").read_text())["results"]["end"]["log"] == log
