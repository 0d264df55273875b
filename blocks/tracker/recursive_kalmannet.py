"""Recursive KalmanNet, as a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.kernels import recursive_kalmannet
from blocks.kernels.kalmannet_filter import Network
from blocks.tracker.gain_filter import GainFilter
from pipeline.frame import Array


class RecursiveKalmanNet(GainFilter, name="tracker.recursive_kalmannet"):
    """States and their covariances by a model, with a gain and a noise that networks tell.

    Mortada et al., "Recursive KalmanNet: Deep Learning-Augmented Kalman Filtering for State
    Estimation with Consistent Uncertainty Quantification", EUSIPCO 2025: the covariance follows
    Joseph's form, step by step as the noise is, and both networks learn from the likelihood of
    their errors. All else is as tracker/gain_filter.py says; of weights that were not calibrated,
    nis and log_likelihood are NaN.
    """

    trained_by = "blocks.trainer.recursive_kalmannet:fit"

    def _network(self, hyper: Mapping[str, Any], arrays: Mapping[str, Array]) -> Network:
        return recursive_kalmannet.network_of(hyper, arrays)
