"""Trains tracker.recurrent offline, for `kalvit train`."""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.models.recurrent_filter import RecurrentTracker
from blocks.trainer.trajectories import scheduled, trajectories
from blocks.training.recurrent_filter import Recurrent
from blocks.training.trajectories import Schedule, train
from pipeline.train import Learnt, Lessons


@scheduled()
def fit(
    block: Any, lessons: Lessons, schedule: Schedule, *, sees: str = "differences",
    wide: int = 64, units: int = 64,
) -> Learnt:  # fmt: skip
    """Fit the network of a tracker.recurrent to the states that it should find.

    sees   observations: states from them alone; predictions: corrections, from observations and
           predicted states; differences: corrections, from innovations and corrections before
    wide   outputs of each of the two inner layers
    units  of the GRU

    The rest are those of blocks/training/trajectories.py: Schedule.
    """
    model = block._build()
    network = RecurrentTracker(sees=sees, m=model.size, n=model.rows, wide=wide, units=units)
    learner = Recurrent(network, model)
    training = trajectories(lessons.training, model.step_s)
    learner.scale(training)
    found = train(
        learner, model, training, trajectories(lessons.held_out, model.step_s), schedule,
        lessons.seed, lessons.progress,
    )  # fmt: skip
    scores = {"mse_db": 10.0 * float(np.log10(found.loss))}
    return Learnt(network.hyper, network.arrays(), {"steps": found.steps, "sees": sees}, scores)
