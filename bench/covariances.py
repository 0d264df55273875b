"""Trackers whose gain is learned: how far off they are, and whether their covariances say so.

    python -m bench.covariances                                       # all parts, hours
    python -m bench.covariances bimodal linear rotation lorenz_taylor lorenz_rk4 shipped speed
    python -m bench.covariances lorenz_taylor --kind split --seed 1   # one row of the table

Each row is a network that is trained here, calibrated on the trajectories that were held out, and
tried on others that it has never seen, ten times as long as what it was trained on or longer. The
filters beside it have the same model and start, and the noise that is true, or where the model is
wrong the q2 that tracks the held-out trajectories best.

linear         2 states, F = [[1, 1], [0, 1]], H = I, q2 = r2 = -20 dB
rotation       F = R(10 degrees), distance and bearing from the origin, q2 = -30 dB, r2 = -10 dB
bimodal        Mortada et al., EUSIPCO 2025: position and velocity, q2 = -40 dB of the velocity,
               position seen in noise of two kinds, 60 % of them 1.5625 r2, 40 % 0.15625 r2, where
               r2 / q2 is 20 ... 60 dB
lorenz_taylor  the decimated attractor of KalmanNet, r2 = 0 dB, frozen-A steps, true Jacobian
lorenz_rk4     the same with Runge-Kutta steps
shipped        the network that is shipped for the attractor, before and after its calibration
speed          a step of each within a frame, one track, 3 states and observations; of learned noise
               with Runge-Kutta steps

MSE is in dB, per number of a state: pooled, median and worst trajectory. NEES should be the number
of states, NIS that of rows of an observation; "band" is where 95 % of such means lie that are right
(as sink.tracking_error has it). bench/COVARIANCES.md holds a run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bench.kalmannet import RUNGE_KUTTA, START_VARIANCE, TAYLOR, decibel, simulated
from bench.lorenz import STEP_S
from blocks.kernels import consistency, extended_kalman, kalmannet, state_space
from blocks.kernels.calibration import Calibration
from blocks.kernels.kalman import Track
from blocks.kernels.kalmannet_filter import Filters, Network
from blocks.kernels.state_space import StateSpace
from pipeline.models import Models

Array = np.ndarray[Any, Any]

KINDS = ("kalmannet", "split", "recursive")
SEEDS = (0, 1, 2)
NOISES = tuple(10.0 ** (k / 3.0) for k in range(-18, 2))


class Known(NamedTuple):
    """Trajectories with their states; as blocks.training.trajectories.Trajectories."""

    states: Array
    observations: Array
    intervals: Array


class Setting(NamedTuple):
    """A system to track.

    model      that trackers assume
    drawn      (count, steps, seed) -> trajectories
    sizes      (count, steps) of training, held-out and test trajectories
    schedule   how to train: what differs from the default
    tuned      values of the model whose q2 filters tune; none: the model's is true
    """

    model: StateSpace
    drawn: Callable[[int, int, int], Known]
    sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    schedule: dict[str, Any]
    tuned: dict[str, Any]


def from_model(model: StateSpace, true: Callable[[Any, Array], None] | None = None) -> Any:
    """Draws of a model, started where it says, with noise of observations of its own if given."""

    def drawn(count: int, steps: int, seed: int) -> Known:
        rng = np.random.default_rng([seed, count, steps])
        states = rng.standard_normal((count * steps, model.size))
        seen = rng.standard_normal((count * steps, model.rows))
        if true is not None:
            true(rng, seen)
        starts = model.initial + np.sqrt(model.initial_covariance.diagonal()) * (
            rng.standard_normal((count, model.size))
        )
        model.simulate(states, seen, np.full(count * steps, model.step_s), starts)
        return Known(
            states.reshape(count, steps, -1), seen.reshape(count, steps, -1),
            np.full((count, steps), model.step_s),
        )  # fmt: skip

    return drawn


def two_kinds(rng: Any, seen: Array) -> None:
    """Standard normal numbers become those of the mixture, of variance 1."""
    seen *= np.sqrt(np.where(rng.random(seen.shape) < 0.6, 1.5625, 0.15625))


def linear() -> dict[str, Setting]:
    model = state_space.build("canonical", "identity", process_noise=0.01, observation_noise=0.01)
    schedule = {"steps": 1200, "piece": 20, "batch": 64, "long_steps": 0, "rate": 3e-3}
    sizes = (1000, 21), (150, 200), (200, 200)
    return {"linear": Setting(model, from_model(model), sizes, schedule, {})}


def rotation() -> dict[str, Setting]:
    c, s = np.cos(np.pi / 18.0), np.sin(np.pi / 18.0)
    values: dict[str, Any] = {
        "observation": "range_bearing", "transition": ((c, -s), (s, c)), "process_noise": 1e-3,
        "observation_noise": 0.1, "initial_state": (1.0, 0.0),
    }  # fmt: skip
    model = state_space.build(**values)
    schedule = {"steps": 2000, "piece": 20, "long_steps": 300, "truncate": 0, "batch": 32}
    sizes = (1000, 21), (100, 200), (200, 200)
    return {"rotation": Setting(model, from_model(model), sizes, schedule, values)}


def bimodal() -> dict[str, Setting]:
    found = {}
    for ratio in (20, 30, 40, 50, 60):
        model = state_space.build(
            transition=((1.0, 1.0), (0.0, 1.0)), observation_matrix=((1.0, 0.0),),
            process_covariance=((0.0, 0.0), (0.0, 1e-4)),
            observation_noise=1e-4 * 10.0 ** (ratio / 10.0), initial_state=(0.0, 1.0),
            initial_variance=(1.0, 0.01),
        )  # fmt: skip
        schedule = {"steps": 0, "piece": 60, "long_steps": 1500, "truncate": 0, "rate": 4e-3}
        sizes = (1000, 150), (200, 150), (1000, 150)
        drawn = from_model(model, two_kinds)
        found[f"bimodal_{ratio}"] = Setting(model, drawn, sizes, schedule, {})
    return found


def lorenz(values: dict[str, Any]) -> Setting:
    def drawn(count: int, steps: int, seed: int) -> Known:
        states, seen, _ = simulated(count, steps, seed)
        return Known(states, seen, np.full(seen.shape[:2], STEP_S))

    model = state_space.build(**values)
    schedule = {"steps": 1500, "long_steps": 400}
    return Setting(model, drawn, ((20, 1500), (10, 1500), (20, 3000)), schedule, values)


def lorenz_taylor() -> dict[str, Setting]:
    exact = {"motion_parameters": {"true_jacobian": 1.0}, "initial_variance": START_VARIANCE}
    return {"lorenz_taylor": lorenz({**TAYLOR, **exact})}


def lorenz_rk4() -> dict[str, Setting]:
    return {"lorenz_rk4": lorenz({**RUNGE_KUTTA, "initial_variance": START_VARIANCE})}


# --- what is measured -----------------------------------------------------------------------------


def report(name: str, out: Track, test: Known, beside: Array | None = None) -> Array:
    """Print a row; returns the squared error of each trajectory."""
    m, n = test.states.shape[2], test.observations.shape[2]
    errors: Array = np.square(out.estimates - test.states).mean((1, 2))
    sums, work, nothing = np.zeros(consistency.SUMS), np.empty((2, m, m)), np.empty(0)
    for track in range(len(errors)):
        sums[consistency.NEES_LAST] = np.nan
        consistency.add_errors(
            test.states[track], out.estimates[track], out.covariances[track], 0, 0, 0, sums,
            np.zeros(1), nothing, work,
        )  # fmt: skip
        consistency.add_innovations(out.innovations[track], out.nis[track], 0, sums)
    steps = sums[consistency.NEES_STEPS]
    told = f"{name:34s} {decibel(errors.mean()):7.2f} {decibel(np.median(errors)):7.2f}"
    told += f" {decibel(errors.max()):7.2f}"
    if steps:
        low, high = consistency.band(m, consistency.independent_steps(sums))
        told += f"  NEES {sums[consistency.NEES] / steps:7.3f} of {m}"
        told += f" (band {low:.3f} {high:.3f}, {steps / sums[consistency.STEPS]:4.0%} of steps)"
    if sums[consistency.NIS_STEPS]:
        told += f"  NIS {sums[consistency.NIS] / sums[consistency.NIS_DEGREES] * n:6.3f} of {n}"
    if beside is not None:
        ahead = paired(beside, errors)
        told += f"  ahead {ahead[0]:+.2f} dB ({ahead[1]:+.2f} {ahead[2]:+.2f})"
    print(told, flush=True)
    return errors


def paired(beside: Array, errors: Array) -> tuple[float, float, float]:
    """By how many dB the pooled error is less than that beside, with its 95 % interval."""
    rng = np.random.default_rng(1)
    which = rng.integers(0, len(errors), (2000, len(errors)))
    ratios = 10.0 * np.log10(beside[which].mean(1) / errors[which].mean(1))
    low, high = np.quantile(ratios, (0.025, 0.975))
    return decibel(beside.mean() / errors.mean()), float(low), float(high)


def extended(model: StateSpace, known: Known) -> Track:
    """The extended Kalman filter, which is the Kalman filter of a linear model."""
    out = Track.empty(known.observations.shape[:2], model.size, model.rows)
    for track, seen in enumerate(known.observations):
        done = extended_kalman.extended(
            model, seen.copy(), known.intervals[track].copy(), model.initial.copy(),
            model.initial_covariance.copy(), out.of(track),
        )  # fmt: skip
        out.estimates[track, done:] = np.inf
    return out


def best_filter(setting: Setting, held_out: Known) -> tuple[str, StateSpace]:
    if not setting.tuned:
        return "Kalman filter, true noise", setting.model
    found = {}
    for q in NOISES:
        model = state_space.build(**{**setting.tuned, "process_noise": q})
        error = np.square(extended(model, held_out).estimates - held_out.states).mean()
        found[q] = np.inf if np.isnan(error) else error
    best = min(found, key=lambda q: found[q])
    return f"extended filter, q2 = {best:.2g}", state_space.build(
        **{**setting.tuned, "process_noise": best}
    )


def knows_which(setting: Setting, test: Known, seed: int) -> Track:
    """The Kalman filter that is told of which kind the noise of each observation is."""
    rng = np.random.default_rng([seed, *test.states.shape[:2]])
    count, steps, m = test.states.shape
    rng.standard_normal((count * steps, m))
    rng.standard_normal((count * steps, 1))
    first = (rng.random((count * steps, 1)) < 0.6).reshape(count, steps)
    model = setting.model
    F, Q, _ = model.matrices(np.ones(1))
    out = Track.empty((count, steps), m, 1)
    x = np.tile(model.initial, (count, 1))
    P = np.tile(model.initial_covariance, (count, 1, 1))
    for t in range(steps):
        x, P = x @ F[0].T, F[0] @ P @ F[0].T + Q[0]
        S = P[:, 0, 0] + model.R[0, 0] * np.where(first[:, t], 1.5625, 0.15625)
        off = test.observations[:, t, 0] - x[:, 0]
        K = P[:, :, 0] / S[:, None]
        x, P = x + K * off[:, None], P - K[:, :, None] * P[:, None, 0]
        out.estimates[:, t], out.covariances[:, t], out.innovations[:, t, 0] = x, P, off
        out.nis[:, t], out.det[:, t] = off * off / S, S
    return out


def trained(kind: str, setting: Setting, seed: int, known: Known, held_out: Known) -> Any:
    """A network for the kernels, and processor seconds."""
    import torch

    from blocks.kernels import recursive_kalmannet, split_kalmannet
    from blocks.models.kalmannet import network_of
    from blocks.trainer import recursive_kalmannet as trainer_recursive
    from blocks.trainer import split_kalmannet as trainer_split
    from blocks.training import recursive_kalmannet as recursive
    from blocks.training import split_kalmannet as split
    from blocks.training.kalmannet import Unrolled
    from blocks.training.trajectories import Schedule, Trajectories, train
    from blocks.training.usual import usual

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model, begin = setting.model, time.process_time()
    m, n = model.size, model.rows
    training = Trajectories(*known)
    learner: Any
    if kind == "kalmannet":
        kernel, learner = kalmannet.network_of, Unrolled(network_of(2, m=m, n=n), model)
    elif kind == "split":
        kernel = split_kalmannet.network_of
        learner = split.Split(trainer_split.network_like(usual(model, training), in_mult=20), model)
    else:
        kernel = recursive_kalmannet.network_of
        learner = recursive.Likely(trainer_recursive.network_like(usual(model, training)), model)
    schedule = Schedule()._replace(**setting.schedule)

    def progress(done: int, most: int, text: str) -> None:
        if done % 500 == 0:
            print(f"  {kind} {seed}: {done} of {most}, {text}", flush=True)

    train(learner, model, training, Trajectories(*held_out), schedule, seed, progress)
    network = learner.network
    return kernel(network.hyper, network.arrays()), time.process_time() - begin


def rows(settings: dict[str, Setting], kinds: Sequence[str], seeds: Sequence[int]) -> None:
    from blocks.training.calibration import calibrated, filtered
    from blocks.training.trajectories import Trajectories

    for name, setting in settings.items():
        training, held_out, test = (
            setting.drawn(*size, 100 + k) for k, size in enumerate(setting.sizes)
        )
        print(f"{name}: MSE pooled, median, worst", flush=True)
        if name.startswith("bimodal"):
            report("Kalman filter that knows which", knows_which(setting, test, 102), test)
        said, model = best_filter(setting, held_out)
        beside = report(said, extended(model, test), test)
        for kind in kinds:
            for seed in seeds:
                known = setting.drawn(*setting.sizes[0], 200 + seed) if seed else training
                network, seconds = trained(kind, setting, seed, known, held_out)
                begin = time.process_time()
                calibration = calibrated(network, setting.model, Trajectories(*held_out))
                more = time.process_time() - begin
                for what, how in (("before", None), ("calibrated", calibration)):
                    out = filtered(
                        Filters(network, setting.model, how), Trajectories(*test), spread=True
                    )
                    report(f"{kind}, seed {seed}, {what}", out, test, beside)
                print(
                    f"  {seconds:.0f} s of training, {more:.0f} s of calibration; c = "
                    f"{calibration.share:.3f}, Q = {np.diag(calibration.process)}", flush=True
                )  # fmt: skip


# --- what is shipped, and what a step costs -------------------------------------------------------


def shipped_network() -> tuple[Network, Calibration | None]:
    weights = Models().load("lorenz_kalmannet")
    network = kalmannet.network_of(weights.hyper, weights.arrays)
    return network, Calibration.of(weights.arrays, 3, 3)


def shipped() -> None:
    from blocks.training.calibration import filtered
    from blocks.training.trajectories import Trajectories

    (setting,) = lorenz_taylor().values()
    test = Known(*setting.drawn(20, 3000, 22))
    network, calibration = shipped_network()
    print("shipped, lorenz_taylor: MSE pooled, median, worst")
    for what, how in (("gain alone", None), ("calibrated", calibration)):
        out = filtered(Filters(network, setting.model, how), Trajectories(*test), spread=True)
        report(f"lorenz_kalmannet, {what}", out, test)


def speed(rounds: int = 15, steps: int = 2000) -> None:
    import torch

    from blocks.kernels import learned_noise, recursive_kalmannet, split_kalmannet
    from blocks.models.learned_noise import NoiseNetwork
    from blocks.models.recursive_kalmannet import RecursiveNetwork
    from blocks.models.split_kalmannet import SplitNetwork

    (setting,) = lorenz_taylor().values()
    model, known = setting.model, setting.drawn(1, steps, 9)
    network, _ = shipped_network()
    calibration = Calibration(0.01 * np.eye(3), np.eye(3), 1.0)
    torch.manual_seed(0)
    split, recursive = SplitNetwork(3, 3), RecursiveNetwork(3, 3)
    narrow = SplitNetwork(3, 3, in_mult=20)
    made = {
        "KalmanNet, no covariances": (Filters(network, model), False),
        "KalmanNet, what the gain tells": (Filters(network, model), True),
        "KalmanNet, calibrated": (Filters(network, model, calibration), True),
    }
    for said, module, kernel in (
        ("Split-KalmanNet", split, split_kalmannet), ("the same, in_mult = 20", narrow,
        split_kalmannet), ("Recursive KalmanNet", recursive, recursive_kalmannet),
    ):  # fmt: skip
        filters = Filters(kernel.network_of(module.hyper, module.arrays()), model, calibration)
        made[f"{said}, calibrated"] = filters, True
    out = Track.empty((1, steps), 3, 3)
    works: dict[str, Callable[[], Any]] = {
        name: lambda filters=filters, spread=spread: filters.run(
            known.observations, known.intervals, filters.start(1), out, together=False,
            spread=spread,
        )
        for name, (filters, spread) in made.items()
    }  # fmt: skip
    beside = Calibration(0.01 * np.eye(3), np.empty((0, 0)), 1.0)
    right = state_space.build(**RUNGE_KUTTA)
    for units in (0, 8, 16):
        module = NoiseNetwork(3, 3, units)
        noise = learned_noise.noise_of(module.hyper, module.arrays())
        for what, how in (("", None), (", calibrated", beside)):
            one = learned_noise.Filter(noise, right, how)
            told = f"told by {units} units" if units else "constant"
            works[f"learned noise, {told}{what}"] = lambda one=one: one.run(
                known.observations[0], known.intervals[0], right.initial.copy(),
                np.zeros((2, 3, 3)), one.hidden(), out.of(0),
            )  # fmt: skip
    found: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            begin = time.thread_time()
            work()
            if turn:
                found[name].append((time.thread_time() - begin) / steps)
    print("us per step, Lorenz attractor, one track: median and least of", rounds, "rounds")
    for name, times in found.items():
        print(f"  {name:40s} {statistics.median(times) * 1e6:7.2f} {min(times) * 1e6:7.2f}")


PARTS: dict[str, Callable[[], Any]] = {
    "linear": linear, "rotation": rotation, "bimodal": bimodal, "lorenz_taylor": lorenz_taylor,
    "lorenz_rk4": lorenz_rk4, "shipped": shipped, "speed": speed,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Trackers with learned gains: are they consistent")
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--kind", choices=KINDS, help="only this tracker")
    parser.add_argument("--seed", type=int, help="only this seed")
    parser.add_argument("--noise", type=int, help="of bimodal, only this r2 / q2 in dB")
    parser.add_argument("--share", type=float, default=1.0, help="of the usual steps of training")
    given = parser.parse_args()
    kinds = (given.kind,) if given.kind else KINDS
    seeds = SEEDS if given.seed is None else (given.seed,)
    for part in given.parts or PARTS:
        settings = PARTS[part]()
        if settings is None:
            continue
        for name, setting in settings.items():
            if given.noise is not None and name != f"bimodal_{given.noise}":
                continue
            for key in ("steps", "long_steps"):
                setting.schedule[key] = int(given.share * setting.schedule[key])
            rows({name: setting}, kinds, seeds)


if __name__ == "__main__":
    main()
