"""TCP that never makes a flow wait: messages go out to readers that come, go, and dawdle."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from pipeline.errors import ParameterError, RunError

MOST_READERS = 100  # of a listener; more are turned away
MOST_HEARD = 1 << 20  # bytes that a reader may send, which nobody reads, before it is dropped
FIRST_RETRY_S, LAST_RETRY_S = 0.1, 5.0  # from one try to reach a server to the next
CALL_S = 5.0  # that a server may take to accept
BATCH = 256  # messages handed to the kernel at once

Selector = selectors.DefaultSelector


def address(name: str, text: str, least: int = 1) -> tuple[str, int]:
    """Host and port of "host:port", "[host]:port" or ":port", which is this machine only.

    Raises ParameterError, in which the parameter is called `name`, for anything else, and where the
    port is below `least` (0 asks for any that is free).
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    fits = port.isdecimal() and least <= int(port) <= 65535
    if not colon or not fits or (":" in host and not bracketed):
        raise ParameterError(
            f'{name} = {text!r}; expected "host:port" with a port of {least} ... 65535, such as '
            '"127.0.0.1:30002"'
        )
    return host.strip("[]") or "127.0.0.1", int(port)


def text_of(place: tuple[str, int]) -> str:
    """Host and port as they are written."""
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(slots=True)
class Counts:
    """What an outlet has done so far.

    connections  readers that came, and servers that were reached
    readers      of them, those that are there now
    slow         readers that were dropped because too much waited for them
    refused      readers that were turned away, or dropped for sending too much
    sent, bytes  messages and bytes that the kernel took, summed over all readers
    lost         messages that a reader should have had and did not get
    """

    connections: int = 0
    readers: int = 0
    slow: int = 0
    refused: int = 0
    sent: int = 0
    bytes: int = 0
    lost: int = 0


@dataclass(slots=True, eq=False)
class _Reader:
    """One end that takes messages.

    socket    None: a server that is not reached now
    called    whether it is the server that this outlet calls
    begun     bytes of the first waiting message that are gone
    late      it is to be dropped
    interest  what the selector looks for
    """

    socket: socket.socket | None
    called: bool = False
    waiting: deque[bytes] = field(default_factory=deque)
    size: int = 0
    begun: int = 0
    heard: int = 0
    late: bool = False
    interest: int = 0
    connected: bool = True


class Outlet:
    """Sends messages over TCP, from a thread of its own.

    listen      address at which readers may connect; None: nowhere. Each gets what comes from then
                on. One for which more than `most_waiting` bytes wait is dropped.
    connect     address of one server to send to; None: none. It is called again, with growing
                pauses, when it is not there. What waits is kept for it, and the oldest is dropped
                when it gets more than `most_waiting` bytes.
    where       who says so in error texts

    What readers send is read and thrown away, up to 1 MiB each. A message is counted as sent once
    the kernel has all of it: what it had in hand when a connection broke is not known to be lost.

    Raises RunError where it cannot listen.
    """

    def __init__(
        self,
        where: str,
        listen: tuple[str, int] | None,
        connect: tuple[str, int] | None,
        most_waiting: int,
    ) -> None:
        self._most_waiting, self._server = most_waiting, connect
        self._lock = threading.Lock()
        self.counts = Counts()
        self.trouble = ""  # with the server, the last
        self._readers: list[_Reader] = []
        self._selector = Selector()
        self._listener: socket.socket | None = None
        self.address = ""  # at which it listens
        if listen is not None:
            self._listener = _listening(where, listen)
            self.address = text_of(self._listener.getsockname()[:2])
            self._selector.register(self._listener, selectors.EVENT_READ)
        self._retry_s, self._due = FIRST_RETRY_S, 0.0
        if connect is not None:
            self._readers.append(_Reader(None, called=True, connected=False))
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._rung = False
        self._pause_s = 0.0
        self._until: float | None = None  # when to end, once it is to be closed
        self._thread = threading.Thread(target=self._serve, name=f"outlet of {where}", daemon=True)
        self._thread.start()

    def send(self, messages: Sequence[bytes]) -> None:
        """Hand over whole messages; does not wait for any reader."""
        if not messages:
            return
        size = sum(map(len, messages))
        with self._lock:
            for reader in self._readers:
                if reader.late:
                    self.counts.lost += len(messages)
                    continue
                reader.waiting.extend(messages)
                reader.size += size
                if reader.size > self._most_waiting:
                    if reader.called:
                        self._forget_oldest(reader)
                    else:
                        reader.late = True
            if self._readers:
                self._ring()

    def close(self, linger_s: float) -> None:
        """Send what waits, for so long at most, and close all connections."""
        with self._lock:
            if self._until is None:
                self._until = time.monotonic() + linger_s
            self._ring()
        self._thread.join(linger_s + 0.5)  # it may hang in a name server

    # all below with the lock held

    def _ring(self) -> None:
        """Wake the thread."""
        if not self._rung:
            self._rung = True
            with suppress(OSError):
                self._bell.send(b"!")

    def _forget_oldest(self, reader: _Reader) -> None:
        """Drop what has waited longest, but not a message that is under way."""
        first = reader.waiting.popleft() if reader.begun else None
        while reader.waiting and reader.size > self._most_waiting:
            reader.size -= len(reader.waiting.popleft())
            self.counts.lost += 1
        if first is not None:
            reader.waiting.appendleft(first)

    def _drop(self, reader: _Reader, why: str = "") -> None:
        """Close a connection; a server will be called again."""
        if reader.socket is not None:
            if reader.interest:
                self._selector.unregister(reader.socket)
            reader.socket.close()
        if reader.connected:
            self.counts.readers -= 1
        reader.socket, reader.interest, reader.connected = None, 0, False
        if not reader.called:
            self._readers.remove(reader)
            return
        self.trouble = why or "the server closed the connection"
        if reader.begun:  # it has a part of this; the next connection begins with a whole one
            reader.size -= len(reader.waiting.popleft())
            reader.begun = 0
            self.counts.lost += 1
        self._due = time.monotonic() + self._retry_s
        self._retry_s = min(2.0 * self._retry_s, LAST_RETRY_S)

    def _watch(self, reader: _Reader) -> None:
        """Let the selector look for what this reader is of interest for."""
        if reader.socket is None:
            return
        wanted = selectors.EVENT_READ if reader.connected else selectors.EVENT_WRITE
        if reader.waiting:
            wanted |= selectors.EVENT_WRITE
        if not reader.interest:
            self._selector.register(reader.socket, wanted, reader)
        elif wanted != reader.interest:
            self._selector.modify(reader.socket, wanted, reader)
        reader.interest = wanted

    def _write(self, reader: _Reader, to: socket.socket) -> None:
        batch = b"".join(islice(reader.waiting, BATCH))
        try:
            taken = to.send(batch[reader.begun :])
        except BlockingIOError:
            return
        except OSError as error:
            self._drop(reader, error.strerror or str(error))
            return
        self.counts.bytes += taken
        taken += reader.begun
        while reader.waiting and taken >= len(reader.waiting[0]):
            first = len(reader.waiting.popleft())
            taken -= first
            reader.size -= first
            self.counts.sent += 1
        reader.begun = taken
        self._retry_s = FIRST_RETRY_S

    def _hear(self, reader: _Reader, what: socket.socket) -> None:
        """Throw away what a reader sends."""
        try:
            heard = len(what.recv(1 << 16))
        except BlockingIOError:
            return
        except OSError as error:
            self._drop(reader, error.strerror or str(error))
            return
        reader.heard += heard
        if reader.heard > MOST_HEARD:
            self.counts.refused += 1
            self._drop(reader, "the server sent too much")
        elif heard == 0:
            self._drop(reader)

    def _reached(self, reader: _Reader, server: socket.socket) -> None:
        """The server has answered, or not."""
        failed = server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            self._drop(reader, os.strerror(failed))
            return
        reader.connected, reader.heard = True, 0
        self.trouble = ""
        self.counts.connections += 1
        self.counts.readers += 1

    def _accept(self, listener: socket.socket) -> None:
        try:
            fresh, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError:  # too many files are open: it would come again at once
            self._pause_s = FIRST_RETRY_S
            return
        if self._until is not None or self.counts.readers >= MOST_READERS:
            self.counts.refused += 1
            fresh.close()
            return
        _prepare(fresh)
        self._readers.append(_Reader(fresh))
        self.counts.connections += 1
        self.counts.readers += 1

    # the thread

    def _serve(self) -> None:
        while True:
            self._call()
            with self._lock:
                for reader in tuple(self._readers):
                    if reader.late:
                        self.counts.slow += 1
                        self.counts.lost += len(reader.waiting)
                        self._drop(reader)
                    else:
                        self._watch(reader)
                left_s = self._left_s()
            if left_s == 0.0:
                break
            found = self._selector.select(left_s)
            with self._lock:
                for key, _ in found:
                    self._serve_one(key)
            time.sleep(self._pause_s)
            self._pause_s = 0.0
        with self._lock:
            self._end()

    def _serve_one(self, key: selectors.SelectorKey) -> None:
        if key.fileobj is self._ear:
            self._rung = False
            self._ear.recv(16)
        elif key.fileobj is self._listener and self._listener is not None:
            self._accept(self._listener)
        else:
            reader: _Reader = key.data
            end = reader.socket
            if end is None:
                return
            if not reader.connected:
                self._reached(reader, end)
                return
            self._hear(reader, end)
            if reader.socket is not None and reader.waiting:
                self._write(reader, end)

    def _left_s(self) -> float | None:
        """How long to look for events: None for ever, 0 if all is done."""
        waits = [reader for reader in self._readers if reader.socket is None]
        due = [self._due] if waits else []
        due += [self._due + CALL_S for r in self._readers if r.socket and not r.connected]
        if self._until is not None:
            if not any(reader.waiting for reader in self._readers):
                return 0.0
            due.append(self._until)
        now = time.monotonic()
        if self._until is not None and now >= self._until:
            return 0.0
        return max(0.001, min(due) - now) if due else None

    def _call(self) -> None:
        """Call the server, if that is due."""
        if self._server is None:
            return
        (reader,) = (reader for reader in self._readers if reader.called)
        now = time.monotonic()
        with self._lock:
            if reader.socket is not None:
                if not reader.connected and now > self._due + CALL_S:
                    self._drop(reader, "no answer")
                return
            if now < self._due:
                return
        self._due = now
        try:
            family, kind, _, _, place = socket.getaddrinfo(*self._server, type=socket.SOCK_STREAM)[
                0
            ]
            fresh = socket.socket(family, kind)
            _prepare(fresh)
            failed = fresh.connect_ex(place)
            if failed not in (0, errno.EINPROGRESS):
                fresh.close()
                raise OSError(failed, os.strerror(failed))
        except OSError as error:
            with self._lock:
                self._drop(reader, error.strerror or str(error))
            return
        with self._lock:
            reader.socket = fresh

    def _end(self) -> None:
        """Close everything; what still waits is lost."""
        for reader in self._readers:
            self.counts.lost += len(reader.waiting)
            reader.waiting.clear()
            if reader.socket is not None:
                with suppress(OSError):
                    reader.socket.shutdown(socket.SHUT_WR)
                reader.socket.close()
        self._readers.clear()
        for end in (self._listener, self._bell, self._ear):
            if end is not None:
                end.close()
        self._selector.close()


def _prepare(fresh: socket.socket) -> None:
    fresh.setblocking(False)
    fresh.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    fresh.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _listening(where: str, place: tuple[str, int]) -> socket.socket:
    try:
        family, kind, _, _, found = socket.getaddrinfo(*place, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(found)
        listener.listen()
    except OSError as error:
        raise RunError(
            f"{where}: cannot listen at {text_of(place)}: {error.strerror}; choose another "
            "address or port (port 0: any that is free)"
        ) from None
    listener.setblocking(False)
    return listener
