"""The Rauch-Tung-Striebel smoother as a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from blocks import fields
from blocks.kernels import smoother
from blocks.kernels.smoother import Passed
from blocks.late import LateRows
from blocks.state_space import Modelled, checked_intervals, checked_observations
from blocks.tracker.filtering import Intervals, Observations
from pipeline.block import param
from pipeline.errors import RunError
from pipeline.frame import Array, FrameInfo, Scalar


class Smoothed(NamedTuple):
    """What the smoother adds."""

    estimates: Annotated[Float64[Array, "*word time estimate"], fields.ESTIMATES]
    covariances: Annotated[Float64[Array, "*word time estimate estimate"], fields.COVARIANCES]


class Smoother(Modelled, name="tracker.smoother"):
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
        self._model = model = self._build()
        n, m = model.size, model.rows
        self._mean, self._covariance = model.initial.copy(), model.initial_covariance.copy()
        self._seen, self._intervals = np.empty((2 * self.lag, m)), np.empty(2 * self.lag)
        self._passed = Passed.empty(2 * self.lag, n)
        self._held = 0  # observations of the window and the next that are in
        # where the filter stood before the window, for passes that begin there again
        self._before = self._mean.copy(), self._covariance.copy()
        self._sample = 0  # observations taken in
        self._late = LateRows(np.empty((0, n)), np.empty((0, n, n)))
        one = np.full((1, m), np.nan), np.array([self.step_s])  # compiled before the first frame
        smoother.smooth(model, *one, self._mean, self._covariance)

    def process(
        self,
        observations: Observations,
        interval_s: Intervals | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> list[Smoothed]:
        seen = checked_observations(self.name, observations, self._model.rows)
        intervals = checked_intervals(self.name, interval_s, seen.shape[:-1], self.step_s)
        if seen.ndim == 3:
            self._late.check_idle(self.name)
            return [self._words(seen, intervals, info.sample)]
        self._late.expect(len(seen))
        at = 0
        while at < len(seen):
            count = min(len(seen) - at, 2 * self.lag - self._held)
            new = slice(self._held, self._held + count)
            self._seen[new], self._intervals[new] = (
                seen[at : at + count],
                intervals[at : at + count],
            )
            self._pass(new, info.sample + at)
            at += count
            self._held += count
            if self._held == 2 * self.lag:
                self._decide(self.lag)
        return [Smoothed(*rows) for rows in self._late.complete()]

    def finish(self) -> list[Smoothed]:
        if self._held:
            self._decide(self._held)
        return [Smoothed(*rows) for rows in self._late.complete()]

    def state(self) -> Mapping[str, Array | Scalar]:
        return {
            "mean": self._mean.copy(), "covariance": self._covariance.copy(),
            "before_mean": self._before[0].copy(), "before_covariance": self._before[1].copy(),
            "seen": self._seen[: self._held].copy(),
            "intervals": self._intervals[: self._held].copy(),
            "held": self._held, "sample": self._sample,
            **{
                f"passed_{name}": array[: self._held].copy()
                for name, array in self._passed._asdict().items()
            },
            **self._late.state(),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        self._mean, self._covariance = np.array(state["mean"]), np.array(state["covariance"])
        self._before = np.array(state["before_mean"]), np.array(state["before_covariance"])
        self._held, self._sample = int(state["held"]), int(state["sample"])
        self._seen[: self._held] = state["seen"]
        self._intervals[: self._held] = state["intervals"]
        for name, array in self._passed._asdict().items():
            array[: self._held] = state[f"passed_{name}"]
        self._late.restore(state)

    def _words(self, seen: Array, intervals: Array, sample: int) -> Smoothed:
        n = self._model.size
        estimates = np.empty((*seen.shape[:2], n))
        covariances = np.empty((*seen.shape[:2], n, n))
        for word in range(len(seen)):
            found = smoother.smooth(
                self._model, seen[word], intervals[word], self._model.initial,
                self._model.initial_covariance, self.iterations,
            )  # fmt: skip
            if isinstance(found, int):
                self._lost(sample + word * seen.shape[1] + found)
            else:
                estimates[word], covariances[word] = found
        return Smoothed(estimates, covariances)

    def _pass(self, new: slice, sample: int) -> None:
        """The filter over observations that have just come in."""
        part = self._passed.part(new.start, new.stop)
        done = smoother.forward(
            self._model, self._seen[new], self._intervals[new], self._mean, self._covariance, part
        )
        if done < new.stop - new.start:
            self._lost(sample + done)
        self._sample = sample + done

    def _decide(self, count: int) -> None:
        """Smooth all that is held, and let go of the first `count`."""
        if self.iterations == 1:
            found = smoother.backward(self._passed.part(0, self._held))
        else:
            again = smoother.smooth(
                self._model, self._seen[: self._held], self._intervals[: self._held],
                *self._before, self.iterations,
            )  # fmt: skip
            found = None if isinstance(again, int) else again
        if found is None:
            self._lost(self._sample)
            return
        self._late.add(found[0][:count].copy(), found[1][:count].copy())
        last = self._passed.means[count - 1], self._passed.covariances[count - 1]
        self._before = last[0].copy(), last[1].copy()
        self._held -= count
        rest = slice(count, count + self._held)
        for array in (self._seen, self._intervals, *self._passed):
            array[: self._held] = array[rest].copy()

    def _lost(self, sample: int) -> None:
        raise RunError(
            f"{self.name}: at observation {sample} a covariance is not positive, or a number not "
            "finite; raise process_noise or observation_noise"
        )
