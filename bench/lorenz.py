"""The decimated Lorenz attractor: every filter and smoother, tuned, on the same trajectories.

    python -m bench.lorenz                                     # 6 minutes on one core
    python -m bench.lorenz --trajectories 5 --particles 2000   # shorter
    python -m bench.lorenz --json lorenz.json

The experiment of KalmanNet, Revach et al., IEEE TSP 2022, IV-D: the attractor in steps of 10 us,
every 2000th seen in noise of variance 1, 3000 times, without process noise; the trackers take the
20 ms between two observations in one step. Here each trajectory starts at a draw of its own,
N(1, 10 I).

The noise that a tracker is told, q2, is a matter of its own linearisation, not of the data, so it
is looked for: on tuning trajectories, by their pooled error.
The tables show what that choice gives on other trajectories; their whole grids follow for
comparison. First the trackers know the start exactly (P0 = 0), then they are off by N(0, I) and
know that (P0 = I); particle filters then keep the settings of the first part.

Errors are mean squared errors per number of the state in dB, from the first observation on: pooled
over trajectories, of the median and of the worst one. "to EKF" is the mean difference, trajectory
by trajectory, to the extended filter with Runge-Kutta steps, with its 95 % interval. "expected" is
what other implementations were seen to give for a known start. bench/LORENZ.md holds a run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import extended_kalman, particle, smoother, state_space, unscented
from blocks.kernels.kalman import Track
from blocks.kernels.particle import Cloud
from blocks.kernels.smoother import Window
from blocks.kernels.state_space import StateSpace

Array = np.ndarray[Any, Any]

STEP_S, SUBSTEPS, START_VARIANCE = 0.02, 2000, 10.0
EKF = "EKF, RK4, true Jacobian"


def grid(low: float, high: float) -> tuple[float, ...]:
    """Three points per decade."""
    count = round(3 * np.log10(high / low))
    return tuple(float(f"{low * 10 ** (k / 3):.2g}") for k in range(count + 1))


class Setting(NamedTuple):
    """What a method is tuned over: q2, and for particle filters how far they shrink."""

    q2: float
    shrink: float = 1.0

    def __str__(self) -> str:
        return f"{self.q2:.2g}" + (f", shrink {self.shrink}" if self.shrink < 1.0 else "")


class Method(NamedTuple):
    """A tracker.

    run        (model, observations, setting, seed) -> estimates (time, 3)
    expected   figure of the reference for the known start [dB], or nothing
    settings   tried on the tuning trajectories
    is_fast    whether it is tuned in both parts of the study, and all of the grid is printed
    tuned_as   name of the method whose choice is taken; else its own
    """

    name: str
    run: Callable[[StateSpace, Array, Setting, int], Array]
    expected: str
    settings: tuple[Setting, ...]
    motion: str = "lorenz_rk4"
    own: dict[str, float] = {}  # noqa: RUF012
    is_fast: bool = True
    tuned_as: str = ""


class Trajectories(NamedTuple):
    """What is tracked: (trajectory, time, 3), and where the tracker thinks it starts."""

    states: Array
    observations: Array
    starts: Array
    start_variance: float


def simulated(count: int, steps: int, seed: int, start_variance: float) -> Trajectories:
    """Trajectories, with their true starts, or starts off by a draw of this variance."""
    rng = np.random.default_rng([seed, count, steps])
    model = state_space.build(
        "lorenz_taylor", "identity", step_s=STEP_S, process_noise=0.0, observation_noise=1.0
    )
    states = np.zeros((count * steps, 3))
    starts = 1.0 + np.sqrt(START_VARIANCE) * rng.standard_normal((count, 3))
    observations = rng.standard_normal((count * steps, 3))
    off = np.sqrt(start_variance) * rng.standard_normal((count, 3))
    model.simulate(
        states, observations, np.full(count * steps, STEP_S), starts.copy(), substeps=SUBSTEPS
    )
    shape = (count, steps, 3)
    return Trajectories(
        states.reshape(shape), observations.reshape(shape), starts + off, start_variance
    )


# --- The trackers ---------------------------------------------------------------------------------


def _intervals(observations: Array) -> Array:
    return np.full(len(observations), STEP_S)


def _filtered(out: Track | Cloud, done: int) -> Array:
    """Estimates; a filter that breaks stays where it was, and so counts as lost."""
    out.estimates[done:] = out.estimates[done - 1] if done else 0.0
    return out.estimates


def extended(model: StateSpace, observations: Array, setting: Setting, seed: int) -> Array:
    """Extended Kalman filter."""
    out = Track.empty((len(observations),), 3, 3)
    start = model.initial.copy(), model.initial_covariance.copy()
    return _filtered(
        out, extended_kalman.extended(model, observations, _intervals(observations), *start, out)
    )


def sigma_points(model: StateSpace, observations: Array, setting: Setting, seed: int) -> Array:
    """Unscented Kalman filter."""
    out = Track.empty((len(observations),), 3, 3)
    start = model.initial.copy(), model.initial_covariance.copy()
    return _filtered(
        out, unscented.unscented(model, observations, _intervals(observations), *start, out)
    )


def horizon(size: int, iterations: int) -> Callable[[StateSpace, Array, Setting, int], Array]:
    """Iterated smoother over the last observations, as a filter."""

    def run(model: StateSpace, observations: Array, setting: Setting, seed: int) -> Array:
        out, window = Track.empty((len(observations),), 3, 3), Window.begin(model, size)
        intervals = _intervals(observations)
        return _filtered(
            out, smoother.slide(model, observations, intervals, 0, window, iterations, out)
        )

    return run


def whole(model: StateSpace, observations: Array, setting: Setting, seed: int) -> Array:
    """Smoother over the whole record, once."""
    start = model.initial, model.initial_covariance
    return _smoothed(smoother.smooth(model, observations, _intervals(observations), *start))


def iterated(size: int, iterations: int) -> Callable[[StateSpace, Array, Setting, int], Array]:
    """Smoother over the whole record, iterated from what a window of this size found, or from 0."""

    def run(model: StateSpace, observations: Array, setting: Setting, seed: int) -> Array:
        start, around = (model.initial, model.initial_covariance), None
        if size:
            found = horizon(size, 1)(model, observations, setting, seed)
            around = np.concatenate([model.initial[None], found])
        return _smoothed(
            smoother.smooth(
                model, observations, _intervals(observations), *start, iterations, around
            )
        )

    return run


def _smoothed(found: tuple[Array, Array] | int) -> Array:
    """Estimates; a smoother that breaks has none, which ends the study."""
    assert not isinstance(found, int), found
    return found[0]


def particles(count: int) -> Callable[[StateSpace, Array, Setting, int], Array]:
    """Particle filter, with kernel smoothing where it shrinks."""

    def run(model: StateSpace, observations: Array, setting: Setting, seed: int) -> Array:
        out = Cloud.empty((len(observations),), 3, 3)
        cloud = particle.scatter(model, 2 * seed, 0, count)
        done = particle.bootstrap(
            model, 2 * seed + 1, 0, observations, _intervals(observations), *cloud, out,
            shrink=setting.shrink,
        )  # fmt: skip
        return _filtered(out, done)

    return run


def methods(count: int) -> list[Method]:
    """All of them; the large particle filter has so many particles."""

    def noises(low: float, high: float) -> tuple[Setting, ...]:
        return tuple(Setting(q2) for q2 in grid(low, high))

    everything, small = noises(1e-7, 1e-1), noises(1e-7, 1e-4)
    frozen = (*noises(1e-3, 1e-1), Setting(0.15), *noises(0.22, 1.0))
    shrunk = tuple(Setting(q2, a) for q2 in (1e-6, 1e-5) for a in (0.98, 0.995))
    chosen = "PF 2000, kernel-smoothed"
    return [
        Method("EKF, frozen A, F as Jacobian", extended, "-6.3", frozen, "lorenz_taylor"),
        Method(
            "EKF, frozen A, true Jacobian", extended, "-6.3", frozen, "lorenz_taylor",
            {"true_jacobian": 1.0},
        ),
        Method(EKF, extended, "-18", everything),
        Method("UKF, RK4", sigma_points, "", everything),
        Method("window of 1, 5 iterations", horizon(1, 5), "", small),
        Method("window of 10", horizon(10, 1), "-19", small),
        Method("window of 20", horizon(20, 1), "-19", small),
        Method("PF 1000, bootstrap", particles(1000), "", noises(1e-6, 1e-4), is_fast=False),
        Method(chosen, particles(2000), "-18.4", shrunk, is_fast=False),
        Method(
            f"PF {count}, kernel-smoothed", particles(count), "-18.4", (), is_fast=False,
            tuned_as=chosen,
        ),
        Method("RTS smoother, RK4", whole, "-27", everything),
        Method("RTS, 5 iterations", iterated(0, 5), "", small),
        Method("RTS, 5 around window of 10", iterated(10, 5), "", small),
    ]  # fmt: skip


# --- Errors ---------------------------------------------------------------------------------------


def decibel(values: Array) -> Array:
    """10 log10."""
    result: Array = 10.0 * np.log10(values)
    return result


def errors(method: Method, setting: Setting, given: Trajectories) -> tuple[Array, float]:
    """Mean squared error of each trajectory, and time per step [us]."""
    found = np.empty_like(given.states)
    models = [
        state_space.build(
            method.motion, "identity", step_s=STEP_S, process_noise=setting.q2,
            motion_parameters=method.own, initial_state=tuple(start.tolist()),
            initial_variance=given.start_variance,
        )
        for start in given.starts
    ]  # fmt: skip
    began = time.perf_counter()
    for k, model in enumerate(models):
        found[k] = method.run(model, given.observations[k], setting, k)
    spent = time.perf_counter() - began
    off = ((found - given.states) ** 2).mean(axis=(1, 2))
    return off, 1e6 * spent / given.states[:, :, 0].size


def three(off: Array) -> str:
    """Pooled, median and worst."""
    return "".join(
        f"{value:8.2f}" for value in (decibel(off.mean()), *decibel(np.quantile(off, [0.5, 1.0])))
    )


def study(
    tuning: Trajectories, unseen: Trajectories, chosen: list[Method], picked: dict[str, Setting]
) -> list[dict[str, Any]]:
    """Tune and run all methods; print their table, then the grids.

    picked   settings by method, taken where there is one; those of slow methods are added
    """
    print(f"{'':34}expected  pooled  median   worst  to EKF        us/step  q2 (of tuning)")
    rows: list[dict[str, Any]] = []
    against = np.empty(0)
    for method in chosen:
        tuned = {}
        if method.name not in picked:
            tuned = {setting: errors(method, setting, tuning)[0] for setting in method.settings}
        best = picked.get(method.tuned_as) or picked.get(method.name)
        best = best or min(tuned, key=lambda setting: tuned[setting].mean())
        if not method.is_fast:
            picked[method.name] = best
        found = {
            setting: errors(method, setting, unseen)
            for setting in (method.settings if method.is_fast else (best,))
        }
        off, spent = found[best]
        against = off if method.name == EKF else against
        beside = ""
        if against.size and method.name != EKF:
            difference = decibel(off) - decibel(against)
            half = 1.96 * difference.std(ddof=1) / np.sqrt(len(off)) if len(off) > 1 else np.nan
            beside = f"{difference.mean():+6.2f} +-{half:.2f}"
        print(
            f"{method.name:34}{method.expected:>8}{three(off)}  {beside:13} {spent:7.2f}  {best}",
            flush=True,
        )
        rows.append(
            {
                "method": method.name, "q2": best.q2, "shrink": best.shrink, "us_per_step": spent,
                "trajectories_db": decibel(off).tolist(), "pooled_db": float(decibel(off.mean())),
                "grid": [
                    {
                        "q2": setting.q2, "shrink": setting.shrink,
                        "tuning_db": float(decibel(tuned[setting].mean())),
                        **({"trajectories_db": decibel(found[setting][0]).tolist()}
                           if setting in found else {}),
                    }
                    for setting in tuned
                ],
            }
        )  # fmt: skip
    print("\nThe grids: pooled on the tuning trajectories | pooled, median, worst on the others")
    for row in rows:
        if row["grid"]:
            print(row["method"])
        for point in row["grid"]:
            setting = Setting(point["q2"], point["shrink"])
            other = point.get("trajectories_db")
            text = three(10.0 ** (np.array(other) / 10.0)) if other else ""
            mark = "  <- chosen" if setting == (row["q2"], row["shrink"]) else ""
            print(f"  {setting!s:22}{point['tuning_db']:8.2f} |{text}{mark}")
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trajectories", type=int, default=20, help="that nothing is tuned on")
    parser.add_argument("--tuning", type=int, default=10, help="trajectories to tune on")
    parser.add_argument("--steps", type=int, default=3000, help="observations per trajectory")
    parser.add_argument("--particles", type=int, default=20_000, help="of the large filter")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    results, picked = {}, dict[str, Setting]()
    for title, variance in (("start known, P0 = 0", 0.0), ("start off by N(0, I), P0 = I", 1.0)):
        tuning = simulated(options.tuning, options.steps, 2 * options.seed + 1, variance)
        unseen = simulated(options.trajectories, options.steps, 2 * options.seed, variance)
        print(f"{title}: {options.trajectories} trajectories of {options.steps} steps, tuned on "
              f"{options.tuning} others")  # fmt: skip
        off = ((unseen.observations - unseen.states) ** 2).mean(axis=(1, 2))
        print(f"{'the observations themselves':42}{three(off)}")
        # the large particle filter takes most of the time and forgets its start at once
        chosen = [m for m in methods(options.particles) if variance == 0.0 or not m.tuned_as]
        results[title] = study(tuning, unseen, chosen, picked)
        print()
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
