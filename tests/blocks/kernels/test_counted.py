import numpy as np
import pytest
from numba.core import config
from scipy import stats
from scipy.special import ndtri

from blocks.kernels import counted

KEY, OTHER = np.uint64(12345), np.uint64(12346)
COUNT = 20_000 if config.DISABLE_JIT else 200_000
pytestmark = pytest.mark.filterwarnings("ignore:overflow")  # meant, and only Python mentions it


def draw(key, first=0, count=COUNT):
    out = np.empty(count)
    counted.normals(key, np.uint64(first), np.empty_like(out), out)
    return out


def test_the_quantile_is_that_of_the_normal_distribution():
    p = np.concatenate([np.linspace(0.001, 0.999, 998), 10.0 ** -np.arange(4.0, 300.0, 7.0)])
    found = np.array([counted.normal_quantile(value) for value in p])
    np.testing.assert_allclose(found, ndtri(p), rtol=1e-14, atol=1e-16)


def test_mixed_bits_are_those_of_splitmix64():
    # the first outputs of the published generator for the seed 1234567
    found = [int(counted.mixed(np.uint64(1234567), np.uint64(n))) for n in range(3)]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_a_value_depends_on_its_place_alone():
    whole = draw(KEY, 0, 100)
    np.testing.assert_array_equal(draw(KEY, 40, 20), whole[40:60])


def test_values_are_normal_and_independent_of_their_neighbours_and_of_other_keys():
    values, others = draw(KEY), draw(OTHER)
    assert stats.kstest(values, "norm").pvalue > 0.01
    limit = 4.0 / np.sqrt(COUNT)
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < limit
    assert abs(np.corrcoef(values, others)[0, 1]) < limit


def test_uniform_values_exclude_0_and_1():
    values = np.array([counted.uniform(KEY, np.uint64(n)) for n in range(2000)])
    assert 0.0 < values.min() < values.max() < 1.0
    assert stats.kstest(values, "uniform").pvalue > 0.01
