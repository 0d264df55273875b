"""Linear algebra and filter steps on small matrices, as plain Python on nested tuples.

A vector is a tuple of numbers, a matrix a tuple of its rows; a number is a float, or whatever
kernels/unrolled.py puts in its place. Symmetric results are computed once and mirrored, so they
are symmetric to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from blocks.kernels.unrolled import is_nan, where

Vector = tuple[Any, ...]
Matrix = tuple[Vector, ...]


def dot(a: Vector, b: Vector) -> Any:
    """Inner product, a' b."""
    total = a[0] * b[0]
    for x, y in zip(a[1:], b[1:], strict=True):
        total = total + x * y
    return total


def apply(A: Matrix, x: Vector) -> Vector:
    """A x."""
    return tuple(dot(row, x) for row in A)


def multiply(A: Matrix, B: Matrix) -> Matrix:
    """A B."""
    columns = transpose(B)
    return tuple(tuple(dot(row, column) for column in columns) for row in A)


def transpose(A: Matrix) -> Matrix:
    """A'."""
    return tuple(zip(*A, strict=True))


def add(A: Matrix, B: Matrix) -> Matrix:
    """A + B."""
    return tuple(tuple(x + y for x, y in zip(a, b, strict=True)) for a, b in zip(A, B, strict=True))


def symmetric(size: int, entry: Callable[[int, int], Any]) -> Matrix:
    """The symmetric matrix with these entries below and on the diagonal."""
    lower = [[entry(i, j) for j in range(i + 1)] for i in range(size)]
    return tuple(tuple(lower[max(i, j)][min(i, j)] for j in range(size)) for i in range(size))


def triangle(P: Matrix) -> Matrix:
    """What a symmetric matrix has below and on its diagonal."""
    return tuple(row[: i + 1] for i, row in enumerate(P))


def mirrored(lower: Matrix) -> Matrix:
    """The symmetric matrix of such a triangle."""
    return symmetric(len(lower), lambda i, j: lower[i][j])


def sandwich(A: Matrix, P: Matrix, Q: Matrix) -> Matrix:
    """A P A' + Q for symmetric P and Q."""
    AP = multiply(A, P)
    return symmetric(len(A), lambda i, j: dot(AP[i], A[j]) + Q[i][j])


def identity(size: int) -> Matrix:
    """I."""
    return tuple(tuple(1.0 if i == j else 0.0 for j in range(size)) for i in range(size))


def factor(S: Matrix) -> tuple[Matrix, Vector, Vector]:
    """S = L D L' with ones on the diagonal of L; returns L, the diagonal of D, and that of 1 / D.

    Of L there is what stands below the diagonal.

    No square root stands in the way, and there is one division for each row. A pivot that is not
    positive becomes NaN, and everything that is computed from it.
    """
    lower: list[list[Any]] = []
    pivots: list[Any] = []
    inverse: list[Any] = []
    for i, row in enumerate(S):
        scaled: list[Any] = []  # L[i][j] D[j]
        for j in range(i):
            value = row[j]
            for k in range(j):
                value = value - scaled[k] * lower[j][k]
            scaled.append(value)
        lower.append([value * over for value, over in zip(scaled, inverse, strict=True)])
        pivot = row[i]
        for value, ratio in zip(scaled, lower[i], strict=True):
            pivot = pivot - value * ratio
        pivots.append(where(pivot > 0.0, pivot, math.nan))
        inverse.append(1.0 / pivots[-1])
    return tuple(tuple(row) for row in lower), tuple(pivots), tuple(inverse)


def forward(L: Matrix, B: Matrix) -> Matrix:
    """Solve L X = B for the L of `factor`."""
    rows: list[Vector] = []
    for i, row in enumerate(B):
        for k in range(i):
            row = tuple(value - L[i][k] * above for value, above in zip(row, rows[k], strict=True))
        rows.append(row)
    return tuple(rows)


def backward(L: Matrix, B: Matrix) -> Matrix:
    """Solve L' X = B for the L of `factor`."""
    rows: list[Vector] = list(B)
    for i in reversed(range(len(B))):
        for k in range(i + 1, len(B)):
            rows[i] = tuple(
                value - L[k][i] * below for value, below in zip(rows[i], rows[k], strict=True)
            )
    return tuple(rows)


def solve(S: Matrix, B: Matrix) -> Matrix:
    """S^-1 B for symmetric positive S."""
    L, _, over = factor(S)
    X = forward(L, B)
    return backward(L, tuple(tuple(v * d for v in row) for row, d in zip(X, over, strict=True)))


def known(y: Vector) -> Vector:
    """1 where an observation is there, 0 where it is NaN."""
    return tuple(where(is_nan(value), 0.0, 1.0) for value in y)


def without_missing(there: Vector, H: Matrix, R: Matrix) -> tuple[Matrix, Matrix]:
    """H and R without the rows that `there` marks with 0: zeros, and 1 on the diagonal of R.

    With an innovation of 0 in those rows, the update is that of the other rows alone.
    """
    kept = tuple(tuple(flag * value for value in row) for flag, row in zip(there, H, strict=True))
    noise = symmetric(
        len(R),
        lambda i, j: there[i] * there[j] * R[i][j] + (1.0 - there[i] if i == j else 0.0),
    )
    return kept, noise


def correct(x: Vector, P: Matrix, e: Vector, H: Matrix, R: Matrix) -> tuple[Any, ...]:
    """The updated mean of a Kalman filter, its gain, and how likely the innovation was.

    x, P  predicted mean and covariance
    e     innovation, y - H x
    H, R  observation matrix and covariance of its noise

    Returns x + K e, K = P H' S^-1, e' S^-1 e and det S, with S = H P H' + R. Where S is not
    positive, they are NaN.
    """
    HP = multiply(H, P)
    S = symmetric(len(R), lambda i, j: dot(HP[i], H[j]) + R[i][j])
    L, D, over = factor(S)
    rows = forward(L, tuple((*row, value) for row, value in zip(HP, e, strict=True)))
    scaled = tuple(tuple(v * d for v in row) for row, d in zip(rows, over, strict=True))
    innovation = tuple(row[-1] for row in rows)
    weights = tuple(row[-1] for row in scaled)
    mean = tuple(
        value + dot(column, weights)
        for value, column in zip(x, transpose(tuple(row[:-1] for row in rows)), strict=True)
    )
    gain = transpose(backward(L, tuple(row[:-1] for row in scaled)))
    det = D[0]
    for pivot in D[1:]:
        det = det * pivot
    return mean, gain, dot(innovation, weights), det


def update(
    x: Vector, P: Matrix, y: Vector, e: Vector, H: Matrix, R: Matrix, *, is_joseph: Any,
    may_miss: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """The updated mean and covariance of a Kalman filter, and the last two of `correct`.

    y          observation; with may_miss, a row of NaN counts as missing
    is_joseph  form of the covariance update: `joseph`, or else `simple`
    """
    if may_miss:
        H, R = without_missing(known(y), H, R)
        e = tuple(where(is_nan(value), 0.0, off) for value, off in zip(y, e, strict=True))
    mean, K, squared, det = correct(x, P, e, H, R)
    return mean, joseph(P, K, H, R) if is_joseph else simple(P, K, H), squared, det


def joseph(P: Matrix, K: Matrix, H: Matrix, R: Matrix) -> Matrix:
    """(I - K H) P (I - K H)' + K R K': positive whatever K, and symmetric."""
    n = len(P)
    KH = multiply(K, H)
    A = tuple(tuple((1.0 if i == j else 0.0) - KH[i][j] for j in range(n)) for i in range(n))
    KR = multiply(K, R)
    return sandwich(A, P, symmetric(n, lambda i, j: dot(KR[i], K[j])))


def simple(P: Matrix, K: Matrix, H: Matrix) -> Matrix:
    """P - K H P, computed once and mirrored; needs the best gain, and loses definiteness first."""
    HP = multiply(H, P)
    return symmetric(len(P), lambda i, j: P[i][j] - dot(K[i], tuple(row[j] for row in HP)))
