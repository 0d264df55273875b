"""The Kalman filter over whole frames of one track, one step per observation.

Kalman, "A new approach to linear filtering and prediction problems", 1960; the names follow
Bar-Shalom, Li, Kirubarajan, "Estimation with Applications to Tracking and Navigation", 2001. Each
step predicts over the interval before its observation, then corrects: the mean and covariance that
a filter starts from are those one interval before the first observation.

An observation that is NaN is missing: the step corrects with the other rows, or predicts only.
Where the innovation covariance is not positive, or a number not finite, a filter stops and says at
which step.

Systems of up to SMALL states and as many rows of observation run in registers (kernels/small.py,
kernels/unrolled.py), with code made for what is 0 or 1 in their matrices; larger ones on arrays.
Arrays are float64, or all float32.

Many tracks at once are in kernels/kalman_tracks.py, other forms of the filter in square_root.py,
constant_gain.py, extended_kalman.py and unscented.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import matrices, small
from blocks.kernels.caching import njit
from blocks.kernels.registers import (
    Pattern,
    dense,
    load_row,
    load_triangle,
    matrix_at,
    pattern,
    store_row,
    store_triangle,
    total,
)
from blocks.kernels.unrolled import unrolled

Array = np.ndarray[Any, Any]

SMALL = 6  # states, and rows of observation, up to which a step is unrolled


class Track(NamedTuple):
    """What a filter writes for the observations it is given, step by step.

    estimates    (time, n)     updated means
    covariances  (time, n, n)  updated covariances, left out if their length is 0
    innovations  (time, m)     observation less its prediction, angles wrapped; NaN where missing
    nis          (time,)       normalised innovation squared, e' S^-1 e, over the rows that came
    det          (time,)       determinant of S over the same rows
    """

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

    def of(self, track: int | slice | Array) -> Track:
        """That of one track, or of some."""
        return Track(*(array[track] for array in self))


def log_likelihood(innovations: Array, nis: Array, det: Array) -> Array:
    """Log of the density of each observation given those before it [nat]."""
    there = innovations.shape[-1] - np.isnan(innovations).sum(axis=-1)
    result: Array = -0.5 * (nis + np.log(det) + there * np.log(2.0 * np.pi))
    return result


def expect(dtype: Any, **arrays: tuple[Array, tuple[int, ...]]) -> None:
    """ValueError that names the first array which is not of this dtype and its shape.

    What compiled code reads is not checked again, so that it may read beyond the end.
    """
    for name, (array, shape) in arrays.items():
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"{name}: {array.dtype} with shape {array.shape}, but expected {np.dtype(dtype)} "
                f"with shape {shape}"
            )
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} has gaps between its numbers; make it np.ascontiguousarray")


def expect_track(
    dtype: Any, shape: tuple[int, ...], n: int, m: int, observations: Array, mean: Array,
    covariance: Array, out: Track,
) -> None:  # fmt: skip
    """`expect` for what all filters take; shape is (time,) or (track, time)."""
    *tracks, steps = shape
    kept = steps if out.covariances.shape[-3] else 0
    expect(
        dtype, observations=(observations, (*shape, m)), mean=(mean, (*tracks, n)),
        covariance=(covariance, (*tracks, n, n)), estimates=(out.estimates, (*shape, n)),
        covariances=(out.covariances, (*tracks, kept, n, n)),
        innovations=(out.innovations, (*shape, m)), nis=(out.nis, shape), det=(out.det, shape),
    )  # fmt: skip


def expect_linear(
    observations: Array, F: Array, Q: Array, H: Array, R: Array, mean: Array, covariance: Array,
    out: Track,
) -> tuple[int, int]:  # fmt: skip
    """`expect` for the arguments of `linear` and `linear_tracks`; returns n and m."""
    n, m = mean.shape[-1], H.shape[0]
    dtype = np.float32 if mean.dtype == np.float32 else np.float64
    moves = (1 if len(F) == 1 else observations.shape[-2], n, n)
    expect(dtype, F=(F, moves), Q=(Q, moves), H=(H, (m, n)), R=(R, (m, m)))
    expect_track(dtype, observations.shape[:-1], n, m, observations, mean, covariance, out)
    return n, m


def flag(is_set: bool) -> Any:
    """The same, for code that is made for the one or the other."""
    return (None,) if is_set else ()


# --- In registers ---------------------------------------------------------------------------------


@unrolled
def predict(x: Any, P: Any, F: Array, Q: Array, at: int, shape: Pattern) -> Any:
    """F x, and the triangle of F P F' + Q for that of P."""
    f, q = matrix_at(F, at, shape), matrix_at(Q, at, dense(len(shape), len(shape)))
    return small.apply(f, x), small.triangle(small.sandwich(f, small.mirrored(P), q))


@unrolled
def innovation(y: Any, x: Any, H: Array, shape: Pattern) -> Any:
    """Observation less its prediction, y - H x."""
    seen = small.apply(matrix_at(H, 0, shape), x)
    return tuple(value - expected for value, expected in zip(y, seen, strict=True))


@unrolled
def _update(
    x: Any, P: Any, y: Any, e: Any, H: Array, R: Array, H_shape: Pattern, R_shape: Pattern,
    is_joseph: Any, may_miss: Any,
) -> Any:  # fmt: skip
    """small.update for triangles of covariances."""
    x, P, squared, determinant = small.update(
        x, small.mirrored(P), y, e, matrix_at(H, 0, H_shape), matrix_at(R, 0, R_shape),
        is_joseph=is_joseph, may_miss=may_miss,
    )  # fmt: skip
    return x, small.triangle(P), squared, determinant


@njit(cache=True, nogil=True, inline="always")
def correct(
    x: Any, P: Any, y: Any, e: Any, H: Array, R: Array, H_shape: Pattern, R_shape: Pattern,
    is_joseph: Any,
) -> Any:  # fmt: skip
    """Mean and triangle after an observation, nis and det, with the rows that came."""
    if np.isnan(total(y)):
        return _update(x, P, y, e, H, R, H_shape, R_shape, is_joseph, (None,))
    return _update(x, P, y, e, H, R, H_shape, R_shape, is_joseph, ())


@njit(cache=True, nogil=True)
def _linear_small(
    observations: Array, F: Array, Q: Array, H: Array, R: Array, mean: Array, covariance: Array,
    F_shape: Pattern, H_shape: Pattern, R_shape: Pattern, is_joseph: Any, estimates: Array,
    covariances: Array, innovations: Array, nis: Array, det: Array,
) -> int:  # fmt: skip
    x, P = load_row(mean, 0, F_shape), load_triangle(covariance, 0, F_shape)
    steps = observations.shape[0]
    for i in range(steps):
        at = i if F.shape[0] > 1 else 0
        x, P = predict(x, P, F, Q, at, F_shape)
        y = load_row(observations, i, H_shape)
        e = innovation(y, x, H, H_shape)
        store_row(innovations, i, e)
        x, P, squared, determinant = correct(x, P, y, e, H, R, H_shape, R_shape, is_joseph)
        if not squared < np.inf:
            steps = i
            break
        store_row(estimates, i, x)
        if covariances.shape[0]:
            store_triangle(covariances, i, P)
        nis[i] = squared
        det[i] = determinant
    store_row(mean, 0, x)
    store_triangle(covariance, 0, P)
    return int(steps)


# --- On arrays ------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def correct_mean(
    L: Array, rows: Array, y: Array, e: Array, mean: Array, scratch: Array
) -> tuple[float, float]:
    """Add K e to the mean (n,); returns nis and det.

    L        (k, k)  root of the innovation covariance
    rows     (k, k)  L^-1 H P
    y, e     (m,)    observation, NaN where missing; innovation
    scratch  (k, k)  its first row is written
    """
    one = mean.dtype.type(1.0)  # sums stay in the dtype of the arrays
    nis, det = one - one, one
    for i in range(e.size):  # L^-1 e
        value = one - one if np.isnan(y[i]) else e[i]
        for j in range(i):
            value -= L[i, j] * scratch[0, j]
        value /= L[i, i]
        scratch[0, i] = value
        nis += value * value
        det *= L[i, i] * L[i, i]
        for j in range(mean.size):
            mean[j] += rows[i, j] * value
    return nis, det


@njit(cache=True, nogil=True)
def seen_covariance(y: Array, H: Array, R: Array, P: Array, work: Array) -> None:
    """Write S = H P H' + R of the rows that came, that of others being 1, and what it is made of.

    y     (m,)  observation; rows that are NaN are dropped
    work  (5, k, k)  written: H, R, S and H P of the rows that came
    """
    m, n = H.shape
    kept, noise, S, rows = work[0], work[1], work[2], work[3]
    for i in range(m):
        there = not np.isnan(y[i])
        for j in range(n):
            kept[i, j] = H[i, j] if there else 0.0
        for j in range(m):
            if there and not np.isnan(y[j]):
                noise[i, j] = R[i, j]
            else:
                noise[i, j] = 1.0 if i == j else 0.0
    matrices.sandwich(kept, P, noise, m, n, rows, S)


@njit(cache=True, nogil=True)
def correct_arrays(
    y: Array, e: Array, H: Array, R: Array, is_joseph: bool, mean: Array, P: Array, work: Array
) -> tuple[float, float]:
    """Correct mean (n,) and P in place; returns nis and det, NaN where S is not positive.

    y     (m,)  observation; rows that are NaN are dropped
    e     (m,)  innovation
    work  (5, k, k) with k >= n, m; of Joseph's form it ends with I - K H, K' and K R K' in its
          last three
    """
    n, m = mean.size, e.size
    kept, noise, S, rows, scratch = work[0], work[1], work[2], work[3], work[4]
    seen_covariance(y, H, R, P, work)
    if not matrices.cholesky(S, m, S):
        return np.nan, np.nan
    matrices.solve_lower(S, m, rows, n)  # L^-1 H P
    nis, det = correct_mean(S, rows, y, e, mean, scratch)
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
def store(mean: Array, P: Array, i: int, estimates: Array, covariances: Array) -> None:
    """Put a mean and a covariance into row i."""
    for j in range(mean.size):
        estimates[i, j] = mean[j]
        if covariances.shape[0]:
            for k in range(mean.size):
                covariances[i, j, k] = P[j, k]


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
        if not squared < np.inf:
            return i
        nis[i], det[i] = squared, determinant
        store(x, P, i, estimates, covariances)
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

    Raises ValueError for arrays of other shapes or dtypes.
    """
    n, m = expect_linear(observations, F, Q, H, R, mean, covariance, out)
    given = (observations, F, Q, H[None], R[None], mean[None], covariance[None])
    if max(n, m) <= SMALL:
        shapes = shape_of(F), pattern(H), pattern(R, has_ones=False)
        return int(_linear_small(*given, *shapes, flag(is_joseph), *out))
    work = np.empty((5, max(n, m), max(n, m)), mean.dtype)
    return int(_linear_large(*given, is_joseph, work, *out))


def shape_of(F: Array) -> Pattern:
    """The pattern of a matrix that stays; of one that changes nothing is known."""
    return pattern(F[0]) if len(F) == 1 else dense(*F.shape[1:])
