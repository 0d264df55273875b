"""The extended Kalman filter: linearised at the last estimate, then at what it predicts.

Smith, Schmidt, McGee, NASA TR R-135, 1962. Observations, NaN and outputs are as in
kernels/kalman.py; all arrays are float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.kernels import matrices
from blocks.kernels.caching import njit
from blocks.kernels.indirect import call_linearise, call_noise, call_observe_linearised
from blocks.kernels.kalman import (
    SMALL,
    Track,
    correct,
    correct_arrays,
    expect,
    expect_track,
    flag,
    innovation,
    predict,
    store,
)
from blocks.kernels.registers import (
    Pattern,
    dense,
    load_row,
    load_triangle,
    pattern,
    store_row,
    store_triangle,
)
from blocks.kernels.state_space import StateSpace, wrapped

Array = np.ndarray[Any, Any]


@njit(cache=True, nogil=True, inline="always")
def _residuals(observations: Array, i: int, seen: Array, angles: Array, innovations: Array) -> None:
    """Observation i less what the model says is seen."""
    for j in range(seen.size):
        off = observations[i, j] - seen[j]
        innovations[i, j] = wrapped(off) if angles[j] else off


@njit(cache=True, nogil=True, inline="always")
def _tell(variances: Array, i: int, R: Array) -> None:
    """Take the variances that came with observation i, if any did."""
    if variances.shape[0]:
        for j in range(R.shape[1]):
            R[0, j, j] = variances[i, j]


@njit(cache=True, nogil=True)
def _extended_small(
    observations: Array, intervals: Array, variances: Array, linearise: Any, noise: Any,
    parameters: Array, observe: Any, observe_parameters: Array, angles: Array, R: Array,
    mean: Array, covariance: Array, F: Array, Q: Array, predicted: Array, seen: Array, H: Array,
    F_shape: Pattern, H_shape: Pattern, R_shape: Pattern, is_joseph: Any, is_linear_seen: Any,
    estimates: Array, covariances: Array, innovations: Array, nis: Array, det: Array,
) -> int:  # fmt: skip
    P = load_triangle(covariance, 0, F_shape)
    # views are made once: each costs a count of references, which is atomic
    before, after, jacobian, spread, slope = mean[0], predicted[0], F[0], Q[0], H[0]
    steps = observations.shape[0]
    last = np.nan
    for i in range(steps):
        if intervals[i] != last:
            last = intervals[i]
            call_noise(noise, last, parameters, spread)
        call_linearise(linearise, before, last, parameters, after, jacobian)
        _tell(variances, i, R)
        x = load_row(predicted, 0, F_shape)
        _, P = predict(x, P, F, Q, 0, F_shape)
        y = load_row(observations, i, H_shape)
        if len(is_linear_seen):  # H stands there since the start
            store_row(innovations, i, innovation(y, x, H, H_shape))
        else:
            call_observe_linearised(observe, after, observe_parameters, seen, slope)
            _residuals(observations, i, seen, angles, innovations)
        e = load_row(innovations, i, H_shape)
        x, P, squared, determinant = correct(x, P, y, e, H, R, H_shape, R_shape, is_joseph)
        if not squared < np.inf:
            steps = i
            break
        store_row(mean, 0, x)
        store_row(estimates, i, x)
        if covariances.shape[0]:
            store_triangle(covariances, i, P)
        nis[i] = squared
        det[i] = determinant
    store_triangle(covariance, 0, P)
    return int(steps)


@njit(cache=True, nogil=True)
def _extended_large(
    observations: Array, intervals: Array, variances: Array, linearise: Any, noise: Any,
    parameters: Array, observe: Any, observe_parameters: Array, angles: Array, R: Array,
    mean: Array, covariance: Array, F: Array, Q: Array, predicted: Array, seen: Array, H: Array,
    is_joseph: bool, scratch: Array, estimates: Array, covariances: Array, innovations: Array,
    nis: Array, det: Array,
) -> int:  # fmt: skip
    x, P = mean[0], covariance[0]
    n = x.size
    last = np.nan
    for i in range(observations.shape[0]):
        if intervals[i] != last:
            last = intervals[i]
            call_noise(noise, last, parameters, Q[0])
        call_linearise(linearise, x, last, parameters, predicted[0], F[0])
        _tell(variances, i, R)
        for j in range(n):
            x[j] = predicted[0, j]
        matrices.sandwich(F[0], P, Q[0], n, n, scratch[0], P)
        call_observe_linearised(observe, x, observe_parameters, seen, H[0])
        _residuals(observations, i, seen, angles, innovations)
        squared, determinant = correct_arrays(
            observations[i], innovations[i], H[0], R[0], is_joseph, x, P, scratch
        )
        if not squared < np.inf:
            return i
        nis[i], det[i] = squared, determinant
        store(x, P, i, estimates, covariances)
    return int(observations.shape[0])


def extended(
    model: StateSpace, observations: Array, intervals: Array, mean: Array, covariance: Array,
    out: Track, *, is_joseph: bool = True, variances: Array | None = None,
) -> int:  # fmt: skip
    """The extended Kalman filter over one track; returns how many steps it did.

    It linearises the motion at the last updated mean and the observation at the predicted one.

    observations  (time, m)
    intervals     (time,)   time since the observation before [s]
    mean          (n,)      replaced by the last updated mean
    covariance    (n, n)    likewise
    variances     (time, m) of the noise of each observation, in the place of those of the model

    Raises ValueError for arrays of other shapes or dtypes.
    """
    n, m = model.size, model.rows
    expect_track(np.float64, observations.shape[:1], n, m, observations, mean, covariance, out)
    expect(np.float64, intervals=(intervals, observations.shape[:1]))
    H = model.seen_matrix() if model.linear_seen else np.empty((m, n))
    told = np.empty((0, m)) if variances is None else variances
    if variances is not None:
        expect(np.float64, variances=(variances, observations.shape))
    given = (
        observations, intervals, told, model.linearise, model.noise, model.parameters,
        model.observe_linearised, model.observe_parameters, model.angles, model.R[None].copy(),
        mean[None], covariance[None], np.empty((1, n, n)), np.empty((1, n, n)), np.empty((1, n)),
        np.empty(m), H[None],
    )  # fmt: skip
    if max(n, m) <= SMALL:
        shapes = (
            dense(n, n),
            pattern(H) if model.linear_seen else dense(m, n),
            pattern(model.R, has_ones=False),
        )
        flags = flag(is_joseph), flag(model.linear_seen)
        return int(_extended_small(*given, *shapes, *flags, *out))
    return int(_extended_large(*given, is_joseph, np.empty((5, max(n, m), max(n, m))), *out))
