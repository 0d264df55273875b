"""Activations of networks, and softmax along the rows of an array.

`sigmoid` and `tanh` take a number or a vector inside an `unrolled` function, or a numpy array; the
kernels work in place on columns of an array (rows, width), whole vectors at a time: up to
LANES - 1 columns after the last one are overwritten, and must be there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from blocks.kernels.caching import njit
from blocks.kernels.traced import LANES
from blocks.kernels.unrolled import exp, fold, lanes, put_lanes, repeat, unrolled, where

Array = np.ndarray[Any, Any]

#: What a layer makes of its sums.
LINEAR, RELU, SIGMOID, TANH = range(4)


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x); below -80 as at -80, so that no result is denormal.

    In float32 to 1e-7, and to 1e-6 of itself.
    """
    return 1.0 / (1.0 + exp(-where(x < -80.0, -80.0, x)))


def tanh(x: Any) -> Any:
    """Hyperbolic tangent, in float32 to 2e-7."""
    return 1.0 - 2.0 / (exp(2.0 * x) + 1.0)


def greater(a: Any, b: Any) -> Any:
    """The greater of two numbers."""
    return where(a > b, a, b)


@unrolled
def _sigmoid_lanes(y: Any, row: Any, column: Any) -> None:
    put_lanes(y, sigmoid(lanes(y, row, column)), row, column)


@unrolled
def _tanh_lanes(y: Any, row: Any, column: Any) -> None:
    put_lanes(y, tanh(lanes(y, row, column)), row, column)


@unrolled
def _greatest(y: Any, row: Any, column: Any, more: Any) -> Any:
    """The greatest number of the first block of LANES columns and of `more` blocks after it."""

    def step(block: Any, top: Any) -> Any:
        return greater(lanes(y, row, column + LANES * (block + 1)), top)

    return fold(repeat(more, step, lanes(y, row, column)), greater)


@unrolled
def _exp_sum(y: Any, row: Any, column: Any, more: Any, top: Any) -> Any:
    """Sum of e^(y - top) over the columns of `_greatest`."""

    def step(block: Any, total: Any) -> Any:
        return total + exp(lanes(y, row, column + LANES * (block + 1)) - top)

    return fold(repeat(more, step, exp(lanes(y, row, column) - top)), lambda a, b: a + b)


@unrolled
def _subtract(y: Any, row: Any, column: Any, blocks: Any, shift: Any) -> None:
    def step(block: Any, nothing: Any) -> Any:
        at = column + LANES * block
        put_lanes(y, lanes(y, row, at) - shift, row, at)
        return nothing

    repeat(blocks, step, ())


@njit(cache=True, nogil=True)
def apply(activation: int, y: Array, column: int, n: int) -> None:
    """Put activation(y) in the place of n columns of y; RELU is part of `dense.layer`."""
    for row in range(y.shape[0]):
        for at in range(column, column + n, LANES):
            if activation == SIGMOID:
                _sigmoid_lanes(y, row, at)
            elif activation == TANH:
                _tanh_lanes(y, row, at)


@njit(cache=True, nogil=True)
def log_softmax(y: Array, column: int, n: int) -> None:
    """Put log(e^y / sum of e^y) in the place of n columns of y, row by row.

    A row with NaN or an infinity becomes NaN.
    """
    blocks = (n + LANES - 1) // LANES
    for row in range(y.shape[0]):
        for s in range(column + n, column + blocks * LANES):
            y[row, s] = -math.inf
        top = _greatest(y, row, column, blocks - 1)
        total = _exp_sum(y, row, column, blocks - 1, top)
        _subtract(y, row, column, blocks, top + y.dtype.type(math.log(total)))
