"""Trains tracker.kalmannet offline, for `kalvit train`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from blocks.models.kalmannet import network_of
from blocks.training import kalmannet
from blocks.training.kalmannet import DEFAULT, Schedule, Trajectories
from pipeline.errors import ParameterError
from pipeline.frame import Array
from pipeline.train import Learnt, Lessons, Record


def fit(
    block: Any, lessons: Lessons, *, architecture: int = 2, features: Sequence[int] = (1, 2, 3, 4),
    steps: int = DEFAULT.steps, piece: int = DEFAULT.piece, batch: int = DEFAULT.batch,
    long_steps: int = DEFAULT.long_steps, truncate: int = DEFAULT.truncate,
    rate: float = DEFAULT.rate, decay: float = DEFAULT.decay, clip: float = DEFAULT.clip,
    every: int = DEFAULT.every, patience: int = DEFAULT.patience,
) -> Learnt:  # fmt: skip
    """Fit the gain network of a tracker.kalmannet to the states that it should find.

    architecture  of the paper: 1, or 2 with far fewer weights
    features      of the paper's F1 to F4 that the network sees

    The rest are those of blocks/training/kalmannet.py: Schedule.
    """
    schedule = Schedule(
        steps, piece, batch, long_steps, truncate, rate, decay, clip, every, patience
    )
    model = block._build()
    torch.manual_seed(lessons.seed % (1 << 63))
    torch.set_num_threads(1)  # small layers: more threads only wait for each other
    try:
        network = network_of(architecture, m=model.size, n=model.rows, features=tuple(features))
        found = kalmannet.train(
            network, model, _trajectories(lessons.training, model.step_s),
            _trajectories(lessons.held_out, model.step_s), schedule, lessons.seed,
            lessons.progress,
        )  # fmt: skip
    except ValueError as error:
        raise ParameterError(f"{block.name}: {error}") from None
    told = {"steps": found.steps, "architecture": architecture, "features": list(features)}
    scores = {"mse_db": 10.0 * float(np.log10(found.mse))}
    return Learnt(network.hyper, network.arrays(), {**schedule._asdict(), **told}, scores)


def _trajectories(records: Sequence[Record], step_s: float) -> Trajectories:
    """All words, or streams, as trajectories; as long as the shortest."""
    states, observations, intervals = [], [], []
    for record in records:
        seen = record["observations"]
        times = record.get("interval_s", np.full(seen.shape[:-1], step_s))
        whole = seen.ndim == 3
        states += list(record["states"] if whole else [record["states"]])
        observations += list(seen if whole else [seen])
        intervals += list(times if whole else [times])
    length = min(len(one) for one in states)

    def joined(parts: list[Array]) -> Array:
        return np.stack([np.asarray(part[:length], np.float64) for part in parts])

    return Trajectories(joined(states), joined(observations), joined(intervals))
