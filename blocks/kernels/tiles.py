"""Sequences side by side, in tiles: the lanes of a vector are independent sequences.

A tile holds W sequences of some numbers per step as one flat array: number n of the sequence in
lane v stands at place n W + v. Being flat, with a width known while compiling, lets a kernel reach
any row of a tile at a constant offset (kernels/unrolled.py). W is WIDTH, but for codes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.kernels import unrolled
from blocks.kernels.caching import njit
from blocks.kernels.traced import LANES

Array = np.ndarray[Any, Any]

#: Sequences in a tile: two vectors, so that what is the same for all of them is loaded once.
WIDTH = 2 * LANES
HALVES = (0, LANES)  # where the two vectors of a row begin
VECTORS = (0.0,) * len(HALVES)  # as many as they are, for `fill` and `empty_out`


def empty(count: int, dtype: Any) -> Array:
    """Room for that many numbers, at a multiple of 64 bytes, so that no vector straddles a line."""
    wanted = np.dtype(dtype)
    room = np.empty(count * wanted.itemsize + 64, np.uint8)
    at = -room.ctypes.data % 64
    return room[at : at + count * wanted.itemsize].view(wanted)


@unrolled.unrolled
def _to_columns(flat: Any, starts: Any, first: Any, n: Any, tile: Any, vectors: Any) -> None:
    lanes = unrolled.lanes_of(tile)
    rows = tuple(
        unrolled.lanes(flat, unrolled.index_at(starts, first + v) + n, count=lanes)
        for v in range(lanes)
    )
    for k, column in enumerate(unrolled.transposed(rows)):
        unrolled.put_lanes(tile, column, (n + k) * (lanes * len(vectors)) + first)


@unrolled.unrolled
def _to_rows(tile: Any, starts: Any, first: Any, n: Any, flat: Any, vectors: Any) -> None:
    lanes = unrolled.lanes_of(tile)
    columns = tuple(
        unrolled.lanes(tile, (n + k) * (lanes * len(vectors)) + first) for k in range(lanes)
    )
    for v, row in enumerate(unrolled.transposed(columns)):
        unrolled.put_lanes(flat, row, unrolled.index_at(starts, first + v) + n)


@njit(cache=True, nogil=True)
def fill(
    flat: Array, at: int, sequences: int, stride: int, starts: Array, tile: Array,
    vectors: tuple[float, ...],
) -> None:  # fmt: skip
    """Put sequences at, at + 1 ... into the lanes of a tile; sequence k begins at place k stride.

    flat     (...,)
    starts   (W,) int64  scratch
    tile     (size, W)   written; lanes beyond the last sequence, which are idle, get that one
    vectors  as long as the number of vectors in a row
    """
    for v in range(starts.size):
        starts[v] = min(at + v, sequences - 1) * stride
    size, lanes = tile.size // starts.size, starts.size // len(vectors)
    if size < lanes:
        for n in range(size):
            for v in range(starts.size):
                tile[n * starts.size + v] = flat[starts[v] + n]
        return
    for first in range(0, starts.size, lanes):
        for n in range(0, size, lanes):  # the last square overlaps the one before
            _to_columns(flat, starts, first, min(n, size - lanes), tile, vectors)


@njit(cache=True, nogil=True)
def empty_out(
    tile: Array, size: int, at: int, sequences: int, starts: Array, flat: Array,
    vectors: tuple[float, ...],
) -> None:  # fmt: skip
    """Copy the first `size` rows of a tile to sequences at, at + 1 ..., which lie end to end.

    flat   (sequences size,)  written; the other arrays as in `fill`, with the same in idle lanes
    """
    for v in range(starts.size):
        starts[v] = min(at + v, sequences - 1) * size
    lanes = starts.size // len(vectors)
    if size < lanes:
        for n in range(size):
            for v in range(starts.size):
                flat[starts[v] + n] = tile[n * starts.size + v]
        return
    for first in range(0, starts.size, lanes):
        for n in range(0, size, lanes):
            _to_rows(tile, starts, first, min(n, size - lanes), flat, vectors)


@njit(cache=True, nogil=True)
def spread(numbers: Array, tile: Array, place: int) -> None:
    """Write each number (n,) to all lanes of a row of its own, from a place on."""
    for n in range(numbers.size):
        for v in range(WIDTH):
            tile[place + n * WIDTH + v] = numbers[n]


# --- Arithmetic on rows -----------------------------------------------------------------------


@unrolled.unrolled
def _lower(rows: Any, place: Any, least: Any, some: Any) -> None:
    """Replace `least` (WIDTH,) by what is less in `len(some)` rows of a tile."""
    for at in HALVES:
        found = unrolled.lanes(least, at)
        for k in range(len(some)):
            row = unrolled.lanes(rows, place + k * WIDTH + at)
            found = unrolled.where(row < found, row, found)
        unrolled.put_lanes(least, found, at)


@unrolled.unrolled
def _take_off(rows: Any, place: Any, least: Any, some: Any) -> None:
    """Subtract `least` (WIDTH,) from `len(some)` rows of a tile."""
    for at in HALVES:
        found = unrolled.lanes(least, at)
        for k in range(len(some)):
            row = unrolled.lanes(rows, place + k * WIDTH + at)
            unrolled.put_lanes(rows, row - found, place + k * WIDTH + at)


@njit(cache=True, nogil=True)
def least_of(rows: Array, place: int, n: int, least: Array, some: tuple[float, ...]) -> None:
    """Write what is least in n rows, from a place on, in each lane.

    least   (WIDTH,)  written
    some    as long as the number of rows to unroll, which divides n
    """
    least[:] = np.inf
    for k in range(0, n, len(some)):
        _lower(rows, place + k * WIDTH, least, some)


@njit(cache=True, nogil=True)
def normalise(numbers: Array) -> None:
    """Take the least of them off all path metrics, or off a message in the log domain."""
    least = numbers[0]
    for s in range(1, numbers.size):
        least = min(least, numbers[s])
    for s in range(numbers.size):
        numbers[s] -= least


@njit(cache=True, nogil=True)
def take_least_off(rows: Array, place: int, n: int, least: Array, some: tuple[float, ...]) -> None:
    """Subtract from n rows, from a place on, what is least in each lane; as `least_of`."""
    least_of(rows, place, n, least, some)
    for k in range(0, n, len(some)):
        _take_off(rows, place + k * WIDTH, least, some)


@njit(cache=True, nogil=True)
def best_rows(rows: Array, place: int, n: int, least: Array, best: Array) -> None:
    """Write which of n rows, from a place on, has the least number of each lane; the first of them.

    least   (>= W,)  scratch
    best    (W,)     written
    """
    lanes = best.size
    least[:lanes] = rows[place : place + lanes]
    best[:] = 0
    for s in range(1, n):
        for v in range(lanes):
            if rows[place + s * lanes + v] < least[v]:
                least[v] = rows[place + s * lanes + v]
                best[v] = s
