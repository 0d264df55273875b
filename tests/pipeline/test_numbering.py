"""Numbers of frames and samples where a stream starts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.frame import Kind, StreamInfo
from pipeline.numbering import Numbering, clock_of
from pipeline.signature import FieldType

INFO = StreamInfo(rate_hz=10.0, format="toy")


def clock(*dims: str):
    return clock_of([(f"f{place}", FieldType.of("float32", d)) for place, d in enumerate(dims)])


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        (("time",), ("f0", (0,))),
        (("word time",), ("f0", (0, 1))),
        (("tap", "time"), ("f1", (0,))),
        (("block tap", "word time bit"), ("f1", (0, 1))),
        (("time word",), ("f0", (0, 1))),
        (("", "message bit"), ("f1", (0,))),
        (("", ""), None),
        ((), None),
    ],
)
def test_the_clock_counts_time_and_words_or_else_the_first_dim(dims, expected):
    assert clock(*dims) == expected


PARTS = st.lists(
    st.one_of(
        st.tuples(st.just("data"), st.integers(0, 5), st.integers(0, 4)),
        st.tuples(st.just("gap"), st.integers(1, 9), st.just(0)),
    ),
    max_size=12,
)


@given(PARTS)
def test_seq_has_no_hole_and_samples_count_what_was_sent_and_lost(parts):
    numbering = Numbering("main", INFO, clock("word time"))
    frames = [numbering.start()]
    expected = [0]
    at = 0
    for kind, rows, columns in parts:
        expected.append(at)
        if kind == "data":
            frames.append(numbering.data({"f0": np.zeros((rows, columns))}, 17, {"mark": 1}))
            at += rows * columns
        else:
            frames.append(numbering.gap(rows))
            assert frames[-1].marks == {"first": at, "last": at + rows - 1}
            at += rows
    frames.append(numbering.end())
    expected.append(at)
    assert [frame.seq for frame in frames] == list(range(len(parts) + 2))
    assert [frame.sample for frame in frames] == expected
    assert all(frame.stream == "main" for frame in frames)
    data = [frame for frame in frames if frame.kind is Kind.DATA]
    assert frames[-1].marks == {"frames": len(data)}
    assert all((frame.born_ns, frame.marks) == (17, {"mark": 1}) for frame in data)
    assert StreamInfo.from_marks(frames[0].marks) == INFO


def test_frames_without_a_clock_count_one_each():
    numbering = Numbering("main", INFO, None)
    frames = [numbering.data({}, 0, {}) for _ in range(3)]
    assert [frame.sample for frame in frames] == [0, 1, 2]


def test_a_stream_cut_anew_keeps_the_place_of_its_samples():
    source = Numbering("main", INFO, ("f0", (0,)))
    start, first, gap, second, end = (
        source.start(), source.data({"f0": np.zeros(7)}, 0, {}), source.gap(3),
        source.data({"f0": np.zeros(5)}, 0, {}), source.end(),
    )  # fmt: skip
    anew = Numbering("main", INFO, ("f0", (0,)))
    frames = [anew.control(start)]
    frames += [anew.data({"f0": np.zeros(4)}, 0, {}) for _ in range(1)]  # 3 of 7 are thrown away
    frames += [anew.control(gap)]
    frames += [anew.data({"f0": np.zeros(1)}, 0, {}) for _ in range(5)]
    frames += [anew.control(end)]
    assert [frame.seq for frame in frames] == list(range(9))
    assert [frame.sample for frame in frames] == [0, 0, 7, 10, 11, 12, 13, 14, 15]
    assert frames[2].marks == gap.marks == {"first": 7, "last": 9}
    assert frames[-1].marks == {"frames": 6}
    assert (first.sample, second.sample) == (0, 10)


def test_the_clock_of_a_stream_cut_anew_runs_at_its_own_rate():
    halved = Numbering("main", StreamInfo(rate_hz=5.0), ("f0", (0,)), given=INFO)
    start = Numbering("main", INFO, None)
    start.sample = 40
    source = Numbering("main", INFO, ("f0", (0,)))
    opened = start.start()
    assert halved.control(opened).sample == 20
    source.sample = 60
    frames = [halved.data({"f0": np.zeros(10)}, 0, {}), halved.control(source.gap(8)),
              halved.data({"f0": np.zeros(3)}, 0, {})]  # fmt: skip
    assert [frame.sample for frame in frames] == [20, 30, 34]
    assert frames[1].marks == {"first": 30, "last": 33}
    unknown = Numbering("main", StreamInfo(), ("f0", (0,)), given=INFO)
    assert unknown.control(opened).sample == 40
