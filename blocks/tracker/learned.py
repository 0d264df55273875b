"""What trackers that learn have in common: weights in mid-stream, and tracks that go on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from blocks.kernels import kalman
from blocks.kernels.kalman import Track
from blocks.state_space import Modelled
from blocks.tracker.filtering import Tracked
from pipeline.block import Learned
from pipeline.errors import RunError, WeightsError
from pipeline.frame import Array, Scalar
from pipeline.weights import Weights


class LearnedTracker(Learned, Modelled, ABC):
    """A tracker whose weights come before the first frame, and again in mid-stream."""

    @contextmanager
    def _fitting(self, weights: Weights) -> Iterator[None]:
        """What goes wrong with new weights, as WeightsError."""
        where = f"weights {weights.name!r} v{weights.version}"
        try:
            with np.errstate(over="ignore"):  # what that leads to is tried, too
                yield
        except KeyError as error:
            raise WeightsError(f"{where} lack {error}; train others for {self.name}") from None
        except (ValueError, TypeError, ArithmeticError) as error:
            raise WeightsError(f"{where}: {error}; train others for {self.name}") from None
        except RunError:
            raise WeightsError(
                f"{where} lead to numbers that are not finite; train others"
            ) from None

    def _without_weights(self) -> WeightsError:
        return WeightsError(
            f"{self.name}: there are no weights to track with; train some with `kalvit train "
            "FLOW --block BLOCK` and name them by model = NAME (those that are there: `kalvit "
            "models list`)"
        )

    def _check_finite(self, done: Array, steps: int, sample: int, what: str, advice: str) -> None:
        """RunError where a track of so many steps did not stay finite, given how far each went."""
        for track in np.flatnonzero(done < steps):
            at = sample + int(track) * steps + int(done[track])
            raise RunError(f"{self.name}: at {what} {at} a number is not finite; {advice}")


class LearnedFilter(LearnedTracker, ABC):
    """A filter that carries tracks, a NamedTuple of arrays with `hidden`, over the frames.

    New weights go on from where the tracks stand; the hidden states of a network, too, if those of
    the new one are as many, else they begin anew.
    """

    #: The NamedTuple that its tracks are.
    carries: type[Any]

    def start(self) -> None:
        self._model = self._build()
        self._tracks: Any = None

    def _serve(self, filters: Any) -> None:
        """Let the tracks go on with new filters."""
        known = self._tracks is not None
        self._tracks = went_on(filters, self._tracks) if known else filters.start(1)

    def _follow(self, filters: Any, seen: Array, intervals: Array, sample: int) -> Tracked:
        """What filters make of words, each from the start, or of the stream that goes on."""
        if intervals.ndim == 2:
            out = self._run(filters, seen, intervals, None, sample)
        else:
            out = self._run(filters, seen[None], intervals[None], self._tracks, sample).of(0)
        return Tracked(*out[:4], kalman.log_likelihood(out.innovations, out.nis, out.det))

    @abstractmethod
    def _run(
        self, filters: Any, seen: Array, intervals: Array, tracks: Any, sample: int = 0
    ) -> Track:
        """Filter (track, time, ...), each from the start where `tracks` is None.

        Raises RunError where a track does not stay finite.
        """

    def state(self) -> Mapping[str, Array | Scalar]:
        if self._tracks is None:
            return {}
        return {name: array.copy() for name, array in self._tracks._asdict().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        if state:
            self._tracks = self.carries(*(np.array(state[name]) for name in self.carries._fields))


def went_on(filters: Any, tracks: Any) -> Any:
    """Where tracks stand, with hidden states with which new filters go on."""
    hidden = filters.hidden_of(tracks.hidden)
    if hidden is None:
        hidden = filters.start(1).hidden
    return tracks._replace(hidden=hidden)
