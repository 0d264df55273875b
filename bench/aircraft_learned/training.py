"""Trains the network of the flow."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.aircraft_learned.trackers import MODEL, by_network, rmse
from bench.aircraft_learned.tracks import STEP_S, Words, load
from blocks.kernels import kalmannet, state_space
from blocks.models.kalmannet import network_of
from blocks.training.kalmannet import Predicting
from blocks.training.trajectories import Schedule, Trajectories, train

Array = np.ndarray[Any, Any]

#: Usual sizes for the networks: 100 m, and as much within a step.
SIZE_M = 100.0
SCALES = {
    "constant_velocity": (SIZE_M,) * 2 + (SIZE_M / STEP_S,) * 2,
    "coordinated_turn": (SIZE_M,) * 2 + (SIZE_M / STEP_S,) * 2 + (0.01,),
}


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
