"""What came out of the cells, put together."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.figures.trackers.cells import cells
from bench.figures.trackers.scenarios import SCENARIOS

Array = np.ndarray[Any, Any]


def decibel(value: float) -> float:
    """10 log10; infinite where a track was lost."""
    return 10.0 * math.log10(value) if 0.0 < value < math.inf else math.inf


class Result(NamedTuple):
    """One tracker at one level of noise, over all its seeds.

    errors   (seed, track)  mean squared errors; infinite where the tracker broke
    seeds    that are there
    told     what the cells say besides, one by seed
    """

    errors: Array
    seeds: tuple[int, ...]
    told: tuple[Mapping[str, Any], ...]

    @property
    def pooled(self) -> list[float]:
        """Of each seed [dB]."""
        return [decibel(float(one.mean())) for one in self.errors]

    @property
    def middle(self) -> int:
        """Row of the seed whose pooled error is the median."""
        order = np.argsort(self.pooled)
        return int(order[(len(order) - 1) // 2])

    @property
    def median_db(self) -> float:
        """Pooled error of that seed [dB]."""
        return self.pooled[self.middle]

    @property
    def worst_db(self) -> float:
        """Of the worst trajectory with any seed [dB]."""
        return decibel(float(self.errors.max()))


#: (scenario, 1 / r2 [dB], tracker) -> its result
Results = Mapping[tuple[str, float, str], Result]


def gathered(folder: Path) -> Results:
    """All results that are there."""
    found: dict[tuple[str, float, str], dict[int, Any]] = {}
    for cell in cells():
        path = cell.path(folder)
        if path.exists():
            key = cell.scenario, cell.noise_db, cell.method
            found.setdefault(key, {})[cell.seed] = json.loads(path.read_text())
    return {
        key: Result(
            np.array([[math.inf if e is None else e for e in one["mse"]] for one in by.values()]),
            tuple(by), tuple(by.values()),
        )
        for key, by in found.items()
    }  # fmt: skip


def tested(results: Results, name: str) -> str:
    """How many trajectories, of how many steps, trackers of a scenario were tested on."""
    counts = sorted({one.errors.shape[1] for key, one in results.items() if key[0] == name})
    return f"{' or '.join(map(str, counts))} trajectories of {SCENARIOS[name].test.steps} steps"


class Ahead(NamedTuple):
    """How far one tracker is ahead of another on the same trajectories [dB].

    by      mean over trajectories; positive: ahead
    half    of its 95 % interval
    """

    by: float
    half: float


def ahead(one: Result, other: Result) -> Ahead | None:
    """By the seeds in the middle; None where either lost a trajectory."""
    errors = one.errors[one.middle], other.errors[other.middle]
    if not all(np.isfinite(e).all() for e in errors) or errors[0].size != errors[1].size:
        return None
    difference = 10.0 * np.log10(errors[1] / errors[0])
    spread = float(difference.std(ddof=1)) / math.sqrt(difference.size)
    return Ahead(float(difference.mean()), 1.96 * spread)
