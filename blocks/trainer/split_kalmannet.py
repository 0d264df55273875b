"""Trains tracker.split_kalmannet offline, for `kalvit train`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from blocks.kernels import split_kalmannet
from blocks.kernels.state_space import StateSpace
from blocks.models.split_kalmannet import SplitNetwork
from blocks.trainer.gain_filters import learned
from blocks.trainer.trajectories import scheduled
from blocks.training.split_kalmannet import Split
from blocks.training.trajectories import Schedule, Trajectories
from blocks.training.usual import Usual, usual
from pipeline.train import Learnt, Lessons


def network_like(usual: Usual, in_mult: int = 80, units: int = 2) -> SplitNetwork:
    """A fresh network of these sizes that begins near the usual covariances.

    Only the product of both factors counts, so P is told in units of its mean variance.
    """
    m, n = usual.gain.shape
    network, unit = SplitNetwork(m, n, in_mult=in_mult, units=units), np.trace(usual.predicted) / m
    with torch.no_grad():
        for branch, begin in (
            (network.P, usual.predicted / unit),
            (network.S, usual.inverse * unit),
        ):
            branch.L3.bias.add_(torch.from_numpy(begin.ravel()).to(branch.L3.bias))
    return network


@scheduled()
def fit(
    block: Any, lessons: Lessons, schedule: Schedule, *, alternate: bool = True, in_mult: int = 80,
    units: int = 2, calibrate: str = "",
) -> Learnt:  # fmt: skip
    """Fit both networks of a tracker.split_kalmannet to the states that it should find.

    alternate  whether the networks take turns in learning, or learn together
    in_mult, units   sizes of their layers, blocks/kernels/split_kalmannet.py
    calibrate  weights, NAME or NAME@VERSION, of which only the covariances are calibrated

    The rest are those of blocks/training/trajectories.py: Schedule. Covariances are calibrated.
    """

    def learner(model: StateSpace, known: Trajectories) -> Split:
        network = network_like(usual(model, known), in_mult=in_mult, units=units)
        return Split(network, model, alternate=alternate)

    return learned(
        block, lessons, schedule, split_kalmannet.network_of, learner, {"alternate": alternate},
        calibrate=calibrate,
    )  # fmt: skip
