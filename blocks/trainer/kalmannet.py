"""Trains tracker.kalmannet offline, for `kalvit train`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from blocks.kernels import kalmannet
from blocks.models.kalmannet import network_of
from blocks.trainer.gain_filters import learned
from blocks.trainer.trajectories import scheduled
from blocks.training.kalmannet import Unrolled
from blocks.training.trajectories import Schedule
from pipeline.train import Learnt, Lessons


@scheduled()
def fit(
    block: Any, lessons: Lessons, schedule: Schedule, *, architecture: int = 2,
    features: Sequence[int] = (1, 2, 3, 4),
) -> Learnt:  # fmt: skip
    """Fit the gain network of a tracker.kalmannet to the states that it should find.

    architecture  of the paper: 1, or 2 with far fewer weights
    features      of the paper's F1 to F4 that the network sees

    The rest are those of blocks/training/trajectories.py: Schedule. Covariances are calibrated.
    """
    model = block._build()
    network = network_of(architecture, m=model.size, n=model.rows, features=tuple(features))
    told = {"architecture": architecture, "features": list(features)}
    return learned(
        Unrolled(network, model), model, kalmannet.network_of, lessons, schedule, told
    )  # fmt: skip
