"""Trains tracker.kalmannet offline, for `kalvit train`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from blocks.kernels import kalmannet
from blocks.kernels.state_space import StateSpace
from blocks.models.kalmannet import network_of
from blocks.trainer.gain_filters import learned
from blocks.trainer.trajectories import scheduled
from blocks.training.kalmannet import Unrolled
from blocks.training.trajectories import Schedule, Trajectories
from pipeline.train import Learnt, Lessons


@scheduled()
def fit(
    block: Any, lessons: Lessons, schedule: Schedule, *, architecture: int = 2,
    features: Sequence[int] = (1, 2, 3, 4), calibrate: str = "",
) -> Learnt:  # fmt: skip
    """Fit the gain network of a tracker.kalmannet to the states that it should find.

    architecture  of the paper: 1, or 2 with far fewer weights
    features      of the paper's F1 to F4 that the network sees
    calibrate     weights, NAME or NAME@VERSION, of which only the covariances are calibrated

    The rest are those of blocks/training/trajectories.py: Schedule. Covariances are calibrated.
    """

    def learner(model: StateSpace, known: Trajectories) -> Unrolled:
        sizes = {"m": model.size, "n": model.rows}
        return Unrolled(network_of(architecture, features=tuple(features), **sizes), model)

    told = {"architecture": architecture, "features": list(features)}
    return learned(
        block, lessons, schedule, kalmannet.network_of, learner, told, calibrate=calibrate
    )
