"""Interacting multiple models of level motion: straight flight and turns.

Blom, Bar-Shalom, IEEE TAC 33 (1988) 780-783; Bar-Shalom, Li, Kirubarajan, "Estimation with
Applications to Tracking and Navigation", 2001, 11.6.6. A state is (east, north, velocity east,
velocity north, turn rate), in m, m/s and rad/s; every mode moves as the coordinated turn of
kernels/motions.py. A mode whose turn rate is 0 goes straight: the same formulas are then the
constant-velocity filter. Who begins to turn draws the rate from a normal distribution around 0, so
the rate 0 of the straight mode does not pull at the rates of turns that are mixed with it.

probabilities  (K,)       of the modes
means          (K, 5)
covariances    (K, 5, 5)
model          (K, 5)     of each mode, by the columns below
work           (2 K, 5, 5), and at least 3 of them

With one mode this is a Kalman filter.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from blocks.kernels import matrices, motions
from blocks.kernels.caching import njit

Array = np.ndarray[Any, Any]

STATES = 5
RATE = 4  # number of the turn rate in a state
#: Columns of a model: density of the white acceleration [m^2/s^3]; (of no use here); density of
#: the walk of the turn rate [rad^2/s^3]; variance of the rate that a turn begins with, 0: straight
#: [rad^2/s^2]; share of the time that is spent in the mode.
PROCESS_NOISE, STEP, TURN_NOISE, TURN_VARIANCE, SHARE = range(5)
LEAST = 1e-9  # no mode's probability falls below, so that it can come back

_linearise = njit(cache=True, nogil=True)(motions.turn_linearise)
_noise = njit(cache=True, nogil=True)(motions.turn_noise)


@njit(cache=True, nogil=True)
def mix(
    interval: float, model: Array, memory: float, probabilities: Array, means: Array,
    covariances: Array, work: Array,
) -> None:  # fmt: skip
    """Let the modes change over an interval [s]: the step "interaction".

    Which mode it is is forgotten at random, once in `memory` seconds, and drawn anew by SHARE; so
    a mode lasts memory / (1 - its share) on average. With two modes, any chain is of this form.
    """
    count = len(model)
    stays = math.exp(-interval / memory)
    new, spread = work[count : 2 * count], work[:count]
    for j in range(count):
        total = 0.0
        for i in range(count):
            weight = probabilities[i] * (1.0 - stays) * model[j, SHARE]
            if i == j:
                weight += probabilities[i] * stays
            new[i, 1, 0] = weight
            total += weight
        new[j, 2, 0] = total
        for a in range(STATES):
            mean = 0.0
            for i in range(count):
                mean += new[i, 1, 0] / total * means[i, a]
            new[j, 0, a] = mean
        for a in range(STATES):
            for b in range(a + 1):
                value = 0.0
                for i in range(count):
                    value += new[i, 1, 0] / total * (
                        covariances[i, a, b]
                        + (means[i, a] - new[j, 0, a]) * (means[i, b] - new[j, 0, b])
                    )  # fmt: skip
                spread[j, a, b] = value
                spread[j, b, a] = value
        if model[j, TURN_VARIANCE] == 0.0:
            new[j, 0, RATE] = 0.0
            spread[j, RATE, :] = 0.0
            spread[j, :, RATE] = 0.0
        else:
            for i in range(count):
                if model[i, TURN_VARIANCE] == 0.0:
                    spread[j, RATE, RATE] += new[i, 1, 0] / total * model[j, TURN_VARIANCE]
    for j in range(count):
        probabilities[j] = new[j, 2, 0]
        means[j] = new[j, 0]
        covariances[j] = spread[j]


@njit(cache=True, nogil=True)
def advance(interval: float, model: Array, means: Array, covariances: Array, work: Array) -> None:
    """Move each mode on by an interval [s], without changes of mode."""
    F, Q, spare = work[0], work[1], work[2]
    for j in range(len(model)):
        _linearise(means[j], interval, model[j], spare[0], F)
        means[j] = spare[0]
        _noise(interval, model[j], Q)
        matrices.sandwich(F, covariances[j], Q, STATES, STATES, spare, covariances[j])


@njit(cache=True, nogil=True)
def predict(
    interval: float, longest: float, model: Array, memory: float, probabilities: Array,
    means: Array, covariances: Array, work: Array,
) -> None:  # fmt: skip
    """Move on by an interval, in equal steps of at most `longest` seconds."""
    if not interval > 0.0:
        return
    steps = math.ceil(interval / longest)
    for _ in range(steps):
        mix(interval / steps, model, memory, probabilities, means, covariances, work)
        advance(interval / steps, model, means, covariances, work)


@njit(cache=True, nogil=True)
def combine(
    probabilities: Array, means: Array, covariances: Array, mean: Array, covariance: Array
) -> None:
    """Mean (5,) and covariance (5, 5) of the mixture, written."""
    mean[:] = 0.0
    for j in range(len(probabilities)):
        for a in range(STATES):
            mean[a] += probabilities[j] * means[j, a]
    for a in range(STATES):
        for b in range(a + 1):
            value = 0.0
            for j in range(len(probabilities)):
                value += probabilities[j] * (
                    covariances[j, a, b] + (means[j, a] - mean[a]) * (means[j, b] - mean[b])
                )
            covariance[a, b] = value
            covariance[b, a] = value


@njit(cache=True, nogil=True)
def update(
    first: int, seen: Array, noise: Array, probabilities: Array, means: Array, covariances: Array,
    work: Array,
) -> None:  # fmt: skip
    """Take an observation of two numbers of the state, `first` and the one after it.

    seen   (2,)
    noise  (2, 2)  its covariance
    """
    likely, gain = work[0, 0], work[1]  # log-likelihoods; (5, 2)
    most = -math.inf
    for j in range(len(probabilities)):
        P, x = covariances[j], means[j]
        s00 = P[first, first] + noise[0, 0]
        s01 = P[first, first + 1] + noise[0, 1]
        s11 = P[first + 1, first + 1] + noise[1, 1]
        det = s00 * s11 - s01 * s01
        e0, e1 = seen[0] - x[first], seen[1] - x[first + 1]
        squared = (s11 * e0 * e0 - 2.0 * s01 * e0 * e1 + s00 * e1 * e1) / det
        likely[j] = math.log(probabilities[j]) - 0.5 * (squared + math.log(det))
        most = max(most, likely[j])
        for a in range(STATES):
            p0, p1 = P[a, first], P[a, first + 1]
            gain[a, 0] = (p0 * s11 - p1 * s01) / det
            gain[a, 1] = (p1 * s00 - p0 * s01) / det
            work[2, a, 0], work[2, a, 1] = p0, p1
            x[a] += gain[a, 0] * e0 + gain[a, 1] * e1
        for a in range(STATES):
            for b in range(a + 1):
                P[a, b] -= gain[a, 0] * work[2, b, 0] + gain[a, 1] * work[2, b, 1]
                P[b, a] = P[a, b]
    total = 0.0
    for j in range(len(probabilities)):
        probabilities[j] = max(math.exp(likely[j] - most), LEAST)
        total += probabilities[j]
    for j in range(len(probabilities)):
        probabilities[j] /= total


@njit(cache=True, nogil=True)
def recentre(
    east: float, north: float, angle: float, means: Array, covariances: Array, work: Array
) -> None:
    """Measure from another origin, against axes turned clockwise by `angle` [rad]."""
    G, none, spare = work[0], work[1], work[2]
    none[:, :] = 0.0
    G[:, :] = 0.0
    c, s = math.cos(angle), math.sin(angle)
    for k in (0, 2):
        G[k, k], G[k, k + 1], G[k + 1, k], G[k + 1, k + 1] = c, -s, s, c
    G[RATE, RATE] = 1.0
    for j in range(len(means)):
        means[j, 0] -= east
        means[j, 1] -= north
        for k in (0, 2):
            x, y = means[j, k], means[j, k + 1]
            means[j, k], means[j, k + 1] = c * x - s * y, s * x + c * y
        matrices.sandwich(G, covariances[j], none, STATES, STATES, spare, covariances[j])
