"""Trains tracker.recursive_kalmannet offline, for `kalvit train`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from blocks.kernels import recursive_kalmannet
from blocks.kernels.state_space import StateSpace
from blocks.models.recursive_kalmannet import RecursiveNetwork
from blocks.trainer.gain_filters import learned
from blocks.trainer.trajectories import scheduled
from blocks.training.recursive_kalmannet import Likely
from blocks.training.trajectories import Schedule, Trajectories
from blocks.training.usual import Usual, usual
from pipeline.train import Learnt, Lessons


def network_like(usual: Usual, in_mult: int = 20, units: int = 10) -> RecursiveNetwork:
    """A fresh network of these sizes that begins near the usual gain and noise."""
    scales = usual.states.tolist(), usual.observations.tolist()
    m, n = usual.gain.shape
    network = RecursiveNetwork(m, n, *scales, in_mult=in_mult, units=units)
    C = usual.factor / usual.states[:, None]
    np.fill_diagonal(C, np.log(np.expm1(C.diagonal())))
    lower = C[np.tril_indices(len(C))]
    with torch.no_grad():
        for branch, begin in ((network.K, usual.gain.ravel()), (network.C, lower)):
            branch.L3.bias.add_(torch.from_numpy(begin).to(branch.L3.bias))
    return network


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
