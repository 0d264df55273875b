"""Where frames enter a worker: limits, pace, turns, gaps and ends of sources."""

from __future__ import annotations

import itertools

import moving_blocks
import numpy as np
import pytest

from pipeline import roots
from pipeline.block import Gap, Silence
from pipeline.errors import RunError
from pipeline.flow import Flow
from pipeline.frame import Frame, Kind, StreamInfo
from pipeline.roots import WAIT_MS, EdgeRoot, Limits, SourceRoot
from pipeline.segment import BlockError

pytestmark = pytest.mark.usefixtures("register")
register = moving_blocks.register

FAR = 1 << 60  # ns


class Collect(list):
    push = list.append


class Branch:
    """What holds a root up while it is blocked; blocks itself after some frames."""

    def __init__(self, after: int = FAR) -> None:
        self.left = after
        self.blocked = False

    def push(self, frame: Frame) -> None:
        self.left -= 1
        self.blocked = self.blocked or self.left <= 0


class Clock:
    """Stands in for the clock of the roots: moves when told to, or by `step` at each look."""

    def __init__(self) -> None:
        self.ns = 10**12
        self.step = 0

    def __call__(self) -> int:
        self.ns += self.step
        return self.ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(roots, "now_ns", clock)
    return clock


def source(limits: Limits | None = None, cls=None, **params) -> SourceRoot:
    flow = Flow("toy", seed=3)
    flow.add("numbers", "source.numbers", **params)
    plan = flow.check()
    if cls is not None:
        object.__setattr__(plan.blocks["numbers"], "cls", cls)
    root = SourceRoot(plan.blocks["numbers"], 3, limits or Limits())
    root.outs.append(Collect())
    return root


def kinds(root: SourceRoot) -> list[str]:
    return [frame.kind.name.lower() for frame in root.outs[0]]


def whole(root: SourceRoot) -> list[Frame]:
    root.start()
    while not root.done:
        assert root.pump(FAR)
    return list(root.outs[0])


def test_a_source_starts_numbers_and_ends_its_stream():
    root = source(frames=3, lengths=[2, 5])
    frames = whole(root)
    assert kinds(root) == ["start", "data", "data", "data", "end"]
    assert [frame.seq for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.sample for frame in frames] == [0, 0, 2, 7, 9]
    assert StreamInfo.from_marks(frames[0].marks) == StreamInfo(rate_hz=100.0, format="main")
    assert frames[-1].marks == {"frames": 3}
    assert [sorted(frame.fields) for frame in frames[1:4]] == [["place", "x"]] * 3
    assert (root.frames, root.meter.snapshot()["frames"], root.frames_left) == (3, 3, 0)
    assert not root.pump(FAR)


def test_gaps_are_numbered_and_move_the_clock_of_samples():
    frames = whole(source(frames=3, lengths=[4], gaps=[0, 2]))
    assert [frame.kind.name for frame in frames] == ["START", "GAP", "DATA", "DATA", "GAP", "DATA",
                                                     "END"]  # fmt: skip
    assert [frame.seq for frame in frames] == list(range(7))
    assert [frame.sample for frame in frames] == [0, 0, 5, 9, 13, 18, 22]
    assert frames[4].marks == {"first": 13, "last": 17}
    for frame in frames:  # the source counts likewise
        if frame.kind is Kind.DATA:
            assert frame.fields["place"][0] == frame.sample


@pytest.mark.parametrize("samples", [0, -3])
def test_a_gap_of_nothing_is_a_bug_of_the_source(samples):
    class Wrong(moving_blocks.MakeNumbers):
        def process(self) -> moving_blocks.Made | Gap | None:
            return Gap(samples)

    with pytest.raises(
        BlockError, match=f"on main:1: a gap of {samples} samples; expected at leas"
    ):
        whole(source(cls=Wrong))


def test_the_limit_of_frames_holds_for_each_stream():
    root = source(Limits(frames=4), frames=9, keys=["a", "b"], gaps=[1])
    assert root.frames_left == 0
    root.start()
    assert root.frames_left == 8
    frames = whole(source(Limits(frames=4), frames=9, keys=["a", "b"], gaps=[1]))
    for stream in "ab":
        found = [frame.kind.name for frame in frames if frame.stream == stream]
        assert found == ["START", "DATA", "GAP", "DATA", "DATA", "DATA", "END"]
    frames = whole(source(Limits(frames=20), frames=9))
    assert len(frames) == 11


def test_streams_take_turns_until_each_has_ended():
    frames = whole(source(frames=2, more=2, keys=["a", "b", "c"]))
    data = "".join(frame.stream for frame in frames if frame.kind is Kind.DATA)
    assert data == "abcabcbcbccc"
    ends = [frame for frame in frames if frame.kind is Kind.END]
    assert [(frame.stream, frame.marks["frames"]) for frame in ends] == [
        ("a", 2),
        ("b", 4),
        ("c", 6),
    ]
    assert all([f.seq for f in frames if f.stream == s] == list(range(n + 2))
               for s, n in (("a", 2), ("b", 4), ("c", 6)))  # fmt: skip
    data = {f.stream: f.fields["x"] for f in frames if f.seq == 1}
    assert np.unique(np.concatenate(list(data.values()))).size == 9  # each has its own numbers


def test_a_stop_ends_every_stream_and_closes_it_once():
    root = source(frames=100, keys=["a", "b"])
    root.start()
    root.pump(0)
    blocks = [block for block, _, _ in root._streams]
    root.stop()
    assert root.done
    assert kinds(root) == ["start", "start", "data", "end", "end"]
    assert [frame.marks["frames"] for frame in root.outs[0][-2:]] == [1, 0]
    assert all(block.closed for block in blocks)
    root.stop()
    root.close()
    assert kinds(root)[-2:] == ["end", "end"]


def test_a_source_is_closed_without_a_word_if_the_run_ends_early():
    class Fails(moving_blocks.MakeNumbers):
        def close(self):
            super().close()
            raise OSError("cannot")

    root = source(cls=Fails, keys=["a", "b"])
    root.start()
    blocks = [block for block, _, _ in root._streams]
    root.close()
    assert all(block.closed for block in blocks)
    assert "end" not in kinds(root)


# pace


def test_a_source_without_a_rate_goes_on_until_its_time_is_up(clock):
    clock.step = 1000
    root = source(frames=10**6)
    root.start()
    root.pump(clock.ns + 100_000)
    # two looks at the clock per frame beside the one of the loop
    assert 30 <= root.frames <= 50
    assert root.pump(clock.ns - 1)  # it always emits one, so that it cannot starve
    assert root.wait_ms() == 0  # there is always another frame


def test_frames_come_at_their_rate_and_catch_up_after_a_delay(clock):
    root = source(frames=1000, rate=100.0)
    root.start()
    emitted = []
    for _ in range(100):
        root.pump(FAR)
        emitted.append(root.frames)
        clock.ns += 1_000_000
    assert emitted == [1 + at // 10 for at in range(100)]  # one every 10 ms, the first at once
    clock.ns += 55_000_000
    root.pump(FAR)
    assert root.frames == 16
    assert root.wait_ms() == 5


@pytest.mark.parametrize("keys", [["a"], ["a", "b"], ["a", "b", "c", "d"]])
def test_each_stream_has_the_rate_whatever_became_of_the_others(clock, keys):
    root = source(frames=5, more=5, keys=keys, rate=10.0)
    root.start()
    times: dict[str, list[int]] = {key: [] for key in keys}
    begin = clock.ns
    for _ in range(5000):
        seen = len(root.outs[0])
        root.pump(FAR)
        for frame in root.outs[0][seen:]:
            if frame.kind is Kind.DATA:
                times[frame.stream].append(clock.ns - begin)
        clock.ns += 1_000_000
    assert root.done
    for place, key in enumerate(keys):
        assert len(times[key]) == 5 + 5 * place
        steps = np.diff(times[key]) / 1e6
        # 100 ms on the way, but for the frames after which another stream ends
        assert abs(np.median(steps) - 100.0) <= 1.0
        assert times[key][-1] >= 0.9e8 * (len(times[key]) - 1) - 1e8


def test_the_limit_of_seconds_ends_a_source_at_any_pace(clock):
    root = source(Limits(seconds=0.5), frames=10**6, rate=1.0)
    root.start()
    root.pump(FAR)
    assert root.frames == 1
    assert root.wait_ms() == WAIT_MS
    clock.ns += 450_000_000
    assert not root.pump(FAR)
    assert root.wait_ms() == 50  # for the end, not for the next frame
    clock.ns += 50_000_000
    assert root.pump(FAR)
    assert root.done
    assert kinds(root) == ["start", "data", "end"]
    clock.step = 1_000_000
    root = source(Limits(seconds=0.5), frames=10**6)
    assert 100 < len(whole(root)) < 500


def test_a_frame_is_born_when_the_source_has_made_it(clock):
    clock.step = 7
    frames = whole(source(frames=5))
    births = [frame.born_ns for frame in frames if frame.kind is Kind.DATA]
    assert births == sorted(set(births))
    assert all(10**12 < birth <= clock.ns for birth in births)


# sources that wait for others


class Live(moving_blocks.MakeNumbers):
    """Nothing comes before every second frame; the first one says what the stream is."""

    told: StreamInfo | None = None
    silent = False

    def describe(self):
        return self.told

    def process(self) -> moving_blocks.Made | Silence | None:
        self.silent = not self.silent and self.made % 2 == 0
        if self.silent:
            return Silence()
        self.told = StreamInfo(rate_hz=7.0)
        return super().process()


@pytest.mark.parametrize("rate", [0.0, 100.0])
def test_silence_gives_others_their_turn_and_is_no_frame(clock, rate):
    root = source(cls=Live, frames=5, rate=rate)
    root.start()
    assert kinds(root) == []
    assert not root.pump(FAR)
    assert root.wait_ms() == 0  # the source waits by itself
    while not root.done:
        root.pump(FAR)
        clock.ns += 10_000_000
    frames = root.outs[0]
    assert kinds(root) == ["start", *["data"] * 5, "end"]
    assert [frame.seq for frame in frames] == list(range(7))
    assert StreamInfo.from_marks(frames[0].marks) == StreamInfo(rate_hz=7.0)
    assert (root.frames, root.meter.snapshot()["frames"]) == (5, 5)


def test_a_silent_source_hears_a_stop_and_its_time_limit(clock):
    root = source(Limits(seconds=1.0), cls=Live)
    root.start()
    assert not root.pump(FAR)
    clock.ns += 10**9
    assert root.pump(FAR)
    assert root.done
    assert kinds(root) == ["start", "end"]
    assert StreamInfo.from_marks(root.outs[0][0].marks) == StreamInfo()
    root = source(cls=Live)
    root.start()
    root.stop()
    assert kinds(root) == ["start", "end"]


def test_what_a_late_start_breaks_downstream_is_not_blamed_on_the_source():
    class Breaks(list):
        def push(self, frame):
            raise BlockError("other", "main", 0, ValueError("no"))

    root = source(cls=Live)
    root.outs[:] = [Breaks()]
    root.start()
    assert not root.pump(FAR)
    with pytest.raises(BlockError, match=r"^other raised ValueError"):
        root.pump(FAR)


# credit


def test_a_source_pauses_while_a_branch_is_blocked_and_ends_when_it_is_free():
    root = source(frames=5)
    branch = Branch(after=3)
    root.branches.append(branch)
    root.outs.append(branch)
    root.start()
    assert root.pump(FAR)
    assert kinds(root) == ["start", "data", "data"]
    assert not root.pump(FAR)
    assert root.wait_ms() == WAIT_MS
    branch.blocked, branch.left = False, 4
    assert root.pump(FAR)
    assert kinds(root)[-1] == "end"
    # frames that wait for weights, or for credit, go before the edges behind may close
    assert branch.blocked
    assert not root.done
    branch.blocked = False
    assert root.done


def test_a_paced_source_that_is_blocked_does_not_ask_to_be_called_at_once(clock):
    root = source(frames=5, rate=1000.0)
    branch = Branch(after=1)
    root.branches.append(branch)
    root.outs.append(branch)
    root.start()
    clock.ns += 10**9
    assert root.wait_ms() == WAIT_MS
    branch.blocked = False
    assert root.wait_ms() == 0


# errors


def test_errors_of_a_source_name_it_its_stream_and_its_frame():
    def fails(self):
        raise ValueError("no more")

    class Fails(moving_blocks.MakeNumbers):
        def process(self) -> moving_blocks.Made | None:
            return fails(self) if self.made == 2 else super().process()

    with pytest.raises(BlockError, match=r"^numbers raised ValueError on main:3: no more"):
        whole(source(cls=Fails))
    for method, place in (("start", "main:0"), ("describe", "main:0"), ("close", "main:9")):
        cls = type("Fails", (moving_blocks.MakeNumbers,), {method: fails})
        with pytest.raises(BlockError, match=f"^numbers raised ValueError on {place}: no more"):
            whole(source(cls=cls))


def test_a_source_that_returns_something_else_is_named():
    class Wrong(moving_blocks.MakeNumbers):
        def process(self) -> moving_blocks.Made | None:
            return 5

    with pytest.raises(BlockError, match="numbers: process returned int, not Made"):
        whole(source(cls=Wrong))


def test_a_block_that_is_no_source_cannot_start_streams():
    flow = Flow("toy")
    flow.add("numbers", "source.numbers")
    flow.add("a", "frontend.sum")
    flow.connect("numbers -> a")
    with pytest.raises(RunError, match="a is no source"):
        SourceRoot(flow.check().blocks["a"], 0, Limits()).start()


# edges that come in


class Messages:
    """A receiver with a number of messages, each of one frame."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.ended = False
        self.stride = 1

    def pump(self) -> bool:
        if not self.left:
            return False
        self.left -= 1
        self.ended = not self.left
        return True


def test_an_edge_is_pumped_until_the_time_is_up_or_nothing_is_left(clock):
    clock.step = 1000
    receiver = Messages(100)
    root = EdgeRoot(receiver, [])
    assert root.pump(clock.ns + 20_000)
    assert 70 < receiver.left < 95
    while root.pump(clock.ns - 1):
        pass
    assert receiver.left == 0
    assert root.done


def test_an_edge_waits_while_a_branch_is_blocked_and_is_done_after_it():
    branch = Branch()
    root = EdgeRoot(Messages(1), [Branch(), branch])
    branch.blocked = True
    assert root.blocked
    assert not root.pump(FAR)
    branch.blocked = False
    assert root.pump(FAR)
    branch.blocked = True
    assert not root.done
    branch.blocked = False
    assert root.done


def test_random_numbers_of_a_stream_do_not_depend_on_the_others():
    alone = [f for f in whole(source(frames=4, keys=["b"])) if f.kind is Kind.DATA]
    mixed = [f for f in whole(source(frames=4, keys=["a", "b"])) if f.kind is Kind.DATA]
    mixed = [frame for frame in mixed if frame.stream == "b"]
    for one, other in itertools.zip_longest(alone, mixed):
        np.testing.assert_array_equal(one.fields["x"], other.fields["x"])


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (["a", "b", "a"], r"^numbers: two streams have the same key: \('a', 'b', 'a'\)"),
        (["a", ""], r"^numbers: the key of a stream is ''; expected a text of 1 to 64 bytes"),
        (["ä" * 33], r"^numbers: the key of a stream is 'ä+'; expected a text of 1 to 64 bytes"),
    ],
)
def test_keys_of_streams_are_different_and_short(keys, text):
    with pytest.raises(RunError, match=text):
        source(keys=keys).start()
