"""Runs of blocks called one after the other: what they pass on, when they start over."""

from __future__ import annotations

import moving_blocks
import numpy as np
import pytest

from pipeline import segment as segments
from pipeline.block import Block
from pipeline.errors import FieldError, RunError
from pipeline.flow import Flow
from pipeline.frame import Frame, Kind, StreamInfo
from pipeline.metrics import Histogram
from pipeline.numbering import Numbering
from pipeline.segment import BlockError, Segment

pytestmark = pytest.mark.usefixtures("register")
register = moving_blocks.register

INFO = StreamInfo(rate_hz=10.0, format="toy")


class Collect(list):
    """What a segment pushes on."""

    push = list.append


class Feed:
    """Numbers the frames of one stream and pushes them into a segment, keeping what comes."""

    def __init__(self, segment: Segment, stream: str = "main", out: Collect | None = None) -> None:
        self.segment, self.numbering = segment, Numbering(stream, INFO, ("x", (0,)))
        self.out = Collect() if out is None else out
        if not segment.outs:
            segment.outs.append(self.out)

    def start(self) -> Feed:
        self.segment.push(self.numbering.start())
        return self

    def data(self, *numbers: float, born: int = 17, **marks) -> Frame:
        fields = {"x": np.array(numbers, float), "place": np.arange(len(numbers))}
        if self.segment.sink is None:
            del fields["place"]
        for array in fields.values():
            array.flags.writeable = False
        frame = self.numbering.data(fields, born, marks)
        self.segment.push(frame)
        return frame

    def gap(self, samples: int) -> None:
        self.segment.push(self.numbering.gap(samples))

    def end(self) -> None:
        self.segment.push(self.numbering.end())

    def came(self, field: str = "y") -> list[object]:
        """Values of a field of each data frame, kinds of the others."""
        return [
            list(f.fields[field]) if f.kind is Kind.DATA else f.kind.name.lower() for f in self.out
        ]


def planned(*uses: str, **params) -> list:
    """The blocks of a chain after a source; each reads x and writes y, y2, ..."""
    flow = Flow("toy", seed=1)
    flow.add("numbers", "source.numbers")
    path = ["numbers"]
    for place, use in enumerate(uses, start=1):
        more = params.get(use.partition(".")[2], {})
        names = {"y": f"y{place}" if place > 1 else "y"}
        writes = {} if use.startswith(("sink", "trainer")) else {"writes": names}
        path.append(f"b{place}")
        flow.add(path[-1], use, **writes, **more)
    flow.connect(" -> ".join(path))
    plan = flow.check()
    return [plan.blocks[name] for name in path[1:]]


def feed(*uses: str, **params) -> Feed:
    return Feed(Segment(planned(*uses, **params), seed=1)).start()


# fields


def test_blocks_add_fields_and_the_frames_that_came_stay_as_they_were():
    line = feed("frontend.sum", "frontend.sum")
    came = line.data(1, 2, 3, version=4)
    start, frame = line.out
    assert start.kind is Kind.START
    assert StreamInfo.from_marks(start.marks) == INFO
    assert list(frame.fields) == ["x", "y", "y2"]
    assert list(came.fields) == ["x"]
    assert frame.fields["x"] is came.fields["x"]
    assert frame._replace(fields={}) == came._replace(fields={})
    assert list(frame.fields["y"]) == [1, 3, 6]


def test_branches_never_see_each_other_s_fields():
    first, second = (Segment(planned("frontend.sum"), seed=1) for _ in range(2))
    trunk = Segment(planned("frontend.sum"), seed=1)
    outs = Collect(), Collect(), Collect()
    trunk.outs += [first, second, outs[2]]
    first.outs.append(outs[0])
    second.outs.append(outs[1])
    for branch in (first, second):
        assert branch.blocks[0].writes[0][0] == "y"
    line = Feed(trunk).start()
    # the branches write the same name as the trunk does, so a shared record would show it
    line.data(1, 2)
    line.data(5)
    for out in outs:
        assert [list(f.fields) for f in out] == [[], ["x", "y"], ["x", "y"]]
    assert outs[0][1].fields is not outs[1][1].fields
    assert outs[0][1].fields["y"] is not outs[2][1].fields["y"]
    assert outs[0][1].fields["x"] is outs[1][1].fields["x"] is outs[2][1].fields["x"]


# late answers, gaps and ends


def test_a_gap_answers_what_is_held_and_then_starts_the_blocks_over():
    line = feed("frontend.sum", "detector.later", later={"lag": 100})
    line.data(1, 2)
    line.data(3)
    assert line.came() == ["start"]
    line.gap(7)
    line.data(4, 5)
    line.end()
    assert line.came() == ["start", [1, 3], [6], "gap", [4, 9], "end"]
    assert line.came("y2") == line.came()  # the block that held them back started over as well
    assert [frame.seq for frame in line.out] == list(range(6))
    assert [frame.sample for frame in line.out] == [0, 0, 2, 3, 10, 12]
    assert line.out[3].marks == {"first": 3, "last": 9}
    assert line.out[5].marks == {"frames": 3}


def test_late_answers_keep_the_marks_of_their_own_frame():
    line = feed("detector.later", later={"lag": 2})
    for number in range(4):
        line.data(number, number=number, born=100 + number)
    line.end()
    data = [frame for frame in line.out if frame.kind is Kind.DATA]
    assert [frame.marks["number"] for frame in data] == [0, 1, 2, 3]
    assert [frame.born_ns for frame in data] == [100, 101, 102, 103]


def test_streams_do_not_touch_each_other():
    line = feed("frontend.sum", "detector.later", later={"lag": 2})
    other = Feed(line.segment, "other", line.out).start()
    line.data(1)
    other.data(10)
    line.data(2)
    other.gap(3)
    other.data(20)
    line.data(3)
    line.end()
    other.end()
    for stream, sums in (("main", [[1], [3], [6]]), ("other", [[10], [20]])):
        frames = [frame for frame in line.out if frame.stream == stream]
        assert [frame.seq for frame in frames] == list(range(len(frames)))
        assert [list(f.fields["y"]) for f in frames if f.kind is Kind.DATA] == sums


def test_frames_of_a_stream_that_is_not_open_are_refused():
    line = Feed(Segment(planned("frontend.sum"), seed=1))
    with pytest.raises(RunError, match="stream 'main' sent data before its start"):
        line.data(1)
    line = feed("frontend.sum")
    line.end()
    with pytest.raises(RunError, match="stream 'main' sent data before its start"):
        line.data(1)


# streams cut anew


def test_a_stream_cut_anew_is_numbered_anew_and_keeps_its_samples():
    line = feed("frontend.recut", recut={"length": 4})
    for numbers in ((1, 2, 3), (), (4, 5, 6, 7, 8, 9), (10, 11)):
        line.data(*numbers)
    line.gap(5)
    line.data(17, 18, 19, 20, 21)
    line.end()
    assert line.came() == [
        "start", [1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11], "gap", [17, 18, 19, 20], [21], "end",
    ]  # fmt: skip
    assert [frame.seq for frame in line.out] == list(range(8))
    assert [frame.sample for frame in line.out] == [0, 0, 4, 8, 11, 16, 20, 21]
    assert [list(f.fields) for f in line.out if f.kind is Kind.DATA] == [["y"]] * 5
    assert line.out[4].marks == {"first": 11, "last": 15}
    assert line.out[-1].marks == {"frames": 5}


def test_the_rest_of_a_stream_cut_anew_bears_the_marks_of_its_last_frame():
    line = feed("frontend.recut", recut={"length": 4})
    line.data(1, 2, 3, version=6, born=100)
    line.data(4, 5, version=7, born=200)
    line.gap(5)
    line.data(6, version=8, born=300)
    line.end()
    data = [frame for frame in line.out if frame.kind is Kind.DATA]
    assert [frame.marks for frame in data] == [{"version": 7}, {"version": 7}, {"version": 8}]
    assert [frame.born_ns for frame in data] == [200, 200, 300]


def test_a_stream_cut_anew_is_described_by_its_block():
    class Slower(moving_blocks.Cut):
        def describe(self, info):
            return StreamInfo(rate_hz=info.rate_hz / 2, format="slower")

    (block,) = planned("frontend.recut")
    object.__setattr__(block, "cls", Slower)
    line = Feed(Segment([block], seed=1)).start()
    assert StreamInfo.from_marks(line.out[0].marks) == StreamInfo(rate_hz=5.0, format="slower")


# sinks


def test_one_sink_serves_all_streams_and_finishes_once():
    line = feed("frontend.sum", "sink.journal")
    assert line.segment.sink is not None
    other = Feed(line.segment, "other").start()
    line.data(1, 2, version=3)
    other.data(5)
    other.gap(2)
    other.data(5)
    line.end()
    other.end()
    line.segment.finish()
    found = line.segment.report(None)
    assert [entry[:5] for entry in found["log"]] == [
        ["main", 1, 0, {"version": 3}, 2], ["other", 1, 0, {}, 1], ["other", 3, 3, {}, 1],
    ]  # fmt: skip
    assert found["opened"] == [["main", 10.0, "toy"], ["other", 10.0, "toy"]]
    assert found["finished"] == 1
    assert not any(frame.kind is Kind.DATA for frame in line.out)


def test_latency_runs_from_birth_to_the_end_of_the_sink(monkeypatch):
    clock = iter(range(1_000_000, 2_000_000, 1000))  # each look at the clock takes 1 us
    monkeypatch.setattr(segments, "now_ns", lambda: next(clock))
    line = feed("frontend.sum", "sink.journal")
    line.data(1, born=1_000_000 - 40_000)
    # one look before the first block, one after each: the sink is done at 1_002_000
    latency = Histogram(line.segment.latency.snapshot()["histogram"])
    assert latency.counts() == (one := Histogram(), one.add([42_000]))[0].counts()
    for meter in line.segment.meters.values():
        assert meter.snapshot()["frames"] == 1
        assert meter.snapshot()["busy_ns"] == 1000


def test_a_segment_without_a_sink_has_no_latency_and_no_report():
    line = feed("frontend.sum")
    line.data(1)
    assert line.segment.latency.snapshot()["frames"] == 0
    assert line.segment.sink is None
    assert line.segment.report(None) == {}


# errors


def test_an_error_of_a_block_names_it_and_its_frame_and_keeps_the_traceback():
    line = feed("frontend.sum", "frontend.raises", "frontend.sum")
    line.data(1)
    line.data(2)
    with pytest.raises(BlockError, match=r"^b2 raised ValueError on main:3: no more$") as caught:
        line.data(3)
    error = caught.value
    assert (error.block, error.stream, error.seq, error.for_user) == ("b2", "main", 3, False)
    assert "in process" in error.text
    assert 'raise ValueError("no more")' in error.text


def test_errors_outside_of_process_name_the_block_too():
    with pytest.raises(BlockError, match=r"^b1 raised ValueError on main:0: no more$"):
        feed("frontend.raises", raises={"where": "start"})
    line = feed("frontend.raises", raises={"where": "finish"})
    line.data(1)
    with pytest.raises(BlockError, match=r"^b1 raised ValueError on main:2: no more$"):
        line.end()


@pytest.mark.parametrize("method", ["open", "finish", "report"])
def test_errors_of_a_sink_name_it(method, monkeypatch):
    def fails(self, *arguments):
        raise RunError("no room")

    monkeypatch.setattr(moving_blocks.Journal, method, fails)

    def live():
        segment = feed("sink.journal").segment
        segment.finish()
        segment.report(None)

    with pytest.raises(BlockError, match=r"^b1 raised RunError.*: no room$") as caught:
        live()
    assert caught.value.for_user


def test_a_wrong_array_is_a_bug_of_the_block_and_not_of_the_user():
    class Wrong(moving_blocks.Sum):
        def process(self, x: moving_blocks.Numbers) -> moving_blocks.Summed:
            return moving_blocks.Summed(x[1:])

    (block,) = planned("frontend.sum")
    object.__setattr__(block, "cls", Wrong)
    line = Feed(Segment([block], seed=1)).start()
    with pytest.raises(
        BlockError, match=r"^b1 raised FieldError on main:1: .*'y' has shape \(1,\)"
    ):
        line.data(1, 2)
    with pytest.raises(BlockError) as caught:
        line.data(1, 2)
    assert isinstance(caught.value.__cause__, FieldError)
    assert not caught.value.for_user


def test_a_block_is_made_anew_for_each_stream_and_told_where_it_stands():
    seen = []

    class Sees(moving_blocks.Sum):
        def start(self):
            super().start()
            seen.append(self.context)

    (block,) = planned("frontend.sum")
    object.__setattr__(block, "cls", Sees)
    line = Feed(Segment([block], seed=9)).start()
    Feed(line.segment, "other", line.out).start()
    assert [(c.name, c.stream, c.seed, c.info) for c in seen] == [
        ("b1", "main", 9, INFO), ("b1", "other", 9, INFO),
    ]  # fmt: skip
    assert Block.context is not seen[0]
