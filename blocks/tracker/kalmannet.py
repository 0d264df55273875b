"""KalmanNet, as a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.kernels import kalmannet
from blocks.kernels.kalmannet_filter import Network
from blocks.tracker.gain_filter import GainFilter
from pipeline.frame import Array


class KalmanNet(GainFilter, name="tracker.kalmannet"):
    """States by a model of their motion and a gain that was learned: noise need not be known.

    Revach et al., "KalmanNet: Neural Network Aided Kalman Filtering for Partially Known Dynamics",
    IEEE Trans. Signal Processing 2022, with a network of either architecture. All else is as
    tracker/gain_filter.py says; of weights that were not calibrated, covariances are NaN where the
    gain tells none that is positive, and nis and log_likelihood where it tells none.
    """

    trained_by = "blocks.trainer.kalmannet:fit"

    def _network(self, hyper: Mapping[str, Any], arrays: Mapping[str, Array]) -> Network:
        return kalmannet.network_of(hyper, arrays)
