"""The Kalman filter over many tracks of one system, LANES at a time in vector registers."""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.kernels import small
from blocks.kernels.caching import njit
from blocks.kernels.kalman import SMALL, Track, expect_linear, flag, linear, shape_of
from blocks.kernels.registers import Pattern, dense, matrix_at, pattern
from blocks.kernels.traced import LANES
from blocks.kernels.unrolled import lanes, load_rows, put_lanes, store_rows, unrolled

Array = np.ndarray[Any, Any]


@unrolled
def _step(
    observations: Array, first: int, t: int, F: Array, Q: Array, at: int, H: Array, R: Array,
    mean: Array, covariance: Array, F_shape: Pattern, H_shape: Pattern, R_shape: Pattern,
    is_joseph: Any, may_miss: Any, keep: Any, estimates: Array, covariances: Array,
    innovations: Array, nis: Array, det: Array,
) -> Any:  # fmt: skip
    """Step t of the tracks from `first` on.

    mean (n, LANES), covariance (n, n, LANES)  replaced; below the diagonal
    keep                                       whether covariances are written
    """
    n, m = len(F_shape), len(H_shape)
    f, q = matrix_at(F, at, F_shape), matrix_at(Q, at, dense(n, n))
    h, r = matrix_at(H, 0, H_shape), matrix_at(R, 0, R_shape)
    x = small.apply(f, tuple(lanes(mean, i) for i in range(n)))
    P = small.sandwich(f, small.symmetric(n, lambda i, j: lanes(covariance, i, j)), q)
    y = load_rows(observations, m, first, t)
    e = tuple(value - seen for value, seen in zip(y, small.apply(h, x), strict=True))
    store_rows(innovations, e, first, t)
    x, P, squared, determinant = small.update(
        x, P, y, e, h, r, is_joseph=is_joseph, may_miss=may_miss
    )
    for i in range(n):
        put_lanes(mean, x[i], i)
        for j in range(i + 1):
            put_lanes(covariance, P[i][j], i, j)
    store_rows(estimates, x, first, t)
    if keep:
        store_rows(covariances, sum(P, ()), first, t)
    store_rows(nis, (squared,), first, t)
    store_rows(det, (determinant,), first, t)


@njit(cache=True, nogil=True)
def _linear_lanes(
    observations: Array, F: Array, Q: Array, H: Array, R: Array, means: Array, covariances0: Array,
    mean: Array, covariance: Array, F_shape: Pattern, H_shape: Pattern, R_shape: Pattern,
    is_joseph: Any, keep: Any, out: Any, done: Array,
) -> None:  # fmt: skip
    nis = out[3]
    tracks, steps, rows = observations.shape
    states = means.shape[1]
    for first in range(0, tracks, LANES):
        for lane in range(LANES):
            for i in range(states):
                mean[i, lane] = means[first + lane, i]
                for j in range(i + 1):
                    covariance[i, j, lane] = covariances0[first + lane, i, j]
        for t in range(steps):
            at = t if F.shape[0] > 1 else 0
            total = observations[first, t, 0]
            for lane in range(LANES):
                for i in range(rows):
                    total += observations[first + lane, t, i]
            if np.isnan(total):
                _step(
                    observations, first, t, F, Q, at, H, R, mean, covariance, F_shape, H_shape,
                    R_shape, is_joseph, (None,), keep, *out,
                )  # fmt: skip
            else:
                _step(
                    observations, first, t, F, Q, at, H, R, mean, covariance, F_shape, H_shape,
                    R_shape, is_joseph, (), keep, *out,
                )  # fmt: skip
        for lane in range(LANES):
            track = first + lane
            done[track] = steps
            for t in range(steps):
                if not nis[track, t, 0] < np.inf:
                    done[track] = t
                    break
            for i in range(states):
                means[track, i] = mean[i, lane]
                for j in range(i + 1):
                    covariances0[track, i, j] = covariance[i, j, lane]
                    covariances0[track, j, i] = covariance[i, j, lane]


def linear_tracks(
    observations: Array, F: Array, Q: Array, H: Array, R: Array, means: Array, covariances: Array,
    out: Track, *, is_joseph: bool = True,
) -> Array:  # fmt: skip
    """The Kalman filter over many tracks of one system; returns the steps done for each.

    As `linear`, with one more axis in front: observations (track, time, m), means (track, n),
    covariances (track, n, n). What comes out differs from `linear` by rounding, and does not depend
    on the other tracks.
    """
    n, m = expect_linear(observations, F, Q, H, R, means, covariances, out)
    tracks = len(means)
    done = np.zeros(tracks, np.int64)
    if max(n, m) > SMALL:
        for track in range(tracks):
            done[track] = linear(
                observations[track], F, Q, H, R, means[track], covariances[track], out.of(track),
                is_joseph=is_joseph,
            )  # fmt: skip
        return done
    whole = tracks - tracks % LANES
    if whole:
        first = slice(whole)
        _lanes(
            observations[first], F, Q, H, R, means[first], covariances[first], out.of(first),
            is_joseph, done[first],
        )  # fmt: skip
    if whole < tracks:
        # the last one fills up the lanes that have no track
        rest, there = slice(whole, tracks), np.minimum(np.arange(whole, whole + LANES), tracks - 1)
        filled = Track(*(array[there] for array in out))
        mean, covariance, steps = means[there], covariances[there], np.zeros(LANES, np.int64)
        _lanes(observations[there], F, Q, H, R, mean, covariance, filled, is_joseph, steps)
        for whole_array, part in zip(
            (means, covariances, done, *out), (mean, covariance, steps, *filled), strict=True
        ):
            whole_array[rest] = part[: tracks - whole]
    return done


def _lanes(
    observations: Array, F: Array, Q: Array, H: Array, R: Array, means: Array, covariances: Array,
    out: Track, is_joseph: bool, done: Array,
) -> None:  # fmt: skip
    n, dtype = means.shape[1], means.dtype
    shapes = shape_of(F), pattern(H), pattern(R, has_ones=False)
    spread, kept = out.covariances, flag(out.covariances.shape[1] > 0)
    _linear_lanes(
        observations, F, Q, H[None], R[None], means, covariances, np.empty((n, LANES), dtype),
        np.empty((n, n, LANES), dtype), *shapes, flag(is_joseph), kept,
        (out.estimates, spread.reshape(*spread.shape[:2], n * n), out.innovations,
         out.nis[..., None], out.det[..., None]), done,
    )  # fmt: skip
