import math

import numpy as np
import pytest

from blocks.kernels import matrices, small

RNG = np.random.default_rng(3)


def covariance(size, rank=None):
    root = RNG.standard_normal((size, rank or size))
    return root @ root.T


def rows(matrix):
    return tuple(tuple(row) for row in np.asarray(matrix).tolist())


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_solving_and_factoring_agree_with_lapack(size):
    S, B = covariance(size), RNG.standard_normal((size, 3))
    np.testing.assert_allclose(small.solve(rows(S), rows(B)), np.linalg.solve(S, B), rtol=1e-8)
    below, D, inverse = small.factor(rows(S))
    L = np.eye(size)
    for i, row in enumerate(below):
        L[i, :i] = row
    D, inverse = np.array(D), np.array(inverse)
    np.testing.assert_allclose(L @ np.diag(D) @ L.T, S, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(D * inverse, 1.0, rtol=1e-14)


def test_a_matrix_that_is_not_positive_gives_nan():
    assert np.isnan(small.solve(((1.0, 2.0), (2.0, 1.0)), ((1.0,), (1.0,)))).any()


def test_the_update_is_that_of_the_textbook():
    P, H, R = covariance(4), RNG.standard_normal((2, 4)), covariance(2)
    x, e = RNG.standard_normal(4), RNG.standard_normal(2)
    S = H @ P @ H.T + R
    K = P @ H.T @ np.linalg.inv(S)
    mean, gain, nis, det = small.correct(tuple(x), rows(P), tuple(e), rows(H), rows(R))
    np.testing.assert_allclose(mean, x + K @ e, rtol=1e-10)
    np.testing.assert_allclose(gain, K, rtol=1e-10)
    np.testing.assert_allclose([nis, det], [e @ np.linalg.solve(S, e), np.linalg.det(S)], rtol=1e-9)
    updated = (np.eye(4) - K @ H) @ P
    np.testing.assert_allclose(small.joseph(rows(P), gain, rows(H), rows(R)), updated, atol=1e-12)
    np.testing.assert_allclose(small.simple(rows(P), gain, rows(H)), updated, atol=1e-12)


def test_rows_that_are_missing_do_as_if_they_were_cut_out():
    P, H, R = covariance(4), RNG.standard_normal((3, 4)), covariance(3)
    there = small.known((1.0, math.nan, 2.0))
    assert tuple(float(flag) for flag in there) == (1.0, 0.0, 1.0)
    kept, noise = small.without_missing(there, rows(H), rows(R))
    x, e = (0.0,) * 4, (0.3, 0.0, -0.7)
    whole = small.correct(x, rows(P), e, kept, noise)
    cut = [0, 2]
    part = small.correct(x, rows(P), (0.3, -0.7), rows(H[cut]), rows(R[np.ix_(cut, cut)]))
    for one, other in zip((whole[0], whole[2], whole[3]), (part[0], part[2], part[3]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize(("size", "rank"), [(1, 1), (4, 4), (4, 2), (3, 0)])
def test_the_root_of_a_singular_covariance_gives_it_back(size, rank):
    S = covariance(size, rank) if rank else np.zeros((size, size))
    L = np.empty_like(S)
    assert matrices.root(S, size, L)
    np.testing.assert_allclose(L @ L.T, S, atol=1e-10)
    assert (np.triu(L, 1) == 0.0).all()


@pytest.mark.parametrize("matrix", [[[-1.0]], [[0.0, 1.0], [1.0, 0.0]], [[1.0, 2.0], [2.0, 1.0]]])
def test_what_is_no_covariance_has_no_root(matrix):
    S = np.array(matrix)
    assert not matrices.root(S, len(S), np.empty_like(S))
    assert not matrices.cholesky(S, len(S), np.empty_like(S))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reflections_leave_the_product_with_the_transpose(dtype):
    A = RNG.standard_normal((3, 7)).astype(dtype)
    A[:, 2] *= 1e-6
    before = A.astype(float) @ A.T.astype(float)
    matrices.lower_triangle(A, 3, 7)
    assert A.dtype == dtype
    assert (np.triu(A, 1) == 0.0).all()
    assert (A.diagonal() >= 0.0).all()
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(A.astype(float) @ A.T.astype(float), before, rtol=tolerance)


def test_rows_of_zeros_are_triangular_already():
    A = np.zeros((2, 4))
    matrices.lower_triangle(A, 2, 4)
    assert (A == 0.0).all()
