"""What the trackers that smooth share: windows of a stream, whole words, and what they add."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from blocks import fields
from blocks.late import LateRows
from blocks.state_space import Modelled, checked_intervals, checked_observations
from blocks.tracker.filtering import Intervals, Observations
from pipeline.errors import RunError
from pipeline.frame import Array, FrameInfo, Scalar


class Smoothed(NamedTuple):
    """What a smoother adds."""

    estimates: Annotated[Float64[Array, "*word time estimate"], fields.ESTIMATES]
    covariances: Annotated[Float64[Array, "*word time estimate estimate"], fields.COVARIANCES]


class TwoWindows:
    """Rows of a stream that are held until they are smoothed: those of two windows, at most.

    lag     rows of a window
    arrays  of 2 lag rows each, that whoever holds them fills

    >>> held = np.empty(4)
    >>> windows = TwoWindows(2, held)
    >>> for new, given in windows.places(5):
    ...     held[new] = np.arange(5)[given]
    ...     if windows.are_full:
    ...         windows.let_go(2)
    >>> held[: windows.held]
    array([2., 3., 4.])
    """

    def __init__(self, lag: int, *arrays: Array) -> None:
        self._lag, self.arrays = lag, arrays
        self.held = 0  # rows

    def places(self, count: int) -> Iterator[tuple[slice, slice]]:
        """Where so many new rows go: rows of the arrays to be filled, and which of the new ones.

        Whoever asks lets go of rows when both windows are full.
        """
        at = 0
        while at < count:
            first, stop = self.held, min(at + 2 * self._lag - self.held, count)
            self.held += stop - at
            yield slice(first, self.held), slice(at, stop)
            at = stop

    @property
    def are_full(self) -> bool:
        return self.held == 2 * self._lag

    def let_go(self, count: int) -> None:
        """Forget the first rows."""
        self.held -= count
        for array in self.arrays:
            array[: self.held] = array[count : count + self.held].copy()

    def state(self) -> dict[str, Array]:
        """What is held, as arrays."""
        return {f"held_{n}": array[: self.held].copy() for n, array in enumerate(self.arrays)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` of an equal object returned."""
        self.held = len(state["held_0"])
        for n, array in enumerate(self.arrays):
            array[: self.held] = state[f"held_{n}"]


class WindowSmoother(Modelled, ABC):
    """Smooths words as a whole, and a stream in windows of `lag` observations.

    A window is smoothed once the observations of the next are in. How the stream is cut changes
    nothing.
    """

    lag: int

    def start(self) -> None:
        self._model = model = self._build()
        n, m = model.size, model.rows
        self._seen, self._intervals = np.empty((2 * self.lag, m)), np.empty(2 * self.lag)
        self._windows = TwoWindows(self.lag, self._seen, self._intervals)
        self._sample = 0  # number of the first observation that is held
        # where the filter stood before it
        self._before = model.initial.copy(), model.initial_covariance.copy()
        self._late = LateRows(np.empty((0, n)), np.empty((0, n, n)))

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
        for new, given in self._windows.places(len(seen)):
            self._seen[new], self._intervals[new] = seen[given], intervals[given]
            self._sample = info.sample + given.start - new.start
            self._take_in(new)
            if self._windows.are_full:
                self._decide(self.lag)
        return [Smoothed(*rows) for rows in self._late.complete()]

    def finish(self) -> list[Smoothed]:
        if self._windows.held:
            self._decide(self._windows.held)
        return [Smoothed(*rows) for rows in self._late.complete()]

    def state(self) -> Mapping[str, Array | Scalar]:
        mean, covariance = self._before
        return {
            "mean": mean.copy(), "covariance": covariance.copy(), "sample": self._sample,
            **self._windows.state(), **self._late.state(),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        self._before = np.array(state["mean"]), np.array(state["covariance"])
        self._sample = int(state["sample"])
        self._windows.restore(state)
        self._late.restore(state)

    def _words(self, seen: Array, intervals: Array, sample: int) -> Smoothed:
        n, start = self._model.size, (self._model.initial, self._model.initial_covariance)
        out = Smoothed(np.empty((*seen.shape[:2], n)), np.empty((*seen.shape[:2], n, n)))
        for word in range(len(seen)):
            found = self._smooth(seen[word], intervals[word], *start)
            if isinstance(found, int):
                raise self._lost(sample + word * seen.shape[1] + found)
            out.estimates[word], out.covariances[word] = found
        return out

    def _decide(self, count: int) -> None:
        """Smooth all that is held, and let go of the first `count`."""
        found = self._smooth_held(count)
        if isinstance(found, int):
            raise self._lost(self._sample + found)
        self._late.add(*(rows[:count].copy() for rows in found))
        self._windows.let_go(count)
        self._sample += count

    def _lost(self, sample: int) -> RunError:
        return RunError(
            f"{self.name}: at observation {sample} a covariance is not positive, or a number not "
            f"finite; {self._advice()}"
        )

    # What a smoother fills in:

    def _take_in(self, new: slice) -> None:
        """Do what can be done with observations that have just come, these rows of what is held."""

    @abstractmethod
    def _smooth(
        self, seen: Array, intervals: Array, mean: Array, covariance: Array
    ) -> tuple[Array, Array] | int:
        """States and covariances of a record from this start, or the step at which it broke."""

    @abstractmethod
    def _smooth_held(self, count: int) -> tuple[Array, Array] | int:
        """The same of what is held; `_before` becomes where the filter is after `count` of it."""

    def _advice(self) -> str:
        return "raise process_noise or observation_noise"
