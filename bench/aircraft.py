"""Real tracks of aircraft: each position is foretold, then compared, then taken.

    python -m bench.aircraft                          # some minutes on one core
    python -m bench.aircraft --tune 600               # looks for the noises, for 10 minutes
    python -m bench.aircraft --json aircraft.json

The tracks lie under shared/data beside the clone; those that are not there are left out, and said.
There is no truth in them but what aircraft told. So a position is held back until it has been
foretold, from all that came before: by tracker.aircraft as it is by default (interacting straight
flight and turns), by the same with one mode only (a constant-velocity Kalman filter), and by dead
reckoning from the last position and velocity that the tracker took. The distances are given with
their median, 95 % quantile and root mean square; refused positions are among them, and reckoning
errors are those of the first tracker's run.

NEES/2 is the mean of e' S^-1 e / 2, where e is the error of a prediction and S its covariance with
that of the report, over reports that were not refused: 1 where S is right. in50, in95: how many of
all lie within the ellipses that should hold 50 and 95 %. Velocities alike. nat is the mean
log-density of the positions, where a report out of all bounds counts as one whose e' S^-1 e is 40:
of two trackers, the one with the larger foretells better what will come and how sure that is.

Noises were chosen on the sets marked "tuned" (--tune: coordinate search for the largest mean
of nat), of both trackers in the same way. The turn rate stands above what this would choose: see
AIRCRAFT.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from blocks.decoder.mode_s import Modes
from blocks.kernels.aircraft import Quantity, Status
from blocks.source.modes_messages import ModesMessages
from blocks.tracker.aircraft import BOUND_95, RADIUS_95, Aircraft, Tracks
from pipeline.block import Context, make

Array = np.ndarray[Any, Any]
DATA = Path(__file__).parents[2] / "shared" / "data"
READS = tuple(Aircraft.signature().reads)
CONTAINMENT_M = 185.2  # where the tracks do not tell: that of type code 11
FLOOR = 40.0  # largest e' S^-1 e that counts

IMM: dict[str, float] = {}  # the defaults
SINGLE = {
    "turn_rate": 0.0, "straight_noise": 4.0, "position_share": 0.013, "latency_s": 0.066,
    "velocity_noise": 2.0,
}  # fmt: skip
#: What is tuned, of each tracker.
NOISES = ("straight_noise", "position_share", "latency_s", "velocity_noise")
MODES = ("turn_noise", "turn_walk", "turn_rate", "straight_s", "turn_s")


class Reports(NamedTuple):
    """What a tracker reads.

    rounding_m  what the positions are rounded to, if more coarsely than Mode S does
    """

    name: str
    fields: dict[str, Array]
    rounding_m: float = 0.0


def of_rows(name: str, rows: list[list[Any]], rounding_m: float = 0.0) -> Reports:
    """Rows of time, address, latitude, longitude, altitude, speed, track, climb.

    Each row becomes a position and, after it, a velocity of the same time. A row whose position is
    that of the row before repeats old news, and is left out.
    """
    table = np.array(rows, float)
    table = table[np.isfinite(table[:, [0, 2, 3]]).all(axis=1)]
    table = table[np.argsort(table[:, 0], kind="stable")]
    last: dict[float, tuple[float, float]] = {}
    kept = []
    for number, row in enumerate(table):
        if last.get(row[1]) != (row[2], row[3]):
            kept.append(number)
            last[row[1]] = (row[2], row[3])
    table = np.repeat(table[kept], 2, axis=0)
    table[0::2, 5:] = np.nan
    table[1::2, 2:5] = np.nan
    when, address, latitude, longitude, altitude, speed, track, climb = table.T.copy()
    fields = {
        "message_time": when - when[0],
        "message_address": address.astype(np.uint32),
        "latitude": latitude,
        "longitude": longitude,
        "altitude": altitude,
        "ground_speed": speed,
        "track": track % 360.0,
        "vertical_rate": climb,
        "containment": np.where(np.isnan(latitude), np.nan, CONTAINMENT_M),
        "on_ground": np.zeros(len(when), np.int8),
    }
    return Reports(name, fields, rounding_m)


def traffic(
    file: str, name: str = "", every: slice = slice(None), rounding_m: float = 0.0
) -> Reports:
    """A file of the `traffic` collection: the times of positions, or else whole seconds."""
    with gzip.open(DATA / "tracks" / f"{file}.json.gz") as opened:
        found = json.load(opened)
    if isinstance(found, dict):
        columns = [c.values() if isinstance(c, dict) else c for c in found.values()]
        found = [dict(zip(found, row, strict=True)) for row in zip(*columns, strict=True)]
    aircraft = set(sorted({row["icao24"] for row in found})[every])
    clock = "last_position" if "last_position" in found[0] else "timestamp"
    wanted = ("latitude", "longitude", "altitude", "groundspeed", "track", "vertical_rate")
    rows = [
        [row[clock] / 1e3, int(row["icao24"], 16), *(_number(row[key]) for key in wanted)]
        for row in found
        if row["icao24"] in aircraft and row[clock] is not None
    ]
    return of_rows(name or file, rows, rounding_m)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def trace() -> Reports:
    """A trace of readsb: times to 10 ms."""
    found = json.loads((DATA / "tracks" / "trace_full_ac671b.json").read_text())
    address = int(found["icao"], 16)
    rows = [
        [row[0], address, *(_number(row[k]) for k in (1, 2, 3, 4, 5, 7))] for row in found["trace"]
    ]
    return of_rows("trace_full_ac671b", rows)


def messages() -> Reports:
    """A file of messages with whole seconds, through the decoder."""
    source = ModesMessages(path=str(DATA / "modes" / "pymodes_sample_data_adsb.csv"), length=10**6)
    source.start()
    decoder = make(Modes, {}, Context(info=source.describe()))
    decoder.start()
    frame = source.process()
    source.close()
    assert frame is not None
    decoded = decoder.process(*frame)
    return Reports("messages", {name: getattr(decoded, name) for name in READS})


SETS: tuple[tuple[bool, Callable[[], Reports]], ...] = (
    (True, lambda: traffic("switzerland", "switzerland 0::32", slice(0, None, 32))),
    (True, trace),
    (True, lambda: traffic("noisy_landing")),
    (False, messages),
    (False, lambda: traffic("switzerland", "switzerland 8::32", slice(8, None, 32))),
    (False, lambda: traffic("noisy_spoofing")),
    (False, lambda: traffic("zero_gravity")),
    (False, lambda: traffic("luberon", rounding_m=11.1)),
)


def follow(reports: Reports, values: dict[str, float]) -> Tracks:
    """The rows of a tracker with these parameters."""
    block = make(Aircraft, dict(values), Context())
    block.start()
    fields = dict(reports.fields)
    if reports.rounding_m:
        deviation = reports.rounding_m / math.sqrt(12.0)
        radius = deviation * RADIUS_95 / (BOUND_95 * block.position_share)
        fields["containment"] = np.where(np.isnan(fields["latitude"]), np.nan, radius)
    return block.process(**{name: fields[name] for name in READS})


def score(tracks: Tracks) -> float:
    """Mean log-density of the positions [nat]."""
    nis = tracks.track_nis[:, Quantity.POSITION]
    told = np.isfinite(nis)
    likely = tracks.track_log_likelihood[:, Quantity.POSITION][told]
    return float(np.mean(likely + 0.5 * np.maximum(nis[told] - FLOOR, 0.0)))


def distances(errors: Array) -> dict[str, float]:
    away = np.hypot(*errors.T)
    return {
        "median": float(np.median(away)),
        "p95": float(np.quantile(away, 0.95)),
        "rms": float(np.sqrt(np.mean(away**2))),
    }


def figures(tracks: Tracks) -> dict[str, Any]:
    """What the tables hold of one run."""
    both = np.isfinite(tracks.track_reckoned[:, 0])
    found: dict[str, Any] = {
        "positions": int(both.sum()),
        "predicted": distances(tracks.track_innovation[both, :2]),
        "reckoned": distances(tracks.track_reckoned[both]),
        "nat": score(tracks),
        "restarts": int((tracks.track_status == Status.RESTARTED).sum()),
    }
    for quantity in (Quantity.POSITION, Quantity.VELOCITY):
        refused = tracks.track_refused[:, quantity] > 0
        nis = tracks.track_nis[:, quantity]
        told = np.isfinite(nis) & (both | (quantity != Quantity.POSITION))
        found[quantity.name.lower()] = {
            "refused": int((told & refused).sum()),
            "nees": float(np.mean(nis[told & ~refused]) / 2.0),
            "in50": float(np.mean(nis[told] < -2.0 * math.log(0.5))),
            "in95": float(np.mean(nis[told] < -2.0 * math.log(0.05))),
        }
    return found


def tune(seconds: float) -> None:
    """Look for the noises of both trackers on the sets for it."""
    sets = [load() for is_tuned, load in SETS if is_tuned]

    def mean(values: dict[str, float]) -> float:
        return float(np.mean([score(follow(reports, values)) for reports in sets]))

    for name, start, names in (("IMM", IMM, NOISES + MODES), ("CV", SINGLE, NOISES)):
        defaults = Aircraft().values()
        best = {key: start.get(key, defaults[key]) for key in names}
        fixed = {"turn_rate": 0.0} if start else {}
        most, factors = mean(best | fixed), dict.fromkeys(names, 2.0)
        end = time.monotonic() + seconds / 2.0
        while time.monotonic() < end and max(factors.values()) > 1.2:
            for key in names:
                for factor in (factors[key], 1.0 / factors[key]):
                    tried = {**best, key: best[key] * factor}
                    if (reached := mean(tried | fixed)) > most + 1e-3:
                        best, most = tried, reached
                        break
                else:
                    factors[key] **= 0.6
        found = ", ".join(f"{key} {value:.3g}" for key, value in best.items())
        print(f"{name}: {most:.3f} nat; {found}")


HEAD = (
    f"{'':42s}   median     95 %      RMS     nat  NEES/2  in50  in95  refused"
    "    velocity: NEES/2  in50  in95  refused"
)


def show(name: str, is_tuned: bool, imm: dict[str, Any], single: dict[str, Any]) -> None:
    label = f"{name}{', tuned' if is_tuned else ''}"
    for row, (method, found, kind) in enumerate((
        ("tracker.aircraft", imm, "predicted"), ("one mode", single, "predicted"),
        ("dead reckoning", imm, "reckoned"),
    )):  # fmt: skip
        left = (label, f"{imm['positions']} positions", "")[row]
        away = found[kind]
        line = f"{left:26s}{method:16s} {away['median']:8.1f} {away['p95']:8.1f} {away['rms']:8.1f}"
        if kind == "predicted":
            place, speed = found["position"], found["velocity"]
            line += (
                f" {found['nat']:7.2f}  {place['nees']:6.2f}  {place['in50']:.2f}  "
                f"{place['in95']:.2f}  {place['refused']:7d}{'':14s}{speed['nees']:6.2f}  "
                f"{speed['in50']:.2f}  {speed['in95']:.2f}  {speed['refused']:7d}"
            )
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tune", type=float, metavar="SECONDS", help="look for the noises")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if options.tune:
        tune(options.tune)
        return
    print(HEAD)
    everything = {}
    for is_tuned, load in SETS:
        try:
            reports = load()
        except FileNotFoundError as error:
            print(f"{error.filename} is not here")
            continue
        imm, single = (figures(follow(reports, values)) for values in (IMM, SINGLE))
        show(reports.name, is_tuned, imm, single)
        everything[reports.name] = {"imm": imm, "single": single}
    if options.json:
        options.json.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
