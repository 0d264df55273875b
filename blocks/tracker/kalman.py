"""The Kalman filter as a block."""

from __future__ import annotations

from typing import Literal

import numpy as np

from blocks.kernels import constant_gain, kalman, kalman_tracks, matrices, square_root
from blocks.kernels.kalman import Track
from blocks.tracker.filtering import Filter
from pipeline.block import param
from pipeline.errors import ParameterError
from pipeline.frame import Array


class Kalman(Filter, name="tracker.kalman"):
    """The best linear estimate of a linear system from its observations so far.

    Kalman, "A new approach to linear filtering and prediction problems", J. Basic Eng. 82, 1960.
    Many words at once run several to a vector register. Fields and errors are those of Filter.
    """

    form: Literal["joseph", "simple", "square_root", "steady"] = param(
        default="joseph",
        doc="how the covariance is updated: (I - KH) P (I - KH)' + K R K'; P - K H P; on roots of "
        "P, for an R that is nearly singular; or not at all, with the gain that it settles at",
    )

    precision: Literal["float64", "float32"] = param(
        default="float64",
        doc="what is computed in; float32 needs form = 'square_root', and the fields are float64",
    )

    def check(self) -> None:
        if self.precision == "float32" and self.form != "square_root":
            raise ParameterError(
                f"precision = 'float32' with form = '{self.form}', whose covariance would not stay "
                "positive in it; set form = 'square_root'"
            )
        model = self._build()
        if not model.linear:
            raise ParameterError(
                f"motion = '{self.motion}' with observation = '{self.observation}' is not linear; "
                "use tracker.extended_kalman or tracker.unscented_kalman"
            )
        if self.form == "steady":
            moved, noise, seen = model.matrices(np.array([self.step_s]))
            try:
                constant_gain.steady_state(moved[0], noise[0], seen, model.R)
            except (ValueError, np.linalg.LinAlgError) as error:
                raise ParameterError(f"form = 'steady', but {error}") from None

    def _prepare(self) -> None:
        model = self._model
        self._F, self._Q, self._H = model.matrices(np.array([self.step_s]))
        if self.form == "steady":
            predicted, self._settled, self._gain = constant_gain.steady_state(
                self._F[0], self._Q[0], self._H, model.R
            )
            innovation = self._H @ predicted @ self._H.T + model.R
            self._S, self._S_inverse = innovation, np.linalg.inv(innovation)

    def _first_matrix(self) -> Array:
        start = self._model.initial_covariance.copy()
        if self.form == "square_root":
            matrices.root(start, len(start), start)
        return start

    def _matrices(self, intervals: Array) -> tuple[Array, Array]:
        """F and Q of each step, or one of each where all steps are nominal."""
        if (intervals == self.step_s).all():
            return self._F, self._Q
        return self._model.matrices(intervals)[:2]

    def _filter(self, seen: Array, intervals: Array, mean: Array, matrix: Array, out: Track) -> int:
        moves = self._matrices(intervals)
        if self.form == "steady":
            return self._steady(seen, intervals, mean, out)
        if self.form == "square_root":
            return self._on_roots(seen, moves, mean, matrix, out)
        return kalman.linear(
            seen, *moves, self._H, self._model.R, mean, matrix, out,
            is_joseph=self.form == "joseph",
        )  # fmt: skip

    def _on_roots(
        self, seen: Array, moves: tuple[Array, Array], mean: Array, matrix: Array, out: Track
    ) -> int:
        if self.precision == "float64":
            return square_root.square_root(seen, *moves, self._H, self._model.R, mean, matrix, out)
        given = seen, *moves, self._H, self._model.R
        y, F, Q, H, R = (np.ascontiguousarray(array, np.float32) for array in given)  # noqa: N806
        last, root = mean.astype(np.float32), matrix.astype(np.float32)
        found = Track.empty(seen.shape[:1], len(mean), seen.shape[1], np.float32)
        done = square_root.square_root(y, F, Q, H, R, last, root, found)
        mean[:], matrix[:] = last, root  # float64 holds them exactly
        for array, values in zip(out, found, strict=True):
            array[:done] = values[:done]
        return done

    def _steady(self, seen: Array, intervals: Array, mean: Array, out: Track) -> int:
        if not (intervals == self.step_s).all():
            raise ParameterError(
                f"{self.name}: form = 'steady' needs the same interval before every observation, "
                "but 'interval_s' differs from step_s; choose form = 'joseph'"
            )
        out.covariances[:] = self._settled
        missing = np.isnan(seen)
        out.det[:] = np.linalg.det(self._S)
        for step in np.flatnonzero(missing.any(axis=1)):
            came = np.flatnonzero(~missing[step])
            out.det[step] = np.linalg.det(self._S[np.ix_(came, came)])  # 1 where nothing came
        return int(
            constant_gain.constant_gain(
                seen,
                self._F[0],
                self._H,
                self._gain,
                self._S_inverse,
                mean,
                np.empty_like(mean),
                out.estimates,
                out.innovations,
                out.nis,
            )
        )

    def _filter_words(self, seen: Array, intervals: Array, out: Track) -> Array:
        alike = len(seen) > 0 and (intervals == intervals[0]).all()
        if self.form not in ("joseph", "simple") or not alike:
            return super()._filter_words(seen, intervals, out)
        moves = self._matrices(intervals[0])
        means = np.tile(self._model.initial, (len(seen), 1))
        covariances = np.tile(self._first_matrix(), (len(seen), 1, 1))
        return kalman_tracks.linear_tracks(
            seen, *moves, self._H, self._model.R, means, covariances, out,
            is_joseph=self.form == "joseph",
        )  # fmt: skip

    def _advice(self) -> str:
        if self.form == "square_root":
            return super()._advice()
        return "choose form = 'square_root', or raise process_noise or observation_noise"
