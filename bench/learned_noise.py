"""How noise is learned on a linear system: the error against the steps of training.

    python -m bench.learned_noise                      # a minute on one core
    python -m bench.learned_noise --json curve.json

Constant velocity on a line, dt = 0.1, Q = 0.25 [[dt^4/4, dt^3/2], [dt^3/2, dt^2]], the position
seen with variance 4; 20 trajectories of 200 steps to learn from, other ones for each seed, and 20
held out. Learning begins at Q = I and R = 4. After so many steps of Adam the filter tracks 400
other trajectories of 200 steps: the mean squared error of the position [m^2], and the mean nees,
which is 2 where a covariance is right, beside those of filters that keep Q = I and that know Q.

The textbook example that this repeats (reference 1.5) takes the standard deviation 2 for the
variance in all filters; it has 0.2387 with full knowledge, 1.588 with Q = I and 0.2437 learned, on
5 trajectories. The filters here are told 4.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from blocks.kernels import learned_noise, state_space
from blocks.kernels.kalman import Track
from blocks.kernels.learned_noise import noise_of, root_of

Array = np.ndarray[Any, Any]

V = 0.25 * np.array([[0.1**4 / 4.0, 0.1**3 / 2.0], [0.1**3 / 2.0, 0.1**2]])
CV = {
    "motion": "constant_velocity", "observation": "position", "dimensions": 1, "step_s": 0.1,
    "observation_noise": 4.0,
}  # fmt: skip
LENGTH = 200


def drawn(count: int, seed: int) -> tuple[Array, Array, Array]:
    """States, observations and intervals of trajectories."""
    rng = np.random.default_rng([seed, count])
    states, seen = (
        rng.standard_normal((count * LENGTH, 2)),
        rng.standard_normal((count * LENGTH, 1)),
    )
    intervals = np.full(count * LENGTH, 0.1)
    model = state_space.build(**CV, process_covariance=tuple(map(tuple, V)))
    model.simulate(states, seen, intervals, np.zeros((count, 2)))
    shape = (count, LENGTH, -1)
    return states.reshape(shape), seen.reshape(shape), intervals.reshape(count, LENGTH)


def scores(hyper: Any, arrays: Any, test: tuple[Array, Array, Array]) -> tuple[float, float]:
    """Mean squared error of the position, and mean nees."""
    one = learned_noise.Filter(noise_of(hyper, arrays), state_space.build(**CV))
    states, seen, intervals = test
    out = Track.empty(seen.shape[:2], 2, 1)
    for k in range(len(seen)):
        one.run(seen[k], intervals[k], np.zeros(2), np.zeros((2, 2, 2)), one.hidden(), out.of(k))
    off = out.estimates - states
    nees = (off * np.linalg.solve(out.covariances, off[..., None])[..., 0]).sum(-1)
    return float(np.square(off[..., 0]).mean()), float(nees.mean())


def curve(seeds: list[int], loss: str, steps: int, every: int) -> dict[str, Any]:
    """Errors and nees by steps for each seed, with those of the two other filters."""
    import torch

    from blocks.models.learned_noise import NoiseNetwork
    from blocks.training.learned_noise import Unrolled, begin
    from blocks.training.trajectories import Schedule, Trajectories, train

    torch.set_num_threads(1)
    wrong = state_space.build(**CV, process_covariance=((1.0, 0.0), (0.0, 1.0)))
    test = drawn(400, 99)
    plain = {"m": 2, "n": 1, "units": 0, "drift": -1, "tilt": False}
    R = {"observation_root": np.array([[np.log(2.0)]])}
    found: dict[str, Any] = {
        "full_knowledge": scores(plain, {**R, "process_root": root_of(V, 1e-12)}, test),
        "wrong": scores(plain, {**R, "process_root": np.zeros((2, 2))}, test),
        "loss": loss, "steps": [0, *range(every, steps + 1, every)], "seeds": {},
    }  # fmt: skip
    for seed in seeds:
        torch.manual_seed(seed)
        network = NoiseNetwork(2, 1).double()
        begin(network, wrong)
        line = [scores(network.hyper, network.arrays(), test)]

        def look(done: int, most: int, text: str, network: Any = network, line: Any = line) -> None:
            line.append(scores(network.hyper, network.arrays(), test))

        schedule = Schedule(
            steps=0, long_steps=steps, truncate=0, batch=20, rate=0.1, decay=0.0, every=every,
            patience=steps,
        )  # fmt: skip
        training, held_out = (Trajectories(*drawn(20, 10 * seed + k)) for k in (1, 2))
        train(Unrolled(network, wrong, loss), wrong, training, held_out, schedule, seed, look)
        line[-1] = scores(network.hyper, network.arrays(), test)  # those that were best held out
        found["seeds"][str(seed)] = line
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="learned noise of a linear system by steps")
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--loss", default="joint", help="mse, likelihood, mixed, joint")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--json", help="file for the curve")
    given = parser.parse_args()
    found = curve(given.seed, given.loss, given.steps, given.every)
    if given.json:
        Path(given.json).write_text(json.dumps(found))
    print("mean squared error of the position [m^2], and nees")
    for name in ("full_knowledge", "wrong"):
        print(f"  {name:16s} {found[name][0]:.4f} {found[name][1]:.3f}")
    for seed, line in found["seeds"].items():
        for at in (0, len(line) // 4, len(line) // 2, -1):
            print(
                f"  seed {seed}, {found['steps'][at]:4d} steps {line[at][0]:.4f} {line[at][1]:.3f}"
            )


if __name__ == "__main__":
    main()
