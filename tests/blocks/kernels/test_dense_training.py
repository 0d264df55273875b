import math
from itertools import pairwise

import needs
import numpy as np
import pytest
import references

from blocks.kernels import dense_gradients
from blocks.kernels.activations import LINEAR, RELU, SIGMOID, TANH
from blocks.kernels.dense_training import Learner

VITERBINET = (1, 100, 50, 16), (SIGMOID, RELU, LINEAR)
# more samples than a tile, a hidden layer of one, widths of no whole vectors
SHAPES = [
    ((1, 18, 10, 16), (SIGMOID, RELU, LINEAR)),
    ((2, 7, 1, 53), (TANH, LINEAR, LINEAR)),
    ((3, 2), (LINEAR,)),
]


def random_layers(sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [
        (rng.standard_normal((n_out, n_in)) / math.sqrt(n_in), rng.standard_normal(n_out))
        for n_in, n_out in pairwise(sizes)
    ]


def problem(sizes, count, seed=1):
    """Layers, samples and labels."""
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((count, sizes[0]))
    return random_layers(sizes), inputs, rng.integers(0, sizes[-1], count)


def flat(layers):
    return np.concatenate([part.ravel() for layer in layers for part in layer])


def shaped(vector, sizes):
    layers, at = [], 0
    for n_in, n_out in pairwise(sizes):
        weight = vector[at : at + n_in * n_out].reshape(n_out, n_in)
        at += n_in * n_out
        layers.append((weight, vector[at : at + n_out]))
        at += n_out
    return layers


def loss_of(layers, kinds, inputs, labels):
    outputs = references.network(layers, kinds, inputs)
    total = np.log(np.exp(outputs).sum(axis=1))
    return np.mean(total - outputs[np.arange(len(labels)), labels])


def adam(sizes, kinds, vector, inputs, labels, batches, rate, most=math.inf):
    """Algorithm 1 of Kingma and Ba, as it is printed; float64."""
    m = v = np.zeros(vector.size)
    for t, batch in enumerate(batches, 1):
        layers = shaped(vector, sizes)
        _, g = dense_gradients.gradient(layers, kinds, inputs[batch], labels[batch])
        g = g * min(1.0, most / np.linalg.norm(g))
        m = 0.9 * m + (1.0 - 0.9) * g
        v = 0.999 * v + (1.0 - 0.999) * g**2
        m_hat, v_hat = m / (1.0 - 0.9**t), v / (1.0 - 0.999**t)
        vector = vector - rate * m_hat / (np.sqrt(v_hat) + 1e-8)
    return vector


@pytest.mark.parametrize("kinds", [(SIGMOID, RELU, LINEAR), (TANH, LINEAR, LINEAR)])
def test_the_gradient_is_that_of_finite_differences(kinds):
    sizes = 2, 7, 5, 4
    layers, inputs, labels = problem(sizes, 20)
    loss, found = dense_gradients.gradient(layers, kinds, inputs, labels)
    assert loss == pytest.approx(loss_of(layers, kinds, inputs, labels), rel=1e-12)
    vector, step = flat(layers), 1e-6
    for i, own in enumerate(found):
        ends = [
            loss_of(shaped(vector + by * np.eye(vector.size)[i], sizes), kinds, inputs, labels)
            for by in (step, -step)
        ]
        assert own == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)


@pytest.mark.parametrize(("sizes", "kinds"), SHAPES)
def test_the_kernel_finds_the_same_gradient_for_every_shape(sizes, kinds):
    for count in (1, 6, 48, 103):
        layers, inputs, labels = problem(sizes, count)
        loss, expected = dense_gradients.gradient(layers, kinds, inputs, labels)
        found = Learner(sizes, kinds).gradient(flat(layers), inputs.astype("f4"), labels)
        assert found[0] == pytest.approx(loss, rel=1e-5)
        np.testing.assert_allclose(found[1], expected, atol=2e-6)


@pytest.mark.parametrize("most", [math.inf, 0.2])
def test_steps_are_those_of_adam(most):
    sizes, kinds = (2, 20, 9, 8), (TANH, SIGMOID, LINEAR)
    layers, inputs, labels = problem(sizes, 60)
    batches = np.random.default_rng(2).integers(0, 60, (30, 13))
    expected = adam(sizes, kinds, flat(layers), inputs, labels, batches, 1e-2, most)
    learner = Learner(sizes, kinds)
    for _ in range(2):  # moments begin at zero each time
        _, found = learner.adam(flat(layers), inputs.astype("f4"), labels, batches, 1e-2, most=most)
        assert np.abs(found - expected).max() < 1e-2 * np.abs(expected - flat(layers)).max()


@needs.compiled
def test_the_loss_falls():
    sizes, kinds = VITERBINET
    layers, inputs, _ = problem(sizes, 136)
    labels = np.digitize(inputs[:, 0], np.linspace(-2, 2, 15))
    batches = np.tile(np.arange(136), (10, 1))
    learner, vector = Learner(sizes, kinds), flat(layers)
    losses = []
    for _ in range(6):
        loss, vector = learner.adam(vector, inputs.astype("f4"), labels, batches, 1e-2)
        losses.append(loss)
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize(("sizes", "kinds"), SHAPES)
def test_jacobian_rows_are_gradients_of_one_sample(sizes, kinds):
    layers, inputs, labels = problem(sizes, 5)
    logs, derivatives = dense_gradients.jacobian(layers, kinds, inputs)
    assert derivatives.shape == (5, sizes[-1], flat(layers).size)
    for i, label in enumerate(labels):
        one = slice(i, i + 1)
        loss, gradient = dense_gradients.gradient(layers, kinds, inputs[one], labels[one])
        assert loss == pytest.approx(-logs[i, label], rel=1e-12)
        np.testing.assert_allclose(derivatives[i, label], -gradient, atol=1e-14)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_gives_a_loss_that_is_not(bad):
    sizes = 2, 9, 4
    layers, inputs, labels = problem(sizes, 20)
    inputs[3, 1] = bad
    for kind in (LINEAR, RELU, SIGMOID, TANH):  # a bounded activation bounds an infinite input
        bounded = math.isinf(bad) and kind in (SIGMOID, TANH)
        kinds = kind, LINEAR
        loss, _ = dense_gradients.gradient(layers, kinds, inputs, labels)
        assert math.isfinite(loss) == bounded
        learner, given = Learner(sizes, kinds), inputs.astype("f4")
        assert math.isfinite(learner.gradient(flat(layers), given, labels)[0]) == bounded
        loss, _ = learner.adam(flat(layers), given, labels, np.arange(20)[None].repeat(3, 0), 1e-3)
        assert not math.isfinite(loss) or bounded


def test_what_does_not_fit_is_refused():
    sizes, kinds = (2, 9, 4), (TANH, LINEAR)
    layers, inputs, labels = problem(sizes, 20)
    learner, given = Learner(sizes, kinds), inputs.astype("f4")
    with pytest.raises(ValueError, match=r"inputs are float64 \(20, 2\), expected float32"):
        learner.gradient(flat(layers), inputs, labels)
    with pytest.raises(ValueError, match="labels from 0 to 4; expected 0 to 3"):
        learner.gradient(flat(layers), given, np.arange(20) % 5)
    with pytest.raises(ValueError, match="beyond the 20 there are"):
        learner.adam(flat(layers), given, labels, np.array([[20]]), 1e-3)
    with pytest.raises(ValueError, match=r"shape \(3,\); expected \(67,\)"):
        learner.gradient(np.zeros(3), given, labels)
    with pytest.raises(ValueError, match="the last is linear"):
        Learner(sizes, (TANH, RELU))


def in_torch(torch, layers, kinds):
    makers = {RELU: torch.nn.ReLU, SIGMOID: torch.nn.Sigmoid, TANH: torch.nn.Tanh}
    modules = []
    for (weight, bias), kind in zip(layers, kinds, strict=True):
        linear = torch.nn.Linear(*weight.shape[::-1], dtype=torch.float64)
        linear.weight.data, linear.bias.data = torch.tensor(weight), torch.tensor(bias)
        modules += [linear, makers.get(kind, torch.nn.Identity)()]
    return torch.nn.Sequential(*modules)


@pytest.mark.parametrize(("sizes", "kinds"), SHAPES)
def test_gradients_are_those_of_autograd(sizes, kinds):
    torch = needs.package("torch", "train")
    layers, inputs, labels = problem(sizes, 50)
    net = in_torch(torch, layers, kinds)
    outputs = net(torch.tensor(inputs))
    loss = torch.nn.functional.cross_entropy(outputs, torch.tensor(labels))
    expected = torch.autograd.grad(loss, net.parameters(), retain_graph=True)
    found, gradient = dense_gradients.gradient(layers, kinds, inputs, labels)
    assert found == pytest.approx(loss.item(), rel=1e-12)
    np.testing.assert_allclose(
        gradient, np.concatenate([part.numpy().ravel() for part in expected]), atol=1e-14
    )
    _, derivatives = dense_gradients.jacobian(layers, kinds, inputs)
    row = torch.autograd.grad(outputs.log_softmax(1)[7, 1], net.parameters())
    np.testing.assert_allclose(
        derivatives[7, 1], np.concatenate([part.numpy().ravel() for part in row]), atol=1e-14
    )


@needs.compiled
def test_steps_are_those_of_torch():
    torch = needs.package("torch", "train")
    sizes, kinds = VITERBINET
    layers, inputs, labels = problem(sizes, 136)
    net = in_torch(torch, layers, kinds)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(20):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(torch.tensor(inputs)), torch.tensor(labels))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimiser.step()
    expected = np.concatenate([part.detach().numpy().ravel() for part in net.parameters()])
    batches = np.tile(np.arange(136), (20, 1))
    _, found = Learner(sizes, kinds).adam(
        flat(layers), inputs.astype("f4"), labels, batches, 1e-3, most=0.1
    )
    moved = np.abs(expected - flat(layers)).max()
    assert np.abs(found - expected).max() < 1e-2 * moved
