"""One aircraft: what a report of position, velocity, altitude or climb does to its track.

A track's place is a latitude and a longitude. Its states (kernels/imm.py) are measured from there,
east and north; with each report place and axes move along with the aircraft, so that no distance
is long, and a pole or the date line is a place like any other. Altitude and climb are a
constant-velocity filter of their own.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

import numpy as np

from blocks.kernels import geodesy, imm
from blocks.kernels.caching import njit

Array = np.ndarray[Any, Any]


class Quantity(IntEnum):
    """What a report may tell."""

    POSITION = 0
    VELOCITY = 1
    ALTITUDE = 2
    CLIMB = 3


class Status(IntEnum):
    """What a row of the tracker tells of its track."""

    STARTED = 0
    UPDATED = 1  # something of the report was taken
    REFUSED = 2  # nothing was: too far from what was predicted
    RESTARTED = 3  # begun anew at a report, after a run of refused ones
    COASTING = 4  # no position came for long
    ENDED = 5  # nor did one since


#: How many numbers each quantity has.
DEGREES = (2, 2, 1, 1)
#: What a report tells: degrees, degrees, m/s east and north, m, m/s; NaN where it does not.
LATITUDE, LONGITUDE, EASTWARD, NORTHWARD, HEIGHT, CLIMB = range(6)
LOG_2PI = math.log(2.0 * math.pi)
#: The places of innovations.
EAST, NORTH, UP, VELOCITY_EAST, VELOCITY_NORTH, VELOCITY_UP = range(6)
#: Places of `settings`.
MEMORY, LONGEST, TIME_VARIANCE, TAIL, CLIMB_NOISE, CLIMB_VARIANCE = range(6)


@njit(cache=True, nogil=True)
def begin(
    latitude: float, longitude: float, time: float, eastward: float, northward: float,
    position_variance: float, velocity_variance: float, model: Array, place: Array,
    probabilities: Array, means: Array, covariances: Array,
) -> None:  # fmt: skip
    """A track that is at a place and moves so [m/s], in whatever mode; in variances per axis."""
    place[0], place[1], place[2] = latitude, longitude, time
    means[:] = 0.0
    covariances[:] = 0.0
    for j in range(len(model)):
        probabilities[j] = model[j, imm.SHARE]
        for k in range(2):
            covariances[j, k, k] = position_variance
            covariances[j, 2 + k, 2 + k] = velocity_variance
        means[j, 2], means[j, 3] = eastward, northward
        covariances[j, imm.RATE, imm.RATE] = model[j, imm.TURN_VARIANCE]


@njit(cache=True, nogil=True)
def _improbable(squared: float, degrees: int, tail: float) -> bool:
    """Whether a chi-square number of 1 or 2 degrees of freedom is in the tail."""
    share = math.exp(-0.5 * squared) if degrees == 2 else math.erfc(math.sqrt(0.5 * squared))
    return not share >= tail


@njit(cache=True, nogil=True)
def report(
    time: float, seen: Array, spread: Array, settings: Array, model: Array, place: Array,
    probabilities: Array, means: Array, covariances: Array, vertical: Array,
    vertical_covariance: Array, innovation: Array, nis: Array, likely: Array, taken: Array,
    here: Array, mean: Array, covariance: Array, whole: Array, work: Array,
) -> None:  # fmt: skip
    """Move a track on to the time of a report, and take from it what is probable.

    time        [s], not before that of the track
    seen        (6,)  what is told
    spread      (7,)  variances of it, of the position in m^2; last the covariance of the velocity
                      east and north
    settings    (6,)  mean time until the mode is forgotten [s]; longest step of a prediction [s];
                      variance of the times [s^2]; share of true reports that may be refused;
                      density of the vertical acceleration [m^2/s^3]; variance of an unknown climb
    place       (3,)  latitude, longitude, time; moved to what is predicted, so that a velocity told
                      against north is taken against the same north
    vertical    (2,)  height and climb; a height of NaN: not known
    innovation  (6,)  written: report less prediction, NaN where nothing was told
    nis         (4,)  written: normalised innovation squared of each quantity
    likely      (4,)  written: log-density of each quantity [nat]
    taken       (4,)  written: 1 where the track took it; 0: improbable, or nothing was told
    here        (2,)  written: latitude, longitude
    mean        (5,)  written: of all modes together, measured from `place`
    covariance  (5, 5)  written
    whole       (6, 6)  written: the same of position and velocity, with the vertical ones
    work        (6, 5, 5), and not fewer than imm.mix wants

    A report comes a little before or after its time, so that a fast aircraft is seen off along its
    way, and a velocity along its change.
    """
    innovation[:] = np.nan
    nis[:] = np.nan
    likely[:] = np.nan
    taken[:] = 0
    interval = max(time - place[2], 0.0)
    imm.predict(
        interval, settings[LONGEST], model, settings[MEMORY], probabilities, means, covariances,
        work,
    )  # fmt: skip
    place[2] += interval
    imm.combine(probabilities, means, covariances, mean, covariance)
    height = 0.0 if np.isnan(vertical[0]) else vertical[0]
    place[0], place[1], angle = geodesy.moved(place[0], place[1], height, mean[0], mean[1])
    imm.recentre(mean[0], mean[1], angle, means, covariances, work)
    imm.combine(probabilities, means, covariances, mean, covariance)
    y, e, R, S = work[3, 0], work[3, 1], work[4], work[5]
    for quantity in (Quantity.POSITION, Quantity.VELOCITY):
        first = 2 * quantity
        if np.isnan(seen[first]) or np.isnan(seen[first + 1]):
            continue
        if quantity == Quantity.POSITION:
            y[0], y[1] = geodesy.offset(place[0], place[1], seen[0], seen[1], height)
            along = (mean[2], mean[3])
            common = 0.0
        else:
            y[0], y[1] = seen[2], seen[3]
            along = (-mean[imm.RATE] * mean[3], mean[imm.RATE] * mean[2])
            common = spread[6]
        for a in range(2):
            e[a] = y[a] - mean[first + a]
            for b in range(2):
                own = spread[first + a] if a == b else common
                R[a, b] = own + settings[TIME_VARIANCE] * along[a] * along[b]
                S[a, b] = covariance[first + a, first + b] + R[a, b]
            innovation[3 * quantity + a] = e[a]
        det = S[0, 0] * S[1, 1] - S[0, 1] * S[0, 1]
        nis[quantity] = (
            S[1, 1] * e[0] ** 2 - 2.0 * S[0, 1] * e[0] * e[1] + S[0, 0] * e[1] ** 2
        ) / det
        likely[quantity] = -0.5 * (nis[quantity] + math.log(det)) - LOG_2PI
        if _improbable(nis[quantity], 2, settings[TAIL]):
            continue
        taken[quantity] = 1
        imm.update(first, y, R, probabilities, means, covariances, work)
        imm.combine(probabilities, means, covariances, mean, covariance)
    _climb(
        interval, seen, spread, settings, vertical, vertical_covariance, innovation, nis, likely,
        taken,
    )  # fmt: skip
    here[0], here[1], _ = geodesy.moved(place[0], place[1], height, mean[0], mean[1])
    whole[:, :] = 0.0
    for a in range(4):
        for b in range(4):
            whole[a + a // 2, b + b // 2] = covariance[a, b]
    for a in range(2):
        for b in range(2):
            whole[UP + 3 * a, UP + 3 * b] = vertical_covariance[a, b]
    if np.isnan(vertical[0]):
        for a in range(6):
            for b in (UP, VELOCITY_UP):
                whole[a, b] = np.nan
                whole[b, a] = np.nan


@njit(cache=True, nogil=True)
def _climb(
    interval: float, seen: Array, spread: Array, settings: Array, x: Array, P: Array,
    innovation: Array, nis: Array, likely: Array, taken: Array,
) -> None:  # fmt: skip
    """The vertical part of `report`."""
    if np.isnan(x[0]):
        if not np.isnan(seen[HEIGHT]):
            x[0], x[1] = seen[HEIGHT], 0.0
            P[0, 0], P[0, 1], P[1, 0] = spread[HEIGHT], 0.0, 0.0
            P[1, 1] = settings[CLIMB_VARIANCE]
            taken[Quantity.ALTITUDE] = 1
            if not np.isnan(seen[CLIMB]):
                x[1] = seen[CLIMB]
                P[1, 1] = spread[CLIMB]
                taken[Quantity.CLIMB] = 1
        return
    q = settings[CLIMB_NOISE]
    x[0] += interval * x[1]
    P[0, 0] += interval * (2.0 * P[0, 1] + interval * P[1, 1]) + q * interval**3 / 3.0
    P[0, 1] += interval * P[1, 1] + q * interval**2 / 2.0
    P[1, 0] = P[0, 1]
    P[1, 1] += q * interval
    for k in range(2):
        quantity = Quantity.ALTITUDE + k
        if np.isnan(seen[HEIGHT + k]):
            continue
        e = seen[HEIGHT + k] - x[k]
        S = P[k, k] + spread[HEIGHT + k]
        if k == 0:
            S += settings[TIME_VARIANCE] * x[1] * x[1]
        innovation[UP + 3 * k] = e
        nis[quantity] = e * e / S
        likely[quantity] = -0.5 * (nis[quantity] + math.log(S) + LOG_2PI)
        if _improbable(nis[quantity], 1, settings[TAIL]):
            continue
        taken[quantity] = 1
        g0, g1 = P[0, k] / S, P[1, k] / S
        p0, p1 = P[k, 0], P[k, 1]
        x[0] += g0 * e
        x[1] += g1 * e
        P[0, 0] -= g0 * p0
        P[0, 1] -= g0 * p1
        P[1, 0] = P[0, 1]
        P[1, 1] -= g1 * p1
