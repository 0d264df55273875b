"""The Kalman filter on square roots of its covariances, for one track.

Kailath, Sayed, Hassibi, "Linear Estimation", 2000, array algorithm of chapter 12. In float32, or
with an R of which rows are nearly equal and certain, the covariance stays positive where the other
forms (kernels/kalman.py) lose it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.kernels import matrices
from blocks.kernels.caching import njit
from blocks.kernels.kalman import Track, expect_linear

Array = np.ndarray[Any, Any]


@njit(cache=True, nogil=True)
def _square_root(
    observations: Array, F: Array, Q_root: Array, H: Array, R: Array, R_root: Array, mean: Array,
    factor: Array, work: Array, estimates: Array, covariances: Array, innovations: Array,
    nis: Array, det: Array,
) -> int:  # fmt: skip
    n, m = mean.size, observations.shape[1]
    A, kept, noise = work[0], work[1], work[2]
    zero = mean.dtype.type(0.0)  # sums stay in the dtype of the arrays
    for i in range(observations.shape[0]):
        at = i if F.shape[0] > 1 else 0
        # [F L, Q^1/2] -> lower: the root of F P F' + Q
        for j in range(n):
            value = zero
            for k in range(n):
                value += F[at, j, k] * mean[k]
            noise[0, j] = value
        for j in range(n):
            mean[j] = noise[0, j]
            for k in range(n):
                value = zero
                for q in range(k, n):
                    value += F[at, j, q] * factor[q, k]
                A[j, k] = value
                A[j, n + k] = Q_root[at, j, k]
        matrices.lower_triangle(A, n, 2 * n)
        for j in range(n):
            for k in range(n):
                factor[j, k] = A[j, k]
        missing = False
        for j in range(m):
            value = observations[i, j]
            missing |= np.isnan(value)
            for k in range(n):
                value -= H[j, k] * mean[k]
            innovations[i, j] = value
        for j in range(m):
            for k in range(n):
                kept[j, k] = 0.0 if np.isnan(observations[i, j]) else H[j, k]
            for k in range(m):
                if not missing:
                    noise[j, k] = R_root[j, k]
                elif np.isnan(observations[i, j]) or np.isnan(observations[i, k]):
                    noise[j, k] = 1.0 if j == k else 0.0
                else:
                    noise[j, k] = R[j, k]
        if missing and not matrices.root(noise, m, noise):
            return i
        # [[R^1/2, H L], [0, L]] -> lower: [[S^1/2, 0], [K S^1/2, L of the updated P]]
        for j in range(m):
            for k in range(m):
                A[j, k] = noise[j, k]
            for k in range(n):
                value = zero
                for q in range(k, n):
                    value += kept[j, q] * factor[q, k]
                A[j, m + k] = value
        for j in range(n):
            for k in range(m):
                A[m + j, k] = 0.0
            for k in range(n):
                A[m + j, m + k] = factor[j, k]
        matrices.lower_triangle(A, m + n, m + n)
        squared, determinant = zero, zero + mean.dtype.type(1.0)
        for j in range(m):
            if not A[j, j] > 0.0:
                return i
            value = zero if np.isnan(observations[i, j]) else innovations[i, j]
            for k in range(j):
                value -= A[j, k] * noise[0, k]
            value /= A[j, j]
            noise[0, j] = value
            squared += value * value
            determinant *= A[j, j] * A[j, j]
            for k in range(n):
                mean[k] += A[m + k, j] * value
        nis[i], det[i] = squared, determinant
        if not np.isfinite(squared):
            return i
        for j in range(n):
            estimates[i, j] = mean[j]
            for k in range(n):
                factor[j, k] = A[m + j, m + k]
        if covariances.shape[0]:
            for j in range(n):
                for k in range(j + 1):
                    value = zero
                    for q in range(k + 1):
                        value += factor[j, q] * factor[k, q]
                    covariances[i, j, k] = value
                    covariances[i, k, j] = value
    return int(observations.shape[0])


def square_root(
    observations: Array, F: Array, Q: Array, H: Array, R: Array, mean: Array, factor: Array,
    out: Track,
) -> int:  # fmt: skip
    """The filter over one track; returns how many steps it did. Arguments are those of `linear`.

    factor  (n, n)  lower, covariance = factor factor'; replaced

    Raises ValueError where Q or R is not a covariance, and for arrays of other shapes or dtypes.
    """
    n, m = expect_linear(observations, F, Q, H, R, mean, factor, out)
    Q_root, R_root = np.empty_like(Q), np.empty_like(R)
    for at in range(Q.shape[0]):
        if not matrices.root(Q[at], n, Q_root[at]):
            raise ValueError("the covariance of the process noise is not positive")
    if not matrices.root(R, m, R_root):
        raise ValueError("the covariance of the observation noise is not positive")
    side = max(2 * n, m + n)
    work = np.empty((3, side, side), mean.dtype)
    return int(_square_root(observations, F, Q_root, H, R, R_root, mean, factor, work, *out))
