import numpy as np
import pytest
from scipy.stats import chi2

from blocks.kernels import consistency
from blocks.kernels.consistency import (
    NEES,
    NEES_LAST,
    NEES_STEPS,
    NIS,
    NIS_DEGREES,
    POSITION,
    SQUARED,
    STEPS,
    SUMS,
)

RNG = np.random.default_rng(2)


def sums_of(truth, found, spread, **given):
    sums = np.zeros(SUMS)
    sums[NEES_LAST] = np.nan
    size = truth.shape[1]
    pieces = np.empty(50)
    done = consistency.add_errors(
        truth, found, spread, given.get("positions", size), given.get("first", 0),
        given.get("piece", 0), sums, np.zeros(1), pieces, np.empty((2, size, size)),
    )  # fmt: skip
    return sums, pieces[:done]


@pytest.mark.parametrize("degrees", [5, 20, 300, 1e5])
@pytest.mark.parametrize("p", [0.025, 0.975])
def test_quantiles_are_those_of_the_chi_square_distribution(degrees, p):
    z = 1.959964 if p > 0.5 else -1.959964
    found = consistency.chi_square_quantile(z, degrees)
    assert found == pytest.approx(chi2.ppf(p, degrees), rel=0.05 if degrees < 10 else 0.005)


def test_sums_are_those_of_the_definition():
    truth, found = RNG.standard_normal((2, 30, 3))
    root = RNG.standard_normal((30, 3, 3))
    spread = root @ root.swapaxes(1, 2) + np.eye(3)
    e = found - truth
    sums, _ = sums_of(truth, found, spread, positions=2, first=4)
    e, spread = e[4:], spread[4:]
    assert sums[STEPS] == 26
    assert sums[SQUARED] == pytest.approx((e**2).sum())
    assert sums[POSITION] == pytest.approx((e[:, :2] ** 2).sum())
    nees = np.einsum("ti,ti->t", e, np.linalg.solve(spread, e[:, :, None])[:, :, 0])
    assert sums[NEES] == pytest.approx(nees.sum())


def test_pieces_are_counted_from_the_start():
    truth, found = RNG.standard_normal((2, 25, 2))
    _, pieces = sums_of(truth, found, np.empty((0, 2, 2)), piece=10)
    squared = ((found - truth) ** 2).mean(axis=1)
    np.testing.assert_allclose(pieces, [squared[:10].mean(), squared[10:20].mean()])


def test_a_singular_covariance_is_left_out():
    truth, found = RNG.standard_normal((2, 5, 2))
    spread = np.tile(np.eye(2), (5, 1, 1))
    spread[2] = 0.0
    assert sums_of(truth, found, spread)[0][NEES_STEPS] == 4


def test_missing_rows_have_no_degrees_of_freedom():
    innovations = np.array([[1.0, 2.0], [np.nan, 1.0], [np.nan, np.nan]])
    sums = np.zeros(SUMS)
    consistency.add_innovations(innovations, np.array([4.0, 1.5, 0.0]), 0, sums)
    assert sums[NIS_DEGREES] == 3
    assert sums[NIS] == 5.5


def test_correlated_errors_are_worth_fewer_steps():
    steps, rho = 40_000, 0.9
    white = RNG.standard_normal((steps, 1))
    e = np.zeros((steps, 1))
    for i in range(1, steps):
        e[i] = rho * e[i - 1] + np.sqrt(1.0 - rho**2) * white[i]
    spread = np.ones((steps, 1, 1))
    correlated = consistency.independent_steps(sums_of(np.zeros((steps, 1)), e, spread)[0])
    alone = consistency.independent_steps(sums_of(np.zeros((steps, 1)), white, spread)[0])
    # the square of an AR(1) process has the correlation rho^2 between neighbours
    assert correlated == pytest.approx(steps * (1.0 - rho**2) / (1.0 + rho**2), rel=0.1)
    assert alone == pytest.approx(steps, rel=0.05)
