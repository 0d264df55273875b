import socket
import struct
import threading
import time

import numpy as np
import pytest
from rtl_tcp_server import HEADER, Server, sending

from blocks.source import rtl_tcp
from blocks.source.rtl_tcp import RtlTcp
from pipeline.errors import ParameterError, RunError
from pipeline.frame import Gap, Silence

RATE = 100_000.0
NUMBERS = np.arange(2 * 4000, dtype=np.int64).astype(np.uint8)  # 4000 samples
CONTENT = NUMBERS.tobytes()


def as_samples(numbers):
    """What source.recording makes of cu8: (n - 127.5) / 127.5."""
    parts = (numbers.astype(float) - 127.5) / 127.5
    return (parts[0::2] + 1j * parts[1::2]).astype(np.complex64)


def source_of(server, **values):
    block = RtlTcp(**{"connect": server.address, "rate_hz": RATE, "length": 100, **values})
    block.start()
    return block


class Clock:
    """Stands for the module `time`; runs only when told to."""

    time_ns = staticmethod(time.time_ns)

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(rtl_tcp, "time", made)
    return made


def taken(block, until):
    """All that comes until so many samples have come or the end: samples joined, gaps."""
    samples, gaps = [], []
    while sum(map(len, samples)) < until:
        came = block.process()
        if came is None:
            break
        if isinstance(came, Silence):
            continue
        if isinstance(came, Gap):
            gaps.append((sum(map(len, samples)), came.samples))
        else:
            samples.append(came.samples)
    return np.concatenate(samples), gaps


@pytest.mark.parametrize("length", [1, 7, 1000])
def test_samples_come_as_the_server_sends_them(length):
    with sending(CONTENT) as server:
        block = source_of(server, length=length, frames=3990 // length)
        samples, gaps = taken(block, 4000)
        block.close()
    assert gaps == []
    np.testing.assert_array_equal(samples, as_samples(NUMBERS)[: length * (3990 // length)])


def test_settings_are_sent_as_commands_of_rtl_tcp():
    commands = []
    values = {"rate_hz": 2.4e6, "gain_db": 49.6, "ppm": -3, "agc": True, "bias_tee": True}
    with sending(CONTENT, commands) as server:
        source_of(server, centre_hz=1090e6, **values).close()
        deadline = time.monotonic() + 60.0
        while len(commands) < 7 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert dict(struct.unpack(">Bi", command) for command in commands) == {
        0x01: 1_090_000_000, 0x02: 2_400_000, 0x03: 1, 0x04: 496, 0x05: -3, 0x08: 1, 0x0E: 1,
    }  # fmt: skip


def test_without_a_gain_the_tuner_is_told_to_choose():
    block = RtlTcp()
    codes = dict(struct.iter_unpack(">BI", block._commands()))
    assert codes[0x03] == 0
    assert 0x04 not in codes


def test_the_stream_is_described_by_the_parameters_and_the_clock():
    before = time.time_ns()
    with sending(CONTENT) as server:
        block = source_of(server, centre_hz=1.09e9)
        info = block.describe()
        block.close()
    assert (info.rate_hz, info.centre_hz, info.format) == (RATE, 1.09e9, "rtl_tcp")
    assert (info.continuous, info.replayable) == (True, False)
    assert before - 100e6 <= info.epoch_utc_ns <= time.time_ns()  # 4000 samples are 40 ms


def test_a_flow_that_falls_behind_goes_on_with_what_is_new_and_counts_the_rest():
    held = threading.Event()

    def serve(connection, number):
        connection.sendall(HEADER + CONTENT)
        held.wait(10)
        connection.sendall(CONTENT[:200])
        server.closed.wait(10)

    with Server(serve) as server:
        block = source_of(server, buffer_s=0.03)  # 3000 samples
        reader = block._reader
        deadline = time.monotonic() + 60.0
        while len(reader._waiting) != 1 + 9:  # all 40 frames came, and 31 are one gap now
            assert time.monotonic() < deadline
            time.sleep(0.01)
        held.set()
        samples, gaps = taken(block, 900 + 100)
        block.close()
    # the 31st frame was one too many; then 9 more came, and one more
    assert gaps == [(0, 3100)]
    np.testing.assert_array_equal(samples, as_samples(np.tile(NUMBERS, 2))[3100:4100])


def test_a_server_that_goes_away_is_called_again_and_the_time_between_is_a_gap(clock):
    def serve(connection, number):
        clock.now += 0.25 * number
        connection.sendall(HEADER)
        if number == 1:  # a second one gives up before it sends a sample
            return
        connection.sendall(CONTENT[: 1200 if number else 1001])  # 1001 end inside a sample
        if number:
            server.closed.wait(10)

    with Server(serve) as server:
        block = source_of(server, length=300)
        samples, gaps = taken(block, 1100)
        block.close()
    sent = as_samples(NUMBERS)
    np.testing.assert_array_equal(samples, np.concatenate([sent[:500], sent[:600]]))
    assert {place for place, _ in gaps} == {500}
    lost = 0.75 * RATE - sum(lost for _, lost in gaps)
    assert 0 < lost <= 300  # samples that had come when the time was told


def test_a_server_that_only_ever_says_hello_exhausts_the_patience():
    def serve(connection, number):
        connection.sendall(HEADER + (b"" if number else CONTENT[:200]))

    with Server(serve) as server:
        block = source_of(server, patience_s=0.5)
        taken(block, 100)
        with pytest.raises(RunError, match=r"gave no samples for 0\.5 s: it sends no samples"):
            taken(block, 1)
        block.close()


def test_the_clock_runs_on_while_a_server_is_away_and_patience_ends(clock):
    def serve(connection, number):
        clock.now += 0.25 * number
        if number == 0:
            connection.sendall(HEADER + CONTENT)
        else:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with Server(serve) as server:
        block = source_of(server, patience_s=0.8)
        taken(block, 4000)
        lost = 0
        try:
            while True:
                came = block.process()
                lost += came.samples if isinstance(came, Gap) else 0
        except RunError as error:
            said = str(error)
        assert "went away and gave no samples for 0.8 s: it sent b'HTTP/1.1 400'" in said
        block.close()
    assert lost == pytest.approx((0.25 + 0.5 + 0.75) * RATE, abs=2)  # 0.8 s are over at the third


def test_a_server_that_is_silent_does_not_hold_the_flow_up():
    with sending(CONTENT[:2000]) as server:
        block = source_of(server, timeout_s=3600.0)
        taken(block, 1000)
        assert isinstance(block.process(), Silence)
        block.close()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"SSH-2.0-OpenSSH\r\n",
            r"it sent b'SSH-2.0-Open'; expected 12 bytes that begin with RTL0",
        ),
        (b"RTL0\0\0", "it sent b'RTL0"),
        (b"", "it sent b''"),
        (HEADER, "closed the connection before it sent a sample"),
        (HEADER + b"\x80", "closed the connection before it sent a sample"),
    ],
)
def test_what_is_no_rtl_tcp_is_refused(content, said):
    with (
        Server(lambda connection, number: connection.sendall(content)) as server,
        pytest.raises(RunError, match=said),
    ):
        source_of(server)


def test_a_server_without_samples_is_an_error_that_says_so():
    with sending(b"") as server, pytest.raises(RunError, match=r"was silent for 0\.3 s before"):
        source_of(server, timeout_s=0.3)


def test_nobody_there_is_an_error_that_says_so():
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    block = RtlTcp(connect=f"127.0.0.1:{port}")
    with pytest.raises(RunError, match=rf"127.0.0.1:{port}: Connection refused; is an rtl_tcp"):
        block.start()


@pytest.mark.parametrize("text", ["", "host", "host:", "host:x", "host:70000", "::1:5"])
def test_an_address_that_is_none_is_refused(text):
    with pytest.raises(ParameterError, match='expected "host:port"'):
        RtlTcp(connect=text)
