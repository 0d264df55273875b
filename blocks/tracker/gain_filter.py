"""What the trackers whose gain a network tells have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from blocks.kernels import kalman, kalmannet_filter
from blocks.kernels.kalman import Track
from blocks.kernels.kalmannet_filter import Calibration, Filters, Network, Tracks
from blocks.state_space import Modelled, checked_intervals, checked_observations
from blocks.tracker.filtering import Intervals, Observations, Tracked
from pipeline.block import Learned, param
from pipeline.errors import RunError, WeightsError
from pipeline.frame import Array, FrameInfo, Scalar
from pipeline.weights import Weights


class GainFilter(Learned, Modelled):
    """A filter that predicts by its model and corrects with a gain that a network tells.

    The recursion, missing observations and covariances are as kernels/kalmannet_filter.py says:
    covariances, nis and log_likelihood can be trusted where the weights were calibrated, as
    `kalvit train` does, and then need no `observation_noise`. `process_noise` is not used.

    New weights go on from the states and covariances that were reached. So do the hidden states of
    the network if those of the new one are as many; else they begin anew.

    Streams, words, missing rows and the fields read are those of tracker.kalman.

    observations    (..., time, m)     NaN where nothing came; a step without any predicts only
    interval_s      (..., time)        [s]; step_s if absent
    estimates       (..., time, n)     updated states
    covariances     (..., time, n, n)  of the updated states
    innovations     (..., time, m)     observations less what was predicted
    nis             (..., time)        normalised innovation squared
    log_likelihood  (..., time)        of each observation given those before it [nat]

    Raises FieldError for observations of another length or that are infinite, RunError where a
    number is no longer finite, and WeightsError where there are no weights.
    """

    learns_from = ("states",)

    covariance: Literal["gain", "none"] = param(
        default="gain",
        doc="gain: as the weights were calibrated, else what the gain tells, given "
        "observation_noise; none: NaN, where that is unknown",
    )

    @abstractmethod
    def _network(self, hyper: Mapping[str, Any], arrays: Mapping[str, Array]) -> Network:
        """The network of weights; ValueError, TypeError or KeyError where they are none."""

    def start(self) -> None:
        self._model = self._build()
        self._filters: Filters | None = None
        self._tracks: Tracks | None = None

    def take(self, weights: Weights) -> None:
        where = f"weights {weights.name!r} v{weights.version}"
        try:
            with np.errstate(over="ignore"):  # what that leads to is tried below
                network = self._network(weights.hyper, weights.arrays)
            calibration = Calibration.of(weights.arrays, self._model.size, self._model.rows)
            filters = Filters(network, self._model, calibration)
        except KeyError as error:
            raise WeightsError(f"{where} lack {error}; train others for {self.name}") from None
        except (ValueError, TypeError) as error:
            raise WeightsError(f"{where}: {error}; train others for {self.name}") from None
        begin = filters.start(1)
        try:  # which also compiles all that is due
            self._run(filters, begin.seen[None], np.full((1, 1), self.step_s), begin)
        except RunError:
            raise WeightsError(
                f"{where} lead to numbers that are not finite; train others"
            ) from None
        if self._tracks is None:
            self._tracks = filters.start(1)
        else:
            hidden = filters.hidden_of(self._tracks.hidden)
            if hidden is None:
                hidden = filters.start(1).hidden
            self._tracks = self._tracks._replace(hidden=hidden)
        self._filters = filters

    def process(
        self,
        observations: Observations,
        interval_s: Intervals | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> Tracked:
        if self._filters is None or self._tracks is None:
            raise WeightsError(
                f"{self.name}: there are no weights to track with; train some with `kalvit train "
                "FLOW --block BLOCK` and name them by model = NAME (those that are there: `kalvit "
                "models list`)"
            )
        seen = checked_observations(self.name, observations, self._model.rows)
        intervals = checked_intervals(self.name, interval_s, seen.shape[:-1], self.step_s)
        if seen.ndim == 3:
            rows = -(-len(seen) // kalmannet_filter.TOGETHER) * kalmannet_filter.TOGETHER
            out = self._run(
                self._filters, seen, intervals, self._filters.start(rows), info.sample, words=True
            )
        else:
            out = self._run(self._filters, seen[None], intervals[None], self._tracks, info.sample)
            out = out.of(0)
        likely = kalman.log_likelihood(out.innovations, out.nis, out.det)
        return Tracked(*out[:4], likely)

    def state(self) -> Mapping[str, Array | Scalar]:
        if self._tracks is None:
            return {}
        return {name: array.copy() for name, array in self._tracks._asdict().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        if not state:
            return
        self._tracks = Tracks(*(np.array(state[name]) for name in Tracks._fields))

    def _run(
        self, filters: Filters, seen: Array, intervals: Array, tracks: Tracks, sample: int = 0, *,
        words: bool = False,
    ) -> Track:  # fmt: skip
        """Filter tracks (track, time, m); RunError where one does not stay finite."""
        out = Track.empty(seen.shape[:2], self._model.size, self._model.rows)
        done = filters.run(
            seen, intervals, tracks, out, together=words, spread=self.covariance == "gain"
        )
        for track in np.flatnonzero(done < seen.shape[1]):
            at = sample + int(track) * seen.shape[1] + int(done[track])
            raise RunError(
                f"{self.name}: at observation {at} a number is not finite; train the network on "
                "frames like these, or start nearer to where the tracks do (initial_state)"
            )
        return out
