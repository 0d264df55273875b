"""The extended Kalman filter as a block."""

from __future__ import annotations

from typing import Literal

from blocks.kernels import extended_kalman
from blocks.kernels.kalman import Track
from blocks.tracker.filtering import Filter
from pipeline.block import param
from pipeline.frame import Array


class ExtendedKalman(Filter, name="tracker.extended_kalman"):
    """A Kalman filter on the motion and the observation, linearised where the track is.

    Smith, Schmidt, McGee, NASA TR R-135, 1962. The Jacobians are those of the model, exact unless
    it says otherwise; angles are compared around the circle. Fields and errors are
    those of Filter.
    """

    form: Literal["joseph", "simple"] = param(
        default="joseph",
        doc="how the covariance is updated: (I - KH) P (I - KH)' + K R K', or P - K H P",
    )

    def _filter(self, seen: Array, intervals: Array, mean: Array, matrix: Array, out: Track) -> int:
        return extended_kalman.extended(
            self._model, seen, intervals, mean, matrix, out, is_joseph=self.form == "joseph"
        )
