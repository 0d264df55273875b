"""The bootstrap particle filter as a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from blocks import fields
from blocks.kernels import particle
from blocks.kernels.particle import Cloud
from blocks.state_space import Modelled, checked_intervals, checked_observations
from blocks.tracker.filtering import Intervals, Observations
from pipeline.block import param
from pipeline.errors import RunError
from pipeline.frame import Array, FrameInfo, Scalar


class Followed(NamedTuple):
    """What the filter adds."""

    estimates: Annotated[Float64[Array, "*word time estimate"], fields.ESTIMATES]
    covariances: Annotated[Float64[Array, "*word time estimate estimate"], fields.COVARIANCES]
    innovations: Annotated[Float64[Array, "*word time observation"], fields.INNOVATIONS]
    nis: Annotated[Float64[Array, "*word time"], fields.NIS]
    log_likelihood: Annotated[Float64[Array, "*word time"], fields.LOG_LIKELIHOOD]
    effective_size: Annotated[Float64[Array, "*word time"], fields.EFFECTIVE_SIZE]


class Particle(Modelled, name="tracker.particle"):
    """Estimates from a cloud of weighted particles: no linearisation, no normal distribution.

    Gordon, Salmond, Smith, "Novel approach to nonlinear/non-Gaussian Bayesian state estimation",
    IEE Proc. F 140(2), 1993: particles move by the motion and its noise, and their weights are the
    likelihood of the observation. Where the weights are worth fewer than `threshold` of them, they
    are resampled systematically.

    A motion with little noise leaves copies of one particle together. With `shrink` below 1 they
    are drawn again from a normal kernel around each: pulled towards the mean by that factor and
    spread by as much as this took, so that mean and covariance of the cloud stay (Liu and West,
    "Combined parameter and state estimation in simulation-based filtering", in Doucet et al.,
    "Sequential Monte Carlo Methods in Practice", 2001, 10.2.3). 0.98 to 0.995 is usual.

    Streams, words, missing rows and the fields read are those of tracker.kalman. Random numbers
    belong to the absolute number of an observation.

    observations    (..., time, m)     NaN where nothing came
    interval_s      (..., time)        [s]; step_s if absent
    estimates       (..., time, n)     weighted mean
    covariances     (..., time, n, n)  weighted covariance
    innovations     (..., time, m)     observations less the weighted mean of what was predicted
    nis             (..., time)        by the weighted covariance of what was predicted
    log_likelihood  (..., time)        of each observation given those before it [nat]
    effective_size  (..., time)        before resampling

    Raises FieldError for observations of another length or that are infinite, and RunError where
    all weights vanish.
    """

    particles: int = param(
        default=1000, at_least=2, at_most=10_000_000, unit="particles", doc="size of the cloud"
    )
    threshold: float = param(
        default=0.5, at_least=0.0, at_most=1.0,
        doc="resample when the weights are worth less than this part of the particles",
    )  # fmt: skip
    shrink: float = param(
        default=1.0, above=0.0, at_most=1.0,
        doc="pull towards the mean after resampling, made up for by a spread; 1: none",
    )  # fmt: skip

    def start(self) -> None:
        self._model = self._build()
        keys = self.draws("keys", lambda rng, size: rng.integers(0, 1 << 63, size))
        self._move_key, self._start_key = (int(key) for key in keys.take(0, 2))
        self._particles, self._weights = self._scatter(0)
        nothing = np.empty((0, self._model.rows)), np.empty(0)  # compiled before the first frame
        self._follow(0, *nothing, self._particles, self._weights, Cloud.empty((0,), *self._sizes))

    def process(
        self,
        observations: Observations,
        interval_s: Intervals | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> Followed:
        seen = checked_observations(self.name, observations, self._model.rows)
        intervals = checked_intervals(self.name, interval_s, seen.shape[:-1], self.step_s)
        out = Cloud.empty(seen.shape[:-1], *self._sizes)
        if seen.ndim == 2:
            self._follow(info.sample, seen, intervals, self._particles, self._weights, out)
            return Followed(*out)
        length = seen.shape[1]
        for word in range(len(seen)):
            first = info.sample + word * length
            cloud = self._scatter(first // max(length, 1))
            self._follow(first, seen[word], intervals[word], *cloud, out.of(word))
        return Followed(*out)

    def state(self) -> Mapping[str, Array | Scalar]:
        return {"particles": self._particles.copy(), "weights": self._weights.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._particles = np.array(state["particles"])
        self._weights = np.array(state["weights"])

    @property
    def _sizes(self) -> tuple[int, int]:
        return self._model.size, self._model.rows

    def _scatter(self, track: int) -> tuple[Array, Array]:
        return particle.scatter(self._model, self._start_key, track, self.particles)

    def _follow(
        self, first: int, seen: Array, intervals: Array, cloud: Array, weights: Array, out: Cloud
    ) -> None:
        done = particle.bootstrap(
            self._model, self._move_key, first, seen, intervals, cloud, weights, out,
            threshold=self.threshold, shrink=self.shrink,
        )  # fmt: skip
        if done < len(seen):
            raise RunError(
                f"{self.name}: at observation {first + done} all weights vanish; use more "
                "particles, or raise process_noise or observation_noise"
            )
