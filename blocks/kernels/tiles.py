"""Sequences side by side, in tiles: the lanes of a vector are independent sequences.

A tile holds WIDTH sequences of some numbers per step as one flat array: number n of the sequence in
lane v stands at place n WIDTH + v. Being flat, with a width known while compiling, lets a kernel
reach any row of a tile at a constant offset (kernels/unrolled.py).
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


def empty(count: int, dtype: Any) -> Array:
    """Room for that many numbers, at a multiple of 64 bytes, so that no vector straddles a line."""
    wanted = np.dtype(dtype)
    room = np.empty(count * wanted.itemsize + 64, np.uint8)
    at = -room.ctypes.data % 64
    return room[at : at + count * wanted.itemsize].view(wanted)


@unrolled.unrolled
def _rows_to_columns(flat: Any, starts: tuple[Any, ...], n: Any, tile: Any, place: Any) -> None:
    rows = tuple(unrolled.lanes(flat, start + n) for start in starts)
    for k, column in enumerate(unrolled.transposed(rows)):
        unrolled.put_lanes(tile, column, place + k * WIDTH)


@unrolled.unrolled
def _columns_to_rows(tile: Any, place: Any, flat: Any, starts: tuple[Any, ...], n: Any) -> None:
    columns = tuple(unrolled.lanes(tile, place + k * WIDTH) for k in range(LANES))
    for start, row in zip(starts, unrolled.transposed(columns), strict=True):
        unrolled.put_lanes(flat, row, start + n)


@njit(cache=True, nogil=True)
def fill(flat: Array, first: int, stride: int, count: int, tile: Array) -> None:
    """Put `count` sequences into a tile, number n of sequence v from place first + v stride + n.

    flat   (...,)
    tile   (size WIDTH,)  written; lanes from `count` on, which are idle, get the last sequence
    """
    size = tile.size // WIDTH
    whole = size - size % LANES
    for half in range(0, WIDTH, LANES):
        last = count - 1
        a, b, c, d = half, half + 1, half + 2, half + 3
        e, f, g, h = half + 4, half + 5, half + 6, half + 7
        starts = (
            first + min(a, last) * stride, first + min(b, last) * stride,
            first + min(c, last) * stride, first + min(d, last) * stride,
            first + min(e, last) * stride, first + min(f, last) * stride,
            first + min(g, last) * stride, first + min(h, last) * stride,
        )  # fmt: skip
        for n in range(0, whole, LANES):
            _rows_to_columns(flat, starts, n, tile, n * WIDTH + half)
    for v in range(WIDTH):
        start = first + min(v, count - 1) * stride
        for n in range(whole, size):
            tile[n * WIDTH + v] = flat[start + n]


@njit(cache=True, nogil=True)
def empty_out(tile: Array, count: int, out: Array) -> None:
    """Copy the first `count` sequences of a tile, one after the other.

    tile   (size WIDTH,)
    out    (count size,)  written
    """
    size = tile.size // WIDTH
    whole = size - size % LANES
    for half in range(0, WIDTH, LANES):
        if half + LANES <= count:
            at = half * size
            starts = (
                at, at + size, at + 2 * size, at + 3 * size,
                at + 4 * size, at + 5 * size, at + 6 * size, at + 7 * size,
            )  # fmt: skip
            for n in range(0, whole, LANES):
                _columns_to_rows(tile, n * WIDTH + half, out, starts, n)
        else:
            for v in range(half, count):
                for n in range(whole):
                    out[v * size + n] = tile[n * WIDTH + v]
    for v in range(count):
        for n in range(whole, size):
            out[v * size + n] = tile[n * WIDTH + v]


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
def take_least_off(rows: Array, place: int, n: int, least: Array, some: tuple[float, ...]) -> None:
    """Subtract from n rows, from a place on, what is least in each lane; as `least_of`."""
    least_of(rows, place, n, least, some)
    for k in range(0, n, len(some)):
        _take_off(rows, place + k * WIDTH, least, some)
