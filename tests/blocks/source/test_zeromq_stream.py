"""source.zeromq_stream, fed by hand over loopback; tests/peers/test_gnuradio.py has GNU Radio."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from zmq_sides import bound, free_address, header, raw_tag

from blocks.source.zeromq_stream import ZeromqStream
from pipeline import Flow, run
from pipeline.block import Gap, Silence
from pipeline.errors import ParameterError, RunError
from pipeline.frame import StreamInfo

RNG = np.random.default_rng(5)
FLOATS = RNG.standard_normal(1000).astype(np.float32)
TIME = (np.uint64(1_700_000_000), 0.25)


@pytest.fixture
def peer():
    """Makes sockets that are bound; closes them."""
    with zmq.Context() as context:

        def make(kind=zmq.PUSH):
            socket = context.socket(kind)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RCVTIMEO, 20_000)
            socket.setsockopt(zmq.SNDTIMEO, 20_000)
            return socket, bound(socket)

        yield make
        context.destroy(linger=0)


def made(address, **values):
    block = ZeromqStream(**{"address": address, "format": "f32", "length": 100, **values})
    block.start()
    return block


def take(block, most=10**6):
    """What it returns until its end, or so many items, silence left out."""
    found = []
    while len(found) < most and (item := block.process()) is not None:
        if not isinstance(item, Silence):
            found.append(item)
    return found


def shapes(items):
    return [item if isinstance(item, Gap) else len(item.samples) for item in items]


def joined(items):
    return np.concatenate([item.samples for item in items if not isinstance(item, Gap)])


@pytest.mark.parametrize("size", [1, 7, 100, 999, 1000])
def test_messages_of_any_size_become_frames_of_one(peer, size):
    socket, address = peer()
    block = made(address, frames=10)
    for at in range(0, 1000, size):
        socket.send(FLOATS[at : at + size].tobytes())
    found = take(block)
    assert shapes(found) == [100] * 10
    assert joined(found).tobytes() == FLOATS.tobytes()
    assert block.process() is None
    assert all(item.tags.size == item.tag_sample.size == 0 for item in found)


@pytest.mark.parametrize(
    ("format", "dtype"),
    [("cf32", "c8"), ("f32", "f4"), ("s32", "i4"), ("s16", "i2"), ("s8", "i1"), ("u8", "u1")],
)
@pytest.mark.parametrize("vlen", [1, 5])
def test_items_come_as_they_are(peer, format, dtype, vlen):
    socket, address = peer()
    raw = RNG.integers(0, 256, 800, np.uint8).tobytes()
    items = 800 // np.dtype(dtype).itemsize // vlen
    block = made(address, format=format, vlen=vlen, length=items, frames=1)
    socket.send(raw)
    (found,) = take(block)
    assert found.samples.dtype == dtype
    assert found.samples.shape == ((items, vlen) if vlen > 1 else (items,))
    assert found.samples.tobytes() == raw


def test_the_stream_ends_when_nothing_comes_any_more(peer):
    socket, address = peer()
    block = made(address, idle_s=0.1)
    assert isinstance(block.process(), Silence)  # it waits for the first one
    assert isinstance(block.process(), Silence)
    socket.send(FLOATS[:130].tobytes())
    assert shapes(take(block)) == [100, 30]
    assert block.process() is None


def test_without_a_limit_it_waits(peer):
    socket, address = peer()
    block = made(address)
    socket.send(FLOATS[:130].tobytes())
    assert shapes(take(block, 1)) == [100]
    assert isinstance(block.process(), Silence)
    socket.send(FLOATS[130:200].tobytes())
    (found,) = take(block, 1)
    assert found.samples.tobytes() == FLOATS[100:200].tobytes()
    block.close()
    assert block.process() is None


def test_it_may_bind(peer):
    socket, address = peer()
    with pytest.raises(RunError, match=r"cannot bind tcp://.*in use; .* set bind = false if the"):
        made(address, bind=True)
    address = free_address()
    block = made(address, bind=True, frames=1)
    socket.connect(address)
    socket.send(FLOATS[:100].tobytes())
    assert shapes(take(block)) == [100]
    block.start()  # anew, at the same address
    socket.send(FLOATS[100:200].tobytes())
    assert joined(take(block)).tobytes() == FLOATS[100:200].tobytes()


def test_a_subscriber_takes_what_has_its_key(peer):
    socket, address = peer(zmq.XPUB)
    block = made(address, pattern="sub", key="ab", frames=2)
    socket.recv()  # the subscription has come
    for key in (b"a", b"ab", b"b", b"abc"):
        socket.send_multipart([key, np.full(100, len(key), np.float32).tobytes()])
    assert [set(item.samples) for item in take(block)] == [{2.0}, {3.0}]


def test_items_are_asked_for_as_they_are_needed(peer):
    socket, address = peer(zmq.REP)
    block = made(address, pattern="req", frames=2)
    asked, found = [], []
    for count in (60, 40, 100):
        assert isinstance(block.process(), Silence)
        asked.append(int.from_bytes(socket.recv(), "little"))
        socket.send(FLOATS[:count].tobytes())
        found += take(block, 1) if count != 60 else []
    assert asked == [100, 40, 100]
    assert shapes(found) == [100, 100]


# tags


def test_tags_stand_beside_their_samples(peer):
    socket, address = peer()
    block = made(address, pass_tags=True, frames=3)
    tags = [(5299, "b", 2), (5000, "a", 1.5), (5299, "c", None), (5150, "d", (1, 2))]
    socket.send(header(5000, *tags) + FLOATS[:300].tobytes())
    found = take(block)
    assert joined(found).tobytes() == FLOATS[:300].tobytes()
    assert [item.tag_sample.tolist() for item in found] == [[0], [150], [299, 299]]
    assert [item.tags.tobytes() for item in found] == [
        raw_tag("a", 1.5), raw_tag("d", (1, 2)), raw_tag("b", 2) + raw_tag("c", None),
    ]  # fmt: skip


def test_tags_of_vectors_name_their_first_sample(peer):
    socket, address = peer()
    block = made(address, pass_tags=True, vlen=10, length=5)
    socket.send(header(7, (7, "a", 1), (14, "b", 2)) + FLOATS[:80].tobytes())
    socket.send(header(16) + FLOATS[:10].tobytes())  # one is lost
    socket.send(header(17) + FLOATS[:10].tobytes())
    first, *rest = take(block, 3)
    assert first.tag_sample.tolist() == [0]
    assert [rest[0].tag_sample.tolist(), rest[0].samples.shape] == [[70], (3, 10)]
    assert rest[1] == Gap(10)


def test_tags_of_the_first_item_describe_the_stream(peer):
    socket, address = peer()
    block = made(address, pass_tags=True, frames=1, centre_hz=1.09e9)
    assert block.describe() is None
    tags = [(40, "rx_rate", 2e6), (40, "rx_time", TIME), (40, "x", 1), (41, "rx_freq", 1e9)]
    socket.send(header(40, *tags) + FLOATS[:100].tobytes())
    (found,) = take(block)
    assert block.describe() == StreamInfo(
        rate_hz=2e6, epoch_utc_ns=1_700_000_000_250_000_000, centre_hz=1.09e9,
        format="gr-zeromq f32",
    )  # fmt: skip
    assert found.tag_sample.tolist() == [0, 1]  # without those that are part of the description
    assert found.tags.tobytes() == raw_tag("x", 1) + raw_tag("rx_freq", 1e9)


def test_without_tags_the_parameters_describe_the_stream(peer):
    block = made(peer()[1], rate_hz=5.0, centre_hz=7.0, format="s16")
    assert block.describe() == StreamInfo(rate_hz=5.0, centre_hz=7.0, format="gr-zeromq s16")


@pytest.mark.parametrize("lost", [1, 2**40])
@pytest.mark.parametrize("before", [100, 130])
def test_items_that_were_lost_become_a_gap(peer, before, lost):
    socket, address = peer()
    block = made(address, pass_tags=True, idle_s=0.1)
    socket.send(header(8) + FLOATS[:before].tobytes())
    after = 8 + before + lost
    socket.send(header(after))  # no items, and nothing lost twice
    socket.send(header(after, (after + 10, "a", 1)) + FLOATS[before : before + 100].tobytes())
    found = take(block)
    parts = [100, 30] if before == 130 else [100]
    assert shapes(found) == [*parts, Gap(lost), 100]
    assert joined(found).tobytes() == FLOATS[: before + 100].tobytes()
    assert found[-1].tag_sample.tolist() == [before + lost + 10]


# what may be wrong with a message


@pytest.mark.parametrize(
    ("values", "parts", "text"),
    [
        ({}, [b"12345"], r"message of 5 bytes from tcp://.* no whole items of 4 bytes; is it an"),
        ({"vlen": 3}, [bytes(8)], r"no whole items of 12 bytes; is it another format, or another"),
        ({}, [header(0) + bytes(4)], r"seems to have a tag header: set pass_tags = true"),
        ({}, [b"key", bytes(4)], r"has 2 parts, but items are 1; do they have a key\?"),
        ({"pass_tags": True}, [bytes(400)], r"no tag header .* does the sender pass tags\?"),
        ({"pass_tags": True}, [header(0) + b"x"], r"message of 20 bytes .* no whole items of 4"),
        ({"pass_tags": True}, [header(0)[:-1] + b"\x01"], r"it has \d+ tags, but ends after 0"),
        (
            {"pass_tags": True},
            [header(5, (4, "a", 1)) + bytes(8)],
            r"has a tag on item 4, but items 5 to 6",
        ),
        ({"pass_tags": True}, [header(5, (7, "a", 1)) + bytes(8)], r"tag on item 7, but items 5"),
        (
            {"pass_tags": True, "rate_hz": 1e6},
            [header(0, (0, "rx_rate", 2e6)) + bytes(8)],
            r"rate_hz is 1000000\.0 Hz, but a tag from .* says 2000000\.0 Hz",
        ),
        (
            {"pass_tags": True},
            [header(0, (0, "rx_rate", 2e6), (1, "rx_rate", 1e6)) + bytes(8)],
            r"rate_hz is 2000000\.0 Hz, but a tag",
        ),
    ],
)  # fmt: skip
def test_a_message_that_does_not_fit_is_refused(peer, values, parts, text):
    socket, address = peer()
    block = made(address, **values)
    socket.send_multipart(parts)
    with pytest.raises(RunError, match=rf"(?s)^source\.zeromq_stream: .*{text}"):
        take(block, 1)
    block.close()


@pytest.mark.parametrize(
    ("second", "text"),
    [
        (0, "begins with item 0, but 120 was to come: the sender has started anew, or several"),
        (119, "begins with item 119, but 120"),
        (2**63, "no stream lasts so long"),
    ],
)
def test_numbers_that_no_stream_has_are_refused(peer, second, text):
    socket, address = peer()
    block = made(address, pass_tags=True)
    socket.send(header(20) + FLOATS[:100].tobytes())
    socket.send(header(second) + FLOATS[:100].tobytes())
    assert shapes(take(block, 1)) == [100]
    with pytest.raises(RunError, match=text):
        take(block, 1)
    block.close()


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"address": "127.0.0.1:5555"}, "expected tcp://HOST:PORT"),
        ({"key": "a"}, 'key = \'a\', but pattern = "pull" has none; "sub" has'),
        ({"format": "cs16"}, "format"),
        ({"vlen": 0}, "vlen"),
    ],
)
def test_wrong_parameters_are_refused(values, text):
    with pytest.raises(ParameterError, match=rf"^source\.zeromq_stream: .*{text}"):
        ZeromqStream(**{"address": "tcp://127.0.0.1:1", **values})


class Lines:
    """Stands in for the socket: hands over given messages."""

    def __init__(self, messages):
        self.left = [memoryview(message) for message in messages]

    def recv_multipart(self, copy):
        if not self.left:
            raise zmq.Again
        return [SimpleNamespace(buffer=self.left.pop(0))]


@st.composite
def messages(draw):
    """Messages of a sender, and some that are damaged."""
    found, item = [], draw(st.integers(0, 5))
    for _ in range(draw(st.integers(1, 5))):
        count = draw(st.integers(0, 9))
        tags = [(item + at, "mark", at) for at in range(0, count, 4)]
        message = bytearray(header(item, *tags) + bytes(8 * count))
        item += count + draw(st.sampled_from([0, 0, 3]))
        if draw(st.booleans()):
            place = draw(st.integers(0, len(message)))
            message[place : place + draw(st.integers(0, 9))] = draw(st.binary(max_size=9))
        found.append(bytes(message))
    return found


@settings(max_examples=150)
@given(messages(), st.booleans())
def test_any_bytes_give_frames_or_an_error(sent, pass_tags):
    block = made("tcp://127.0.0.1:1", format="cf32", pass_tags=pass_tags, length=6)
    try:
        block._socket = Lines(sent)
        for _ in range(200):
            found = block.process()
            if isinstance(found, Silence):
                break
            if not isinstance(found, Gap):
                assert 1 <= len(found.samples) <= 6
        assert isinstance(found, Silence)
    except RunError:
        pass
    finally:
        block.close()


# in a flow


def flow(address, *more, **values):
    flow = Flow("bridge")
    flow.add("radio", "source.zeromq_stream", address=address, length=100, **values)
    flow.add("magnitude", "frontend.magnitude")
    flow.add("counts", "sink.null")
    flow.connect("radio -> magnitude -> counts")
    return flow


def test_a_flow_is_described_by_tags_and_ends_in_time(peer):
    socket, address = peer()
    message = header(0, (0, "rx_rate", 2e6)) + bytes(8 * 250)
    sending = threading.Thread(target=socket.send, args=(message,))
    sending.start()  # as soon as somebody is there
    found = run(flow(address, pass_tags=True), seconds=1.0)
    sending.join()
    assert found["results"]["counts"]["frames"] == 2  # what did not fill a frame is left behind
    assert found["seconds"] < 20


def test_a_flow_of_another_type_is_refused_before_it_runs(peer):
    with pytest.raises(Exception, match=r"'samples' is int16 .*expected complex64"):
        flow(peer()[1], format="s16").check()
