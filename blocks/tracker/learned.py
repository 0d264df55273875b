"""What trackers that learn have in common: weights in mid-stream, and tracks that go on."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from blocks.state_space import Modelled
from pipeline.block import Learned
from pipeline.errors import RunError, WeightsError
from pipeline.frame import Array, Scalar
from pipeline.weights import Weights


class LearnedTracker(Learned, Modelled, ABC):
    """A tracker that carries tracks, a NamedTuple of arrays with `hidden`, over the frames.

    New weights go on from where the tracks stand; the hidden states of a network, too, if those of
    the new one are as many, else they begin anew.
    """

    #: The NamedTuple that its tracks are.
    carries: type[Any]

    def start(self) -> None:
        self._model = self._build()
        self._tracks: Any = None

    def _went_on(self, filters: Any) -> Any:
        """The tracks with which new filters go on."""
        if self._tracks is None:
            return filters.start(1)
        hidden = filters.hidden_of(self._tracks.hidden)
        if hidden is None:
            hidden = filters.start(1).hidden
        return self._tracks._replace(hidden=hidden)

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

    def state(self) -> Mapping[str, Array | Scalar]:
        if self._tracks is None:
            return {}
        return {name: array.copy() for name, array in self._tracks._asdict().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        if state:
            self._tracks = self.carries(*(np.array(state[name]) for name in self.carries._fields))
