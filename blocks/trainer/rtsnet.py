"""Trains tracker.rtsnet offline, for `kalvit train`."""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.models.rtsnet import PassNetwork
from blocks.trainer.trajectories import scheduled, trajectories
from blocks.training.rtsnet import train_passes
from blocks.training.trajectories import Schedule
from pipeline.models import Models
from pipeline.train import Learnt, Lessons


@scheduled(Schedule(truncate=100))
def fit(
    block: Any, lessons: Lessons, schedule: Schedule, *, passes: int = 2,
    sees: str = "observations", first: str = "",
) -> Learnt:  # fmt: skip
    """Fit the networks of a tracker.rtsnet to the states that it should find.

    passes   over the record, each trained after those before it
    sees     what the first of them sees: observations, or smoothed, states that the extended RTS
             smoother of the model finds
    first    model of a tracker.kalmannet, architecture #2, from which the first way there starts

    The rest are those of blocks/training/trajectories.py: Schedule.
    """
    if passes < 1 or sees not in ("observations", "smoothed"):
        raise ValueError(
            f"passes = {passes} and sees = {sees}, but there is at least 1 pass, which sees "
            "observations or smoothed"
        )
    model = block._build()
    arrays = None
    if first:
        weights = Models().load(first)
        wanted = {"architecture": 2, "m": model.size, "n": model.rows}
        if sees == "smoothed" or any(weights.hyper.get(k) != v for k, v in wanted.items()):
            raise ValueError(f"the weights {first!r} do not fit a pass that sees {sees}")
        arrays = weights.arrays
    steps = 0
    for found in train_passes(
        PassNetwork, model, trajectories(lessons.training, model.step_s),
        trajectories(lessons.held_out, model.step_s), passes, schedule, lessons.seed, sees=sees,
        first=arrays, progress=lessons.progress,
    ):  # fmt: skip
        steps += found.steps
    scores = {
        f"mse_db_{number}": 10.0 * float(np.log10(loss))
        for number, loss in enumerate(found.losses, 1)
    }
    told = {"steps": steps, "passes": passes, "sees": sees, "first": first}
    return Learnt(found.hyper, found.arrays, told, {**scores, "mse_db": scores[f"mse_db_{passes}"]})
