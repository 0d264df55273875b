from itertools import pairwise

import needs
import numpy as np
import pytest

from blocks.nodes.dense import Dense
from blocks.nodes.node import labels_of
from blocks.training.labelled import Labelled
from blocks.training.meta import Meta, meta_gradient


def word(seed, gain=1.0):
    rng = np.random.default_rng(seed)
    symbols = rng.integers(0, 2, 40)
    labels = labels_of(symbols, 2, 2, before=0)
    samples = gain * (2.0 * (labels % 2) - 1.0 + 0.5 * (2.0 * (labels // 2) - 1.0))
    samples = samples + 0.3 * rng.standard_normal(40)
    return Labelled(samples.astype(np.float32), labels, False, 0.0)


def network(seed=0):
    return Dense.fresh(
        "bpsk", 2, rng=np.random.default_rng(seed), hidden=(7, 5), activations=("sigmoid", "relu")
    )


@pytest.mark.parametrize("first_order", [False, True])
def test_the_gradient_through_a_step_is_autograds(first_order):
    torch = needs.package("torch")
    node, support, query = network(), word(1), word(2, gain=0.8)
    shapes = [(7, 1), (7,), (5, 7), (5,), (4, 5), (4,)]

    def loss(parameters, word):
        parts = torch.split(parameters, [int(np.prod(shape)) for shape in shapes])
        w0, b0, w1, b1, w2, b2 = (
            part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)
        )
        x = torch.tensor(word.samples, dtype=torch.float64)[:, None]
        hidden = torch.relu(torch.sigmoid(x @ w0.T + b0) @ w1.T + b1)
        return torch.nn.functional.cross_entropy(hidden @ w2.T + b2, torch.tensor(word.labels))

    start = torch.tensor(node.parameters, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(start, support), start, create_graph=True)
    if first_order:
        slope = slope.detach()
    (expected,) = torch.autograd.grad(loss(start - 0.5 * slope, query), start)
    _, found = meta_gradient(node, support, query, rate=0.5, first_order=first_order)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-7)


def test_the_start_is_improved_every_so_many_words():
    strategy = Meta(steps=1, every=3, pairs=2)
    node = network()
    starts = []
    for seed in range(6):
        strategy.update(node, word(seed))
        starts.append(strategy.state()["start"])
    changed = [not np.array_equal(*pair) for pair in pairwise(starts)]
    assert changed == [False, True, False, False, True]


def test_a_start_that_was_learned_adapts_faster():
    """Words of many gains, in an order; afterwards one step on a word serves the next better."""
    gains = 1.0 + 0.4 * np.sin(np.arange(120) / 6.0)
    strategy = Meta(steps=1, rate=1e-2, every=5, pairs=20, step=0.1, meta_rate=1e-2)
    node = network()
    plain = node
    for seed, gain in enumerate(gains):
        strategy.update(node, word(seed, gain))
        plain = plain.descended(*word(seed, gain)[:2], steps=20, rate=1e-2, batch=0,
                                rng=np.random.default_rng(seed))  # fmt: skip
    learned = node.moved(strategy.state()["start"])

    def after_a_step(start, seed, gain):
        support, query = word(seed, gain), word(seed + 1, gain)
        slope = start.gradient(*support[:2])[1]
        return start.gradient_at(start.parameters - 0.1 * slope, *query[:2])[0]

    pairs = [(after_a_step(learned, 1000 + k, gain), after_a_step(node, 1000 + k, gain))
             for k, gain in enumerate(gains)]  # fmt: skip
    better = np.array(pairs)
    assert better[:, 0].mean() < 0.5 * better[:, 1].mean()


def test_a_restored_one_goes_on_alike():
    whole, before, after = (Meta(steps=2, every=2, pairs=3, batch=8) for _ in range(3))
    node = network()
    for seed in range(3):
        whole.update(node, word(seed))
        before.update(node, word(seed))
    after.restore(before.state())
    expected, found = (each.update(node, word(9)) for each in (whole, after))
    np.testing.assert_array_equal(found.parameters, expected.parameters)
