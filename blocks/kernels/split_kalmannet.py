"""The gain networks of Split-KalmanNet: from features of a step to two factors of the gain.

Choi, Park, Shlezinger, Eldar, Lee, "Split-KalmanNet: A Robust Model-Based Deep Learning Approach
for State Estimation", IEEE Trans. Vehicular Technology 2023. The gain is K = P H' S, with H the
Jacobian of the observation where it was predicted: one network stands for the covariance P of the
prediction, the other for the inverse S of that of the innovation. With m states and n
observations, each is a `kalmannet.branch` of two GRUs:

    L1    relu    -> in_mult (m + n)
    GRU1, GRU2    -> units (m^2 + n^2)
    L2    relu    -> out_mult m n
    L3    linear  -> m^2 (P), n^2 (S)

P looks at the geometry (n + m n), forward evolution and forward update differences (m each); S at
both differences of observations (n each) and the geometry; kernels/kalmannet_filter.py makes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from blocks.kernels.caching import njit
from blocks.kernels.dense import aligned, padded
from blocks.kernels.dense_lanes import put_rows
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
def split_gain(
    weights: Array, places: Array, m: int, n: int, in_mult: int, out_mult: int, units: int,
    features: Array, hidden: Array, scratch: Array, told: Array,
) -> None:  # fmt: skip
    """Write the factors of one step, of a filter or of WIDTH side by side.

    Features and hidden states are one row or a tile, as in kernels/dense_lanes.py.

    features  differences of observations (2 n), geometry (n + m n), forward
                             evolution (m) and forward update (m)
    hidden    updated, as in a row of `SplitGain.start`
    told      (1 or WIDTH, m^2 + n^2)  written: P, then S
    """
    mm, nn, mn = m * m, n * n, m * n
    wide, size, y = in_mult * (m + n), units * (mm + nn), scratch
    at = branch(
        weights, places, 0, n + mn + 2 * m, wide, size, 2, out_mult * mn, mm, features, 2 * n,
        hidden, 0, y,
    )  # fmt: skip
    put_rows(y, at, mm, told, 0)
    at = branch(
        weights, places, 5, 3 * n + mn, wide, size, 2, out_mult * mn, nn, features, 0, hidden,
        2 * padded(size), y,
    )  # fmt: skip
    put_rows(y, at, nn, told, mm)


def layers(
    m: int, n: int, in_mult: int = 80, out_mult: int = 4, units: int = 2
) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each layer, in the order in which they are evaluated."""
    wide, size, middle = in_mult * (m + n), units * (m * m + n * n), out_mult * m * n
    return {
        **branch_layers(n + m * n + 2 * m, wide, size, 2, middle, m * m, "P."),
        **branch_layers(3 * n + m * n, wide, size, 2, middle, n * n, "S."),
    }


class SplitGain(NamedTuple):
    """Weights and sizes of both networks: what `split_gain` takes first."""

    weights: Array
    places: Array
    m: int
    n: int
    in_mult: int
    out_mult: int
    units: int

    @classmethod
    def of(
        cls, arrays: Mapping[str, Any], m: int, n: int, in_mult: int = 80, out_mult: int = 4,
        units: int = 2,
    ) -> SplitGain:  # fmt: skip
        """From the arrays of each of `layers`, as torch's modules hold them."""
        sizes = f"in_mult={in_mult}, out_mult={out_mult} and units={units}"
        packed = packed_layers(arrays, layers(m, n, in_mult, out_mult, units), m, n, sizes)
        return cls(*packed, m, n, in_mult, out_mult, units)

    def start(self, rows: int) -> Array:
        """Hidden states before the first step: zeros."""
        return aligned(rows, 4 * padded(self.units * (self.m**2 + self.n**2)))

    def columns(self) -> int:
        """Numbers that `split_gain` writes in between."""
        m, n = self.m, self.n
        size, most = self.units * (m**2 + n**2), max(m, n) ** 2
        wide, middle = self.in_mult * (m + n), self.out_mult * m * n
        return branch_width(wide, size, 2, middle, most)


def network_of(hyper: Mapping[str, Any], arrays: Mapping[str, Array]) -> SplitGain:
    """The networks of weights as torch names them; ValueError where they do not fit together."""
    return SplitGain.of(by_layer(arrays), **sizes_of(hyper))
