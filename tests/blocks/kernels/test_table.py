import math
from itertools import pairwise

import numpy as np
import pytest
import references
from needs import package
from numba.core import config

from blocks.kernels import dense
from blocks.kernels.activations import LINEAR, RELU, SIGMOID
from blocks.kernels.table import Rising, Table

SAMPLES = 500 if config.DISABLE_JIT else 500_000
FIRST = {"relu": RELU, "sigmoid": SIGMOID}


def received(count, seed):
    """BPSK over four taps at 10 dB: samples, and the state of the last four symbols."""
    rng = np.random.default_rng(seed)
    taps = np.exp(-0.5 * np.arange(4))
    bits = rng.integers(0, 2, count + 3)
    past = np.stack([bits[3 - k : 3 - k + count] for k in range(4)])
    clean = (taps / np.linalg.norm(taps)) @ (1 - 2 * past)
    samples = clean + 10 ** (-0.5) * rng.standard_normal(count)
    return samples.astype(np.float32), (1 << np.arange(4)) @ past


def trained(first):
    """Layers of ViterbiNet's network, 1-100-50-16, after a thousand steps of Adam."""
    torch = package("torch", "train")
    torch.manual_seed(1)
    nn = torch.nn
    kind = nn.ReLU() if first == "relu" else nn.Sigmoid()
    net = nn.Sequential(nn.Linear(1, 100), kind, nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 16))
    samples, states = (torch.tensor(array) for array in received(5000, 2))
    adam = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(1000):
        some = torch.randint(0, 5000, (500,))
        adam.zero_grad()
        nn.functional.cross_entropy(net(samples[some, None]), states[some]).backward()
        adam.step()
    arrays = [parameter.detach().numpy() for parameter in net.parameters()]
    return list(zip(arrays[::2], arrays[1::2], strict=True))


@pytest.fixture(scope="module", params=FIRST)
def network(request):
    """The network as the kernels run it, and the function that its table is made from."""
    layers = trained(request.param)
    whole = dense.Network.of(layers, [FIRST[request.param], RELU, LINEAR], normalise=True)
    return whole, Rising.of(layers) if request.param == "relu" else whole


def test_a_table_of_a_trained_network_errs_less_than_it_says_and_changes_few_decisions(network):
    whole, function = network
    table = Table.of(function, 16, -4.0, 4.0)
    samples, _ = received(SAMPLES, 3)
    samples = np.clip(samples, -4.0, 4.0)
    exact, found = np.empty((2, SAMPLES, 16), np.float32)
    whole(samples[:, None], exact)
    assert table.log_probabilities(samples, found) == 0
    assert exact.min() < -30.0  # what a trained network spans, in nats
    probable = exact > math.log(1e-6)
    assert np.abs(found - exact)[probable].max() <= table.error <= 2e-2
    assert np.mean(found.argmax(axis=1) != exact.argmax(axis=1)) <= 1e-4


def test_samples_beyond_the_table_and_nan_are_answered_by_the_network(network):
    whole, function = network
    table = Table.of(function, 16, -1.0, 1.0)
    samples = np.array([-5.0, -1.0, 0.3, 1.0, 1.1, math.inf, math.nan, 7.0], np.float32)
    exact, found = np.empty((2, 8, 16), np.float32)
    whole(samples[:, None], exact)
    assert table.log_probabilities(samples, found) == 5
    np.testing.assert_allclose(found, exact, atol=2e-2)
    np.testing.assert_allclose(found[[0, 4, 7]], exact[[0, 4, 7]], rtol=1e-5, atol=1e-5)
    tile = np.tile(samples, 4).reshape(2, 2, 8)
    metrics = np.empty((2, 16, 2, 8), np.float32)
    assert table.metrics(tile, metrics) == 20
    np.testing.assert_array_equal(-metrics[1, :, 1].T, found)


def line_table(n_states, low, high):
    """A table of functions that bend nowhere, so that it is exact: (s + 1) x - s."""
    s = np.arange(n_states)

    def function(inputs, outputs):
        outputs[:] = (s + 1) * inputs - s

    return Table.of(function, n_states, low, high), lambda x: (s + 1) * x[..., None] - s


@pytest.mark.parametrize("n_states", [1, 2, 4, 8, 13, 16, 64])
def test_rows_and_tiles_hold_the_same_numbers_for_any_count_of_states(n_states):
    table, exact = line_table(n_states, -2.0, 3.0)
    samples = np.random.default_rng(n_states).uniform(-2.0, 3.0, (5, 2, 8)).astype(np.float32)
    samples[0, 0, :2] = -2.0, 3.0
    metrics = np.empty((5, n_states, 2, 8), np.float32)
    rows = np.empty((80, n_states), np.float32)
    assert table.metrics(samples, metrics) == table.log_probabilities(samples.ravel(), rows) == 0
    np.testing.assert_allclose(-metrics.transpose(0, 2, 3, 1), exact(samples), atol=n_states * 3e-6)
    np.testing.assert_array_equal(-metrics.transpose(0, 2, 3, 1).reshape(80, -1), rows)


def test_a_kink_errs_nowhere_more_than_the_table_says_and_points_double_until_it_does():
    """|x - 0.3| between points h apart errs at its kink by h / 2 times p (1 - p) 4 at most."""

    def kink(inputs, outputs):
        outputs[:] = np.abs(inputs - 0.3)

    dense_points = np.linspace(-1.0, 1.0, 20_001 if not config.DISABLE_JIT else 2001)
    samples, found = dense_points.astype(np.float32), np.empty((dense_points.size, 1), np.float32)
    counts = []
    for error in (1.0, 2e-3, 1e-3, 1e-9):
        table = Table.of(kink, 1, -1.0, 1.0, error=error, most=1024)
        table.log_probabilities(samples, found)
        assert np.abs(found[:, 0] - np.abs(dense_points - 0.3)).max() <= table.error + 1e-6
        assert table.error <= error or len(table.values) == 1024 + 2
        counts.append(len(table.values) - 2)
    assert counts[0] == 128
    assert counts == sorted(counts)
    assert counts[-1] == 1024


def test_a_table_may_have_the_fewest_cells_only():
    def square(inputs, outputs):
        outputs[:] = -(inputs**2)

    table = Table.of(square, 1, 0.0, 1.0, error=1e-9, most=200)
    assert len(table.values) == 128 + 2
    # half-way a parabola is h^2 / 4 off its chord
    assert table.error == pytest.approx(2.0 / (4 * 128**2), rel=0.02)


def test_errors_of_what_is_improbable_do_not_count():
    def steep(inputs, outputs):
        outputs[:] = -20.0 - np.abs(100.0 * inputs - 33.0)

    assert Table.of(steep, 1, 0.0, 1.0).error == 0.0


def test_a_function_that_is_not_finite_has_no_small_error():
    def broken(inputs, outputs):
        outputs[:] = np.where(inputs > 0.5, math.nan, 0.0)

    def far(inputs, outputs):
        outputs[:] = np.where(inputs > 0.5, math.inf, 0.0)

    assert not Table.of(broken, 1, 0.0, 1.0).error <= 2e-2
    assert not Table.of(far, 1, 0.0, 1.0).error <= 2e-2


def test_inputs_that_rise_and_those_that_do_not_get_the_answers_of_the_network():
    rng = np.random.default_rng(9)
    sizes = (1, 20, 7, 5, 3)
    layers = [
        (rng.standard_normal((b, a)) / math.sqrt(a), rng.standard_normal(b))
        for a, b in pairwise(sizes)
    ]
    layers[0][0][:3] = 0.0  # units that do not see the input: two on, or off
    layers[0][1][:3] = 1.0, -1.0, 0.0
    inputs = np.concatenate([np.linspace(-9, 9, 300), rng.uniform(-9, 9, 300)])[:, None]
    inputs = inputs.astype(np.float32)
    found = np.empty((600, 3), np.float32)
    Rising.of(layers, normalise=False)(inputs, found)
    exact = references.network(layers, [RELU, RELU, RELU, LINEAR], inputs)
    assert (np.abs(found - exact) / np.maximum(1.0, np.abs(exact))).max() <= 1e-5


def test_tables_and_networks_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"from 1\.0 to 1\.0; two finite numbers that rise"):
        line_table(2, 1.0, 1.0)
    with pytest.raises(ValueError, match="at most 100 cells; at least 128 are due"):
        Table.of(lambda inputs, outputs: None, 2, 0.0, 1.0, most=100)
    layers = [(np.ones((4, 2)), np.ones(4)), (np.ones((4, 4)), np.ones(4))]
    with pytest.raises(ValueError, match="one input and at least three layers"):
        Rising.of(layers)
    layers = [(np.ones((4, 1)), np.ones(4)), (np.ones((4, 4)), np.full(4, math.nan))]
    with pytest.raises(ValueError, match="weights that are finite"):
        Rising.of([*layers, layers[1]])
