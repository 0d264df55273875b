"""placeholder."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from blocks.decoder.mode_s import Modes
from blocks.source.modes_messages import ModesMessages
from blocks.tracker.aircraft import Aircraft, Tracks
from pipeline.block import Context, make

Array = np.ndarray[Any, Any]
DATA = Path(__file__).parents[2] / "shared" / "data"
READS = tuple(Aircraft.signature().reads)
CONTAINMENT_M = 185.2


class Reports(NamedTuple):
    name: str
    fields: dict[str, Array]
    time_step_s: float


def of_rows(name: str, rows: list[list[Any]], time_step_s: float) -> Reports:
    """rows: time, address, latitude, longitude, altitude, speed, track, climb."""
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
    table[0::2, 5:] = np.nan  # the position first, then the velocity
    table[1::2, 2:5] = np.nan
    time, address, latitude, longitude, altitude, speed, track, climb = table.T.copy()
    fields = {
        "message_time": time - time[0],
        "message_address": address.astype(np.uint32),
        "latitude": latitude,
        "longitude": longitude,
        "altitude": altitude,
        "ground_speed": speed,
        "track": track % 360.0,
        "vertical_rate": climb,
        "containment": np.where(np.isnan(latitude), np.nan, CONTAINMENT_M),
        "on_ground": np.zeros(len(time), np.int8),
    }
    return Reports(name, fields, time_step_s)


def traffic(name: str, every: slice = slice(None), time_step_s: float = 1.0) -> Reports:
    path = DATA / "tracks" / f"{name}.json.gz"
    with gzip.open(path) as file:
        found = json.load(file)
    if isinstance(found, dict):
        columns = [c.values() if isinstance(c, dict) else c for c in found.values()]
        found = [dict(zip(found, row, strict=True)) for row in zip(*columns, strict=True)]
    aircraft = set(sorted({row["icao24"] for row in found})[every])
    clock = "last_position" if "last_position" in found[0] else "timestamp"
    wanted = ("latitude", "longitude", "altitude", "groundspeed", "track", "vertical_rate")
    rows = [
        [
            row[clock] / 1e3,
            int(row["icao24"], 16),
            *(math.nan if row[key] is None else row[key] for key in wanted),
        ]
        for row in found
        if row["icao24"] in aircraft and row[clock] is not None
    ]
    return of_rows(name, rows, 0.0 if clock == "last_position" else time_step_s)


def trace() -> Reports:
    found = json.loads((DATA / "tracks" / "trace_full_ac671b.json").read_text())
    nan = math.nan
    rows = [
        [
            found["timestamp"] + r[0],
            int(found["icao"], 16),
            r[1],
            r[2],
            r[3] if isinstance(r[3], int | float) else nan,
            *(nan if v is None else v for v in (r[4], r[5], r[7])),
        ]
        for r in found["trace"]
    ]
    return of_rows("trace", rows, 0.0)


def messages() -> Reports:
    source = ModesMessages(path=str(DATA / "modes" / "pymodes_sample_data_adsb.csv"), length=10**6)
    source.start()
    decoder = make(Modes, {}, Context(info=source.describe()))
    decoder.start()
    frame = source.process()
    source.close()
    assert frame is not None
    decoded = decoder.process(*frame)
    return Reports("messages", {name: getattr(decoded, name) for name in READS}, 1.0)


def follow(reports: Reports, **values: Any) -> Tracks:
    block = make(Aircraft, {"time_step_s": reports.time_step_s, **values}, Context())
    block.start()
    return block.process(**{name: reports.fields[name] for name in READS})


def score(tracks: Tracks, floor: float = 40.0) -> tuple[float, float]:
    out = []
    for q in range(2):
        nis = tracks.track_nis[:, q]
        like = tracks.track_log_likelihood[:, q]
        ok = ~np.isnan(nis)
        # a report out of all bounds counts as one of chi-square `floor`
        out.append(float(np.mean(like[ok] + 0.5 * np.maximum(nis[ok] - floor, 0.0))))
    return tuple(out)


def figures(tracks: Tracks) -> dict[str, float]:
    ok = np.isfinite(tracks.track_reckoned[:, 0])
    nis = tracks.track_nis[ok, 0]
    e = np.hypot(*tracks.track_innovation[ok, :2].T)
    d = np.hypot(*tracks.track_reckoned[ok].T)
    return {
        "reports": int(ok.sum()),
        "refused": int(tracks.track_refused[:, 0].sum()),
        "restarts": int((tracks.track_status == 3).sum()),
        "median": float(np.median(e)),
        "rms": float(np.sqrt(np.mean(e**2))),
        "dr median": float(np.median(d)),
        "dr rms": float(np.sqrt(np.mean(d**2))),
        "nis": float(np.mean(nis)),
        "nis trimmed": float(np.mean(nis[nis < 27])),
        "in50": float(np.mean(nis < 2 * math.log(2))),
        "in95": float(np.mean(nis < -2 * math.log(0.05))),
        "nis v": float(np.nanmean(tracks.track_nis[:, 1])),
        "refused v": int(tracks.track_refused[:, 1].sum()),
        "nis h": float(np.nanmean(tracks.track_nis[:, 2])),
        "nis c": float(np.nanmean(tracks.track_nis[:, 3])),
    }
