"""The extended Kalman filter as a block."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float64

from blocks.kernels import extended_kalman
from blocks.kernels.kalman import Track
from blocks.tracker.filtering import Filter, Intervals, Observations, Tracked
from pipeline.block import param
from pipeline.errors import FieldError
from pipeline.frame import Array, FrameInfo


class ExtendedKalman(Filter, name="tracker.extended_kalman"):
    """A Kalman filter on the motion and the observation, linearised where the track is.

    Smith, Schmidt, McGee, NASA TR R-135, 1962. The Jacobians are those of the model, exact unless
    it says otherwise; angles are compared around the circle. Fields and errors are
    those of Filter.

    Where something says with each observation how far it may be off, as frontend.learned_features
    does, that stands in the place of the variances of the model.

    observation_variances  (..., time, m)  FieldError unless they are positive where something came
    """

    form: Literal["joseph", "simple"] = param(
        default="joseph",
        doc="how the covariance is updated: (I - KH) P (I - KH)' + K R K', or P - K H P",
    )

    _told: Array | None = None  # variances of the frame, or of the word, that is being filtered

    def process(
        self,
        observations: Observations,
        interval_s: Intervals | None = None,
        info: FrameInfo = FrameInfo(),
        observation_variances: Float64[Array, "*word time observation"] | None = None,
    ) -> Tracked:
        self._told = self._checked(observations, observation_variances)
        found = super().process(observations, interval_s, info)
        self._told = None
        return found

    def _checked(self, observations: Array, variances: Array | None) -> Array | None:
        if variances is None:
            return None
        if variances.shape != observations.shape:
            raise FieldError(
                f"{self.name}: 'observation_variances' has shape {variances.shape}, but "
                f"'observations' {observations.shape}"
            )
        told: Array = np.where(np.isnan(observations), 1.0, variances)
        wrong = told[~((told > 0.0) & (told < np.inf))]
        if wrong.size:
            raise FieldError(
                f"{self.name}: 'observation_variances' holds {wrong[0]:g} where an observation "
                "came; expected finite numbers above 0"
            )
        return told

    def _filter_words(self, seen: Array, intervals: Array, out: Track) -> Array:
        told, done = self._told, np.empty(len(seen), np.int64)
        for word in range(len(seen)):
            self._told = None if told is None else told[word]
            one = slice(word, word + 1)
            parts = Track(*(array[one] for array in out))
            done[one] = super()._filter_words(seen[one], intervals[one], parts)
        return done

    def _filter(self, seen: Array, intervals: Array, mean: Array, matrix: Array, out: Track) -> int:
        return extended_kalman.extended(
            self._model,
            seen,
            intervals,
            mean,
            matrix,
            out,
            is_joseph=self.form == "joseph",
            variances=self._told,
        )
