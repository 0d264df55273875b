"""The networks of Recursive KalmanNet: from features of a step to a gain and the noise it lets in.

Mortada et al., "Recursive KalmanNet: Deep Learning-Augmented Kalman Filtering for State Estimation
with Consistent Uncertainty Quantification", EUSIPCO 2025. The covariance follows Joseph's form,
P = (I - K H) F P F' (I - K H)' + C C': one network tells the gain K, the other the Cholesky factor
C of what noise adds, which depends on K. With m states and n observations, each is a
`kalmannet.branch` of one GRU:

    L1    relu    -> in_mult (m + n)
    GRU1          -> units (m + n)
    L2    relu    -> out_mult m n, out_mult m (m + 1) / 2
    L3    linear  -> m n (K), m (m + 1) / 2 (C)

The second looks at K, too. Where the paper gives squares of features only, both see directions and
squares: without a sign no gain can turn with the state of a motion that is not linear.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from blocks.kernels.caching import njit
from blocks.kernels.dense import aligned, padded
from blocks.kernels.dense_lanes import copy, put_rows
from blocks.kernels.kalmannet import (
    branch,
    branch_layers,
    branch_width,
    by_layer,
    packed_layers,
    sizes_of,
)

Array = np.ndarray[Any, Any]


@njit(cache=True, nogil=True)
def feature_count(m: int, n: int) -> int:
    """How many features both networks see."""
    return 5 * n + m * n + 3 * m


@njit(cache=True, nogil=True)
def recursive_gain(
    weights: Array, places: Array, m: int, n: int, in_mult: int, out_mult: int, units: int,
    features: Array, hidden: Array, scratch: Array, gains: Array, told: Array,
) -> None:  # fmt: skip
    """Write gains and factors of one step, of a filter or of WIDTH side by side.

    Features and hidden states are one row or a tile, as in kernels/dense_lanes.py.

    features  `feature_count` of them; the m n columns after them are written
    hidden    updated, as in a row of `RecursiveGain.start`
    gains     (1 or WIDTH, m n)  written
    told      (1 or WIDTH, m (m + 1) / 2)  written: lower triangle of C, row by row, before `factor`
    """
    mn, triangle, count = m * n, m * (m + 1) // 2, feature_count(m, n)
    wide, size, y = in_mult * (m + n), units * (m + n), scratch
    at = branch(
        weights, places, 0, count, wide, size, 1, out_mult * mn, mn, features, 0, hidden, 0, y
    )  # fmt: skip
    put_rows(y, at, mn, gains, 0)
    copy(y, at, mn, features, count)
    at = branch(
        weights, places, 4, count + mn, wide, size, 1, out_mult * triangle, triangle, features, 0,
        hidden, padded(size), y,
    )  # fmt: skip
    put_rows(y, at, triangle, told, 0)


@njit(cache=True, nogil=True)
def factor(told: Array, row: int, scales: Array, C: Array) -> None:
    """Write C: the numbers of a row, on the diagonal made positive, in units of `scales` (m,)."""
    m, at = scales.size, 0
    for i in range(m):
        for j in range(m):
            C[i, j] = 0.0
        for j in range(i + 1):
            value = float(told[row, at])
            if i == j:  # log(1 + e^x)
                value = max(value, 0.0) + np.log1p(np.exp(-abs(value)))
            C[i, j] = scales[i] * value
            at += 1


def layers(
    m: int, n: int, in_mult: int = 20, out_mult: int = 10, units: int = 10
) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each layer, in the order in which they are evaluated."""
    mn, triangle, count = m * n, m * (m + 1) // 2, feature_count(m, n)
    wide, size = in_mult * (m + n), units * (m + n)
    return {
        **branch_layers(count, wide, size, 1, out_mult * mn, mn, "K."),
        **branch_layers(count + mn, wide, size, 1, out_mult * triangle, triangle, "C."),
    }


class RecursiveGain(NamedTuple):
    """Weights and sizes of both networks: what `recursive_gain` takes first.

    state_scales, seen_scales  (m,) and (n,) float64: how large errors of a state and innovations
                               usually are; squares of features are told in these units
    """

    weights: Array
    places: Array
    m: int
    n: int
    in_mult: int
    out_mult: int
    units: int
    state_scales: Array
    seen_scales: Array

    @classmethod
    def of(
        cls, arrays: Mapping[str, Any], m: int, n: int, state_scales: Array, seen_scales: Array,
        in_mult: int = 20, out_mult: int = 10, units: int = 10,
    ) -> RecursiveGain:  # fmt: skip
        """From the arrays of each of `layers`, as torch's modules hold them."""
        sizes = f"in_mult={in_mult}, out_mult={out_mult} and units={units}"
        packed = packed_layers(arrays, layers(m, n, in_mult, out_mult, units), m, n, sizes)
        scales = []
        for name, given, count in (("states", state_scales, m), ("observations", seen_scales, n)):
            if given.shape != (count,) or not (given > 0.0).all():
                raise ValueError(f"scales.{name}: {given}; expected {count} numbers above 0")
            scales.append(given.astype(np.float64))
        return cls(*packed, m, n, in_mult, out_mult, units, *scales)

    def start(self, rows: int) -> Array:
        """Hidden states before the first step: zeros."""
        return aligned(rows, 2 * padded(self.units * (self.m + self.n)))

    def columns(self) -> int:
        """Numbers that `recursive_gain` writes in between."""
        m, n = self.m, self.n
        most = max(m * n, m * (m + 1) // 2)
        wide, size, middle = self.in_mult * (m + n), self.units * (m + n), self.out_mult * most
        return branch_width(wide, size, 1, middle, most)


def network_of(hyper: Mapping[str, Any], arrays: Mapping[str, Array]) -> RecursiveGain:
    """The networks of weights as torch names them, with "scales.states" and "scales.observations".

    Raises ValueError where they do not fit together, KeyError for scales that are not there.
    """
    sizes: dict[str, Any] = sizes_of(hyper)
    return RecursiveGain.of(
        by_layer(arrays), state_scales=arrays["scales.states"],
        seen_scales=arrays["scales.observations"], **sizes,
    )  # fmt: skip
