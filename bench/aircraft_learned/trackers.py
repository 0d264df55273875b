"""What is compared: innovations (tracks, time, 2) of all trackers, NaN where nothing came."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bench.aircraft_learned.tracks import STEP_S, Words
from blocks.kernels import imm, kalman, state_space
from blocks.kernels.caching import njit
from blocks.kernels.kalman import Track
from blocks.kernels.kalmannet_filter import Filters
from blocks.kernels.state_space import StateSpace

Array = np.ndarray[Any, Any]

SKIP = 10
SPEED_M_S = 250.0  # standard deviation of a velocity that nothing is known of
MODEL = {
    "motion": "constant_velocity", "observation": "position", "step_s": STEP_S,
    "initial_variance": (0.0, 0.0, SPEED_M_S**2, SPEED_M_S**2),
    "observation_noise": 1e4,  # to which the gain knows process noise only in proportion
}  # fmt: skip


def by_kalman(words: Words, **values: Any) -> Array:
    """A Kalman filter with this model."""
    model = state_space.build(**{**MODEL, **values})
    out = Track.empty(words.seen.shape[:2], model.size, model.rows)
    for track in range(len(words.seen)):
        F, Q, H = model.matrices(words.intervals[track])
        kalman.linear(
            words.seen[track], F, Q, H, model.R, model.initial.copy(),
            model.initial_covariance.copy(), out.of(track),
        )  # fmt: skip
    return out.innovations


def by_network(words: Words, network: Any, model: StateSpace) -> Array:
    """A KalmanNet."""
    filters = Filters(network, model)
    begin = filters.start(len(words.seen))
    out = Track.empty(words.seen.shape[:2], model.size, model.rows)
    filters.run(words.seen, words.intervals, begin, out, together=True, spread=False)
    return out.innovations


def by_reckoning(words: Words, told: bool) -> Array:
    """Dead reckoning from the last report, and the one before it or the velocity that it told."""
    if told:
        velocities = words.velocities[:, :-1]
    else:
        velocities = np.full_like(words.seen[:, :-1], np.nan)
        steps = np.diff(words.seen, axis=1)[:, :-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            velocities[:, 1:] = steps / words.intervals[:, 1:-1, None]
    found = np.full_like(words.seen, np.nan)
    found[:, 1:] = np.diff(words.seen, axis=1) - velocities * words.intervals[:, 1:, None]
    return found


IMM = {
    "straight_noise": 1e-4, "turn_noise": 0.3, "turn_walk": 1e-6, "turn_rate": 0.005,
    "straight_share": 0.7, "memory_s": 10.0, "observation_noise": 1e4,
}  # fmt: skip


def by_imm(words: Words, **values: float) -> Array:
    """Interacting straight flight and turns, from kernels/imm.py."""
    v = values
    model = np.zeros((2, 5))
    model[:, imm.PROCESS_NOISE] = v["straight_noise"], v["turn_noise"]
    model[1, imm.TURN_NOISE], model[1, imm.TURN_VARIANCE] = v["turn_walk"], v["turn_rate"] ** 2
    model[:, imm.SHARE] = v["straight_share"], 1.0 - v["straight_share"]
    found = np.full_like(words.seen, np.nan)
    _imm(model, v["memory_s"], v["observation_noise"], words.seen, words.intervals, found)
    return found


@njit(cache=True, nogil=True)
def _imm(
    model: Array, memory: float, r: float, seen: Array, intervals: Array, found: Array
) -> None:
    work, noise = np.empty((4, 5, 5)), np.zeros((2, 2))
    noise[0, 0] = noise[1, 1] = r
    mean, covariance = np.empty(5), np.empty((5, 5))
    for track in range(seen.shape[0]):
        means, covariances = np.zeros((2, 5)), np.zeros((2, 5, 5))
        probabilities = model[:, 4].copy()
        for j in range(2):
            covariances[j, 2, 2] = covariances[j, 3, 3] = SPEED_M_S**2
            covariances[j, 4, 4] = model[j, 3]
        for t in range(seen.shape[1]):
            if np.isnan(seen[track, t, 0]):
                break
            imm.predict(
                intervals[track, t], 20.0, model, memory, probabilities, means, covariances, work
            )
            imm.combine(probabilities, means, covariances, mean, covariance)
            found[track, t, 0] = seen[track, t, 0] - mean[0]
            found[track, t, 1] = seen[track, t, 1] - mean[1]
            imm.update(0, seen[track, t], noise, probabilities, means, covariances, work)


def by_acceleration(words: Words, **values: Any) -> Array:
    """A Kalman filter of constant acceleration."""
    variance = (0.0, 0.0, SPEED_M_S**2, SPEED_M_S**2, 1.0, 1.0)
    return by_kalman(words, motion="constant_acceleration", initial_variance=variance, **values)


#: Filters with what `tune` found for them.
FILTERS: dict[str, tuple[Callable[..., Array], Mapping[str, float]]] = {
    "constant velocity": (by_kalman, {"process_noise": 3.66}),
    "constant acceleration": (by_acceleration, {"process_noise": 0.00472}),
    "interacting multiple model": (by_imm, IMM),
}


def rmse(found: Array) -> float:
    """Root of the mean squared distance between told and foretold; inf where some is not finite."""
    squares = np.square(found[:, SKIP:]).sum(-1)
    return float(np.sqrt(np.nanmean(squares))) if np.nanmax(squares) < np.inf else np.inf


def tuned(
    run: Callable[..., Array], words: Words, start: Mapping[str, float], rounds: int = 12
) -> dict[str, float]:
    """Coordinate search for the least rmse, by factors that shrink from 10 to 1.2."""
    best, least, factor = dict(start), rmse(run(words, **start)), 10.0
    for _ in range(rounds):
        moved = False
        for key in best:
            for by in (factor, 1.0 / factor):
                tried = {**best, key: best[key] * by}
                if tried.get("straight_share", 0.0) >= 1.0:
                    continue
                if (reached := rmse(run(words, **tried))) < least:
                    best, least, moved = tried, reached, True
                    break
        if not moved:
            factor = factor**0.6
            if factor < 1.2:
                break
    return best
