"""Training draws frames of its own from the flow, and leaves a whole version or none."""

import os
import shlex
import signal
import sys
from typing import Annotated, NamedTuple

import moving_blocks
import numpy as np
import pytest
from jaxtyping import Float32, Int8

from blocks import fields
from pipeline import cli
from pipeline.block import Block, Learned, param
from pipeline.errors import FlowError, KalvitError, ParameterError, WeightsError
from pipeline.flow import Flow
from pipeline.frame import Array
from pipeline.local import run
from pipeline.models import Models
from pipeline.segment import BlockError
from pipeline.train import Learnt, Training

register = moving_blocks.register


class Decided(NamedTuple):
    symbols: Annotated[Int8[Array, "*word time"], fields.SYMBOLS]


class Slope(Learned, name="detector.slope"):
    """Decides by the sign of gain times sample; trained, the gain is by least squares."""

    trained_by = ":fit_gain"
    learns_from = ("sent",)

    limit: float = param(default=1e9, doc="gain above which weights are refused")

    def start(self):
        self.gain = 0.0

    def take(self, weights):
        gain = float(weights.arrays["gain"])
        if gain > self.limit:
            raise WeightsError(f"a gain of {gain}")
        self.gain = gain

    def process(self, samples: Float32[Array, "*word time"]) -> Decided:
        return Decided(np.where(self.gain * samples > 0.0, 1, -1).astype(np.int8))


class Untrained(Slope, name="detector.untrained"):
    """Learns, but nobody says how."""

    trained_by = ""


class Mute(Slope, name="detector.mute"):
    """Wants a truth that no channel tells."""

    learns_from = ("states",)


SEEN = []  # lessons that came


def fit_gain(block, lessons, *, epochs=3, rate=1.0, then=None):
    SEEN.append(lessons)
    for epoch in range(epochs):
        lessons.progress(epoch, epochs, "learning")
    if then is not None:
        then()
    products = sum(float((r["samples"] * r["sent"]).sum()) for r in lessons.training)
    squares = sum(float((r["samples"].astype(float) ** 2).sum()) for r in lessons.training)
    gain = rate * products / squares
    block.start()
    wrong = count = 0
    block.gain = gain
    for record in lessons.held_out:
        wrong += int((block.process(record["samples"]).symbols != record["sent"]).sum())
        count += record["sent"].size
    scores = {"symbol_error_rate": wrong / count}
    return Learnt({"kind": "slope"}, {"gain": np.array(gain)}, {"epochs": epochs}, scores)


OWN = (Slope, Untrained, Mute)
for block in OWN:
    del Block.registry[block.name]


@pytest.fixture(autouse=True)
def own_blocks(monkeypatch, tmp_path):
    for block in OWN:
        monkeypatch.setitem(Block.registry, block.name, block)
    monkeypatch.setenv("KALVIT_MODELS", str(tmp_path / "models"))
    SEEN.clear()


def simple(use="detector.slope", seed=0, source=(("length", 300),), **values):
    flow = Flow("simple", seed=seed)
    flow.add("symbols", "source.random_symbols", **dict(source))
    flow.add("channel", "channel.isi", taps=[2.0], snr_db=0.0)
    flow.add("detector", use, **values)
    flow.add("errors", "sink.error_rate")
    flow.connect("symbols -> channel -> detector -> errors")
    return flow


# What it learns from


def test_frames_are_those_of_the_flow_with_other_random_numbers():
    trained = Training(simple(), "detector", symbols=1000, held_out=400).run()
    (lessons,) = SEEN
    assert [r["sent"].shape for r in lessons.training] == [(1000,)]  # frames of 300, joined
    assert [r["samples"].shape for r in lessons.held_out] == [(400,)]
    noise = lessons.training[0]["samples"] - 2.0 * lessons.training[0]["sent"]
    assert noise.std() == pytest.approx(1.0, abs=0.1)
    drawn = [lessons.training[0]["sent"][:400], lessons.held_out[0]["sent"]]
    drawn += [run_sent(seed) for seed in (0, 1)]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert 0.3 < (one == other).mean() < 0.7
    # E[samples sent] / E[samples^2] = 2 / (4 + 1)
    assert float(trained.weights.arrays["gain"]) == pytest.approx(0.4, abs=0.03)


def run_sent(seed):
    """The first 400 symbols that a run of the flow sends."""
    from blocks.source.random_symbols import RandomSymbols
    from pipeline.block import Context, make

    source = make(RandomSymbols, {"length": 400}, Context("symbols", seed=seed))
    source.start()
    return source.process().sent


def test_the_same_seed_teaches_the_same_and_another_another():
    gains = [
        float(Training(simple(seed=seed), "detector", symbols=500).run().weights.arrays["gain"])
        for seed in (3, 3, 4)
    ]
    assert gains[0] == gains[1] != gains[2]


def test_words_are_cut_to_as_many_as_are_asked_for():
    Training(simple(source=(("length", 10), ("words", 7))), "detector", symbols=125).run()
    (record,) = SEEN[0].training
    assert record["samples"].shape == record["sent"].shape == (13, 10)


def test_symbols_are_spread_over_all_settings():
    vary = [("channel.snr_db", [0.0, 200.0]), ("channel.taps", [[1.0], [5.0], [7.0]])]
    trained = Training(simple(), "detector", vary=vary, symbols=600).run()
    records = SEEN[0].training
    assert [r["sent"].size for r in records] == [100] * 6
    assert [round(float(np.abs(r["samples"]).mean())) for r in records[3:]] == [1, 5, 7]
    assert not np.array_equal(records[3]["sent"], records[4]["sent"])
    assert trained.training["vary"] == dict(vary)


@pytest.mark.usefixtures("register")
def test_records_end_at_gaps_and_streams_are_kept_apart(monkeypatch):
    flow = Flow("gaps")
    flow.add("numbers", "source.numbers", frames=4, more=1, keys=["a", "b"], gaps=[2], rate=0.01)
    flow.add("later", "detector.later", lag=4)
    flow.add("learned", "detector.learned", reads={"x": "y"}, writes={"y": "z"})
    flow.connect("numbers -> later -> learned")
    monkeypatch.setattr(moving_blocks.LearnedGain, "trained_by", "test_train_fit:keep")
    monkeypatch.setattr(moving_blocks.LearnedGain, "learns_from", ("place",))
    kept = []

    def keep(block, lessons):
        kept.append(lessons)
        return Learnt({}, {"gain": np.array(1.0)})

    monkeypatch.setitem(sys.modules, "test_train_fit", type("m", (), {"keep": keep}))
    Training(flow, "learned", name="gain", symbols=20).run()
    places = [record["place"].tolist() for record in kept[0].training]
    # frames of 3, two before the gap of 5 and, in turn, what is left of 20
    assert places == [[*range(6)], [*range(6)], [*range(11, 17)], [11, 12]]
    first = kept[0].training[0]
    assert first["x"].shape == first["place"].shape  # `y` of the flow, as `process` calls it


def test_a_model_that_is_named_but_not_there_yet_is_no_obstacle():
    flow = simple(model="slope_of_mine@3")
    trained = Training(flow, "detector", symbols=100).run()
    assert trained.weights.name == "slope_of_mine"
    assert Training(simple(), "detector").name == "slope"
    assert Training(flow, "detector", name="other").name == "other"
    assert flow.blocks["detector"].params["model"] == "slope_of_mine@3"  # left as it was


def test_the_block_may_refuse_what_was_learnt():
    with pytest.raises(WeightsError, match=r"a gain of 0\.[34]"):
        Training(simple(limit=0.1), "detector", symbols=1000).run()


# Mistakes


@pytest.mark.parametrize(
    ("block", "given", "said"),
    [
        ("detectr", {}, "flow simple has no block 'detectr'; did you mean 'detector'"),
        ("channel", {}, r"channel \(channel.isi\) learns nothing, so .* `kalvit tune`"),
        ("detector", {"name": "My Model"}, "'My Model' is no name for a model"),
        ("detector", {"symbols": 0}, "0 symbols to learn from"),
        ("detector", {"options": {"epoch": 3}}, "no option 'epoch'; did you mean 'epochs'"),
        (
            "detector",
            {"options": {"epochs": 3.5}},
            "epochs = 3.5, but must be a whole number, such",
        ),
        ("detector", {"options": {"epochs": -3}}, "epochs = -3, but must be at least 0"),
        ("detector", {"vary": [("channel.snr", [1.0])]}, "did you mean 'snr_db'"),
        ("detector", {"vary": [("chanel.snr_db", [1.0])]}, "did you mean 'channel'"),
        ("detector", {"vary": [("channel.snr_db", [])]}, "names no value; write a list"),
        ("detector", {"vary": [("channel.snr_db", ["a"])]}, "channel.isi: snr_db = 'a'"),
        ("detector", {"vary": [("detector.limit", [1.0])]}, "may vary: symbols, channel"),
        (
            "detector",
            {"vary": [("channel.snr_db", [1.0] * 40), ("symbols.length", [5] * 40)]},
            "1600 combinations; 1000 are the most",
        ),
    ],
)
def test_mistakes_are_named_with_what_would_be_right(block, given, said):
    with pytest.raises(KalvitError, match=said):
        Training(simple(), block, **given)


def test_a_block_that_nothing_trains_is_refused():
    with pytest.raises(FlowError, match="names nothing that trains it offline"):
        Training(simple("detector.untrained"), "detector")


def test_a_flow_without_the_truth_is_refused():
    with pytest.raises(FlowError, match=r"learns from 'states', but .*truth there: sent, taps"):
        Training(simple("detector.mute"), "detector")


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(Slope, "trained_by", "torch.not_there:fit")
    with pytest.raises(KalvitError, match=r"cannot be trained: .*pip install 'kalvit\[train\]'"):
        Training(simple(), "detector")


def test_a_source_that_ends_too_soon_is_told():
    flow = simple(source=(("length", 100), ("frames", 3)))
    with pytest.raises(FlowError, match=r"after 300 of 5000 symbols.*--set symbols\.frames=0"):
        Training(flow, "detector").run()


def test_frames_that_no_seed_changes_cannot_be_held_out(monkeypatch):
    from blocks.source.random_symbols import RandomSymbols

    monkeypatch.setattr(RandomSymbols, "_draw", lambda self, rng, n: np.ones(n, np.int8))
    flow = simple()
    flow.set("channel.noise", "none")
    with pytest.raises(FlowError, match="same frames at every seed, so none can be held out"):
        Training(flow, "detector", symbols=50).run()


# The command


@pytest.fixture
def kalvit(monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KALVIT_MODELS")  # ./models
    simple().save("simple.toml")

    def call(*argv):
        monkeypatch.setattr(sys, "argv", ["kalvit", *argv])
        before = signal.getsignal(signal.SIGINT)
        try:
            code = cli.run_app()
        finally:
            signal.signal(signal.SIGINT, before)
        return code, *capfd.readouterr()

    return call


TRAIN = ("train", "simple.toml", "--block", "detector", "--symbols", "500")


def test_each_call_adds_a_version_whose_card_says_how_it_came_about(kalvit):
    code, out, err = kalvit(
        *TRAIN, "--seed", "5", "--vary", "channel.snr_db=[0, 3]", "--set", "symbols.length=50",
        "--fit", "rate=2.0",
    )  # fmt: skip
    assert (code, err) == (0, "")
    card = Models().card("slope@1")
    assert (card.labels, card.parent) == ("simulator", 0)
    told = card.training
    assert told["flow"] == "simple"
    assert told["use"] == "detector.slope"
    assert told["settings"] == ["symbols.length=50"]
    assert told["vary"] == {"channel.snr_db": [0, 3]}
    keys = ("block", "seed", "symbols", "held_out_symbols", "epochs", "rate")
    assert [told[key] for key in keys] == ["detector", 5, 500, 500, 3, 2.0]
    assert told["seconds"] > 0.0
    assert card.scores == {"symbol_error_rate": pytest.approx(0.01, abs=0.02)}
    assert out.startswith("slope@1 in models: 500 symbols, 3 epochs, ")
    assert "held out: symbol_error_rate 0.0" in out
    assert out.splitlines()[-1] == (
        "kalvit run simple.toml --set symbols.length=50 --set detector.model=slope@1"
    )
    assert Models().current("slope") == 0

    assert kalvit(*shlex.split(card.command)[1:])[0] == 0  # makes it again
    again = Models().card("slope@2")
    assert again.sha256 == card.sha256
    assert again.command == card.command


def test_the_last_line_runs_what_was_trained(kalvit):
    _, out, _ = kalvit(*TRAIN)
    assert out.splitlines()[-1] == "kalvit run simple.toml --set detector.model=slope@1"
    flow = Flow.load("simple.toml")
    flow.set("detector.model", "slope@1")
    found = run(flow, frames=20)["results"]["errors"]
    # Q(2) = 0.0228, of 6000 symbols: three standard deviations are 0.006
    assert found["symbol_error_rate"] == pytest.approx(0.0228, abs=0.006)


def test_a_version_may_be_promoted_at_once_under_another_name(kalvit):
    code, out, _ = kalvit(*TRAIN, "--name", "mine", "--promote")
    assert code == 0
    assert "mine@1 is current" in out
    assert (Models().current("mine"), Models().versions("mine")) == (1, [1])
    assert "slope" not in Models().names()


def test_ctrl_c_leaves_nothing(kalvit, monkeypatch):
    def interrupted(block, lessons, *, epochs=1):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(sys.modules[__name__], "fit_gain", interrupted)
    code, _, err = kalvit(*TRAIN, "--promote")
    assert code == 130
    assert err == "error: interrupted; nothing was written\n"
    assert not os.path.exists("models")


def test_what_trains_is_imported_before_ctrl_c_becomes_an_exception(kalvit, monkeypatch):
    from pipeline import train

    handlers, fit_of = [], train.fit_of
    monkeypatch.setattr(
        train,
        "fit_of",
        lambda *args: handlers.append(signal.getsignal(signal.SIGINT)) or fit_of(*args),
    )
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    assert kalvit(*TRAIN)[0] == 0
    assert handlers == [signal.SIG_DFL]


def test_a_second_run_beside_the_first_gets_the_next_number(kalvit, monkeypatch):
    own, inner = fit_gain, []

    def slow(block, lessons, *, epochs=1):
        if not inner:
            inner.append(1)
            models = Models()
            trained = Training(simple(seed=9), "detector", symbols=300).run()
            inner[0] = models.add(trained.weights).version
        return own(block, lessons)

    monkeypatch.setattr(sys.modules[__name__], "fit_gain", slow)
    code, out, _ = kalvit(*TRAIN)
    assert (code, inner) == (0, [1])
    assert out.startswith("slope@2 in models")
    assert dict(Models().verify("slope")) == {"slope@1": "", "slope@2": "", "slope/current": ""}


def test_a_bug_of_a_block_is_told_with_its_traceback(kalvit, monkeypatch):
    from blocks.channel.isi import Isi

    monkeypatch.setattr(Isi, "_received", lambda *args: 1 / 0)
    code, _, err = kalvit(*TRAIN)
    assert code == 1
    assert err.startswith("error: channel raised ZeroDivisionError on main:1: division by zero; ")
    assert "Traceback" in err
    with pytest.raises(BlockError):
        Training(simple(), "detector").run()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--vary", "channel.snr_db=3"), "--vary channel.snr_db=3: write a list of values"),
        (("--vary", "snr_db"), "--vary snr_db: expected such as channel.snr_db=[8.0, 10.0]"),
        (("--fit", "rate"), "--fit rate: expected such as rate=0.005"),
        (("--fit", "rates=1"), "has no option 'rates'; did you mean 'rate'?"),
        (("--symbols", "-5"), "no whole number of at least 0"),
        (("--name", "A"), "'A' is no name for a model"),
    ],
)
def test_wrong_use_is_told_in_one_line(kalvit, argv, said):
    code, _, err = kalvit(*TRAIN, *argv)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not os.path.exists("models")


def test_progress_is_shown_in_lines_where_there_is_no_terminal(kalvit, monkeypatch):
    from pipeline.cli import training

    monkeypatch.setattr(training, "FIRST_S", 0.0)
    _, out, _ = kalvit(*TRAIN, "--epochs", "2")
    assert out.splitlines()[:2] == ["0 of 2: learning", "1 of 2: learning"]


def test_options_out_of_place_are_parameter_errors():
    with pytest.raises(ParameterError, match=r"it has: epochs, rate, then"):
        Training(simple(), "detector", options={"zzzzz": 1})
