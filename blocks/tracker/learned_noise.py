"""An extended Kalman filter whose noise was learned, as a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from blocks.kernels import learned_noise
from blocks.kernels.calibration import Calibration
from blocks.kernels.kalman import Track
from blocks.tracker.filtering import Filter, Intervals, Observations, Tracked
from pipeline.block import Learned
from pipeline.errors import WeightsError
from pipeline.frame import Array, FrameInfo, Scalar
from pipeline.weights import Weights


class LearnedNoise(Learned, Filter, name="tracker.learned_noise"):
    """States by an extended Kalman filter whose process and observation noise were learned.

    They are constant, or told step by step by a small network that sees the innovations, as
    kernels/learned_noise.py says; there, too, the corrections of the model that may be learned
    with them. Of linear models this is the Kalman filter. `process_noise` and `observation_noise`
    say only where training begins.

    Covariances, nis and log_likelihood are those of a calibration, where weights carry one, which
    changes no estimate; `kalvit train` makes one where it finds that they need it.

    New weights go on from the mean and the covariances that were reached. So does what the network
    remembers, if that of the new one is as long; else it begins anew.

    Streams, words, missing rows and all fields are those of tracker.extended_kalman.

    Raises WeightsError where there are no weights.
    """

    trained_by = "blocks.trainer.learned_noise:fit"
    learns_from = ("states",)

    def start(self) -> None:
        self._model = self._build()
        self._learned: learned_noise.Filter | None = None
        self._mean, self._matrix = self._first()
        self._hidden: Array = np.zeros((1, 0), np.float32)

    def take(self, weights: Weights) -> None:
        where = f"weights {weights.name!r} v{weights.version}"
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what that leads to is seen below
                noise = learned_noise.noise_of(weights.hyper, weights.arrays)
            calibration = Calibration.of(weights.arrays, self._model.size, 0)
            learned = learned_noise.Filter(noise, self._model, calibration)
        except KeyError as error:
            raise WeightsError(f"{where} lack {error}; train others for {self.name}") from None
        except (ValueError, TypeError) as error:
            raise WeightsError(f"{where}: {error}; train others for {self.name}") from None
        nothing = np.full((1, self._model.rows), np.nan)
        out = Track.empty((1,), self._model.size, self._model.rows)
        # which also compiles all that is due
        learned.run(nothing, np.full(1, self.step_s), *self._first(), learned.hidden(), out)
        if not all(np.isfinite(array).all() for array in (out.estimates, out.covariances)):
            raise WeightsError(f"{where} lead to numbers that are not finite; train others")
        if self._hidden.shape != learned.hidden().shape:
            self._hidden = learned.hidden()
        self._learned = learned

    def process(
        self,
        observations: Observations,
        interval_s: Intervals | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> Tracked:
        self._serving()
        return super().process(observations, interval_s, info)

    def state(self) -> Mapping[str, Array | Scalar]:
        return {**super().state(), "hidden": self._hidden.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._hidden = np.array(state["hidden"])

    def _first(self) -> tuple[Array, Array]:
        return self._model.initial.copy(), self._first_matrix()

    def _first_matrix(self) -> Array:
        """Covariances: the one that gains follow from, and the one that is told."""
        return np.stack([self._model.initial_covariance] * 2)

    def _filter(self, seen: Array, intervals: Array, mean: Array, matrix: Array, out: Track) -> int:
        return self._serving().run(seen, intervals, mean, matrix, self._hidden, out)

    def _filter_words(self, seen: Array, intervals: Array, out: Track) -> Array:
        learned = self._serving()
        done: Array = np.zeros(len(seen), np.int64)
        for word in range(len(seen)):
            hidden = learned.hidden()
            done[word] = learned.run(
                seen[word], intervals[word], *self._first(), hidden, out.of(word)
            )
        return done

    def _serving(self) -> learned_noise.Filter:
        if self._learned is None:
            raise WeightsError(
                f"{self.name}: there are no weights to track with; train some with `kalvit train "
                "FLOW --block BLOCK` and name them by model = NAME (those that are there: `kalvit "
                "models list`)"
            )
        return self._learned

    def _advice(self) -> str:
        return "train the noise on frames like these, or start nearer to where the tracks do"
