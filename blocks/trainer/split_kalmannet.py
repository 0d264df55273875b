"""Trains tracker.split_kalmannet offline, for `kalvit train`."""

from __future__ import annotations

from typing import Any

from blocks.kernels import split_kalmannet
from blocks.models.split_kalmannet import SplitNetwork
from blocks.trainer.gain_filters import learned
from blocks.trainer.trajectories import scheduled
from blocks.training.split_kalmannet import Split
from blocks.training.trajectories import Schedule
from pipeline.train import Learnt, Lessons


@scheduled()
def fit(
    block: Any, lessons: Lessons, schedule: Schedule, *, alternate: bool = True, in_mult: int = 80,
    units: int = 2,
) -> Learnt:  # fmt: skip
    """Fit both networks of a tracker.split_kalmannet to the states that it should find.

    alternate  whether the networks take turns in learning, or learn together
    in_mult, units   sizes of their layers, blocks/kernels/split_kalmannet.py

    The rest are those of blocks/training/trajectories.py: Schedule. Covariances are calibrated.
    """
    model = block._build()
    network = SplitNetwork(model.size, model.rows, in_mult=in_mult, units=units)
    learner = Split(network, model, alternate=alternate)
    told = {"alternate": alternate}
    return learned(learner, model, split_kalmannet.network_of, lessons, schedule, told)
