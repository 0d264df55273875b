"""The neural-augmented smoother beside the extended RTS smoother tuned with the same model.

    python -m bench.neural_augmented train FOLDER taylor 0 --steps 1200  # model, seed; into FOLDER
    python -m bench.neural_augmented table FOLDER                         # all that is there
    python -m bench.neural_augmented missing FOLDER                       # with observations gone
    python -m bench.neural_augmented speed FOLDER

The decimated Lorenz attractor of KalmanNet, Revach et al., IEEE TSP 2022, IV-D, as in
bench/kalmannet.py, in noise of 0 dB. `taylor`: trackers move by the papers' model, A(x) =
[[-10, 10, 0], [28 - z, -1, 0], [y, 0, -8/3]] held over 20 ms, with its true derivative; `rk4`: by a
Runge-Kutta step. A network learns from 20 trajectories of 2000 steps, in pieces of `piece`, and is
stopped on 8 others of 1000; the RTS smoother is tuned on 8 of 3000; both are tested on 20 of 3000
steps that neither has seen, from a start that is off by N(0, 10 I), and know that. Errors are mean
squared errors per number of the state in dB: pooled over trajectories, of the median and of the
worst one; "to RTS" is the mean difference, trajectory by trajectory, with its 95 % interval.

bench/NEURAL_AUGMENTED.md holds a run; bench/smoothers_by_size.py has the error by training size.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.kalmannet import RUNGE_KUTTA, START_VARIANCE, TAYLOR, decibel, simulated
from bench.lorenz import STEP_S
from blocks.kernels import smoother, state_space
from blocks.kernels.neural_augmented import GraphNetwork, NeuralSmoother
from blocks.kernels.state_space import StateSpace
from blocks.models.neural_augmented import GraphNetwork as Module
from blocks.trainer.neural_augmented import USUAL
from blocks.training import trajectories
from blocks.training.neural_augmented import Smoothing, measure
from blocks.training.trajectories import Trajectories
from pipeline.weights import Weights

Array = np.ndarray[Any, Any]
#: What a smoother makes of observations and intervals: states (time, n).
Smooth = Callable[[Array, Array], Array]

MODELS: dict[str, dict[str, Any]] = {
    "taylor": {**TAYLOR, "motion_parameters": {"true_jacobian": 1.0}},
    "rk4": RUNGE_KUTTA,
}
GRID = tuple(10.0 ** (k / 3.0) for k in range(-21, 2))
ROUNDS = 9
NAME = "neural_augmented"


def model_of(name: str, q2: float) -> StateSpace:
    return state_space.build(
        **{**MODELS[name], "process_noise": q2, "initial_variance": START_VARIANCE}
    )


def extended(model: StateSpace, iterations: int = 1) -> Smooth:
    """The extended RTS smoother; a record on which it breaks counts as lost."""

    def smooth(seen: Array, intervals: Array) -> Array:
        start = model.initial, model.initial_covariance
        found = smoother.smooth(model, seen, intervals, *start, iterations)
        return np.full((len(seen), model.size), np.inf) if isinstance(found, int) else found[0]

    return smooth


def augmented(weights: Weights, model: StateSpace) -> Smooth:
    """The same for a network."""
    made = NeuralSmoother(GraphNetwork.of(weights.hyper, weights.arrays), model)

    def smooth(seen: Array, intervals: Array) -> Array:
        found = made.run(seen, intervals, model.initial, model.initial_covariance)
        return np.full((len(seen), model.size), np.inf) if isinstance(found, int) else found.states

    return smooth


def errors(smooth: Smooth, states: Array, seen: Array, step_s: float = STEP_S) -> Array:
    """Mean squared error of each trajectory."""
    intervals = np.full(seen.shape[1], step_s)
    return np.array(
        [
            np.square(smooth(one, intervals) - truth).mean()
            for one, truth in zip(seen, states, strict=True)
        ]
    )


@cache
def tuned(name: str) -> float:
    """The process noise with which the extended RTS smoother is best."""
    states, seen, _ = simulated(8, 3000, 201)
    found = {q: errors(extended(model_of(name, q)), states, seen).mean() for q in GRID}
    return min(found, key=lambda q: found[q])


def path_of(folder: Path, name: str, seed: int) -> Path:
    return folder / f"{name}-{seed}.weights"


# --- Training -------------------------------------------------------------------------------------


def learned(
    model: StateSpace, training: Trajectories, held_out: Trajectories, seed: int,
    schedule: dict[str, Any], keep: Callable[[Weights], None], **hyper: Any,
) -> Weights:  # fmt: skip
    """Weights for this model, each better ones handed to `keep` when they are found.

    schedule   what differs from the usual one
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    network = Module(model.size, model.rows, **hyper)
    unit = measure(network, model, training)
    began, best = time.process_time(), [np.inf]

    def made() -> Weights:
        noise = float(model.parameters[0])
        return Weights(NAME, 1, network.arrays(), {**network.hyper, "process_noise": noise})

    def look(taken: int, _: int, text: str) -> None:
        found = float(text.split()[3].rstrip(","))
        if found < best[0]:
            best[0] = found
            keep(made())
        spent = time.process_time() - began
        print(f"{taken:6d} {text}; {decibel(found):.2f} dB, {spent:.0f} s", flush=True)

    plan = USUAL._replace(**schedule)
    trajectories.train(Smoothing(network, model, unit), model, training, held_out, plan, seed, look)
    return made()


def drawn(count: int, steps: int, seed: int) -> Trajectories:
    states, seen, _ = simulated(count, steps, seed)
    return Trajectories(states, seen, np.full(seen.shape[:2], STEP_S))


def train(folder: Path, name: str, seed: int, schedule: dict[str, Any]) -> None:
    """Train, keeping the best weights so far in a file."""
    folder.mkdir(parents=True, exist_ok=True)

    def keep(weights: Weights) -> None:
        path_of(folder, name, seed).write_bytes(weights.to_bytes())

    model = model_of(name, tuned(name))
    sets = drawn(20, 2000, 100 + seed), drawn(8, 1000, 200)
    keep(learned(model, *sets, seed, schedule, keep))
    table(folder, [name])


# --- Tables ---------------------------------------------------------------------------------------


def stored(folder: Path, name: str) -> dict[int, Weights]:
    """Weights by seed."""
    found = sorted(folder.glob(f"{name}-*.weights"))
    return {int(p.stem.rpartition("-")[2]): Weights.from_bytes(p.read_bytes()) for p in found}


def smoothers(folder: Path, name: str) -> dict[str, Smooth]:
    """The tuned one, as many passes of it as a network has, and those that learned."""
    best = tuned(name)
    made = {
        f"RTS smoother, q2 = {best:.2g}": extended(model_of(name, best)),
        "the same, iterated 5 times": extended(model_of(name, best), 5),
    }
    for seed, weights in stored(folder, name).items():
        model = model_of(name, float(weights.hyper["process_noise"]))
        made[f"neural-augmented, seed {seed}"] = augmented(weights, model)
    return made


def table(folder: Path, names: list[str]) -> None:
    states, seen, _ = simulated(20, 3000, 22)
    for name in names:
        report(name, smoothers(folder, name), states, seen)


def report(title: str, made: dict[str, Smooth], states: Array, seen: Array) -> None:
    """Print the errors of these, the first of which the others are compared to."""
    count, steps, _ = states.shape
    print(f"{title}: {count} trajectories of {steps} steps")
    print(f"  {'':32}  pooled  median   worst  to RTS")
    found = {said: errors(smooth, states, seen) for said, smooth in made.items()}
    first, _, *others = found.values()
    if len(others) > 1:
        found[f"neural-augmented, all {len(others)}"] = np.stack(others)
    for said, off in found.items():
        three = "".join(
            f"{decibel(value):8.2f}" for value in (off.mean(), np.median(off), off.max())
        )
        apart = 10.0 * np.log10(np.atleast_2d(off) / first).mean(0)
        half = 1.96 * apart.std(ddof=1) / np.sqrt(len(apart))
        print(f"  {said:32}{three}  {apart.mean():+.2f} +-{half:.2f}", flush=True)


def missing(folder: Path, names: list[str]) -> None:
    states, seen, _ = simulated(20, 3000, 22)
    rng = np.random.default_rng(5)
    for share in (0.1, 0.3):
        holed = np.where(rng.random((*seen.shape[:2], 1)) < share, np.nan, seen)
        for name in names:
            report(f"{name}, {share:.0%} of the observations missing", smoothers(folder, name),
                   states, holed)  # fmt: skip


def speed(folder: Path, names: list[str]) -> None:
    _, seen, _ = simulated(20, 3000, 22)
    intervals = np.full(3000, STEP_S)
    print("us per step of a record of 3000, median and least of", ROUNDS, "rounds")
    for name in names:
        made = list(smoothers(folder, name).items())[:3]
        found: dict[str, list[float]] = {said: [] for said, _ in made}
        for turn in range(ROUNDS + 1):
            for said, smooth in made:
                begin = time.thread_time()
                smooth(seen[turn % 20], intervals)
                if turn:
                    found[said].append((time.thread_time() - begin) / 3000 * 1e6)
        for said, times in found.items():
            print(f"  {name}, {said:32} {statistics.median(times):7.2f} {min(times):7.2f}")


PARTS = {"table": table, "missing": missing, "speed": speed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_subparsers(required=True, dest="what")
    for part in PARTS:
        one = what.add_parser(part)
        one.add_argument("folder", type=Path)
        one.add_argument("models", nargs="*", help=", ".join(MODELS))
    two = what.add_parser("train")
    two.add_argument("folder", type=Path)
    two.add_argument("model", choices=MODELS)
    two.add_argument("seed", type=int)
    two.add_argument("--steps", type=int, default=1200, help="of Adam")
    two.add_argument("--batch", type=int, default=8)
    chosen = vars(parser.parse_args())
    part, folder = chosen.pop("what"), chosen.pop("folder")
    if part == "train":
        train(folder, chosen.pop("model"), chosen.pop("seed"), chosen)
        return
    PARTS[part](folder, chosen["models"] or list(MODELS))


if __name__ == "__main__":
    main()
