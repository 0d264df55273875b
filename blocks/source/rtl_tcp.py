"""Samples from an RTL2832 receiver that an rtl_tcp server sends over the network."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Complex64

from blocks import fields
from blocks.formats.encoding import RAW
from blocks.network import FIRST_RETRY_S, LAST_RETRY_S, address, text_of
from pipeline.block import Gap, Silence, Source, param
from pipeline.errors import RunError
from pipeline.frame import Array, Scalar, StreamInfo

CU8 = RAW["cu8"]
HEADER = struct.Struct(">4sII")  # RTL0, kind of tuner, how many gains it has
COMMAND = struct.Struct(">BI")
LOOK_S = 0.2  # how long a call may wait: a flow that is to stop must not wait longer
#: Commands of rtl_tcp.
FREQUENCY, RATE, GAIN_MODE, GAIN, PPM, AGC, BIAS_TEE = 0x01, 0x02, 0x03, 0x04, 0x05, 0x08, 0x0E


class Samples(NamedTuple):
    """What a frame starts with."""

    samples: Annotated[Complex64[Array, "time"], fields.SAMPLES]


class RtlTcp(Source, name="source.rtl_tcp"):
    """The samples of an rtl_tcp server, as they come.

    A thread reads them, so that the server never waits for the flow. A flow that falls behind by
    more than `buffer_s` goes on with what is new: what waits is dropped, and a gap says how much.
    A server that goes away, or is silent for `timeout_s`, is called again with growing pauses, and
    the time until samples come again is a gap, as the clock of this machine has it; so is what it
    sent of a last sample.

    What the server itself drops, because the network is too slow, it does not tell. The first
    samples may come from before the settings took effect.

    samples    (length,) complex64, (n - 127.5) / 127.5; shorter before a gap

    Raises RunError where the server cannot be reached at first, or is none, or sends no samples;
    while the flow runs, if it stays away for `patience_s`.
    """

    connect: str = param(default="127.0.0.1:1234", doc='address of the server, "host:port"')
    rate_hz: float = param(
        default=2.0e6, at_least=1.0, at_most=4e6, unit="Hz", doc="samples per second"
    )
    centre_hz: float = param(
        default=1090e6, at_least=0.0, at_most=4.2e9, unit="Hz", doc="radio frequency"
    )
    gain_db: float | None = param(
        default=None, at_least=-100.0, at_most=100.0, unit="dB",
        doc="gain of the tuner; left out: the tuner chooses",
    )  # fmt: skip
    ppm: int = param(
        default=0, at_least=-1000, at_most=1000, unit="1e-6", doc="correction of the oscillator"
    )
    agc: bool = param(default=False, doc="automatic gain after the tuner")
    bias_tee: bool = param(default=False, doc="feed an amplifier over the antenna cable")
    length: int = param(default=4096, at_least=1, unit="samples", doc="samples per frame")
    frames: int = param(default=0, at_least=0, unit="frames", doc="frames to read; 0: all")
    buffer_s: float = param(
        default=1.0, above=0.0, unit="s", doc="most that the flow may fall behind"
    )
    timeout_s: float = param(
        default=3.0, above=0.0, unit="s", doc="silence after which the server counts as gone"
    )
    patience_s: float = param(
        default=60.0, at_least=0.0, unit="s",
        doc="how long to call a server that has gone; 0: without end",
    )  # fmt: skip

    _reader: _Reader | None = None

    def check(self) -> None:
        self._place = address("connect", self.connect)

    def start(self) -> None:
        self.close()
        self._sent = 0  # frames
        self._reader = _Reader(
            self.name, self._place, self._commands(), self.rate_hz, self.length,
            max(2 * self.length, round(self.buffer_s * self.rate_hz)), self.timeout_s,
            self.patience_s,
        )  # fmt: skip

    def _commands(self) -> bytes:
        """The settings, as the server takes them."""
        automatic = self.gain_db is None
        settings = [(RATE, round(self.rate_hz)), (FREQUENCY, round(self.centre_hz))]
        settings += [(PPM, self.ppm)] * (self.ppm != 0)
        settings += [(GAIN_MODE, int(not automatic))]
        settings += [] if self.gain_db is None else [(GAIN, round(10.0 * self.gain_db))]
        settings += [(AGC, int(self.agc)), (BIAS_TEE, int(self.bias_tee))]
        return b"".join(COMMAND.pack(code, value & 0xFFFFFFFF) for code, value in settings)

    def describe(self) -> StreamInfo:
        return StreamInfo(
            rate_hz=self.rate_hz,
            epoch_utc_ns=self._reader.epoch_utc_ns if self._reader is not None else 0,
            centre_hz=self.centre_hz,
            format="rtl_tcp",
        )

    def process(self) -> Samples | Gap | Silence | None:
        if self._reader is None or (self.frames and self._sent >= self.frames):
            return None
        came = self._reader.take(LOOK_S)
        if isinstance(came, int):
            return Gap(came)
        if not came.size:
            return Silence()
        self._sent += 1
        return Samples(CU8.decode(came))

    def frames_left(self) -> int | None:
        return self.frames - self._sent if self.frames else None

    def restore(self, state: Mapping[str, Any]) -> None:
        raise RunError(f"{self.name}: what {self.connect} sent cannot be sent again")

    def state(self) -> Mapping[str, Array | Scalar]:
        return {"sent": self._sent}

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class _Reader:
    """Reads from the server in a thread of its own and keeps what waits to be taken.

    epoch_utc_ns   when the first sample was taken, by the clock of this machine [ns]

    Raises RunError where samples do not come.
    """

    def __init__(
        self, where: str, place: tuple[str, int], commands: bytes, rate_hz: float, length: int,
        most: int, timeout_s: float, patience_s: float,
    ) -> None:  # fmt: skip
        self._where, self._place, self._commands = where, place, commands
        self._rate_hz, self._frame_bytes = rate_hz, length * CU8.bytes
        self._most, self._timeout_s, self._patience_s = most, timeout_s, patience_s
        self.epoch_utc_ns = 0
        self._changed = threading.Condition()
        self._waiting: deque[Array | int] = deque()  # bytes of a frame, or samples lost
        self._samples = 0  # that wait
        self._away_since = 0.0  # up to when all is told that came or was lost; 0: connected
        self._heard, self._pause_s = time.monotonic(), FIRST_RETRY_S
        self._failure = ""
        self._closing = False
        try:
            self._server = self._dial()
        except OSError as error:
            raise RunError(
                f"{where}: cannot get samples from {text_of(place)}: {_reason(error)}; is an "
                "rtl_tcp server running there?"
            ) from None
        self._thread = threading.Thread(target=self._read, name=f"reader of {where}", daemon=True)
        self._thread.start()
        with self._changed:
            begun = self._changed.wait_for(lambda: self.epoch_utc_ns or self._away_since, timeout_s)
        if not self.epoch_utc_ns:
            self.close()
            how = "closed the connection" if begun else f"was silent for {timeout_s:g} s"
            raise RunError(
                f"{where}: {text_of(place)} {how} before it sent a sample; is another program "
                "using it?"
            )

    def take(self, patience_s: float) -> Array | int:
        """The bytes of the next samples, none if nothing came so far; or how many were lost."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._failure, patience_s)
            if self._waiting:
                came = self._waiting.popleft()
                if not isinstance(came, int):
                    self._samples -= came.size // CU8.bytes
                return came
            if self._failure:
                raise RunError(self._failure)
            return self._lost_while_away() or np.empty(0, np.uint8)

    def close(self) -> None:
        """Hang up."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # ends a call that waits for samples
        self._thread.join(2.0 * LOOK_S)

    def _lost_while_away(self) -> int:
        """Samples that the time without a connection stands for, since this was told last."""
        if not self._away_since:
            return 0
        lost = int((time.monotonic() - self._away_since) * self._rate_hz)
        self._away_since += lost / self._rate_hz
        return lost

    def _dial(self) -> socket.socket:
        """A connection to a server that has been told the settings; OSError where there is none."""
        server = socket.create_connection(self._place, self._timeout_s)
        try:
            head = b""
            while len(head) < HEADER.size and (part := server.recv(HEADER.size - len(head))):
                head += part
            if head[:4] != b"RTL0" or len(head) < HEADER.size:
                raise OSError(f"it sent {head!r}; expected 12 bytes that begin with RTL0")
            server.sendall(self._commands)
            server.settimeout(LOOK_S)
        except BaseException:
            server.close()
            raise
        return server

    # the thread

    def _read(self) -> None:
        while True:
            with self._server, suppress(OSError):
                self._read_from(self._server)
            again = self._dial_again()
            if again is None:
                return
            self._server = again

    def _read_from(self, server: socket.socket) -> None:
        """Put frames to those that wait, until the server hangs up or is silent for too long."""
        frame, got = np.empty(self._frame_bytes, np.uint8), 0
        begun = time.monotonic()
        try:
            # before the first sample `__init__` watches the time
            while not self._closing and (
                not self.epoch_utc_ns
                or time.monotonic() - max(begun, self._heard) < self._timeout_s
            ):
                try:
                    count = server.recv_into(frame.data[got:])
                except TimeoutError:
                    continue
                if count == 0:
                    return
                self._heard, self._pause_s = time.monotonic(), FIRST_RETRY_S
                got += count
                if got >= CU8.bytes and (not self.epoch_utc_ns or self._away_since):
                    self._begin(got // CU8.bytes)
                if got == frame.size:
                    self._put(frame)
                    frame, got = np.empty(self._frame_bytes, np.uint8), 0
        finally:
            self._put(frame[: got - got % CU8.bytes])
            with self._changed:
                self._away_since = self._away_since or self._heard
                self._changed.notify_all()

    def _begin(self, samples: int) -> None:
        """The first samples of a connection have come."""
        with self._changed:
            if not self.epoch_utc_ns:
                self.epoch_utc_ns = time.time_ns() - int(1e9 * samples / self._rate_hz)
            if self._away_since:
                self._waiting.append(max(1, self._lost_while_away() - samples))
                self._away_since = 0.0
            self._changed.notify_all()

    def _put(self, frame: Array) -> None:
        if frame.size == 0:
            return
        with self._changed:
            self._waiting.append(frame)
            self._samples += frame.size // CU8.bytes
            if self._samples > self._most:
                gaps = sum(lost for lost in self._waiting if isinstance(lost, int))
                self._waiting.clear()
                self._waiting.append(self._samples + gaps)
                self._samples = 0
            self._changed.notify_all()

    def _dial_again(self) -> socket.socket | None:
        """A new connection; None where it is closed or the patience is at its end."""
        why = "it sends no samples"
        while not self._patience_s or time.monotonic() - self._heard < self._patience_s:
            with self._changed:
                if self._changed.wait_for(lambda: self._closing, self._pause_s):
                    return None
            self._pause_s = min(2.0 * self._pause_s, LAST_RETRY_S)
            try:
                return self._dial()
            except OSError as error:
                why = _reason(error)
        with self._changed:
            if lost := self._lost_while_away():
                self._waiting.append(lost)
            self._failure = (
                f"{self._where}: {text_of(self._place)} went away and gave no samples for "
                f"{self._patience_s:g} s: {why}"
            )
            self._changed.notify_all()
        return None


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
