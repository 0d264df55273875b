"""Branch metrics (see trellis.py) of one sequence, and of sequences side by side."""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.kernels import unrolled
from blocks.kernels.caching import njit
from blocks.kernels.tiles import HALVES, WIDTH

Array = np.ndarray[Any, Any]

# Rounded as it is where sequences run side by side, so that all forms of a detector agree.
fma = unrolled.unrolled(unrolled.fma)


@njit(cache=True, nogil=True)
def linear(values: Array, first: int, slopes: Array, offsets: Array, metrics: Array) -> None:
    """Write the metrics of trellis.Metrics.

    values   (>= time parts,)
    first    number of the first step
    slopes   (rows, parts, n_branches)  row min(first + i, rows - 1) for step i of these
    offsets  (rows, n_branches)
    metrics  (time, n_branches)  written
    """
    rows, parts, n_branches = slopes.shape
    for i in range(metrics.shape[0]):
        row = min(first + i, rows - 1)
        for branch in range(n_branches):
            metric = offsets[row, branch]
            for part in range(parts):
                metric = fma(values[i * parts + part], slopes[row, part, branch], metric)
            metrics[i, branch] = metric


@njit(cache=True, nogil=True)
def look_up(indices: Array, alphabet: Array, symbols: Array) -> None:
    """Write the symbols of these indices; flat arrays of one length."""
    for i in range(indices.size):
        symbols[i] = alphabet[indices[i]]


def values_in_lanes(tile: Any, step: Any, parts: Any) -> Any:
    """What a tile of sequences has at one step: for each part its two vectors. In unrolled code."""
    return tuple(
        tuple(unrolled.lanes(tile, (step * len(parts) + part) * WIDTH + at) for at in HALVES)
        for part in range(len(parts))
    )


def in_lanes(
    tile: Any, step: Any, values: Any, slopes: Any, offsets: Any, row: Any, width: Any, branch: Any
) -> Any:
    """Metric of a branch in the two vectors of a tile. In unrolled code.

    tile     (steps * parts or width, WIDTH), flat  read where the metrics are given
    values   of `values_in_lanes`; () where the metrics are given
    slopes, offsets, row, width   of trellis.Metrics, flat
    """
    if not values:
        return tuple(unrolled.lanes(tile, (step * width + branch) * WIDTH + at) for at in HALVES)
    offset = offsets[row * width + branch]
    slope = tuple(
        slopes[(row * len(values) + part) * width + branch] for part in range(len(values))
    )
    metrics = []
    for half in range(len(HALVES)):
        metric = offset
        for of_part, factor in zip(values, slope, strict=True):
            metric = unrolled.fma(of_part[half], factor, metric)
        metrics.append(metric)
    return tuple(metrics)


@unrolled.unrolled
def write(
    tile: Any, step: Any, slopes: Any, offsets: Any, row: Any, width: Any, branch: Any,
    room: Any, order: Any, block: Any, parts: Any,
) -> None:  # fmt: skip
    """Write metrics of some branches, from `branch` on, to those rows of `room`."""
    values = values_in_lanes(tile, step, parts)
    for k in range(len(order) * len(block)):
        metrics = in_lanes(tile, step, values, slopes, offsets, row, width, branch + k)
        for at, metric in zip(HALVES, metrics, strict=True):
            unrolled.put_lanes(room, metric, (branch + k) * WIDTH + at)


@njit(cache=True, nogil=True)
def write_all(
    tile: Array, step: int, slopes: Array, offsets: Array, row: int, width: int, room: Array,
    order: tuple[float, ...], block: tuple[float, ...], parts: tuple[float, ...],
) -> None:  # fmt: skip
    """Write metrics of all branches at one step to `room` (width, WIDTH); see `write`."""
    for branch in range(0, width, len(block) * len(order)):
        write(tile, step, slopes, offsets, row, width, branch, room, order, block, parts)
