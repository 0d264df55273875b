"""Recurrent networks that track, the baselines that learn without a gain, as a block."""

from __future__ import annotations

import numpy as np

from blocks.kernels.kalman import Track
from blocks.kernels.recurrent_filter import Network, Trackers, Tracks
from blocks.state_space import checked_intervals, checked_observations
from blocks.tracker.filtering import Intervals, Observations, Tracked
from blocks.tracker.learned import LearnedFilter
from pipeline.frame import Array, FrameInfo
from pipeline.weights import Weights


class Recurrent(LearnedFilter, name="tracker.recurrent"):
    """States from a recurrent network: the baselines of the KalmanNet paper.

    Revach et al., "KalmanNet", IEEE Trans. Signal Processing 2022, IV. What the network sees and
    tells is part of its weights (kernels/recurrent_filter.py): the vanilla RNN maps observations to
    states, the model-based RNN corrects what the model predicts, given that and the observation,
    or, with differences, given the innovation and the correction before. They serve to see what
    the structure of a filter is worth: on tracks longer than those that they learned from, or that
    go elsewhere, they may be lost. `process_noise` and `observation_noise` are not used.

    New weights go on from the states that were reached, and from the hidden state if theirs is as
    long. Streams, words, missing rows and the fields read are those of tracker.kalman; a step
    without any observation predicts by the model.

    observations    (..., time, m)     NaN where nothing came
    interval_s      (..., time)        [s]; step_s if absent
    estimates       (..., time, n)     updated states
    covariances     (..., time, n, n)  NaN: such a network tells none; so are nis and log_likelihood
    innovations     (..., time, m)     observations less what was predicted

    Raises FieldError for observations of another length or that are infinite, RunError where a
    number is no longer finite, and WeightsError where there are no weights.
    """

    trained_by = "blocks.trainer.recurrent_filter:fit"
    learns_from = ("states",)
    carries = Tracks

    def start(self) -> None:
        super().start()
        self._trackers: Trackers | None = None

    def take(self, weights: Weights) -> None:
        with self._fitting(weights):
            network = Network.of(weights.hyper, weights.arrays)
            trackers = Trackers(network, self._model)
            # a step, which compiles all that is due, too
            seen = np.full((1, 1, self._model.rows), self._model.initial[0])
            self._run(trackers, seen, np.full((1, 1), self.step_s), trackers.start(1))
        self._serve(trackers)
        self._trackers = trackers

    def process(
        self,
        observations: Observations,
        interval_s: Intervals | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> Tracked:
        if self._trackers is None:
            raise self._without_weights()
        seen = checked_observations(self.name, observations, self._model.rows)
        intervals = checked_intervals(self.name, interval_s, seen.shape[:-1], self.step_s)
        return self._follow(self._trackers, seen, intervals, info.sample)

    def _run(
        self, filters: Trackers, seen: Array, intervals: Array, tracks: Tracks | None,
        sample: int = 0,
    ) -> Track:  # fmt: skip
        if tracks is None:
            tracks = filters.start(len(seen))
        out = Track.empty(seen.shape[:2], self._model.size, self._model.rows)
        done = filters.run(seen, intervals, tracks, out)
        advice = "train the network on frames like these"
        self._check_finite(done, seen.shape[1], sample, "observation", advice)
        return out
