"""How what a smoother finds depends on what it is told of the motion and of the observations.

Around the trajectory at which it is linearised, the most likely one is x = A^-1 b: A from the
covariances alone, and b linear in shifts of the motion and of the observations. So the gradients by
these, given the gradients g by x, come from A^-1 g, which is what the same smoother makes of forces
g in the place of innovations.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.kernels import matrices
from blocks.kernels.caching import njit
from blocks.kernels.indirect import call_observe_linearised
from blocks.kernels.smoother import Passed
from blocks.kernels.state_space import StateSpace

Array = np.ndarray[Any, Any]


def gradients(
    model: StateSpace, observations: Array, around: Array, passed: Passed, given: Array,
    by_shift: Array, by_bias: Array,
) -> bool:  # fmt: skip
    """Gradients by what is added to the motion and to the observations, given those by the states.

    A shift into a step acts by Q^-1 times the difference of the trajectory to the motion; that is
    what the backward pass adds to a prediction, divided by the predicted covariance, which exists
    for singular Q, too.

    observations  (time, m)      rows that are NaN did not count
    around        (time + 1, n)  where the pass was linearised
    passed        (time + 1)     of that pass, with the state one interval before in front
    given         (time + 1, n)  gradients by smoothed states
    by_shift      (time, n)      written
    by_bias       (time, m)      written

    False where a predicted covariance is not positive.
    """
    return bool(
        _gradients(
            model.observe_linearised, model.observe_parameters, model.R, observations, around,
            passed.covariances, passed.F, passed.Q, np.ascontiguousarray(given), by_shift, by_bias,
        )
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _solve(L: Array, n: int, b: Array) -> None:
    """Make b (n, 1) (L L')^-1 b, without the directions that L has not."""
    for i in range(n):
        value = b[i, 0]
        for k in range(i):
            value -= L[i, k] * b[k, 0]
        b[i, 0] = value / L[i, i] if L[i, i] > 0.0 else 0.0
    for i in range(n - 1, -1, -1):
        value = b[i, 0]
        for k in range(i + 1, n):
            value -= L[k, i] * b[k, 0]
        b[i, 0] = value / L[i, i] if L[i, i] > 0.0 else 0.0


@njit(cache=True, nogil=True)
def _gradients(
    observe: Any, observe_parameters: Array, R: Array, observations: Array, around: Array,
    covariances: Array, F: Array, Q: Array, given: Array, by_shift: Array, by_bias: Array,
) -> bool:  # fmt: skip
    """As `gradients`; false where a predicted covariance is not positive."""
    steps, m = observations.shape
    n = given.shape[1]
    P, L, work = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    means, predicted = np.empty((steps + 1, n)), np.empty((steps + 1, n))
    lifted = np.empty((n, 1))
    roots = np.empty((steps + 1, n, n))
    z, e, H = np.empty(n), np.empty(m), np.empty((m, n))
    noise, solution = np.empty((m, m)), np.empty((m, 1))
    for j in range(n):
        means[0, j] = 0.0
        for k in range(n):
            means[0, j] += covariances[0, j, k] * given[0, k]
    for i in range(1, steps + 1):
        for j in range(n):
            predicted[i, j] = 0.0
            for k in range(n):
                predicted[i, j] += F[i, j, k] * means[i - 1, k]
            lifted[j, 0] = predicted[i, j]
        matrices.sandwich(F[i], covariances[i - 1], Q[i], n, n, work, P)
        if not matrices.root(P, n, L):
            return False
        for j in range(n):
            for k in range(n):
                roots[i, j, k] = L[j, k]
        _solve(L, n, lifted)
        for j in range(n):  # P (P_pred^-1 mean + force)
            means[i, j] = 0.0
            for k in range(n):
                means[i, j] += covariances[i, j, k] * (lifted[k, 0] + given[i, k])
    for j in range(n):
        z[j] = means[steps, j]
    for i in range(steps, 0, -1):
        for j in range(n):
            lifted[j, 0] = z[j] - predicted[i, j]
        _solve(roots[i], n, lifted)
        for j in range(n):
            by_shift[i - 1, j] = lifted[j, 0]
        for j in range(m):
            there = not np.isnan(observations[i - 1, j])
            for k in range(m):
                both = there and not np.isnan(observations[i - 1, k])
                noise[j, k] = R[j, k] if both else (1.0 if j == k else 0.0)
        for j in range(n):
            work[0, j] = around[i, j]
        call_observe_linearised(observe, work[0], observe_parameters, e, H)
        for j in range(m):
            solution[j, 0] = 0.0
            if not np.isnan(observations[i - 1, j]):
                for k in range(n):
                    solution[j, 0] += H[j, k] * z[k]
        if not matrices.cholesky(noise, m, noise):
            return False
        _solve(noise, m, solution)
        for j in range(m):
            by_bias[i - 1, j] = solution[j, 0]
        # z of the step before: mean + P F' (P_pred^-1 (z - predicted))
        for j in range(n):
            work[1, j] = 0.0
            for k in range(n):
                work[1, j] += F[i, k, j] * lifted[k, 0]
        for j in range(n):
            z[j] = means[i - 1, j]
            for k in range(n):
                z[j] += covariances[i - 1, j, k] * work[1, k]
    return True
