"""What the trackers whose gain a network tells have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from blocks.kernels.calibration import Calibration
from blocks.kernels.kalman import Track
from blocks.kernels.kalmannet_filter import Filters, Network, Tracks
from blocks.state_space import checked_intervals, checked_observations
from blocks.tracker.filtering import Intervals, Observations, Tracked
from blocks.tracker.learned import LearnedFilter
from pipeline.block import param
from pipeline.frame import Array, FrameInfo
from pipeline.weights import Weights


class GainFilter(LearnedFilter):
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
    carries = Tracks

    covariance: Literal["gain", "none"] = param(
        default="gain",
        doc="gain: as the weights were calibrated, else what the gain tells, given "
        "observation_noise; none: NaN, where that is unknown",
    )

    @abstractmethod
    def _network(self, hyper: Mapping[str, Any], arrays: Mapping[str, Array]) -> Network:
        """The network of weights; ValueError, TypeError or KeyError where they are none."""

    def start(self) -> None:
        super().start()
        self._filters: Filters | None = None

    def take(self, weights: Weights) -> None:
        with self._fitting(weights):
            network = self._network(weights.hyper, weights.arrays)
            calibration = Calibration.of(weights.arrays, self._model.size, self._model.rows)
            filters = Filters(network, self._model, calibration)
            step, begin = np.full((1, 1), self.step_s), filters.start(1)
            for tracks in (begin, None):  # a step, of a stream and of words, compiles all, too
                self._run(filters, begin.seen[None].copy(), step, tracks)
        self._serve(filters)
        self._filters = filters

    def process(
        self,
        observations: Observations,
        interval_s: Intervals | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> Tracked:
        if self._filters is None:
            raise self._without_weights()
        seen = checked_observations(self.name, observations, self._model.rows)
        intervals = checked_intervals(self.name, interval_s, seen.shape[:-1], self.step_s)
        return self._follow(self._filters, seen, intervals, info.sample)

    def _run(
        self, filters: Filters, seen: Array, intervals: Array, tracks: Tracks | None,
        sample: int = 0,
    ) -> Track:  # fmt: skip
        together = tracks is None
        if tracks is None:
            tracks = filters.start(len(seen))
        out = Track.empty(seen.shape[:2], self._model.size, self._model.rows)
        done = filters.run(
            seen, intervals, tracks, out, together=together, spread=self.covariance == "gain"
        )
        self._check_finite(
            done, seen.shape[1], sample, "observation",
            "train the network on frames like these, or start nearer to where the tracks do "
            "(initial_state)",
        )  # fmt: skip
        return out
