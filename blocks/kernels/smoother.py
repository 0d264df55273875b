"""Smoothers: estimates of each state from the observations before and after it.

Rauch, Tung, Striebel, "Maximum likelihood estimates of linear dynamic systems", AIAA J. 3(8), 1965,
on an extended Kalman filter; of a linear model that is the Kalman smoother. Repeated around its own
result it is the iterated smoother of Bell, SIAM J. Optim. 4(3), 1994: Gauss-Newton steps towards
the most likely trajectory. Over the last observations alone, again for each new one, it is a filter
(`slide`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import matrices
from blocks.kernels.caching import njit
from blocks.kernels.indirect import call_linearise, call_noise, call_observe_linearised
from blocks.kernels.kalman import Track, correct_arrays
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
    around: Array, shift: Array, scale: Array, point: Array, e: Array, H: Array, work: Array,
    quality: Array, means: Array, covariances: Array, predicted: Array, F: Array, Q: Array,
) -> int:  # fmt: skip
    n, m = mean.size, observations.shape[1]
    for i in range(observations.shape[0]):
        call_noise(noise, intervals[i], parameters, Q[i])
        for j in range(n):
            point[j] = around[i, j] if around.shape[0] else mean[j]
        call_linearise(linearise, point, intervals[i], parameters, predicted[i], F[i])
        if shift.shape[0]:
            for j in range(n):
                predicted[i, j] += shift[i, j]
                for k in range(n):
                    Q[i, j, k] *= scale[i]
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
        quality[0], quality[1] = correct_arrays(observations[i], e, H, R, True, mean, P, work)
        if not quality[0] >= 0.0:
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
                if spread.shape[0]:
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
        if not spread.shape[0]:
            continue
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
    passed: Passed, around: Array | None = None, shift: Array | None = None,
    scale: Array | None = None,
) -> int:  # fmt: skip
    """The extended Kalman filter, keeping what a smoother needs; returns the steps it did.

    mean, covariance  (n,), (n, n)   replaced by the last updated ones
    around            (time + 1, n)  trajectory to linearise at, with the state one interval before
                                     the first observation in front; None: the filter's own
    shift, scale      (time, n), (time,)  what the motion into each step is more than the model
                                     says, and how many times its Q; both or none
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
            np.empty((0, n)) if shift is None else shift,
            np.empty(0) if scale is None else scale,
            np.empty(n),
            np.empty(m),
            np.empty((m, n)),
            np.empty((5, side, side)),
            np.empty(2),
            *passed,
        )
    )


def backward(passed: Passed, *, spread: bool = True) -> tuple[Array, Array] | None:
    """Smoothed means (time, n) and covariances (time, n, n); None where a prediction has none.

    spread   whether covariances are wanted; else there are none, (0, n, n)
    """
    n = passed.means.shape[1]
    smoothed = np.empty_like(passed.means)
    covariances = np.empty_like(passed.covariances) if spread else np.empty((0, n, n))
    good = _backward(*passed, np.empty((4, n, n)), smoothed, covariances)
    return (smoothed, covariances) if good else None


def smooth(
    model: StateSpace, observations: Array, intervals: Array, mean: Array, covariance: Array,
    iterations: int = 1, around: Array | None = None,
) -> tuple[Array, Array] | int:  # fmt: skip
    """Smoothed means (time, n) and covariances (time, n, n), or the step at which it broke.

    mean, covariance  (n,), (n, n)  one interval before the first observation; left as they are
    iterations        passes; each after the first is linearised at the result of the one before,
                      undamped: from a filter that has lost its track they may not find back
    around            (time + 1, n)  what the first is linearised at, with the state one interval
                      before the first observation in front; None: at the filter's own
    """
    steps = len(observations)
    passed = Passed.empty(steps + 1, model.size)  # the state before the first observation in front
    passed.means[0], passed.covariances[0] = mean, covariance
    found = passed.means, passed.covariances
    for _ in range(iterations):
        done = forward(
            model, observations, intervals, mean.copy(), covariance.copy(),
            passed.part(1, steps + 1), around,
        )  # fmt: skip
        if done < steps:
            return done
        smoothed = backward(passed)
        if smoothed is None:
            return 0
        found = smoothed
        around = found[0]
    return found[0][1:], found[1][1:]


# --- Window that slides ---------------------------------------------------------------------------


class Window(NamedTuple):
    """The last observations, and the most likely trajectory through them.

    mean        (n,)        filtered, one interval before the first observation of the window
    covariance  (n, n)      likewise
    trajectory  (size + 1, n)  the state there, and at each observation
    observed    (size, m)
    intervals   (size,)     before each [s]
    """

    mean: Array
    covariance: Array
    trajectory: Array
    observed: Array
    intervals: Array

    @classmethod
    def begin(cls, model: StateSpace, size: int) -> Window:
        """Before the first observation."""
        n = model.size
        trajectory = np.zeros((size + 1, n))
        trajectory[0] = model.initial
        return cls(
            model.initial.copy(), model.initial_covariance.copy(), trajectory,
            np.zeros((size, model.rows)), np.zeros(size),
        )  # fmt: skip


@njit(cache=True, nogil=True)
def _slide(
    observations: Array, intervals: Array, linearise: Any, noise: Any, parameters: Array,
    observe: Any, observe_parameters: Array, angles: Array, R: Array, iterations: int, held: int,
    mean: Array, covariance: Array, trajectory: Array, observed: Array, spans: Array, x: Array,
    P: Array, point: Array, e: Array, H: Array, work: Array, back: Array, quality: Array,
    means: Array, filtered: Array, predicted: Array, F: Array, Q: Array, smoothed: Array,
    no_spread: Array, no_shift: Array, no_scale: Array, estimates: Array, covariances: Array,
    innovations: Array, nis: Array, det: Array,
) -> int:  # fmt: skip
    n, m, size = mean.size, e.size, spans.size
    for i in range(observations.shape[0]):
        for j in range(m):
            observed[held, j] = observations[i, j]
        spans[held] = intervals[i]
        count = held + 1
        call_linearise(
            linearise, trajectory[held], spans[held], parameters, trajectory[count], F[0]
        )
        for j in range(n):
            means[0, j] = mean[j]
            for k in range(n):
                filtered[0, j, k] = covariance[j, k]
        for turn in range(iterations):
            for j in range(n):
                x[j] = mean[j]
                for k in range(n):
                    P[j, k] = covariance[j, k]
            done = _forward(
                observed[:count], spans[:count], linearise, noise, parameters, observe,
                observe_parameters, angles, R, x, P, trajectory, no_shift, no_scale, point, e, H,
                work, quality, means[1:], filtered[1:], predicted[1:], F[1:], Q[1:],
            )  # fmt: skip
            if done < count or not _backward(
                means[: count + 1], filtered, predicted, F, Q, back, smoothed, no_spread
            ):
                return i
            for q in range(count + 1):
                for j in range(n):
                    trajectory[q, j] = smoothed[q, j]
            if turn == 0:
                nis[i], det[i] = quality[0], quality[1]
                for j in range(m):
                    innovations[i, j] = e[j]
        for j in range(n):
            estimates[i, j] = means[count, j]
            for k in range(n):
                covariances[i, j, k] = filtered[count, j, k]
        if count < size:
            held = count
            continue
        for j in range(n):  # the oldest observation leaves the window
            mean[j] = means[1, j]
            for k in range(n):
                covariance[j, k] = filtered[1, j, k]
        for q in range(size):
            for j in range(n):
                trajectory[q, j] = trajectory[q + 1, j]
        for q in range(size - 1):
            spans[q] = spans[q + 1]
            for j in range(m):
                observed[q, j] = observed[q + 1, j]
    return int(observations.shape[0])


def slide(
    model: StateSpace, observations: Array, intervals: Array, held: int, window: Window,
    iterations: int, out: Track,
) -> int:  # fmt: skip
    """Newest states of the most likely trajectories through the last observations.

    For each observation the trajectory through the window is improved by `iterations` Gauss-Newton
    steps, each a pass of the smoother linearised at it, starting from that of the window before.
    What is older weighs in through the filtered mean and covariance where the window begins, which
    come from the same passes. Rao, Rawlings, Mayne, IEEE TAC 48(2), 2003, without constraints.

    observations  (time, m)
    intervals     (time,)   [s]
    held          observations that have gone into the window, or its size less one if more have
    window        replaced
    out           innovations, nis and det are those of the first pass of each observation

    Returns how many steps it did.
    """
    n, m, size = model.size, model.rows, len(window.intervals)
    side = max(n, m)
    return int(
        _slide(
            observations, intervals, model.linearise, model.noise, model.parameters,
            model.observe_linearised, model.observe_parameters, model.angles, model.R, iterations,
            held, *window, np.empty(n), np.empty((n, n)), np.empty(n), np.empty(m),
            np.empty((m, n)), np.empty((5, side, side)), np.empty((4, n, n)), np.empty(2),
            *Passed.empty(size + 1, n), np.empty((size + 1, n)), np.empty((0, n, n)),
            np.empty((0, n)), np.empty(0), *out,
        )
    )  # fmt: skip
