"""How loud the noise of observations is, told from the observations alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import extended_kalman
from blocks.kernels.kalman import Track
from blocks.kernels.state_space import StateSpace

Array = np.ndarray[Any, Any]

#: Levels of R beside that of the model that are tried, in dB; Q stays, so these are ratios.
LEVELS_DB = tuple(range(-30, 33, 3))


class Noise(NamedTuple):
    """What noise makes observations most likely.

    ratio       of R to the model's, given the model's Q: what the gain of a filter depends on
    level       of both R and Q to that: what remains of the size of the innovations
    likelihood  mean per observation [nat], up to a constant that is the same for all
    """

    ratio: float
    level: float
    likelihood: float

    @property
    def noise_db(self) -> float:
        """How much louder the noise of the observations is than the model says [dB]."""
        return 10.0 * math.log10(self.ratio * self.level)


def louder(model: StateSpace, ratio: float) -> StateSpace:
    """The model with the noise of its observations so many times as large."""
    return replace(model, R=ratio * model.R)


def estimated(
    model: StateSpace, observations: Array, intervals: Array, mean: Array, covariance: Array
) -> Noise | None:
    """The most likely noise by an extended Kalman filter; None where it tells none.

    Where R and Q are both scaled, the gains stay and the innovations with them, so the likelihood
    of the scale has its greatest in closed form: the mean NIS per row. Over the ratio of the two
    it is looked for at LEVELS_DB, and between the best and its neighbours along a parabola.

    observations  (time, n)  NaN where nothing came
    mean          (m,)       where the filter stands before them
    covariance    (m, m)     likewise
    """
    rows = int((~np.isnan(observations)).sum())
    if not rows:
        return None
    found = [
        _likelihood(model, 10.0 ** (0.1 * level), observations, intervals, mean, covariance, rows)
        for level in LEVELS_DB
    ]
    heights = np.array([-math.inf if one is None else one.likelihood for one in found])
    best = int(heights.argmax())
    if found[best] is None:
        return None
    ratio = 10.0 ** (0.1 * highest(LEVELS_DB, heights))
    between = _likelihood(model, ratio, observations, intervals, mean, covariance, rows)
    return found[best] if between is None else between


def highest(levels: Sequence[float], heights: Array) -> float:
    """Where heights at even levels are greatest: between the best and its neighbours a parabola."""
    best = int(heights.argmax())
    level = float(levels[best])
    if 0 < best < len(heights) - 1 and np.isfinite(heights[best - 1 : best + 2]).all():
        left, middle, right = heights[best - 1 : best + 2]
        bent = left - 2.0 * middle + right
        if bent < 0.0:
            level += 0.5 * (left - right) / bent * (levels[1] - levels[0])
    return level


def _likelihood(
    model: StateSpace, ratio: float, observations: Array, intervals: Array, mean: Array,
    covariance: Array, rows: int,
) -> Noise | None:  # fmt: skip
    out = Track.empty(observations.shape[:1], model.size, model.rows)
    done = extended_kalman.extended(
        louder(model, ratio), observations, intervals, mean.copy(), covariance.copy(), out
    )
    if done < len(observations):
        return None
    level = float(out.nis.sum()) / rows
    if not 0.0 < level < math.inf:
        return None
    height = -0.5 * (rows * math.log(level) + float(np.log(out.det).sum())) / len(observations)
    return Noise(ratio, level, height) if math.isfinite(height) else None
