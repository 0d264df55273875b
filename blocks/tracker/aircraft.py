"""Tracks of aircraft, from the positions and velocities that their Mode S messages tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields as members
from math import cos, degrees, isnan, nan, pi, radians, remainder, sin
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int8, UInt8, UInt32

from blocks import fields
from blocks.kernels import aircraft, cpr, geodesy, imm
from blocks.kernels.aircraft import Quantity, Status
from pipeline.block import Block, param
from pipeline.errors import ParameterError
from pipeline.frame import Array, Scalar

KNOT_M_S, FOOT_M = 1852.0 / 3600.0, 0.3048
FT_MIN_M_S = FOOT_M / 60.0
RADIUS_95 = 2.4477  # standard deviations that hold 95 % of a normal distribution in the plane
METRES_PER_DEGREE = 1852.0 * 60.0
#: Share of the radius of containment that holds 95 % of positions: DO-260, categories NUCp 1 to 7;
#: 0.4 of the finer ones.
BOUND_95 = 0.5
UNKNOWN_M = 1852.0  # containment of a position that tells none
#: Standard deviations of a velocity and a climb that no report has told yet; and of the velocity
#: told last, where a track starts anew.
UNKNOWN_M_S, CLIMB_M_S, DOUBTFUL_M_S = 250.0, 15.0, 20.0
MULTIPLE_S = 1e-6  # that a time may be off a multiple, as a difference of unix times is
LONGEST_S = 2.0  # of a step in a prediction
SURFACE_TRACK_RAD = 2.0 * pi / 128.0  # step of the direction in a position on the surface
ALTITUDE_FT, CLIMB_FT_MIN = 25.0, 64.0  # steps
NOTHING, SURE = np.full(6, nan), np.zeros(7)


class Tracks(NamedTuple):
    """What the tracker adds: a row per report, coast or end, in the order of their times."""

    track_address: Annotated[UInt32[Array, "track"], fields.TRACK_ADDRESS]
    track_time: Annotated[Float64[Array, "track"], fields.TRACK_TIME]
    track_status: Annotated[UInt8[Array, "track"], fields.TRACK_STATUS]
    track_latitude: Annotated[Float64[Array, "track"], fields.TRACK_LATITUDE]
    track_longitude: Annotated[Float64[Array, "track"], fields.TRACK_LONGITUDE]
    track_altitude: Annotated[Float64[Array, "track"], fields.TRACK_ALTITUDE]
    track_velocity: Annotated[Float64[Array, "track axis"], fields.TRACK_VELOCITY]
    track_covariance: Annotated[Float64[Array, "track state state"], fields.TRACK_COVARIANCE]
    track_turn_rate: Annotated[Float64[Array, "track"], fields.TRACK_TURN_RATE]
    track_turning: Annotated[Float64[Array, "track"], fields.TRACK_TURNING]
    track_innovation: Annotated[Float64[Array, "track state"], fields.TRACK_INNOVATION]
    track_nis: Annotated[Float64[Array, "track quantity"], fields.TRACK_NIS]
    track_log_likelihood: Annotated[Float64[Array, "track quantity"], fields.TRACK_LOG_LIKELIHOOD]
    track_refused: Annotated[UInt8[Array, "track quantity"], fields.TRACK_REFUSED]
    track_reckoned: Annotated[Float64[Array, "track plane"], fields.TRACK_RECKONED]


@dataclass(slots=True)
class _Track:
    """What is remembered of one aircraft; most arrays are those of kernels/aircraft.py."""

    place: Array
    probabilities: Array
    means: Array
    covariances: Array
    vertical: Array
    vertical_covariance: Array
    run: Array  # of each quantity, reports in a row that were refused
    last: Array  # position taken last: degrees, time; velocity, m/s; time of the last altitude

    @property
    def heard(self) -> float:
        """Time of the last position that was taken [s]."""
        return float(self.last[2])


class _Row(NamedTuple):
    """One row of `Tracks`."""

    address: int
    time: float
    status: Status
    latitude: float
    longitude: float
    altitude: float
    velocity: Array
    covariance: Array
    turn_rate: float
    turning: float
    innovation: Array
    nis: Array
    likely: Array
    refused: Array
    reckoned: tuple[float, float]


class Aircraft(Block, name="tracker.aircraft"):
    """One track per aircraft, from what it tells of its position, velocity, altitude and climb.

    Level motion is an interacting multiple model filter (kernels/imm.py) of straight flight and of
    turns and changes of speed, whose noises were chosen by bench/aircraft.py; altitude and climb
    are a constant-velocity filter. Reports are taken one by one at their own times.

    Places are measured from the aircraft, east and north, in metres on the ellipsoid
    (kernels/geodesy.py), and the origin moves along with it: so no receiver need be known, no
    distance is long, and neither a pole nor the date line is special.

    How far a report may be off is put together from what is known of it:

    position   rounding of compact position reporting, its step / sqrt(12), of the 5 m (1.3 m on the
               surface) that the grids of DO-260B, A.1.7 have; plus `position_share` of the
               uncertainty that its type code states, of which 95 % of errors lie within half the
               radius of containment (category NUCp). Most of that uncertainty stays the same for
               minutes, in satellite and inertial navigation alike: it moves the whole track, and is
               neither noise nor in the covariance
    velocity   rounding of its components to 1 kt, on the surface of speed and direction; plus
               `velocity_noise`
    altitude   rounding to 25 ft, plus `altitude_noise`; vertical rate: 64 ft/min, plus
               `climb_rate_noise`
    time       what is told was so a little earlier or later: a standard deviation of `latency_s`,
               and time_step_s / sqrt(12) in a file of rounded times, as which it counts until a
               time comes that is no multiple. It adds to the above along the way, times the speed,
               and to the velocity in a turn, across it

    A track starts at the first position of an aircraft. Each thing that a report tells is refused
    where it is too improbable, by a chi-square gate that a share of `gate` of those that fit do not
    pass. After `refusals` positions or velocities refused in a row the track starts anew at the
    last one; altitude and climb do so by themselves. `coast_s` after its last position a track
    coasts, `end_s` after it ends; both are told once a later message of any aircraft comes.
    A report that is older than its track is passed over. Rows come in the order of messages, so
    they do not depend on how the stream was cut.

    A stream that is not continuous, snipped or without times, is not tracked: there are no rows.

    message_time, ...  as decoder.modes writes them; each message is one report

    Covariances are those of the state after the report; innovations and what belongs to them were
    found before it was taken.
    """

    straight_noise: float = param(
        default=0.06, above=0.0, unit="m^2/s^3",
        doc="density of the acceleration in straight flight",
    )  # fmt: skip
    turn_noise: float = param(
        default=10.0, above=0.0, unit="m^2/s^3",
        doc="density of the acceleration in a turn or a change of speed",
    )  # fmt: skip
    turn_walk: float = param(
        default=0.015, at_least=0.0, unit="(deg/s)^2/s",
        doc="density of the noise by which the rate of a turn changes",
    )  # fmt: skip
    turn_rate: float = param(
        default=0.3, at_least=0.0, unit="deg/s",
        doc="standard deviation of the rates that turns begin with; 0: no turns",
    )  # fmt: skip
    straight_s: float = param(
        default=400.0, above=0.0, unit="s", doc="mean time of straight flight between two turns"
    )
    turn_s: float = param(
        default=150.0, above=0.0, unit="s", doc="mean time of a turn or a change of speed"
    )
    climb_noise: float = param(
        default=0.15, above=0.0, unit="m^2/s^3", doc="density of the vertical acceleration"
    )
    position_share: float = param(
        default=0.015, at_least=0.0, at_most=1.0,
        doc="share of the uncertainty of positions that changes from one report to the next",
    )  # fmt: skip
    velocity_noise: float = param(
        default=0.4, at_least=0.0, unit="m/s",
        doc="standard deviation of reported velocities, beside their rounding",
    )  # fmt: skip
    altitude_noise: float = param(
        default=5.0, at_least=0.0, unit="ft",
        doc="standard deviation of reported altitudes, beside their rounding",
    )  # fmt: skip
    climb_rate_noise: float = param(
        default=50.0, at_least=0.0, unit="ft/min",
        doc="standard deviation of reported vertical rates, beside their rounding",
    )  # fmt: skip
    latency_s: float = param(
        default=0.06, at_least=0.0, unit="s",
        doc="standard deviation of how old what is reported is",
    )  # fmt: skip
    time_step_s: float = param(
        default=1.0, at_least=0.0, unit="s",
        doc="what times are rounded to, as long as all are multiples of it; 0: they are exact",
    )  # fmt: skip
    gate: float = param(
        default=1e-6, above=0.0, below=1.0,
        doc="share of reports that may be refused although they fit",
    )  # fmt: skip
    refusals: int = param(
        default=3, at_least=1, doc="refused reports in a row after which a track starts anew"
    )
    coast_s: float = param(
        default=10.0, above=0.0, unit="s", doc="time without a position after which a track coasts"
    )
    end_s: float = param(
        default=60.0, above=0.0, unit="s", doc="time without a position after which a track ends"
    )

    def check(self) -> None:
        if self.end_s < self.coast_s:
            raise ParameterError(
                f"end_s = {self.end_s:g} s, but it must not be below coast_s = {self.coast_s:g} s"
            )

    def start(self) -> None:
        shares = np.array([self.straight_s, self.turn_s])
        memory = shares.prod() / shares.sum()
        self._model = np.zeros((2, 5))
        self._model[:, imm.PROCESS_NOISE] = self.straight_noise, self.turn_noise
        self._model[:, imm.TURN_NOISE] = 0.0, radians(self.turn_walk**0.5) ** 2
        self._model[:, imm.TURN_VARIANCE] = 0.0, radians(self.turn_rate) ** 2
        self._model[:, imm.SHARE] = shares / shares.sum()
        if not self.turn_rate:
            self._model = self._model[:1].copy()
            self._model[0, imm.SHARE] = 1.0
        self._settings = np.array(
            [memory, LONGEST_S, nan, self.gate, self.climb_noise, CLIMB_M_S**2]
        )
        noises = (
            0.0, self.velocity_noise, self.altitude_noise * FOOT_M,
            self.climb_rate_noise * FT_MIN_M_S,
        )  # fmt: skip
        self._own = np.array(noises) ** 2
        self._work = np.empty((6, imm.STATES, imm.STATES))
        self._mean = np.empty(imm.STATES)
        self._covariance = np.empty((imm.STATES, imm.STATES))
        self._live: dict[int, _Track] = {}  # by address; longest unheard first, as of the next
        self._coasting: dict[int, _Track] = {}
        self._set_rounded(self.time_step_s > 0.0)
        # load the kernels: a start and an update
        zeros, none = np.zeros(2), np.zeros(2, np.uint32)
        self.process(
            zeros, none, zeros, zeros, zeros, zeros, zeros, zeros, zeros, none.astype(np.int8)
        )
        self._live.clear()

    def process(
        self,
        message_time: Float64[Array, "message"],
        message_address: UInt32[Array, "message"],
        latitude: Float64[Array, "message"],
        longitude: Float64[Array, "message"],
        altitude: Float64[Array, "message"],
        ground_speed: Float64[Array, "message"],
        track: Float64[Array, "message"],
        vertical_rate: Float64[Array, "message"],
        containment: Float64[Array, "message"],
        on_ground: Int8[Array, "message"],
    ) -> Tracks:
        rows: list[_Row] = []
        if self.context.info.continuous:
            columns = (message_address, message_time, latitude, longitude, altitude, ground_speed,
                       track, vertical_rate, containment, on_ground)  # fmt: skip
            told = np.isfinite(np.array(columns[2:8])).any(axis=0)
            for address, time, *says in zip(*(c[told].tolist() for c in columns), strict=True):
                if self._rounded and abs(remainder(time, self.time_step_s)) > MULTIPLE_S:
                    self._set_rounded(False)
                self._expire(time, rows)
                self._take(rows, address, time, *_observed(self._own, self.position_share, *says))
        return _tracks(rows)

    def _set_rounded(self, rounded: bool) -> None:
        """Note whether times are rounded."""
        self._rounded = rounded
        self._settings[aircraft.TIME_VARIANCE] = (
            self.latency_s**2 + rounded * self.time_step_s**2 / 12.0
        )

    def _take(
        self, rows: list[_Row], address: int, time: float, seen: Array, spread: Array
    ) -> None:
        """What one message does to the track of its aircraft."""
        known = self._live.get(address) or self._coasting.get(address)
        if known is None:
            if isnan(seen[0]):
                return
            known = self._begun(time, seen, spread)
            row, taken = self._moved(known, address, time, _unplaced(seen), spread, Status.STARTED)
            taken[Quantity.POSITION] = 1
        elif time < known.place[2]:
            return
        else:
            if not time - known.last[5] <= self.end_s:
                known.vertical[:] = nan
            reckoned = _reckoned(known, time, seen)
            row, taken = self._moved(known, address, time, seen, spread, Status.UPDATED)
            if not taken.any():
                if np.isnan(row.nis).all():
                    return  # nothing that tells a track anything
                row = row._replace(status=Status.REFUSED)
            row = row._replace(reckoned=reckoned)
            known.run = np.where(np.isnan(row.nis), known.run, np.where(taken, 0, known.run + 1))
            if (known.run >= self.refusals).any():
                row, taken = self._again(known, row, taken, seen, spread)
        if taken[Quantity.VELOCITY]:
            known.last[3:5] = seen[2:4]
        if taken[Quantity.ALTITUDE]:
            known.last[5] = time
        if taken[Quantity.POSITION]:
            known.last[:3] = *seen[:2], time
            self._live.pop(address, None)
            self._coasting.pop(address, None)
            self._live[address] = known
        rows.append(row)

    def _again(
        self, known: _Track, row: _Row, taken: Array, seen: Array, spread: Array
    ) -> tuple[_Row, Array]:
        """Begin anew what was refused too often; the row that tells it."""
        over = known.run >= self.refusals
        known.run[over] = 0
        if over[Quantity.ALTITUDE] or over[Quantity.CLIMB]:
            known.vertical[:] = nan  # the next altitude begins it
        if not (over[Quantity.POSITION] or over[Quantity.VELOCITY]):
            return row, taken
        if over[Quantity.POSITION]:
            place, variance = seen[:2], spread[:2].max()
        else:
            place = np.array([row.latitude, row.longitude])
            variance = row.covariance.diagonal()[:2].max()
            known.last[3:5] = seen[2:4]
        self._begin(known, place[0], place[1], row.time, variance)
        level = np.where(np.arange(6) < aircraft.HEIGHT, _unplaced(seen), nan)
        again, also = self._moved(known, row.address, row.time, level, spread, Status.RESTARTED)
        also[Quantity.POSITION] = over[Quantity.POSITION]
        also[Quantity.ALTITUDE :] = taken[Quantity.ALTITUDE :]
        return again._replace(
            innovation=row.innovation,
            nis=row.nis,
            likely=row.likely,
            refused=row.refused,
            reckoned=row.reckoned,
        ), also

    def _begun(self, time: float, seen: Array, spread: Array) -> _Track:
        """A track that begins at a position."""
        modes = len(self._model)
        known = _Track(
            place=np.empty(3), probabilities=np.empty(modes),
            means=np.empty((modes, imm.STATES)),
            covariances=np.empty((modes, imm.STATES, imm.STATES)),
            vertical=np.full(2, nan), vertical_covariance=np.full((2, 2), nan),
            run=np.zeros(len(Quantity)), last=np.full(6, nan),
        )  # fmt: skip
        self._begin(known, seen[0], seen[1], time, spread[:2].max())
        return known

    def _begin(
        self, known: _Track, latitude: float, longitude: float, time: float, variance: float
    ) -> None:
        """Put a track at a place, with the velocity that was told last."""
        eastward, northward = known.last[3:5]
        deviation = DOUBTFUL_M_S
        if isnan(eastward):
            eastward, northward, deviation = 0.0, 0.0, UNKNOWN_M_S
        aircraft.begin(
            latitude, longitude, time, eastward, northward, variance, deviation**2, self._model,
            known.place, known.probabilities, known.means, known.covariances,
        )  # fmt: skip

    def _moved(
        self, known: _Track, address: int, time: float, seen: Array, spread: Array, status: Status
    ) -> tuple[_Row, Array]:
        """Move a track on to a report; its row, and which quantities it took."""
        innovation, nis, likely = np.empty(6), np.empty(len(Quantity)), np.empty(len(Quantity))
        here, whole = np.empty(2), np.empty((6, 6))
        taken = np.empty(len(Quantity), np.uint8)
        mean = self._mean
        aircraft.report(
            time, seen, spread, self._settings, self._model, known.place, known.probabilities,
            known.means, known.covariances, known.vertical, known.vertical_covariance, innovation,
            nis, likely, taken, here, mean, self._covariance, whole, self._work,
        )  # fmt: skip
        row = _Row(
            address, time, status, here[0], here[1], known.vertical[0] / FOOT_M,
            np.array([mean[2], mean[3], known.vertical[1]]), whole,
            degrees(mean[imm.RATE]), float(known.probabilities[1:].sum()), innovation, nis, likely,
            (~np.isnan(nis) & (taken == 0)).astype(np.uint8), (nan, nan),
        )  # fmt: skip
        return row, taken

    def _expire(self, time: float, rows: list[_Row]) -> None:
        """Let tracks coast and end that no position came for."""
        for tracks, after_s, status in (
            (self._live, self.coast_s, Status.COASTING),
            (self._coasting, self.end_s, Status.ENDED),
        ):
            while tracks:
                address, known = next(iter(tracks.items()))
                due = known.heard + after_s
                if due >= time:
                    break
                del tracks[address]
                if status == Status.COASTING:
                    self._coasting[address] = known
                due = max(due, float(known.place[2]))
                rows.append(self._moved(known, address, due, NOTHING, SURE, status)[0])

    def state(self) -> Mapping[str, Array | Scalar]:
        modes = len(self._model)
        tracks = [*self._live.items(), *self._coasting.items()]
        packed = [
            np.concatenate([[address], *(getattr(known, m.name).ravel() for m in members(known))])
            for address, known in tracks
        ]
        size = 1 + 3 + modes * (1 + imm.STATES + imm.STATES**2) + 2 + 4 + len(Quantity) + 6
        return {"tracks": np.array(packed).reshape(len(packed), size), "live": len(self._live),
                "rounded": self._rounded}  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        modes, states, quantities = len(self._model), imm.STATES, len(Quantity)
        shapes: tuple[tuple[int, ...], ...] = (
            (3,), (modes,), (modes, states), (modes, states, states), (2,), (2, 2), (quantities,),
            (6,),
        )  # fmt: skip
        self._set_rounded(bool(state["rounded"]))
        self._live, self._coasting = {}, {}
        ends = np.cumsum([1, *(int(np.prod(shape)) for shape in shapes)])
        for number, row in enumerate(np.array(state["tracks"])):
            address, *parts = np.split(row, ends[:-1])
            into = self._live if number < state["live"] else self._coasting
            into[int(address[0])] = _Track(
                *(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))
            )


def _unplaced(seen: Array) -> Array:
    """What a report tells, without its position."""
    return np.where(np.arange(6) < aircraft.EASTWARD, nan, seen)


def _reckoned(known: _Track, time: float, seen: Array) -> tuple[float, float]:
    """Position told, less where position and velocity told last would put it; east, north [m]."""
    latitude, longitude, then, eastward, northward, _ = known.last
    height = 0.0 if isnan(known.vertical[0]) else known.vertical[0]
    east, north = geodesy.offset(latitude, longitude, seen[0], seen[1], height)
    return east - eastward * (time - then), north - northward * (time - then)


def _observed(
    own: Array, share: float, latitude: float, longitude: float, altitude: float,
    ground_speed: float, track: float, vertical_rate: float, containment: float, on_ground: int,
) -> tuple[Array, Array]:  # fmt: skip
    """What a message tells, and with which variances, as kernels/aircraft.py wants it.

    own    (4,)  variances of position, velocity, altitude and climb that come on top
    share  of the uncertainty of the position, that changes from one report to the next
    """
    surface = on_ground == 1
    seen = np.array([
        latitude, longitude, nan, nan, altitude * FOOT_M, vertical_rate * FT_MIN_M_S
    ])  # fmt: skip
    spread = np.zeros(7)
    spread[:2], spread[2:4], spread[4:6] = own[0], own[1], own[2:]
    spread[4] += (ALTITUDE_FT * FOOT_M) ** 2 / 12.0
    spread[5] += (CLIMB_FT_MIN * FT_MIN_M_S) ** 2 / 12.0
    if not isnan(latitude):
        radius = UNKNOWN_M if isnan(containment) else containment
        step = METRES_PER_DEGREE * (90.0 if surface else 360.0) / cpr.STEPS
        wide = step / cpr.longitude_zones(latitude) * cos(radians(latitude))
        high = step / (4 * cpr.ZONES)
        spread[:2] += (share * BOUND_95 * radius / RADIUS_95) ** 2
        spread[0] += wide**2 / 12.0
        spread[1] += high**2 / 12.0
    speed = ground_speed * KNOT_M_S
    if speed == 0.0 or not isnan(track + speed):
        way = 0.0 if isnan(track) else radians(track)
        s, c = sin(way), cos(way)
        seen[2], seen[3] = speed * s, speed * c
        along = across = KNOT_M_S**2 / 12.0
        if surface:
            along *= _surface_step(ground_speed) ** 2
            across = (speed * SURFACE_TRACK_RAD) ** 2 / 12.0
        spread[2] += along * s * s + across * c * c
        spread[3] += along * c * c + across * s * s
        spread[6] = (along - across) * s * c
    return seen, spread


def _surface_step(speed_kt: float) -> float:
    """Step [kt] of the code of a speed on the surface: DO-260B, 2.2.3.2.4.2."""
    for below, step in ((1.0, 0.125), (2.0, 0.25), (15.0, 0.5), (70.0, 1.0), (100.0, 2.0)):
        if speed_kt < below:
            return step
    return 5.0


def _tracks(rows: list[_Row]) -> Tracks:
    """The rows as arrays."""
    if not rows:
        return NONE
    columns = list(zip(*rows, strict=True))
    return Tracks(
        np.array(columns[0], np.uint32), np.array(columns[1]), np.array(columns[2], np.uint8),
        *(np.array(column) for column in columns[3:]),
    )  # fmt: skip


NONE = Tracks(
    np.empty(0, np.uint32), np.empty(0), np.empty(0, np.uint8), np.empty(0), np.empty(0),
    np.empty(0), np.empty((0, 3)), np.empty((0, 6, 6)), np.empty(0), np.empty(0),
    np.empty((0, 6)), np.empty((0, 4)), np.empty((0, 4)), np.empty((0, 4), np.uint8),
    np.empty((0, 2)),
)  # fmt: skip
