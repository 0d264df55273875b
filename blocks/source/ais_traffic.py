"""Simulated ships that tell where they are, as a receiver of one AIS channel hears them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Complex64, Float32, Float64, Int32, UInt8

from blocks import fields
from blocks.formats import ais
from blocks.kernels import gmsk, hdlc
from pipeline.block import Source, param
from pipeline.errors import ParameterError
from pipeline.frame import Array, Scalar, StreamInfo

# ITU-R M.1371-5, annex 2
SYMBOLS_PER_S = 9600
SLOTS = 2250  # in a minute
SLOT_SYMBOLS = 256
BANDWIDTH = 0.4  # of the Gaussian filter, per symbol
RAMP, TRAINING = 8, 24  # symbols
LONGEST = 53  # bytes of a message
CENTRE_HZ = 161.975e6  # channel A

NOISE = 0.05  # standard deviation of the noise in a sample: bursts at 30 dB stay below 1
STATIC = 6  # every so many messages of a ship tell who it is
WINDOW = 0.1  # of the interval: how far from its time a message may be moved to a free slot
JITTER_S = 5e-5  # of the start of a burst in its slot, each way
KM_PER_DEGREE = 111.2
AREA_KM, CIRCLE_KM = 15.0, 5.0  # most distance of the centres of their courses, and their radius


class Heard(NamedTuple):
    """What a frame starts with."""

    samples: Annotated[Complex64[Array, "time"], fields.SAMPLES]
    sent_packet_bytes: Annotated[UInt8[Array, "sent_packet sent_byte"], fields.SENT_PACKET_BYTES]
    sent_packet_length: Annotated[Int32[Array, "sent_packet"], fields.SENT_PACKET_LENGTH]
    sent_packet_sample: Annotated[Float64[Array, "sent_packet"], fields.SENT_PACKET_SAMPLE]
    sent_packet_eb_n0_db: Annotated[Float32[Array, "sent_packet"], fields.SENT_PACKET_EB_N0]
    sent_packet_clear: Annotated[UInt8[Array, "sent_packet"], fields.SENT_PACKET_CLEAR]
    sent_packet_latitude: Annotated[Float64[Array, "sent_packet"], fields.SENT_PACKET_LATITUDE]
    sent_packet_longitude: Annotated[Float64[Array, "sent_packet"], fields.SENT_PACKET_LONGITUDE]


@dataclass(frozen=True, slots=True)
class _Station:
    """What stays as it is of a sender. Station 0 is a base station, every fourth is of class B."""

    number: int
    mmsi: int
    eb_n0_db: float
    offset_hz: float
    clock: float  # its symbols per true one
    interval_s: float
    first_s: float
    centre: tuple[float, float]  # of the circle that it sails on: north, east [km]
    radius_km: float
    angle: float  # at the start [rad]
    speed_kt: float  # positive clockwise

    def place(self, time_s: float) -> tuple[float, float, float]:
        """North and east of the middle of the area [km], and the course [deg]."""
        if self.number == 0:
            return 0.0, 0.0, 0.0
        turned = self.angle + self.speed_kt * 1.852 / 3600.0 * time_s / self.radius_km
        north = self.centre[0] + self.radius_km * math.cos(turned)
        east = self.centre[1] + self.radius_km * math.sin(turned)
        course = math.degrees(turned) + math.copysign(90.0, self.speed_kt)
        return north, east, course % 360.0


@dataclass(frozen=True, slots=True)
class _Report:
    """A message that one station sends in some slots of a minute."""

    slot: int  # since the start
    slots: int
    station: int
    number: int  # of the messages of this station
    is_clear: bool = True

    @property
    def end(self) -> int:
        """The slot after its last one."""
        return self.slot + self.slots


@dataclass(frozen=True, slots=True)
class _Burst:
    """A report as it is received."""

    first: int  # sample
    signal: Array
    packet: bytes
    sample: float  # middle of the first bit of the packet
    eb_n0_db: float
    is_clear: bool
    latitude: float
    longitude: float

    @property
    def end(self) -> int:
        """The sample after its last one."""
        return self.first + len(self.signal)


class AisTraffic(Source, name="source.ais_traffic"):
    """Ships under way and a base station, in the slots of one AIS channel.

    ITU-R M.1371-5: minutes of 2250 slots; bursts of GMSK of 9600 symbols per second with a ramp, 24
    symbols of training, a flag, the packet of HDLC and a flag. Ships sail in circles and tell
    their position (messages 1, 2, 3, those of class B 18), every sixth time who they are
    (messages 5, of two slots, and 24); the base station sends message 4. Each has a strength, an
    offset of its carrier and of its clock of its own. Messages take free slots near their time, as
    in SOTDMA, but a share `overlap`, and those that find none, take any slot there: they may
    overlap, as those of ships that do not hear each other.

    Strengths are energies per bit over the noise density, which is the ratio of powers in a band of
    9600 Hz. The noise is white; its standard deviation is 0.05 per sample at any rate.

    A packet belongs to the frame in which its last sample lies. Everything depends on the seed, the
    name of the block, the stream and the place in it alone, not on how it is cut.

    samples               (length,) complex64
    sent_packet_...       truth, one row for each packet
    """

    frames: int = param(default=1000, at_least=0, unit="frames", doc="frames; 0: endless")
    length: int = param(default=4800, at_least=1, unit="samples", doc="samples per frame")
    rate_hz: float = param(
        default=48000.0, at_least=24000.0, unit="Hz", doc="samples per second, of a channel"
    )
    stations: int = param(
        default=25, at_least=1, at_most=1000, doc="stations that send: the base station and ships"
    )
    interval_s: float = param(
        default=6.0, at_least=1.0, at_most=600.0, unit="s",
        doc="time between messages of a station; for each 0.5 to 1.5 times as long",
    )  # fmt: skip
    eb_n0_db: tuple[float, ...] = param(
        default=(8.0, 30.0), unit="dB", doc="least and most energy per bit over noise density"
    )
    offset_hz: float = param(
        default=500.0, at_least=0.0, at_most=4000.0, unit="Hz", doc="most offset of a carrier"
    )
    clock_ppm: float = param(
        default=20.0, at_least=0.0, at_most=1000.0, doc="most error of a clock, in millionths"
    )
    overlap: float = param(
        default=0.05, at_least=0.0, at_most=1.0, doc="share of messages that take any slot"
    )
    area: tuple[float, ...] = param(
        default=(54.4, 10.8), unit="deg", doc="latitude and longitude of the base station"
    )

    def check(self) -> None:
        if len(self.eb_n0_db) != 2 or not -50.0 <= self.eb_n0_db[0] <= self.eb_n0_db[1] <= 100.0:
            raise ParameterError(
                f"eb_n0_db = {list(self.eb_n0_db)} dB; expected the least and the most, within "
                "-50 ... 100"
            )
        if len(self.area) != 2 or abs(self.area[0]) > 80.0 or abs(self.area[1]) > 179.0:
            raise ParameterError(
                f"area = {list(self.area)}; expected a latitude of -80 ... 80 and a longitude of "
                "-179 ... 179 degrees"
            )

    def describe(self) -> StreamInfo:
        return StreamInfo(
            rate_hz=self.rate_hz, centre_hz=CENTRE_HZ, format="ais", continuous=True,
            replayable=True,
        )  # fmt: skip

    def start(self) -> None:
        self._position = 0  # samples given
        self._pulse = gmsk.phase_pulse(BANDWIDTH)
        self._noise = self.draws("noise", lambda rng, n: rng.standard_normal((n, 2), np.float32))
        draws = self.draws("stations", lambda rng, n: rng.random((n, 10)))
        self._stations = [self._station(n, *draws.take(n, 1)[0]) for n in range(self.stations)]
        self._choices = [
            self.draws(f"messages of station {n}", lambda rng, n: rng.random((n, 4)))
            for n in range(self.stations)
        ]
        self._minutes: dict[int, list[_Report]] = {}
        self._bursts: dict[_Report, _Burst] = {}

    def process(self) -> Heard | None:
        if self.frames_left() == 0:
            return None
        first, stop = self._position, self._position + self.length
        self._position = stop
        noise = self._noise.take(first, self.length)
        air = (NOISE / math.sqrt(2.0)) * noise.astype(float).view(complex)[:, 0]
        bursts = self._heard(first, stop)
        for burst in bursts:
            low, high = max(first, burst.first), min(stop, burst.end)
            air[low - first : high - first] += burst.signal[low - burst.first : high - burst.first]
        return self._with_truth(air, [b for b in bursts if first < b.end <= stop])

    def _with_truth(self, air: Array, sent: list[_Burst]) -> Heard:
        packets = np.zeros((len(sent), LONGEST), np.uint8)
        for row, burst in zip(packets, sent, strict=True):
            row[: len(burst.packet)] = np.frombuffer(burst.packet, np.uint8)
        return Heard(
            samples=air.astype(np.complex64),
            sent_packet_bytes=packets,
            sent_packet_length=np.array([len(b.packet) for b in sent], np.int32),
            sent_packet_sample=np.array([b.sample for b in sent], float),
            sent_packet_eb_n0_db=np.array([b.eb_n0_db for b in sent], np.float32),
            sent_packet_clear=np.array([b.is_clear for b in sent], np.uint8),
            sent_packet_latitude=np.array([b.latitude for b in sent], float),
            sent_packet_longitude=np.array([b.longitude for b in sent], float),
        )

    def frames_left(self) -> int | None:
        return max(0, self.frames - self._position // self.length) if self.frames else None

    def state(self) -> Mapping[str, Array | Scalar]:
        return {"position": self._position}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._position = int(state["position"])

    # --- Who sends what, and when

    def _station(self, number: int, *draws: float) -> _Station:
        strength, offset, clock, interval, first, away, around, radius, angle, speed = draws
        least, most = self.eb_n0_db
        distance = AREA_KM * math.sqrt(away)
        interval_s = self.interval_s * (0.5 + interval)
        return _Station(
            number=number,
            mmsi=2_110_000 + number if number == 0 else 211_000_000 + number,
            eb_n0_db=least + (most - least) * strength,
            offset_hz=self.offset_hz * (2.0 * offset - 1.0),
            clock=1.0 + 1e-6 * self.clock_ppm * (2.0 * clock - 1.0),
            interval_s=interval_s,
            first_s=first * interval_s,
            centre=(
                distance * math.cos(2.0 * math.pi * around),
                distance * math.sin(2.0 * math.pi * around),
            ),
            radius_km=CIRCLE_KM * (0.2 + 0.8 * radius),
            angle=2.0 * math.pi * angle,
            speed_kt=math.copysign(5.0 + 30.0 * abs(speed - 0.5), speed - 0.5),
        )

    def _minute(self, minute: int) -> list[_Report]:
        """The messages of a minute, in the order of their slots."""
        if minute in self._minutes:
            return self._minutes[minute]
        wanted = []
        for station in self._stations:
            begin = (60.0 * minute - station.first_s) / station.interval_s
            for number in range(max(0, math.ceil(begin)), math.ceil(begin) + SLOTS):
                at_s = station.first_s + number * station.interval_s - 60.0 * minute
                if at_s >= 60.0:
                    break
                wanted.append((at_s, station, number))
        users = np.zeros(SLOTS, np.int64)
        chosen = []
        for at_s, station, number in sorted(wanted, key=lambda one: (one[0], one[1].number)):
            slots = 2 if self._is_voyage(station.number, number) else 1
            near = at_s / 60.0 * SLOTS
            reach = max(1.0, WINDOW * station.interval_s / 60.0 * SLOTS)
            low = max(0, int(near - reach))
            high = max(low + 1, min(SLOTS - slots, int(near + reach)))
            places = np.arange(min(low, SLOTS - slots), high)
            free = places[(users[places] == 0) & (users[places + slots - 1] == 0)]
            blind, choice = self._choices[station.number].take(number, 1)[0, :2]
            if free.size and blind >= self.overlap:
                places = free
            slot = int(places[int(choice * places.size)])
            users[slot : slot + slots] += 1
            chosen.append((slot, slots, station.number, number))
        self._minutes[minute] = reports = [
            _Report(minute * SLOTS + slot, slots, station, number,
                    bool((users[slot : slot + slots] == 1).all()))
            for slot, slots, station, number in sorted(chosen)
        ]  # fmt: skip
        return reports

    def _is_voyage(self, station: int, number: int) -> bool:
        return station > 0 and station % 4 != 3 and (station + number) % STATIC == 0

    def _message(self, station: _Station, number: int, time_s: float) -> tuple[bytes, Array]:
        """A message, and latitude and longitude if it tells them."""
        north, east, course = station.place(time_s)
        latitude = self.area[0] + north / KM_PER_DEGREE
        longitude = self.area[1] + east / (KM_PER_DEGREE * math.cos(math.radians(self.area[0])))
        second = int(time_s) % 60
        told = np.array([latitude, longitude])
        untold = np.full(2, np.nan)
        if station.number == 0:
            return ais.base_station(
                station.mmsi, latitude, longitude, year=1970, month=1,
                day=1 + int(time_s) // 86400 % 31, hour=int(time_s) // 3600 % 24,
                minute=int(time_s) // 60 % 60, second=second,
            ), told  # fmt: skip
        name, callsign = f"SHIP {station.number}", f"DK{station.number:04d}"
        size = (20 + station.number, 5, 3, 4)
        movement: dict[str, Any] = {
            "speed": abs(station.speed_kt), "course": round(course, 1) % 360.0,
            "heading": round(course) % 360, "second": second,
        }  # fmt: skip
        if station.number % 4 == 3:
            which = (station.number + number) % (2 * STATIC)
            if which == 0:
                return ais.class_b_name(station.mmsi, name), untold
            if which == STATIC:
                return ais.class_b_static(
                    station.mmsi, ship_type=36, callsign=callsign, size=(8, 4, 2, 2)
                ), untold
            return ais.class_b_report(station.mmsi, latitude, longitude, **movement), told
        if self._is_voyage(station.number, number):
            return ais.voyage(
                station.mmsi, imo=9_000_000 + station.number, callsign=callsign, name=name,
                ship_type=70, size=size, draught=4.5, destination="KIEL",
            ), untold  # fmt: skip
        return ais.position_report(
            station.mmsi, latitude, longitude, kind=1 + number % 3, **movement
        ), told

    # --- What is received

    def _heard(self, first: int, stop: int) -> list[_Burst]:
        """The bursts that have samples here, in the order of their ends."""
        samples_per_slot = self.rate_hz * SLOT_SYMBOLS / SYMBOLS_PER_S
        low = int(first / samples_per_slot) - 3  # a burst of two slots may end late in a third
        high = int(stop / samples_per_slot) + 1
        reports = [
            report
            for minute in range(max(0, low) // SLOTS, high // SLOTS + 1)
            for report in self._minute(minute)
            if low <= report.slot <= high
        ]
        self._bursts = {
            report: self._bursts.get(report) or self._burst(report) for report in reports
        }
        for minute in [m for m in self._minutes if m < low // SLOTS]:
            del self._minutes[minute]
        here = [b for b in self._bursts.values() if b.first < stop and b.end > first]
        return sorted(here, key=lambda burst: (burst.end, burst.first))

    def _burst(self, report: _Report) -> _Burst:
        station = self._stations[report.station]
        slot_s = report.slot * SLOT_SYMBOLS / SYMBOLS_PER_S
        packet, place = self._message(station, report.number, slot_s)
        late, phase = self._choices[report.station].take(report.number, 1)[0, 2:]
        training = np.arange(TRAINING, dtype=np.uint8) % 2
        flag = np.array(hdlc.FLAG, np.uint8)
        bits = np.concatenate([training, flag, hdlc.frame(packet), flag])
        line = np.empty_like(bits)
        hdlc.to_line(bits, False, True, line)
        levels = 2.0 * line - 1.0
        per_symbol = self.rate_hz / SYMBOLS_PER_S / station.clock
        begin = (slot_s + RAMP / SYMBOLS_PER_S + JITTER_S * (2.0 * late - 1.0)) * self.rate_hz
        first = max(0, math.ceil(begin - (RAMP + 0.5) * per_symbol))
        last = math.floor(begin + (len(levels) + 0.5 * RAMP) * per_symbol)
        n = np.arange(first, last + 1)
        symbols = (n - begin) / per_symbol  # from the middle of the first one
        angles = gmsk.phases(levels, symbols, self._pulse)
        angles += 2.0 * np.pi * (station.offset_hz * (n - begin) / self.rate_hz + phase)
        amplitude = NOISE * math.sqrt(
            10.0 ** (station.eb_n0_db / 10.0) * SYMBOLS_PER_S / self.rate_hz
        )
        rise = np.clip((symbols + 0.5 + RAMP) / RAMP, 0.0, 1.0)
        fall = np.clip((len(levels) + 0.5 * RAMP - symbols) / (0.5 * RAMP), 0.0, 1.0)
        shape = np.sin(0.5 * np.pi * rise) ** 2 * np.sin(0.5 * np.pi * fall) ** 2
        return _Burst(
            first=first,
            signal=amplitude * shape * np.exp(1j * angles),
            packet=packet,
            sample=begin + (TRAINING + len(flag)) * per_symbol,
            eb_n0_db=station.eb_n0_db,
            is_clear=report.is_clear,
            latitude=float(place[0]),
            longitude=float(place[1]),
        )
