"""Linear algebra on small arrays, without a call out of compiled code and without allocating.

Matrices stand in the upper left corner of arrays that may be larger; sizes are given where the
arrays do not tell. Plain loops beat BLAS up to some 30 rows, and keep the order of the sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.kernels.caching import njit

Array = np.ndarray[Any, Any]


@njit(cache=True, nogil=True)
def multiply(A: Array, B: Array, rows: int, inner: int, columns: int, out: Array) -> None:
    """Product, out = A B; out is neither A nor B."""
    for i in range(rows):
        for j in range(columns):
            out[i, j] = 0.0
        for k in range(inner):
            a = A[i, k]
            for j in range(columns):
                out[i, j] += a * B[k, j]


@njit(cache=True, nogil=True)
def sandwich(A: Array, P: Array, Q: Array, rows: int, inner: int, work: Array, out: Array) -> None:
    """Covariance moved on, out = A P A' + Q, symmetric to the last bit; out may be P.

    A     (rows, inner)
    work  (rows, inner)
    """
    multiply(A, P, rows, inner, inner, work)
    for i in range(rows):
        for j in range(i + 1):
            total = Q[i, j]
            for k in range(inner):
                total += work[i, k] * A[j, k]
            out[i, j] = total
            out[j, i] = total


@njit(cache=True, nogil=True)
def cholesky(S: Array, size: int, L: Array) -> bool:
    """S = L L' with L lower; false, and L unfinished, where S is not positive. L may be S."""
    for j in range(size):
        pivot = S[j, j]
        for k in range(j):
            pivot -= L[j, k] * L[j, k]
        if not pivot > 0.0:
            return False
        L[j, j] = np.sqrt(pivot)
        for i in range(j + 1, size):
            value = S[i, j]
            for k in range(j):
                value -= L[i, k] * L[j, k]
            L[i, j] = value / L[j, j]
    for i in range(size):
        for j in range(i + 1, size):
            L[i, j] = 0.0
    return True


@njit(cache=True, nogil=True)
def root(Q: Array, size: int, L: Array) -> bool:
    """Q = L L' with L lower, for Q that may be singular; false where Q is not a covariance.

    A direction without variance gets a column of zeros. What is below the rounding of the
    diagonal counts as zero.
    """
    tolerance = 0.0
    for i in range(size):
        tolerance = max(tolerance, abs(Q[i, i]))
    tolerance *= 64.0 * size * np.finfo(Q.dtype).eps
    for j in range(size):
        pivot = Q[j, j]
        own = abs(pivot) * 64.0 * size * np.finfo(Q.dtype).eps
        for k in range(j):
            pivot -= L[j, k] * L[j, k]
        if not pivot >= -tolerance:
            return False
        L[j, j] = np.sqrt(pivot) if pivot > own else 0.0
        for i in range(j + 1, size):
            value = Q[i, j]
            for k in range(j):
                value -= L[i, k] * L[j, k]
            if L[j, j] > 0.0:
                L[i, j] = value / L[j, j]
            elif abs(value) > np.sqrt(tolerance) * np.sqrt(abs(Q[i, i])):
                return False
            else:
                L[i, j] = 0.0
    for i in range(size):
        for j in range(i + 1, size):
            L[i, j] = 0.0
    return True


@njit(cache=True, nogil=True)
def solve_lower(L: Array, size: int, B: Array, columns: int) -> None:
    """B becomes L^-1 B."""
    for i in range(size):
        for k in range(i):
            ratio = L[i, k]
            for j in range(columns):
                B[i, j] -= ratio * B[k, j]
        for j in range(columns):
            B[i, j] /= L[i, i]


@njit(cache=True, nogil=True)
def solve_upper(L: Array, size: int, B: Array, columns: int) -> None:
    """B becomes L'^-1 B for lower L."""
    for i in range(size - 1, -1, -1):
        for k in range(i + 1, size):
            ratio = L[k, i]
            for j in range(columns):
                B[i, j] -= ratio * B[k, j]
        for j in range(columns):
            B[i, j] /= L[i, i]


@njit(cache=True, nogil=True)
def lower_triangle(A: Array, rows: int, columns: int) -> None:
    """A becomes lower triangular, with a diagonal that is not negative, and A A' stays as it was.

    Householder reflections from the right; rows <= columns.
    """
    for i in range(rows):
        largest = A.dtype.type(0.0)
        for j in range(i, columns):
            largest = max(largest, abs(A[i, j]))
        if largest == 0.0:
            continue
        norm = A.dtype.type(0.0)
        for j in range(i, columns):
            scaled = A[i, j] / largest
            norm += scaled * scaled
        norm = largest * np.sqrt(norm)
        # v = (row + sign * norm e_i), kept in the row until all others are reflected
        pivot = A[i, i]
        head = pivot + norm if pivot >= 0.0 else pivot - norm
        scale = norm * (norm + abs(pivot))  # v'v / 2
        A[i, i] = head
        for k in range(i + 1, rows):
            total = A.dtype.type(0.0)
            for j in range(i, columns):
                total += A[k, j] * A[i, j]
            total /= scale
            for j in range(i, columns):
                A[k, j] -= total * A[i, j]
        A[i, i] = -norm if pivot >= 0.0 else norm
        for j in range(i + 1, columns):
            A[i, j] = 0.0
        if A[i, i] < 0.0:
            for k in range(i, rows):
                A[k, i] = -A[k, i]
