"""The two ends of an edge, stepped by hand: order, credit, taps, and what strangers send."""

from __future__ import annotations

import itertools
import shutil
import socket as plain_sockets
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import RunError
from pipeline.frame import Frame, Kind
from pipeline.transport.edge import SHARED_BELOW, Receiver, Sender
from pipeline.transport.sockets import CurveKeys, bind, connect, data_socket
from pipeline.wire import FRAME_CAP, PART_LIMIT, Codec

WAIT_MS = 5000
NUMBER = itertools.count()


class Watched:
    """A sending socket that keeps account of what goes through it."""

    def __init__(self, socket: zmq.Socket) -> None:
        self._socket = socket
        self.messages: list[int] = []  # bytes of each
        self.acked = 0  # as the sender has been told
        self._open = False

    def send(self, data, flags=0, copy=True) -> None:
        size = memoryview(data).nbytes
        if self._open:
            self.messages[-1] += size
        else:
            self.messages.append(size)
        self._open = bool(flags & zmq.SNDMORE)
        self._socket.send(data, flags, copy=copy)

    def recv(self, flags=0):
        data = self._socket.recv(flags)
        self.acked = int.from_bytes(data, "little")
        return data

    @property
    def under_way(self) -> int:
        return sum(self.messages) - self.acked


class Line:
    """A sender and a receiver with an edge between them; `came` is what came out."""

    def __init__(
        self, context: zmq.Context, endpoint: str, *, window: int = 1 << 20,
        lossless: bool = True, carried=None, keys: CurveKeys | None = None,
    ) -> None:  # fmt: skip
        self.came: list[Frame] = []
        self.window = window
        right, left = data_socket(context, FRAME_CAP), data_socket(context, FRAME_CAP)
        bind(right, endpoint, keys)
        self.endpoint = right.getsockopt_string(zmq.LAST_ENDPOINT)
        connect(left, self.endpoint, keys)
        self.left, self.right = left, right
        self.socket = Watched(left)
        self.sender = Sender(
            "a->b", self.socket, Codec(), carried, lossless=lossless, window=window
        )  # fmt: skip
        self.receiver = Receiver(
            "a->b", right, Codec(), self.came.append, lossless=lossless, window=window
        )
        self.seqs: dict[str, int] = {}

    def frame(self, size: int = 0, stream: str = "main", kind: Kind = Kind.DATA, **fields) -> Frame:
        """The next frame of a stream; its numbers tell which it is."""
        seq = self.seqs.get(stream, 0)
        self.seqs[stream] = seq + 1
        if kind is Kind.DATA and not fields:
            fields = {"x": np.arange(seq, seq + size, dtype=np.int64).astype(np.uint8)}
        return Frame(kind, stream, seq, 10 * seq, 5, fields, {"seq": seq})

    def push(self, *arguments, **fields) -> Frame:
        frame = self.frame(*arguments, **fields)
        self.sender.push(frame)
        return frame

    def pump(self) -> bool:
        """Wait for a message and process it."""
        return bool(self.right.poll(WAIT_MS)) and self.receiver.pump()

    def settle(self, closing: bool = False) -> None:
        """Go on until all that was pushed has come, as two workers would."""
        poller = zmq.Poller()
        for end in (self.left, self.right):
            poller.register(end, zmq.POLLIN)
        for _ in range(100_000):
            self.sender.flush()
            if not self.sender.queue and (self.receiver.ended or not closing):
                return
            if not self.receiver.pump():
                self.receiver.ack()
                assert poller.poll(WAIT_MS), "neither a message comes nor an acknowledgement"
        raise AssertionError("no progress")

    def drop(self) -> None:
        self.left.close(0)
        self.right.close(0)


@pytest.fixture(scope="module")
def context() -> Iterator[zmq.Context]:
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="kalvit"))  # short: paths of sockets are
    yield path
    shutil.rmtree(path)


@pytest.fixture
def line(context: zmq.Context, folder: Path) -> Iterator:
    lines = []

    def make(**options) -> Line:
        lines.append(Line(context, f"ipc://{folder}/{len(lines)}", **options))
        return lines[-1]

    yield make
    for one in lines:
        one.drop()


def same(came: Frame, sent: Frame) -> bool:
    return came._replace(fields={}) == sent._replace(fields={}) and all(
        np.array_equal(came.fields[name], array) and came.fields[name].dtype == array.dtype
        for name, array in sent.fields.items()
    )


SIZES = (0, 1, 100, 3000, SHARED_BELOW, 20_000, PART_LIMIT, PART_LIMIT + 1, 150_000, 400_000)


def test_frames_of_all_sizes_come_in_order_and_unharmed(line):
    one = line(window=300_000)
    sent = [one.push(size) for size in (*SIZES, *reversed(SIZES), *SIZES)]
    one.sender.close()
    one.settle(closing=True)
    assert len(one.came) == len(sent)
    assert all(map(same, one.came, sent))
    assert one.receiver.lost == 0


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 4), (300, 70), (2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("dtype", ["bool", "int64", "complex64", "float32"])
def test_arrays_of_all_kinds_travel_in_parts_of_their_own(line, dtype, shape):
    one = line()
    big = np.ones(PART_LIMIT, np.float32)
    odd = np.ones(shape, dtype)
    for fields in ({"odd": odd}, {"big": big, "odd": odd}, {"odd": odd, "big": big, "more": odd}):
        sent = one.push(**fields)
        one.settle()
        assert same(one.came[-1], sent)
        assert not one.came[-1].fields["odd"].flags.writeable


@st.composite
def schedules(draw) -> tuple[int, list[tuple[str, int, str]]]:
    action = st.one_of(
        st.tuples(st.just("push"), st.sampled_from(SIZES), st.sampled_from(["main", "other"])),
        st.tuples(st.sampled_from(["poll", "pump", "flush", "ack", "stride"]), st.integers(1, 3),
                  st.just("")),
    )  # fmt: skip
    window = draw(st.sampled_from([1, 500, 10_000, 200_000, 8 << 20]))
    return window, draw(st.lists(action, max_size=60))


@settings(max_examples=150)
@given(schedules())
def test_any_schedule_hands_on_each_frame_once_in_order_within_the_window(context, schedule):
    window, actions = schedule
    one = Line(context, f"inproc://{next(NUMBER)}", window=window)
    sent: list[Frame] = []
    sizes: dict[int, int] = {}
    try:
        for action, number, stream in actions:
            if action == "push":
                frame = one.push(number, stream)
                sizes[len(sent)] = len(b"".join(Codec().encode(frame)))
                sent.append(frame)
            elif action == "pump":
                one.receiver.pump()
            elif action == "ack":
                one.receiver.ack()
            elif action == "stride":
                one.receiver.stride = number
            else:
                getattr(one.sender, action)()
            # within the window, or one larger frame alone
            assert one.socket.under_way <= window or one.socket.under_way in sizes.values()
            assert one.socket.acked <= one.receiver.bytes <= sum(one.socket.messages)
            must_pause = one.sender.frames < len(sent) or one.sender.queue >= window
            assert one.sender.blocked >= must_pause
            if action == "poll":
                assert one.sender.blocked == must_pause
            assert all(map(same, one.came, sent))
        one.sender.close()
        one.settle(closing=True)
        assert one.sender.settled
        assert len(one.came) == len(sent)
        assert all(map(same, one.came, sent))
        assert one.socket.acked == sum(one.socket.messages) == one.sender.counts()["bytes"]
        assert one.sender.counts()["frames"] == one.receiver.counts()["frames"] == len(sent)
        assert one.sender.counts()["dropped"] == one.receiver.counts()["lost"] == 0
    finally:
        one.drop()


# credit


def test_a_sender_without_credit_holds_back_until_it_is_acknowledged(line):
    one = line(window=10_000)
    for _ in range(3):
        one.push(4000)
    assert one.sender.blocked
    assert one.sender.frames == 2
    one.sender.flush()
    assert one.sender.blocked
    assert not one.sender.settled
    while len(one.came) < 2:
        assert one.pump()
    assert one.left.poll(WAIT_MS)
    one.sender.poll()
    assert not one.sender.blocked
    assert one.sender.frames == 3


def test_a_frame_larger_than_the_window_goes_alone(line):
    one = line(window=10_000)
    one.push(100)
    one.push(500_000)
    one.push(100)
    assert one.sender.blocked
    assert len(one.socket.messages) == 1  # the first; the large one waits for its acknowledgement
    assert one.pump()
    one.receiver.ack()
    assert one.left.poll(WAIT_MS)
    one.sender.poll()
    assert len(one.socket.messages) == 2
    assert one.socket.messages[1] > 500_000
    assert one.sender.blocked  # the last waits for the large one
    one.settle()
    assert [frame.fields["x"].size for frame in one.came] == [100, 500_000, 100]


def test_a_receiver_acknowledges_every_eighth_of_the_window(line):
    one = line(window=80_000)
    seen = []
    for _ in range(8):
        one.push(4000)
        one.sender.flush()
        assert one.pump()
        one.sender.poll()
        seen.append(one.receiver.unacknowledged)
    # 4000 bytes and a header each: three of them make an eighth
    assert seen == [True, True, False, True, True, False, True, True]


# messages shared by small frames


def test_small_frames_go_at_once_while_the_receiver_keeps_up(line):
    one = line()
    for count in range(1, 20):
        one.push(100)
        assert len(one.socket.messages) == count
        assert one.pump()
        one.receiver.ack()
        assert one.left.poll(WAIT_MS)
    assert len(one.came) == 19


def test_small_frames_share_messages_while_a_backlog_stands(line):
    one = line()
    sent = [one.push(100) for _ in range(1000)]
    assert len(one.socket.messages) <= 1 + 1000 * 220 // PART_LIMIT
    one.sender.flush()
    assert max(one.socket.messages) <= PART_LIMIT
    one.settle()
    assert list(map(same, one.came, sent)) == [True] * 1000


def test_small_and_large_frames_keep_their_order_while_a_backlog_stands(line):
    one = line()
    sizes = [100, 100, 9000, 100, 100, 100_000, 100, 9000, 100_000, 100, 100]
    sent = [one.push(size) for size in sizes]
    assert one.sender.frames == len(sizes)
    one.settle()
    assert list(map(same, one.came, sent)) == [True] * len(sizes)


def test_a_message_that_is_being_filled_does_not_grow_stale(line, monkeypatch):
    clock = [0]
    monkeypatch.setattr("time.monotonic_ns", lambda: clock[0])
    one = line()
    one.push(100)
    one.push(100)  # shares, since the first is not acknowledged
    one.sender.poll()
    assert len(one.socket.messages) == 1
    clock[0] += 10_000_000
    one.sender.poll()
    assert len(one.socket.messages) == 2


# fields


def test_only_carried_fields_travel(line):
    one = line(carried=("b", "a"))
    array = np.ones(3, np.float32)
    one.push(a=array, b=array, c=array)
    one.push(a=array, b=array)
    one.push(kind=Kind.GAP)
    one.settle()
    assert [sorted(frame.fields) for frame in one.came] == [["a", "b"], ["a", "b"], []]


def test_an_edge_that_carries_no_field_still_carries_frames(line):
    one = line(carried=())
    sent = [one.push(100) for _ in range(5)]
    one.settle()
    assert [frame.marks for frame in one.came] == [frame.marks for frame in sent]


# taps


def test_on_a_tap_the_newest_of_each_stream_wins_and_nothing_blocks(line):
    one = line(lossless=False, window=10_000)
    for stream in ("main", "other"):
        one.push(stream=stream, kind=Kind.START)
    for number in range(50):
        one.push(4000, "main" if number % 5 else "other")
        assert not one.sender.blocked
    for stream in ("main", "other"):
        one.push(stream=stream, kind=Kind.GAP)
        one.push(4000, stream)
        one.push(4000, stream)
        one.push(stream=stream, kind=Kind.END)
    assert one.sender.queue < 10_000 + 4 * 4200 + 4 * 200
    one.sender.close()
    one.settle(closing=True)
    kinds = {stream: [f.kind for f in one.came if f.stream == stream] for stream in one.seqs}
    for stream, found in kinds.items():
        assert [kind for kind in found if kind is not Kind.DATA] == [Kind.START, Kind.GAP, Kind.END]
        seqs = [frame.seq for frame in one.came if frame.stream == stream]
        assert seqs == sorted(set(seqs))
        # the last frame before the end is the newest
        assert seqs[-2:] == [one.seqs[stream] - 2, one.seqs[stream] - 1]
    data = sum(kind is Kind.DATA for found in kinds.values() for kind in found)
    assert one.sender.dropped == 54 - data > 40
    assert one.receiver.lost == 0


@settings(max_examples=80)
@given(schedules())
def test_a_tap_keeps_the_order_and_counts_each_frame_as_sent_or_dropped(context, schedule):
    window, actions = schedule
    one = Line(context, f"inproc://{next(NUMBER)}", window=window, lossless=False)
    sent: list[Frame] = []
    try:
        for action, number, stream in actions:
            if action == "push":
                kind = Kind.GAP if number == SIZES[2] else Kind.DATA
                sent.append(one.push(number if kind is Kind.DATA else 0, stream, kind))
            elif action in ("poll", "flush"):
                getattr(one.sender, action)()
            elif action == "pump":
                one.receiver.pump()
            assert not one.sender.blocked
        one.sender.close()
        one.settle(closing=True)
    finally:
        one.drop()
    assert len(one.came) + one.sender.dropped == len(sent)
    wanted = {(frame.stream, frame.seq): frame for frame in sent}
    for stream in one.seqs:
        came = [frame for frame in one.came if frame.stream == stream]
        assert [frame.seq for frame in came] == sorted({frame.seq for frame in came})
        assert all(same(frame, wanted[stream, frame.seq]) for frame in came)
        pushed = [frame for frame in sent if frame.stream == stream]
        assert {f.seq for f in pushed if f.kind is Kind.GAP} <= {f.seq for f in came}
        if pushed[-1:]:
            assert came[-1].seq == pushed[-1].seq


# damage


def test_what_is_no_frame_is_refused_and_counted_and_the_rest_goes_on(line):
    one = line()
    codec = Codec()
    good = [b"".join(codec.encode(one.frame(50))) for _ in range(4)]
    flipped = bytearray(good[1])
    flipped[60] ^= 1
    for message in (good[0], b"junk", bytes(flipped), good[2][:-1], good[2], good[3]):
        one.left.send(message)
        assert one.pump()
    one.left.send_multipart([good[3], b"and a part too many"])
    assert one.pump()
    assert [frame.seq for frame in one.came] == [0, 2, 3]
    assert one.receiver.counts() == {"frames": 3, "lost": 1, "refused": 4}
    assert "1 parts follow frames" in one.receiver.last_refusal


def test_a_hole_in_the_numbers_is_counted_as_lost(line):
    one = line()
    frames = [one.frame(50) for _ in range(9)]
    other = [one.frame(50, "other") for _ in range(4)]
    for frame in (frames[0], frames[1], other[0], frames[4], other[1], frames[5], frames[8]):
        one.left.send(b"".join(Codec().encode(frame)))
        assert one.pump()
    assert one.receiver.lost == 2 + 2
    one.left.send(b"".join(Codec().encode(other[3])))
    assert one.pump()
    assert one.receiver.lost == 5


def test_a_stream_may_come_again_after_its_end(line):
    one = line()
    for _ in range(2):
        one.seqs.clear()
        one.push(kind=Kind.START)
        one.push(100)
        one.push(kind=Kind.END)
    one.settle()
    assert one.receiver.lost == 0


# the end


def test_an_edge_is_settled_once_all_has_been_acknowledged(line):
    one = line(window=5000)
    for _ in range(5):
        one.push(3000)
    one.sender.close()
    assert not one.sender.settled
    assert not one.receiver.ended
    for _ in range(5):
        assert not one.receiver.ended
        one.sender.flush()
        assert one.pump()
        one.receiver.ack()
        assert one.left.poll(WAIT_MS)
        assert not one.sender.settled
    one.sender.flush()
    assert one.pump()
    assert one.receiver.ended
    assert one.sender.settled
    assert len(one.came) == 5


def test_an_edge_on_which_nothing_was_sent_settles(line):
    one = line()
    one.sender.close()
    assert one.pump()
    assert one.receiver.ended
    assert one.sender.settled


# tcp


@pytest.fixture
def over_tcp(context: zmq.Context) -> Iterator[Line]:
    one = Line(context, "tcp://127.0.0.1:*", keys=CurveKeys.new(), window=100_000)
    yield one
    one.drop()


def stranger(context: zmq.Context, endpoint: str, keys: CurveKeys | None) -> zmq.Socket:
    socket = data_socket(context, FRAME_CAP)
    connect(socket, endpoint, keys)
    return socket


def test_strangers_on_a_tcp_edge_are_ignored_and_the_run_goes_on(context, over_tcp):
    one = over_tcp
    sent = [one.push(1000) for _ in range(5)]
    one.settle()
    host, port = one.endpoint.removeprefix("tcp://").split(":")
    raw = [plain_sockets.create_connection((host, int(port))) for _ in range(4)]
    raw[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
    raw[1].sendall(bytes([0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F]) + b"\x03\x00NULL" + bytes(500))
    raw[2].sendall(b"\x00" * 100_000)  # the last connects and says nothing
    without = stranger(context, one.endpoint, None)
    mistaken = stranger(context, one.endpoint, CurveKeys.new())
    try:
        for socket in (without, mistaken):
            for _ in range(20):
                with suppress(zmq.Again):  # it never gets a connection that carries anything
                    socket.send(b"".join(Codec().encode(one.frame(100))), zmq.NOBLOCK)
        one.seqs["main"] = len(sent)  # what the strangers sent does not count
        for size in (1000, 50_000, 300_000) * 10:  # many acknowledgements, all to the right peer
            sent.append(one.push(size))
            one.settle()
        one.sender.close()
        one.settle(closing=True)
        assert list(map(same, one.came, sent)) == [True] * len(sent)
        assert one.receiver.counts() == {"frames": len(sent), "lost": 0}
        assert not without.poll(0)
        assert not mistaken.poll(0)
    finally:
        for socket in (without, mistaken, *raw):
            socket.close()


def test_a_port_that_is_taken_says_so(context, over_tcp):
    socket = data_socket(context, FRAME_CAP)
    with pytest.raises(
        RunError, match=r"^cannot listen on tcp://127\.0\.0\.1:\d+: Address already"
    ):
        bind(socket, over_tcp.endpoint, None)
    socket.close()


def test_an_address_that_is_none_says_so(context):
    socket = data_socket(context, FRAME_CAP)
    with pytest.raises(RunError, match=r"^cannot connect to nowhere: "):
        connect(socket, "nowhere", None)
    socket.close()
