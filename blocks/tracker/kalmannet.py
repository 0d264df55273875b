"""A filter whose gain a network tells, as a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from blocks.kernels import kalman, kalmannet, kalmannet_filter
from blocks.kernels.kalman import Track
from blocks.kernels.kalmannet_filter import Filters, Tracks
from blocks.state_space import Modelled, checked_intervals, checked_observations
from blocks.tracker.filtering import Intervals, Observations, Tracked
from pipeline.block import Learned, param
from pipeline.errors import RunError, WeightsError
from pipeline.frame import Array, FrameInfo, Scalar
from pipeline.weights import Weights


class KalmanNet(Learned, Modelled, name="tracker.kalmannet"):
    """States by a model of their motion and a gain that was learned: noise need not be known.

    Revach et al., "KalmanNet: Neural Network Aided Kalman Filtering for Partially Known Dynamics",
    IEEE Trans. Signal Processing 2022. Each step predicts by the model and corrects with the gain
    that a network of either architecture tells from how the track has gone; missing observations
    and covariances are as kernels/kalmannet_filter.py says. `process_noise` is not used, and
    `observation_noise` for covariances, nis and log_likelihood only.

    New weights go on from the states that were reached. So do the hidden states of the network if
    those of the new one are as many; else they begin anew.

    Streams, words, missing rows and the fields read are those of tracker.kalman.

    observations    (..., time, m)     NaN where nothing came; a step without any predicts only
    interval_s      (..., time)        [s]; step_s if absent
    estimates       (..., time, n)     updated states
    covariances     (..., time, n, n)  NaN where the gain tells none that is positive
    innovations     (..., time, m)     observations less what was predicted
    nis             (..., time)        by the covariance that the gain tells, else NaN
    log_likelihood  (..., time)        likewise, of each observation given those before it [nat]

    Raises FieldError for observations of another length or that are infinite, RunError where a
    number is no longer finite, and WeightsError where there are no weights.
    """

    trained_by = "blocks.trainer.kalmannet:fit"
    learns_from = ("states",)

    covariance: Literal["gain", "none"] = param(
        default="gain",
        doc="gain: what the gain tells, given observation_noise; none: NaN, where that is unknown",
    )

    def start(self) -> None:
        self._model = self._build()
        self._filters: Filters | None = None
        self._tracks: Tracks | None = None

    def take(self, weights: Weights) -> None:
        where = f"weights {weights.name!r} v{weights.version}"
        try:
            with np.errstate(over="ignore"):  # what that leads to is tried below
                network = kalmannet.network_of(weights.hyper, weights.arrays)
            filters = Filters(network, self._model)
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
