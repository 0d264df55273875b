"""The bootstrap particle filter.

Gordon, Salmond, Smith, "Novel approach to nonlinear/non-Gaussian Bayesian state estimation", IEE
Proc. F 140(2), 1993, with systematic resampling (Kitagawa, 1996) when the weights are worth too few
particles. Random numbers are found by their place (kernels/counted.py), so the result does not
depend on how a stream is cut.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import matrices
from blocks.kernels.caching import njit
from blocks.kernels.counted import normal, normals, uniform
from blocks.kernels.indirect import call_advance, call_noise, call_observe
from blocks.kernels.kalman import SMALL
from blocks.kernels.state_space import StateSpace, wrapped

Array = np.ndarray[Any, Any]


class Cloud(NamedTuple):
    """What a particle filter writes: fields of a Kalman filter, and what the weights are worth."""

    estimates: Array
    covariances: Array
    innovations: Array
    nis: Array
    log_likelihood: Array
    effective_size: Array

    @classmethod
    def empty(cls, shape: tuple[int, ...], n: int, m: int) -> Cloud:
        """Room for observations of this shape, (time,) or (track, time)."""
        return cls(
            np.empty((*shape, n)), np.empty((*shape, n, n)), np.empty((*shape, m)),
            np.empty(shape), np.empty(shape), np.empty(shape),
        )  # fmt: skip

    def of(self, track: int) -> Cloud:
        """That of one track."""
        return Cloud(*(array[track] for array in self))


@njit(cache=True, nogil=True)
def _scatter(key: Any, first: int, mean: Array, root: Array, particles: Array) -> None:
    n = mean.size
    for k in range(particles.shape[0]):
        for j in range(n):
            particles[k, j] = mean[j]
        for q in range(n):
            z = normal(key, np.uint64(first + k * n + q))
            for j in range(q, n):
                particles[k, j] += root[j, q] * z


@njit(cache=True, nogil=True)
def _resample(weights: Array, offset: float, particles: Array, spare: Array) -> None:
    """Systematic: copy each particle as often as its weight says, to within one."""
    count, n = particles.shape
    source, reached = 0, weights[0]
    for k in range(count):
        point = (k + offset) / count
        while reached < point and source < count - 1:
            source += 1
            reached += weights[source]
        for j in range(n):
            spare[k, j] = particles[source, j]
    for k in range(count):
        weights[k] = 1.0 / count
        for j in range(n):
            particles[k, j] = spare[k, j]


@njit(cache=True, nogil=True)
def _bootstrap(
    key: Any, first: int, observations: Array, intervals: Array, advance: Any, noise: Any,
    parameters: Array, observe: Any, observe_parameters: Array, angles: Array, R: Array,
    threshold: float, shrink: float, particles: Array, weights: Array, spare: Array, drawn: Array,
    log_p: Array, Q: Array, work: Array, x: Array, moved: Array, h: Array, pivot: Array,
    estimates: Array, covariances: Array, innovations: Array, nis: Array, log_likelihood: Array,
    effective_size: Array, state: Any, row: Any,
) -> int:  # fmt: skip
    # of tuples the lengths are known while compiling, so that short loops unroll
    count, n, m = particles.shape[0], len(state), len(row)
    Q_root, R_root, S, e = work[0], work[1], work[2], work[3]
    stride = 2 * count * n + 1  # random numbers that belong to a step
    last = np.nan
    for i in range(observations.shape[0]):
        if intervals[i] != last:
            last = intervals[i]
            call_noise(noise, last, parameters, Q)
            if not matrices.root(Q, n, Q_root):
                return i
        place = (first + i) * stride
        rows = 0
        for a in range(m):
            rows += not np.isnan(observations[i, a])
            for b in range(m):
                both = not (np.isnan(observations[i, a]) or np.isnan(observations[i, b]))
                R_root[a, b] = R[a, b] if both else (1.0 if a == b else 0.0)
        if not matrices.cholesky(R_root, m, R_root):
            return i
        constant = -0.5 * rows * np.log(2.0 * np.pi)
        for a in range(m):
            constant -= np.log(R_root[a, a])
        for a in range(m):
            e[2, a] = 1.0 / R_root[a, a]
            e[1, a] = 0.0  # sums of the deviations from what the first particle would see
            for b in range(a + 1):
                S[a, b] = 0.0
        # propagate, and weigh by what was seen
        normals(key, np.uint64(place), spare.reshape(-1), drawn)
        best = -np.inf
        for k in range(count):
            for j in range(n):
                x[j] = particles[k, j]
            call_advance(advance, x, last, parameters, moved)
            for q in range(n):
                if Q_root[q, q] > 0.0:
                    z = drawn[k * n + q]
                    for j in range(q, n):
                        moved[j] += Q_root[j, q] * z
            for j in range(n):
                particles[k, j] = moved[j]
            call_observe(observe, moved, observe_parameters, h)
            squared = 0.0
            for a in range(m):
                if k == 0:
                    pivot[a] = h[a]
                off = h[a] - pivot[a]
                off = wrapped(off) if angles[a] else off
                value = observations[i, a] - h[a]
                value = wrapped(value) if angles[a] else value
                value = 0.0 if np.isnan(observations[i, a]) else value
                h[a] = off
                e[1, a] += weights[k] * off
                for b in range(a + 1):
                    S[a, b] += weights[k] * off * h[b]
                for b in range(a):
                    value -= R_root[a, b] * e[0, b]
                value *= e[2, a]
                e[0, a] = value
                squared += value * value
            log_p[k] = -0.5 * squared
            if weights[k] > 0.0:
                best = max(best, log_p[k])
        if not best > -np.inf:
            return i
        # innovation of the cloud as a whole
        for a in range(m):
            value = observations[i, a] - pivot[a] - e[1, a]
            innovations[i, a] = wrapped(value) if angles[a] else value
        for a in range(m):
            for b in range(a + 1):
                both = not (np.isnan(observations[i, a]) or np.isnan(observations[i, b]))
                value = R[a, b] + S[a, b] - e[1, a] * e[1, b]
                S[a, b] = value if both else (1.0 if a == b else 0.0)
        matrices.cholesky(S, m, S)
        squared = 0.0
        for a in range(m):
            value = 0.0 if np.isnan(observations[i, a]) else innovations[i, a]
            for b in range(a):
                value -= S[a, b] * e[0, b]
            value /= S[a, a]
            e[0, a] = value
            squared += value * value
        nis[i] = squared
        # weights and mean
        total = 0.0
        for j in range(n):
            x[j] = 0.0
        for k in range(count):
            weight = weights[k] * np.exp(log_p[k] - best)
            weights[k] = weight
            total += weight
            for j in range(n):
                x[j] += weight * particles[k, j]
        log_likelihood[i] = constant + best + np.log(total)
        for j in range(n):
            x[j] /= total
            estimates[i, j] = x[j]
            for q in range(n):
                S[j, q] = 0.0
        # their squares, and covariance
        squares = 0.0
        for k in range(count):
            weight = weights[k] / total
            weights[k] = weight
            squares += weight * weight
            for a in range(n):
                moved[a] = particles[k, a] - x[a]
                for b in range(a + 1):
                    S[a, b] += weight * moved[a] * moved[b]
        effective_size[i] = 1.0 / squares
        for a in range(n):
            for b in range(n):
                covariances[i, a, b] = S[max(a, b), min(a, b)]
        if effective_size[i] < threshold * count:
            offset = uniform(key, np.uint64(place + 2 * count * n))
            _resample(weights, offset, particles, spare)
            if shrink < 1.0 and matrices.root(covariances[i], n, S):
                width = np.sqrt(1.0 - shrink * shrink)
                normals(key, np.uint64(place + count * n), spare.reshape(-1), drawn)
                for k in range(count):
                    for j in range(n):
                        particles[k, j] = (
                            shrink * particles[k, j] + (1.0 - shrink) * estimates[i, j]
                        )
                    for q in range(n):
                        z = width * drawn[k * n + q]
                        for j in range(q, n):
                            particles[k, j] += S[j, q] * z
    return int(observations.shape[0])


def scatter(model: StateSpace, key: int, track: int, count: int) -> tuple[Array, Array]:
    """Particles (count, n) drawn from the initial distribution, and their equal weights (count,).

    key    of the random numbers; others than those of `bootstrap`
    track  which start this is
    """
    particles, root = np.empty((count, model.size)), np.empty((model.size, model.size))
    if not matrices.root(model.initial_covariance, model.size, root):
        raise ValueError("the initial covariance is not positive")
    _scatter(np.uint64(key), track * count * model.size, model.initial, root, particles)
    return particles, np.full(count, 1.0 / count)


def bootstrap(
    model: StateSpace, key: int, first: int, observations: Array, intervals: Array,
    particles: Array, weights: Array, out: Cloud, *, threshold: float = 0.5, shrink: float = 1.0,
) -> int:  # fmt: skip
    """The particle filter over one track; returns how many steps it did.

    key           of the random numbers
    first         number of the first observation, which is the place of its random numbers
    observations  (time, m)
    intervals     (time,)      time since the observation before [s]
    particles     (count, n)   replaced
    weights       (count,)     replaced; they sum to one
    threshold     resample below this part of `count` effective particles
    shrink        after resampling, pull particles towards their mean by this factor and spread
                  them by as much as that took (Liu and West, in "Sequential Monte Carlo Methods in
                  Practice", 2001), so that they differ even without process noise; 1: not
    """
    count, n, m = len(particles), model.size, model.rows
    side = max(n, m, 3)  # `work` holds three rows of scratch
    return int(
        _bootstrap(
            np.uint64(key),
            first,
            observations,
            intervals,
            model.advance,
            model.noise,
            model.parameters,
            model.observe,
            model.observe_parameters,
            model.angles,
            model.R,
            threshold,
            shrink,
            particles,
            weights,
            np.empty_like(particles),
            np.empty(particles.size),
            np.empty(count),
            np.empty((n, n)),
            np.empty((4, side, side)),
            np.empty(n),
            np.empty(n),
            np.empty(m),
            np.empty(m),
            *out,
            *(((0.0,) * n, (0.0,) * m) if max(n, m) <= SMALL else (np.empty(n), np.empty(m))),
        )
    )
