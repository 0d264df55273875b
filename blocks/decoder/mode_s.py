"""Decoder of Mode S: candidates in, messages and what they say out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from math import isnan, nan
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int8, Int16, UInt8, UInt32

from blocks import fields
from blocks.kernels import cpr, mode_s
from blocks.kernels.mode_s import Candidate, Code, Number, Position
from blocks.rate import rate_of
from pipeline.block import Block, param
from pipeline.errors import FieldError, ParameterError
from pipeline.frame import Array, Scalar

PREAMBLE_S, BIT_S = 8e-6, 1e-6  # Annex 10 Volume IV, 3.1.2.2
KNOT_M_S = 1852.0 / 3600.0
PAIR_S, SURFACE_PAIR_S = 10.0, 25.0  # between the messages of a pair: DO-260B, A.1.7
JUMP_M = 2000.0  # that positions and times may be off, beside the speed
SNIPPED_M = 100e3  # between positions where times tell nothing; a wrong zone is farther away
PLACE = [Code.ON_GROUND, Code.ODD, Code.CPR_LATITUDE, Code.CPR_LONGITUDE]
REFUSED = 3  # positions in a row that make the last one doubtful


class Decoded(NamedTuple):
    """What the decoder adds."""

    candidate_status: Annotated[UInt8[Array, "candidate"], fields.CANDIDATE_STATUS]
    messages: Annotated[UInt8[Array, "message byte"], fields.MESSAGES]
    message_bits: Annotated[Int16[Array, "message"], fields.MESSAGE_BITS]
    message_sample: Annotated[Float64[Array, "message"], fields.MESSAGE_SAMPLE]
    message_time: Annotated[Float64[Array, "message"], fields.MESSAGE_TIME]
    message_format: Annotated[UInt8[Array, "message"], fields.MESSAGE_FORMAT]
    message_address: Annotated[UInt32[Array, "message"], fields.MESSAGE_ADDRESS]
    message_interrogator: Annotated[UInt8[Array, "message"], fields.MESSAGE_INTERROGATOR]
    message_strict: Annotated[UInt8[Array, "message"], fields.MESSAGE_STRICT]
    type_code: Annotated[Int8[Array, "message"], fields.TYPE_CODE]
    latitude: Annotated[Float64[Array, "message"], fields.LATITUDE]
    longitude: Annotated[Float64[Array, "message"], fields.LONGITUDE]
    position_status: Annotated[UInt8[Array, "message"], fields.POSITION_STATUS]
    altitude: Annotated[Float64[Array, "message"], fields.ALTITUDE]
    ground_speed: Annotated[Float64[Array, "message"], fields.GROUND_SPEED]
    track: Annotated[Float64[Array, "message"], fields.TRACK]
    indicated_airspeed: Annotated[Float64[Array, "message"], fields.INDICATED_AIRSPEED]
    true_airspeed: Annotated[Float64[Array, "message"], fields.TRUE_AIRSPEED]
    heading: Annotated[Float64[Array, "message"], fields.HEADING]
    vertical_rate: Annotated[Float64[Array, "message"], fields.VERTICAL_RATE]
    containment: Annotated[Float64[Array, "message"], fields.CONTAINMENT]
    callsign: Annotated[UInt8[Array, "message character"], fields.CALLSIGN]
    squawk: Annotated[Int16[Array, "message"], fields.SQUAWK]
    on_ground: Annotated[Int8[Array, "message"], fields.ON_GROUND]
    odd: Annotated[Int8[Array, "message"], fields.ODD]


@dataclass(slots=True)
class _Half:
    """The newest position message on one of the two grids."""

    time: float = nan
    surface: float = nan
    y: float = nan
    x: float = nan


@dataclass(slots=True)
class _Aircraft:
    """What is remembered of one address."""

    heard: float  # time of its newest message [s]
    even: _Half
    odd: _Half
    time: float = nan  # of the last position [s]
    latitude: float = nan
    longitude: float = nan
    confirmed: float = False  # whether another pair agreed with it
    refused: float = 0  # positions in a row that were too far from it


class _Taken(NamedTuple):
    """A candidate that is a message."""

    row: int
    aircraft: _Aircraft
    address: int
    interrogator: int
    strict: bool


class Modes(Block, name="decoder.modes"):
    """The messages among candidates, with what they say.

    ICAO Annex 10 Volume IV and RTCA DO-260B; the fields of messages are decoded in
    kernels/mode_s.py, positions in kernels/cpr.py.

    Formats 11, 17 and 18 must divide by the generator of the parity. That of the formats 0, 4, 5,
    16, 20, 21 and 24 is overlaid with the address, so that any bits fit some address: they count
    only if a clean message of 11, 17 or 18 came from that address, at most `memory_s` before. So
    does a format 11 with an interrogator code, which wrong bits at its end look like: it is strict
    only once its code has come `repeats` times from that aircraft, each within `memory_s` of the
    one before: of many aircraft some soon have the same bits wrong, the same one seldom. (Those
    before stay in doubt; `sink.modes_messages` counts them once it knows.) Random bits that begin
    like an overlaid format pass with n known addresses with a probability of n 2^-24, those that
    begin like format 17 with 2^-24.

    Candidates are taken as they come, which should be in the order of `candidate_sample`; then
    results do not depend on how the stream is cut. A message blocks those after it that share more
    than `overlap` of its samples. Candidates with a time of their own come from a file, whose times
    are too coarse for that.

    A position comes from two messages on the two grids, at most 10 s apart (25 s on the surface),
    once two pairs in a row agree; from then on as the one nearest to the last position, if that is
    not older than `memory_s`. One that would need more than `fastest_kt` to get there is left out;
    after three such in a row the last position is forgotten. A stream that is not continuous,
    snipped or without times, has no speeds to judge by: there 100 km are too far. Pairs on the
    surface need `receiver`, to tell a position from those 90 degrees away.

    candidates        (candidate, bit)  uint8, 0 or 1; of short ones the last 56 are 0
    candidate_bits    (candidate)       int16, 56 or 112
    candidate_sample  (candidate)       float64
    candidate_time    (candidate)       float64 [s], if something writes it

    Raises FieldError where candidates are not of 112 bits; RunError, when the first come, where
    the sample rate is not known.
    """

    rate_hz: float = param(
        default=0.0, at_least=0.0, unit="Hz", doc="samples per second; 0: as the stream says"
    )
    memory_s: float = param(
        default=60.0, above=0.0, unit="s", doc="how long an aircraft is known after a clean message"
    )
    repeats: int = param(
        default=3,
        at_least=1,
        doc="times that an interrogator code must come from an aircraft to be believed",
    )
    comm_d: bool = param(
        default=False,
        doc="take format 24, which few send, while a quarter of all random bits begin like it",
    )
    overlap: float = param(
        default=0.2, at_least=0.0, at_most=1.0,
        doc="share of a message's samples that later candidates may have in common with it",
    )  # fmt: skip
    fastest_kt: float = param(
        default=1500.0, above=0.0, unit="kt", doc="most speed between two positions"
    )
    receiver: tuple[float, ...] = param(
        default=(), unit="deg", doc="latitude and longitude of the antenna, if known"
    )
    range_km: float = param(
        default=600.0, above=0.0, unit="km", doc="most distance of a position from `receiver`"
    )

    def check(self) -> None:
        if self.receiver and not (
            len(self.receiver) == 2
            and abs(self.receiver[0]) <= 90.0
            and abs(self.receiver[1]) <= 180.0
        ):
            raise ParameterError(
                f"receiver = {list(self.receiver)}; expected a latitude of -90 ... 90 and a "
                "longitude of -180 ... 180 degrees, or nothing"
            )

    def start(self) -> None:
        self._aircraft: dict[int, _Aircraft] = {}  # by address; longest unheard first
        #: Times that an aircraft sent an interrogator code, and when last; longest ago first.
        self._codes: dict[tuple[int, int], tuple[int, float]] = {}
        self._blocked: list[tuple[float, float]] = []  # first and last + 1 of messages' samples
        # load the kernels: the frame of zeros that the runtime rehearses with has too few bits
        none = np.empty(0)
        self.process(np.empty((0, mode_s.LONG), np.uint8), none.astype(np.int16), none)

    def process(
        self,
        candidates: UInt8[Array, "candidate bit"],
        candidate_bits: Int16[Array, "candidate"],
        candidate_sample: Float64[Array, "candidate"],
        candidate_time: Float64[Array, "candidate"] | None = None,
    ) -> Decoded:
        if candidates.shape[1] != mode_s.LONG:
            raise FieldError(
                f"{self.name}: 'candidates' have {candidates.shape[1]} bits; expected "
                f"{mode_s.LONG}, of short ones with zeros past the end"
            )
        count = len(candidates)
        packed = np.empty((count, mode_s.BYTES), np.uint8)
        formats, status = np.empty(count, np.uint8), np.empty(count, np.uint8)
        residues = np.empty(count, np.uint32)
        mode_s.screen(candidates, candidate_bits, self.comm_d, packed, formats, residues, status)
        timed = candidate_time is not None
        rate_hz = 1.0 if timed or not count else rate_of(self, self.rate_hz)
        time = candidate_time if candidate_time is not None else candidate_sample / rate_hz
        likely = np.flatnonzero(status == Candidate.MESSAGE)
        columns = (likely, formats[likely], residues[likely], time[likely])
        taken = []
        for row, kind, residue, when in zip(*(c.tolist() for c in columns), strict=True):
            bare = kind in mode_s.BARE
            clean = bare and residue == 0
            address = mode_s.bits(packed[row], 9, 24) if bare else residue
            aircraft = self._known(address, when)
            if aircraft is None:
                if not clean:
                    status[row] = Candidate.UNKNOWN
                    continue
                aircraft = _Aircraft(when, _Half(), _Half())
            if not timed:
                first = float(candidate_sample[row])
                last = first + (PREAMBLE_S + int(candidate_bits[row]) * BIT_S) * rate_hz
                if not self._free(first, last):
                    status[row] = Candidate.OVERLAP
                    continue
                self._blocked.append((first, last))
            if clean:
                self._hear(address, aircraft, when)
            code = residue if bare else 0
            strict = code == 0 or self._believed(address, code, when)
            taken.append(_Taken(row, aircraft, address, code, strict))
        rows = [found.row for found in taken]
        messages = packed[rows]
        numbers = np.empty((len(rows), len(Number)))
        codes = np.empty((len(rows), len(Code)), np.int32)
        callsigns = np.empty((len(rows), 8), np.uint8)
        mode_s.contents(messages, numbers, codes, callsigns)
        places = [
            self._place(found.aircraft, float(time[found.row]), *row)
            for found, row in zip(taken, codes[:, PLACE].tolist(), strict=True)
        ]
        place = np.array(places).reshape(-1, 3)
        return Decoded(
            candidate_status=status,
            messages=messages,
            message_bits=candidate_bits[rows],
            message_sample=candidate_sample[rows],
            message_time=time[rows],
            message_format=formats[rows],
            message_address=np.array([found.address for found in taken], np.uint32),
            message_interrogator=np.array([found.interrogator for found in taken], np.uint8),
            message_strict=np.array([found.strict for found in taken], np.uint8),
            type_code=codes[:, Code.TYPE].astype(np.int8),
            latitude=place[:, 1].copy(),
            longitude=place[:, 2].copy(),
            position_status=place[:, 0].astype(np.uint8),
            altitude=numbers[:, Number.ALTITUDE].copy(),
            ground_speed=numbers[:, Number.GROUND_SPEED].copy(),
            track=numbers[:, Number.TRACK].copy(),
            indicated_airspeed=numbers[:, Number.INDICATED_AIRSPEED].copy(),
            true_airspeed=numbers[:, Number.TRUE_AIRSPEED].copy(),
            heading=numbers[:, Number.HEADING].copy(),
            vertical_rate=numbers[:, Number.VERTICAL_RATE].copy(),
            containment=numbers[:, Number.CONTAINMENT].copy(),
            callsign=callsigns,
            squawk=codes[:, Code.SQUAWK].astype(np.int16),
            on_ground=codes[:, Code.ON_GROUND].astype(np.int8),
            odd=codes[:, Code.ODD].astype(np.int8),
        )

    def _known(self, address: int, time: float) -> _Aircraft | None:
        aircraft = self._aircraft.get(address)
        if aircraft is not None and time - aircraft.heard > self.memory_s:
            return None
        return aircraft

    def _hear(self, address: int, aircraft: _Aircraft, time: float) -> None:
        """Note a clean message, and forget who was not heard for long."""
        aircraft.heard = time
        self._aircraft.pop(address, None)
        self._aircraft[address] = aircraft
        while time - next(iter(self._aircraft.values())).heard > self.memory_s:
            del self._aircraft[next(iter(self._aircraft))]

    def _free(self, first: float, last: float) -> bool:
        """Whether no message decoded before has too many of these samples."""
        self._blocked = [other for other in self._blocked if other[1] > first]
        return all(
            min(last, end) - max(first, begin) <= self.overlap * (end - begin)
            for begin, end in self._blocked
        )

    def _believed(self, address: int, code: int, time: float) -> bool:
        """Count an interrogator code of an aircraft; whether it came often enough."""
        while self._codes and time - next(iter(self._codes.values()))[1] > self.memory_s:
            del self._codes[next(iter(self._codes))]
        count = self._codes.pop((address, code), (0, time))[0] + 1
        self._codes[address, code] = count, time
        return count >= self.repeats

    def _place(
        self, aircraft: _Aircraft, time: float, on_ground: int, odd: int, y: int, x: int
    ) -> tuple[Position, float, float]:
        """Position that a message tells, by its columns PLACE of `contents`."""
        if odd < 0:
            return Position.NONE, nan, nan
        surface = on_ground == 1
        own, other = (aircraft.odd, aircraft.even) if odd else (aircraft.even, aircraft.odd)
        own.time, own.surface, own.y, own.x = time, surface, y, x
        recent = time - aircraft.time <= self.memory_s
        if recent and aircraft.confirmed:
            status = Position.NEAR
            place = cpr.near(y, x, odd, surface, aircraft.latitude, aircraft.longitude)
            plausible = self._plausible(*place) and self._reached(aircraft, time, *place)
        else:
            limit_s = SURFACE_PAIR_S if surface else PAIR_S
            fits = other.surface == surface and abs(time - other.time) <= limit_s
            if not fits or (surface and not self.receiver):
                return Position.ALONE, nan, nan
            even, uneven = aircraft.even, aircraft.odd
            latitude, longitude = self.receiver or (0.0, 0.0)  # of use on the surface only
            place = cpr.pair(
                int(even.y), int(even.x), int(uneven.y), int(uneven.x), odd, surface,
                latitude, longitude,
            )  # fmt: skip
            if isnan(place[0]):
                return Position.ZONES, nan, nan
            plausible = self._plausible(*place)
            own.time = other.time = nan  # the next pair is another one
            aircraft.confirmed = plausible and recent and self._reached(aircraft, time, *place)
            status = Position.PAIR if aircraft.confirmed else Position.FIRST
        if not plausible:
            aircraft.refused += 1
            if aircraft.refused >= REFUSED:
                aircraft.time, aircraft.refused = nan, 0
            return Position.IMPLAUSIBLE, nan, nan
        aircraft.time, aircraft.refused = time, 0
        aircraft.latitude, aircraft.longitude = place
        return (status, nan, nan) if status == Position.FIRST else (status, *place)

    def _plausible(self, latitude: float, longitude: float) -> bool:
        """Whether a position can be heard of."""
        if not self.receiver or abs(latitude) > 90.0:
            return abs(latitude) <= 90.0
        away_m = cpr.distance_m(self.receiver[0], self.receiver[1], latitude, longitude)
        return bool(away_m <= 1000.0 * self.range_km)

    def _reached(self, aircraft: _Aircraft, time: float, latitude: float, longitude: float) -> bool:
        """Whether the aircraft can have come there since its last position."""
        most_m = SNIPPED_M
        if self.context.info.continuous:
            most_m = JUMP_M + self.fastest_kt * KNOT_M_S * abs(time - aircraft.time)
        return bool(
            most_m >= cpr.distance_m(aircraft.latitude, aircraft.longitude, latitude, longitude)
        )

    def state(self) -> Mapping[str, Array | Scalar]:
        rows = [
            [address, known.heard, *astuple(known.even), *astuple(known.odd),
             known.time, known.latitude, known.longitude, known.confirmed, known.refused]
            for address, known in self._aircraft.items()
        ]  # fmt: skip
        codes = [[*key, *found] for key, found in self._codes.items()]
        return {
            "aircraft": np.array(rows, float).reshape(len(rows), 15),
            "codes": np.array(codes, float).reshape(len(codes), 4),
            "blocked": np.array(self._blocked, float).reshape(len(self._blocked), 2),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._aircraft = {
            int(row[0]): _Aircraft(row[1], _Half(*row[2:6]), _Half(*row[6:10]), *row[10:])
            for row in state["aircraft"].tolist()
        }
        self._codes = {
            (int(address), int(code)): (int(count), time)
            for address, code, count, time in state["codes"].tolist()
        }
        self._blocked = [(first, last) for first, last in state["blocked"].tolist()]
