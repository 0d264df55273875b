"""Layers of networks for one input, or for WIDTH of them side by side; float32.

One input stands in a row (1, size), and outputs are the lanes: kernels/dense.py and recurrent.py.
Many stand in a tile, a flat array where number k of input v has the place k WIDTH + v: inputs are
the lanes, so that none is idle however few outputs there are, and each weight that is loaded meets
that number of all inputs. Weights lie as they do for one. What stands where is counted in numbers
in both.

The lanes of a tile know nothing of each other: an input gets the same result whatever the others
are. Alone, in a row, it gets sums that were added in another order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from blocks.kernels import dense, recurrent
from blocks.kernels.activations import RELU
from blocks.kernels.caching import njit
from blocks.kernels.traced import LANES
from blocks.kernels.unrolled import fma, lanes, put_lanes, repeat, unrolled, where

Array = np.ndarray[Any, Any]

_VECTORS = 2
WIDTH = _VECTORS * LANES  # inputs in a tile


def _numbers(tile: Any, k: Any) -> tuple[Any, ...]:
    """A number of all inputs, in vectors."""
    return tuple(lanes(tile, k * WIDTH + LANES * v) for v in range(_VECTORS))


def _put_numbers(tile: Any, k: Any, vectors: Any) -> None:
    for v, vector in enumerate(vectors):
        put_lanes(tile, vector, k * WIDTH + LANES * v)


def _add(weight: Any, numbers: Any, sums: Any) -> tuple[Any, ...]:
    return tuple(fma(number, weight, s) for number, s in zip(numbers, sums, strict=True))


def _everywhere(value: Any, like: Any) -> tuple[Any, ...]:
    """A value for all inputs."""
    return tuple(where(vector < vector, vector, value) for vector in like)


def _outputs(count: int) -> Any:
    """So many outputs of a layer."""

    def outputs(
        weights: Any, first: Any, stride: Any, n_in: Any, x: Any, x0: Any, least: Any, y: Any,
        y0: Any,
    ) -> None:  # fmt: skip
        def step(j: Any, sums: Any) -> Any:
            at, numbers = first + stride * (j + 1), _numbers(x, x0 + j)
            return tuple(_add(weights[at + o], numbers, own) for o, own in enumerate(sums))

        some = _numbers(x, x0)
        sums: Any = tuple(_everywhere(weights[first + o], some) for o in range(count))
        for o, own in enumerate(repeat(n_in, step, sums)):
            _put_numbers(y, y0 + o, [where(s < least, least, s) for s in own])

    return unrolled(outputs)


# With as many sums, 8 and 10, the latency of fma is hidden and registers suffice.
_four, _five = _outputs(4), _outputs(5)


@njit(cache=True, nogil=True)
def layer(
    weights: Array, first: int, n_in: int, n_out: int, activation: int,
    x: Array, x0: int, y: Array, y0: int,
) -> None:  # fmt: skip
    """Write activation(W x + b) of each input, as `dense.layer` does of rows.

    activation  LINEAR or RELU
    x           one row or a tile
    y           alike; up to padded(n_out) numbers from number y0 on are written
    """
    if x.ndim == 2:
        dense.layer(weights, first, n_in, n_out, activation, x, x0, y, y0)
    else:
        least = np.float32(0.0 if activation == RELU else -math.inf)
        for panel in range(0, n_out, 2 * LANES):
            at, end = first + panel * (n_in + 1), min(n_out - panel, 2 * LANES)
            stride = 2 * LANES if end > LANES else LANES
            o = 0
            while o < end:
                rest = end - o
                if rest % 4 and (rest == 5 or rest > 8):  # so nothing ends after padded(n_out)
                    _five(weights, at + o, stride, n_in, x, x0, least, y, y0 + panel + o)
                    o += 5
                else:
                    _four(weights, at + o, stride, n_in, x, x0, least, y, y0 + panel + o)
                    o += 4


@unrolled
def _unit(
    weights: Any, first: Any, n_in: Any, n_hidden: Any, x: Any, x0: Any, h: Any, h0: Any,
    unit: Any, y: Any, y0: Any,
) -> None:  # fmt: skip
    """The next state of a unit of a GRU."""

    def add(begin: Any, targets: tuple[int, ...], source: Any, place: Any) -> Any:
        def step(j: Any, sums: Any) -> Any:
            at, numbers, changed = begin + 3 * LANES * j, _numbers(source, place + j), list(sums)
            for gate, target in enumerate(targets):
                changed[target] = _add(weights[at + LANES * gate], numbers, sums[target])
            return tuple(changed)

        return step

    old, begin = _numbers(h, h0 + unit), first + 4 * LANES
    sums: Any = tuple(_everywhere(weights[first + LANES * k], old) for k in range(4))
    sums = repeat(n_in, add(begin, (0, 1, 2), x, x0), sums)
    sums = repeat(n_hidden, add(begin + 3 * LANES * n_in, (0, 1, 3), h, h0), sums)
    _put_numbers(
        y, y0 + unit, [recurrent.gru_state(*own) for own in zip(*sums, old, strict=True)]
    )  # fmt: skip


@njit(cache=True, nogil=True)
def gru_cell(
    weights: Array, first: int, n_in: int, n_hidden: int,
    x: Array, x0: int, h: Array, h0: int, y: Array, y0: int,
) -> None:  # fmt: skip
    """Write the next state of a GRU cell for each input, as `recurrent.gru_cell` does of rows."""
    if x.ndim == 2:
        recurrent.gru_cell(weights, first, n_in, n_hidden, x, x0, h, h0, y, y0)
    else:
        length = LANES * (4 + 3 * (n_in + n_hidden))
        for unit in range(n_hidden):
            at = first + unit // LANES * length + unit % LANES
            _unit(weights, at, n_in, n_hidden, x, x0, h, h0, unit, y, y0)


@njit(cache=True, nogil=True)
def number(x: Array, k: int, lane: int) -> Any:
    """Number k of an input of x, a row or a tile."""
    if x.ndim == 2:
        return x[0, k]
    else:
        return x[k * WIDTH + lane]


@njit(cache=True, nogil=True)
def put_number(x: Array, k: int, lane: int, value: float) -> None:
    """Write number k of an input of x, a row or a tile."""
    if x.ndim == 2:
        x[0, k] = value
    else:
        x[k * WIDTH + lane] = value


@njit(cache=True, nogil=True)
def copy(x: Array, x0: int, count: int, y: Array, y0: int) -> None:
    """So many numbers of x to others of y; rows or tiles."""
    if x.ndim == 2:
        for i in range(count):
            y[0, y0 + i] = x[0, x0 + i]
    else:
        for i in range(count * WIDTH):
            y[y0 * WIDTH + i] = x[x0 * WIDTH + i]


@njit(cache=True, nogil=True)
def put_rows(x: Array, x0: int, count: int, rows: Array, column: int) -> None:
    """So many numbers of x, one row or a tile, to rows (1 or WIDTH, size) from a column on."""
    if x.ndim == 2:
        for k in range(count):
            rows[0, column + k] = x[0, x0 + k]
    else:
        for k in range(count):
            for v in range(WIDTH):
                rows[v, column + k] = x[(x0 + k) * WIDTH + v]
