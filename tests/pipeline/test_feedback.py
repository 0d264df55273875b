"""Learned blocks and their trainers: which frame is decided with which weights."""

from __future__ import annotations

import hashlib

import moving_blocks
import numpy as np
import pytest
from splits import edges_of, results_of, run_alone, run_split

from pipeline import weights_input
from pipeline.block import Block, param
from pipeline.draws import RandomStream
from pipeline.errors import FlowError, RunError, WeightsError
from pipeline.flow import Flow
from pipeline.frame import Frame, Kind
from pipeline.roots import Limits
from pipeline.segment import BlockError
from pipeline.weights import Weights
from pipeline.weights_input import WeightsInput

pytestmark = pytest.mark.usefixtures("register")
register = moving_blocks.register

FRAMES = 30
VERSION = "learned.version"


def flow(delay: int | str, *, between: str = "", sibling: bool = False, source=None, **trainer):
    """numbers -> learned -> end, with a trainer behind `learned` or beside it"""
    flow = Flow("learning", seed=2)
    flow.add("numbers", "source.numbers", **{"frames": FRAMES, **(source or {})})
    flow.add("learned", "detector.learned")
    flow.add("end", "sink.journal", reads={"x": "x", "y": "y"})
    flow.add("trainer", "trainer.counting", **trainer)
    flow.connect("numbers -> learned -> end")
    before = "numbers" if sibling else "learned"
    if between:
        use, _, lag = between.partition(" ")
        flow.add("between", use, writes={"y": "z"}, **({"lag": int(lag)} if lag else {}))
        flow.tap(f"{before} -> between -> trainer")
    else:
        flow.tap(f"{before} -> trainer")
    flow.feedback("trainer ~> learned", delay=delay)
    return flow


def versions(results) -> list[int]:
    """The version that decided each data frame, by seq; 0: none yet."""
    return [entry[3].get(VERSION, 0) for entry in results["end"]["log"]]


def expected(delay: int, every: int = 1, refused: tuple[int, ...] = (), frames: int = FRAMES):
    """By definition: for frame n, the newest that was emitted after a frame up to n - delay."""
    found = []
    newest = 0
    for n in range(1, frames + 1):
        if n > delay and (n - delay) % every == 0 and n - delay not in refused:
            newest = n - delay
        found.append(newest)
    return found


SPLITS = {
    "one": {},
    "two": {"learn": ["trainer"]},
    "three": {"learn": ["trainer"], "rx": ["learned"]},
    "four": {"learn": ["trainer"], "rx": ["learned"], "last": ["end"]},
    "apart": {"rx": ["learned", "trainer"]},
}


def run(flow: Flow, split: str, window: int = 8 << 20, seconds: float = 20.0):
    for worker, blocks in SPLITS[split].items():
        flow.assign(worker, blocks)
    return run_split(flow.check(), window=window, seconds=seconds)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("delay", [1, 2, 5])
def test_each_frame_is_decided_with_exactly_the_weights_of_its_delay(delay, every, split):
    found = run(flow(delay, every=every), split, window=1 if delay == 2 else 8 << 20)
    results = results_of(found)
    wanted = expected(delay, every)
    assert versions(results) == wanted
    # the gain is the version, so what was decided shows that the mark is true
    log = results["end"]["log"]
    assert [entry[6] for entry in log] == decided(log, wanted)
    assert results["trainer"]["seqs"] == list(range(1, FRAMES + 1))
    (model,) = [s["models"]["learned"] for s in found.values() if s["models"]]
    taken = expected(delay, every, frames=FRAMES + 1)  # the end of the stream is a frame, too
    swaps = len(set(taken) - {0})
    assert model == {
        "name": "gain", "version": taken[-1], "swaps": swaps, "refused": 0, "rolled_back": 0,
    }  # fmt: skip
    for counts in edges_of(found).values():
        assert counts["lost"] == counts["dropped"] == 0


def decided(log: list, gains: list[int]) -> list[str]:
    """Digests of what the frames hold if they were multiplied by these gains."""
    stream = RandomStream(lambda rng, n: rng.standard_normal(n), 2, "numbers", "main", "numbers")
    products = [stream.take(e[2], e[4]) * float(g) for e, g in zip(log, gains, strict=True)]
    return [hashlib.sha256(product.tobytes()).hexdigest()[:8] for product in products]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("between", ["", "frontend.sum"])
def test_a_trainer_beside_the_learned_block_is_awaited_as_well(split, between):
    found = run(flow(2, sibling=True, between=between), split, window=1)
    assert versions(results_of(found)) == expected(2)


@pytest.mark.parametrize("split", SPLITS)
def test_gaps_count_as_frames_and_leave_the_weights_in_place(split):
    source = {"frames": 10, "gaps": [4, 7]}
    results = results_of(run(flow(1, source=source), split))
    log = results["end"]["log"]
    assert [entry[1] for entry in log] == [1, 2, 3, 4, 6, 7, 8, 10, 11, 12]
    # after a gap at seq 5 comes frame 6, whose weights are those after "frame" 5: still version 4
    wanted = [0, 1, 2, 3, 4, 6, 7, 8, 10, 11]
    assert versions(results) == wanted
    assert [entry[6] for entry in log] == decided(log, wanted)


@pytest.mark.parametrize("split", ["one", "three"])
def test_refused_weights_leave_the_old_ones_serving_and_are_counted(split):
    refused = {"wrong_name": [3, 4], "wrong_shape": [9]}
    found = run(flow(1, **refused), split)
    results = results_of(found)
    assert versions(results) == expected(1, refused=(3, 4, 9))
    (model,) = [s["models"]["learned"] for s in found.values() if s["models"]]
    assert model["refused"] == 3


@pytest.mark.parametrize("split", SPLITS)
def test_live_the_newest_wins_and_versions_never_go_back(split):
    found = run(flow("live", source={"frames": 300}), split, window=2000)
    results = results_of(found)
    seen = versions(results)
    assert len(seen) == 300
    assert seen == sorted(seen)
    for version, entry in zip(seen, results["end"]["log"], strict=True):
        assert version < entry[1]  # no frame is decided with weights that it brought about
    trained = results["trainer"]["seqs"]
    assert trained == sorted(trained)
    assert set(seen) - {0} <= set(trained)
    (model,) = [s["models"]["learned"] for s in found.values() if s["models"]]
    assert model["swaps"] <= len(trained)
    if split in ("one", "apart"):
        assert seen == expected(1, frames=300)


def test_a_stop_lets_the_frames_that_wait_through():
    for split in SPLITS:
        plan = flow(1, source={"frames": 10_000})
        for worker, blocks in SPLITS[split].items():
            plan.assign(worker, blocks)
        found = run_split(plan.check(), limits=Limits(seconds=0.2), window=2000)
        seen = versions(results_of(found))
        assert seen == expected(1, frames=len(seen))
        assert len(seen) == sum(s["emitted"].get("numbers", 0) for s in found.values())


# what cannot work


@pytest.mark.parametrize("where", ["behind", "beside"])
def test_a_late_answer_on_the_way_to_the_trainer_ends_the_run_with_what_to_do(where):
    late = flow(1, between="detector.later 7", sibling=where == "beside")
    text = (
        r"^learned: frame \d+ waits for the weights after frame \d+, which between holds back; "
        r"set the delay of the feedback edge above 1, or shorten the decision delay"
    )
    with pytest.raises(RunError, match=text):
        run_alone(late.check())


@pytest.mark.parametrize("delay", [4, 5])
@pytest.mark.parametrize("split", SPLITS)
def test_a_delay_above_the_decision_delay_works(split, delay):
    # 7 samples in frames of 3: three frames are held back
    found = run(flow(delay, between="detector.later 7"), split)
    assert versions(results_of(found)) == expected(delay)


def test_the_last_delay_that_is_too_short_is_refused():
    with pytest.raises(RunError, match="which between holds back"):
        run_alone(flow(3, between="detector.later 7").check())


def test_a_learned_block_that_answers_late_itself_is_refused():
    class LateLearned(moving_blocks.Later):
        model: str = param(default="", doc="of the class whose place it takes")

        def take(self, weights):
            pass

    plan = flow(1).check()
    object.__setattr__(plan.blocks["learned"], "cls", LateLearned)
    with pytest.raises(RunError, match=r"which learned holds back; set the delay .* above 1"):
        run_alone(plan)


@pytest.mark.parametrize("split", ["one", "three"])
def test_a_delay_in_frames_needs_a_single_stream(split):
    two = flow(1, source={"keys": ["left", "right"]})
    text = (
        r"^learned: delay = 1 counts the frames of one stream, but there are 'left' and 'right'; "
        r'use delay = "live"'
    )
    with pytest.raises(RunError, match=text):
        run(two, split)


def test_live_serves_several_streams():
    source = {"keys": ["left", "right"], "frames": 20}
    results = results_of(run(flow("live", source=source), "one"))
    assert len(results["end"]["log"]) == 40
    by_stream = {
        key: [e for e in results["end"]["log"] if e[0] == key] for key in ("left", "right")
    }
    # in one worker the trainer answers at once: each stream sees what the other brought about
    assert [e[3].get(VERSION, 0) for e in by_stream["left"]] == [*range(20)]
    assert [e[3].get(VERSION, 0) for e in by_stream["right"]] == [*range(1, 21)]


def test_a_source_takes_no_weights(monkeypatch):
    class Taught(moving_blocks.MakeNumbers):
        def take(self, weights): ...

    monkeypatch.setitem(Block.registry, "source.taught", Taught)
    taught = flow(1)
    taught.add("taught", "source.taught")
    taught.add("tutor", "trainer.counting")
    taught.connect("taught -> tutor")
    taught.feedback("tutor ~> taught", delay=1)
    with pytest.raises(FlowError, match=r"taught \(source\.taught\) is a source, which has"):
        taught.check()


def test_a_trainer_that_returns_something_else_is_named():
    with pytest.raises(BlockError, match=r"^trainer raised FieldError on main:4: process returned "
                                         r"int, not Weights or None"):  # fmt: skip
        run_alone(flow(1, wrong_result=4).check())


def test_a_learned_block_that_fails_to_take_is_named():
    class Fails(moving_blocks.LearnedGain):
        def take(self, weights):
            raise KeyError("gain")

    plan = flow(1).check()
    object.__setattr__(plan.blocks["learned"], "cls", Fails)
    with pytest.raises(BlockError, match=r"^learned raised KeyError on main:2: 'gain'"):
        run_alone(plan)


def test_a_delay_over_a_reframe_block_is_refused_before_the_start():
    cut = flow(1)
    cut.add("cut", "frontend.recut", reads={"x": "y"}, writes={"y": "x"})
    cut.add("other", "trainer.counting")
    cut.add("taught", "detector.learned", writes={"y": "z"})
    cut.connect("learned -> cut -> other")
    cut.connect("learned -> taught")
    cut.feedback("other ~> taught", delay=1)
    with pytest.raises(FlowError, match="delay = 1 counts frames, but other counts those of cut"):
        cut.check()


# the input by itself


def answer(after: int, version: int = 0, name: str = "gain") -> Frame:
    if not version:
        return Frame(Kind.WEIGHTS, "trainer", 0, 0, 0, {}, {"after": after})
    frame = Weights(name, version, {"gain": np.array(float(version))}).to_frame("trainer", 0, 0)
    return frame._replace(marks={**frame.marks, "after": after})


def test_an_input_admits_a_frame_once_the_answer_it_waits_for_has_come():
    waiting = WeightsInput("learned", 2)
    block = moving_blocks.LearnedGain()
    block.start()
    assert [waiting.admits(seq) for seq in (0, 1, 2)] == [True, True, False]
    waiting.push(answer(0))
    waiting.push(answer(1, version=1))
    waiting.push(answer(2, version=2))
    assert [waiting.admits(seq) for seq in (3, 4, 5)] == [True, True, False]
    waiting.take(3, [block])
    assert (block.gain, waiting.current.version) == (1.0, 1)
    waiting.take(3, [block])
    assert waiting.counts == {"swaps": 1, "refused": 0, "rolled_back": 0}
    waiting.take(4, [block])
    assert block.gain == 2.0


def test_an_input_that_is_live_takes_only_the_newest_that_fits():
    waiting = WeightsInput("learned", "live")
    first, second = moving_blocks.LearnedGain(), moving_blocks.LearnedGain()
    assert waiting.admits(1 << 40)
    for after, version, name in ((1, 1, "gain"), (2, 2, "gain"), (3, 3, "other")):
        waiting.push(answer(after, version, name))
    waiting.take(0, [first, second])
    assert (first.gain, second.gain, waiting.current.version) == (2.0, 2.0, 2)
    assert waiting.counts == {"swaps": 1, "refused": 1, "rolled_back": 0}
    assert "weights 'other' are no gain" in waiting.refusals[0]


@pytest.mark.parametrize(("delay", "seen"), [("live", [1, 1, 2]), (1, [1, 2, 2])])
def test_weights_that_take_long_to_take_wait_where_any_may_decide(monkeypatch, delay, seen):
    """Taking costs 1 ms each time, so that newer ones rest for 20 ms; frames come every 15 ms."""
    clock = {"now": 0, "busy": 0}

    class Slow(moving_blocks.LearnedGain):
        def take(self, weights):
            clock["busy"] += 1_000_000
            super().take(weights)

    monkeypatch.setattr(weights_input, "monotonic_ns", lambda: clock["now"])
    monkeypatch.setattr(weights_input, "thread_time_ns", lambda: clock["busy"])
    waiting, block = WeightsInput("learned", delay), Slow()
    found = []
    for seq in (1, 2, 3):
        if seq < 3:
            waiting.push(answer(seq - 1, version=seq))
        frame = Frame(Kind.DATA, "main", seq, 0, 0, {}, {})
        found.append(waiting.before(frame, {"main": block}).version)
        clock["now"] += 15_000_000
    assert found == seen


def test_weights_that_one_instance_refuses_serve_none():
    class Fussy(moving_blocks.LearnedGain):
        def take(self, weights):
            if weights.version == 2:
                raise WeightsError("not these")
            super().take(weights)

    waiting = WeightsInput("learned", "live")
    blocks = [moving_blocks.LearnedGain(), Fussy()]
    for version in (1, 2):
        waiting.push(answer(version, version))
        waiting.take(0, blocks)
    assert [block.gain for block in blocks] == [1.0, 1.0]
    assert waiting.counts == {"swaps": 1, "refused": 1, "rolled_back": 0}


def test_damaged_weights_are_refused_and_answer_all_the_same():
    waiting = WeightsInput("learned", 1)
    waiting.push(answer(0, version=1)._replace(fields={"gain": np.array(9.0)}))
    assert waiting.admits(1)
    block = moving_blocks.LearnedGain()
    block.start()
    waiting.take(1, [block])
    assert block.gain == 0.0
    assert waiting.current is None
    assert waiting.counts == {"swaps": 0, "refused": 1, "rolled_back": 0}
    assert "fail their SHA-256" in waiting.refusals[0]


def test_only_the_last_refusals_are_kept():
    waiting = WeightsInput("learned", 1)
    for after in range(50):
        waiting.push(answer(after, version=1)._replace(fields={}))
    assert waiting.counts["refused"] == 50
    assert len(waiting.refusals) == 10
