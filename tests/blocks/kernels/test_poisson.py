import numpy as np
import pytest
from scipy import stats

from blocks.kernels import poisson


def counts(uniforms, means):
    uniforms, means = np.broadcast_arrays(np.float64(uniforms), np.float64(means))
    out = np.empty(uniforms.shape)
    poisson.invert(np.ascontiguousarray(uniforms), np.ascontiguousarray(means), out)
    return out


@pytest.mark.parametrize("mean", [1e-3, 1.0, 4.7, 110.0, 143.9, 800.0, 1e6])
def test_counts_are_the_quantiles_of_the_distribution(mean):
    uniforms = np.random.default_rng(3).random(400)
    np.testing.assert_array_equal(counts(uniforms, mean), stats.poisson.ppf(uniforms, mean))


def test_mean_zero_gives_zero_counts():
    np.testing.assert_array_equal(counts([0.0, 0.5, 1 - 2**-53], 0.0), 0.0)


@pytest.mark.parametrize("mean", [0.5, 30.0, 5000.0])
def test_extreme_uniform_numbers_give_counts_of_matching_probability(mean):
    low, high = counts([0.0, 1 - 2**-53], mean)
    assert low <= stats.poisson.ppf(1e-30, mean)
    # the first term is right to some mean * log(mean) roundings, and all others follow from it
    assert 1e-22 < stats.poisson.sf(high, mean) < 1e-15 * max(10.0, mean * np.log(mean))
