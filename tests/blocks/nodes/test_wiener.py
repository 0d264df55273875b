import needs
import numpy as np
import pytest

from blocks.kernels.trellis import ALPHABETS
from blocks.nodes.node import labels_of, node_of
from blocks.nodes.taps import Taps
from blocks.nodes.wiener import Wiener
from pipeline.errors import WeightsError

TAPS = np.array([1.0, 0.6, -0.3])


def received(modulation, count, noise_var=0.1, curve=None, seed=1):
    """Samples and classes of a channel whose first symbols follow known ones."""
    rng = np.random.default_rng(seed)
    alphabet = ALPHABETS[modulation]
    symbols = rng.integers(0, alphabet.size, count)
    sent = np.concatenate([np.repeat(alphabet[:1], 2), alphabet[symbols]])
    taps = TAPS * (1.0 + 0.3j) if modulation == "qpsk" else TAPS
    values = sum(tap * sent[2 - k :][:count] for k, tap in enumerate(taps))
    noise = np.sqrt(noise_var) * rng.standard_normal(count)
    if modulation == "qpsk":
        noise = (noise + 1j * np.sqrt(noise_var) * rng.standard_normal(count)) / np.sqrt(2)
    values = values + noise
    if curve is not None:
        values = curve(values)
    dtype = np.complex64 if modulation == "qpsk" else np.float32
    return values.astype(dtype), labels_of(symbols, 3, alphabet.size, before=0)


def moved_a_little(modulation):
    samples, labels = received(modulation, 40)
    node = Wiener.fresh(modulation, 3, samples, labels)
    step = 0.2 * np.random.default_rng(5).standard_normal(node.parameters.size)
    return node.moved(node.parameters + step), samples, labels


def differences(function, at, step=1e-5):
    """Central differences, last axis: parameters."""
    rows = [function(at + step * row) - function(at - step * row) for row in np.eye(at.size)]
    return np.stack(rows, axis=-1) / (2.0 * step)


@pytest.mark.parametrize("modulation", ["bpsk", "ook", "qpsk"])
def test_derivatives_are_those_of_differences(modulation):
    node, samples, labels = moved_a_little(modulation)
    labels = labels.copy()
    labels[3] = -1
    loss, gradient = node.gradient(samples, labels)
    assert loss == pytest.approx(node.losses(samples, labels).mean(), rel=1e-5)
    expected = differences(lambda p: node.moved(p).gradient(samples, labels)[0], node.parameters)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-6)
    logs, jacobian = node.jacobian(samples[:5])
    expected = differences(lambda p: node.moved(p).jacobian(samples[:5])[0], node.parameters)
    np.testing.assert_allclose(jacobian, expected, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(np.exp(logs).sum(axis=1), 1.0, rtol=1e-12)


@pytest.mark.parametrize("modulation", ["bpsk", "ook", "qpsk"])
def test_a_fresh_node_decides_as_least_squares(modulation):
    samples, labels = received(modulation, 200)
    wide = complex if modulation == "qpsk" else float
    empty = {"taps": np.zeros(3, wide), "noise_var": np.array(1.0)}
    linear = Taps(modulation, 3, empty).fitted(samples, labels)
    node = Wiener.fresh(modulation, 3, samples, labels)
    # also far outside the samples that the knots were chosen from
    seen = np.concatenate([samples, 20.0 * samples])
    rows = np.empty((2, 400, node.n_classes), np.float32)
    linear.metrics(seen, rows[0])
    node.metrics(seen, rows[1])
    np.testing.assert_allclose(rows[1], rows[0], rtol=1e-4, atol=1e-4)


@needs.compiled
def test_on_a_linear_channel_learning_costs_little():
    samples, labels = received("bpsk", 2000)
    fresh = Wiener.fresh("bpsk", 3, samples, labels)
    learned = fresh.descended(
        samples, labels, steps=200, rate=1e-2, batch=0, rng=np.random.default_rng(1)
    )
    others = received("bpsk", 20_000, seed=2)
    truth = Taps("bpsk", 3, {"taps": TAPS, "noise_var": np.array(0.1)}).losses(*others)
    # 14 parameters learned from 2000 samples cost 14 / (2 2000) nat at most, by Akaike
    excess = learned.losses(*others) - truth
    assert excess.mean() < 14 / 4000 + 3.0 * excess.std() / np.sqrt(20_000)


@needs.compiled
def test_behind_a_saturating_amplifier_it_learns_the_curve():
    def curve(values):
        return np.tanh(0.7 * values)

    samples, labels = received("bpsk", 4000, curve=curve)
    fresh = Wiener.fresh("bpsk", 3, samples, labels)
    learned = fresh.descended(
        samples, labels, steps=400, rate=2e-2, batch=0, rng=np.random.default_rng(1)
    )
    others, classes = received("bpsk", 20_000, curve=curve, seed=2)
    straight = np.arctanh(others.astype(float)).astype(np.float32) / np.float32(0.7)
    truth = Taps("bpsk", 3, {"taps": TAPS, "noise_var": np.array(0.1)})
    best, linear, found = (
        node.losses(values, classes).mean()
        for node, values in [(truth, straight), (fresh, others), (learned, others)]
    )
    assert found - best < 0.1 * (linear - best)


def test_weights_give_an_equal_node():
    node, samples, _ = moved_a_little("qpsk")
    again = node_of(node.weights("channel"))
    np.testing.assert_allclose(again.parameters, node.parameters, rtol=1e-12)
    rows = np.empty((2, 40, node.n_classes), np.float32)
    node.metrics(samples, rows[0])
    again.metrics(samples, rows[1])
    np.testing.assert_array_equal(rows[0], rows[1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"taps": TAPS[:2]}, r"taps has shape \(2,\); expected \(3,\)"),
        ({"noise_var": np.array(-1.0)}, "expected one number above 0"),
        ({"knots": np.zeros(7)}, "knots do not rise"),
        ({"bends": np.zeros(2), "knots": np.zeros(1)}, "bends has 2 numbers"),
    ],
)
def test_other_weights_are_refused(change, said):
    node, _, _ = moved_a_little("bpsk")
    broken = Wiener("bpsk", 3, node.arrays).weights("channel")
    broken = type(broken)("channel", 1, {**broken.arrays, **change}, broken.hyper)
    with pytest.raises(WeightsError, match=said):
        node_of(broken)


def test_samples_that_show_no_curve_are_refused():
    labels = np.arange(8).repeat(3)
    with pytest.raises(ValueError, match="all the same"):
        Wiener.fresh("bpsk", 3, np.ones(24, np.float32), labels)
