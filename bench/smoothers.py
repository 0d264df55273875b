"""Smoothers that learn beside tuned ones, on the same trajectories.

    python -m bench.smoothers table FOLDER                        # all that is there
    python -m bench.smoothers table FOLDER taylor                 # one case
    python -m bench.smoothers train FOLDER taylor RTSNet 0          # with this seed, into FOLDER

Cases:

taylor    the decimated Lorenz attractor of KalmanNet, IV-D, and of RTSNet, T. VIII; trackers move
          by the papers' model, A(x) = [[-10, 10, 0], [28 - z, -1, 0], [y, 0, -8/3]] held over 20 ms
rk4       the same attractor; trackers take a Runge-Kutta step
linear0, linear-20   the linear system of two states of RTSNet, T. I, process noise of 0 and -20 dB
          to an observation noise of 0 dB, which trackers are told if they ask

Trajectories that smoothers learn from, on which they are tuned or stopped, and on which they are
tested are different ones, with starts of their own. Trackers know the start. Errors are mean
squared errors per number of the state in dB: pooled over trajectories, of the median and of the
worst one; "to RTS" is the mean difference, trajectory by trajectory, to the tuned extended RTS
smoother with the same model, with its 95 % interval. bench/SMOOTHERS.md holds a run.
"""

from __future__ import annotations

import argparse
import ast
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.kalmannet import MODEL, RUNGE_KUTTA, TAYLOR, decibel, simulated
from bench.lorenz import STEP_S, SUBSTEPS
from blocks.kernels import smoother, state_space
from blocks.kernels.rtsnet import Passes
from blocks.kernels.state_space import StateSpace
from pipeline.models import Models
from pipeline.weights import Weights

Array = np.ndarray[Any, Any]

LINEAR: dict[str, Any] = {
    "motion": "canonical",
    "observation": "identity",
    "observation_noise": 1.0,
}
SCHEDULES = (  # of the attractor, of the linear system
    {"steps": 1200, "piece": 50, "batch": 32, "long_steps": 400, "truncate": 100, "every": 100},
    {"steps": 100, "piece": 60, "batch": 32, "long_steps": 20, "truncate": 100, "every": 20},
)
GRID = tuple(10.0 ** (k / 3.0) for k in range(-21, 3))


class Data(NamedTuple):
    """Trajectories: states and observations (count, time, n), starts (count, n)."""

    states: Array
    observations: Array
    starts: Array


class Case(NamedTuple):
    """What is tracked.

    values   of the model that trackers have; without process_noise where that is to be tuned
    lessons  (count, steps, seed) -> trajectories to learn from, which all start near the model's
    draw     the same, from starts of their own
    sizes    trajectories and steps to learn from, to tune on, to test on
    """

    name: str
    values: dict[str, Any]
    lessons: Callable[[int, int, int], Data]
    draw: Callable[[int, int, int], Data]
    sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

    def model(self, **changes: Any) -> StateSpace:
        return state_space.build(**{**self.values, **changes})

    def training(self, seed: int) -> tuple[Data, Data]:
        """What is learned from with this seed, and what is held out meanwhile."""
        return self.lessons(*self.sizes[0], 100 + seed), self.lessons(*self.sizes[1], 200 + seed)

    def tuning(self) -> Data:
        return self.draw(*self.sizes[1], 21)

    def test(self) -> Data:
        return self.draw(*self.sizes[2], 22)


#: What a smoother makes of observations and starts: estimates (count, time, n).
Smooth = Callable[[Array, Array], Array]


class Method(NamedTuple):
    """A smoother.

    ready   case and weights -> the smoother, tuned, and what there is to say of it
    learn   case, seed, passes, schedule -> weights, the last of which are kept; None for what does
            not learn
    cases   in which it takes part
    """

    name: str
    ready: Callable[[Case, Weights | None], tuple[Smooth, str]]
    learn: Callable[[Case, int, int, dict[str, Any]], Iterator[Weights]] | None = None
    cases: tuple[str, ...] = ("taylor", "rk4", "linear0", "linear-20")


# --- What is tracked ------------------------------------------------------------------------------


def attractor(count: int, steps: int, seed: int) -> Data:
    return Data(*simulated(count, steps, seed))


def near(count: int, steps: int, seed: int) -> Data:
    """Trajectories of the attractor from starts so near to 1 that this may be taken for them.

    They have parted after some 300 steps.
    """
    rng = np.random.default_rng([seed, count, steps])
    model = state_space.build(**{**TAYLOR, "process_noise": 0.0})
    starts = 1.0 + 0.03 * rng.standard_normal((count, 3))
    states, seen = np.zeros((count * steps, 3)), rng.standard_normal((count * steps, 3))
    model.simulate(states, seen, np.full(count * steps, STEP_S), starts.copy(), substeps=SUBSTEPS)
    shape = count, steps, 3
    return Data(states.reshape(shape), seen.reshape(shape), starts)


def linear(process_noise: float) -> Callable[[int, int, int], Data]:
    """Trajectories of the linear system from its start, 0."""
    model = state_space.build(**LINEAR, process_noise=process_noise)

    def draw(count: int, steps: int, seed: int) -> Data:
        rng = np.random.default_rng([seed, count, steps])
        states, seen = rng.standard_normal((2, count * steps, 2))
        starts = np.zeros((count, 2))
        model.simulate(states, seen, np.ones(count * steps), starts.copy())
        return Data(states.reshape(count, steps, 2), seen.reshape(count, steps, 2), starts)

    return draw


FROZEN = {**TAYLOR, "motion_parameters": {"true_jacobian": 1.0}}
LORENZ_SIZES = (200, 1000), (8, 1000), (20, 3000)
LINEAR_SIZES = (1000, 100), (100, 100), (200, 1000)
CASES = {
    case.name: case
    for case in (
        Case("taylor", FROZEN, near, attractor, LORENZ_SIZES),
        Case("rk4", RUNGE_KUTTA, near, attractor, LORENZ_SIZES),
        Case("linear0", {**LINEAR, "process_noise": 1.0}, linear(1.0), linear(1.0), LINEAR_SIZES),
        Case(
            "linear-20", {**LINEAR, "process_noise": 0.01}, linear(0.01), linear(0.01), LINEAR_SIZES
        ),
    )
}


# --- Smoothers that are tuned ---------------------------------------------------------------------


def errors(estimates: Array, states: Array) -> Array:
    """Mean squared error of each trajectory; what is lost counts as infinitely far off."""
    off = np.square(estimates - states).mean((1, 2))
    return np.where(np.isfinite(off), off, np.inf)


def extended(model: StateSpace, iterations: int = 1) -> Smooth:
    """The extended RTS smoother over whole records."""

    def smooth(observations: Array, starts: Array) -> Array:
        found = np.full((*observations.shape[:2], model.size), np.nan)
        intervals = np.full(observations.shape[1], model.step_s)
        for track, (seen, start) in enumerate(zip(observations, starts, strict=True)):
            told = smoother.smooth(
                model, seen, intervals, start, model.initial_covariance, iterations
            )
            if not isinstance(told, int):
                found[track] = told[0]
        return found

    return smooth


@cache
def tuned_noise(case_name: str) -> float:
    """The process noise that is best for the extended RTS smoother."""
    case = CASES[case_name]
    if "process_noise" in case.values:
        return float(case.values["process_noise"])
    data = case.tuning()
    found = {}
    for q in GRID:
        smooth = extended(case.model(process_noise=q))
        found[q] = errors(smooth(data.observations, data.starts), data.states).mean()
    return min(found, key=lambda q: found[q])


def tuned(case: Case, weights: Weights | None) -> tuple[Smooth, str]:
    """The extended RTS smoother with that noise."""
    best = tuned_noise(case.name)
    return extended(case.model(process_noise=best)), f"q2 = {best:.2g}"


# --- RTSNet ---------------------------------------------------------------------------------------


def learn_passes(
    sees: str,
) -> Callable[[Case, int, int, dict[str, Any]], Iterator[Weights]]:
    """How to train an RTSNet."""

    def learn(case: Case, seed: int, passes: int, schedule: dict[str, Any]) -> Iterator[Weights]:
        import torch

        from blocks.models.rtsnet import PassNetwork
        from blocks.training.rtsnet import train_passes
        from blocks.training.trajectories import Schedule, Trajectories

        torch.set_num_threads(1)
        torch.manual_seed(seed)
        model = case.model(process_noise=tuned_noise(case.name))
        training, held_out = (
            Trajectories(d.states, d.observations, np.full(d.states.shape[:2], model.step_s))
            for d in case.training(seed)
        )
        # the way there starts from the shipped KalmanNet where that has this model
        models = Models(shipped=[Path(__file__).parents[1] / "flows" / "weights"])
        first = models.load(MODEL).arrays if case.name == "taylor" else None
        begin = time.process_time()
        for found in train_passes(
            PassNetwork, model, training, held_out, passes, Schedule(**schedule), seed, sees=sees,
            first=first if sees == "observations" else None, progress=told,
        ):  # fmt: skip
            losses = " ".join(f"{decibel(loss):.2f}" for loss in found.losses)
            spent = time.process_time() - begin
            print(f"held out {losses} dB, {spent:.0f} s", flush=True)
            yield Weights("rtsnet", 1, found.arrays, found.hyper)

    return learn


def told(done: int, most: int, text: str) -> None:
    print(done, most, text, flush=True)


def passed(case: Case, weights: Weights | None) -> tuple[Smooth, str]:
    """An RTSNet."""
    assert weights is not None
    model = case.model(process_noise=tuned_noise(case.name))
    made = Passes.of(weights.hyper, weights.arrays, model)
    before = extended(model)

    def smooth(observations: Array, starts: Array) -> Array:
        found = before(observations, starts) if made.sees == "smoothed" else observations
        intervals = np.full(observations.shape[:2], model.step_s)
        for one in made.passes:
            found = one.smooth(found, intervals, starts)
        return found

    return smooth, ""


RTS = Method("RTS smoother, tuned", tuned)

# One line for each smoother; one that learns is trained into FOLDER first.
METHODS: tuple[Method, ...] = (
    RTS,
    Method("RTSNet", passed, learn_passes("observations")),
    Method("RTS smoother and RTSNet", passed, learn_passes("smoothed")),
)


# --- Tables ---------------------------------------------------------------------------------------


def path_of(folder: Path, case: str, method: str, seed: int) -> Path:
    return folder / f"{case}-{method.replace(' ', '_')}-{seed}.weights"


def seeds_of(folder: Path, case: str, method: str) -> list[int]:
    """Seeds with which it was trained."""
    found = folder.glob(path_of(Path(), case, method, 0).stem[:-1] + "*.weights")
    return sorted(int(path.stem.rpartition("-")[2]) for path in found)


def table(folder: Path, case: Case) -> None:
    """Print what all smoothers reach."""
    test = case.test()
    count, steps, _ = test.states.shape
    print(f"{case.name}: {count} trajectories of {steps} steps")
    print(f"  {'':36} pooled  median   worst  to RTS")
    against = np.empty(0)

    def told(method: Method, weights: Weights | None) -> tuple[Array, str]:
        smooth, said = method.ready(case, weights)
        return errors(smooth(test.observations, test.starts), test.states), said

    for method in METHODS:
        if case.name not in method.cases:
            continue
        if method.learn is None:
            off, said = told(method, None)
            against = off if method is RTS else against
            print(row(method.name, off, against, said), flush=True)
            continue
        by_passes: dict[int, list[Array]] = {}
        for seed in seeds_of(folder, case.name, method.name):
            weights = Weights.from_bytes(path_of(folder, case.name, method.name, seed).read_bytes())
            most = weights.hyper.get("passes", 1)
            for passes in range(1, most + 1):  # each was trained when those after it were not there
                part = replace(weights, hyper={**weights.hyper, "passes": passes})
                off, said = told(method, part)
                by_passes.setdefault(passes, []).append(off)
                name = f"{method.name}-{passes}" if most > 1 else method.name
                print(row(f"{name}, seed {seed}", off, against, said), flush=True)
        for passes, found in by_passes.items():
            name = f"{method.name}-{passes}" if len(by_passes) > 1 else method.name
            if len(found) > 1:
                print(row(f"{name}, all {len(found)}", np.stack(found), against, ""), flush=True)


def row(name: str, off: Array, against: Array, said: str) -> str:
    """One line; of errors of several seeds (seed, trajectory) the difference is that of means."""
    three = "".join(f"{decibel(v):8.2f}" for v in (off.mean(), np.median(off), off.max()))
    by_track = 10.0 * np.log10(off.reshape(-1, off.shape[-1])).mean(0) - 10.0 * np.log10(against)
    half = 1.96 * by_track.std(ddof=1) / np.sqrt(len(by_track))
    return f"  {name:36}{three}  {by_track.mean():+6.2f} +-{half:.2f}  {said}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_subparsers(required=True, dest="what")
    one = what.add_parser("table")
    one.add_argument("folder", type=Path)
    one.add_argument("case", nargs="*", help=", ".join(CASES))
    two = what.add_parser("train")
    two.add_argument("folder", type=Path)
    two.add_argument("case", choices=CASES)
    two.add_argument("method", choices=[m.name for m in METHODS if m.learn])
    two.add_argument("seed", type=int)
    two.add_argument("--passes", type=int, default=2)
    two.add_argument(
        "--set", action="append", default=[], metavar="NAME=NUMBER",
        help="of Schedule in blocks/training/trajectories.py",
    )  # fmt: skip
    chosen = parser.parse_args()
    if chosen.what == "table":
        for name in chosen.case or CASES:
            table(chosen.folder, CASES[name])
        return
    schedule = dict(SCHEDULES[chosen.case.startswith("linear")])
    for text in chosen.set:
        key, _, number = text.partition("=")
        schedule[key] = ast.literal_eval(number)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    path = path_of(chosen.folder, chosen.case, chosen.method, chosen.seed)
    learn = next(m.learn for m in METHODS if m.name == chosen.method and m.learn)
    for weights in learn(CASES[chosen.case], chosen.seed, chosen.passes, schedule):
        path.write_bytes(weights.to_bytes())


if __name__ == "__main__":
    main()
