"""Smoothers: estimates of each state from the observations before and after it.

Rauch, Tung, Striebel, "Maximum likelihood estimates of linear dynamic systems", AIAA J. 3(8), 1965,
on an extended Kalman filter; of a linear model that is the Kalman smoother. Repeated around its own
result it is the iterated smoother of Bell, SIAM J. Optim. 4(3), 1994: Gauss-Newton steps towards
the most likely trajectory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import matrices
from blocks.kernels.caching import njit
from blocks.kernels.indirect import call_linearise, call_noise, call_observe_linearised
from blocks.kernels.kalman import correct_arrays
from blocks.kernels.state_space import StateSpace, wrapped

Array = np.ndarray[Any, Any]


class Passed(NamedTuple):
    """What the forward pass leaves for the backward pass, by step.

    means, covariances  (time, n), (time, n, n)  updated
    predicted           (time, n)
    F, Q                (time, n, n)  of the motion into the step
    """

    means: Array
    covariances: Array
    predicted: Array
    F: Array
    Q: Array

    @classmethod
    def empty(cls, steps: int, n: int) -> Passed:
        """Room for so many steps."""
        return cls(
            np.empty((steps, n)), np.empty((steps, n, n)), np.empty((steps, n)),
            np.empty((steps, n, n)), np.empty((steps, n, n)),
        )  # fmt: skip

    def part(self, first: int, stop: int) -> Passed:
        """Steps first ... stop - 1."""
        return Passed(*(array[first:stop] for array in self))


@njit(cache=True, nogil=True)
def _forward(
    observations: Array, intervals: Array, linearise: Any, noise: Any, parameters: Array,
    observe: Any, observe_parameters: Array, angles: Array, R: Array, mean: Array, P: Array,
    around: Array, point: Array, e: Array, H: Array, work: Array, means: Array,
    covariances: Array, predicted: Array, F: Array, Q: Array,
) -> int:  # fmt: skip
    n, m = mean.size, observations.shape[1]
    for i in range(observations.shape[0]):
        call_noise(noise, intervals[i], parameters, Q[i])
        for j in range(n):
            point[j] = around[i, j] if around.shape[0] else mean[j]
        call_linearise(linearise, point, intervals[i], parameters, predicted[i], F[i])
        if around.shape[0]:
            for j in range(n):
                for k in range(n):
                    predicted[i, j] += F[i, j, k] * (mean[k] - point[k])
        matrices.sandwich(F[i], P, Q[i], n, n, work[0], P)
        for j in range(n):
            mean[j] = predicted[i, j]
            point[j] = around[i + 1, j] if around.shape[0] else mean[j]
        call_observe_linearised(observe, point, observe_parameters, e, H)
        for j in range(m):
            value = observations[i, j] - e[j]
            value = wrapped(value) if angles[j] else value
            for k in range(n):
                value -= H[j, k] * (mean[k] - point[k])
            e[j] = value
        squared, _ = correct_arrays(observations[i], e, H, R, True, mean, P, work)
        if not squared >= 0.0:
            return i
        for j in range(n):
            means[i, j] = mean[j]
            for k in range(n):
                covariances[i, j, k] = P[j, k]
    return int(observations.shape[0])


@njit(cache=True, nogil=True)
def _divide(L: Array, n: int, B: Array) -> None:
    """B becomes (L L')^-1 B, without the directions that L has not."""
    for i in range(n):
        for j in range(n):
            value = B[i, j]
            for k in range(i):
                value -= L[i, k] * B[k, j]
            B[i, j] = value / L[i, i] if L[i, i] > 0.0 else 0.0
    for i in range(n - 1, -1, -1):
        for j in range(n):
            value = B[i, j]
            for k in range(i + 1, n):
                value -= L[k, i] * B[k, j]
            B[i, j] = value / L[i, i] if L[i, i] > 0.0 else 0.0


@njit(cache=True, nogil=True)
def _backward(
    means: Array, covariances: Array, predicted: Array, F: Array, Q: Array, work: Array,
    smoothed: Array, spread: Array,
) -> bool:  # fmt: skip
    steps, n = means.shape
    X, L, A, B = work[0], work[1], work[2], work[3]
    for i in range(steps - 1, -1, -1):
        if i == steps - 1:
            for j in range(n):
                smoothed[i, j] = means[i, j]
                for k in range(n):
                    spread[i, j, k] = covariances[i, j, k]
            continue
        # G' = (F P F' + Q)^-1 F P, here in X
        matrices.sandwich(F[i + 1], covariances[i], Q[i + 1], n, n, X, L)
        if not matrices.root(L, n, L):
            return False
        _divide(L, n, X)
        for j in range(n):
            value = means[i, j]
            for k in range(n):
                value += X[k, j] * (smoothed[i + 1, k] - predicted[i + 1, k])
            smoothed[i, j] = value
        # (I - G F) P (I - G F)' + G (P_next + Q) G', which stays positive
        for j in range(n):
            for k in range(n):
                value = 1.0 if j == k else 0.0
                for q in range(n):
                    value -= X[q, j] * F[i + 1, q, k]
                A[j, k] = value
                L[j, k] = spread[i + 1, j, k] + Q[i + 1, j, k]
        for j in range(n):  # B = (P_next + Q) G'
            for k in range(n):
                value = 0.0
                for q in range(n):
                    value += L[j, q] * X[q, k]
                B[j, k] = value
        for j in range(n):
            for k in range(j + 1):
                value = 0.0
                for q in range(n):
                    value += X[q, j] * B[q, k]
                L[j, k] = value
                L[k, j] = value
        matrices.sandwich(A, covariances[i], L, n, n, B, spread[i])
    return True


def forward(
    model: StateSpace, observations: Array, intervals: Array, mean: Array, covariance: Array,
    passed: Passed, around: Array | None = None,
) -> int:  # fmt: skip
    """The extended Kalman filter, keeping what a smoother needs; returns the steps it did.

    mean, covariance  (n,), (n, n)   replaced by the last updated ones
    around            (time + 1, n)  trajectory to linearise at, with the state one interval before
                                     the first observation in front; None: the filter's own
    """
    n, m = model.size, model.rows
    side = max(n, m)
    return int(
        _forward(
            observations,
            intervals,
            model.linearise,
            model.noise,
            model.parameters,
            model.observe_linearised,
            model.observe_parameters,
            model.angles,
            model.R,
            mean,
            covariance,
            np.empty((0, n)) if around is None else around,
            np.empty(n),
            np.empty(m),
            np.empty((m, n)),
            np.empty((5, side, side)),
            *passed,
        )
    )


def backward(passed: Passed) -> tuple[Array, Array] | None:
    """Smoothed means (time, n) and covariances (time, n, n); None where a prediction has none."""
    n = passed.means.shape[1]
    smoothed, spread = np.empty_like(passed.means), np.empty_like(passed.covariances)
    good = _backward(*passed, np.empty((4, n, n)), smoothed, spread)
    return (smoothed, spread) if good else None


def smooth(
    model: StateSpace, observations: Array, intervals: Array, mean: Array, covariance: Array,
    iterations: int = 1,
) -> tuple[Array, Array] | int:  # fmt: skip
    """Smoothed means (time, n) and covariances (time, n, n), or the step at which it broke.

    mean, covariance  (n,), (n, n)  one interval before the first observation; left as they are
    iterations        passes; each after the first is linearised at the result of the one before
    """
    passed = Passed.empty(len(observations), model.size)
    around = None
    result = passed.means, passed.covariances  # of nothing
    if not len(observations):
        return result
    for _ in range(iterations):
        done = forward(
            model, observations, intervals, mean.copy(), covariance.copy(), passed, around
        )
        if done < len(observations):
            return done
        found = backward(passed)
        if found is None:
            return 0
        result = found
        if iterations > 1:
            F, P = passed.F[0], covariance
            gain = P @ F.T @ np.linalg.pinv(F @ P @ F.T + passed.Q[0], hermitian=True)
            start = mean + gain @ (result[0][0] - passed.predicted[0])
            around = np.concatenate([start[None], result[0]])
    return result
