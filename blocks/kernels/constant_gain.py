"""The Kalman filter of a constant system, with the gain that it settles at."""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.kernels.caching import njit

Array = np.ndarray[Any, Any]


def steady_state(F: Array, Q: Array, H: Array, R: Array) -> tuple[Array, Array, Array]:
    """Predicted covariance, updated covariance and gain that a constant system settles at.

    The discrete algebraic Riccati equation, by the doubling algorithm (Anderson, "Second-order
    convergent algorithms for the steady-state Riccati equation", 1978): step k stands at time 2^k.
    Raises ValueError where nothing settles: a state that grows and is not observed.
    """
    identity = np.eye(len(F))
    A, G, P = F.T.copy(), H.T @ np.linalg.solve(R, H), Q.copy()
    for _ in range(64):
        if not np.abs(P).max() < 1e100:
            break
        W = np.linalg.solve(identity + G @ P, np.hstack([A, G]))
        step = A.T @ P @ W[:, : len(F)]
        if not np.isfinite(step).all():
            break
        G = G + A @ W[:, len(F) :] @ A.T
        A = A @ W[:, : len(F)]
        P = P + (step + step.T) / 2.0
        if np.abs(step).max() <= 1e-15 * np.abs(P).max():
            S = H @ P @ H.T + R
            K = np.linalg.solve(S, H @ P).T
            KH = identity - K @ H
            return P, KH @ P @ KH.T + K @ R @ K.T, K
    raise ValueError("the covariance grows without end, since not all that grows is observed")


@njit(cache=True, nogil=True)
def constant_gain(
    observations: Array, F: Array, H: Array, K: Array, S_inverse: Array, mean: Array,
    work: Array, estimates: Array, innovations: Array, nis: Array,
) -> int:  # fmt: skip
    """Filter with a gain that stays; a missing row adds nothing. Returns how many steps it did.

    F (n, n), H (m, n), K (n, m), S_inverse (m, m); mean (n,) replaced; work (n,)
    """
    n, m = mean.size, observations.shape[1]
    for i in range(observations.shape[0]):
        for j in range(n):
            value = 0.0
            for k in range(n):
                value += F[j, k] * mean[k]
            work[j] = value
        for j in range(n):
            mean[j] = work[j]
        for j in range(m):
            value = observations[i, j]
            for k in range(n):
                value -= H[j, k] * work[k]
            innovations[i, j] = value
            if not np.isnan(observations[i, j]):
                for k in range(n):
                    mean[k] += K[k, j] * value
        squared = 0.0
        for j in range(m):
            for k in range(m):
                if not np.isnan(observations[i, j]) and not np.isnan(observations[i, k]):
                    squared += innovations[i, j] * S_inverse[j, k] * innovations[i, k]
        nis[i] = squared
        for j in range(n):
            estimates[i, j] = mean[j]
    return int(observations.shape[0])
