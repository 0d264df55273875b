"""sink.zeromq_stream, read by hand over loopback; tests/peers/test_gnuradio.py has GNU Radio."""

import struct
import threading
import time

import numpy as np
import pytest
import zmq
from zmq_sides import ANYWHERE, bound, free_address, header, raw_tag

from blocks.sink.zeromq_stream import ZeromqStream
from blocks.source import zeromq_stream as source
from pipeline.block import Context, Gap, Silence
from pipeline.errors import ParameterError, RunError
from pipeline.frame import FrameInfo, StreamInfo

RNG = np.random.default_rng(6)
FLOATS = RNG.standard_normal(1000).astype(np.float32)
RADIO = StreamInfo(rate_hz=2e6, centre_hz=1.09e9, epoch_utc_ns=1_700_000_000_250_000_000)


@pytest.fixture
def peer():
    """Makes sockets that are bound, for a sink that connects; closes them."""
    with zmq.Context() as context:

        def make(kind=zmq.PULL, **options):
            socket = context.socket(kind)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RCVTIMEO, 20_000)
            for name, value in options.items():
                socket.setsockopt(getattr(zmq, name), value)
            return socket, bound(socket)

        yield make
        context.destroy(linger=0)


def made(address, info=None, **values):
    block = ZeromqStream(**{"address": address, "bind": False, **values})
    block.context = Context("air")
    block.start()
    if info is not None:
        block.open("main", info)
    return block


@pytest.mark.parametrize("dtype", ["c8", "f4", "i4", "i2", "i1", "u1"])
@pytest.mark.parametrize("shape", [(24,), (4, 6)])
def test_a_frame_is_sent_as_its_bytes(peer, dtype, shape):
    socket, address = peer()
    block = made(address)
    items = np.frombuffer(RNG.bytes(24 * np.dtype(dtype).itemsize), dtype).reshape(shape)
    block.process(items)
    block.process(items[:0])  # nothing
    block.process(items[::2])
    assert socket.recv() == items.tobytes()
    assert socket.recv() == items[::2].tobytes()
    assert block.report(None) == {"samples": 36, "dropped": 0}
    block.finish()


@pytest.mark.parametrize("count", [10, 100_000])
def test_arrays_may_be_written_to_afterwards(peer, count):
    socket, address = peer(RCVHWM=1)
    block = made(address, hwm=1000)
    array = np.empty(count, np.float32)
    for number in range(20):
        array[:] = number
        block.process(array)
    for number in range(20):
        assert set(np.frombuffer(socket.recv(), np.float32)) == {number}
    block.finish()


def test_tags_say_what_the_stream_is_where_it_begins_and_after_gaps(peer):
    socket, address = peer()
    block = made(address, RADIO, pass_tags=True)
    for sample in (0, 100, 2_000_200, 2_000_300):
        block.process(FLOATS[:100], info=FrameInfo(sample=sample))
    block.open("main", StreamInfo(centre_hz=5.0))
    block.process(FLOATS[:100], info=FrameInfo(sample=2_000_400))
    start = [("rx_time", (np.uint64(1_700_000_000), 0.25)), ("rx_rate", 2e6), ("rx_freq", 1.09e9)]
    expected = [
        (0, start),
        (100, []),
        (2_000_200, [("rx_time", (np.uint64(1_700_000_001), 0.2501))]),
        (2_000_300, []),
        (2_000_400, [("rx_freq", 5.0)]),
    ]
    for first, said in expected:
        tags = b"".join(struct.pack("<Q", first) + raw_tag(*tag, setter="air") for tag in said)
        head = header(first)[:11] + struct.pack("<Q", len(said))
        assert socket.recv() == head + tags + FLOATS[:100].tobytes()
    block.finish()


def test_words_are_items(peer):
    socket, address = peer()
    block = made(address, pass_tags=True)
    block.process(FLOATS[:60].reshape(6, 10), info=FrameInfo(sample=0))
    block.process(FLOATS[:60].reshape(6, 10), info=FrameInfo(sample=60))
    assert socket.recv() == header(0) + FLOATS[:60].tobytes()
    assert socket.recv() == header(6) + FLOATS[:60].tobytes()
    block.finish()


def test_the_key_goes_before_the_items_and_names_other_streams(peer):
    socket, address = peer(zmq.SUB, SUBSCRIBE=b"")
    block = made(address, pattern="pub", key="k", when_full="wait")
    deadline = time.monotonic() + 20
    while not socket.poll(50):  # until the subscription has come, nothing does
        assert time.monotonic() < deadline
        block.process(FLOATS[:3])
    while socket.poll(200):
        assert socket.recv_multipart() == [b"k", FLOATS[:3].tobytes()]
    block.process(FLOATS[3:5], info=FrameInfo(stream="rx2"))
    assert socket.recv_multipart() == [b"rx2k", FLOATS[3:5].tobytes()]
    block.finish()


def test_requests_are_answered_with_as_many_items(peer):
    socket, address = peer(zmq.REQ, REQ_RELAXED=0)
    block = made(address, pattern="rep", pass_tags=True)
    thread = threading.Thread(
        target=block.process,
        args=(FLOATS[:100], np.array([30, 70]), np.frombuffer(raw_tag("a", 1) * 2, np.uint8)),
    )
    thread.start()
    replies = []
    for request in (struct.pack("<I", 40), b"", bytes(4), b"12345", struct.pack("<I", 999)):
        socket.send(request)
        replies.append(socket.recv())
    thread.join()
    assert replies == [
        header(0, (30, "a", 1)) + FLOATS[:40].tobytes(), b"", b"", b"",
        header(40, (70, "a", 1)) + FLOATS[40:100].tobytes(),
    ]  # fmt: skip
    assert block.report(None) == {"samples": 100, "dropped": 0, "bad_requests": 3}
    block.finish()


@pytest.mark.parametrize("pattern", ["push", "rep"])
def test_what_nobody_takes_may_be_dropped_and_counted(pattern):
    block = made(ANYWHERE, bind=True, pattern=pattern, when_full="drop")
    for _ in range(3):
        block.process(FLOATS[:100])
    found = block.report(None)
    assert (found["samples"], found["dropped"]) == (0, 300)
    block.finish()


def test_dropped_samples_show_in_the_numbers_of_the_items(peer):
    socket, _ = peer(RCVHWM=1)
    address = free_address()
    block = made(address, bind=True, pass_tags=True, when_full="drop", hwm=1)
    block.process(FLOATS[:100], info=FrameInfo(sample=0))
    socket.connect(address)
    deadline = time.monotonic() + 20
    sample = 100
    while not socket.poll(20):
        assert time.monotonic() < deadline
        block.process(FLOATS[:100], info=FrameInfo(sample=sample))
        sample += 100
    first = int.from_bytes(socket.recv()[3:11], "little")
    assert first >= 100
    assert block.report(None)["dropped"] == first
    block.finish()


@pytest.mark.parametrize("pattern", ["push", "rep"])
def test_what_nobody_takes_holds_the_flow_up(peer, pattern):
    socket, _ = peer(zmq.REQ if pattern == "rep" else zmq.PULL)
    address = free_address()
    block = made(address, bind=True, pattern=pattern)
    thread = threading.Thread(target=block.process, args=(FLOATS,))
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    socket.connect(address)
    if pattern == "rep":
        socket.send(struct.pack("<I", 1000))
    assert socket.recv() == FLOATS.tobytes()
    thread.join()
    block.finish()


def test_the_end_waits_for_those_who_are_slow(peer):
    socket, address = peer(RCVHWM=1)
    block = made(address)
    for number in range(200):
        block.process(np.full(100_000, number, np.float32))
    ending = threading.Thread(target=block.finish)
    ending.start()
    time.sleep(0.1)
    for number in range(200):
        assert np.frombuffer(socket.recv(), np.float32)[0] == number
    ending.join()


def test_the_end_does_not_wait_for_ever(peer):
    _, address = peer(RCVHWM=1)
    block = made(address, linger_s=0.1)
    for _ in range(200):
        block.process(np.zeros(100_000, np.float32))
    block.finish()
    block.finish()


@pytest.mark.parametrize(("pattern", "other"), [("push", "pull"), ("rep", "req")])
def test_our_source_takes_what_our_sink_sends(pattern, other):
    address = free_address()
    block = made(address, RADIO, bind=True, pattern=pattern, pass_tags=True)
    there = source.ZeromqStream(
        address=address, pattern=other, pass_tags=True, format="f32", length=70, idle_s=0.3
    )
    there.start()

    def send():
        tags = np.frombuffer(raw_tag("a", 1) + raw_tag("rx_freq", 7.0), np.uint8)
        block.process(FLOATS[:100], np.array([3, 99]), tags, FrameInfo(sample=0))
        block.process(FLOATS[100:], np.array([900, 901]), tags, FrameInfo(sample=500))
        block.finish()

    thread = threading.Thread(target=send)
    thread.start()
    found = []
    while (item := there.process()) is not None:
        if not isinstance(item, Silence):
            found.append(item)
    thread.join()
    info = there.describe()
    assert (info.rate_hz, info.centre_hz) == (RADIO.rate_hz, RADIO.centre_hz)
    assert info.epoch_utc_ns == RADIO.epoch_utc_ns
    assert found[2] == Gap(400)
    data = [item for item in found if not isinstance(item, Gap)]
    assert np.concatenate([item.samples for item in data]).tobytes() == FLOATS.tobytes()
    assert np.concatenate([item.tag_sample for item in data]).tolist() == [3, 99, 500, 900, 901]
    tags = b"".join(item.tags.tobytes() for item in data)
    given = raw_tag("a", 1) + raw_tag("rx_freq", 7.0)
    assert tags == given + raw_tag("rx_time", (np.uint64(1_700_000_000), 0.25025), "air") + given


def test_one_stream_fits_into_one_socket(peer):
    block = made(peer()[1], linger_s=0.0)
    block.process(FLOATS)
    with pytest.raises(RunError, match=r'the streams main, rx2 come here, but "push" has one; use'):
        block.process(FLOATS, info=FrameInfo(stream="rx2"))
    block.finish()


def test_an_address_that_is_taken_is_refused(peer):
    _, address = peer()
    with pytest.raises(RunError, match=r"cannot bind tcp://.*in use; give another address, or set"):
        made(address, bind=True)


def test_a_key_needs_somewhere_to_go():
    with pytest.raises(ParameterError, match='key = \'a\', but pattern = "push" has none; "pub"'):
        ZeromqStream(address=ANYWHERE, key="a")
