"""Whether a candidate may replace what serves, told by losses that both have on the same samples.

Losses are -log p(class | sample) [nat], (n,), of samples that neither was trained on.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def excess(candidate: Array, serving: Array) -> float:
    """By how many standard errors the mean loss of the candidate exceeds that of the serving node.

    The samples are paired, so that what is hard for both cancels. Infinity where the candidate's
    losses are not finite or there are fewer than two; minus infinity where only the serving node's
    are not.

    >>> round(excess(np.array([1.0, 2.0, 3.0]), np.array([1.5, 1.0, 1.5])), 4)
    1.1094
    """
    if len(candidate) < 2 or not np.isfinite(candidate).all():
        return math.inf
    if not np.isfinite(serving).all():
        return -math.inf
    difference = candidate - serving
    mean, error = float(difference.mean()), float(difference.std(ddof=1)) / math.sqrt(len(serving))
    if error == 0.0:
        return math.copysign(math.inf, mean) if mean else 0.0
    return mean / error


def agreement(metrics: Array, labels: Array) -> float:
    """How likely a node finds these labels, by rank: 1 if each is the likeliest, 0 by chance.

    Scales of the metrics do not count, so that a node which is too sure of itself is no worse for
    it. NaN where no sample has a label.

    metrics  (time, n_classes)  -log p(sample | class), up to a number that a row shares
    labels   (time,)            class; -1: unknown

    >>> agreement(np.array([[0.1, 0.7, 3.0], [0.9, 0.2, 3.0]]), np.array([0, 1]))
    1.0
    >>> agreement(np.array([[0.1, 0.7, 3.0], [0.9, 0.2, 3.0]]), np.array([1, 2]))
    -0.5
    """
    known = labels >= 0
    if not known.any():
        return math.nan
    metrics = metrics[known]
    own = np.take_along_axis(metrics, labels[known][:, None], axis=1)
    likelier = (metrics < own).sum(axis=1) + 0.5 * ((metrics == own).sum(axis=1) - 1)
    return float(1.0 - 2.0 * likelier.mean() / (metrics.shape[1] - 1))
