"""Trackers that learn while they track: how fast they follow a change, and whether they do harm.

    python -m bench.online_tracking reference --noise-db 10 --seed 0   # a network for other noise
    python -m bench.online_tracking modulation --seed 0                # the hypernetwork
    python -m bench.online_tracking change --seed 0       # 2 minutes; 3 networks of `reference`
    python -m bench.online_tracking stationary --seed 0   # 2 minutes

The decimated attractor of bench/kalmannet.py. A KalmanNet that was trained for noise of 0 dB tracks
with weights that come from a trainer one frame of 100 observations later; the trainer sees the
observations, and nothing else.

change      the noise steps from 0 dB to +10 or -10 dB after 3000 steps. Errors of what follows, of
            trackers with each trainer, of the same network left alone, with weights that the
            hypernetwork tells for the true noise, and trained on for it, where `reference` has left
            such weights, and of extended filters with the same model whose noise was tuned for it
            on other trajectories
stationary  10^5 steps of 0 dB: what trainers change where nothing changes

bench/ONLINE_TRACKING.md holds runs of three seeds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bench.kalmannet import START_VARIANCE, TAYLOR, decibel, simulated, with_extended
from bench.lorenz import STEP_S
from blocks.kernels import state_space
from blocks.kernels.modulation import modulated
from blocks.tracker.kalmannet import KalmanNet
from pipeline.catalogue import find
from pipeline.frame import FrameInfo
from pipeline.models import Models
from pipeline.weights import Weights

Array = np.ndarray[Any, Any]

SHIPPED = "lorenz_kalmannet"
MODULATION = "lorenz_modulation"
RANGE_DB = (-15.0, 15.0)
PROCESS_NOISE = 0.1  # of the model that tells the noise, as tuned for 0 dB
LEARNING: dict[str, Any] = {
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
    _add(
        Weights(_named(noise_db), 1, network.arrays(), network.hyper, labels="simulator"),
        found,
        seed,
    )


def _named(noise_db: float) -> str:
    """The model of a network for this noise."""
    return f"lorenz_at_{'minus' if noise_db < 0 else 'plus'}_{abs(noise_db):.0f}"


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


# --- On line --------------------------------------------------------------------------------------

FRAME, BEFORE, AFTER, LONG = 100, 3000, 4000, 100_000
WINDOWS = ((0, 500), (500, 1000), (1000, 2000), (2000, 4000))  # steps after a change
SPREAD_DB = 5.0  # of what a network is best told, by 1000 observations: 4.5 at most on two streams
TRACKER: dict[str, Any] = {
    key: value for key, value in LEARNING.items() if key != "observation_noise"
}
TRAINERS: dict[str, Callable[[], Any]] = {
    "trainer.modulated": lambda: _trainer("modulated", hypernetwork=MODULATION),
    "trainer.modulated by prediction": lambda: _trainer(
        "modulated", hypernetwork=MODULATION, by="prediction", least_db=SPREAD_DB
    ),
    "trainer.modulated by smoother": lambda: _trainer(
        "modulated", hypernetwork=MODULATION, by="smoother", least_db=SPREAD_DB
    ),
    "trainer.unsupervised": lambda: _trainer("unsupervised"),
    "trainer.smoothed": lambda: _trainer("smoothed"),
}


def _trainer(name: str, **values: Any) -> Any:
    made = find(f"trainer.{name}")(
        model=SHIPPED, process_noise=PROCESS_NOISE, budget_s=0.0, **TRACKER, **values
    )
    made.start()
    return made


def tracked(seen: Array, trainer: Any = None, weights: Weights | None = None) -> Array:
    """Estimates of a stream, with weights that a trainer gives a frame later."""
    tracker = KalmanNet(covariance="none", **TRACKER)
    tracker.start()
    tracker.take(weights or Models().load(SHIPPED))
    found = []
    for first in range(0, len(seen), FRAME):
        part = seen[first : first + FRAME]
        found.append(tracker.process(part).estimates)
        if trainer is not None:
            came = trainer.process(part, info=FrameInfo("main", first // FRAME, first, 0, {}))
            if came is not None:
                tracker.take(came)
    return np.concatenate(found)


def told(noise_db: float) -> Weights:
    """Those of the hypernetwork for this noise."""
    weights = Models().load(MODULATION)
    hyper, arrays = modulated(weights.hyper, weights.arrays, noise_db)
    return Weights("told", 1, arrays, hyper)


def extended(seen: Array, noise_db: float, process_noise: float) -> Array:
    values = {**LEARNING, "observation_noise": 10.0 ** (noise_db / 10.0)}
    model = state_space.build(**{**values, "process_noise": process_noise})
    found: Array = with_extended(model, seen[None], model.initial[None], START_VARIANCE)[0]
    return found


def tuned(noise_db: float) -> float:
    """The process noise of the best extended filter for this noise, on trajectories for tuning."""
    states, seen, _ = simulated(8, 1000, 21)
    seen = states + 10.0 ** (noise_db / 20.0) * (seen - states)
    found = {}
    for q in 10.0 ** (np.arange(-18, 3) / 6.0):
        errors = [extended(y, noise_db, q) - x for x, y in zip(states, seen, strict=True)]
        found[float(q)] = np.nan_to_num(np.square(errors).mean(), nan=np.inf)
    return min(found, key=lambda q: found[q])


def change(seed: int, streams: int) -> None:
    """Print the errors after a change, pooled over streams."""
    made: list[Any] = []
    for noise_db in (10.0, -10.0):
        states, seen, _ = simulated(streams, BEFORE + AFTER, 700 + seed)
        noise = seen - states
        noise[:, BEFORE:] *= 10.0 ** (noise_db / 20.0)
        seen = states + noise
        q = tuned(noise_db)
        trackers: dict[str, Callable[[Array], Array]] = {
            "KalmanNet, left alone": tracked,
            "the same, told the noise": partial(tracked, weights=told(noise_db)),
            f"extended, tuned for it, q2 = {q:.2g}": partial(
                extended, noise_db=noise_db, process_noise=q
            ),
            **{name: partial(_learning, make, made) for name, make in TRAINERS.items()},
        }
        if _named(noise_db) in Models().names():
            reached = Models().load(f"{_named(noise_db)}@1")
            trackers["the same, trained for it"] = partial(tracked, weights=reached)
        print(f"seed {seed}, 0 to {noise_db:+.0f} dB; MSE in dB of the steps after, pooled over "
              f"{streams} streams")  # fmt: skip
        print(f"  {'':40s}" + "".join(f"{a}-{b}".rjust(12) for a, b in WINDOWS))
        for name, run in trackers.items():
            made.clear()
            began = time.process_time()
            errors = np.square([run(y) - x for x, y in zip(states, seen, strict=True)]).mean(2)
            after = errors[:, BEFORE:]
            levels = [decibel(after[:, a:b].mean()) for a, b in WINDOWS]
            said = "".join(f"{level:12.2f}" for level in levels)
            print(f"  {name:40s}{said}  {time.process_time() - began:6.1f} s  {_counts(made)}",
                  flush=True)  # fmt: skip


def stationary(seed: int, steps: int) -> None:
    """Print what trainers change where nothing changes."""
    states, seen, _ = simulated(1, steps, 800 + seed)
    print(f"seed {seed}, {steps} steps of 0 dB; MSE in dB")
    made: list[Any] = []
    for name, make in {"KalmanNet, left alone": None, **TRAINERS}.items():
        made.clear()
        began = time.process_time()
        trainer = _kept(made, make()) if make else None
        errors = np.square(tracked(seen[0], trainer) - states[0]).mean(1)
        worst = errors.reshape(-1, len(errors) // 10).mean(1).max()
        print(f"  {name:40s}{decibel(errors.mean()):8.3f}, worst tenth {decibel(worst):8.3f}  "
              f"{time.process_time() - began:6.1f} s  {_counts(made)}", flush=True)  # fmt: skip


def _learning(make: Callable[[], Any], made: list[Any], seen: Array) -> Array:
    """Estimates with a fresh trainer, which is kept."""
    return tracked(seen, _kept(made, make()))


def _kept(made: list[Any], trainer: Any) -> Any:
    made.append(trainer)
    return trainer


def _counts(made: list[Any]) -> str:
    kinds = ("trained", "published", "refused", "rolled_back", "drifts")
    reports = [trainer.report(None) for trainer in made]
    return ", ".join(f"{sum(r[k] for r in reports)} {k}" for k in kinds) if made else ""


def main() -> None:
    parser = argparse.ArgumentParser(description="trackers that learn while they track")
    parser.add_argument("part", choices=("reference", "modulation", "change", "stationary"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise-db", type=float, default=10.0)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--long-steps", type=int, default=1000)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--length", type=int, default=LONG)
    parser.add_argument("--only", choices=tuple(TRAINERS), nargs="+", help="these trainers")
    given = parser.parse_args()
    for name in [name for name in TRAINERS if name not in (given.only or TRAINERS)]:
        del TRAINERS[name]
    schedule = {"steps": given.steps, "long_steps": given.long_steps}
    if given.part == "reference":
        reference(given.noise_db, given.seed, schedule)
    elif given.part == "modulation":
        modulation(given.seed, schedule)
    elif given.part == "change":
        change(given.seed, given.streams)
    else:
        stationary(given.seed, given.length)


if __name__ == "__main__":
    main()
