"""Files of tracks that aircraft told by ADS-B.

Two forms, compressed by gzip or not:

* JSON of the `traffic` package (Olive, JOSS 4 (2019) 1518): a list of rows, or columns by their
  names, with `icao24`, `latitude`, `longitude` and `timestamp`; where there is `last_position`, the
  time of the position itself, it is taken instead. Times are in ms since 1970.
* a trace of readsb, as globe servers keep them: `icao`, `timestamp` [s since 1970] and `trace`,
  whose rows begin with seconds since then, latitude, longitude, altitude, ground speed and track.
"""

from __future__ import annotations

import gzip
import itertools
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import ParameterError
from pipeline.frame import Array

NEEDED = ("icao24", "latitude", "longitude", "timestamp")
ADDRESSES = 1 << 24
_GZIP = b"\x1f\x8b"


class Reports(NamedTuple):
    """What one aircraft told, in the order of time; a row whose position is no news is left out.

    address       24 bits
    time          (n,)  since 1970 [s]
    latitude      (n,)  [deg]
    longitude     (n,)  [deg]
    ground_speed  (n,)  [kt], NaN where not told
    track         (n,)  direction of motion, clockwise from north [deg], NaN where not told
    """

    address: int
    time: Array
    latitude: Array
    longitude: Array
    ground_speed: Array
    track: Array

    def pieces(self, gap_s: float, least: int) -> list[Reports]:
        """Parts between pauses longer than gap_s, but those of fewer than `least` reports."""
        cuts = [0, *(np.flatnonzero(np.diff(self.time) > gap_s) + 1), len(self.time)]
        parts = (self.rows(first, last - first) for first, last in itertools.pairwise(cuts))
        return [part for part in parts if len(part.time) >= least]

    def rows(self, first: int, count: int) -> Reports:
        """So many reports from one on."""
        return Reports(self.address, *(column[first : first + count] for column in self[1:]))


def read(path: Path) -> list[Reports]:
    """The aircraft of a file, by their addresses.

    Raises ParameterError for a file that cannot be read or is of another form.
    """
    by_address: dict[int, list[tuple[float, ...]]] = {}
    for address, *told in _rows(path, _parsed(path)):
        time, latitude, longitude = told[:3]
        there = abs(latitude) <= 90.0 and abs(longitude) <= 180.0
        if 0 <= address < ADDRESSES and math.isfinite(time) and there:
            by_address.setdefault(int(address), []).append(tuple(told))
    if not by_address:
        raise ParameterError(f"{path} holds no position of any aircraft")
    return [_ordered(address, rows) for address, rows in sorted(by_address.items())]


def share(address: int) -> float:
    """A number in 0 ... 1 that is drawn from an address: by it aircraft are parted for good."""
    return zlib.crc32(f"{address:06x}".encode()) / 2.0**32


def _ordered(address: int, rows: list[tuple[float, ...]]) -> Reports:
    table = np.array(rows, float)
    table = table[np.argsort(table[:, 0], kind="stable")]
    news = np.ones(len(table), np.bool_)
    news[1:] = (np.diff(table[:, 1:3], axis=0) != 0.0).any(axis=1)
    table = table[news]
    table = table[np.diff(table[:, 0], prepend=-math.inf) > 0.0]
    return Reports(address, *(np.ascontiguousarray(column) for column in table.T))


def _parsed(path: Path) -> Any:
    if path.is_dir():
        raise ParameterError(f"{path} is a folder; expected a file of tracks")
    try:
        raw = path.read_bytes()
        if raw[:2] == _GZIP:
            raw = gzip.decompress(raw)
        return json.loads(raw)
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ParameterError(f"cannot read {path}: {reason}") from None


def _rows(path: Path, found: Any) -> Iterator[tuple[float, ...]]:
    """Address, time, latitude, longitude, ground speed and track of each row."""
    try:
        if isinstance(found, Mapping) and "trace" in found:
            address, began = int(found["icao"].lstrip("~"), 16), float(found["timestamp"])
            for row in found["trace"]:
                yield (address, began + row[0], *(_number(row[k]) for k in (1, 2, 4, 5)))
            return
        for row in _dicts(found):
            time = row.get("last_position", row["timestamp"])
            yield (
                int(row["icao24"], 16), _number(time) / 1e3, _number(row["latitude"]),
                _number(row["longitude"]), _number(row.get("groundspeed")),
                _number(row.get("track")),
            )  # fmt: skip
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ParameterError(
            f"{path} is no file of tracks ({what}); expected JSON rows or columns with "
            f"{', '.join(NEEDED)}, or a trace of readsb"
        ) from None


def _dicts(found: Any) -> Iterable[Mapping[str, Any]]:
    if not isinstance(found, Mapping):
        return found  # type: ignore[no-any-return]
    columns = [c.values() if isinstance(c, Mapping) else c for c in found.values()]
    return (dict(zip(found, row, strict=True)) for row in zip(*columns, strict=True))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
