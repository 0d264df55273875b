import socket
import time
from contextlib import contextmanager

import pytest

from blocks import network
from blocks.network import Outlet, address, text_of
from pipeline.errors import ParameterError, RunError

HERE = ("127.0.0.1", 0)
LINES = [f"line {number}\n".encode() for number in range(1000)]


def wait_for(condition):
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def outlet(listen=HERE, connect=None, most_waiting=1 << 20):
    made = Outlet("sink.test", listen, connect, most_waiting)
    try:
        yield made
    finally:
        made.close(0.5)


def reader_of(made, buffer=None):
    before = made.counts.readers
    reader = socket.socket()
    if buffer:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    reader.settimeout(10.0)
    reader.connect(network.address("", made.address))
    wait_for(lambda: made.counts.readers > before)
    return reader


def all_of(reader):
    with reader:
        return b"".join(iter(lambda: reader.recv(1 << 16), b""))


def test_every_reader_gets_everything_from_when_it_came_and_the_end():
    with outlet() as made:
        first = reader_of(made)
        made.send(LINES[:500])
        second = reader_of(made)
        for line in LINES[500:]:
            made.send([line])
        made.close(5.0)
        assert all_of(first) == b"".join(LINES)
        assert all_of(second) == b"".join(LINES[500:])
    counts = made.counts
    assert (counts.connections, counts.sent, counts.lost, counts.slow) == (2, 1500, 0, 0)
    assert counts.bytes == len(b"".join(LINES + LINES[500:]))


def test_a_reader_that_does_not_read_is_dropped_and_no_other_waits_for_it():
    big = [bytes(65536)] * 4
    with outlet(most_waiting=1 << 18) as made:
        lazy, busy = reader_of(made, 4096), reader_of(made)
        begin, got, sent = time.monotonic(), 0, 0
        while made.counts.slow == 0:
            made.send(big)
            sent += len(big) * 65536
            while got < sent:
                got += len(busy.recv(1 << 20))
            assert time.monotonic() - begin < 60.0
        made.send([b"end"])
        assert busy.recv(10) == b"end"
        lazy.close()
        busy.close()
    counts = made.counts
    assert counts.slow == 1
    assert 1 <= counts.lost <= 4 + 4  # what waited, and the first that was one too many


def test_what_a_reader_sends_is_thrown_away_and_too_much_of_it_ends_the_connection(monkeypatch):
    monkeypatch.setattr(network, "MOST_HEARD", 100_000)
    with outlet() as made:
        reader, loud = reader_of(made), reader_of(made)
        reader.sendall(b"\x00\xff garbage" * 1000)
        made.send(LINES[:10])
        assert reader.recv(1 << 16).startswith(b"line 0\n")
        with pytest.raises(OSError, match=r"reset|pipe"):
            loud.sendall(bytes(100_000_000))
        wait_for(lambda: (made.counts.refused, made.counts.readers) == (1, 1))
        reader.close()
        assert made.counts.lost == 0


def test_readers_beyond_the_most_are_turned_away(monkeypatch):
    monkeypatch.setattr(network, "MOST_READERS", 1)
    with outlet() as made:
        first = reader_of(made)
        with socket.create_connection(address("", made.address), 10) as second:
            assert second.recv(1) == b""
        assert made.counts.refused == 1
        first.close()


def test_a_server_gets_what_came_before_it_was_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = listener.getsockname()
    with outlet(None, place) as made:
        made.send(LINES[:10])
        wait_for(lambda: made.trouble == "Connection refused")
        with socket.create_server(place) as listener:
            listener.settimeout(10)
            connection, _ = listener.accept()
            made.close(5.0)
            assert all_of(connection) == b"".join(LINES[:10])
    assert (made.counts.sent, made.counts.lost) == (10, 0)


def test_a_server_that_goes_away_is_called_again_and_gets_whole_messages():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.settimeout(10)
        messages = [bytes([number]) * 100_000 for number in range(100)]  # more than kernels hold
        with outlet(None, listener.getsockname(), 1 << 24) as made:
            made.send(messages)
            connection, _ = listener.accept()
            wait_for(lambda: made.counts.bytes > 0)
            with connection:
                connection.recv(10_000)  # goes away with a message under way
            connection, _ = listener.accept()
            made.send([b"end"])
            rest = b""
            while not rest.endswith(b"end"):
                rest += connection.recv(1 << 20)
            connection.close()
            sent, lost = made.counts.sent, made.counts.lost
    first = rest[0]
    assert rest == b"".join(messages[first:]) + b"end"
    assert sent + lost == 101
    assert lost <= 1  # the one that was under way


def test_the_oldest_is_dropped_for_a_server_that_is_not_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = listener.getsockname()
    with outlet(None, place, most_waiting=1000) as made:
        for _ in range(200):
            made.send([b"0123456789"])
        assert made.counts.lost == 100
        made.close(0.0)
    assert made.counts.lost == 200  # with what waited at the end


def test_closing_takes_no_longer_than_it_may():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = listener.getsockname()
    with outlet(None, place) as made:
        made.send(LINES)
        begin = time.monotonic()
        made.close(0.2)
        assert time.monotonic() - begin < 30.0
    assert made.counts.lost == len(LINES)


def test_an_address_that_is_taken_is_an_error_that_says_so():
    with outlet() as made, pytest.raises(RunError, match=f"{made.address}: Address already in use"):
        Outlet("sink.test", address("", made.address), None, 1024)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (":30002", ("127.0.0.1", 30002)),
        (":0", ("127.0.0.1", 0)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),  # noqa: S104
        ("a.example:30003", ("a.example", 30003)),
        ("[::1]:5", ("::1", 5)),
    ],
)
def test_addresses_are_read(text, place):
    assert address("listen", text, least=0) == place
    assert text_of(place).endswith(text)


@pytest.mark.parametrize(
    "text", ["", "30002", "host", "host:", "host:port", "host:0", "host:65536", "::1:5"]
)
def test_addresses_that_are_none_are_refused(text):
    with pytest.raises(ParameterError, match=r"listen = .*expected"):
        address("listen", text)
