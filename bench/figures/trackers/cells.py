"""One cell of the study: one tracker on one scenario at one level of noise, with one seed."""

from __future__ import annotations

import importlib
import json
import math
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.figures.trackers.methods import METHODS, Method
from bench.figures.trackers.scenarios import SCENARIOS, Scenario, Size, Tracks
from pipeline import catalogue
from pipeline.block import Block, Context, Learned, make
from pipeline.errors import KalvitError, RunError
from pipeline.models import Models
from pipeline.train import Lessons, Record
from pipeline.weights import Weights

Array = np.ndarray[Any, Any]


class Cell(NamedTuple):
    """What is asked, and where its answer is kept."""

    scenario: str
    noise_db: float
    method: str
    seed: int

    def __str__(self) -> str:
        return f"{self.scenario}:{self.noise_db:g}:{self.method}:{self.seed}"

    def path(self, folder: Path) -> Path:
        """Its file."""
        return folder / f"{str(self).replace(':', '_')}.json"


def cells(pattern: str = "*:*:*:*") -> list[Cell]:
    """All that match SCENARIO:NOISE:METHOD:SEED, of which each may be a pattern.

    Raises ValueError if none does.
    """
    found = [
        cell
        for name, scenario in SCENARIOS.items()
        for noise_db in scenario.noises
        for kind, method in METHODS.items()
        if method.serves(name, scenario, noise_db)
        for seed in method.seeds
        if fnmatchcase(str(cell := Cell(name, noise_db, kind, seed)), pattern)
    ]
    if not found:
        raise ValueError(f"no cell is called {pattern}")
    return found


@dataclass(frozen=True)
class Amount:
    """How much of everything: all of it, or a share for a quick look."""

    share: float = 1.0
    settings: int = 1  # every so many of a grid
    schedule: Mapping[str, Any] | None = None

    def of(self, size: Size, least: int = 2) -> Size:
        """Fewer trajectories."""
        return Size(max(least, round(self.share * size.count)), size.steps)


FULL = Amount()


def run(cell: Cell, amount: Amount = FULL) -> dict[str, Any]:
    """Tune or train, then track what was never seen: errors of each trajectory, and what it took.

    mse       of each test trajectory; None where the tracker broke
    setting   that was best on the tuning trajectories, and `tuning`, their mean error by setting
    training  options and scores of what learned; `curve`, its best loss on what was held out by
              steps of Adam
    """
    scenario, method = SCENARIOS[cell.scenario], METHODS[cell.method]
    q2, r2 = scenario.noise(cell.noise_db)
    values = _values(scenario, method) | {"observation_noise": r2}
    found: dict[str, Any] = {**cell._asdict(), "title": method.title}
    weights = None
    begin = time.process_time()
    if method.learns is not None:
        values["process_noise"] = q2
        if method.begins_as:
            values |= _tuned(cell, scenario, METHODS[method.begins_as], amount, found)
        if cell.seed == 0 and cell.method in scenario.shipped:
            name = scenario.shipped[cell.method]
            weights, found["training"] = Models().load(name), {"shipped": name, "curve": []}
        else:
            weights, found["training"] = _learned(cell, scenario, method, values, amount)
    elif method.grid or (method.told == "frozen" and scenario.frozen is not None):
        values |= _tuned(cell, scenario, method, amount, found)
    else:
        values["process_noise"] = q2
    found["preparation_s"] = time.process_time() - begin
    test = scenario.simulated(cell.noise_db, amount.of(scenario.test), "test")
    begin = time.process_time()
    errors = errors_of(method, values, weights, test)
    spent = time.process_time() - begin
    found["us_per_step"] = 1e6 * spent / test.states[:, :, 0].size
    found["mse"] = [error if error < math.inf else None for error in errors.tolist()]
    return found


def _tuned(
    cell: Cell, scenario: Scenario, method: Method, amount: Amount, found: dict[str, Any]
) -> dict[str, Any]:
    """Noise, and what else there is in a grid, that is best on the tuning trajectories."""
    r2 = scenario.noise(cell.noise_db)[1]
    values = _values(scenario, method) | {"observation_noise": r2}
    grid = (method.grid or METHODS["ekf"].grid)[:: amount.settings]
    share = replace(amount, share=amount.share * method.tuning_share)
    tuning = scenario.simulated(cell.noise_db, share.of(scenario.tuning), "tuning")
    errors = [_mean(errors_of(method, values | _scaled(s, r2), None, tuning)) for s in grid]
    best = min(range(len(grid)), key=errors.__getitem__)
    found["setting"] = dict(grid[best])
    found["tuning"] = [
        {**s, "mse": error if error < math.inf else None}
        for s, error in zip(grid, errors, strict=True)
    ]
    return _scaled(grid[best], r2)


def _values(scenario: Scenario, method: Method) -> dict[str, Any]:
    if method.told == "truth":
        told = scenario.true_values()
    elif method.told == "frozen":
        told = {**scenario.told, **(scenario.frozen or {})}
    else:
        told = dict(scenario.told)
    return {**told, **method.values}


def _scaled(setting: Mapping[str, Any], r2: float) -> dict[str, Any]:
    """A setting of a grid, with its noise in the units of the observations."""
    return {k: v * r2 if k.endswith("_noise") else v for k, v in setting.items()}


def _mean(errors: Array) -> float:
    return float(errors.mean())


def errors_of(
    method: Method, values: Mapping[str, Any], weights: Weights | None, tracks: Tracks
) -> Array:
    """Mean squared error of each trajectory per number of the state; infinite where one is lost.

    Trajectories that start at the same state are handed over as words.
    """
    kind = catalogue.find(method.block)

    def tracked(rows: slice) -> Array:
        start = tuple(tracks.starts[rows][0].tolist())
        block = make(
            kind, {**values, "initial_state": start, "initial_variance": 0.0},
            Context("tracker", f"track {rows.start}", 0),
        )  # fmt: skip
        return _estimates(block, tracks.observations[rows], weights)

    count = len(tracks.states)
    groups = [slice(k, k + 1) for k in range(count)]
    if (tracks.starts == tracks.starts[0]).all():
        # where one is lost, all go one by one, to see which
        with suppress(RunError), np.errstate(over="ignore", invalid="ignore"):
            return _squared(tracked(slice(0, count)), tracks.states)
    errors = np.full(count, np.inf)
    for rows in groups:
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                errors[rows] = _squared(tracked(rows), tracks.states[rows])
        except RunError:
            continue
    return errors


def _squared(estimates: Array, states: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        found: Array = np.square(estimates - states).mean(axis=(1, 2))
    found[~np.isfinite(found)] = np.inf
    return found


def _estimates(block: Block, observations: Array, weights: Weights | None) -> Array:
    block.start()
    if weights is not None:
        assert isinstance(block, Learned)
        block.take(weights)
    answer: Any = block.process(observations)  # type: ignore[attr-defined]
    if isinstance(answer, list):  # of a tracker that waits for what comes after
        (answer,) = [*answer, *block.finish()]
    found: Array = np.asarray(answer.estimates)
    return found


def _learned(
    cell: Cell, scenario: Scenario, method: Method, values: Mapping[str, Any], amount: Amount
) -> tuple[Weights, dict[str, Any]]:
    """Weights fitted to trajectories of this seed, and how that went."""

    def record(size: Size, purpose: str) -> Record:
        tracks = scenario.simulated(cell.noise_db, amount.of(size, 20), purpose, 1 + cell.seed)
        return {"states": tracks.states, "observations": tracks.observations}

    curve: list[tuple[int, float]] = []

    def progress(done: int, most: int, text: str) -> None:
        print(f"{cell}: {done} of {most}, {text}", flush=True)
        if told := re.search(r"held out (\S+),", text):
            curve.append((done, float(told[1])))

    block = make(
        catalogue.find(method.block),
        {**values, "initial_variance": scenario.spread}, Context("tracker", "0", cell.seed),
    )  # fmt: skip
    assert isinstance(block, Learned)
    module, _, name = block.trained_by.partition(":")
    lessons = Lessons(
        [record(scenario.training, "training")], [record(scenario.held_out, "held out")],
        cell.seed, progress,
    )  # fmt: skip
    options = {**scenario.schedule, **(method.learns or {}), **(amount.schedule or {})}
    options["decay"] *= scenario.noise(cell.noise_db)[1]
    learnt = getattr(importlib.import_module(module), name)(block, lessons, **options)
    told = {**learnt.training, **learnt.scores, "curve": curve}
    return Weights(cell.method, 1, learnt.arrays, learnt.hyper), told


def answer(cell: Cell, folder: Path, amount: Amount = FULL) -> dict[str, Any]:
    """The result of a cell, from its file if it is there."""
    path = cell.path(folder)
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    found = run(cell, amount)
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found) + "\n")
    part.replace(path)
    return found


def attempt(cell: Cell, folder: Path, amount: Amount = FULL) -> str:
    """`answer` in a line of text, of what went wrong, too."""
    try:
        found = answer(cell, folder, amount)
    except (KalvitError, ValueError) as error:
        return f"{cell}: {error}"
    errors = [math.inf if e is None else e for e in found["mse"]]
    pooled = 10.0 * math.log10(max(1e-30, float(np.mean(errors))))
    worst = 10.0 * math.log10(max(1e-30, max(errors)))
    return (
        f"{cell}: {pooled:.2f} dB, worst {worst:.2f} dB, {found['preparation_s']:.0f} s "
        f"{found.get('setting', '')}"
    )
