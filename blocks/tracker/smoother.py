"""The Rauch-Tung-Striebel smoother as a block."""

from __future__ import annotations

import numpy as np

from blocks.kernels import smoother
from blocks.kernels.smoother import Passed
from blocks.tracker.smoothing import WindowSmoother
from pipeline.block import param
from pipeline.frame import Array


class Smoother(WindowSmoother, name="tracker.smoother"):
    """Estimates of each state from the observations before and after it.

    Rauch, Tung, Striebel, AIAA J. 3(8), 1965, on an extended Kalman filter, which of a linear
    model is the Kalman smoother.

    Words are smoothed as a whole. A stream is smoothed in windows of `lag` observations, each once
    those of the next window are in, so that every estimate knows at least `lag` observations after
    it; the result does not depend on how the stream is cut. With more `iterations` the words, or
    two windows at a time, are smoothed again around their own result.

    observations  (..., time, m)     NaN where nothing came
    interval_s    (..., time)        time before each observation [s]; step_s if absent
    estimates     (..., time, n)     smoothed means
    covariances   (..., time, n, n)  smoothed covariances

    Raises FieldError for observations of another length or that are infinite, and RunError where
    a covariance is no longer positive.
    """

    lag: int = param(
        default=50, at_least=1, at_most=1_000_000, unit="observations",
        doc="observations after each that are waited for, in streams",
    )  # fmt: skip
    iterations: int = param(
        default=1, at_least=1, at_most=100, doc="passes over the observations; more than one "
        "linearise at the result of the one before"
    )  # fmt: skip

    def start(self) -> None:
        super().start()
        self._passed = Passed.empty(2 * self.lag, self._model.size)
        self._windows.arrays += self._passed
        one = np.full((1, self._model.rows), np.nan), np.array([self.step_s])
        self._smooth(*one, *self._before)  # compiled before the first frame

    def _take_in(self, new: slice) -> None:
        mean, covariance = (array.copy() for array in self._reached(new.start))
        done = smoother.forward(
            self._model, self._seen[new], self._intervals[new], mean, covariance,
            self._passed.part(new.start, new.stop),
        )  # fmt: skip
        if done < new.stop - new.start:
            raise self._lost(self._sample + new.start + done)

    def _reached(self, count: int) -> tuple[Array, Array]:
        """Where the filter is after so many observations of those held."""
        if not count:
            return self._before
        return self._passed.means[count - 1], self._passed.covariances[count - 1]

    def _smooth(
        self, seen: Array, intervals: Array, mean: Array, covariance: Array
    ) -> tuple[Array, Array] | int:
        return smoother.smooth(self._model, seen, intervals, mean, covariance, self.iterations)

    def _smooth_held(self, count: int) -> tuple[Array, Array] | int:
        held = self._windows.held
        if self.iterations == 1:
            found = smoother.backward(self._passed.part(0, held)) or held
        else:
            found = self._smooth(self._seen[:held], self._intervals[:held], *self._before)
        mean, covariance = self._reached(count)
        self._before = mean.copy(), covariance.copy()
        return found
