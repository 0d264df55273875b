"""How far estimates are from the truth, and whether their covariances say so.

Bar-Shalom, Li, Kirubarajan, "Estimation with Applications to Tracking and Navigation", 2001, 5.4.
The sums run over the steps in their order, so they do not depend on how a stream was cut.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from blocks.kernels import matrices
from blocks.kernels.caching import njit

Array = np.ndarray[Any, Any]

#: What each place of the sums holds.
STEPS, SQUARED, POSITION, NEES_STEPS, NEES, NEES_SQUARED, NEES_PAIRS, NEES_PRODUCT, NEES_LAST, \
    NIS_STEPS, NIS, NIS_DEGREES = range(12)  # fmt: skip
SUMS = 12


@njit(cache=True, nogil=True)
def add_errors(
    states: Array, estimates: Array, covariances: Array, positions: int, first: int, piece: int,
    sums: Array, part: Array, pieces: Array, work: Array,
) -> int:  # fmt: skip
    """Add the steps of one trajectory from `first` on; returns how many pieces were completed.

    states       (time, k)     truth
    estimates    (time, k)
    covariances  (time, k, k)  or length 0 where there are none; a singular one is left out
    positions    leading numbers of the state that are a position
    piece        steps that make a trajectory, counted from the start of the stream; 0: no pieces
    sums         (SUMS,)       added to
    part         (1,)          squared error of the piece that is under way
    pieces       (n,)          mean squared error of each piece completed
    work         (2, k, k)
    """
    k = states.shape[1]
    L, e = work[0], work[1]
    done = 0
    for i in range(first, states.shape[0]):
        squared = 0.0
        for j in range(k):
            e[j, 0] = estimates[i, j] - states[i, j]
            squared += e[j, 0] * e[j, 0]
            if j == positions - 1:
                sums[POSITION] += squared
        sums[STEPS] += 1.0
        sums[SQUARED] += squared
        if piece:
            part[0] += squared
            if int(sums[STEPS]) % piece == 0:
                pieces[done] = part[0] / (piece * k)
                part[0] = 0.0
                done += 1
        if covariances.shape[0] and matrices.cholesky(covariances[i], k, L):
            matrices.solve_lower(L, k, e, 1)
            value = 0.0
            for j in range(k):
                value += e[j, 0] * e[j, 0]
            if not np.isnan(sums[NEES_LAST]):
                sums[NEES_PAIRS] += 1.0
                sums[NEES_PRODUCT] += value * sums[NEES_LAST]
            sums[NEES_STEPS] += 1.0
            sums[NEES] += value
            sums[NEES_SQUARED] += value * value
            sums[NEES_LAST] = value
        else:
            sums[NEES_LAST] = np.nan
    return done


@njit(cache=True, nogil=True)
def add_innovations(innovations: Array, nis: Array, first: int, sums: Array) -> None:
    """Add the steps of one trajectory from `first` on.

    innovations  (time, m)  NaN where nothing came
    nis          (time,)    NaN where a tracker knows none, which is left out
    """
    for i in range(first, nis.size):
        degrees = 0
        for j in range(innovations.shape[1]):
            degrees += not np.isnan(innovations[i, j])
        if degrees and not np.isnan(nis[i]):
            sums[NIS_STEPS] += 1.0
            sums[NIS] += nis[i]
            sums[NIS_DEGREES] += degrees


def chi_square_quantile(probability_z: float, degrees: float) -> float:
    """The point of a chi-square distribution below which a standard normal z would lie.

    Wilson and Hilferty, PNAS 17 (1931): at z of 2 or less within 5 % from 5 degrees on, and
    within 0.5 % from 20.

    >>> round(chi_square_quantile(1.959964, 100.0), 1)  # 129.56
    129.6
    """
    spread = 2.0 / (9.0 * degrees)
    return float(degrees * max(0.0, 1.0 - spread + probability_z * math.sqrt(spread)) ** 3)


def band(degrees_per_step: float, steps: float) -> tuple[float, float]:
    """Where 95 % of the means of `steps` independent chi-square numbers lie, (low, high)."""
    z, degrees = 1.959963984540054, degrees_per_step * steps
    return (
        chi_square_quantile(-z, degrees) / steps,
        chi_square_quantile(z, degrees) / steps,
    )


def independent_steps(sums: Array) -> float:
    """How many independent numbers the NEES of these steps is worth.

    The error of a filter lasts, so that its NEES is correlated from step to step; with a
    correlation of r between neighbours, N steps are worth N (1 - r) / (1 + r).
    """
    steps, pairs = sums[NEES_STEPS], sums[NEES_PAIRS]
    if pairs < 2 or steps < 2:
        return max(float(steps), 1.0)
    mean = sums[NEES] / steps
    variance = sums[NEES_SQUARED] / steps - mean * mean
    if not variance > 0.0:
        return max(float(steps), 1.0)
    r = min(max((sums[NEES_PRODUCT] / pairs - mean * mean) / variance, 0.0), 0.999)
    return float(max(steps * (1.0 - r) / (1.0 + r), 1.0))
