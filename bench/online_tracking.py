"""Trackers that learn while they track: how fast they follow a change, and whether they do harm.

python -m bench.online_tracking reference --noise-db 10 --seed 0   # a network for other noise
python -m bench.online_tracking modulation --seed 0                # the hypernetwork
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np

from bench.kalmannet import START_VARIANCE, TAYLOR, decibel, simulated
from bench.lorenz import STEP_S
from blocks.kernels import state_space
from pipeline.models import Models
from pipeline.weights import Weights

Array = np.ndarray[Any, Any]

SHIPPED = "lorenz_kalmannet"
MODULATION = "lorenz_modulation"
RANGE_DB = (-15.0, 15.0)
LEARNING = {
    **TAYLOR, "motion_parameters": {"true_jacobian": 1.0}, "initial_variance": START_VARIANCE,
}  # fmt: skip


def drawn(count: int, steps: int, seed: int, noise_db: tuple[float, float]) -> Any:
    """Trajectories of the attractor, each in noise of its own between these levels."""
    from blocks.training.trajectories import Trajectories

    states, seen, _ = simulated(count, steps, seed)
    levels = np.random.default_rng([seed, 1]).uniform(*noise_db, count)
    seen = states + 10.0 ** (levels / 20.0)[:, None, None] * (seen - states)
    return Trajectories(states, seen, np.full(seen.shape[:2], STEP_S))


def _told(done: int, most: int, text: str) -> None:
    print(f"  {time.process_time():7.1f} s, step {done} of {most}: {text}", flush=True)


def reference(noise_db: float, seed: int, schedule: dict[str, int]) -> None:
    """Train the shipped network on, for other noise, whose level is known: what is to be reached.

    Written as a version of the model `lorenz_at_plus_10` and the like.
    """
    import torch

    from blocks.models.kalmannet import network_of
    from blocks.training.kalmannet import Unrolled
    from blocks.training.trajectories import Schedule, train

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    shipped = Models().load(SHIPPED)
    network = network_of(**shipped.hyper)
    network.load(dict(shipped.arrays))
    model = state_space.build(**LEARNING)
    levels = (noise_db, noise_db)
    found = train(
        Unrolled(network, model), model, drawn(20, 2000, 300 + seed, levels),
        drawn(8, 2000, 400 + seed, levels), Schedule()._replace(**schedule), seed, _told,
    )  # fmt: skip
    name = f"lorenz_at_{'minus' if noise_db < 0 else 'plus'}_{abs(noise_db):.0f}"
    _add(Weights(name, 1, network.arrays(), network.hyper, labels="simulator"), found, seed)


def modulation(seed: int, schedule: dict[str, int]) -> None:
    """Train the shipped network on, with a hypernetwork, over all noise levels."""
    import torch

    from blocks.models.kalmannet import network_of
    from blocks.models.modulation import Modulated
    from blocks.training.modulation import Modulation
    from blocks.training.trajectories import Schedule, train

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    shipped = Models().load(SHIPPED)
    gains = network_of(**shipped.hyper)
    gains.load(dict(shipped.arrays))
    network, model = Modulated(gains, RANGE_DB), state_space.build(**LEARNING)
    found = train(
        Modulation(network, model), model, drawn(48, 1000, 500 + seed, RANGE_DB),
        drawn(16, 1000, 600 + seed, RANGE_DB), Schedule()._replace(**schedule), seed, _told,
    )  # fmt: skip
    _add(Weights(MODULATION, 1, network.arrays(), network.hyper, labels="simulator"), found, seed)


def _add(weights: Weights, found: Any, seed: int) -> None:
    said = {"seed": seed, "steps": found.steps, "seconds": round(time.process_time(), 1)}
    scores = {"loss_db": decibel(found.loss)}
    command = f"python -m bench.online_tracking {' '.join(sys.argv[1:])}"
    version = Models().add(weights, training=said, scores=scores, command=command).version
    print(f"{weights.name}@{version}: {said}, {scores}")


def main() -> None:
    parser = argparse.ArgumentParser(description="trackers that learn while they track")
    parser.add_argument("part", choices=("reference", "modulation"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise-db", type=float, default=10.0)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--long-steps", type=int, default=1000)
    given = parser.parse_args()
    schedule = {"steps": given.steps, "long_steps": given.long_steps}
    if given.part == "reference":
        reference(given.noise_db, given.seed, schedule)
    else:
        modulation(given.seed, schedule)


if __name__ == "__main__":
    main()
