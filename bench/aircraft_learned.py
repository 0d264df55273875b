"""Trackers that learned on real tracks of aircraft, beside filters that were tuned on the same.

    python -m bench.aircraft_learned                       # the table
    python -m bench.aircraft_learned train --seed 0        # the network of the flow, some minutes
    python -m bench.aircraft_learned export tracks.npz     # the tracks, for where the file is not

The tracks are those of switzerland.json.gz of the `traffic` collection, under shared/data beside
the clone or the file named by --file: 842 aircraft, a report each 10 s. They are parted by a hash
of their addresses (blocks/source/tracks.py): networks are trained and filters tuned on 60 % of the
aircraft, what is best is chosen on 20 %, the table is of the other 20 %.

There is no truth in them but what aircraft told. So a position is compared with what was foretold
of it from all that came before; only positions are read, by all alike. Lengths are in m. The first
SKIP reports of a track are left out, in which trackers find its velocity.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import imm, kalman, kalmannet, kalmannet_filter, state_space
from blocks.kernels.caching import njit
from blocks.kernels.kalman import Track
from blocks.kernels.kalmannet_filter import Filters
from blocks.kernels.state_space import StateSpace

Array = np.ndarray[Any, Any]

FILE = Path(__file__).parents[2] / "shared" / "data" / "tracks" / "switzerland.json.gz"
PARTS = ("training", "validation", "test")
STEP_S = 10.0
LENGTH, LEAST, GAP_S = 200, 20, 60.0  # of tracks, as source.tracks has them
SKIP = 10
SPEED_M_S = 250.0  # standard deviation of a velocity that nothing is known of
MODEL = {
    "motion": "constant_velocity", "observation": "position", "step_s": STEP_S,
    "initial_variance": (0.0, 0.0, SPEED_M_S**2, SPEED_M_S**2),
}  # fmt: skip
#: Usual sizes for the networks: 100 m, and as much within a step.
SIZE_M = 100.0
SCALES = {
    "constant_velocity": (SIZE_M,) * 2 + (SIZE_M / STEP_S,) * 2,
    "coordinated_turn": (SIZE_M,) * 2 + (SIZE_M / STEP_S,) * 2 + (0.01,),
}
BOOTSTRAPS = 2000


class Words(NamedTuple):
    """Tracks of a part, as source.tracks gives them.

    aircraft   (tracks,)           addresses
    seen       (tracks, time, 2)   [m], NaN after the end
    intervals  (tracks, time)      [s]
    velocities (tracks, time, 2)   that were told with the positions [m/s], NaN where not
    """

    aircraft: Array
    seen: Array
    intervals: Array
    velocities: Array


def load(part: str, file: Path = FILE) -> Words:
    """The tracks of a part, from the file or from what `export` wrote (JOB_DATA)."""
    folder = os.environ.get("JOB_DATA")
    if folder is not None:
        with np.load(Path(folder) / "tracks.npz") as found:
            return Words(*(found[f"{part}_{name}"].astype(float) for name in Words._fields))
    from blocks.formats import tracks
    from blocks.source.tracks import chosen, seen

    found = chosen(tracks.read(file), part, GAP_S, LEAST, LENGTH)
    velocities = np.full((len(found), LENGTH, 2), np.nan)
    for row, one in enumerate(found):
        speed, way = one.ground_speed * 1852.0 / 3600.0, np.radians(one.track)
        velocities[row, : len(one.time)] = np.stack((speed * np.sin(way), speed * np.cos(way)), 1)
    return Words(np.array([one.address for one in found]), *seen(found, LENGTH), velocities)


def export(path: Path, file: Path) -> None:
    """Write the tracks of all parts as float32, some MB."""
    arrays = {}
    for part in PARTS:
        for name, array in load(part, file)._asdict().items():
            kind = np.int32 if name == "aircraft" else np.float32
            arrays[f"{part}_{name}"] = array.astype(kind)
    np.savez_compressed(path, **arrays)


# --- What is compared: innovations (tracks, time, 2), NaN where nothing came ----------------------


def by_kalman(words: Words, **values: Any) -> Array:
    """A Kalman filter with this model; q and r are process_noise and observation_noise."""
    model = state_space.build(**{**MODEL, **values})
    out = Track.empty(words.seen.shape[:2], model.size, model.rows)
    for track in range(len(words.seen)):
        F, Q, H = model.matrices(words.intervals[track])
        kalman.linear(
            words.seen[track], F, Q, H, model.R, model.initial.copy(),
            model.initial_covariance.copy(), out.of(track),
        )  # fmt: skip
    return out.innovations


def by_network(words: Words, network: Any, model: StateSpace) -> Array:
    """A KalmanNet."""
    filters = Filters(network, model)
    together = kalmannet_filter.TOGETHER
    tracks = filters.start(-(-len(words.seen) // together) * together)
    out = Track.empty(words.seen.shape[:2], model.size, model.rows)
    filters.run(words.seen, words.intervals, tracks, out, together=True, spread=False)
    return out.innovations


def by_reckoning(words: Words, told: bool) -> Array:
    """Dead reckoning from the last report, and the one before it or the velocity that it told."""
    if told:
        velocities = words.velocities[:, :-1]
    else:
        velocities = np.full_like(words.seen[:, :-1], np.nan)
        steps = np.diff(words.seen, axis=1)[:, :-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            velocities[:, 1:] = steps / words.intervals[:, 1:-1, None]
    found = np.full_like(words.seen, np.nan)
    found[:, 1:] = np.diff(words.seen, axis=1) - velocities * words.intervals[:, 1:, None]
    return found


IMM_START = {
    "straight_noise": 1.0, "turn_noise": 100.0, "turn_walk": 1e-6, "turn_rate": 0.01,
    "straight_share": 0.8, "memory_s": 100.0, "observation_noise": 1e4,
}  # fmt: skip


def by_imm(words: Words, **values: float) -> Array:
    """Interacting straight flight and turns, from kernels/imm.py."""
    v = {**IMM_START, **values}
    model = np.zeros((2, 5))
    model[:, imm.PROCESS_NOISE] = v["straight_noise"], v["turn_noise"]
    model[1, imm.TURN_NOISE], model[1, imm.TURN_VARIANCE] = v["turn_walk"], v["turn_rate"] ** 2
    model[:, imm.SHARE] = v["straight_share"], 1.0 - v["straight_share"]
    found = np.full_like(words.seen, np.nan)
    _imm(model, v["memory_s"], v["observation_noise"], words.seen, words.intervals, found)
    return found


@njit(cache=True, nogil=True)
def _imm(
    model: Array, memory: float, r: float, seen: Array, intervals: Array, found: Array
) -> None:
    work, noise = np.empty((4, 5, 5)), np.zeros((2, 2))
    noise[0, 0] = noise[1, 1] = r
    mean, covariance = np.empty(5), np.empty((5, 5))
    for track in range(seen.shape[0]):
        means, covariances = np.zeros((2, 5)), np.zeros((2, 5, 5))
        probabilities = model[:, 4].copy()
        for j in range(2):
            covariances[j, 2, 2] = covariances[j, 3, 3] = 250.0**2
            covariances[j, 4, 4] = model[j, 3]
        for t in range(seen.shape[1]):
            if np.isnan(seen[track, t, 0]):
                break
            imm.predict(
                intervals[track, t], 20.0, model, memory, probabilities, means, covariances, work
            )
            imm.combine(probabilities, means, covariances, mean, covariance)
            found[track, t, 0] = seen[track, t, 0] - mean[0]
            found[track, t, 1] = seen[track, t, 1] - mean[1]
            imm.update(0, seen[track, t], noise, probabilities, means, covariances, work)


# --- Tuning on the training aircraft --------------------------------------------------------------


def rmse(found: Array) -> float:
    """Root of the mean squared distance between told and foretold; inf where some is not finite."""
    squares = np.square(found[:, SKIP:]).sum(-1)
    return float(np.sqrt(np.nanmean(squares))) if np.nanmax(squares) < np.inf else np.inf


def tuned(
    run: Callable[..., Array], words: Words, start: Mapping[str, float], rounds: int = 12
) -> dict[str, float]:
    """Coordinate search for the least rmse, by factors that shrink from 10 to 1.2."""
    best, least, factor = dict(start), rmse(run(words, **start)), 10.0
    for _ in range(rounds):
        moved = False
        for key in best:
            for by in (factor, 1.0 / factor):
                tried = {**best, key: best[key] * by}
                if tried.get("straight_share", 0.0) >= 1.0:
                    continue
                if (reached := rmse(run(words, **tried))) < least:
                    best, least, moved = tried, reached, True
                    break
        if not moved:
            factor = factor**0.6
            if factor < 1.2:
                break
    return best


# --- Training -------------------------------------------------------------------------------------


def windows(words: Words, length: int, stride: int, copies: int, seed: int) -> tuple[Array, Array]:
    """Pieces of tracks from their first reports, turned and mirrored at random.

    Returns what is seen (pieces, length, 2) and intervals (pieces, length).
    """
    rng, pieces = np.random.default_rng(seed), []
    for seen, intervals in zip(words.seen, words.intervals, strict=True):
        count = int((~np.isnan(seen[:, 0])).sum())
        for first in range(0, max(count - length, 0) + 1, stride):
            part, times = seen[first : first + length], intervals[first : first + length].copy()
            times[0] = 0.0
            pieces += [(part - part[0], times)] * copies
    found = np.stack([part for part, _ in pieces])
    turn, sides = rng.uniform(0.0, 2.0 * np.pi, len(found)), rng.choice((-1.0, 1.0), len(found))
    cosine, sine = np.cos(turn), np.sin(turn)
    turning = np.stack((cosine, -sine, sides * sine, sides * cosine), 1).reshape(-1, 2, 2)
    return found @ turning, np.stack([times for _, times in pieces])


def train_network(options: argparse.Namespace) -> None:
    """Fit a KalmanNet to foretell positions; writes its arrays and how it went."""
    import torch

    from blocks.models.kalmannet import network_of
    from blocks.training.kalmannet import Predicting
    from blocks.training.trajectories import Schedule, Trajectories, train

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    values = {**MODEL, "motion": options.motion}
    if options.motion == "coordinated_turn":
        values["initial_variance"] = 0.0
    model = state_space.build(**values)
    scales = (*SCALES[options.motion], SIZE_M, SIZE_M) if options.scaled else ()
    network = network_of(
        options.architecture, m=model.size, n=2, in_mult=options.in_mult,
        out_mult=options.out_mult, scales=scales, features=(1, 2, 3, 4),
    )  # fmt: skip
    learner = Predicting(network, model, np.full(2, SIZE_M**2))

    def lessons(part: str, length: int, stride: int, copies: int) -> Trajectories:
        seen, times = windows(load(part, options.file), length, stride, copies, options.seed)
        return Trajectories(np.zeros((*times.shape, model.size)), seen, times)

    schedule = Schedule(
        steps=0, piece=1, batch=options.batch, long_steps=options.steps, truncate=0,
        rate=options.rate, decay=1e-6, every=options.every, patience=20,
    )  # fmt: skip
    held_out = load("validation", options.file)
    folder, name = Path(options.out), f"{options.name}_{options.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    began, least = time.monotonic(), [np.inf]

    def progress(done: int, most: int, text: str) -> None:
        """Keep the network that is best on the tracks held out."""
        arrays = network.arrays()
        gain = kalmannet.network_of(network.hyper, arrays)
        reached = rmse(by_network(held_out, gain, model))
        seconds = time.monotonic() - began
        print(f"{done} of {most}, {seconds:.0f} s: {reached:.2f} m held out; {text}", flush=True)
        if reached < least[0]:
            least[0] = reached
            np.savez(folder / f"{name}.npz", **arrays)
            card = {
                "hyper": network.hyper, "scores": {"validation_rmse_m": reached},
                "training": {**schedule._asdict(), "length": options.length, "taken": done,
                "seconds": round(seconds, 1)},
            }  # fmt: skip
            (folder / f"{name}.json").write_text(json.dumps(card, indent=1))

    train(
        learner, model, lessons("training", options.length, 30, 4),
        lessons("validation", 100, 100, 1), schedule, options.seed, progress,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--file", type=Path, default=FILE, help="the file of tracks")
    commands = parser.add_subparsers(dest="command")
    exporting = commands.add_parser("export")
    exporting.add_argument("to", type=Path)
    training = commands.add_parser("train")
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--steps", type=int, default=1200)
    training.add_argument("--every", type=int, default=50)
    training.add_argument("--batch", type=int, default=64)
    training.add_argument("--rate", type=float, default=4e-3)
    training.add_argument("--length", type=int, default=60)
    training.add_argument("--architecture", type=int, default=2)
    training.add_argument("--in-mult", type=int, default=5)
    training.add_argument("--out-mult", type=int, default=40)
    training.add_argument("--motion", default="constant_velocity")
    training.add_argument("--scaled", type=int, default=1)
    training.add_argument("--name", default="aircraft_kalmannet")
    training.add_argument("--out", default=os.environ.get("JOB_OUT", "."))
    options = parser.parse_args()
    if options.command == "export":
        export(options.to, options.file)
    elif options.command == "train":
        train_network(options)


if __name__ == "__main__":
    main()
