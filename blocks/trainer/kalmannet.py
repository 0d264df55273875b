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
from blocks.training.usual import usual
from pipeline.train import Learnt, Lessons


@scheduled()
def fit(
    block: Any, lessons: Lessons, schedule: Schedule, *, architecture: int = 2,
    features: Sequence[int] = (1, 2, 3, 4), scaled: bool = False, calibrate: str = "",
) -> Learnt:  # fmt: skip
    """Fit the gain network of a tracker.kalmannet to the states that it should find.

    architecture  of the paper: 1, or 2 with far fewer weights
    features      of the paper's F1 to F4 that the network sees
    scaled        features tell how long they are, in units of the usual errors of a filter that
                  knows the noise, and the gain is in these units; False: as in the paper
    calibrate     weights, NAME or NAME@VERSION, of which only the covariances are calibrated

    The rest are those of blocks/training/trajectories.py: Schedule. Covariances are calibrated.
    """

    def learner(model: StateSpace, known: Trajectories) -> Unrolled:
        scales: tuple[float, ...] = ()
        if scaled:
            units = usual(model, known)
            scales = *units.states.tolist(), *units.observations.tolist()
        network = network_of(
            architecture, m=model.size, n=model.rows, features=tuple(features), scales=scales
        )
        return Unrolled(network, model)

    told = {"architecture": architecture, "features": list(features), "scaled": scaled}
    return learned(
        block, lessons, schedule, kalmannet.network_of, learner, told, calibrate=calibrate
    )
