"""Simulated air at 1090 MHz."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from enum import IntEnum
from statistics import NormalDist
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Complex64, Float32, Float64, Int16, UInt8, UInt32

from blocks import fields
from blocks.formats.encoding import RAW
from blocks.kernels import cpr, mode_s_encoding, mode_s_pulses
from blocks.source import flights
from blocks.source.flights import FOOT_M, UNIFORMS, Flight
from pipeline.block import Source, param
from pipeline.errors import ParameterError
from pipeline.frame import Array, Scalar, StreamInfo

CENTRE_HZ = 1090e6
PREAMBLE_US = 8.0
DEAD_S = 125e-6  # after a message, in which a transponder does not send: Annex 10, 3.1.1.7.8
REFERENCE_M = 100e3  # distance of `snr_100km_db`
FADING_DB = 1.0  # deviation of single messages


class Kind(IntEnum):
    """What aircraft send."""

    SQUITTER = 0  # format 11
    POSITION = 1  # format 17, as the two below
    VELOCITY = 2
    IDENTITY = 3
    REPLY = 4


#: Bounds of the times between two of them [s], uniform: Annex 10, 3.1.2.8.5 and 3.1.2.8.6.
INTERVALS_S = {
    Kind.SQUITTER: (0.8, 1.2), Kind.POSITION: (0.4, 0.6), Kind.VELOCITY: (0.4, 0.6),
    Kind.IDENTITY: (4.8, 5.2),
}  # fmt: skip
#: Replies of formats 0, 4, 5, 11, 20 and 21: shares of all up to each.
REPLIES = (0.2, 0.45, 0.6, 0.75, 0.9, 1.0)


class Received(NamedTuple):
    """What a frame starts with."""

    samples: Annotated[Complex64[Array, "time"], fields.SAMPLES]
    sent_messages: Annotated[UInt8[Array, "sent_message byte"], fields.SENT_MESSAGES]
    sent_bits: Annotated[Int16[Array, "sent_message"], fields.SENT_BITS]
    sent_sample: Annotated[Float64[Array, "sent_message"], fields.SENT_SAMPLE]
    sent_snr_db: Annotated[Float32[Array, "sent_message"], fields.SENT_SNR]
    sent_address: Annotated[UInt32[Array, "sent_message"], fields.SENT_ADDRESS]
    sent_latitude: Annotated[Float64[Array, "sent_message"], fields.SENT_LATITUDE]
    sent_longitude: Annotated[Float64[Array, "sent_message"], fields.SENT_LONGITUDE]
    sent_altitude: Annotated[Float64[Array, "sent_message"], fields.SENT_ALTITUDE]
    sent_ground_speed: Annotated[Float64[Array, "sent_message"], fields.SENT_GROUND_SPEED]
    sent_track: Annotated[Float64[Array, "sent_message"], fields.SENT_TRACK]
    sent_vertical_rate: Annotated[Float64[Array, "sent_message"], fields.SENT_VERTICAL_RATE]


@dataclass(slots=True)
class _Aircraft:
    """An aircraft and its transponder."""

    address: int
    callsign: str
    squawk: int
    power_db: float  # more than others at its distance
    turn: float  # of the phase of its carrier [rad/us]
    pulse: Array
    flight: Flight
    free: float = 0.0  # when it may send again [s]
    odd: int = 0  # grid of the next position


class _Sent(NamedTuple):
    """A message on the air: numbers, and its bytes."""

    begin: float  # samples
    last: int  # sample
    bits: int
    aircraft: int
    snr_db: float
    phase: float
    latitude: float
    longitude: float
    altitude: float
    ground_speed: float
    track: float
    vertical_rate: float
    message: Array


class ModesTraffic(Source, name="source.modes_traffic"):
    """Air at 1090 MHz as a receiver of 8 bits samples it, and what was sent.

    Aircraft fly straight, turn, climb and change speed within `range_km` of the receiver
    (source/flights.py) and send what Mode S transponders do, at the intervals of ICAO Annex 10
    Volume IV, 3.1.2.8.5 and 3.1.2.8.6, uniform between their bounds: acquisition squitters (format
    11) each second, positions (17), on the even and the odd grid in turn, and velocities each half
    second, identities each five seconds; and replies to interrogations at random times: of formats
    0, 4, 5, 11 with `interrogator`, 20 and 21, which carry the callsign. An aircraft sends one
    message at a time, different ones overlap as they come.

    A message begins at any fraction of a sample, on a carrier with a phase of its own and an offset
    of its aircraft; each transponder has edges of its own within the bounds of table 3-1
    (kernels/mode_s_pulses.py, also for the filter). The noise is white. Real and imaginary parts
    are rounded to 256 levels from -1 to 1 and clipped there, as source.recording gives them for
    cu8.

    The signal-to-noise ratio of a message is the power at the top of its pulses, before the filter
    of the receiver, over the mean power of the noise in a complex sample. It falls with the square
    of the distance, or is drawn anew for each message where `snr_db` tells its bounds.

    Everything depends on the seed, the name of the block and the place in the stream alone, not on
    how it is cut. What was sent comes with the frame of its last sample.

    samples        (length,) complex64, at full scale 1
    sent_messages  (sent_message, 14) uint8, in the order of their ends; sent_...: of each of them,
                   the place and motion those of its aircraft at that moment

    Raises ParameterError for places past 80 degrees of latitude, or bounds out of order.
    """

    rate_hz: float = param(
        default=2.0e6, at_least=2.0e6, at_most=100e6, unit="Hz", doc="samples per second"
    )
    length: int = param(default=65536, at_least=1, unit="samples", doc="samples per frame")
    frames: int = param(default=300, at_least=0, unit="frames", doc="frames to make; 0: endless")
    aircraft: int = param(default=20, at_least=0, at_most=10_000, doc="how many are in the air")
    replies: float = param(
        default=3.0, at_least=0.0, unit="1/s", doc="replies of each aircraft, mean per second"
    )
    interrogator: int = param(
        default=5, at_least=1, at_most=15, doc="code of who asks for the replies of format 11"
    )
    receiver: tuple[float, float] = param(
        default=(50.0, 8.0), unit="deg", doc="latitude and longitude of the antenna"
    )
    range_km: float = param(
        default=200.0, above=0.0, at_most=500.0, unit="km", doc="where aircraft turn back"
    )
    snr_100km_db: float = param(
        default=20.0, at_least=-50.0, at_most=100.0, unit="dB",
        doc="signal-to-noise ratio at a distance of 100 km",
    )  # fmt: skip
    spread_db: float = param(
        default=3.0, at_least=0.0, at_most=30.0, unit="dB",
        doc="standard deviation of the power of aircraft",
    )  # fmt: skip
    snr_db: tuple[float, ...] = param(
        default=(), at_least=-50.0, at_most=100.0, unit="dB",
        doc="bounds of the signal-to-noise ratio of messages; none: it comes from the distance",
    )  # fmt: skip
    noise: float = param(
        default=0.03, above=0.0, at_most=1.0, unit="V",
        doc="root of the mean power of the noise; 1: full scale",
    )  # fmt: skip
    offset_hz: float = param(
        default=100e3, at_least=0.0, at_most=1e6, unit="Hz", doc="most offset of carriers"
    )
    bandwidth_hz: float = param(
        default=0.0, at_least=0.0, at_most=30e6, unit="Hz",
        doc="of the receiver, between points of half amplitude; 0: as many as samples per second",
    )  # fmt: skip

    def check(self) -> None:
        if abs(self.receiver[0]) > 80.0 or abs(self.receiver[1]) > 180.0:
            raise ParameterError(
                f"receiver = {list(self.receiver)}; expected a latitude of -80 ... 80 and a "
                "longitude of -180 ... 180 degrees"
            )
        if self.snr_db and not (len(self.snr_db) == 2 and self.snr_db[0] <= self.snr_db[1]):
            raise ParameterError(
                f"snr_db = {list(self.snr_db)}; expected the least and the most, or nothing"
            )

    def describe(self) -> StreamInfo:
        return StreamInfo(
            rate_hz=self.rate_hz, centre_hz=CENTRE_HZ, format="cu8", continuous=True,
            replayable=True,
        )  # fmt: skip

    def start(self) -> None:
        self._rows = self.draws("traffic", lambda rng, count: rng.random((count, UNIFORMS)))
        self._normals = self.draws(
            "noise", lambda rng, count: rng.standard_normal((count, 2), np.float32)
        )
        codes = np.arange(256, dtype=np.uint8).repeat(2)
        self._values = RAW["cu8"].decode(codes).real.copy()
        self._drawn = 0  # rows
        self._position = 0  # samples given
        self._next_s = np.empty((self.aircraft, len(Kind)))  # when each kind comes next
        self._aircraft = [self._appear(number) for number in range(self.aircraft)]
        self._air: list[_Sent] = []  # messages that reach beyond what was given
        none = np.empty((0, 2))  # kernels are loaded, or compiled, now
        mode_s_pulses.add(np.zeros(14, np.uint8), 56, 0.0, 1.0, 1.0, 0.0, 0.0, np.zeros(2), 0, none)
        mode_s_pulses.convert(
            none, none.astype(np.float32), 1.0, self._values, none.astype(np.float32)
        )

    def process(self) -> Received | None:
        if self.frames_left() == 0:
            return None
        first, end = self._position, self._position + self.length
        per_us = self.rate_hz / 1e6
        self._send(end)
        signal = np.zeros((self.length, 2))
        for sent in self._air:
            own = self._aircraft[sent.aircraft]
            mode_s_pulses.add(
                sent.message, sent.bits, sent.begin, per_us,
                self.noise * 10.0 ** (sent.snr_db / 20.0), sent.phase, own.turn / per_us,
                own.pulse, first, signal,
            )  # fmt: skip
        samples = np.empty((self.length, 2), np.float32)
        mode_s_pulses.convert(
            signal, self._normals.take(first, self.length), self.noise / math.sqrt(2.0),
            self._values, samples,
        )  # fmt: skip
        done = [sent for sent in self._air if first <= sent.last < end]
        done.sort(key=lambda sent: sent.last)
        reach = mode_s_pulses.LEAD_US * per_us + 1.0
        self._air = [sent for sent in self._air if sent.last + reach >= end]
        self._position = end
        numbers = _numbers(done).T
        return Received(
            samples=samples.view(np.complex64)[:, 0],
            sent_messages=np.array([sent.message for sent in done], np.uint8).reshape(-1, 14),
            sent_bits=numbers[2].astype(np.int16),
            sent_sample=numbers[0].copy(),
            sent_snr_db=numbers[4].astype(np.float32),
            sent_address=np.array([self._aircraft[s.aircraft].address for s in done], np.uint32),
            sent_latitude=numbers[6].copy(),
            sent_longitude=numbers[7].copy(),
            sent_altitude=numbers[8].copy(),
            sent_ground_speed=numbers[9].copy(),
            sent_track=numbers[10].copy(),
            sent_vertical_rate=numbers[11].copy(),
        )

    def frames_left(self) -> int | None:
        if self.frames == 0:
            return None
        return max(0, self.frames - self._position // self.length)

    def state(self) -> Mapping[str, Array | Scalar]:
        moving = [[own.free, own.odd, *astuple(own.flight)] for own in self._aircraft]
        return {
            "drawn": self._drawn,
            "position": self._position,
            "next_s": self._next_s.copy(),
            "moving": np.array(moving, float).reshape(-1, 2 + flights.NUMBERS),
            "air": _numbers(self._air),
            "messages": np.array([s.message for s in self._air], np.uint8).reshape(-1, 14),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._drawn, self._position = int(state["drawn"]), int(state["position"])
        self._next_s = np.array(state["next_s"])
        for own, (free, odd, *flight) in zip(self._aircraft, state["moving"].tolist(), strict=True):
            own.free, own.odd, own.flight = free, int(odd), Flight(*flight)
        self._air = [
            _Sent._make([row[0], *map(int, row[1:4]), *row[4:], np.array(message)])
            for row, message in zip(state["air"].tolist(), state["messages"], strict=True)
        ]

    def _row(self) -> list[float]:
        """The next UNIFORMS random numbers."""
        row: list[float] = self._rows.take(self._drawn, 1)[0].tolist()
        self._drawn += 1
        return row

    def _appear(self, number: int) -> _Aircraft:
        """An aircraft at the start of the stream."""
        flight = flights.begin(self.receiver, 1e3 * self.range_km, self._row())
        u, start = self._row(), self._row()
        for kind in Kind:
            self._next_s[number, kind] = start[kind] * self._interval_s(kind, start[kind + 1])
        letters, digits = int(u[0] * 26**3), int(u[1] * 10_000)
        airline = "".join(chr(65 + letters // 26**place % 26) for place in range(3))
        bandwidth_hz = self.bandwidth_hz or self.rate_hz
        return _Aircraft(
            address=1 + int((number + u[2]) / self.aircraft * 0xFFFFFE),  # each another
            callsign=f"{airline}{digits}",
            squawk=int(f"{int(u[3] * 4096):o}"),
            power_db=self.spread_db * _normal(u[4]),
            turn=2.0 * math.pi * self.offset_hz * (2.0 * u[5] - 1.0) / 1e6,
            pulse=mode_s_pulses.response(0.05 + 0.05 * u[6], 0.05 + 0.15 * u[7], bandwidth_hz),
            flight=flight,
        )

    def _interval_s(self, kind: int, u: float) -> float:
        if kind == Kind.REPLY:
            return -math.log(1.0 - u) / self.replies if self.replies else math.inf
        low, high = INTERVALS_S[Kind(kind)]
        return low + u * (high - low)

    def _send(self, end: int) -> None:
        """Let the aircraft send all that can be seen before sample `end`."""
        if not self.aircraft:
            return
        until = end / self.rate_hz + 1e-6 * mode_s_pulses.LEAD_US
        while True:
            number, kind = divmod(int(self._next_s.argmin()), len(Kind))
            time = float(self._next_s[number, kind])
            if time > until:
                return
            own = self._aircraft[number]
            if time < own.free:
                self._next_s[number, kind] = own.free
                continue
            while own.flight.leg_end < time:
                row = self._row()
                own.flight = flights.next_leg(own.flight, self.receiver, 1e3 * self.range_km, row)
            u, now = self._row(), own.flight.at(time)
            self._next_s[number, kind] = time + self._interval_s(kind, u[0])
            message = self._message(own, Kind(kind), now, u)
            lasts_us = PREAMBLE_US + 8 * len(message)
            own.free = time + 1e-6 * lasts_us + DEAD_S
            begin = time * self.rate_hz
            sent = _Sent(
                begin=begin,
                last=math.ceil(begin + 1e-6 * lasts_us * self.rate_hz) - 1,
                bits=8 * len(message),
                aircraft=number,
                snr_db=self._snr_db(own, now, u),
                phase=2.0 * math.pi * u[4],
                latitude=now.latitude,
                longitude=now.longitude,
                altitude=now.altitude,
                ground_speed=now.speed,
                track=math.degrees(now.track) % 360.0,
                vertical_rate=now.climb,
                message=np.concatenate([message, np.zeros(14 - len(message), np.uint8)]),
            )
            self._air.append(sent)

    def _snr_db(self, own: _Aircraft, now: Flight, u: list[float]) -> float:
        """Signal-to-noise ratio of a message."""
        if self.snr_db:
            low, high = self.snr_db
            return low + u[3] * (high - low)
        ground_m = cpr.distance_m(*self.receiver, now.latitude, now.longitude)
        away = math.hypot(ground_m, now.altitude * FOOT_M) / REFERENCE_M
        more = own.power_db + FADING_DB * _normal(u[3])
        return self.snr_100km_db - 20.0 * math.log10(away) + more

    def _message(self, own: _Aircraft, kind: Kind, now: Flight, u: list[float]) -> Array:
        """The bytes of a message, 7 or 14."""
        if kind == Kind.SQUITTER:
            return mode_s_encoding.all_call_reply(own.address)
        if kind == Kind.POSITION:
            own.odd = 1 - own.odd
            content = mode_s_encoding.airborne_position(
                now.latitude, now.longitude, now.altitude, own.odd
            )
        elif kind == Kind.VELOCITY:
            content = mode_s_encoding.ground_velocity(
                now.speed * math.sin(now.track), now.speed * math.cos(now.track), now.climb
            )
        elif kind == Kind.IDENTITY:
            content = mode_s_encoding.callsign(own.callsign)
        else:
            return self._reply(own, now, bisect_right(REPLIES, u[1]))
        return mode_s_encoding.extended_squitter(own.address, content)

    def _reply(self, own: _Aircraft, now: Flight, choice: int) -> Array:
        """A reply of the formats of REPLIES."""
        if choice == 0:
            return mode_s_encoding.air_air_reply(own.address, now.altitude)
        if choice == 3:
            return mode_s_encoding.all_call_reply(own.address, interrogator=self.interrogator)
        register = mode_s_encoding.callsign_register(own.callsign) if choice > 3 else None
        if choice in (1, 4):
            return mode_s_encoding.altitude_reply(own.address, now.altitude, register=register)
        return mode_s_encoding.identity_reply(own.address, own.squawk, register=register)


def _numbers(sent: list[_Sent]) -> Array:
    """All but the bytes of messages, a row for each."""
    return np.array([one[:-1] for one in sent], float).reshape(-1, len(_Sent._fields) - 1)


def _normal(uniform: float) -> float:
    """A number of the standard normal distribution for one that is uniform in [0, 1)."""
    return NormalDist().inv_cdf(min(max(uniform, 1e-12), 1.0 - 1e-12))
