"""Small matrices on their way from arrays into registers and back.

What is 0 or 1 in a matrix need not be multiplied with. A pattern says which entries are, in its
type alone, so that code which takes it (kernels/unrolled.py) is made for them: the position and
velocity of a target cost a third of the multiplications of full matrices.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from blocks.kernels.unrolled import unrolled

Array = np.ndarray[Any, Any]
Pattern = tuple[tuple[tuple[None, ...], ...], ...]

_ZERO, _ONE, _ANY = (), (None,), (None, None)


def pattern(matrix: Array, *, has_ones: bool = True) -> Pattern:
    """Which entries of a matrix are 0 or 1.

    has_ones   whether a 1 counts: not where it is one value of many, such as a variance that is
               tuned, since code is compiled for each pattern
    """
    return _pattern(matrix.shape, matrix.dtype.char, matrix.tobytes(), has_ones)


def dense(rows: int, columns: int) -> Pattern:
    """The pattern of a matrix of which nothing is known."""
    return ((_ANY,) * columns,) * rows


@lru_cache(maxsize=1024)
def _pattern(shape: tuple[int, int], dtype: str, content: bytes, has_ones: bool) -> Pattern:
    rows = np.frombuffer(content, dtype).reshape(shape).tolist()
    kinds = {0.0: _ZERO, 1.0: _ONE if has_ones else _ANY}
    return tuple(tuple(kinds.get(value, _ANY) for value in row) for row in rows)


def matrix_at(array: Any, at: Any, shape: Pattern) -> Any:
    """Matrix `at` of a stack as a tuple of rows."""
    return tuple(
        tuple(array[at, i, j] if kind == _ANY else float(len(kind)) for j, kind in enumerate(row))
        for i, row in enumerate(shape)
    )


@unrolled
def load_row(array: Array, at: int, size: Pattern) -> Any:
    """Row `at` of a matrix as a tuple as long as `size`."""
    return tuple(array[at, i] for i in range(len(size)))


@unrolled
def load_triangle(array: Array, at: int, size: Pattern) -> Any:
    """Matrix `at` of a stack, as far as below and on its diagonal."""
    return tuple(tuple(array[at, i, j] for j in range(i + 1)) for i in range(len(size)))


@unrolled
def store_row(array: Array, at: int, values: Any) -> None:
    """Put a tuple into row `at`."""
    for i, value in enumerate(values):
        array[at, i] = value


@unrolled
def store_triangle(array: Array, at: int, values: Any) -> None:
    """Put a symmetric matrix, given as far as below and on its diagonal, into a stack."""
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            array[at, i, j] = value
            array[at, j, i] = value


@unrolled
def total(values: Any) -> Any:
    """Sum of a tuple: NaN if any of it is."""
    result = values[0]
    for value in values[1:]:
        result = result + value
    return result
