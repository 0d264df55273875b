"""The iterated smoother over a window that slides, as a filter block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from blocks.kernels import kalman, smoother
from blocks.kernels.kalman import Track
from blocks.kernels.smoother import Window
from blocks.state_space import Modelled, checked_intervals, checked_observations
from blocks.tracker.filtering import Intervals, Observations, Tracked
from pipeline.block import param
from pipeline.errors import RunError
from pipeline.frame import Array, FrameInfo, Scalar


class MovingHorizon(Modelled, name="tracker.moving_horizon"):
    """Newest states of the most likely trajectories through the last observations.

    Rao, Rawlings, Mayne, "Constrained state estimation for nonlinear discrete-time systems", IEEE
    TAC 48(2), 2003, without constraints, solved by the iterated smoother of Bell, SIAM J. Optim.
    4(3), 1994. An extended Kalman filter linearises each step once, at what it knew by then; here
    each is linearised again as long as it is in the window, at what is known by now. On a linear
    system this is the Kalman filter. A step costs about `window` times `iterations` steps of it.

    Streams, words, missing rows and the fields read are those of tracker.kalman.

    observations    (..., time, m)     NaN where nothing came
    interval_s      (..., time)        [s]; step_s if absent
    estimates       (..., time, n)     newest state of the trajectory
    covariances     (..., time, n, n)  of a filter linearised at the trajectory
    innovations     (..., time, m)     observations less what the window before them predicted
    nis             (..., time)        by the covariance of that prediction
    log_likelihood  (..., time)        of each observation given those before it [nat]

    Raises FieldError for observations of another length or that are infinite, and RunError where a
    covariance is no longer positive or a number no longer finite.
    """

    window: int = param(
        default=10, at_least=1, at_most=100_000, unit="observations", doc="length of the window"
    )
    iterations: int = param(
        default=1, at_least=1, at_most=100,
        doc="Gauss-Newton steps after each observation; they go on from those before it",
    )  # fmt: skip

    def start(self) -> None:
        self._model = self._build()
        self._window = Window.begin(self._model, self.window)
        self._held = 0  # observations that have come, as far as they fit
        nothing = np.empty((0, self._model.rows)), np.empty(0)  # compiled before the first frame
        self._slide(*nothing, self._window, 0, self._room((0,)))

    def process(
        self,
        observations: Observations,
        interval_s: Intervals | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> Tracked:
        seen = checked_observations(self.name, observations, self._model.rows)
        intervals = checked_intervals(self.name, interval_s, seen.shape[:-1], self.step_s)
        out = self._room(seen.shape[:-1])
        if seen.ndim == 2:
            self._slide(seen, intervals, self._window, info.sample, out, self._held)
            self._held = min(self._held + len(seen), self.window - 1)
        else:
            for word in range(len(seen)):
                window = Window.begin(self._model, self.window)
                sample = info.sample + word * seen.shape[1]
                self._slide(seen[word], intervals[word], window, sample, out.of(word))
        likely = kalman.log_likelihood(out.innovations, out.nis, out.det)
        return Tracked(*out[:4], likely)

    def state(self) -> Mapping[str, Array | Scalar]:
        kept = {name: array.copy() for name, array in self._window._asdict().items()}
        return {**kept, "held": self._held}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._window = Window(*(np.array(state[name]) for name in Window._fields))
        self._held = int(state["held"])

    def _room(self, shape: tuple[int, ...]) -> Track:
        return Track.empty(shape, self._model.size, self._model.rows)

    def _slide(
        self, seen: Array, intervals: Array, window: Window, sample: int, out: Track, held: int = 0
    ) -> None:
        done = smoother.slide(self._model, seen, intervals, held, window, self.iterations, out)
        if done < len(seen):
            raise RunError(
                f"{self.name}: at observation {sample + done} a covariance is not positive, or a "
                "number not finite; raise process_noise or observation_noise"
            )
