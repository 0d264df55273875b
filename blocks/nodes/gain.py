"""A gain network in its filter: what trainers of trackers make better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from blocks.kernels import kalmannet
from blocks.kernels.calibration import Calibration
from blocks.kernels.dense import padded
from blocks.kernels.kalmannet import SingleGain
from blocks.kernels.kalmannet_filter import Filters, Tracks
from blocks.kernels.state_space import StateSpace
from pipeline.frame import Array
from pipeline.weights import Weights


class GainNode:
    """The weights of a KalmanNet, with its filter for one model.

    Raises KeyError, TypeError or ValueError where they are none.
    """

    kind = "kalmannet"

    def __init__(
        self, model: StateSpace, hyper: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> None:
        self.hyper, self.arrays = dict(hyper), dict(arrays)
        with np.errstate(over="ignore"):
            self.filters = Filters(kalmannet.network_of(hyper, arrays), model)

    def like(
        self, hyper: Mapping[str, Any], arrays: Mapping[str, Array],
        observation_noise: Array | None = None,
    ) -> GainNode:  # fmt: skip
        """Other weights for the same model, with the calibration of these, if they have one.

        observation_noise  (n, n)  in place of R of the calibration
        """
        model = self.filters.model
        calibration = Calibration.of(self.arrays, model.size, model.rows)
        if calibration is not None:
            if observation_noise is not None:
                calibration = calibration._replace(observation=observation_noise)
            arrays = {**arrays, **calibration.arrays()}
        return GainNode(model, hyper, arrays)

    def weights(self, name: str, *, version: int = 1, parent: int = 0, labels: str = "") -> Weights:
        """As which it is published."""
        return Weights(name, version, self.arrays, self.hyper, parent, labels)

    def taking_over(self, tracks: Tracks) -> Tracks:
        """A copy of where other filters stand, to go on with, as tracker.kalmannet does."""
        hidden = self.filters.hidden_of(tracks.hidden)
        if hidden is None:
            hidden = self.filters.start(len(tracks.mean)).hidden
        return Tracks(*(array.copy() for array in tracks))._replace(hidden=hidden)

    def unpacked(self, hidden: Array) -> list[Array]:
        """Hidden states (rows, width) as blocks/models/kalmannet.py has them."""
        network = self.filters.network
        sizes = [network.m**2, network.m**2, network.n**2]
        if isinstance(network, SingleGain):
            sizes = [network.units * (network.m**2 + network.n**2)]
        starts = np.cumsum([0, *(padded(size) for size in sizes)])
        return [hidden[:, at : at + size] for at, size in zip(starts, sizes, strict=False)]
