import math

import numpy as np
import pytest

from blocks.training.gate import agreement, excess


def test_the_excess_is_the_statistic_of_a_paired_t_test():
    stats = pytest.importorskip("scipy.stats", reason="needs scipy: see pyproject.toml")
    rng = np.random.default_rng(1)
    for _ in range(20):
        candidate, serving = rng.exponential(size=(2, 136))
        expected = stats.ttest_rel(candidate, serving).statistic
        assert excess(candidate, serving) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("candidate", "serving", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.5, 2.5], [1.0, 2.0], math.inf),
        ([0.5, 1.5], [1.0, 2.0], -math.inf),
        ([1.0, math.nan], [9.0, 9.0], math.inf),
        ([1.0, math.inf], [9.0, math.inf], math.inf),
        ([1.0, 2.0], [1.0, math.inf], -math.inf),
        ([1.0], [9.0], math.inf),
        ([], [], math.inf),
    ],
)
def test_what_is_not_finite_or_alike_has_an_excess_too(candidate, serving, expected):
    assert excess(np.array(candidate), np.array(serving)) == expected


def test_labels_by_chance_agree_with_nothing_and_the_likeliest_wholly():
    rng = np.random.default_rng(2)
    metrics = rng.standard_normal((20_000, 16))
    # the mean of 20,000 ranks that are uniform on -1 ... 1 in 16 steps
    error = math.sqrt((1 - 2 / 17) ** -1 / 3 / 20_000)
    assert abs(agreement(metrics, rng.integers(0, 16, 20_000))) < 4.0 * error
    assert agreement(metrics, metrics.argmin(axis=1)) == 1.0
    assert agreement(metrics, metrics.argmax(axis=1)) == -1.0
    assert agreement(1e6 * metrics, metrics.argmin(axis=1)) == 1.0


def test_samples_without_a_label_do_not_count():
    metrics = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    assert agreement(metrics, np.array([0, -1, -1])) == 1.0
    assert math.isnan(agreement(metrics, np.full(3, -1)))


def test_a_node_that_tells_nothing_agrees_as_by_chance():
    assert agreement(np.zeros((5, 4)), np.array([0, 1, 2, 3, 0])) == 0.0
