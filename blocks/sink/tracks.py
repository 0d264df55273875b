"""Tracks of aircraft: how good they are, a picture of them, JSON lines and GeoJSON."""

from __future__ import annotations

import json
import math
from array import array
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8, UInt32

from blocks.kernels import consistency
from blocks.kernels.aircraft import DEGREES, Quantity, Status
from blocks.sink import positions
from blocks.sink.new_file import NewFile
from pipeline.block import Sink, param
from pipeline.errors import ParameterError
from pipeline.frame import Array, FrameInfo, Scalar, StreamInfo

KNOT_M_S, FT_MIN_M_S = 1852.0 / 3600.0, 0.3048 / 60.0
DRAWN = 20_000  # points in the picture, the last ones
DECIMALS = 6  # of degrees
LEAST_M, PER_DECADE, DECADES = 1e-3, 400, 10  # distances that the medians are made of
UNLIKELY = -50.0  # least log-density that a quantity counts with [nat]
NAMES = {Quantity.POSITION: "position", Quantity.VELOCITY: "velocity",
         Quantity.ALTITUDE: "altitude", Quantity.CLIMB: "vertical_rate"}  # fmt: skip
BEGUN = (Status.STARTED, Status.RESTARTED)
POINT = 4  # numbers of a point: longitude, latitude, time, altitude


@dataclass(slots=True)
class _Line:
    """Points of a track between its start and its end, one after the other."""

    stream: str
    address: int
    points: array[float] = field(default_factory=lambda: array("d"))


class Tracks(Sink, name="sink.tracks"):
    """How many tracks there were, how well they foretold the reports, and where they went.

    tracks is how many were started, restarted how often one was begun anew after a run of refused
    reports, coasted and ended how often one was not heard; reports is how many messages came for a
    track, updates how many positions, velocities, altitudes and vertical rates in them were taken,
    refused how many were not.

    nis_position and the like are means of the normalised innovation squared of what was taken; by a
    tracker whose model is right, 95 of 100 lie in the band beside. log_likelihood is the mean per
    report [nat], with at least -50 for each thing told; of two trackers, the one with the larger
    foretells better. prediction_... is the distance between a reported position and what the track
    had predicted before it was taken, refused ones included; reckoning_... that of dead reckoning,
    from the position and velocity taken last, for the same positions. Medians are good to 0.3 %.

    not_tracked says which streams cannot be tracked, and why.

    The picture shows the last 20,000 places. With `path`, each row of the tracker becomes a line of
    JSON: time is UTC where the stream says when it began, else since its start; altitude in ft,
    ground_speed in kt, track and turn_rate, clockwise, in deg and deg/s, vertical_rate in ft/min;
    position_covariance holds east-east, east-north, north-north in m^2; prediction_error east and
    north in m. With `geojson`, the tracks are written at the end as a FeatureCollection of
    LineStrings (RFC 7946), with "times" and "altitudes_ft" of the points among the properties; a
    track that crosses the date line, or was begun anew, becomes several, and a single point none.

    Raises ParameterError, when it is made, if one of the files exists or cannot be made.
    """

    path: str = param(default="", doc="file for a line of JSON per row; empty: none")
    geojson: str = param(default="", doc="file for the tracks as GeoJSON; empty: none")
    step_s: float = param(
        default=1.0, at_least=0.0, unit="s", doc="least time between two points of the GeoJSON"
    )
    overwrite: bool = param(default=False, doc="replace files that are there already")

    _file: NewFile | None = None
    _map: NewFile | None = None

    def check(self) -> None:
        if self.path:
            self._file = NewFile(self.name, self.path, self.overwrite)
        if self.geojson:
            self._map = NewFile(self.name, self.geojson, self.overwrite)
        if self.path and Path(self.path).expanduser() == Path(self.geojson).expanduser():
            raise ParameterError(f"path and geojson are both {self.path}; give two files")

    def start(self) -> None:
        self._close()
        self._statuses = np.zeros(len(Status), np.int64)
        self._taken = np.zeros(len(Quantity), np.int64)
        self._refused = np.zeros(len(Quantity), np.int64)
        #: Per stream, sums of the NIS, of squared errors of both kinds, and of the likelihood.
        self._sums: dict[str, Array] = {}
        self._judged = np.zeros(len(Quantity), np.int64)  # how many have a NIS
        self._predicted = 0  # reports that were predicted
        self._distances = np.zeros((2, PER_DECADE * DECADES), np.int64)
        self._trail: deque[tuple[int, float, float, float]] = deque(maxlen=DRAWN)
        self._lines: dict[str, list[_Line]] = {}  # per stream
        self._open: dict[tuple[str, int], _Line] = {}
        self._epochs: dict[str, float] = {}  # of streams [s]
        self._snipped: set[str] = set()

    def open(self, stream: str, info: StreamInfo) -> None:
        self._epochs[stream] = info.epoch_utc_ns / 1e9
        if not info.continuous:
            self._snipped.add(stream)

    def process(
        self,
        track_address: UInt32[Array, "track"],
        track_time: Float64[Array, "track"],
        track_status: UInt8[Array, "track"],
        track_latitude: Float64[Array, "track"],
        track_longitude: Float64[Array, "track"],
        track_altitude: Float64[Array, "track"],
        track_velocity: Float64[Array, "track axis"],
        track_covariance: Float64[Array, "track state state"],
        track_turn_rate: Float64[Array, "track"],
        track_turning: Float64[Array, "track"],
        track_innovation: Float64[Array, "track state"],
        track_nis: Float64[Array, "track quantity"],
        track_log_likelihood: Float64[Array, "track quantity"],
        track_refused: UInt8[Array, "track quantity"],
        track_reckoned: Float64[Array, "track plane"],
        info: FrameInfo = FrameInfo(),
    ) -> None:
        if not track_address.size:
            return
        self._statuses += np.bincount(track_status, minlength=len(Status))
        taken = np.isfinite(track_nis) & (track_refused == 0)
        self._judged += taken.sum(axis=0)
        self._refused += track_refused.sum(axis=0, dtype=np.int64)
        errors = self._errors(track_innovation[:, :2], track_reckoned)
        told = np.isfinite(track_log_likelihood)
        self._predicted += int(told.any(axis=1).sum())
        likely = np.where(told, np.maximum(track_log_likelihood, UNLIKELY), 0.0)
        sums = self._sums.setdefault(info.stream, np.zeros(len(Quantity) + 3))
        nis = np.where(taken, track_nis, 0.0)
        rows = np.column_stack([nis, errors, likely.sum(axis=1)])
        # one by one, so that the sums do not depend on how the stream was cut
        sums[:] = np.cumsum(np.vstack([sums, rows]), axis=0)[-1]
        begun = np.isin(track_status, BEGUN)
        placed = taken[:, Quantity.POSITION] | begun
        self._trail.extend(
            zip(*(column[placed].tolist() for column in
                  (track_address, track_latitude, track_longitude, track_altitude)), strict=True)
        )  # fmt: skip
        if self.geojson:
            columns = (track_address, track_status, placed, track_longitude, track_latitude,
                       track_time, track_altitude)  # fmt: skip
            for row in zip(*(column.tolist() for column in columns), strict=True):
                self._extend(info.stream, *row)
        if self._file is not None:
            self._file.write(b"".join(
                self._line(info.stream, *row) for row in zip(
                    track_address.tolist(), track_time.tolist(), track_status.tolist(),
                    track_latitude.tolist(), track_longitude.tolist(), track_altitude.tolist(),
                    track_velocity.tolist(), track_covariance.tolist(), track_turn_rate.tolist(),
                    track_turning.tolist(), track_innovation.tolist(), strict=True,
                )
            ))  # fmt: skip

    def _errors(self, predicted: Array, reckoned: Array) -> Array:
        """Squared distances of the positions that both have foretold, else 0; counted."""
        both = np.isfinite(reckoned[:, 0]) & np.isfinite(predicted[:, 0])
        squared = np.stack([(e**2).sum(axis=1) for e in (predicted, reckoned)], axis=1)[both]
        with np.errstate(divide="ignore"):
            places = PER_DECADE * np.log10(np.sqrt(squared) / LEAST_M)
        size = self._distances.shape[1]
        for counts, place in zip(self._distances, places.T, strict=True):
            counts += np.bincount(np.clip(place, 0, size - 1).astype(int), minlength=size)
        errors = np.zeros((len(both), 2))
        errors[both] = squared
        return errors

    def _extend(
        self, stream: str, address: int, status: int, placed: bool, longitude: float,
        latitude: float, time: float, altitude: float,
    ) -> None:  # fmt: skip
        """Add a row of the tracker to its line."""
        if status in BEGUN:
            begun = self._open[stream, address] = _Line(stream, address)
            self._lines.setdefault(stream, []).append(begun)
        line = self._open.get((stream, address))
        if status == Status.ENDED:
            self._open.pop((stream, address), None)
        elif placed and line is not None:
            points = line.points
            if not points or time - points[2 - POINT] >= self.step_s:
                points.extend((longitude, latitude, time, altitude))

    def _line(
        self, stream: str, address: int, time: float, status: int, latitude: float,
        longitude: float, altitude: float, velocity: list[float], covariance: list[list[float]],
        turn_rate: float, turning: float, innovation: list[float],
    ) -> bytes:  # fmt: skip
        east, north, up = velocity
        told: dict[str, Any] = {
            "time": round(self._epochs.get(stream, 0.0) + time, 6),
            "stream": stream,
            "address": f"{address:06X}",
            "status": Status(status).name.lower(),
            "latitude": round(latitude, DECIMALS),
            "longitude": round(longitude, DECIMALS),
            "altitude": round(altitude, 1),
            "ground_speed": round(math.hypot(east, north) / KNOT_M_S, 2),
            "track": round(math.degrees(math.atan2(east, north)) % 360.0, 2),
            "vertical_rate": round(up / FT_MIN_M_S, 1),
            "turn_rate": round(-turn_rate, 3),
            "turning": round(turning, 4),
            "position_covariance": [
                round(covariance[i][j], 3) for i, j in ((0, 0), (0, 1), (1, 1))
            ],
            "prediction_error": [round(value, 2) for value in innovation[:2]],
        }
        if math.isnan(altitude):
            del told["altitude"], told["vertical_rate"]
        if math.isnan(innovation[0]):
            del told["prediction_error"]
        return json.dumps(told, allow_nan=False).encode() + b"\n"

    def finish(self) -> list[None]:
        self._close()
        if self._map is not None:
            self._map.replace(self._as_geojson())
        return []

    def _as_geojson(self) -> Iterator[bytes]:
        between = '{"type": "FeatureCollection", "features": [\n'
        for feature in self._features():
            yield (between + json.dumps(feature, allow_nan=False)).encode()
            between = ",\n"
        yield b"\n]}\n" if between == ",\n" else (between + "]}\n").encode()

    def _features(self) -> Iterator[dict[str, Any]]:
        """The lines as GeoJSON, cut at the date line."""
        for line in self._all_lines():
            epoch_s = self._epochs.get(line.stream, 0.0)
            points = np.array(line.points).reshape(-1, POINT)
            points[:, 0] = np.where(points[:, 0] >= 180.0, points[:, 0] - 360.0, points[:, 0])
            for piece in cut_at_date_line(points):
                if len(piece) < 2:
                    continue
                longitude, latitude, time, altitude = piece.T.tolist()
                yield {
                    "type": "Feature",
                    "geometry": {
                        "type": "LineString",
                        "coordinates": [
                            [round(x, DECIMALS), round(y, DECIMALS)]
                            for x, y in zip(longitude, latitude, strict=True)
                        ],
                    },
                    "properties": {
                        "address": f"{line.address:06X}",
                        "stream": line.stream,
                        "times": [round(epoch_s + value, 3) for value in time],
                        "altitudes_ft": [
                            None if math.isnan(value) else round(value) for value in altitude
                        ],
                    },
                }

    def _all_lines(self) -> list[_Line]:
        return [line for stream in sorted(self._lines) for line in self._lines[stream]]

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()

    def report(self, folder: Path | None) -> Mapping[str, Any]:
        counts, sums = self._statuses, np.zeros(len(Quantity) + 3)
        for stream in sorted(self._sums):
            sums += self._sums[stream]
        found: dict[str, Any] = {
            "tracks": int(counts[Status.STARTED]),
            "reports": int(counts[: Status.COASTING].sum()),
            "updates": int(self._judged.sum()),
            "refused": int(self._refused.sum()),
            "restarted": int(counts[Status.RESTARTED]),
            "coasted": int(counts[Status.COASTING]),
            "ended": int(counts[Status.ENDED]),
        }
        for quantity, name in NAMES.items():
            count = int(self._judged[quantity])
            if count:
                found[f"nis_{name}"] = float(sums[quantity] / count)
                band = consistency.band(DEGREES[quantity], count)
                found[f"nis_{name}_band"] = list(band)
        if self._predicted:
            found["log_likelihood"] = float(sums[-1] / self._predicted)
        count = int(self._distances[0].sum())
        if count:
            for kind, name in enumerate(("prediction", "reckoning")):
                half = int(np.searchsorted(np.cumsum(self._distances[kind]), (count + 1) // 2))
                found[f"{name}_median_m"] = LEAST_M * 10.0 ** ((half + 0.5) / PER_DECADE)
                found[f"{name}_rms_m"] = math.sqrt(sums[len(Quantity) + kind] / count)
        if self._snipped:
            found["not_tracked"] = (
                f"stream {', '.join(sorted(self._snipped))}: not continuous, so the times of its "
                "messages are not known"
            )
        if folder is not None and self._trail:
            positions.draw(
                folder / "tracks.png", np.array(self._trail), "{:06X}".format, "altitude [ft]",
                "tracked aircraft",
            )  # fmt: skip
            found["picture"] = "tracks.png"
        return found

    def state(self) -> Mapping[str, Array | Scalar]:
        lines = self._all_lines()
        notes = {
            "lines": [(line.stream, line.address, len(line.points)) for line in lines],
            "open": [n for n, line in enumerate(lines)
                     if self._open.get((line.stream, line.address)) is line],
            "sums": {stream: sums.tolist() for stream, sums in self._sums.items()},
        }  # fmt: skip
        return {
            "statuses": self._statuses.copy(),
            "refused": self._refused.copy(),
            "judged": self._judged.copy(),
            "predicted": self._predicted,
            "distances": self._distances.copy(),
            "trail": np.array(self._trail, float).reshape(-1, 4),
            "points": np.concatenate([np.empty(0), *(line.points for line in lines)]),
            "notes": json.dumps(notes),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._statuses = np.array(state["statuses"])
        self._refused = np.array(state["refused"])
        self._judged = np.array(state["judged"])
        self._predicted = int(state["predicted"])
        self._distances = np.array(state["distances"])
        self._trail = deque(map(tuple, state["trail"].tolist()), maxlen=DRAWN)
        notes, first = json.loads(state["notes"]), 0
        self._sums = {stream: np.array(sums) for stream, sums in notes["sums"].items()}
        self._lines, self._open = {}, {}
        for number, (stream, address, size) in enumerate(notes["lines"]):
            points = array("d", state["points"][first : first + size].tolist())
            line = _Line(stream, address, points)
            self._lines.setdefault(stream, []).append(line)
            if number in notes["open"]:
                self._open[stream, address] = line
            first += size


def cut_at_date_line(points: Array) -> list[Array]:
    """Pieces of a line that do not cross the longitude of 180 degrees (RFC 7946, 3.1.9).

    points  (n, k)  longitude, -180 ... 180, and whatever else changes along the line
    """
    pieces, before, first = [], [points[:0]], 0
    jumps = np.flatnonzero(np.abs(np.diff(points[:, 0])) > 180.0) + 1
    for place in jumps.tolist():
        old, new = points[place - 1], points[place].copy()
        side = math.copysign(180.0, old[0])
        new[0] += 2.0 * side
        way = new[0] - old[0]
        crossing = old + (side - old[0]) / way * (new - old) if way else old.copy()
        crossing[0] = side
        pieces.append(np.vstack([*before, points[first:place], crossing]))
        begin = crossing.copy()
        begin[0] = -side
        before, first = [begin[None]], place
    return [*pieces, np.vstack([*before, points[first:]])]
