import numpy as np
import pytest

from blocks.kernels.trellis import ALPHABETS
from blocks.nodes.class_gaussians import ClassGaussians
from blocks.nodes.node import labels_of, node_of
from blocks.nodes.taps import Taps
from pipeline.errors import WeightsError
from pipeline.weights import Weights

TAPS = np.array([1.0, 0.6, -0.3])
NOISE_VAR = 0.2


def received(modulation, count, seed=1):
    """Samples of a channel, their classes, and the node that knows it."""
    rng = np.random.default_rng(seed)
    alphabet = ALPHABETS[modulation]
    is_complex = modulation == "qpsk"
    taps = TAPS * (1 + 0.3j) if is_complex else TAPS
    symbols = rng.integers(0, alphabet.size, count)
    sent = np.concatenate([np.zeros(2), alphabet[symbols]])
    clean = sum(tap * sent[2 - k :][:count] for k, tap in enumerate(taps))
    noise = rng.standard_normal(count) * np.sqrt(NOISE_VAR)
    if is_complex:
        noise = (noise + 1j * rng.standard_normal(count) * np.sqrt(NOISE_VAR)) / np.sqrt(2)
    samples = (clean + noise).astype(np.complex64 if is_complex else np.float32)
    truth = Taps(modulation, 3, {"taps": taps, "noise_var": np.array(NOISE_VAR)})
    return samples, labels_of(symbols, 3, alphabet.size), truth


def empty_gaussians(modulation):
    count = ALPHABETS[modulation].size ** 3
    dtype = complex if modulation == "qpsk" else float
    return ClassGaussians(
        modulation, 3, {"mean": np.zeros(count, dtype), "variance": np.ones(count)}
    )


@pytest.mark.parametrize("modulation", ["bpsk", "ook", "qpsk"])
def test_least_squares_finds_taps_within_its_bound(modulation):
    samples, labels, truth = received(modulation, 20_000)
    found = truth.fitted(samples, labels)
    symbols = ALPHABETS[modulation].astype(complex)
    power = np.mean(np.abs(symbols - symbols.mean()) ** 2)
    bound = np.sqrt(NOISE_VAR / (20_000 * power))  # Cramer-Rao, per complex tap, mean known
    assert np.abs(found.arrays["taps"] - truth.arrays["taps"]).max() < 5.0 * bound
    assert found.arrays["noise_var"] == pytest.approx(NOISE_VAR, rel=5.0 * np.sqrt(2 / 20_000))


@pytest.mark.parametrize("modulation", ["bpsk", "ook", "qpsk"])
def test_gaussians_of_classes_find_the_same_means(modulation):
    samples, labels, truth = received(modulation, 20_000)
    found = empty_gaussians(modulation).fitted(samples, labels)
    per_class = 20_000 / found.n_classes
    assert np.abs(found.arrays["mean"] - truth.means).max() < 5.0 * np.sqrt(NOISE_VAR / per_class)
    np.testing.assert_allclose(
        found.arrays["variance"], NOISE_VAR, rtol=6.0 * np.sqrt(2 / per_class)
    )


@pytest.mark.parametrize("modulation", ["bpsk", "qpsk"])
def test_metrics_are_log_densities_and_losses_their_posteriors(modulation):
    samples, labels, truth = received(modulation, 50)
    metrics = np.empty((50, truth.n_classes), np.float32)
    truth.metrics(samples, metrics)
    density = np.exp(-metrics.astype(float))
    posterior = density / density.sum(axis=1, keepdims=True)
    known = labels >= 0
    expected = -np.log(posterior[known, labels[known]])
    np.testing.assert_allclose(truth.losses(samples, labels), expected, rtol=1e-4, atol=1e-6)
    means, variance = truth.means, np.full(truth.n_classes, NOISE_VAR)
    alike = ClassGaussians(modulation, 3, {"mean": means, "variance": variance})
    np.testing.assert_allclose(
        alike.losses(samples, labels), truth.losses(samples, labels), rtol=1e-4, atol=1e-6
    )


def test_a_class_that_was_not_seen_keeps_its_mean():
    samples, labels, _ = received("bpsk", 500)
    labels[labels == 5] = -1
    before = empty_gaussians("bpsk")
    found = before.fitted(samples, labels)
    assert found.arrays["mean"][5] == 0.0
    assert (found.arrays["variance"] > 0).all()


@pytest.mark.parametrize("node", [received("bpsk", 9)[2], empty_gaussians("bpsk")])
def test_too_few_labels_are_refused(node):
    samples, labels, _ = received("bpsk", 3)
    with pytest.raises(ValueError, match="labelled samples do not determine"):
        node.fitted(samples, labels)


def test_weights_give_an_equal_node():
    samples, _, truth = received("qpsk", 20)
    again = node_of(truth.weights("channel", version=3))
    rows = np.empty((2, 20, truth.n_classes), np.float32)
    truth.metrics(samples, rows[0])
    again.metrics(samples, rows[1])
    np.testing.assert_array_equal(rows[0], rows[1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hyper": {"kind": "gru"}}, "of kind 'gru', which is no function node; expected one of"),
        ({"arrays": {"taps": TAPS}}, "lack 'noise_var'"),
        ({"arrays": {"taps": TAPS[:2], "noise_var": np.array(1.0)}}, r"taps has shape \(2,\)"),
        ({"arrays": {"taps": TAPS, "noise_var": np.array(0.0)}}, "expected one number above 0"),
    ],
)
def test_other_weights_are_refused(change, said):
    good = received("bpsk", 9)[2].weights("channel")
    values = {"arrays": good.arrays, "hyper": good.hyper, **change}
    with pytest.raises(WeightsError, match=said):
        node_of(Weights("channel", 1, **values))
