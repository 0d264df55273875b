"""Trains tracker.recursive_kalmannet offline, for `kalvit train`."""

from __future__ import annotations

from typing import Any

from blocks.kernels import recursive_kalmannet
from blocks.kernels.state_space import StateSpace
from blocks.trainer.gain_filters import learned
from blocks.trainer.trajectories import scheduled
from blocks.training.recursive_kalmannet import Likely, network_like
from blocks.training.trajectories import Schedule, Trajectories
from blocks.training.usual import usual
from pipeline.train import Learnt, Lessons


@scheduled()
def fit(
    block: Any, lessons: Lessons, schedule: Schedule, *, in_mult: int = 20, units: int = 10,
    calibrate: str = "",
) -> Learnt:  # fmt: skip
    """Fit both networks of a tracker.recursive_kalmannet, by the likelihood of its errors.

    in_mult, units   sizes of their layers, blocks/kernels/recursive_kalmannet.py
    calibrate  weights, NAME or NAME@VERSION, of which only the covariances are calibrated

    The rest are those of blocks/training/trajectories.py: Schedule. Covariances are calibrated.
    """

    def learner(model: StateSpace, known: Trajectories) -> Likely:
        return Likely(network_like(usual(model, known), in_mult=in_mult, units=units), model)

    return learned(
        block, lessons, schedule, recursive_kalmannet.network_of, learner, {}, calibrate=calibrate
    )
