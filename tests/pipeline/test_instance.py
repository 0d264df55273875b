"""One block serving one stream: what it is handed, what it may return, what waits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float32, Int8

from pipeline.block import Block, Context, Reframe, Sink, param
from pipeline.errors import FieldError, KalvitError
from pipeline.frame import Array, Frame, FrameInfo, Kind
from pipeline.instance import Instance, Port, drive
from pipeline.signature import FieldType

GIVEN = {
    "samples": FieldType.of("float32", "time"),
    "taps": FieldType.of("float32", "tap"),
    "pair": FieldType.of("float32", "time 2"),
}
FIELDS = {
    "samples": np.arange(4, dtype=np.float32),
    "taps": np.ones(3, np.float32),
    "pair": np.zeros((4, 2), np.float32),
}
for _array in FIELDS.values():
    _array.flags.writeable = False


class Out(NamedTuple):
    out: Float32[Array, "..."]


class Two(NamedTuple):
    one: Float32[Array, "time"]
    two: Int8[Array, "state time"]


class Returns(Block, name="test.returns"):
    """Returns what it is told to."""

    result = None

    def process(self, samples: Float32[Array, "time"]) -> Out:
        return self.result


class ReturnsTwo(Returns, name="test.two"):
    def process(self, samples: Float32[Array, "time"]) -> Two:
        return self.result


class Later(Block, name="test.later"):
    """Answers `lag` frames later; `answers` overrides how many answers come, call by call."""

    lag: int = param(default=2, at_least=0, doc="frames")
    answers: tuple[int, ...] = param(default=(), doc="answers of each call")

    def start(self):
        self.waiting = []
        self.left = list(self.answers)
        self.finished = 0

    def process(self, samples: Float32[Array, "time"]) -> list[Out]:
        self.waiting.append(Out(samples * 2))
        count = self.left.pop(0) if self.left else max(len(self.waiting) - self.lag, 0)
        ready = (self.waiting * 9)[:count]
        del self.waiting[:count]
        return ready

    def finish(self):
        return self.waiting[self.finished :]


for _name in ("test.returns", "test.two", "test.later"):
    del Block.registry[_name]


def port(dims: str = "time", given: str = "samples", **writes: str) -> Port:
    """A port that writes `out` with these dims, where the frames carry the fields `given`."""
    kinds = {name: GIVEN[name] for name in given.split()}
    written = writes or {"out": f"float32 {dims}"}
    types = {name: FieldType.of(*text.split(" ", 1)) for name, text in written.items()}
    return Port("block", (("samples", "samples"),), tuple(types.items()), kinds)


def frame(seq: int = 0, size: int = 4, **marks) -> Frame:
    samples = np.full(size, seq, np.float32)
    samples.flags.writeable = False
    return Frame(Kind.DATA, "main", seq, seq * size, 17, {"samples": samples}, marks)


def returned(value, where: Port, cls=Returns, wrap=Out):
    """What the frame holds after a block has returned this value."""
    block = cls()
    block.result = wrap(value) if wrap else value
    fields = dict(FIELDS)
    Instance(block, where).step(frame(), fields)
    return fields


# what a block may return


@pytest.mark.parametrize(
    ("array", "where"),
    [
        (np.zeros(4, np.float32), port("time")),
        (np.zeros(7, np.float32), port("message")),
        (np.zeros(3, np.float32), port("tap", "samples taps")),
        (np.zeros((4, 5), np.float32), port("time state")),
        (np.zeros((5, 3, 5), np.float32), port("state tap state", "samples taps")),
        (np.zeros((4, 2), np.float32), port("time 2", "samples pair")),
        (np.zeros((2, 2), np.float32), port("message 2")),
        (np.zeros((0, 9), np.float32), port("message bit")),
        (np.zeros((), np.float32), port("")),
        (np.zeros((8, 4), np.float32)[::2].T, port("time state")),
        (np.asfortranarray(np.arange(8, dtype=np.float32).reshape(4, 2)), port("time 2")),
        (np.arange(8, dtype=np.float32)[::-2], port("time")),
        (np.arange(4, dtype=">f4"), port("time")),
        (np.arange(4, dtype=np.float32).view(np.recarray), port("time")),
        (FIELDS["samples"], port("time")),
        (np.broadcast_to(np.float32(3), 4), port("time")),
    ],
    ids=str,
)
def test_an_array_that_is_what_was_declared_is_added_as_a_field(array, where):
    values = array.copy()
    field = returned(array, where)["out"]
    np.testing.assert_array_equal(field, values)
    assert type(field) is np.ndarray
    assert field.dtype == np.float32
    assert field.dtype.isnative
    assert field.flags.c_contiguous
    assert not field.flags.writeable


def test_what_is_ready_is_not_copied():
    array = np.zeros(4, np.float32)
    assert returned(array, port())["out"] is array
    assert not array.flags.writeable


@pytest.mark.parametrize(
    ("array", "where", "text"),
    [
        (np.zeros(4), port(), r"'out' is float64 with shape \(4,\); expected float32 with dims \("),
        (np.zeros(4, np.int8), port(), r"'out' is int8 with shape \(4,\)"),
        (np.zeros((4, 1), np.float32), port(), r"'out' is float32 with shape \(4, 1\)"),
        (np.float32(1.0), port(""), r"'out' is a float32; expected float32 with dims \(\)"),
        ([0.0] * 4, port(), r"'out' is a list; expected"),
        (None, port(), r"'out' is a NoneType"),
        (np.zeros(5, np.float32), port(),
         r"'out' has shape \(5,\), but 'samples' has \(4,\); dim 'time' must agree"),
        (np.zeros((5, 4), np.float32), port("time state"), r"but 'samples' has \(4,\); dim 'time'"),
        (np.zeros((4, 2), np.float32), port("time tap", "samples taps"),
         r"'out' has shape \(4, 2\), but 'taps' has \(3,\); dim 'tap' must agree"),
        (np.zeros((5, 4), np.float32), port("state state"),
         r"'out' has shape \(5, 4\), but 'out' has \(5, 4\); dim 'state' must agree"),
        (np.zeros((4, 3), np.float32), port("time 2"), r"is float32 with shape \(4, 3\); expected"),
        (np.zeros((4, 3), np.float32), port("time 2", "samples pair"), r"with shape \(4, 3\); exp"),
        (np.zeros((5, 2), np.float32), port("time 2", "samples pair"), r"dim 'time' must agree"),
    ],
    ids=str,
)  # fmt: skip
def test_any_other_array_is_refused_with_what_was_expected(array, where, text):
    with pytest.raises(FieldError, match="^block: .*" + text):
        returned(array, where)


def test_fields_of_one_result_must_agree_with_each_other():
    where = port(one="float32 time", two="int8 state time")
    good = Two(np.zeros(4, np.float32), np.zeros((9, 4), np.int8))
    assert set(returned(good, where, ReturnsTwo, None)) == {*FIELDS, "one", "two"}
    for bad, text in [
        (Two(np.zeros(4, np.float32), np.zeros((9, 5), np.int8)), r"'two' has shape \(9, 5\), but"),
        (Two(np.zeros(5, np.float32), np.zeros((9, 5), np.int8)), r"'one' has shape \(5,\), but"),
        (Two(np.zeros(4, np.float32), np.zeros((9, 4))), r"'two' is float64"),
        (Two(None, np.zeros((9, 4), np.int8)), r"'one' is a NoneType"),
    ]:
        with pytest.raises(FieldError, match="^block: .*" + text):
            returned(bad, where, ReturnsTwo, None)


ZEROS = np.zeros(4, np.float32)


@pytest.mark.parametrize("result", [None, ZEROS, (ZEROS,), [Out(ZEROS)], Two(None, None), 5])
def test_any_other_result_is_refused(result):
    text = f"^block: process returned {type(result).__name__}, not Out"
    with pytest.raises(FieldError, match=text):
        returned(result, port(), wrap=None)


def test_a_sink_returns_nothing():
    class Counts(Sink):
        result = None

        def process(self, samples: Float32[Array, "time"]) -> None:
            return self.result

    block, where = Counts(), Port("block", (("samples", "samples"),), (), GIVEN)
    Instance(block, where).step(frame(), dict(FIELDS))
    block.result = 5
    with pytest.raises(FieldError, match=r"^block: process returned int, not None"):
        Instance(block, where).step(frame(), dict(FIELDS))


# what a block is handed


def test_a_block_is_handed_its_fields_by_the_names_it_knows_them_by():
    seen = []

    class Sees(Block):
        def process(
            self,
            samples: Float32[Array, "..."],
            taps: Float32[Array, "..."] | None = None,
            pair: Float32[Array, "..."] | None = None,
            info: FrameInfo = FrameInfo(),
        ) -> None:
            seen.append((samples, taps, pair, info))

    class SeesNoInfo(Sees):
        def process(
            self,
            samples: Float32[Array, "..."],
            taps: Float32[Array, "..."] | None = None,
            pair: Float32[Array, "..."] | None = None,
        ) -> None:
            seen.append((samples, taps, pair, None))

    class SeesNothing(Sees):
        def process(self) -> None:
            seen.append((None, None, None, None))

    def step(cls, **reads):
        Instance(cls(), Port("block", tuple(reads.items()), (), GIVEN)).step(
            frame(3, version=2), dict(FIELDS)
        )
        return seen.pop()

    samples, taps, pair = FIELDS["samples"], FIELDS["taps"], FIELDS["pair"]
    info = FrameInfo("main", 3, 12, 17, {"version": 2})
    for cls, tail in ((Sees, info), (SeesNoInfo, None)):
        assert step(cls, samples="samples") == (samples, None, None, tail)
        assert step(cls, samples="taps", taps="samples") == (taps, samples, None, tail)
        assert step(cls, samples="taps", pair="samples") == (taps, None, samples, tail)
        assert step(cls, samples="pair", taps="pair", pair="taps") == (pair, pair, taps, tail)
    assert step(SeesNothing) == (None, None, None, None)


# late answers


@given(st.integers(0, 4), st.lists(st.integers(0, 6), min_size=1, max_size=12), st.integers(0, 3))
def test_each_frame_is_answered_once_in_order_with_its_own_fields(lag, sizes, before):
    where = port()
    instance = Instance(Later(lag=lag), where)
    frames = [frame(seq, size, mark=seq) for seq, size in enumerate(sizes, start=before)]
    answers = []
    for place, one in enumerate(frames, start=1):
        answers += instance.answer(one)
        assert len(answers) == max(place - lag, 0)
        assert instance.held == [f.seq for f in frames[len(answers) : place]]
    answers += instance.finish()
    assert len(answers) == len(frames)
    for one, answer in zip(frames, answers, strict=True):
        assert answer._replace(fields={}) == one._replace(fields={})
        assert answer.fields["samples"] is one.fields["samples"]
        np.testing.assert_array_equal(answer.fields["out"], 2 * one.fields["samples"])
        assert "out" not in one.fields


def test_more_answers_than_frames_are_an_error():
    with pytest.raises(FieldError, match=r"^block answered more frames than it was given"):
        Instance(Later(answers=(2,)), port()).answer(frame())
    instance = Instance(Later(lag=0), port())
    instance.answer(frame())
    instance.block.waiting.append(Out(np.zeros(4, np.float32)))
    with pytest.raises(FieldError, match=r"^block answered more frames than it was given"):
        instance.finish()


def test_frames_that_finish_leaves_unanswered_are_an_error():
    instance = Instance(Later(lag=9), port())
    for seq in range(3):
        instance.answer(frame(seq))
    instance.block.finished = 1
    with pytest.raises(FieldError, match=r"^block finished with 1 frames unanswered; finish"):
        instance.finish()


def test_a_late_answer_is_checked_against_the_frame_it_answers():
    instance = Instance(Later(lag=1), port())
    instance.answer(frame(0, 4))
    instance.block.waiting = [Out(np.zeros(5, np.float32))]
    with pytest.raises(FieldError, match=r"'out' has shape \(5,\), but 'samples' has \(4,\)"):
        instance.answer(frame(1, 5))


@pytest.mark.parametrize("result", [None, Out(np.zeros(4, np.float32)), 5])
def test_a_block_that_answers_later_returns_lists(result):
    class Wrong(Later):
        def process(self, samples: Float32[Array, "time"]) -> list[Out]:
            return result

    text = f"^block returned a {type(result).__name__}, not a list of Out"
    with pytest.raises(FieldError, match=text):
        Instance(Wrong(), port()).answer(frame())


def test_a_block_that_answers_at_once_has_nothing_to_finish_with():
    block = Returns()
    block.finish = lambda: [Out(np.zeros(4, np.float32))]
    with pytest.raises(FieldError, match=r"^block answered more frames than it was given"):
        Instance(block, port()).finish()
    assert Instance(Returns(), port()).finish() == []


def test_frames_held_back_are_bounded_in_bytes():
    instance = Instance(Later(lag=100), port(), hold_limit=10_000)
    for seq in range(2):
        instance.answer(frame(seq, 1250))  # 5000 bytes each
    with pytest.raises(FieldError, match=r"^block holds back 3 frames .* shorten its decision"):
        instance.answer(frame(2, 1250))
    instance = Instance(Later(lag=1), port(), hold_limit=10_000)
    for seq in range(50):
        instance.answer(frame(seq, 1250))


def test_an_instance_starts_its_block_and_starts_it_over():
    class Starts(Later):
        starts = 0

        def start(self):
            super().start()
            self.starts += 1

    instance = Instance(Starts(), port())
    instance.answer(frame())
    instance.finish()
    instance.restart()
    assert (instance.block.starts, instance.block.waiting) == (2, [])


# without a runtime


def test_driving_a_block_gives_what_it_adds_to_each_frame():
    sizes = [3, 0, 1, 5]
    frames = [{"samples": np.arange(size, dtype=np.float32)} for size in sizes]
    for lag in (0, 2, 9):
        found = drive(Later(lag=lag), frames)
        assert [list(fields) for fields in found] == [["out"]] * 4
        for fields, sent in zip(found, frames, strict=True):
            np.testing.assert_array_equal(fields["out"], 2 * sent["samples"])
    assert drive(Later(), []) == []


class Where(NamedTuple):
    where: Int8[Array, "*word time"]


class Position(Block):
    """Where its frame begins."""

    def process(self, samples: Float32[Array, "*word time"], info: FrameInfo) -> Where:
        self.seen = [*getattr(self, "seen", []), (info.stream, info.seq, info.sample)]
        return Where(np.zeros(samples.shape, np.int8))


def test_driving_counts_the_samples_of_streams_and_of_words():
    block = Position()
    drive(block, [{"samples": np.zeros(size, np.float32)} for size in (3, 0, 4)], sample=10)
    assert block.seen == [("main", 0, 10), ("main", 1, 13), ("main", 2, 13)]
    block = Position()
    words = [{"samples": np.zeros(shape, np.float32)} for shape in ((2, 5), (3, 5))]
    drive(block, words, context=Context("block", "left"))
    assert block.seen == [("left", 0, 0), ("left", 1, 10)]


def test_driving_says_what_is_missing():
    with pytest.raises(KalvitError, match=r"reads 'samples', but the frame has \['sent'\]"):
        drive(Position(), [{"sent": np.zeros(3, np.float32)}])


def test_driving_takes_arrays_only():
    with pytest.raises(FieldError, match=r"'samples' is a list; expected float32 with dims"):
        drive(Position(), [{"samples": [1.0, 2.0]}])


def test_blocks_that_do_not_answer_frame_by_frame_cannot_be_driven():
    class Recut(Reframe):
        def process(self, samples: Float32[Array, "time"]) -> list[Out]:
            return [Out(samples)] * 2

    with pytest.raises(KalvitError, match="cuts frames anew; call its process instead"):
        drive(Recut(), [{"samples": np.zeros(3, np.float32)}])
