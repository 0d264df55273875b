"""KalmanNet: what a step costs, and how well it tracks beside filters that were tuned.

    python -m bench.kalmannet                      # all parts
    python -m bench.kalmannet speed lorenz missing linear

speed    a step within a frame, Lorenz attractor, 3 states and observations: ours, with and without
         covariances, and the published form rebuilt in torch from its description (model, features,
         layers of bench/test_networks.py, correction; a step per call), in interleaved rounds;
         processor time of the thread, so that what else runs does not count
lorenz   the decimated attractor of the paper, IV-D: the shipped network on 20 trajectories of 3000
         steps that it has never seen, with filters that start at the true state or at a guess that
         is off by N(0, 10 I), beside extended filters whose noise was tuned on other trajectories
missing  the same with 10 % and 30 % of the observations left out, each row alone or all at once
linear   the linear system of two states of the paper: trained here on 20 steps, three seeds, tested
         on 200 beside the Kalman filter

bench/KALMANNET.md holds a run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.lorenz import STEP_S, SUBSTEPS
from blocks.kernels import extended_kalman, kalman, kalmannet, state_space
from blocks.kernels.kalman import Track
from blocks.kernels.kalmannet_filter import Filters
from blocks.kernels.state_space import StateSpace
from pipeline.models import Models

Array = np.ndarray[Any, Any]

MODEL = "lorenz_kalmannet"
TAYLOR = {
    "motion": "lorenz_taylor", "observation": "identity", "step_s": STEP_S,
    "observation_noise": 1.0,
}  # fmt: skip
RUNGE_KUTTA = {**TAYLOR, "motion": "lorenz_rk4"}
START_VARIANCE = 10.0
ROUNDS = 15


def decibel(value: Any) -> float:
    return float(10.0 * np.log10(value))


def shipped() -> kalmannet.Gain | kalmannet.SingleGain:
    weights = Models().load(MODEL)
    return kalmannet.network_of(weights.hyper, weights.arrays)


# --- speed ----------------------------------------------------------------------------------------


def published(rows: int) -> Callable[[Array], None]:
    """One step of the published form in torch, for one observation (rows, 3) per call."""
    import torch
    from torch.nn.functional import normalize

    from bench.test_networks import GainNetwork

    net = GainNetwork(3, 3)
    base = torch.tensor([[-10.0, 10.0, 0.0], [28.0, -1.0, 0.0], [0.0, 0.0, -8.0 / 3.0]])
    one = torch.eye(3)
    states = {name: torch.ones(rows, 3) for name in ("mean", "before", "predicted", "seen")}
    hidden = [torch.zeros(1, rows, 9)] * 3

    def step(observation: Array) -> None:
        nonlocal hidden
        y = torch.from_numpy(observation)
        x = states["mean"]
        A = base.repeat(rows, 1, 1)
        A[:, 1, 0] -= x[:, 2]
        A[:, 2, 0] += x[:, 1]
        F, term = one.repeat(rows, 1, 1), one.repeat(rows, 1, 1)
        for j in range(1, 6):
            term = torch.bmm(term, A * (STEP_S / j))
            F = F + term
        predicted = torch.bmm(F, x[:, :, None])[:, :, 0]
        parts = (
            y - states["seen"], y - predicted, x - states["before"], x - states["predicted"]
        )  # fmt: skip
        features = torch.cat([normalize(part, dim=1, eps=1e-12) for part in parts], 1)[None]
        gain, *hidden = net(features, *hidden)
        update = torch.bmm(gain.reshape(rows, 3, 3), (y - predicted)[:, :, None])[:, :, 0]
        states.update(before=x, predicted=predicted, seen=y, mean=predicted + update)

    return step


def speed() -> None:
    import torch

    torch.set_num_threads(1)
    model, network = state_space.build(**TAYLOR), shipped()
    filters = Filters(network, model)
    works: dict[str, tuple[Callable[[], Any], float]] = {}
    _, seen, _ = simulated(100, 100, 9)
    for rows, steps in ((1, 2000), (100, 50)):
        together = rows > 1
        long = (
            np.ascontiguousarray(seen.reshape(1, -1, 3)[:, :steps])
            if rows == 1
            else seen[:, :steps].copy()
        )
        intervals = np.full(long.shape[:2], STEP_S)
        out = Track.empty(long.shape[:2], 3, 3)

        def ours(
            spread: bool, long: Array = long, intervals: Array = intervals, out: Track = out,
            together: bool = together, count: int = rows,
        ) -> None:  # fmt: skip
            filters.run(
                long, intervals, filters.start(count), out, together=together, spread=spread
            )

        works[f"ours, {rows}"] = (lambda run=ours: run(False)), rows * steps
        works[f"ours with covariances, {rows}"] = (lambda run=ours: run(True)), rows * steps
        step = published(rows)
        y = np.ascontiguousarray(seen[:rows, 0], np.float32)

        def without_graph(step: Any = step, y: Array = y) -> None:
            with torch.no_grad():
                for _ in range(20):
                    step(y)

        works[f"published form in torch, no_grad, {rows}"] = without_graph, rows * 20
    for work, _ in works.values():
        work()
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, (work, units) in works.items():
            begin = time.thread_time()
            work()
            found[name].append((time.thread_time() - begin) / units)
    print("us per track and step, median and least of", ROUNDS, "rounds")
    for name, times in found.items():
        rows = name.rpartition(" ")[2]
        ratio = statistics.median(a / b for a, b in zip(times, found[f"ours, {rows}"], strict=True))
        print(
            f"  {name:45s} {statistics.median(times) * 1e6:8.2f} {min(times) * 1e6:8.2f}"
            f"   {ratio:6.1f} x ours"
        )


# --- the attractor --------------------------------------------------------------------------------


def simulated(count: int, steps: int, seed: int) -> tuple[Array, Array, Array]:
    """States and observations (count, steps, 3) of the attractor, and where each started."""
    rng = np.random.default_rng([seed, count, steps])
    model = state_space.build(**{**TAYLOR, "process_noise": 0.0})
    starts = 1.0 + np.sqrt(START_VARIANCE) * rng.standard_normal((count, 3))
    states, seen = np.zeros((count * steps, 3)), rng.standard_normal((count * steps, 3))
    model.simulate(states, seen, np.full(count * steps, STEP_S), starts.copy(), substeps=SUBSTEPS)
    return states.reshape(count, steps, 3), seen.reshape(count, steps, 3), starts


def with_network(model: StateSpace, seen: Array, starts: Array) -> Array:
    filters = Filters(shipped(), model)
    tracks = filters.start(len(seen))
    tracks.mean[:] = tracks.seen[:] = starts
    out = Track.empty(seen.shape[:2], 3, 3)
    filters.run(seen, np.full(seen.shape[:2], STEP_S), tracks, out, together=True)
    return out.estimates


def with_extended(model: StateSpace, seen: Array, starts: Array, variance: float) -> Array:
    out = Track.empty(seen.shape[:2], 3, 3)
    for track in range(len(seen)):
        extended_kalman.extended(
            model, seen[track], np.full(seen.shape[1], STEP_S), starts[track].copy(),
            variance * np.eye(3), out.of(track),
        )  # fmt: skip
    return out.estimates


def row(name: str, estimates: Array, states: Array) -> None:
    errors = np.square(estimates - states).mean((1, 2))
    print(
        f"  {name:42s} {decibel(errors.mean()):8.2f} {decibel(np.median(errors)):8.2f} "
        f"{decibel(errors.max()):8.2f}"
    )


def lorenz() -> None:
    tuning = simulated(8, 1000, 21)
    states, seen, starts = simulated(20, 3000, 22)
    noises = [10.0 ** (k / 3.0) for k in range(-18, 2)]
    taylor = state_space.build(**TAYLOR)
    print("MSE in dB, 20 unseen trajectories of 3000 steps: pooled, median, worst")
    for said, variance in (("true start", 0.0), ("start off by N(0, 10 I)", START_VARIANCE)):
        print(said)
        guess = starts if not variance else np.ones_like(starts)
        row("KalmanNet, Taylor", with_network(taylor, seen, guess), states)
        for name, values in (
            ("EKF, Taylor, F(x) as Jacobian", TAYLOR),
            ("EKF, Taylor, true Jacobian", {**TAYLOR, "motion_parameters": {"true_jacobian": 1.0}}),
            ("EKF, RK4, true Jacobian", RUNGE_KUTTA),
        ):  # fmt: skip
            found = {}
            for q in noises:
                model = state_space.build(**{**values, "process_noise": q})
                begin = tuning[2] if not variance else np.ones_like(tuning[2])
                estimates = with_extended(model, tuning[1], begin, variance)
                found[q] = np.nan_to_num(np.square(estimates - tuning[0]).mean(), nan=np.inf)
            best = min(found, key=lambda q: found[q])
            model = state_space.build(**{**values, "process_noise": best})
            row(f"{name}, q2 = {best:.2g}", with_extended(model, seen, guess, variance), states)


def missing() -> None:
    states, seen, starts = simulated(20, 3000, 22)
    taylor = state_space.build(**TAYLOR)
    best = state_space.build(**{**TAYLOR, "process_noise": 0.15})
    print("MSE in dB with observations left out, true start: pooled, median, worst")
    rng = np.random.default_rng(5)
    for share in (0.1, 0.3):
        for what, shape in (("rows", seen.shape), ("whole observations", (*seen.shape[:2], 1))):
            holed = np.where(rng.random(shape) < share, np.nan, seen)
            print(f"{share:.0%} of the {what}")
            row("KalmanNet, Taylor", with_network(taylor, holed, starts), states)
            row("EKF, Taylor, q2 = 0.15", with_extended(best, holed, starts, 0.0), states)


# --- the linear system ----------------------------------------------------------------------------


def linear() -> None:
    import torch

    from blocks.models.kalmannet import network_of
    from blocks.training.kalmannet import Unrolled
    from blocks.training.trajectories import Schedule, Trajectories, train

    torch.set_num_threads(1)
    model = state_space.build("canonical", "identity", process_noise=0.01, observation_noise=0.01)

    def drawn(count: int, length: int, seed: int) -> Trajectories:
        rng = np.random.default_rng(seed)
        states, seen = rng.standard_normal((2, count * length, 2))
        intervals = np.ones(count * length)
        model.simulate(states, seen, intervals, np.zeros((count, 2)))
        shape = (count, length, 2)
        return Trajectories(states.reshape(shape), seen.reshape(shape), np.ones(shape[:2]))

    training, held_out, test = drawn(1000, 21, 1), drawn(100, 30, 2), drawn(200, 200, 3)
    F, Q, H = model.matrices(np.ones(1))
    best = np.empty(len(test.states))
    for track, seen in enumerate(test.observations):
        out = Track.empty((200,), 2, 2)
        kalman.linear(seen.copy(), F, Q, H, model.R, np.zeros(2), np.zeros((2, 2)), out)
        best[track] = np.square(out.estimates - test.states[track]).mean()
    print(f"MSE in dB, 200 trajectories of 200 steps; Kalman filter {decibel(best.mean()):.3f}")
    for seed in range(3):
        torch.manual_seed(seed)
        network = network_of(2, m=2, n=2)
        begin = time.process_time()
        schedule = Schedule(steps=600, piece=20, batch=64, long_steps=0, rate=3e-3)
        train(Unrolled(network, model), model, training, held_out, schedule, seed)
        seconds = time.process_time() - begin
        unrolled = Unrolled(network, model)
        means, _ = unrolled.forward(
            unrolled.start(np.zeros((200, 2))), test.observations, test.intervals
        )
        errors = np.square(means - test.states).mean((1, 2))
        behind = decibel(errors.mean()) - decibel(best.mean())
        print(
            f"  KalmanNet, seed {seed}: {decibel(errors.mean()):.3f}, {behind:+.3f} dB to the "
            f"filter, worst trajectory {decibel((errors / best).max()):+.3f} dB; "
            f"{seconds:.0f} s of processor time"
        )


PARTS: dict[str, Callable[[], None]] = {
    "speed": speed, "lorenz": lorenz, "missing": missing, "linear": linear
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="KalmanNet beside tuned filters")
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    for part in parser.parse_args().parts or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    main()
