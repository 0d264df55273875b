"""Dense classifiers that learn, beside torch.

Updates of ViterbiNet's layers on one word, and its training on 5000 symbols; the kernel alone, and
through the node that trainers hold. Processor time of one thread, as in bench/test_networks.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.test_networks import Round, in_rounds, middle, ratio
from blocks.kernels.dense_training import Learner
from blocks.nodes.dense import Dense, batches_of
from blocks.nodes.node import labels_of, node_of
from blocks.training.offline import fit

torch = pytest.importorskip("torch", reason="needs torch: pip install 'kalvit[train]'")
nn = torch.nn

WORD = 136  # symbols of one word of the online experiments
SYMBOLS, EPOCHS, BATCH = 5000, 100, 27  # of the published training
STEPS = 200  # of torch, timed and scaled to a training


def received(count: int) -> tuple[Any, Any]:
    """Samples of the Gaussian channel at 8 dB, gamma 0.2, and their classes."""
    rng = np.random.default_rng(1)
    symbols = rng.integers(0, 2, count + 3)
    clean = np.convolve(2.0 * symbols - 1.0, np.exp(-0.2 * np.arange(4)), "valid")
    samples = clean + rng.standard_normal(count) * 10.0**-0.4
    return samples.astype(np.float32), labels_of(symbols, 4, 2)[3:]


def in_torch(node: Dense) -> Any:
    net = nn.Sequential(
        nn.Linear(1, 100), nn.Sigmoid(), nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 16)
    )
    for k, linear in enumerate((net[0], net[2], net[4])):
        linear.weight.data = torch.tensor(node.arrays[f"weight{k}"])
        linear.bias.data = torch.tensor(node.arrays[f"bias{k}"])
    return net


def steps_of_torch(net: Any, samples: Any, labels: Any, batches: Any) -> None:
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    for batch in batches:
        adam.zero_grad()
        nn.functional.cross_entropy(net(samples[batch]), labels[batch]).backward()
        adam.step()


def update_rounds(steps: int) -> list[Round]:
    """Seconds of an update on one word, the whole word in every step."""
    torch.set_num_threads(1)
    samples, labels = received(WORD)
    rng = np.random.default_rng(2)
    node = Dense.fresh("bpsk", 4, rng=rng)
    learner, vector = Learner(node.sizes, node.kinds), node.parameters
    batches = np.tile(np.arange(WORD), (steps, 1))
    given = torch.tensor(samples[:, None]), torch.tensor(labels)

    def by_torch() -> None:
        net = in_torch(node)
        adam = torch.optim.Adam(net.parameters(), lr=1e-3)
        for _ in range(steps):
            adam.zero_grad()
            nn.functional.cross_entropy(net(given[0]), given[1]).backward()
            adam.step()

    net = in_torch(node)
    steps_of_torch(net, *given, batches[:5])
    expected = torch.cat([part.detach().ravel() for part in net.parameters()]).numpy()
    _, found = learner.adam(vector, samples[:, None], labels, batches[:5], 1e-3)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    return in_rounds(
        {
            "node": (
                lambda: node.descended(samples, labels, steps=steps, rate=1e-3, batch=0, rng=rng),
                1,
            ),
            "kernel": (lambda: learner.adam(vector, samples[:, None], labels, batches, 1e-3), 1),
            "torch": (by_torch, 1),
        }
    )


@pytest.mark.parametrize(("steps", "reach"), [(5, 1e-3), (200, 30e-3)])
def test_update_on_a_word(once, add, steps, reach):
    rounds = once(update_rounds, steps)
    ours = middle(rounds, "node")
    add(
        f"ViterbiNet (1-100-50-16), {steps} steps of Adam on a word of {WORD} symbols",
        f"{ours * 1e3:.2f} ms",
        f"{middle(rounds, 'torch') * 1e3:.1f} ms",
        f"{ratio(rounds, 'torch', 'node'):.1f}x",
        ">= 3x",
        met=ratio(rounds, "torch", "node") >= 3.0,
        how="the same layers with torch.optim.Adam, 1 thread, same run",
    )
    add(
        "  the same; reach",
        f"{ours * 1e3:.2f} ms",
        f"{middle(rounds, 'kernel') * 1e3:.2f} ms",
        bar=f"<= {reach * 1e3:.0f} ms",
        met=ours <= reach,
        how="the kernel alone",
    )


def training_rounds() -> list[Round]:
    """Seconds of trainings on 5000 symbols."""
    torch.set_num_threads(1)
    samples, labels = received(SYMBOLS)
    rng = np.random.default_rng(3)
    node = Dense.fresh("bpsk", 4, rng=rng)
    learner, vector = Learner(node.sizes, node.kinds), node.parameters
    batches = batches_of(SYMBOLS, EPOCHS * (SYMBOLS // BATCH), BATCH, rng)
    given = torch.tensor(samples[:, None]), torch.tensor(labels)
    some, net = torch.tensor(batches[:STEPS]), in_torch(node)
    return in_rounds(
        {
            "kernel": (lambda: learner.adam(vector, samples[:, None], labels, batches, 1e-2), 1),
            "fit": (lambda: fit(node, samples, labels, rng), 1),
            "torch": (lambda: steps_of_torch(net, *given, some), STEPS / len(batches)),
        },
        rounds=5,
    )


def test_training_on_5000_symbols(once, add):
    rounds = once(training_rounds)
    for name, what in {
        "kernel": f"{EPOCHS} epochs, batches of {BATCH}, on {SYMBOLS} symbols: the kernel",
        "fit": "  blocks.training.offline.fit on the same symbols, its own schedule",
    }.items():
        add(
            what,
            f"{middle(rounds, name):.2f} s",
            f"{middle(rounds, 'torch'):.1f} s",
            f"{ratio(rounds, 'torch', name):.1f}x",
            "<= 10 s",
            met=middle(rounds, name) <= 10.0,
            how=f"torch: {EPOCHS} epochs, from the time of {STEPS} steps",
        )


def swap_rounds() -> list[Round]:
    """Seconds until a trained node is ready to decide."""
    samples, labels = received(SYMBOLS)
    rng = np.random.default_rng(4)
    node, _ = fit(Dense.fresh("bpsk", 4, rng=rng), samples, labels, rng)
    weights = node.weights("viterbinet")
    word, metrics = samples[:WORD], np.empty((WORD, 16), np.float32)
    return in_rounds(
        {
            "of": (lambda: node_of(weights), 1),
            "ready": (lambda: node_of(weights).metrics(word, metrics), 1),
        }
    )


def test_a_node_from_its_weights(once, add):
    rounds = once(swap_rounds)
    add(
        "a trained node from its weights, with table and the metrics of one word",
        f"{middle(rounds, 'ready') * 1e3:.2f} ms",
        f"{middle(rounds, 'of') * 1e3:.2f} ms",
        bar="<= 1 ms",
        met=middle(rounds, "ready") <= 1e-3,
        how="beside: weights checked only",
    )
