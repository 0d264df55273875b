import numpy as np
import pytest

from blocks.training.drift import Ddm, PageHinkley


def siegmund(drift, threshold):
    """Mean steps to an alarm of a one-sided cumulative sum of N(drift, 1), from 0.

    Siegmund, Sequential Analysis, 1985, (2.54): for drift -0.5 and 0.5 and threshold 4 the tables
    of Montgomery's textbook have 336 and 8.38.
    """
    b = threshold + 1.166
    return (np.exp(-2.0 * drift * b) + 2.0 * drift * b - 1.0) / (2.0 * drift**2)


def run_lengths(mean, runs, seed):
    """Steps to an alarm of a test that has seen many numbers of mean 0."""
    test = PageHinkley(allowance=0.5, threshold=4.0)
    for _ in range(20_000):
        test.add(0.0)
    before = test.state()
    rng = np.random.default_rng(seed)
    lengths = []
    for _ in range(runs):
        test.restore(before)
        steps = 1
        while not test.add(mean + rng.standard_normal()):
            steps += 1
        lengths.append(steps)
    return np.array(lengths)


@pytest.mark.parametrize(("mean", "runs"), [(0.0, 300), (1.0, 1000)])
def test_page_hinkley_fires_as_late_as_siegmund_says(mean, runs):
    lengths = run_lengths(mean, runs, seed=7)
    expected = siegmund(mean - 0.5, 4.0)
    error = lengths.std() / np.sqrt(runs)
    # the mean that it learns moves by some 1 % meanwhile
    assert abs(lengths.mean() - expected) < 3.0 * error + 0.05 * expected


def test_page_hinkley_looks_up_only():
    test = PageHinkley(allowance=0.1, threshold=1.0)
    assert not any(test.add(value) for value in np.linspace(5.0, -5.0, 200))


@pytest.mark.parametrize("trials", [1, 136])
def test_ddm_fires_where_its_definition_does(trials):
    rng = np.random.default_rng(3)
    rates = np.repeat([0.1, 0.25], 300)
    for _ in range(20):
        errors = rng.binomial(trials, rates)
        count = trials * np.arange(1, 601)
        share = np.cumsum(errors) / count
        deviation = np.sqrt(share * (1.0 - share) / count)
        expected = None
        for t in np.flatnonzero(count >= 30):
            past = np.flatnonzero(count[: t + 1] >= 30)
            best = past[np.argmin((share + deviation)[past])]
            if share[t] + deviation[t] > share[best] + 3.0 * deviation[best]:
                expected = t
                break
        test = Ddm(trials=trials)
        found = next((t for t in range(600) if test.add(errors[t] / trials)), None)
        assert found == expected
        assert found is not None


def test_ddm_never_fires_on_no_errors_and_at_once_on_the_first_after_them():
    test = Ddm()
    assert not any(test.add(0.0) for _ in range(1000))
    assert test.add(1.0)
