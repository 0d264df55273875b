"""Split-KalmanNet, as a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.kernels import split_kalmannet
from blocks.kernels.kalmannet_filter import Network
from blocks.tracker.gain_filter import GainFilter
from pipeline.frame import Array


class SplitKalmanNet(GainFilter, name="tracker.split_kalmannet"):
    """States by a model and a gain P H' S, of which two networks tell the factors P and S.

    Choi et al., "Split-KalmanNet: A Robust Model-Based Deep Learning Approach for State
    Estimation", IEEE Trans. Vehicular Technology 2023: the Jacobian H of the observation stays the
    model's, so that the gain turns with it. Angles are compared around the circle, which the
    authors' code does not. All else is as tracker/gain_filter.py says.
    """

    trained_by = "blocks.trainer.split_kalmannet:fit"

    def _network(self, hyper: Mapping[str, Any], arrays: Mapping[str, Array]) -> Network:
        return split_kalmannet.network_of(hyper, arrays)
