"""Branch metrics of samples from a channel with known taps; see trellis.py for the numbering."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from blocks.kernels.caching import njit

Array = np.ndarray[Any, Any]


@njit(cache=True, nogil=True)
def gaussian(samples: Array, means: Array, first: int, scale: float, metrics: Array) -> None:
    """Write scale |sample - mean|^2.

    samples  (words, time)              real or complex
    means    (rows, n_branches)         row min(first + i, rows - 1) for column i of samples
    metrics  (words, time, n_branches)  written: real
    """
    rows, n_branches = means.shape
    for word in range(samples.shape[0]):
        for i in range(samples.shape[1]):
            row = min(first + i, rows - 1)
            y = samples[word, i]
            for branch in range(n_branches):
                error = y - means[row, branch]
                metrics[word, i, branch] = scale * (
                    error.real * error.real + error.imag * error.imag
                )


@njit(cache=True, nogil=True)
def poisson(samples: Array, means: Array, first: int, metrics: Array) -> None:
    """Write mean - sample log(mean), the negative log-probability of a count less log(count!).

    samples  (words, time)              counts
    means    (rows, n_branches)         > 0; row min(first + i, rows - 1) for column i of samples
    metrics  (words, time, n_branches)  written
    """
    rows, n_branches = means.shape
    for word in range(samples.shape[0]):
        for i in range(samples.shape[1]):
            row = min(first + i, rows - 1)
            y = samples[word, i]
            for branch in range(n_branches):
                mean = means[row, branch]
                metrics[word, i, branch] = mean - y * math.log(mean)
