"""Tuning finds what is known to be the best, and nothing stops it but the user."""

import json
import os
import re
import shlex
import signal
import statistics
import sys
from dataclasses import replace
from typing import Annotated, NamedTuple

import moving_blocks
import numpy as np
import pytest
from jaxtyping import Float64

from blocks import fields
from pipeline import cli, tune
from pipeline.block import Block, Source, param
from pipeline.cli import measuring
from pipeline.draw import describe_block
from pipeline.errors import FlowError, ParameterError
from pipeline.flow import Flow, parse_setting
from pipeline.frame import Array
from pipeline.grid import decades, parse_grid
from pipeline.local import run
from pipeline.roots import Limits
from pipeline.tune_report import warnings_of

register = moving_blocks.register
SYSTEM = {"motion": "canonical", "observation": "identity"}


def linear(q=0.1, seed=0, words=20, use="tracker.kalman", **values):
    """A linear system of process noise q, and a tracker that does not know it."""
    flow = Flow("linear", seed=seed)
    flow.add(
        "system", "source.state_space", words=words, length=100, frames=1, process_noise=q, **SYSTEM
    )
    flow.add("filter", use, **SYSTEM, **values)
    flow.add("error", "sink.tracking_error")
    flow.connect("system -> filter -> error")
    return flow


class Scaled(NamedTuple):
    estimates: Annotated[Float64[Array, "*word time estimate"], fields.ESTIMATES]


class Scale(Block, name="tracker.scale"):
    """Gain times the observation; breaks where asked to."""

    gain: float = param(default=0.5, above=0.0, tune=(0.1, 10.0), doc="factor")
    breaks_above: float = param(default=1e9, doc="gain above which it raises")
    nan_above: float = param(default=1e9, doc="gain above which it gives NaN")
    label: str = param(default="", doc="no number")

    def process(self, observations: Float64[Array, "*word time observation"]) -> Scaled:
        if self.gain > self.breaks_above:
            raise ZeroDivisionError("by design")
        return Scaled(observations * (np.nan if self.gain > self.nan_above else self.gain))


class Still(NamedTuple):
    states: Annotated[Float64[Array, "time state"], fields.STATES]
    observations: Annotated[Float64[Array, "time observation"], fields.OBSERVATIONS]


class Tape(Source, name="source.tape"):
    """The same numbers at every seed, as a recording has."""

    def start(self):
        self._sent = False

    def process(self) -> Still | None:
        if self._sent:
            return None
        self._sent = True
        states = np.ones((50, 1))
        return Still(states, 2.0 * states)


OWN = (Scale, Tape)
for block in OWN:
    del Block.registry[block.name]


@pytest.fixture
def own_blocks(monkeypatch):
    for block in OWN:
        monkeypatch.setitem(Block.registry, block.name, block)


def scaled(**values):
    """Independent states of variance 4 in noise of variance 1: a gain of 0.8 is the best."""
    flow = Flow("scaled")
    flow.add(
        "system", "source.state_space", frames=1, length=5000, observation="identity",
        dimensions=1, transition=[[0.0]], process_covariance=[[4.0]],
    )  # fmt: skip
    flow.add("scale", "tracker.scale", **values)
    flow.add("error", "sink.tracking_error")
    flow.connect("system -> scale -> error")
    return flow


# What is found


@pytest.mark.parametrize("q", [1e-3, 0.1, 10.0])
def test_the_likelihood_finds_the_process_noise_without_the_truth(q):
    # over 20 seeds the logarithm of what it finds spread by 0.16, 0.09 and 0.03; the grid adds 0.1
    axis = decades("process_noise", q / 10.0, q * 10.0, 12)
    found = [tune.tune(linear(q, seed), "filter", [axis], seeds=1) for seed in range(0, 50, 10)]
    ratios = [one["best"]["process_noise"] / q for one in found]
    assert all(1.0 / 1.7 < ratio < 1.7 for ratio in ratios)
    assert 1.0 / 1.25 < statistics.median(ratios) < 1.25
    assert not any(one["reads_truth"] or one["at_edge"] for one in found)


@pytest.mark.usefixtures("own_blocks")
def test_refining_comes_nearer_to_the_best_gain():
    grid = [parse_grid("gain=0.5,1,2")]
    coarse = tune.tune(scaled(), "scale", grid, by="mse_db", seeds=2)
    fine = tune.tune(scaled(), "scale", grid, by="mse_db", seeds=2, refine=5)
    assert coarse["best"] == {"gain": 1.0}
    assert fine["best"]["gain"] == pytest.approx(0.8, abs=0.03)
    assert len(fine["points"]) == 3 + 2 * 5
    assert fine["held_out"]["best"]["mse_db"] == pytest.approx(10.0 * np.log10(0.8), abs=0.2)
    assert fine["reads_truth"]


@pytest.mark.usefixtures("own_blocks")
def test_the_largest_may_be_the_best():
    found = tune.tune(
        scaled(), "scale", [parse_grid("gain=1,2,3")], by="error.mse_db", is_largest=True, seeds=1
    )
    assert (found["best"], found["best_is"]) == ({"gain": 3.0}, "largest")


@pytest.mark.usefixtures("own_blocks")
def test_a_block_says_where_to_look():
    found = tune.tune(scaled(), "scale", by="mse_db", seeds=1)
    gains = [point["parameters"]["gain"] for point in found["points"]]
    assert gains == [0.1, 0.2154, 0.4642, 0.5, 1.0, 2.154, 4.642, 10.0]  # 0.5: what it has now
    assert "a number, above 0.0, tuned from 0.1 to 10" in "\n".join(describe_block(Scale).lines())
    assert found["now"] == {"gain": 0.5}


def test_what_it_found_is_compared_with_now_on_seeds_that_did_not_choose():
    flow = linear(0.1, seed=7)
    found = tune.tune(flow, "filter", [parse_grid("process_noise=0.05,0.1,0.2")], seeds=2)
    assert (found["seeds"], found["held_out"]["seeds"]) == ([7, 8], [9, 10])
    means = {}
    for q in (0.1, 1.0):
        flow.set("filter.process_noise", q)
        each = []
        for seed in (9, 10):
            flow.seed = seed
            each.append(run(flow)["results"]["error"]["log_likelihood"])
        means[q] = np.mean(each)
    assert found["held_out"]["best"]["log_likelihood"] == pytest.approx(means[0.1], rel=1e-12)
    assert found["held_out"]["now"]["log_likelihood"] == pytest.approx(means[1.0], rel=1e-12)
    assert found["held_out"]["better_on"] == 2
    assert warnings_of(found) == []


def test_errors_in_db_are_pooled_as_powers_and_the_worst_is_the_worst():
    found = tune.tune(linear(), "filter", [parse_grid("process_noise=1")], seeds=3)
    each = []
    for seed in range(3):
        each.append(run(linear(seed=seed))["results"]["error"])
    pooled = found["points"][0]["results"]
    powers = [10.0 ** (result["mse_db"] / 10.0) for result in each]
    assert pooled["mse_db"] == pytest.approx(10.0 * np.log10(np.mean(powers)))
    assert pooled["worst_mse_db"] == max(result["worst_mse_db"] for result in each)
    assert pooled["nis"] == pytest.approx(np.mean([result["nis"] for result in each]))


# How it runs


@pytest.fixture
def runs(monkeypatch):
    """The number of points of each run."""
    counts = []

    def counting(flow, **limits):
        counts.append(sum(spec.use == "sink.tracking_error" for spec in flow.blocks.values()))
        return run(flow, **limits)

    monkeypatch.setattr(tune, "run", counting)
    return counts


@pytest.mark.parametrize(
    ("use", "values", "shared"),
    [("tracker.kalman", {}, True), ("tracker.particle", {"particles": 30}, False)],
)
def test_points_share_a_run_only_where_that_changes_no_number(
    use, values, shared, runs, monkeypatch
):
    monkeypatch.setattr(tune, "SHARED", 1e-9)  # however short what they share
    flow = linear(words=2, use=use, **values)
    axis = parse_grid("process_noise=0.3,1,3,10")
    found = tune.tune(flow, "filter", [axis], seeds=1)
    for point in found["points"]:
        flow.set("filter.process_noise", point["parameters"]["process_noise"])
        results = run(flow)["results"]["error"]
        assert point["results"] == {key: results[key] for key in point["results"]}
    twice, others = 2, 4 - 1  # the first point runs beside itself
    held_out = 2 - (found["best"] == found["now"])
    alone = [1] * (others + held_out)
    assert runs == ([twice, others, held_out] if shared else [twice, *alone])


@pytest.mark.usefixtures("own_blocks")
def test_points_that_fail_are_rows_with_the_reason():
    flow = scaled(breaks_above=5.0, nan_above=3.0)
    axis = parse_grid("gain=-1,0.4,0.8,1,4,6,8")
    found = tune.tune(flow, "scale", [axis], by="mse_db", seeds=2)
    failed = {p["parameters"]["gain"]: p["failed"] for p in found["points"] if p["failed"]}
    assert set(failed) == {-1.0, 4.0, 6.0, 8.0}
    assert "gain = -1.0, but it must be above 0.0" in failed[-1.0]
    assert failed[4.0] == "seed 0: mse_db is nan"
    assert "scale raised ZeroDivisionError on main:1: by design" in failed[8.0]
    assert found["best"] == {"gain": 0.8}


@pytest.mark.usefixtures("own_blocks")
def test_what_now_fails_is_beaten_by_what_does_not():
    flow = scaled(gain=6.0, breaks_above=5.0)
    found = tune.tune(flow, "scale", [parse_grid("gain=0.4,0.8,1.6")], by="mse_db", seeds=2)
    assert found["best"] == {"gain": 0.8}
    assert (found["held_out"]["better_on"], found["held_out"]["now"]) == (2, {})
    assert warnings_of(found) == []


@pytest.mark.usefixtures("own_blocks")
def test_a_best_point_at_the_edge_and_seeds_that_confirm_nothing_are_warned_of():
    flow = scaled()
    found = tune.tune(flow, "scale", [parse_grid("gain=0.1,0.2,0.5")], by="mse_db", seeds=1)
    assert found["at_edge"] == ["gain"]
    assert "the best gain = 0.5 is at the edge of what was tried; widen" in warnings_of(found)[0]
    tape = Flow("tape")
    tape.add("tape", "source.tape")
    tape.add("scale", "tracker.scale", gain=0.3)
    tape.add("error", "sink.tracking_error")
    tape.connect("tape -> scale -> error")
    found = tune.tune(tape, "scale", [parse_grid("gain=0.4,0.51,1")], by="mse_db", seeds=2)
    assert found["best"] == {"gain": 0.51}
    assert warnings_of(found) == [
        "the numbers do not depend on the seed, so nothing confirms the choice"
    ]


def test_items_of_lists_and_tables_and_whole_numbers_are_set_as_they_are_meant():
    flow = Flow.load("bearing_tracker")
    grid = [parse_grid("observation_noise[1]=1e-4,2e-4"),
            parse_grid("motion_parameters.turn_noise=1e-6,1e-5")]  # fmt: skip
    found = tune.tune(flow, "tracker", grid, seeds=1, limits=Limits(frames=1))
    assert len(found["points"]) == 4
    best = found["best"]
    for text in found["settings"]:
        flow.set(*parse_setting(text))
    values = flow.check().blocks["tracker"].block.values()
    assert values["observation_noise"] == (400.0, best["observation_noise[1]"])
    assert values["motion_parameters"] == {"turn_noise": best["motion_parameters.turn_noise"]}

    smooth = linear(use="tracker.smoother", words=0)
    found = tune.tune(smooth, "filter", [parse_grid("lag=1:50:1/decade")], by="rmse", seeds=1)
    lags = [point["parameters"]["lag"] for point in found["points"]]
    assert lags == [1, 10, 50]  # 50: what it has now
    assert all(isinstance(lag, int) for lag in lags)
    assert re.fullmatch(r"filter\.lag=\d+", found["settings"][0])


def test_other_branches_and_the_pace_of_a_source_are_left_out(monkeypatch):
    flow = linear()
    flow.set("system.rate", 0.01)
    flow.add("null", "sink.null")
    flow.connect("system -> null")
    seen = []
    monkeypatch.setattr(tune, "run", lambda flow, **limits: seen.append(flow) or run(flow))
    found = tune.tune(flow, "filter", [parse_grid("process_noise=0.1")], seeds=1)
    assert found["by"] == "error.log_likelihood"
    for one in seen:
        assert "null" not in one.blocks
        assert one.blocks["system"].params["rate"] == 0.0


@pytest.mark.usefixtures("register")
def test_a_flow_that_learns_is_run_whole_point_by_point(monkeypatch):
    flow = Flow("learning")
    flow.add("numbers", "source.numbers", frames=6, lengths=[1])
    flow.add("learned", "detector.learned")
    flow.add("sum", "frontend.sum", reads={"x": "y"}, writes={"y": "summed"})
    flow.add("trainer", "trainer.counting")
    flow.add("end", "sink.journal", reads={"x": "summed"})
    flow.connect("numbers -> learned -> sum -> end")
    flow.connect("learned -> trainer")
    flow.feedback("trainer ~> learned", delay=1)
    sizes = []
    monkeypatch.setattr(tune, "run", lambda flow, **limits: sizes.append(len(flow.blocks)) or
                        run(flow, **limits))  # fmt: skip
    found = tune.tune(flow, "sum", [parse_grid("factor=1,2")], by="end.finished", seeds=1)
    assert set(sizes) == {5}
    assert [point["value"] for point in found["points"]] == [1.0, 1.0]


def test_ctrl_c_ends_it_with_what_was_found_so_far(monkeypatch):
    calls = []

    def interrupted(flow, **limits):
        calls.append(flow.seed)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return run(flow, **limits)

    monkeypatch.setattr(tune, "run", interrupted)
    monkeypatch.setattr(tune._Tuning, "_try_twice", lambda self, p, s: self._run([p], s)[0])
    axis = parse_grid("process_noise=0.01,0.1,1,10")
    found = tune.tune(linear(), "filter", [axis], seeds=2)  # 5 points: 1 is not tried twice
    assert found["interrupted"]
    assert found["best"] == {"process_noise": 0.1}
    assert found["seeds"] == [0]
    assert "it was not confirmed on other seeds" in warnings_of(found)


def test_a_refinement_that_is_stopped_does_not_spoil_the_grid(monkeypatch):
    def interrupted(flow, **limits):
        tried = flow.blocks["filter"].params["process_noise"]
        if tried not in (0.01, 0.1, 1.0) and flow.seed == 1:
            raise KeyboardInterrupt
        return run(flow, **limits)

    monkeypatch.setattr(tune, "run", interrupted)
    axis = parse_grid("process_noise=0.01,0.1,1")
    found = tune.tune(linear(), "filter", [axis], seeds=2, refine=1)
    assert found["interrupted"]
    assert found["seeds"] == [0, 1]
    tried = [point["parameters"]["process_noise"] for point in found["points"]]
    assert tried == [0.01, 0.1, 1.0]


def test_a_genie_on_the_way_makes_it_read_truth():
    flow = linear()
    assert not tune.tune(flow, "filter", [parse_grid("process_noise=1")], seeds=1)["reads_truth"]
    flow.blocks["filter"] = replace(flow.blocks["filter"], genie=True)
    assert tune.tune(flow, "filter", [parse_grid("process_noise=1")], seeds=1)["reads_truth"]


# Mistakes


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0)])
def test_a_parameter_cannot_say_that_it_is_to_be_looked_for_nowhere(bounds):
    with pytest.raises(ParameterError, match=r"tune = .* two rising numbers above 0"):
        param(default=1.0, doc="factor", tune=bounds)


@pytest.mark.parametrize(
    ("block", "grid", "by", "said"),
    [
        ("filtr", [], "likelihood", "has no block 'filtr'; did you mean 'filter'"),
        ("filter", ["proces_noise=1"], "likelihood", "did you mean 'process_noise'"),
        ("filter", ["gain=1"], "likelihood", "no parameter 'gain' (numeric ones: dimensions, "),
        ("filter", ["form=1"], "likelihood", "form = 'joseph' is no number (numeric ones: "),
        ("filter", ["transition=1"], "likelihood", "transition = () is no number"),
        ("filter", ["transition[0]=1"], "likelihood", "no such item in ()"),
        ("filter", ["motion_parameters.b=1"], "likelihood", "no such item in {}"),
        ("filter", ["process_noise.b=1"], "likelihood", "no such item in 1.0"),
        ("filter", ["dimensions=1:2:3"], "likelihood", "is a whole number, and cannot be 1.5"),
        ("filter", ["step_s=1", "step_s=2"], "likelihood", "step_s has two grids"),
        ("filter", ["step_s=0:1:1000", "process_noise=1:9:11"], "likelihood", "11000 points"),
        ("filter", [], "mse", "error reports no number 'mse'; did you mean 'rmse'"),
        ("filter", [], "errors.rmse", "no sink 'errors' follows block 'filter'; did you mean"),
        ("filter", [], "system.rmse", "no sink 'system' follows"),
        ("error", [], "rmse", "sink.tracking_error says for no parameter where to look"),
    ],
)
def test_mistakes_are_named_with_what_would_be_right(block, grid, by, said):
    with pytest.raises(FlowError) as caught:
        tune.tune(linear(), block, [parse_grid(text) for text in grid], by=by, seeds=1)
    assert said in str(caught.value)


def test_a_list_is_tuned_by_its_items():
    flow = linear(observation_noise=[1.0, 2.0])
    with pytest.raises(FlowError, match=r"is no number; name an item of it, as observation_noise"):
        tune.tune(flow, "filter", [parse_grid("observation_noise=1")])


def test_without_a_likelihood_the_other_numbers_are_offered():
    smooth = linear(use="tracker.smoother")
    with pytest.raises(FlowError, match=r"reports: .*mse_db.*writes a likelihood, so choose by"):
        tune.tune(smooth, "filter", [parse_grid("process_noise=1")], seeds=1)


def test_several_sinks_have_to_be_told_apart():
    flow = linear()
    flow.add("null", "sink.null")
    flow.connect("filter -> null")
    with pytest.raises(FlowError, match=r"say error\.log_likelihood or null\.log_likelihood"):
        tune.tune(flow, "filter")
    assert tune.tune(flow, "filter", [parse_grid("process_noise=1")], by="error.likelihood")["best"]


# The command


@pytest.fixture
def kalvit(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)

    def call(*argv):
        monkeypatch.setattr(sys, "argv", ["kalvit", "tune", *argv])
        before = signal.getsignal(signal.SIGINT)
        try:
            code = cli.run_app()
        finally:
            signal.signal(signal.SIGINT, before)
        return code, *capfd.readouterr()

    return call


def test_the_command_ends_with_the_line_that_uses_what_it_found(kalvit, tmp_path):
    linear(0.1).save("linear.toml")
    code, out, err = kalvit(
        "linear.toml", "--block", "filter", "--grid", "process_noise=0.01:1:3/decade", "--seeds",
        "2", "--refine", "1", "--seed", "3", "--set", "system.words=10", "--json", "a.json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    found = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert (found["seeds"], found["held_out"]["seeds"]) == ([3, 4], [5, 6])
    lines = out.splitlines()
    assert lines[0] == "linear: filter by error.log_likelihood, largest; needs no truth"
    rows = [line.split() for line in lines if re.match(r" *[\d.]+ +-?[\d.]", line)]
    assert len(rows) == len(found["points"]) + 2  # on the other seeds, the best and that of now
    (best,) = [row for row in rows[:-2] if "best" in row]
    assert float(best[0]) == found["best"]["process_noise"]
    assert float(best[1]) == pytest.approx(max(p["value"] for p in found["points"]), rel=1e-4)
    assert "better than now on 2 of 2" in out
    argv = shlex.split(lines[-1])
    q = found["best"]["process_noise"]
    assert argv == ["kalvit", "run", "linear.toml", "--set", "system.words=10", "--set",
                    f"filter.process_noise={q}"]  # fmt: skip


def test_the_line_names_the_files_of_the_blocks_that_it_needs(kalvit, monkeypatch):
    monkeypatch.setattr(measuring, "load_blocks", lambda files: None)
    linear(0.1).save("linear.toml")
    grid = ("--grid", "process_noise=0.1,1", "--seeds", "1")
    code, out, _ = kalvit("linear.toml", "--block", "filter", *grid, "--blocks", "mine.py")
    assert code == 0
    argv = shlex.split(out.splitlines()[-1])
    assert argv[:3] == ["kalvit", "run", "linear.toml"]
    assert argv[-2:] == ["--blocks", "mine.py"]


def test_blocks_are_imported_before_ctrl_c_becomes_an_exception(kalvit, monkeypatch):
    handlers, check = [], Flow.check
    monkeypatch.setattr(
        Flow, "check", lambda flow: handlers.append(signal.getsignal(signal.SIGINT)) or check(flow)
    )
    monkeypatch.setattr(tune, "run", lambda *args, **limits: os.kill(os.getpid(), signal.SIGINT))
    linear(0.1).save("linear.toml")
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    code, _, _ = kalvit("linear.toml", "--block", "filter", "--grid", "process_noise=0.1")
    assert code == 130
    assert handlers[0] == signal.SIG_DFL


def test_the_command_says_that_truth_was_read(kalvit):
    linear(0.1).save("linear.toml")
    grid = ("--grid", "process_noise=0.01,0.1,1")
    code, out, _ = kalvit("linear.toml", "--block", "filter", *grid, "--by", "mse_db")
    assert code == 0
    assert "filter by error.mse_db, smallest; reads truth: for simulations only" in out


def test_the_command_ends_with_130_where_ctrl_c_stopped_it(kalvit, monkeypatch):
    calls = []

    def interrupted(flow, **limits):
        calls.append(flow)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return run(flow, **limits)

    monkeypatch.setattr(tune, "run", interrupted)
    linear(0.1).save("linear.toml")
    code, out, err = kalvit("linear.toml", "--block", "filter", "--grid", "process_noise=0.1,0.3")
    assert (code, err) == (130, "")
    assert "pooled over 1 seed, interrupted" in out
    assert "warning: it was not confirmed on other seeds" in out
    assert out.splitlines()[-1].startswith("kalvit run linear.toml --set filter.process_noise=")


def test_the_command_fails_where_every_point_does(kalvit):
    linear(0.1).save("linear.toml")
    code, out, _ = kalvit(
        "linear.toml", "--block", "filter", "--grid", "process_noise=-2,-1", "--set",
        "filter.process_noise=1e308", "--seeds", "1",
    )  # fmt: skip
    assert code == 1
    assert out.count("failed, seed 0: ") == 3
    assert out.splitlines()[-1] == "warning: no point could be run to its end"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "missing option '--block'"),
        (("--block", "filtr"), "no block 'filtr'; did you mean 'filter'"),
        (("--block", "filter", "--grid", "process_noise="), "there is no value after '='"),
        (("--block", "filter", "--by", "mse"), "reports no number 'mse'; did you mean 'rmse'"),
        (("--block", "filter", "--seeds", "0"), "invalid value for '--seeds'"),
        (("--block", "filter", "--json", "no/a.json"), "there is no directory"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(kalvit, argv, said):
    linear(0.1).save("linear.toml")
    code, out, err = kalvit("linear.toml", *argv)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 6
