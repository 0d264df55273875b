"""Trackers that learn against filters tuned as well as they can be, where the model is not right.

    python -m bench.mismatch                            # everything, three seeds
    python -m bench.mismatch exact --seed 0 --only constant told --json exact_0.json
    python -m bench.mismatch --gather *.json            # the tables of such runs

The decimated Lorenz attractor as in bench/kalmannet.py: 20 unseen trajectories of 3000 steps, start
known, noise of variance 1 unless said otherwise. All trackers believe the same:

exact      one Runge-Kutta step of the right equations: nothing is wrong but linearisation
ode        the same with rho = 30.8 in place of 28, 10 % too much
rotated1   what is seen is rotated by 1 degree around each axis (Rz Ry Rx); they believe it is not
rotated5   by 5 degrees
unknown    the noise of each trajectory has a variance of its own, -10 ... 10 dB
stepping   it steps by 10 dB every 200 to 400 steps, between -10 and 10 dB
taylor     the papers' step with a frozen A(x), true Jacobian

Extended filters (EKF) are tuned on 16 validation trajectories of 2000 steps, of the same kind as
the others: q2 / r2 by 12 points per decade, which is all that matters where the start is known.
What learns does so on 20 trajectories of 2000 steps, other ones for each seed, and is stopped on
the validation trajectories; there it starts off by N(0, 10 I).

constant, told     learned noise, constant, or told by a network of 8 units
corrected          told, with a learned drift (ode, taylor) or tilt (rotated)
kalmannet          architecture #2, trained by blocks/training/kalmannet.py
least squares      the simple answer from the same labels, then tuned as the EKF: rho (ode) or H
                   (rotated) by regression on the states, or an affine correction of the prediction
                   (taylor); for noise that changes, the EKF with r2 estimated from its innovations
                   (Mehra), its window tuned
knows              the EKF with the right model, and told the noise at every step: a bound

Errors are mean squared errors per number of the state in dB: pooled, median and worst trajectory,
and the mean difference to the EKF trajectory by trajectory with its 95 % interval. nees is 3 where
a covariance is right.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.kalmannet import RUNGE_KUTTA, START_VARIANCE, TAYLOR, decibel, simulated
from bench.lorenz import STEP_S
from blocks.kernels import extended_kalman, kalmannet_filter, learned_noise, state_space
from blocks.kernels.calibration import Calibration
from blocks.kernels.kalman import Track
from blocks.kernels.state_space import StateSpace

Array = np.ndarray[Any, Any]

WRONG = {**RUNGE_KUTTA, "motion_parameters": {"rho": 30.8}}
FROZEN = {**TAYLOR, "motion_parameters": {"true_jacobian": 1.0}}
PARTS = ("exact", "ode", "rotated1", "rotated5", "unknown", "stepping", "taylor")
LEARNED = ("constant", "told", "corrected", "kalmannet")
TEST, VALIDATION, TRAINING = (20, 3000, 22), (16, 2000, 21), (20, 2000, 100)
GRID = 10.0 ** np.arange(-7.0, 1.01, 1.0 / 12.0)
UNITS, DRIFT = 8, 24


class Data(NamedTuple):
    """Trajectories: states and observations (count, time, 3), starts, and r2 (count, time)."""

    states: Array
    seen: Array
    starts: Array
    r2: Array


def rotation(degrees: float) -> Array:
    """Rz Ry Rx, each by this angle."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    y = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return z @ y @ x


def drawn(part: str, count: int, steps: int, seed: int) -> Data:
    states, seen, starts = simulated(count, steps, seed)
    noise, rng = seen - states, np.random.default_rng([seed, 7])
    r2 = np.ones((count, steps))
    if part == "unknown":
        r2 *= 10.0 ** rng.uniform(-1.0, 1.0, (count, 1))
    if part == "stepping":
        for row in r2:
            level, at = rng.integers(-1, 2), 0
            while at < steps:
                until = at + rng.integers(200, 401)
                row[at:until] = 10.0**level
                level, at = (rng.choice([-1, 1]) if level == 0 else 0), until
    H = turn(part)
    return Data(states, states @ H.T + np.sqrt(r2)[..., None] * noise, starts, r2)


def turn(part: str) -> Array:
    return rotation(float(part[-1])) if part.startswith("rotated") else np.eye(3)


def believed(part: str) -> dict[str, Any]:
    return {"ode": WRONG, "taylor": FROZEN}.get(part, RUNGE_KUTTA)


class Result(NamedTuple):
    """Mean squared error of each trajectory, mean nees over all (NaN: no covariance), a note."""

    errors: Array
    nees: float
    note: str = ""


def scored(data: Data, estimates: Array, covariances: Array | None, note: str = "") -> Result:
    off = estimates - data.states
    nees = np.nan
    if covariances is not None and np.isfinite(covariances).all():
        solved = np.linalg.solve(covariances, off[..., None])[..., 0]
        nees = float((off * solved).sum(-1).mean())
    errors = np.nan_to_num(np.square(off).mean((1, 2)), nan=1e6, posinf=1e6)
    return Result(errors, nees, note)


# --- filters --------------------------------------------------------------------------------------


def extended(model: StateSpace, data: Data) -> tuple[Array, Array]:
    out = Track.empty(data.seen.shape[:2], 3, 3)
    out.estimates[:] = np.nan
    for k, seen in enumerate(data.seen):
        extended_kalman.extended(
            model, seen, np.full(len(seen), STEP_S), data.starts[k].copy(), np.zeros((3, 3)),
            out.of(k),
        )  # fmt: skip
    return out.estimates, out.covariances


def tuned(values: dict[str, Any], validation: Data, test: Data, note: str = "") -> Result:
    """The EKF with the noise that is best on the validation trajectories."""
    best, chosen = np.inf, {}
    for q2 in GRID:
        trial = {**values, "process_noise": q2}
        estimates, _ = extended(state_space.build(**trial), validation)
        error = np.square(estimates - validation.states).mean()
        if error < best:  # not where it is NaN
            best, chosen = error, trial
    model = state_space.build(**chosen)
    return scored(test, *extended(model, test), f"{note}q2 = {chosen['process_noise']:.2g}")


def adaptive(
    values: dict[str, Any], data: Data, q2: float, window: float, known: bool
) -> tuple[Array, Array]:
    """EKFs side by side whose r2 is known at every step, or estimated from their innovations.

    Mehra, "On the identification of variances and adaptive Kalman filtering", IEEE Trans. Automatic
    Control 1970: the mean of e e' - H P H' over the past, here with weights that fall by e in
    `window` steps, and of all rows, so that r2 is one number; at least 1e-3.
    """
    from blocks.training.learned_noise import move

    model = state_space.build(**values)
    x, count = data.starts.copy(), len(data.seen)
    P, r2, F = np.zeros((count, 3, 3)), np.ones(count), np.empty((count, 3, 3))
    estimates, covariances = np.empty_like(data.seen), np.empty((*data.seen.shape, 3))
    after, one = np.empty_like(x), np.eye(3)
    for t in range(data.seen.shape[1]):
        move(model.linearise, model.parameters, x, np.full(count, STEP_S), after, F)
        P = F @ P @ F.transpose(0, 2, 1) + q2 * one
        e = data.seen[:, t] - after
        if known:
            r2 = data.r2[:, t]
        else:
            now = (np.square(e).sum(1) - P.trace(axis1=1, axis2=2)) / 3.0
            r2 = np.maximum(r2 + (now - r2) / min(window, t + 10.0), 1e-3)
        K = P @ np.linalg.inv(P + r2[:, None, None] * one)
        x = after + (K @ e[..., None])[..., 0]
        P = (one - K) @ P
        P = 0.5 * (P + P.transpose(0, 2, 1))
        estimates[:, t], covariances[:, t] = x, P
    return estimates, covariances


def best_adaptive(
    values: dict[str, Any], validation: Data, test: Data, windows: tuple[float, ...], known: bool
) -> Result:
    best, chosen = np.inf, (0.0, 0.0)
    for window in windows:
        for q2 in 10.0 ** np.arange(-6.5, -2.9, 0.5 if len(windows) > 1 else 0.25):
            with np.errstate(all="ignore"):
                estimates, _ = adaptive(values, validation, q2, window, known)
            error = np.square(estimates - validation.states).mean()
            if error < best:
                best, chosen = error, (q2, window)
    note = f"q2 = {chosen[0]:.2g}" + ("" if known else f", window {chosen[1]:.0f}")
    return scored(test, *adaptive(values, test, *chosen, known), note)


def simple(part: str, values: dict[str, Any], validation: Data, test: Data) -> Result | None:
    """The plain answer from the labels that the training of seed 0 has."""
    training = drawn(part, *TRAINING[:2], TRAINING[2])
    flat = training.states.reshape(-1, 3)
    if part.startswith("rotated"):
        H = np.linalg.lstsq(flat, training.seen.reshape(-1, 3), rcond=None)[0].T
        fitted = {**values, "observation_matrix": tuple(map(tuple, H))}
        off = float(np.abs(H - turn(part)).max())
        return tuned(fitted, validation, test, f"H to {off:.1g}, ")
    if part == "ode":
        rho = fitted_rho(training.states)
        fitted = {**values, "motion_parameters": {"rho": rho}}
        return tuned(fitted, validation, test, f"rho = {rho:.4f}, ")
    if part == "taylor":
        return affine(values, training, validation, test)
    if part in ("unknown", "stepping"):
        return best_adaptive(values, validation, test, (10.0, 20.0, 40.0, 80.0, 160.0), False)
    return None


def fitted_rho(states: Array) -> float:
    """By Gauss-Newton on errors of one step, from the believed value."""
    from blocks.training.learned_noise import move

    rho, before = 30.8, np.ascontiguousarray(states[:, :-1]).reshape(-1, 3)
    after = states[:, 1:].reshape(-1, 3)

    def predicted(rho: float) -> Array:
        model = state_space.build(**{**RUNGE_KUTTA, "motion_parameters": {"rho": rho}})
        out, F = np.empty_like(before), np.empty((len(before), 3, 3))
        move(model.linearise, model.parameters, before, np.full(len(before), STEP_S), out, F)
        return out

    for _ in range(5):
        off, slope = after - predicted(rho), (predicted(rho + 1e-4) - predicted(rho)) / 1e-4
        rho += float((off * slope).sum() / np.square(slope).sum())
    return rho


def affine(values: dict[str, Any], training: Data, validation: Data, test: Data) -> Result:
    """The filter with an affine correction of its prediction by least squares, and tuned q2."""
    network, best, chosen = fresh(values, training, drift=0), np.inf, None
    for q2 in GRID:
        arrays = {**network.arrays(), "process_root": 0.5 * np.log(q2) * np.eye(3)}
        noise = learned_noise.noise_of(network.hyper, arrays)
        error = np.square(filtered(noise, values, validation)[0] - validation.states).mean()
        if error < best:
            best, chosen, kept = error, noise, q2
    assert chosen is not None
    return scored(test, *filtered(chosen, values, test), f"affine, q2 = {kept:.2g}")


# --- what learns ----------------------------------------------------------------------------------


def trajectories(data: Data) -> Any:
    from blocks.training.trajectories import Trajectories

    return Trajectories(data.states, data.seen, np.full(data.r2.shape, STEP_S))


def fresh(
    values: dict[str, Any], training: Data, units: int = 0, drift: int = -1, tilt: bool = False
) -> Any:
    from blocks.models.learned_noise import NoiseNetwork
    from blocks.training.learned_noise import begin, regress

    model = state_space.build(**{**values, "process_noise": 1e-3})
    network = NoiseNetwork(3, 3, units, drift, tilt).double()
    begin(network, model)
    regress(network, model, trajectories(training))
    return network


def filtered(
    noise: learned_noise.Noise, values: dict[str, Any], data: Data,
    calibration: Calibration | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    one = learned_noise.Filter(noise, state_space.build(**values), calibration)
    out = Track.empty(data.seen.shape[:2], 3, 3)
    out.estimates[:] = np.nan
    for k, seen in enumerate(data.seen):
        one.run(
            seen, np.full(len(seen), STEP_S), data.starts[k].copy(), np.zeros((2, 3, 3)),
            one.hidden(), out.of(k),
        )  # fmt: skip
    return out.estimates, out.covariances


def learn(
    part: str, method: str, values: dict[str, Any], training: Data, validation: Data, test: Data,
    seed: int, share: float,
) -> Result:  # fmt: skip
    import torch

    from blocks.training.calibration import calibrated_noise
    from blocks.training.learned_noise import Unrolled
    from blocks.training.trajectories import Schedule, train

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    began = time.process_time()
    model = state_space.build(**values, initial_variance=START_VARIANCE)
    if method == "kalmannet":
        return with_kalmannet(values, training, validation, test, seed, share)
    options: dict[str, Any] = {"units": 0 if method == "constant" else UNITS}
    if method == "corrected":
        options |= {"tilt": True} if part.startswith("rotated") else {"drift": DRIFT}
    network = fresh(values, training, **options)
    schedule = Schedule(
        steps=round(800 * share), long_steps=round(1200 * share), rate=1e-2, decay=0.0, every=50,
        patience=100, truncate=100, batch=20,
    )  # fmt: skip
    found = train(
        Unrolled(network, model, LOSS), model, trajectories(training), trajectories(validation),
        schedule, seed, print,
    )  # fmt: skip
    noise = learned_noise.noise_of(network.hyper, network.arrays())
    spent = time.process_time() - began
    own = scored(test, *filtered(noise, values, test)).nees
    calibration = calibrated_noise(noise, model, trajectories(validation))
    took = time.process_time() - began - spent
    note = f"{found.steps} steps, {spent:.0f} s; nees before calibration {own:.3g}, {took:.0f} s"
    return scored(test, *filtered(noise, values, test, calibration), note)


LOSS = "mixed"


def with_kalmannet(
    values: dict[str, Any], training: Data, validation: Data, test: Data, seed: int, share: float
) -> Result:
    from blocks.kernels import kalmannet
    from blocks.models.kalmannet import network_of
    from blocks.training.kalmannet import Unrolled
    from blocks.training.trajectories import Schedule, train

    began = time.process_time()
    model = state_space.build(**values, initial_variance=START_VARIANCE)
    network = network_of(2, m=3, n=3)
    schedule = Schedule(steps=round(2500 * share), long_steps=round(1000 * share))
    found = train(
        Unrolled(network, model), model, trajectories(training), trajectories(validation),
        schedule, seed, print,
    )  # fmt: skip
    filters = kalmannet_filter.Filters(kalmannet.network_of(network.hyper, network.arrays()), model)
    tracks, out = filters.start(len(test.seen)), Track.empty(test.seen.shape[:2], 3, 3)
    tracks.mean[:] = tracks.seen[:] = test.starts
    filters.run(test.seen, np.full(test.r2.shape, STEP_S), tracks, out, together=True, spread=False)
    note = f"{found.steps} steps, {time.process_time() - began:.0f} s"
    return scored(test, out.estimates, None, note)


# --- tables ---------------------------------------------------------------------------------------


def run(part: str, seeds: list[int], only: list[str], share: float) -> dict[str, Result]:
    """Results by method, with its seed where it learns."""
    values, found = believed(part), {}
    test, validation = drawn(part, *TEST), drawn(part, *VALIDATION)
    plain: dict[str, Callable[[], Result | None]] = {
        "EKF": lambda: tuned(values, validation, test),
        "least squares": lambda: simple(part, values, validation, test),
        "knows": lambda: best_adaptive_known(part, validation, test),
    }
    for name, method in plain.items():
        if not only or "plain" in only:
            result = method()
            if result is not None:
                found[name] = result
    for method in LEARNED:
        changing = part in ("exact", "unknown", "stepping")
        if (only and method not in only) or (method == "corrected" and changing):
            continue
        for seed in seeds:
            training = drawn(part, *TRAINING[:2], TRAINING[2] + seed)
            found[f"{method}, seed {seed}"] = learn(
                part, method, values, training, validation, test, seed, share
            )
    return found


def best_adaptive_known(part: str, validation: Data, test: Data) -> Result | None:
    if part == "exact":
        return None
    if part.startswith("rotated"):
        right = {**RUNGE_KUTTA, "observation_matrix": tuple(map(tuple, turn(part)))}
        return tuned(right, validation, test)
    return best_adaptive(RUNGE_KUTTA, validation, test, (1.0,), True)


def table(part: str, found: dict[str, Result]) -> None:
    print(f"{part}: pooled, median, worst [dB]; to the EKF [dB]; nees")
    base = found.get("EKF")
    for name, result in found.items():
        errors, against = result.errors, ""
        if base is not None and name != "EKF":
            each = 10.0 * np.log10(errors / base.errors)
            half = 2.093 * each.std(ddof=1) / np.sqrt(len(each))  # t of 19 degrees of freedom
            against = f"{each.mean():+7.2f} +-{half:.2f}"
        print(
            f"  {name:20s} {decibel(errors.mean()):7.2f} {decibel(np.median(errors)):7.2f} "
            f"{decibel(errors.max()):7.2f}  {against:16s} {result.nees:8.2f}  {result.note}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="learned noise and KalmanNet beside tuned filters")
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2], help="of what learns")
    parser.add_argument("--only", nargs="+", default=[], help=f"plain, {', '.join(LEARNED)}")
    parser.add_argument("--share", type=float, default=1.0, help="of the usual steps of training")
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--gather", nargs="+", default=[], help="files of such results to print")
    given = parser.parse_args()
    results: dict[str, dict[str, Result]] = {}
    for file in given.gather:
        for part, found in json.loads(Path(file).read_text()).items():
            for name, (errors, nees, note) in found.items():
                results.setdefault(part, {})[name] = Result(np.array(errors), nees, note)
    for part in [] if given.gather else given.parts or PARTS:
        results[part] = run(part, given.seed, given.only, given.share)
        if given.json:  # after each part: a run may be cut short
            plain = {
                part: {name: (r.errors.tolist(), r.nees, r.note) for name, r in found.items()}
                for part, found in results.items()
            }
            Path(given.json).write_text(json.dumps(plain))
    order = ["EKF", "least squares", "knows", *LEARNED]
    for part in PARTS:
        if part in results:
            ranked = sorted(results[part].items(), key=lambda r: order.index(r[0].split(",")[0]))
            table(part, dict(ranked))


if __name__ == "__main__":
    main()
