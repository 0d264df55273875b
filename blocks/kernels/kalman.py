"""Kalman filters, linear and extended: whole frames, one step per observation.

Kalman, "A new approach to linear filtering and prediction problems", 1960; the names follow
Bar-Shalom, Li, Kirubarajan, "Estimation with Applications to Tracking and Navigation", 2001. Each
step predicts over the interval before its observation, then corrects: the mean and covariance that
a filter starts from are those one interval before the first observation.

An observation that is NaN is missing: the step corrects with the other rows, or predicts only.
Where the innovation covariance is not positive, a filter stops and says at which step.

Systems of up to SMALL states and as many rows of observation run in registers (kernels/small.py,
kernels/unrolled.py); larger ones, and the square-root form, on arrays.

Outputs that all filters share, written step by step, each left out if its length is 0:
    estimates    (time, n)     updated means
    covariances  (time, n, n)  updated covariances
    innovations  (time, m)     observation less its prediction, angles wrapped; NaN where missing
    nis          (time,)       normalised innovation squared, e' S^-1 e, over the rows that came
    det          (time,)       determinant of S over the same rows
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import matrices, small
from blocks.kernels.caching import njit
from blocks.kernels.indirect import call_linearise, call_noise, call_observe_linearised
from blocks.kernels.state_space import StateSpace, wrapped
from blocks.kernels.unrolled import LANES, is_nan, lanes, put_lanes, unrolled, where

Array = np.ndarray[Any, Any]

SMALL = 6  # states, and rows of observation, up to which a step is unrolled


class Track(NamedTuple):
    """What a filter writes for the observations it is given; see the top of this file."""

    estimates: Array
    covariances: Array
    innovations: Array
    nis: Array
    det: Array

    @classmethod
    def empty(cls, shape: tuple[int, ...], n: int, m: int, dtype: Any = np.float64) -> Track:
        """Room for observations of this shape, (time,) or (track, time)."""
        return cls(
            np.empty((*shape, n), dtype),
            np.empty((*shape, n, n), dtype),
            np.empty((*shape, m), dtype),
            np.empty(shape, dtype),
            np.empty(shape, dtype),
        )

    def of(self, track: int) -> Track:
        """That of one track."""
        return Track(*(array[track] for array in self))


def log_likelihood(innovations: Array, nis: Array, det: Array) -> Array:
    """Log of the density of each observation given those before it [nat]."""
    there = innovations.shape[-1] - np.isnan(innovations).sum(axis=-1)
    result: Array = -0.5 * (nis + np.log(det) + there * np.log(2.0 * np.pi))
    return result


# --- Steps on numbers in registers; see kernels/unrolled.py ---------------------------------------


@unrolled
def load_row(array: Array, at: int, size: tuple[float, ...]) -> Any:
    """Row `at` of a matrix as a tuple as long as `size`."""
    return tuple(array[at, i] for i in range(len(size)))


@unrolled
def load_matrix(array: Array, at: int, rows: tuple[float, ...], columns: tuple[float, ...]) -> Any:
    """Matrix `at` of a stack as a tuple of rows."""
    return tuple(tuple(array[at, i, j] for j in range(len(columns))) for i in range(len(rows)))


@unrolled
def store_row(array: Array, at: int, values: Any) -> None:
    """Put a tuple into row `at`."""
    for i, value in enumerate(values):
        array[at, i] = value


@unrolled
def store_matrix(array: Array, at: int, values: Any) -> None:
    """Put a tuple of rows into matrix `at` of a stack."""
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            array[at, i, j] = value


@unrolled
def total(values: Any) -> Any:
    """Sum of a tuple: NaN if any of it is."""
    result = values[0]
    for value in values[1:]:
        result = result + value
    return result


@unrolled
def present(values: Any, there: Any) -> Any:
    """The values, 0 where they are marked as missing."""
    return tuple(where(is_nan(v), 0.0, v) * flag for v, flag in zip(values, there, strict=True))


@unrolled
def innovation_of(y: Any, H: Any, x: Any) -> Any:
    """Observation less its prediction, y - H x."""
    return tuple(value - mean for value, mean in zip(y, small.apply(H, x), strict=True))


apply = unrolled(small.apply)
sandwich = unrolled(small.sandwich)
correct = unrolled(small.correct)
joseph = unrolled(small.joseph)
simple = unrolled(small.simple)
known = unrolled(small.known)
without_missing = unrolled(small.without_missing)


# --- Linear ---------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _linear_small(
    observations: Array, F: Array, Q: Array, H: Array, R: Array, mean: Array, covariance: Array,
    is_joseph: bool, n: tuple[float, ...], m: tuple[float, ...], estimates: Array,
    covariances: Array, innovations: Array, nis: Array, det: Array,
) -> int:  # fmt: skip
    x = load_row(mean, 0, n)
    P = load_matrix(covariance, 0, n, n)
    steps = observations.shape[0]
    for i in range(steps):
        at = i if F.shape[0] > 1 else 0
        f = load_matrix(F, at, n, n)
        x = apply(f, x)
        P = sandwich(f, P, load_matrix(Q, at, n, n))
        h = load_matrix(H, 0, m, n)
        r = load_matrix(R, 0, m, m)
        y = load_row(observations, i, m)
        e = innovation_of(y, h, x)
        store_row(innovations, i, e)
        if np.isnan(total(y)):
            there = known(y)
            h, r = without_missing(there, h, r)
            e = present(e, there)
        x, K, squared, determinant = correct(x, P, e, h, r)
        if not squared >= 0.0:
            steps = i
            break
        P = joseph(P, K, h, r) if is_joseph else simple(P, K, h)
        store_row(estimates, i, x)
        if covariances.shape[0]:
            store_matrix(covariances, i, P)
        nis[i] = squared
        det[i] = determinant
    store_row(mean, 0, x)
    store_matrix(covariance, 0, P)
    return int(steps)


@njit(cache=True, nogil=True)
def correct_arrays(
    y: Array, e: Array, H: Array, R: Array, is_joseph: bool, mean: Array, P: Array, work: Array
) -> tuple[float, float]:
    """Correct mean (n,) and P in place; returns nis and det, NaN where S is not positive.

    y     (m,)  observation; rows that are NaN are dropped
    e     (m,)  innovation
    work  (5, k, k) with k >= n, m
    """
    n, m = mean.size, e.size
    kept, noise, S, rows, scratch = work[0], work[1], work[2], work[3], work[4]
    for i in range(m):
        there = not np.isnan(y[i])
        for j in range(n):
            kept[i, j] = H[i, j] if there else 0.0
        for j in range(m):
            if there and not np.isnan(y[j]):
                noise[i, j] = R[i, j]
            else:
                noise[i, j] = 1.0 if i == j else 0.0
    matrices.sandwich(kept, P, noise, m, n, rows, S)  # rows = H P
    if not matrices.cholesky(S, m, S):
        return np.nan, np.nan
    matrices.solve_lower(S, m, rows, n)  # L^-1 H P
    nis, det = 0.0, 1.0
    for i in range(m):  # L^-1 e
        value = 0.0 if np.isnan(y[i]) else e[i]
        for j in range(i):
            value -= S[i, j] * scratch[0, j]
        value /= S[i, i]
        scratch[0, i] = value
        nis += value * value
        det *= S[i, i] * S[i, i]
        for j in range(n):
            mean[j] += rows[i, j] * value
    if not is_joseph:
        for i in range(n):
            for j in range(i + 1):
                value = P[i, j]
                for k in range(m):
                    value -= rows[k, i] * rows[k, j]
                P[i, j] = value
                P[j, i] = value
        return nis, det
    matrices.solve_upper(S, m, rows, n)  # K'
    for i in range(n):  # I - K H in S, K R K' in scratch
        for j in range(n):
            value = 1.0 if i == j else 0.0
            for k in range(m):
                value -= rows[k, i] * kept[k, j]
            S[i, j] = value
    for i in range(n):
        for j in range(i + 1):
            value = 0.0
            for k in range(m):
                for q in range(m):
                    value += rows[k, i] * noise[k, q] * rows[q, j]
            scratch[i, j] = value
            scratch[j, i] = value
    matrices.sandwich(S, P, scratch, n, n, kept, P)
    return nis, det


@njit(cache=True, nogil=True)
def _linear_large(
    observations: Array, F: Array, Q: Array, H: Array, R: Array, mean: Array, covariance: Array,
    is_joseph: bool, work: Array, estimates: Array, covariances: Array, innovations: Array,
    nis: Array, det: Array,
) -> int:  # fmt: skip
    x, P = mean[0], covariance[0]
    n, m = x.size, observations.shape[1]
    for i in range(observations.shape[0]):
        at = i if F.shape[0] > 1 else 0
        for j in range(n):
            value = 0.0
            for k in range(n):
                value += F[at, j, k] * x[k]
            work[0, 0, j] = value
        for j in range(n):
            x[j] = work[0, 0, j]
        matrices.sandwich(F[at], P, Q[at], n, n, work[0], P)
        for j in range(m):
            value = observations[i, j]
            for k in range(n):
                value -= H[0, j, k] * x[k]
            innovations[i, j] = value
        squared, determinant = correct_arrays(
            observations[i], innovations[i], H[0], R[0], is_joseph, x, P, work
        )
        if not squared >= 0.0:
            return i
        nis[i], det[i] = squared, determinant
        for j in range(n):
            estimates[i, j] = x[j]
            if covariances.shape[0]:
                for k in range(n):
                    covariances[i, j, k] = P[j, k]
    return int(observations.shape[0])


def linear(
    observations: Array, F: Array, Q: Array, H: Array, R: Array, mean: Array, covariance: Array,
    out: Track, *, is_joseph: bool = True,
) -> int:  # fmt: skip
    """The Kalman filter over one track; returns how many steps it did.

    observations  (time, m)
    F, Q          (1, n, n) or (time, n, n)  transition, and covariance of the process noise
    H, R          (m, n), (m, m)  observation, and covariance of its noise
    mean          (n,)    replaced by the last updated mean
    covariance    (n, n)  likewise
    is_joseph     P = (I - KH) P (I - KH)' + K R K', which stays positive; otherwise P - K H P
    """
    n, m = mean.size, H.shape[0]
    given = (observations, F, Q, H[None], R[None], mean[None], covariance[None], is_joseph)
    if max(n, m) <= SMALL:
        return int(_linear_small(*given, (0.0,) * n, (0.0,) * m, *out))
    return int(_linear_large(*given, np.empty((5, max(n, m), max(n, m))), *out))


# --- Linear, many tracks at once ------------------------------------------------------------------


@unrolled
def _step_lanes(
    F: Array, Q: Array, at: int, H: Array, R: Array, mean: Array, covariance: Array, seen: Array,
    quality: Array, n: tuple[float, ...], m: tuple[float, ...],
) -> Any:  # fmt: skip
    """One step of LANES tracks by the simple form; `_step_lanes_joseph` is the other.

    mean (n, LANES), covariance (n, n, LANES)  replaced
    seen (m, LANES)                            observations, replaced by innovations
    quality (2, LANES)                         written: nis, det
    """
    P, K, h, _ = _predict_and_gain(F, Q, at, H, R, mean, covariance, seen, quality, n, m)
    _put_lanes(covariance, small.simple(P, K, h))


@unrolled
def _step_lanes_joseph(
    F: Array, Q: Array, at: int, H: Array, R: Array, mean: Array, covariance: Array, seen: Array,
    quality: Array, n: tuple[float, ...], m: tuple[float, ...],
) -> Any:  # fmt: skip
    P, K, h, r = _predict_and_gain(F, Q, at, H, R, mean, covariance, seen, quality, n, m)
    _put_lanes(covariance, small.joseph(P, K, h, r))


def _predict_and_gain(
    F: Any, Q: Any, at: Any, H: Any, R: Any, mean: Any, covariance: Any, seen: Any, quality: Any,
    n: Any, m: Any,
) -> Any:  # fmt: skip
    states, rows = range(len(n)), range(len(m))
    f = tuple(tuple(F[at, i, j] for j in states) for i in states)
    q = tuple(tuple(Q[at, i, j] for j in states) for i in states)
    h = tuple(tuple(H[0, i, j] for j in states) for i in rows)
    r = tuple(tuple(R[0, i, j] for j in rows) for i in rows)
    x = small.apply(f, tuple(lanes(mean, i) for i in states))
    P = small.sandwich(f, tuple(tuple(lanes(covariance, i, j) for j in states) for i in states), q)
    y = tuple(lanes(seen, i) for i in rows)
    e = tuple(value - expected for value, expected in zip(y, small.apply(h, x), strict=True))
    for i in rows:
        put_lanes(seen, e[i], i)
    there = small.known(y)
    h, r = small.without_missing(there, h, r)
    e = tuple(where(is_nan(value), 0.0, value) for value in e)
    x, K, squared, determinant = small.correct(x, P, e, h, r)
    for i in states:
        put_lanes(mean, x[i], i)
    put_lanes(quality, squared, 0)
    put_lanes(quality, determinant, 1)
    return P, K, h, r


def _put_lanes(array: Any, P: Any) -> None:
    for i, row in enumerate(P):
        for j, value in enumerate(row):
            put_lanes(array, value, i, j)


@njit(cache=True, nogil=True)
def _linear_lanes(
    observations: Array, F: Array, Q: Array, H: Array, R: Array, means: Array, covariances0: Array,
    is_joseph: bool, mean: Array, covariance: Array, seen: Array, quality: Array,
    n: tuple[float, ...], m: tuple[float, ...], estimates: Array, covariances: Array,
    innovations: Array, nis: Array, det: Array, done: Array,
) -> None:  # fmt: skip
    tracks, steps = observations.shape[0], observations.shape[1]
    states, rows = len(n), len(m)  # known while compiling, so that the loops below unroll
    for first in range(0, tracks, LANES):
        count = min(LANES, tracks - first)
        # lanes without a track repeat the last one, so that every track runs the same code
        for lane in range(LANES):
            track = first + min(lane, count - 1)
            for i in range(states):
                mean[i, lane] = means[track, i]
                for j in range(states):
                    covariance[i, j, lane] = covariances0[track, i, j]
            done[track] = steps
        for t in range(steps):
            for lane in range(LANES):
                track = first + min(lane, count - 1)
                for i in range(rows):
                    seen[i, lane] = observations[track, t, i]
            at = t if F.shape[0] > 1 else 0
            if is_joseph:
                _step_lanes_joseph(F, Q, at, H, R, mean, covariance, seen, quality, n, m)
            else:
                _step_lanes(F, Q, at, H, R, mean, covariance, seen, quality, n, m)
            for lane in range(count):
                track = first + lane
                if not quality[0, lane] >= 0.0 and done[track] == steps:
                    done[track] = t
                nis[track, t] = quality[0, lane]
                det[track, t] = quality[1, lane]
                for i in range(rows):
                    innovations[track, t, i] = seen[i, lane]
                for i in range(states):
                    estimates[track, t, i] = mean[i, lane]
                if covariances.shape[1]:
                    for i in range(states):
                        for j in range(states):
                            covariances[track, t, i, j] = covariance[i, j, lane]
        for lane in range(count):
            for i in range(states):
                means[first + lane, i] = mean[i, lane]
                for j in range(states):
                    covariances0[first + lane, i, j] = covariance[i, j, lane]


def linear_tracks(
    observations: Array, F: Array, Q: Array, H: Array, R: Array, means: Array, covariances: Array,
    out: Track, *, is_joseph: bool = True,
) -> Array:  # fmt: skip
    """The Kalman filter over many tracks of one system; returns the steps done for each.

    As `linear`, with one more axis in front: observations (track, time, m), means (track, n),
    covariances (track, n, n). Small systems take LANES tracks at a time through vector registers;
    what comes out differs from `linear` by rounding, and does not depend on the other tracks.
    """
    tracks, n, m = means.shape[0], means.shape[1], H.shape[0]
    done = np.zeros(tracks, np.int64)
    if max(n, m) <= SMALL:
        _linear_lanes(
            observations, F, Q, H[None], R[None], means, covariances, is_joseph,
            np.empty((n, LANES)), np.empty((n, n, LANES)), np.empty((m, LANES)),
            np.empty((2, LANES)), (0.0,) * n, (0.0,) * m, *out, done,
        )  # fmt: skip
        return done
    for track in range(tracks):
        done[track] = linear(
            observations[track], F, Q, H, R, means[track], covariances[track], out.of(track),
            is_joseph=is_joseph,
        )  # fmt: skip
    return done


# --- Linear, square-root form ---------------------------------------------------------------------


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
    """The Kalman filter on roots of the covariances; returns how many steps it did.

    Kailath, Sayed, Hassibi, "Linear Estimation", 2000, array algorithm of chapter 12. As `linear`,
    in the dtype of `mean`: float32, or an R of which rows are nearly equal and certain, leave the
    covariance positive.

    factor  (n, n)  lower, covariance = factor factor'; replaced

    Raises ValueError where Q or R is not a covariance.
    """
    n, m = mean.size, H.shape[0]
    Q_root, R_root = np.empty_like(Q), np.empty_like(R)
    for at in range(Q.shape[0]):
        if not matrices.root(Q[at], n, Q_root[at]):
            raise ValueError("the covariance of the process noise is not positive")
    if not matrices.root(R, m, R_root):
        raise ValueError("the covariance of the observation noise is not positive")
    side = max(2 * n, m + n)
    work = np.empty((3, side, side), mean.dtype)
    return int(_square_root(observations, F, Q_root, H, R, R_root, mean, factor, work, *out))


# --- Linear, constant gain ------------------------------------------------------------------------


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


# --- Extended -------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _extended_small(
    observations: Array, intervals: Array, linearise: Any, noise: Any, parameters: Array,
    observe: Any, observe_parameters: Array, angles: Array, R: Array, mean: Array,
    covariance: Array, is_joseph: bool, work: Array, expected: Array, H: Array, n: Any, m: Any,
    estimates: Array, covariances: Array, innovations: Array, nis: Array, det: Array,
) -> int:  # fmt: skip
    x, predicted, F, Q = mean[0], expected[0], work[0:1], work[1:2]
    P = load_matrix(covariance, 0, n, n)
    steps = observations.shape[0]
    last = np.nan
    for i in range(steps):
        if intervals[i] != last:
            last = intervals[i]
            call_noise(noise, last, parameters, Q[0])
        call_linearise(linearise, x, last, parameters, predicted, F[0])
        P = sandwich(load_matrix(F, 0, n, n), P, load_matrix(Q, 0, n, n))
        call_observe_linearised(observe, predicted, observe_parameters, innovations[i], H[0])
        missing = False
        for j in range(observations.shape[1]):
            value = observations[i, j] - innovations[i, j]
            innovations[i, j] = wrapped(value) if angles[j] else value
            missing |= np.isnan(observations[i, j])
        h = load_matrix(H, 0, m, n)
        r = load_matrix(R, 0, m, m)
        e = load_row(innovations, i, m)
        if missing:
            there = known(load_row(observations, i, m))
            h, r = without_missing(there, h, r)
            e = present(e, there)
        updated, K, squared, determinant = correct(load_row(expected, 0, n), P, e, h, r)
        if not squared >= 0.0:
            steps = i
            break
        P = joseph(P, K, h, r) if is_joseph else simple(P, K, h)
        store_row(mean, 0, updated)
        store_row(estimates, i, updated)
        if covariances.shape[0]:
            store_matrix(covariances, i, P)
        nis[i] = squared
        det[i] = determinant
    store_matrix(covariance, 0, P)
    return int(steps)


@njit(cache=True, nogil=True)
def _extended_large(
    observations: Array, intervals: Array, linearise: Any, noise: Any, parameters: Array,
    observe: Any, observe_parameters: Array, angles: Array, R: Array, mean: Array,
    covariance: Array, is_joseph: bool, F: Array, predicted: Array, H: Array, scratch: Array,
    estimates: Array, covariances: Array, innovations: Array, nis: Array, det: Array,
) -> int:  # fmt: skip
    x, P, Q = mean[0], covariance[0], F[1]
    n = x.size
    last = np.nan
    for i in range(observations.shape[0]):
        if intervals[i] != last:
            last = intervals[i]
            call_noise(noise, last, parameters, Q)
        call_linearise(linearise, x, last, parameters, predicted[0], F[0])
        for j in range(n):
            x[j] = predicted[0, j]
        matrices.sandwich(F[0], P, Q, n, n, scratch[0], P)
        call_observe_linearised(observe, x, observe_parameters, innovations[i], H[0])
        for j in range(observations.shape[1]):
            value = observations[i, j] - innovations[i, j]
            innovations[i, j] = wrapped(value) if angles[j] else value
        squared, determinant = correct_arrays(
            observations[i], innovations[i], H[0], R[0], is_joseph, x, P, scratch
        )
        if not squared >= 0.0:
            return i
        nis[i], det[i] = squared, determinant
        for j in range(n):
            estimates[i, j] = x[j]
            if covariances.shape[0]:
                for k in range(n):
                    covariances[i, j, k] = P[j, k]
    return int(observations.shape[0])


def extended(
    model: StateSpace, observations: Array, intervals: Array, mean: Array, covariance: Array,
    out: Track, *, is_joseph: bool = True,
) -> int:  # fmt: skip
    """The extended Kalman filter over one track; returns how many steps it did.

    It linearises the motion at the last updated mean and the observation at the predicted one.

    observations  (time, m)
    intervals     (time,)   time since the observation before [s]
    mean          (n,)      replaced by the last updated mean
    covariance    (n, n)    likewise
    """
    n, m = model.size, model.rows
    given = (
        observations, intervals, model.linearise, model.noise, model.parameters,
        model.observe_linearised, model.observe_parameters, model.angles, model.R[None],
        mean[None], covariance[None], is_joseph, np.empty((2, n, n)), np.empty((1, n)),
        np.empty((1, m, n)),
    )  # fmt: skip
    if max(n, m) <= SMALL:
        return int(_extended_small(*given, (0.0,) * n, (0.0,) * m, *out))
    return int(_extended_large(*given, np.empty((5, max(n, m), max(n, m))), *out))
