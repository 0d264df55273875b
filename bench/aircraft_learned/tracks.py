"""The tracks, and what is read of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from blocks.formats import tracks
from blocks.formats.tracks import Reports
from blocks.source.tracks import chosen, seen

Array = np.ndarray[Any, Any]

FILE = Path(__file__).parents[3] / "shared" / "data" / "tracks" / "switzerland.json.gz"
OTHERS = (
    "noisy_landing.json.gz", "noisy_spoofing.json.gz", "zero_gravity.json.gz", "luberon.json.gz",
    "toulouse.json.gz", "trace_full_ac671b.json",
)  # fmt: skip
NAME = "aircraft_kalmannet"  # of the network that is shipped
PARTS = ("training", "validation", "test")
STEP_S = 10.0
LENGTH, LEAST, GAP_S = 200, 20, 60.0  # of tracks, as source.tracks has them


class Words(NamedTuple):
    """Tracks of a part, as source.tracks gives them.

    aircraft   (tracks,)           addresses
    seen       (tracks, time, 2)   [m], NaN after the end
    intervals  (tracks, time)      [s]
    velocities (tracks, time, 2)   that were told with the positions [m/s], NaN where not
    """

    aircraft: Array
    seen: Array
    intervals: Array
    velocities: Array


def load(part: str, file: Path = FILE) -> Words:
    """The tracks of a part, of a file of tracks or of what `export` wrote."""
    if file.suffix == ".npz":
        with np.load(file) as found:
            return Words(*(found[f"{part}_{name}"].astype(float) for name in Words._fields))
    found = chosen(tracks.read(file), part, GAP_S, LEAST, LENGTH)
    velocities = np.full((len(found), LENGTH, 2), np.nan)
    for row, one in enumerate(found):
        speed, way = one.ground_speed * 1852.0 / 3600.0, np.radians(one.track)
        velocities[row, : len(one.time)] = np.stack((speed * np.sin(way), speed * np.cos(way)), 1)
    return Words(np.array([one.address for one in found]), *seen(found, LENGTH), velocities)


def export(path: Path, file: Path) -> None:
    """Write the tracks of all parts as float32, some MB."""
    arrays = {}
    for part in PARTS:
        for name, array in load(part, file)._asdict().items():
            kind = np.int32 if name == "aircraft" else np.float32
            arrays[f"{part}_{name}"] = array.astype(kind)
    np.savez_compressed(path, **arrays)


def others(file: Path) -> dict[str, Words]:
    """Recordings of single aircraft beside that file, thinned to STEP_S."""
    found = {}
    for name in OTHERS:
        path = file.with_name(name)
        if not path.exists():
            print(f"{path} is not here")
            continue
        told = []
        for one in tracks.read(path):
            due = np.floor((one.time - one.time[0]) / STEP_S)
            kept = np.diff(due, prepend=-1.0) > 0.0
            told.append(Reports(one.address, *(column[kept] for column in one[1:])))
        pieces = chosen(told, "all", GAP_S, LEAST, LENGTH)
        nothing = np.full((len(pieces), LENGTH, 2), np.nan)
        found[name] = Words(np.arange(len(pieces)), *seen(pieces, LENGTH), nothing)
    return found
