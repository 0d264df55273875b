"""What the trackers that filter share: frames in, tracks out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from blocks import fields
from blocks.kernels import kalman
from blocks.kernels.kalman import Track
from blocks.state_space import Modelled, checked_intervals, checked_observations
from pipeline.errors import RunError
from pipeline.frame import Array, FrameInfo, Scalar

Observations = Float64[Array, "*word time observation"] | Float32[Array, "*word time observation"]
Intervals = Float64[Array, "*word time"]


class Tracked(NamedTuple):
    """What a filter adds."""

    estimates: Annotated[Float64[Array, "*word time estimate"], fields.ESTIMATES]
    covariances: Annotated[Float64[Array, "*word time estimate estimate"], fields.COVARIANCES]
    innovations: Annotated[Float64[Array, "*word time observation"], fields.INNOVATIONS]
    nis: Annotated[Float64[Array, "*word time"], fields.NIS]
    log_likelihood: Annotated[Float64[Array, "*word time"], fields.LOG_LIKELIHOOD]


class Filter(Modelled, ABC):
    """A filter that carries a mean and a matrix over the frames of a stream.

    A stream is one track that goes on from frame to frame. Words are tracks of their own, each
    from the initial state.

    observations  (time, m) or (word, time, m)  NaN where nothing came: rows that are NaN are left
                  out of the correction, and a step without any predicts only
    interval_s    (time) or (word, time)        time before each observation [s]; step_s if absent
    estimates     (..., time, n)                updated means
    covariances   (..., time, n, n)             updated covariances
    innovations   (..., time, m)                observations less what was predicted
    nis           (..., time)                   normalised innovation squared
    log_likelihood  (..., time)                 of each observation given those before it [nat]

    Raises FieldError for observations of another length or that are infinite, and RunError where
    the covariance of an innovation is no longer positive or a number no longer finite.
    """

    def start(self) -> None:
        self._model = self._build()
        self._prepare()
        self._mean = self._model.initial.copy()
        self._matrix = self._first_matrix()
        # compiled before the first frame
        nothing = np.empty((0, self._model.rows)), np.empty(0)
        out = Track.empty((0,), self._model.size, self._model.rows)
        self._filter(*nothing, self._mean.copy(), self._matrix.copy(), out)

    def process(
        self,
        observations: Observations,
        interval_s: Intervals | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> Tracked:
        seen = checked_observations(self.name, observations, self._model.rows)
        intervals = checked_intervals(self.name, interval_s, seen.shape[:-1], self.step_s)
        out = Track.empty(seen.shape[:-1], self._model.size, self._model.rows)
        if seen.ndim == 3:
            done = self._filter_words(seen, intervals, out)
            for word in np.flatnonzero(done < seen.shape[1]):
                self._lost(info.sample + int(word) * seen.shape[1] + int(done[word]))
        else:
            steps = self._filter(seen, intervals, self._mean, self._matrix, out)
            if steps < len(seen):
                self._lost(info.sample + steps)
        likely = kalman.log_likelihood(out.innovations, out.nis, out.det)
        return Tracked(*out[:4], likely)

    def state(self) -> Mapping[str, Array | Scalar]:
        return {"mean": self._mean.copy(), "matrix": self._matrix.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._mean, self._matrix = np.array(state["mean"]), np.array(state["matrix"])

    # What a filter fills in:

    def _prepare(self) -> None:
        """Make what does not depend on the observations."""

    def _first_matrix(self) -> Array:
        """What is kept of the covariance, at the start of a track."""
        return self._model.initial_covariance.copy()

    @abstractmethod
    def _filter(self, seen: Array, intervals: Array, mean: Array, matrix: Array, out: Track) -> int:
        """Filter one track, replacing mean and matrix; returns the steps that went well."""

    def _filter_words(self, seen: Array, intervals: Array, out: Track) -> Array:
        """Filter tracks that each start anew; returns the steps that went well, by track."""
        done: Array = np.zeros(len(seen), np.int64)
        for word in range(len(seen)):
            mean, matrix = self._model.initial.copy(), self._first_matrix()
            done[word] = self._filter(seen[word], intervals[word], mean, matrix, out.of(word))
        return done

    def _lost(self, sample: int) -> None:
        raise RunError(
            f"{self.name}: at observation {sample} the covariance of the innovation is not "
            f"positive, or a number not finite; {self._advice()}"
        )

    def _advice(self) -> str:
        return "raise process_noise or observation_noise"
