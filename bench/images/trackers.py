"""Filters behind readers: tuned, or with a gain that learned."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.images.scenes import STEPS, Scene
from blocks.kernels import extended_kalman
from blocks.kernels.kalman import Track
from blocks.kernels.state_space import StateSpace

Array = np.ndarray[Any, Any]

NOISES = [10.0 ** (k / 2.0) for k in range(-10, 3)]
SCALES = (0.1, 0.3, 1.0, 3.0, 10.0)


def with_extended(model: StateSpace, seen: Array, variances: Array | None = None) -> Array:
    """What the extended Kalman filter makes of tracks (count, time, n)."""
    estimates = np.empty((*seen.shape[:2], model.size))
    for track, observations in enumerate(seen):
        out = Track.empty((STEPS,), model.size, model.rows)
        done = extended_kalman.extended(
            model, np.ascontiguousarray(observations), np.full(STEPS, model.step_s),
            model.initial.copy(), np.zeros((model.size, model.size)), out,
            variances=None if variances is None else np.ascontiguousarray(variances[track]),
        )  # fmt: skip
        out.estimates[done:] = np.nan
        estimates[track] = out.estimates
    return estimates


def tuned(
    scene: Scene, seen: Array, states: Array, R: Array, told: Array | None = None
) -> tuple[float, float]:
    """q2 and the scale of R, or of the variances told, that are best on these trajectories."""
    best, found = np.inf, (1.0, 1.0)
    for q in NOISES:
        for scale in SCALES:
            model = scene.built(q, tuple(scale * R))
            estimates = with_extended(model, seen, None if told is None else scale * told)
            error = np.square(scene.off(estimates, states)).mean()
            if error < best:
                best, found = error, (q, scale)
    return found
