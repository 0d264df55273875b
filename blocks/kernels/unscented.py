"""The unscented Kalman filter.

Julier and Uhlmann, "Unscented filtering and nonlinear estimation", Proc. IEEE 92(3), 2004, with
the scaled points of Wan and van der Merwe, 2000. The sigma points of the observation are drawn
anew from the predicted covariance, process noise included, so that on a linear model the filter is
the Kalman filter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.kernels import matrices
from blocks.kernels.caching import njit
from blocks.kernels.indirect import call_advance, call_noise, call_observe
from blocks.kernels.kalman import Track, correct_mean, expect, expect_track, store
from blocks.kernels.state_space import StateSpace, wrapped

Array = np.ndarray[Any, Any]


@njit(cache=True, nogil=True)
def _points(mean: Array, P: Array, reach: float, L: Array, points: Array) -> bool:
    """The mean, and the mean plus and minus `reach` times each column of the root of P."""
    n = mean.size
    if not matrices.root(P, n, L):
        return False
    for j in range(n):
        points[0, j] = mean[j]
    for k in range(n):
        for j in range(n):
            points[1 + k, j] = mean[j] + reach * L[j, k]
            points[1 + n + k, j] = mean[j] - reach * L[j, k]
    return True


@njit(cache=True, nogil=True)
def _unscented(
    observations: Array, intervals: Array, advance: Any, noise: Any, parameters: Array,
    observe: Any, observe_parameters: Array, angles: Array, R: Array, mean: Array, P: Array,
    reach: float, weights: Array, points: Array, moved: Array, seen: Array, Q: Array, work: Array,
    estimates: Array, covariances: Array, innovations: Array, nis: Array, det: Array,
) -> int:  # fmt: skip
    n, m = mean.size, R.shape[0]
    count = 2 * n + 1
    L, S, C = work[0], work[1], work[2]
    last = np.nan
    for i in range(observations.shape[0]):
        if intervals[i] != last:
            last = intervals[i]
            call_noise(noise, last, parameters, Q)
        if not _points(mean, P, reach, L, points):
            return i
        for j in range(n):
            mean[j] = 0.0
        for k in range(count):
            call_advance(advance, points[k], last, parameters, moved[k])
            for j in range(n):
                mean[j] += weights[0, k] * moved[k, j]
        for k in range(count):
            for j in range(n):
                moved[k, j] -= mean[j]
        for a in range(n):
            for b in range(a + 1):
                total = Q[a, b]
                for k in range(count):
                    total += weights[1, k] * moved[k, a] * moved[k, b]
                P[a, b] = total
                P[b, a] = total
        if not _points(mean, P, reach, L, points):
            return i
        for k in range(count):
            call_observe(observe, points[k], observe_parameters, seen[k])
            for j in range(m):
                if angles[j]:  # all on the side of the circle where the first point is
                    seen[k, j] = seen[0, j] + wrapped(seen[k, j] - seen[0, j])
        for j in range(m):
            expected = 0.0
            for k in range(count):
                expected += weights[0, k] * seen[k, j]
            for k in range(count):
                seen[k, j] -= expected
            value = observations[i, j] - expected
            innovations[i, j] = wrapped(value) if angles[j] else value
        for a in range(m):
            there = not np.isnan(observations[i, a])
            for b in range(a + 1):
                total = 1.0 if a == b else 0.0
                if there and not np.isnan(observations[i, b]):
                    total = R[a, b]
                    for k in range(count):
                        total += weights[1, k] * seen[k, a] * seen[k, b]
                S[a, b] = total
                S[b, a] = total
            for b in range(n):
                total = 0.0
                if there:
                    for k in range(1, count):
                        total += weights[1, k] * seen[k, a] * (points[k, b] - mean[b])
                C[a, b] = total
        if not matrices.cholesky(S, m, S):
            return i
        matrices.solve_lower(S, m, C, n)
        squared, determinant = correct_mean(S, C, observations[i], innovations[i], mean, L)
        if not squared < np.inf:
            return i
        for a in range(n):
            for b in range(a + 1):
                for k in range(m):
                    P[a, b] -= C[k, a] * C[k, b]
                P[b, a] = P[a, b]
        nis[i], det[i] = squared, determinant
        store(mean, P, i, estimates, covariances)
    return int(observations.shape[0])


def unscented(
    model: StateSpace, observations: Array, intervals: Array, mean: Array, covariance: Array,
    out: Track, *, alpha: float = 1.0, beta: float = 0.0, kappa: float = 1.0,
) -> int:  # fmt: skip
    """The unscented Kalman filter over one track; returns how many steps it did.

    The points stand alpha sqrt(n + kappa) standard deviations from the mean; beta is added to the
    weight of the middle one in covariances, 2 being best for a narrow normal distribution.

    observations  (time, m)
    intervals     (time,)   time since the observation before [s]
    mean          (n,)      replaced by the last updated mean
    covariance    (n, n)    likewise

    Raises ValueError for arrays of other shapes or dtypes, and where there is no such distance.
    """
    n, m = model.size, model.rows
    expect_track(np.float64, observations.shape[:1], n, m, observations, mean, covariance, out)
    expect(np.float64, intervals=(intervals, observations.shape[:1]))
    spread = alpha * alpha * (n + kappa)
    if not 0.0 < spread < np.inf:
        raise ValueError(
            f"alpha^2 (n + kappa) = {spread}, but must be above 0: alpha = {alpha}, n = {n}, "
            f"kappa = {kappa}"
        )
    weights = np.full((2, 2 * n + 1), 0.5 / spread)  # for means, for covariances
    weights[0, 0] = 1.0 - n / spread
    weights[1, 0] = weights[0, 0] + 1.0 - alpha * alpha + beta
    return int(
        _unscented(
            observations, intervals, model.advance, model.noise, model.parameters, model.observe,
            model.observe_parameters, model.angles, model.R, mean, covariance,
            float(np.sqrt(spread)), weights, np.empty((2 * n + 1, n)), np.empty((2 * n + 1, n)),
            np.empty((2 * n + 1, m)), np.empty((n, n)),
            np.empty((3, max(n, m), max(n, m))), *out,
        )
    )  # fmt: skip
