"""Trains tracker.kalmannet offline, for `kalvit train`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from blocks.models.kalmannet import network_of
from blocks.trainer.trajectories import scheduled, trajectories
from blocks.training.kalmannet import Unrolled
from blocks.training.trajectories import Schedule, train
from pipeline.train import Learnt, Lessons


@scheduled()
def fit(
    block: Any, lessons: Lessons, schedule: Schedule, *, architecture: int = 2,
    features: Sequence[int] = (1, 2, 3, 4),
) -> Learnt:  # fmt: skip
    """Fit the gain network of a tracker.kalmannet to the states that it should find.

    architecture  of the paper: 1, or 2 with far fewer weights
    features      of the paper's F1 to F4 that the network sees

    The rest are those of blocks/training/trajectories.py: Schedule.
    """
    model = block._build()
    network = network_of(architecture, m=model.size, n=model.rows, features=tuple(features))
    found = train(
        Unrolled(network, model), model, trajectories(lessons.training, model.step_s),
        trajectories(lessons.held_out, model.step_s), schedule, lessons.seed, lessons.progress,
    )  # fmt: skip
    told = {"steps": found.steps, "architecture": architecture, "features": list(features)}
    scores = {"mse_db": 10.0 * float(np.log10(found.loss))}
    return Learnt(network.hyper, network.arrays(), told, scores)
