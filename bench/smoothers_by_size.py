"""Error of smoothers by how much they learned from, in the setting of the hybrid paper.

    python -m bench.smoothers_by_size train FOLDER hybrid 0 --steps 600   # method, seed
    python -m bench.smoothers_by_size join FOLDER sizes.json                # all that is there

`make figures` runs both.

Garcia Satorras, Akata, Welling, "Combining generative and discriminative models for hybrid
inference", NeurIPS 2019: the Lorenz attractor in steps of 10 us, seen every 50 ms in noise of
variance 0.25; the model that smoothers have is exp(A(x) dt) x to the second term, A(x) =
[[-10, 10, 0], [28 - z, -1, 0], [y, 0, -8/3]] held over the 50 ms. The paper has 0.0613 for the
network alone, 0.0372 for the extended smoother and 0.0169 for both, learned from 50,000 samples,
with an observation error of 0.2462 (secondary source); its code was not used.

hybrid    tracker.neural_augmented_smoother with Newton steps from the extended RTS smoother
gradient  the same with steps along the gradient, as in the paper, from the observations
network   the graph network alone, from the observations
smoother  the extended RTS smoother; its process noise is tuned on the same samples

A method learns from trajectories of at most 1000 samples and is stopped on a quarter as many more
of its own; test trajectories, 10 of 1000, are the same for all. Every point gets as many steps.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from bench.neural_augmented import GRID, augmented, decibel, errors, extended, learned
from blocks.kernels import state_space
from blocks.kernels.state_space import StateSpace
from blocks.training.trajectories import Trajectories

Array = np.ndarray[Any, Any]

STEP_S, SUBSTEPS, NOISE = 0.05, 5000, 0.25
CENTRE, VARIANCE = (0.0, 0.0, 24.0), 70.0  # of the attractor: all that is known of a start
BEFORE = 100  # samples until a trajectory has come to it
SIZES = (100, 300, 1000, 3000, 10_000, 30_000, 50_000)
LONGEST = 1000
OPTIONS: dict[str, dict[str, Any]] = {
    "hybrid": {"step": "newton", "start": "smoother", "iterations": 4, "rate": 0.005},
    "gradient": {"step": "gradient", "start": "observations", "iterations": 16, "rate": 0.005},
    "network": {"step": "network", "start": "observations", "iterations": 16, "rate": 0.005},
}
TRUTH = {"hybrid": 0.0169, "network": 0.0613, "smoother": 0.0372, "observations": 0.2462}


def model_of(q2: float, order: int = 2) -> StateSpace:
    return state_space.build(
        "lorenz_taylor", "identity", step_s=STEP_S, process_noise=q2, observation_noise=NOISE,
        motion_parameters={"order": float(order), "true_jacobian": 1.0},
        initial_state=CENTRE, initial_variance=VARIANCE,
    )  # fmt: skip


def simulated(samples: int, seed: int) -> tuple[Array, Array]:
    """States and observations (trajectory, time, 3), so many samples in all."""
    steps = min(samples, LONGEST)
    count = -(-samples // steps)
    rng = np.random.default_rng([seed, samples])
    starts = np.array(CENTRE) + rng.standard_normal((count, 3))
    steps += BEFORE
    states, seen = np.zeros((count * steps, 3)), rng.standard_normal((count * steps, 3))
    model_of(0.0, 5).simulate(
        states, seen, np.full(count * steps, STEP_S), starts, substeps=SUBSTEPS
    )
    found = (array.reshape(count, steps, 3)[:, BEFORE:].copy() for array in (states, seen))
    return tuple(found)  # type: ignore[return-value]


def tuned(states: Array, seen: Array) -> float:
    """The process noise that is best for the extended RTS smoother on these."""
    some = slice(20)
    found = {
        q: errors(extended(model_of(q)), states[some], seen[some], STEP_S).mean() for q in GRID
    }
    return min(found, key=lambda q: found[q])


def with_intervals(states: Array, seen: Array) -> Trajectories:
    return Trajectories(states, seen, np.full(seen.shape[:2], STEP_S))


def train_all(folder: Path, method: str, seed: int, steps: int, sizes: tuple[int, ...]) -> None:
    """Learn from each number of samples, keeping what came out after each; goes on if stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{method}-{seed}.json"
    points: list[dict[str, Any]] = json.loads(path.read_text())["points"] if path.exists() else []
    there = {point["samples"] for point in points}
    test = simulated(10_000, 7)
    for size in (size for size in sizes if size not in there):
        training, held_out = simulated(size, 100 + seed), simulated(max(size // 4, 50), 200 + seed)
        best = tuned(*training)
        if method == "smoother":
            smooth = extended(model_of(best))
        else:
            weights = learned(
                model_of(best), *(with_intervals(*data) for data in (training, held_out)), seed,
                {"steps": steps, "piece": min(100, 3 * size // 4), "every": max(steps // 20, 1),
                 "patience": 20}, lambda weights: None, **OPTIONS[method],
            )  # fmt: skip
            smooth = augmented(weights, model_of(best))
        off = errors(smooth, *test, STEP_S)
        points.append(
            {"samples": size, "mse": float(off.mean()), "mse_db": decibel(off.mean()),
             "trajectories": off.tolist(), "process_noise": best}
        )  # fmt: skip
        print(
            f"{method} {seed} {size:6d} samples: {off.mean():.4f}, worst {off.max():.4f}, "
            f"{decibel(off.mean()):.2f} dB, q2 = {best:.2g}", flush=True,
        )  # fmt: skip
        text = json.dumps({"method": method, "seed": seed, "points": points}, indent=1)
        path.write_text(text + "\n", encoding="utf-8")


def join(folder: Path, path: Path) -> None:
    """One file of all, with what the paper has for 50,000 samples; prints a table."""
    found = [json.loads(part.read_text("utf-8")) for part in sorted(folder.rglob("*-*.json"))]
    noise = float(np.square(np.subtract(*simulated(10_000, 7))).mean())
    text = json.dumps({"observations": noise, "paper": TRUTH, "curves": found}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    print(f"mean squared error, observations {noise:.4f}; median of seeds, and all of them")
    for method in ("smoother", *OPTIONS):
        by_size: dict[int, list[float]] = {}
        for one in found:
            for point in one["points"] if one["method"] == method else ():
                by_size.setdefault(point["samples"], []).append(point["mse"])
        for size, errors_ in sorted(by_size.items()):
            every = ", ".join(f"{error:.4f}" for error in sorted(errors_))
            print(f"  {method:10} {size:6d}  {np.median(errors_):.4f}  ({every})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_subparsers(required=True, dest="what")
    one = what.add_parser("train")
    one.add_argument("folder", type=Path)
    one.add_argument("method", choices=[*OPTIONS, "smoother"])
    one.add_argument("seed", type=int)
    one.add_argument("--steps", type=int, default=600, help="of Adam, for each number")
    one.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    two = what.add_parser("join")
    two.add_argument("folder", type=Path)
    two.add_argument("path", type=Path)
    chosen = parser.parse_args()
    if chosen.what == "join":
        join(chosen.folder, chosen.path)
        return
    train_all(chosen.folder, chosen.method, chosen.seed, chosen.steps, tuple(chosen.sizes))


if __name__ == "__main__":
    main()
