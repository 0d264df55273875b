import math

import needs
import numpy as np
import pytest

from blocks.kernels.trellis import ALPHABETS
from blocks.nodes.dense import Dense, batches_of
from blocks.nodes.node import labels_of, node_of
from pipeline.errors import WeightsError
from pipeline.weights import Weights

SMALL = {"hidden": (9, 7), "activations": ("tanh", "relu")}


def fresh(modulation="bpsk", memory=2, seed=0, **changes):
    return Dense.fresh(modulation, memory, rng=np.random.default_rng(seed), **{**SMALL, **changes})


def received(modulation, count, memory=2, seed=1):
    rng = np.random.default_rng(seed)
    alphabet = ALPHABETS[modulation]
    symbols = rng.integers(0, alphabet.size, count)
    sent = np.concatenate([np.zeros(memory - 1), alphabet[symbols]])
    samples = sum(0.6**k * sent[memory - 1 - k :][:count] for k in range(memory))
    samples = samples + 0.3 * rng.standard_normal(count)
    if modulation == "qpsk":
        samples = samples + 0.3j * rng.standard_normal(count)
    dtype = np.complex64 if modulation == "qpsk" else np.float32
    return samples.astype(dtype), labels_of(symbols, memory, alphabet.size)


def metrics_of(node, samples):
    metrics = np.empty((len(samples), node.n_classes), np.float32)
    node.metrics(samples, metrics)
    return metrics


def posteriors(metrics):
    likelihoods = np.exp(-metrics.astype(float))
    return likelihoods / likelihoods.sum(axis=1, keepdims=True)


def trained(node, samples, labels, steps=50, seed=2):
    rng = np.random.default_rng(seed)
    return node.descended(samples, labels, steps=steps, rate=1e-2, batch=32, rng=rng)


def test_a_fresh_node_has_the_size_and_spread_of_the_paper():
    node = Dense.fresh("bpsk", 4, rng=np.random.default_rng(0))
    assert node.sizes == (1, 100, 50, 16)
    assert node.activations == ("sigmoid", "relu")
    assert node.parameters.size == 6066  # reference: receivers.md 1.1
    for k, n_in in enumerate((1, 100, 50)):  # uniform within 1 / sqrt(n_in): what torch states
        for name in (f"weight{k}", f"bias{k}"):
            array, bound = node.arrays[name], 1.0 / math.sqrt(n_in)
            assert array.dtype == np.float32
            assert np.abs(array).max() <= bound
        spread = node.arrays[f"weight{k}"].std()
        assert spread == pytest.approx(bound / math.sqrt(3.0), rel=0.2)
    assert Dense.fresh("qpsk", 2, rng=np.random.default_rng(0)).sizes == (2, 100, 50, 16)


@pytest.mark.parametrize("modulation", ["ook", "qpsk"])
def test_losses_gradients_and_jacobians_are_of_one_function(modulation):
    samples, labels = received(modulation, 40)
    node = fresh(modulation)
    assert labels[0] == -1  # left out
    known = labels >= 0
    loss, gradient = node.gradient(samples, labels)
    assert loss == pytest.approx(node.losses(samples, labels).mean(), rel=1e-5)
    logs, derivatives = node.jacobian(samples[known])
    np.testing.assert_allclose(-logs, metrics_of(node, samples[known]), atol=1e-5)
    own = derivatives[np.arange(known.sum()), labels[known]]
    np.testing.assert_allclose(gradient, -own.mean(axis=0), atol=1e-6)


def test_the_hessian_is_symmetric_and_that_of_autograd():
    samples, labels = received("bpsk", 40)
    node = fresh(activations=("tanh", "sigmoid"))
    rng = np.random.default_rng(3)
    u, v = rng.standard_normal((2, node.parameters.size))
    of_u, of_v = (node.hessian_product(samples, labels, w) for w in (u, v))
    assert u @ of_v == pytest.approx(v @ of_u, rel=1e-6)
    np.testing.assert_array_equal(node.hessian_product(samples, labels, 0.0 * u), 0.0 * u)
    torch = needs.package("torch", "train")
    known = labels >= 0
    inputs = torch.tensor(samples[known, None].astype(float))

    def loss(vector):
        x, at = inputs, 0
        for k, activation in enumerate((torch.tanh, torch.sigmoid, lambda y: y)):
            weight = node.arrays[f"weight{k}"]
            w = vector[at : at + weight.size].reshape(weight.shape)
            at += weight.size
            x = activation(x @ w.T + vector[at : at + len(weight)])
            at += len(weight)
        return torch.nn.functional.cross_entropy(x, torch.tensor(labels[known]))

    _, expected = torch.autograd.functional.hvp(
        loss, torch.tensor(node.parameters), torch.tensor(v)
    )
    np.testing.assert_allclose(of_v, expected.numpy(), atol=1e-8)


@needs.compiled
def test_training_brings_the_loss_near_that_of_the_channel():
    samples, labels = received("bpsk", 4000)
    node = trained(fresh(), samples, labels, steps=600)
    rng = np.random.default_rng(4)
    means = np.array([-1.6, -0.4, 0.4, 1.6])[[0, 2, 1, 3]]  # newest symbol in the lowest digit
    sent = rng.integers(0, 4, 20_000)
    new = (means[sent] + 0.3 * rng.standard_normal(sent.size)).astype(np.float32)
    density = np.exp(-((new[:, None].astype(float) - means) ** 2) / (2 * 0.3**2))
    exact = -np.log(density[np.arange(sent.size), sent] / density.sum(axis=1))
    assert node.losses(new, sent).mean() < 1.1 * exact.mean()


def test_steps_repeat_and_leave_the_node_as_it_was():
    samples, labels = received("bpsk", 200)
    node = fresh()
    before = node.parameters
    one, other = trained(node, samples, labels), trained(node, samples, labels)
    np.testing.assert_array_equal(one.parameters, other.parameters)
    assert (one.parameters != trained(node, samples, labels, seed=5).parameters).any()
    np.testing.assert_array_equal(node.parameters, before)
    np.testing.assert_array_equal(one.moved(before).parameters, before)


@needs.compiled
def test_a_table_stands_for_the_layers_and_samples_beyond_it_go_through_them():
    samples, labels = received("bpsk", 2000)
    node = trained(fresh(), samples, labels, steps=200)
    assert node.table is not None
    assert node.span == (samples.min(), samples.max())
    layers = Dense.of({**node.hyper, "span": None}, node.arrays)
    assert layers.table is None
    new = np.concatenate([received("bpsk", 1000, seed=6)[0], np.float32([-50.0, 9.0])])
    found, exact = posteriors(metrics_of(node, new)), posteriors(metrics_of(layers, new))
    assert np.abs(found - exact).max() < 0.01
    np.testing.assert_array_equal(found[-2:], exact[-2:])
    assert trained(fresh("qpsk"), *received("qpsk", 90)).table is None


def test_relu_layers_have_a_table_too():
    samples, labels = received("bpsk", 500)
    node = trained(fresh(activations=("relu", "relu")), samples, labels)
    layers = Dense.of({**node.hyper, "span": None}, node.arrays)
    new = received("bpsk", 300, seed=6)[0]
    found, exact = posteriors(metrics_of(node, new)), posteriors(metrics_of(layers, new))
    assert np.abs(found - exact).max() < 0.01


@needs.compiled
def test_shares_of_classes_in_training_do_not_bias_decisions():
    samples, labels = received("bpsk", 8000)
    rare = (labels % 2 == 1) & (np.arange(labels.size) % 10 > 0)  # nine in ten are left out
    labels = np.where(rare, -1, labels)
    known = labels >= 0
    plain = trained(fresh(), samples, labels, steps=1000)
    fair = trained(fresh().prepared(samples, labels), samples, labels, steps=1000)
    shares = np.bincount(labels[known], minlength=4) / known.sum()
    np.testing.assert_allclose(fair.arrays["prior"], shares, rtol=1e-2)
    np.testing.assert_array_equal(plain.parameters, fair.parameters)
    new, sent = received("bpsk", 20_000, seed=7)
    new, sent = new[1:], sent[1:]

    def odd(node):
        return np.mean(metrics_of(node, new).argmin(axis=1) % 2)

    assert odd(fair) == pytest.approx(0.5, abs=0.02)
    assert odd(plain) < 0.45
    layers = Dense.of({**fair.hyper, "span": None}, fair.arrays)
    alike = posteriors(metrics_of(layers, new))[np.arange(new.size), sent]
    np.testing.assert_allclose(fair.losses(new, sent), -np.log(alike), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_sample_gives_a_bad_loss_and_no_weights(bad):
    samples, labels = received("bpsk", 60)
    samples[7] = bad
    node = fresh(activations=("relu", "relu"))
    assert not math.isfinite(node.gradient(samples, labels)[0])
    worse = trained(node, samples, labels)
    good = received("bpsk", 60)
    assert not np.isfinite(worse.losses(*good)).any()
    metrics_of(worse, good[0])  # does not raise
    with pytest.raises(WeightsError, match="holds NaN or infinity"):
        worse.weights("net")


def test_no_label_is_no_training():
    samples, labels = received("bpsk", 10)
    with pytest.raises(ValueError, match="none of 10 samples has a label"):
        fresh().gradient(samples, np.full_like(labels, -1))
    with pytest.raises(ValueError, match="none of 10 samples has a label"):
        trained(fresh(), samples, np.full_like(labels, -1))


def test_weights_give_an_equal_node():
    samples, labels = received("bpsk", 300)
    node = trained(fresh().prepared(samples, labels), samples, labels)
    again = node_of(node.weights("net", version=3))
    assert again.hyper == node.hyper
    np.testing.assert_array_equal(metrics_of(again, samples), metrics_of(node, samples))


@pytest.mark.parametrize(
    ("hyper", "arrays", "said"),
    [
        ({"sizes": [1, 9, 7, 16]}, {}, r"sizes = \[1, 9, 7, 16\], but bpsk of memory 2 needs them"),
        ({"sizes": [2, 9, 7, 4]}, {}, "needs them from 1 to 4"),
        ({"activations": ["relu"]}, {}, r"activations = \['relu'\] for 2 hidden layers"),
        ({"activations": ["relu", "gelu"]}, {}, "each is one of linear, relu, sigmoid, tanh"),
        ({"span": [1.0, 1.0]}, {}, r"span = \[1.0, 1.0\]; expected two numbers that rise"),
        ({}, {"bias1": np.zeros(6, np.float32)}, r"bias1 has shape \(6,\); expected \(7,\)"),
        ({}, {"prior": np.zeros(4, np.float32)}, "prior holds shares that are not above 0"),
        ({}, {"weight2": None}, "lack 'weight2'"),
        ({"modulation": "psk"}, {}, "lack 'psk'"),
    ],
)
def test_other_weights_are_refused(hyper, arrays, said):
    good = fresh().weights("net")
    changed = {**good.arrays, **arrays}
    kept = {name: array for name, array in changed.items() if array is not None}
    with pytest.raises(WeightsError, match=said):
        node_of(Weights("net", 1, kept, {**good.hyper, **hyper}))


def test_batches_use_samples_in_turn():
    rng = np.random.default_rng(0)
    rows = batches_of(10, 7, 3, rng)
    assert rows.shape == (7, 3)
    for passes in (rows[:3], rows[3:6]):
        assert np.unique(passes).size == 9
    np.testing.assert_array_equal(batches_of(4, 2, 0, rng), [[0, 1, 2, 3]] * 2)
    np.testing.assert_array_equal(batches_of(4, 2, 9, rng), [[0, 1, 2, 3]] * 2)
