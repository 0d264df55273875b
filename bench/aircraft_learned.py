"""Trackers that learned on real tracks of aircraft, beside filters that were tuned on the same.

    python -m bench.aircraft_learned                       # the table
    python -m bench.aircraft_learned --networks FOLDER     # with others that `train` left there
    python -m bench.aircraft_learned tune                  # the filters, some minutes
    python -m bench.aircraft_learned train --seed 0        # the network of the flow, some minutes
    python -m bench.aircraft_learned keep aircraft_kalmannet_0.npz      # as the flow's model
    python -m bench.aircraft_learned export tracks.npz     # all of the tracks that --file needs

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
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from blocks.formats import tracks
from blocks.formats.tracks import Reports
from blocks.kernels import imm, kalman, kalmannet, state_space
from blocks.kernels.caching import njit
from blocks.kernels.kalman import Track
from blocks.kernels.kalmannet_filter import Filters
from blocks.kernels.state_space import StateSpace
from blocks.source.tracks import chosen, seen
from pipeline.models import Models
from pipeline.weights import Weights

Array = np.ndarray[Any, Any]

FILE = Path(__file__).parents[2] / "shared" / "data" / "tracks" / "switzerland.json.gz"
NAME = "aircraft_kalmannet"  # of the network that is shipped
OTHERS = (
    "noisy_landing.json.gz", "noisy_spoofing.json.gz", "zero_gravity.json.gz", "luberon.json.gz",
    "toulouse.json.gz", "trace_full_ac671b.json",
)  # fmt: skip
PARTS = ("training", "validation", "test")
STEP_S = 10.0
LENGTH, LEAST, GAP_S = 200, 20, 60.0  # of tracks, as source.tracks has them
SKIP = 10
SPEED_M_S = 250.0  # standard deviation of a velocity that nothing is known of
MODEL = {
    "motion": "constant_velocity", "observation": "position", "step_s": STEP_S,
    "initial_variance": (0.0, 0.0, SPEED_M_S**2, SPEED_M_S**2),
    "observation_noise": 1e4,  # to which the gain knows process noise only in proportion
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
    """The tracks of a part, of a file of tracks or of what `export` wrote."""
    if file.suffix == ".npz":
        with np.load(file) as found:
            return Words(*(found[f"{part}_{name}"].astype(float) for name in Words._fields))
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
    """A Kalman filter with this model."""
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
    begin = filters.start(len(words.seen))
    out = Track.empty(words.seen.shape[:2], model.size, model.rows)
    filters.run(words.seen, words.intervals, begin, out, together=True, spread=False)
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


IMM = {
    "straight_noise": 1e-4, "turn_noise": 0.3, "turn_walk": 1e-6, "turn_rate": 0.005,
    "straight_share": 0.7, "memory_s": 10.0, "observation_noise": 1e4,
}  # fmt: skip


def by_imm(words: Words, **values: float) -> Array:
    """Interacting straight flight and turns, from kernels/imm.py."""
    v = values
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


def by_acceleration(words: Words, **values: Any) -> Array:
    """A Kalman filter of constant acceleration."""
    variance = (0.0, 0.0, SPEED_M_S**2, SPEED_M_S**2, 1.0, 1.0)
    return by_kalman(words, motion="constant_acceleration", initial_variance=variance, **values)


#: Filters with what `tune` found for them.
FILTERS: dict[str, tuple[Callable[..., Array], Mapping[str, float]]] = {
    "constant velocity": (by_kalman, {"process_noise": 3.66}),
    "constant acceleration": (by_acceleration, {"process_noise": 0.00472}),
    "interacting multiple model": (by_imm, IMM),
}


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
    for places, intervals in zip(words.seen, words.intervals, strict=True):
        count = int((~np.isnan(places[:, 0])).sum())
        for first in range(0, max(count - length, 0) + 1, stride):
            part, times = places[first : first + length], intervals[first : first + length].copy()
            times[0] = 0.0
            pieces += [(part - part[0], times)] * copies
    found = np.stack([part for part, _ in pieces])
    turn, sides = rng.uniform(0.0, 2.0 * np.pi, len(found)), rng.choice((-1.0, 1.0), len(found))
    cosine, sine = np.cos(turn), np.sin(turn)
    turning = np.stack((cosine, -sine, sides * sine, sides * cosine), 1).reshape(-1, 2, 2)
    return found @ turning, np.stack([times for _, times in pieces])


def disturbed(seen: Array, intervals: Array, share: float, seed: int) -> tuple[Array, Array]:
    """The same pieces, of which a share change their way abruptly and as many miss reports.

    From those a network learns to find a track again that it has lost, and intervals other than
    those of the file; without them it takes all of a circling glider for outliers.
    """
    rng = np.random.default_rng([seed, 1])
    seen, intervals = seen.copy(), intervals.copy()
    count, length, _ = seen.shape
    for row in np.flatnonzero(rng.random(count) < share):  # goes on as another piece does
        cut, other = rng.integers(5, length - 5), rng.integers(count)
        seen[row, cut:] = seen[row, cut - 1] + seen[other, cut:] - seen[other, cut - 1]
    for row in np.flatnonzero(rng.random(count) < share):
        kept = rng.random(length) < rng.uniform(0.3, 0.9)
        kept[0] = True
        times = np.cumsum(intervals[row])[kept]
        places = seen[row, kept]
        seen[row], intervals[row] = np.nan, 0.0
        seen[row, : len(times)] = places
        intervals[row, 1 : len(times)] = np.diff(times)
    return seen, intervals


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
    if options.begin:
        with np.load(options.begin) as found:
            network.load(dict(found))
    learner = Predicting(network, model, np.full(2, SIZE_M**2))

    def lessons(part: str, length: int, stride: int, copies: int) -> Trajectories:
        seen, times = windows(load(part, options.file), length, stride, copies, options.seed)
        if part == "training" and options.disturbed:
            seen, times = disturbed(seen, times, options.disturbed, options.seed)
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
                "command": options.told, "hyper": network.hyper,
                "scores": {"validation_rmse_m": reached},
                "training": {**schedule._asdict(), "length": options.length, "taken": done,
                "seconds": round(seconds, 1)},
            }  # fmt: skip
            (folder / f"{name}.json").write_text(json.dumps(card, indent=1))

    train(
        learner, model, lessons("training", options.length, 30, 4),
        lessons("validation", 100, 100, 1), schedule, options.seed, progress,
    )  # fmt: skip


# --- The table ------------------------------------------------------------------------------------


class Errors(NamedTuple):
    """Distances between told and foretold, a list for each aircraft."""

    by_aircraft: list[Array]

    @classmethod
    def of(cls, words: Words, found: Array) -> Errors:
        away = np.sqrt(np.square(found[:, SKIP:]).sum(-1))
        return cls(
            [
                (own := away[words.aircraft == address])[~np.isnan(own)]
                for address in np.unique(words.aircraft)
            ]
        )

    def row(self, name: str, references: Sequence[Errors]) -> str:
        """What the table says of one tracker beside the references."""
        away = np.concatenate(self.by_aircraft)
        squares, counts = self._sums()
        roots = np.sqrt(squares / counts)
        return (
            f"{name:46s} {np.sqrt(squares.sum() / counts.sum()):7.1f} {np.median(away):7.1f} "
            f"{np.quantile(away, 0.95):7.1f} {np.median(roots):9.1f} {roots.max():7.1f}   "
            + "   ".join(self._beside(reference) for reference in references)
        )

    def _beside(self, other: Errors) -> str:
        """RMSE less that of another, its 95 % interval over aircraft, and where it is smaller."""
        if other is self:
            return " " * 37
        (squares, counts), (before, of) = self._sums(), other._sums()
        draws = np.random.default_rng(0).integers(0, len(counts), (BOOTSTRAPS, len(counts)))
        mine, theirs = (
            np.sqrt(a[draws].sum(1) / b[draws].sum(1)) for a, b in ((squares, counts), (before, of))
        )
        low, high = np.quantile(mine / theirs, (0.025, 0.975)) - 1.0
        ratio = np.sqrt(squares.sum() / counts.sum() / (before.sum() / of.sum())) - 1.0
        better = np.mean(squares / counts < before / of)
        return f"{ratio:+7.1%} ({low:+7.1%} ... {high:+7.1%}) {better:4.0%}"

    def _sums(self) -> tuple[Array, Array]:
        squares = np.array([np.square(own).sum() for own in self.by_aircraft])
        return squares, np.array([own.size for own in self.by_aircraft])


HEAD = (
    f"{'':46s}    RMSE  median    95 %    median   worst"
    f"   {'RMSE to constant velocity, better on':37s}   RMSE to IMM, better on"
)


def others(file: Path) -> dict[str, Words]:
    """Recordings of single aircraft beside that file, thinned to STEP_S."""
    found = {}
    for name in OTHERS:
        path = file.with_name(name)
        if not path.exists():
            print(f"{path} is not here")
            continue
        told = []
        for one in tracks.read(path):
            due = np.floor((one.time - one.time[0]) / STEP_S)
            kept = np.diff(due, prepend=-1.0) > 0.0
            told.append(Reports(one.address, *(column[kept] for column in one[1:])))
        pieces = chosen(told, "all", GAP_S, LEAST, LENGTH)
        nothing = np.full((len(pieces), LENGTH, 2), np.nan)
        found[name] = Words(np.arange(len(pieces)), *seen(pieces, LENGTH), nothing)
    return found


def tune(options: argparse.Namespace) -> None:
    """Print what is best on the training aircraft."""
    training = load("training", options.file)
    for name, (run, start) in FILTERS.items():
        best = tuned(run, training, start)
        told = ", ".join(f"{key} {value:.3g}" for key, value in best.items())
        print(f"{name}: {told}; RMSE {rmse(run(training, **best)):.2f}", flush=True)


def table(options: argparse.Namespace) -> None:
    """Print it."""
    filters: dict[str, Callable[[Words], Array]] = {
        name: (lambda words, run=run, best=best: run(words, **best))
        for name, (run, best) in FILTERS.items()
    }
    model = state_space.build(**MODEL)
    for path in sorted(options.networks.glob("*.npz")) if options.networks else []:
        card = json.loads(path.with_suffix(".json").read_text())
        with np.load(path) as arrays:
            gain = kalmannet.network_of(card["hyper"], dict(arrays))
        filters[path.stem] = lambda words, gain=gain: by_network(words, gain, model)
    if NAME in Models().names():
        weights = Models().load(NAME)
        shipped = kalmannet.network_of(weights.hyper, weights.arrays)
        filters["KalmanNet, shipped"] = lambda words: by_network(words, shipped, model)
    sets = {"unseen aircraft over Switzerland": load("test", options.file), **others(options.file)}
    for said, words in sets.items():
        count = int((~np.isnan(words.seen[:, SKIP:, 0])).sum())
        print(
            f"\n{said}: {len(np.unique(words.aircraft))} aircraft, {len(words.seen)} tracks, "
            f"{count} positions\n{HEAD}"
        )
        found = {"dead reckoning from two reports": by_reckoning(words, False)}
        if np.isfinite(words.velocities).any():
            found["dead reckoning, velocity as told (reads more)"] = by_reckoning(words, True)
        found |= {name: run(words) for name, run in filters.items()}
        errors = {name: Errors.of(words, one) for name, one in found.items()}
        references = [errors[name] for name in ("constant velocity", "interacting multiple model")]
        for name, one in errors.items():
            print(one.row(name, references))


def keep(path: Path) -> None:
    """Make a trained network the next version of the model that the flow names."""
    card = json.loads(path.with_suffix(".json").read_text())
    with np.load(path) as found:
        weights = Weights(NAME, 1, dict(found), card["hyper"], labels="observations")
    models = Models()
    added = models.add(
        weights, training=card["training"], scores=card["scores"],
        command=card["command"],
    )  # fmt: skip
    models.promote(f"{NAME}@{added.version}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--file", type=Path, default=FILE, help="the file of tracks")
    parser.add_argument("--networks", type=Path, help="a folder of trained networks, compared too")
    commands = parser.add_subparsers(dest="command")
    exporting = commands.add_parser("export")
    exporting.add_argument("to", type=Path)
    commands.add_parser("tune")
    keeping = commands.add_parser("keep")
    keeping.add_argument("network", type=Path)
    training = commands.add_parser("train")
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--steps", type=int, default=450)
    training.add_argument("--every", type=int, default=90)
    training.add_argument("--batch", type=int, default=32)
    training.add_argument("--rate", type=float, default=4e-3)
    training.add_argument("--length", type=int, default=60)
    training.add_argument("--architecture", type=int, default=2)
    training.add_argument("--in-mult", type=int, default=5)
    training.add_argument("--out-mult", type=int, default=10)
    training.add_argument("--motion", default="constant_velocity")
    training.add_argument("--disturbed", type=float, default=0.0, help="share of `disturbed`")
    training.add_argument("--begin", type=Path, help="a trained network to go on from")
    training.add_argument("--scaled", type=int, default=1)
    training.add_argument("--name", default="aircraft_kalmannet")
    training.add_argument("--out", default=".")
    options = parser.parse_args()
    options.told = "python -m bench.aircraft_learned train" + "".join(
        f" --{key.replace('_', '-')} {value.name if isinstance(value, Path) else value}"
        for key, value in vars(options).items()
        if key not in ("file", "networks", "command", "out") and value != training.get_default(key)
    )
    if options.command == "export":
        export(options.to, options.file)
    elif options.command == "train":
        train_network(options)
    elif options.command == "keep":
        keep(options.network)
    elif options.command == "tune":
        tune(options)
    else:
        table(options)


if __name__ == "__main__":
    main()
