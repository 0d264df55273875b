"""Trains tracker.recursive_kalmannet offline, for `kalvit train`."""

from __future__ import annotations

from typing import Any

from blocks.kernels import recursive_kalmannet
from blocks.trainer.gain_filters import learned
from blocks.trainer.trajectories import scheduled, trajectories
from blocks.training.recursive_kalmannet import Likely, network_like, usual
from blocks.training.trajectories import Schedule
from pipeline.train import Learnt, Lessons


@scheduled()
def fit(
    block: Any, lessons: Lessons, schedule: Schedule, *, in_mult: int = 20, units: int = 10
) -> Learnt:
    """Fit both networks of a tracker.recursive_kalmannet, by the likelihood of its errors.

    in_mult, units   sizes of their layers, blocks/kernels/recursive_kalmannet.py

    The rest are those of blocks/training/trajectories.py: Schedule. Covariances are calibrated.
    """
    model = block._build()
    known = trajectories(lessons.training, model.step_s)
    network = network_like(usual(model, known), in_mult=in_mult, units=units)
    return learned(
        Likely(network, model), model, recursive_kalmannet.network_of, lessons, schedule, {}
    )
