"""Flows give the same whatever the split into workers, and never lock up."""

from __future__ import annotations

import time

import moving_blocks
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from splits import edges_of, results_of, run_alone, run_split

from pipeline.errors import RunError
from pipeline.flow import Flow
from pipeline.frame import FrameInfo
from pipeline.roots import Limits
from pipeline.segment import BlockError
from pipeline.worker import Worker

pytestmark = pytest.mark.usefixtures("register")
register, chain = moving_blocks.register, moving_blocks.chain

CHAIN = ("numbers", "a", "b", "c", "end")


def split(flow: Flow, workers: str) -> Flow:
    """The flow with worker k running the blocks that stand in place k: "ab c" for example."""
    for name, letter in zip(flow.blocks, workers, strict=True):
        flow.assign(f"w_{letter}", [*flow.workers.get(f"w_{letter}", ()), name])
    return flow


@pytest.mark.parametrize("window", [1, 200, 8 << 20])
@pytest.mark.parametrize("workers", ["abcde", "aabbb", "abbba", "ababa", "abcab", "babcb"])
def test_a_chain_gives_the_same_in_any_split_and_with_any_window(workers, window):
    alone = run_alone(chain(gaps=[4, 11], keys=["left", "right"], more=3).check())
    plan = split(chain(gaps=[4, 11], keys=["left", "right"], more=3), workers).check()
    found = run_split(plan, window=window)
    assert results_of(found) == alone["results"]
    assert len(alone["results"]["end"]["log"]) == 43
    for counts in edges_of(found).values():
        assert counts["lost"] == counts["dropped"] == counts["queue"] == 0
        assert counts["frames"] == 43 + 2 * 2 + 2 * 2  # data, gaps, start and end of each stream


@st.composite
def trees(draw) -> tuple[Flow, dict[str, str]]:
    """A random tree of blocks, and a random split of it into workers."""
    flow = Flow("tree", seed=draw(st.integers(0, 3)))
    ints = st.lists(st.integers(0, 9), max_size=3).map(sorted)
    flow.add(
        "n0", "source.numbers", frames=draw(st.integers(0, 12)), gaps=draw(ints),
        lengths=draw(st.lists(st.integers(0, 6), min_size=1, max_size=3)),
        keys=draw(st.sampled_from([["main"], ["left", "right"]])), more=draw(st.integers(0, 4)),
    )  # fmt: skip
    fields = {"n0": ["x"]}  # on the output of a block, besides `place`
    sent = {"n0"}  # blocks whose frames still hold `place`
    leaves = {"n0"}

    def add(name: str, parent: str, use: str, **params) -> None:
        reads = {"x": draw(st.sampled_from(fields[parent]))}
        if use == "sink.journal":
            if draw(st.booleans()):
                reads["y"] = draw(st.sampled_from(fields[parent]))
            if parent in sent:
                reads["place"] = "place"
            flow.add(name, use, reads=reads)
        else:
            flow.add(name, use, reads=reads, writes={"y": f"f_{name}"}, **params)
            kept = [] if use == "frontend.recut" else fields[parent]
            fields[name] = [*kept, f"f_{name}"]
            if kept and parent in sent:
                sent.add(name)
            leaves.add(name)
        leaves.discard(parent)
        flow.connect(f"{parent} -> {name}")

    for number in range(1, draw(st.integers(1, 7)) + 1):
        use, params = draw(st.sampled_from([
            ("frontend.sum", {}), ("detector.later", {"lag": draw(st.integers(0, 9))}),
            ("frontend.recut", {"length": draw(st.integers(1, 7))}), ("sink.journal", {}),
        ]))  # fmt: skip
        add(f"n{number}", draw(st.sampled_from(sorted(fields))), use, **params)
    for leaf in sorted(leaves):
        add(f"end_{leaf}", leaf, "sink.journal")
    workers = {name: draw(st.sampled_from("abcd")) for name in flow.blocks}
    return flow, workers


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees(), st.sampled_from([1, 150, 4096, 8 << 20]))
def test_random_trees_give_the_same_in_any_split_and_with_any_window(tree, window):
    flow, workers = tree
    alone = run_alone(flow.check())
    for letter in sorted(set(workers.values())):
        flow.assign(f"w_{letter}", [n for n, w in workers.items() if w == letter])
    found = run_split(flow.check(), window=window)
    assert results_of(found) == alone["results"]
    for counts in edges_of(found).values():
        assert counts["lost"] == counts["dropped"] == counts["queue"] == 0
    frames = {name: b["frames"] for s in found.values() for name, b in s["blocks"].items()}
    assert frames == {name: block["frames"] for name, block in alone["blocks"].items()}


def test_a_busy_worker_acknowledges_what_it_has_processed():
    """A frame as large as the window goes only when all before it is acknowledged."""

    class Endless(moving_blocks.MakeNumbers):
        def process(self) -> moving_blocks.Made | None:
            # keeps its worker from ever falling idle, until the other stream has come through
            return None if done else super().process()

    class Watches(moving_blocks.Journal):
        def process(self, x: moving_blocks.Numbers) -> None:
            done.append(x.size)

    done: list[int] = []
    flow = Flow("starving")
    flow.add("large", "source.numbers", frames=1, lengths=[20_000])
    flow.add("watch", "sink.journal")
    flow.add("busy", "source.numbers", frames=10**7)
    flow.add("end", "sink.journal")
    flow.connect("large -> watch")
    flow.connect("busy -> end")
    flow.assign("other", ["large"])
    plan = flow.check()
    object.__setattr__(plan.blocks["busy"], "cls", Endless)
    object.__setattr__(plan.blocks["watch"], "cls", Watches)
    object.__setattr__(plan.blocks["watch"], "reads", (("x", "x"),))
    run_split(plan, window=100_000, seconds=10.0)
    assert done == [20_000]


def test_a_worker_whose_next_is_slow_does_not_spin():
    class Slow(moving_blocks.Journal):
        def process(self, x: moving_blocks.Numbers) -> None:
            time.sleep(0.01)  # stands for work of another process

    flow = Flow("slow")
    flow.add("numbers", "source.numbers", frames=40, lengths=[500])
    flow.add("a", "frontend.sum")
    flow.add("end", "sink.journal")
    flow.connect("numbers -> a -> end")
    plan = split(flow, "abc").check()
    object.__setattr__(plan.blocks["end"], "cls", Slow)
    object.__setattr__(plan.blocks["end"], "reads", (("x", "x"),))
    waits: dict[str, int] = {}
    run_split(plan, window=8000, waits=waits)
    # 40 frames of 4000 bytes: a handful of waits for each, not thousands
    assert waits["w_b"] < 40 * 10


# one worker


def test_a_worker_alone_needs_no_sockets():
    snapshot = Worker(chain().check(), "main").run()
    assert snapshot["results"] == run_alone(chain().check())["results"]
    assert snapshot["edges"] == {}
    assert snapshot["emitted"] == {"numbers": 20}
    assert snapshot["left"] == 0
    assert {name: block["frames"] for name, block in snapshot["blocks"].items()} == dict.fromkeys(
        CHAIN, 20
    )


def test_a_worker_with_edges_needs_sockets():
    plan = split(chain(), "aabbb").check()
    with pytest.raises(RunError, match=r"edge a->b leaves worker 'w_a', which runs alone"):
        Worker(plan, "w_a")
    with pytest.raises(RunError, match=r"edge a->b enters worker 'w_b', which runs alone"):
        Worker(plan, "w_b")


def test_what_a_chain_computes_is_what_numpy_computes():
    flow = chain(gaps=[7])
    flow.set("b.lag", 11)
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    class Keeps(moving_blocks.Journal):
        def process(self, x: moving_blocks.Numbers, y: moving_blocks.Numbers) -> None:
            seen.append((x, y))

    plan = flow.check()
    object.__setattr__(plan.blocks["end"], "cls", Keeps)
    object.__setattr__(plan.blocks["end"], "reads", (("x", "x"), ("y", "last")))
    Worker(plan, "main").run()
    assert [x.size for x, _ in seen] == [3, 0, 7, 1] * 5
    for part in (seen[:7], seen[7:]):  # a gap makes all blocks start over
        x, last = (np.concatenate(arrays) for arrays in zip(*part, strict=True))
        np.testing.assert_allclose(last, 0.5 * x.cumsum().cumsum().cumsum(), rtol=1e-12)


def test_limits_hold_in_every_split():
    for workers in ("aaaaa", "abcde"):
        found = run_split(split(chain(frames=1000), workers).check(), limits=Limits(frames=7))
        assert len(results_of(found)["end"]["log"]) == 7


def test_an_error_of_a_block_comes_out_of_any_worker():
    flow = chain()
    flow.add("bad", "frontend.raises", reads={"x": "decided"}, writes={"y": "bad"}, at=5)
    flow.connect("b -> bad")
    for workers in ("aaaaaa", "aabbba", "abcdef"):
        with pytest.raises(BlockError, match=r"^bad raised ValueError on main:5: no more"):
            run_split(split(flow, workers).check())


def test_sources_are_closed_when_a_run_fails():
    closed = []

    class Watched(moving_blocks.MakeNumbers):
        def close(self):
            closed.append(self.context.stream)

    flow = Flow("failing")
    flow.add("numbers", "source.numbers", keys=["a", "b"])
    flow.add("bad", "frontend.raises", at=2)
    flow.connect("numbers -> bad")
    plan = flow.check()
    object.__setattr__(plan.blocks["numbers"], "cls", Watched)
    with pytest.raises(BlockError):
        Worker(plan, "main").run()
    assert sorted(closed) == ["a", "b"]


# taps


def slow_tap(**source) -> Flow:
    flow = Flow("tapped", seed=1)
    flow.add("numbers", "source.numbers", **{"frames": 400, "lengths": [200], **source})
    flow.add("end", "sink.journal")
    flow.add("view", "sink.journal")
    flow.connect("numbers -> end")
    flow.tap("numbers -> view")
    flow.assign("slow", ["view"])
    return flow


def test_a_tap_drops_for_a_slow_reader_what_others_get_whole():
    class Slow(moving_blocks.Journal):
        def process(
            self,
            x: moving_blocks.Numbers,
            place: moving_blocks.Int64[moving_blocks.Array, "time"],
            info: FrameInfo = FrameInfo(),
        ) -> None:
            super().process(x, place=place, info=info)
            time.sleep(0.002)

    plan = slow_tap(keys=["a", "b"], gaps=[100]).check()
    object.__setattr__(plan.blocks["view"], "cls", Slow)
    found = run_split(plan)
    results = results_of(found)
    whole, seen = results["end"]["log"], results["view"]["log"]
    assert len(whole) == 800
    assert {tuple(map(str, entry)) for entry in seen} <= {tuple(map(str, e)) for e in whole}
    counts = edges_of(found)["numbers->view"]
    assert counts["dropped"] == len(whole) - len(seen) > 100
    assert counts["lost"] == 0
    assert results["view"]["opened"] == results["end"]["opened"]
    for stream in ("a", "b"):  # the newest came last
        assert [e for e in seen if e[0] == stream][-1] == [e for e in whole if e[0] == stream][-1]


@pytest.mark.parametrize("window", [1, 100_000, 8 << 20])
def test_large_and_small_frames_take_turns(window):
    flow = chain(frames=12, lengths=[20_000, 3, 0, 9000])
    alone = run_alone(flow.check())
    found = run_split(split(flow, "ababc").check(), window=window)
    assert results_of(found) == alone["results"]
