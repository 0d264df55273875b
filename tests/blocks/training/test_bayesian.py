import numpy as np
import pytest

from blocks.nodes.node import Trainable, labels_of
from blocks.nodes.wiener import Wiener
from blocks.training.bayesian import Bayesian
from blocks.training.labelled import Labelled


class Line(Trainable):
    """y = parameters . symbols + noise of variance 0.2, of two symbols; labels are 0 ... 3."""

    def __init__(self, parameters):
        self._parameters = np.asarray(parameters, float)

    @classmethod
    def of(cls, hyper, arrays): ...

    def metrics(self, samples, metrics): ...

    def gradient(self, samples, labels): ...

    def jacobian(self, samples): ...

    def descended(self, samples, labels, **kw): ...

    parameters = property(lambda self: self._parameters.copy())

    def moved(self, parameters):
        return Line(parameters)

    def observed(self, samples, labels):
        rows = design(labels)
        return rows.T @ (samples - rows @ self._parameters) / 0.2, rows / np.sqrt(0.2)


class Coin(Trainable):
    """Class 1 with probability 1 / (1 + exp(-a - b y)): logistic regression."""

    def __init__(self, parameters):
        self._parameters = np.asarray(parameters, float)

    @classmethod
    def of(cls, hyper, arrays): ...

    def metrics(self, samples, metrics): ...

    def gradient(self, samples, labels): ...

    def descended(self, samples, labels, **kw): ...

    parameters = property(lambda self: self._parameters.copy())

    def moved(self, parameters):
        return Coin(parameters)

    def jacobian(self, samples):
        inputs = np.stack([np.ones(len(samples)), samples], axis=1)
        z = inputs @ self._parameters
        p = 1.0 / (1.0 + np.exp(-z))
        logs = np.stack([np.log(1.0 - p), np.log(p)], axis=1)
        slopes = np.stack([-p[:, None] * inputs, (1.0 - p)[:, None] * inputs], axis=1)
        return logs, slopes


def design(labels):
    return np.stack([2.0 * (labels % 2) - 1.0, 2.0 * (labels // 2) - 1.0], axis=1)


def words(count, length, seed):
    """Of `Line`, with taps that drift by 0.1 from word to word."""
    rng = np.random.default_rng(seed)
    taps = np.array([1.0, -0.5])
    for _ in range(count):
        labels = rng.integers(0, 4, length)
        samples = design(labels) @ taps + np.sqrt(0.2) * rng.standard_normal(length)
        yield Labelled(samples, labels, False, 0.0)
        taps = taps + 0.1 * rng.standard_normal(2)


@pytest.mark.parametrize("iterations", [1, 3])
def test_on_a_linear_model_it_is_the_kalman_filter(iterations):
    strategy = Bayesian(prior=2.0, drift=0.1, iterations=iterations)
    mean, covariance = np.zeros(2), 4.0 * np.eye(2)
    serving = Line(mean)
    for word in words(6, 5, seed=1):
        serving = found = strategy.update(serving, word)
        # Kalman, 1960, sample by sample, with a gain
        covariance = covariance + 0.01 * np.eye(2)
        for sample, row in zip(word.samples, design(word.labels), strict=True):
            gain = covariance @ row / (row @ covariance @ row + 0.2)
            mean = mean + gain * (sample - row @ mean)
            covariance = covariance - np.outer(gain, row @ covariance)
        np.testing.assert_allclose(found.parameters, mean, rtol=1e-9)
        np.testing.assert_allclose(strategy.state()["proposed_covariance"], covariance, rtol=1e-9)


def test_without_drift_it_is_least_squares_over_all_words():
    strategy = Bayesian(prior=1e4, drift=0.0)
    seen = list(words(5, 20, seed=2))
    found = Line(np.zeros(2))
    for word in seen:
        found = strategy.update(found, word)
    rows = np.concatenate([design(word.labels) for word in seen])
    expected = np.linalg.lstsq(rows, np.concatenate([word.samples for word in seen]), rcond=None)
    np.testing.assert_allclose(found.parameters, expected[0], rtol=1e-6)


def test_words_that_are_lost_leave_more_doubt():
    strategy = Bayesian(prior=1.0, drift=0.5)
    (word,) = words(1, 20, seed=3)
    strategy.update(Line(np.zeros(2)), word)
    before = strategy.state()["proposed_covariance"]
    strategy.lost()
    after = strategy.state()["proposed_covariance"]
    np.testing.assert_allclose(after, before + 0.25 * np.eye(2))


def test_what_a_refused_word_told_is_forgotten():
    first, wrong, last = words(3, 20, seed=6)
    wrong = wrong._replace(labels=wrong.labels ^ 3)
    refused, lost = Bayesian(), Bayesian()
    for strategy in (refused, lost):
        served = strategy.update(Line(np.zeros(2)), first)
    refused.update(served, wrong)
    lost.lost()
    found = refused.update(served, last)  # the same node serves as before
    np.testing.assert_allclose(found.parameters, lost.update(served, last).parameters, rtol=1e-12)


def test_categorical_labels_are_met_as_by_the_textbook_filter():
    strategy = Bayesian(prior=1.0, drift=0.1)
    node = Coin([0.2, -0.4])
    mean, covariance = node.parameters, np.eye(2)
    rng = np.random.default_rng(4)
    for _ in range(20):
        sample, label = rng.standard_normal(), rng.integers(0, 2)
        found = node = strategy.update(
            node, Labelled(np.array([sample]), np.array([label]), False, 0.0)
        )
        # observation: the label, of mean p and variance p (1 - p); Singhal and Wu, NIPS 1988
        covariance = covariance + 0.01 * np.eye(2)
        inputs = np.array([1.0, sample])
        p = 1.0 / (1.0 + np.exp(-inputs @ mean))
        slope = p * (1.0 - p) * inputs
        gain = covariance @ slope / (slope @ covariance @ slope + p * (1.0 - p))
        mean = mean + gain * (label - p)
        covariance = covariance - np.outer(gain, slope @ covariance)
        np.testing.assert_allclose(found.parameters, mean, rtol=1e-9)


def test_a_diagonal_belief_is_the_full_one_where_parameters_have_nothing_in_common():
    labels = np.array([0, 1, 2, 3])  # columns of the design are orthogonal
    word = Labelled(np.array([0.3, 1.0, -0.2, 0.8]), labels, False, 0.0)
    found = [Bayesian(covariance=kind).update(Line([0.1, 0.2]), word) for kind in
             ("full", "diagonal")]  # fmt: skip
    np.testing.assert_allclose(found[1].parameters, found[0].parameters, rtol=1e-12)


def test_information_of_a_wiener_node_is_the_covariance_of_its_score():
    """Samples drawn from the node itself; 40,000 of them, in 400 groups."""
    rng = np.random.default_rng(5)
    symbols = rng.integers(0, 2, 40_000)
    labels = labels_of(symbols, 2, 2, before=0)
    clean = design(labels) @ np.array([1.0, 0.5])
    straight = clean + 0.5 * rng.standard_normal(clean.size)
    start = Wiener.fresh("bpsk", 2, straight[:500].astype(np.float32), labels[:500], cells=4)
    bends = np.array([0.4, -0.2, 0.1, 0.5])
    node = start.moved(np.concatenate([[1.0, 0.5, 0.0], [np.log(0.25)], bends]))
    # samples whose straightened form is `straight`: z rises, so invert it on a fine grid
    grid = np.linspace(-6.0, 6.0, 4001)
    z = clean_of(node, grid)
    samples = np.interp(straight, z, grid).astype(np.float32)
    scores = np.array(
        [node.observed(*pair)[0] for pair in zip(samples.reshape(400, 100),
                                                 labels.reshape(400, 100), strict=True)]
    )  # fmt: skip
    _, rows = node.observed(samples, labels)
    information = rows.T @ rows / 400.0
    scale = np.sqrt(np.diag(information))
    assert np.abs(scores.mean(axis=0) / scale).max() < 4.0 / np.sqrt(400)
    found = scores.T @ scores / 400.0
    # each entry of a sample covariance of 400 is within 4 of its deviations, at most sqrt(2 / 400)
    np.testing.assert_allclose(
        found / np.outer(scale, scale), information / np.outer(scale, scale), atol=4 * 0.0707
    )


def clean_of(node, samples):
    """z of each sample: from metrics to two classes, which are parabolas in z."""
    metrics = np.empty((samples.size, 4))
    node.metrics(samples, metrics)
    taps, noise_var = node.arrays["taps"], float(node.arrays["noise_var"])
    low, high = -taps.sum(), taps.sum()
    return ((metrics[:, 0] - metrics[:, 3]) * 2.0 * noise_var + high**2 - low**2) / (
        2.0 * (high - low)
    )


def test_a_restored_one_goes_on_alike():
    whole, before, after = (Bayesian() for _ in range(3))
    *first, last = words(4, 20, seed=8)
    serving = Line(np.zeros(2))
    for word in first:
        before.update(serving, word)
        serving = whole.update(serving, word)
    after.restore(before.state())
    expected, found = (each.update(serving, last) for each in (whole, after))
    np.testing.assert_array_equal(found.parameters, expected.parameters)
