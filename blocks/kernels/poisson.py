"""Poisson counts by inversion of the distribution function, one uniform number each."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from blocks.kernels.caching import njit

F64 = npt.NDArray[np.float64]


@njit(cache=True, nogil=True)
def invert(uniforms: F64, means: F64, counts: F64) -> None:
    """Write the smallest count whose distribution function exceeds the uniform number.

    The sum starts 12 standard deviations below the mean: what lies below has a probability of
    less than exp(-72), far under the spacing of the uniform numbers, and exp(-mean) cannot
    underflow. Probabilities are right to about 1e-16 mean log(mean) of themselves.

    uniforms  (n,)  in [0, 1)
    means     (n,)  finite and >= 0
    counts    (n,)  written: whole numbers
    """
    for i in range(means.size):
        mean, uniform = means[i], uniforms[i]
        count = max(0.0, float(math.floor(mean - 12.0 * math.sqrt(mean))))
        term = 1.0
        if mean > 0.0:
            term = math.exp(count * math.log(mean) - mean - math.lgamma(count + 1.0))
        total = term
        # Rounding may keep the sum below a uniform number close to 1: terms past the mean that
        # no longer count end the search.
        while total <= uniform and (count < mean or term > 1e-20):
            count += 1.0
            term *= mean / count
            total += term
        counts[i] = count
