import math
from itertools import pairwise

import numpy as np
import pytest
import references

from blocks.kernels import dense, dense_lanes
from blocks.kernels.activations import LINEAR, RELU, SIGMOID, TANH
from blocks.kernels.dense_lanes import WIDTH


def random_layers(*sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [
        (rng.standard_normal((n_out, n_in)) / math.sqrt(n_in), rng.standard_normal(n_out))
        for n_in, n_out in pairwise(sizes)
    ]


def close(found, expected):
    """To 1e-5 max(1, |x|), the distance allowed between a kernel and its module."""
    assert found.shape == expected.shape
    error = np.abs(found - expected) / np.maximum(1.0, np.abs(expected))
    assert error.max() <= 1e-5


@pytest.mark.parametrize("rows", [1, 5, 6, 14])
@pytest.mark.parametrize(("n_in", "n_out"), [(1, 1), (3, 15), (7, 16), (18, 50), (61, 9)])
def test_a_layer_is_that_of_float64_for_every_shape(rows, n_in, n_out):
    [(weight, bias)] = random_layers(n_in, n_out, seed=n_in)
    weights, places = dense.join([np.full(24, np.nan, np.float32), dense.pack(weight, bias)])
    rng = np.random.default_rng(rows)
    x = rng.standard_normal((rows, n_in + 2)).astype(np.float32)
    for kind in (LINEAR, RELU, SIGMOID, TANH):
        y = np.full((rows, 70), 77.0, np.float32)
        dense.layer(weights, places[1], n_in, n_out, kind, x, 2, y, 3)
        close(y[:, 3 : 3 + n_out], references.network([(weight, bias)], [kind], x[:, 2:]))
        assert (y[:, :3] == 77.0).all()
        assert (y[:, 3 + dense.padded(n_out) :] == 77.0).all()


@pytest.mark.parametrize("n_out", [*range(1, 19), 31, 33])
def test_a_layer_of_a_tile_is_that_of_float64_and_writes_no_further_than_its_padding(n_out):
    [(weight, bias)] = random_layers(7, n_out, seed=n_out)
    weights, (_, first) = dense.join([np.full(24, np.nan, np.float32), dense.pack(weight, bias)])
    x = np.random.default_rng(n_out).standard_normal((7 + 2, WIDTH)).astype(np.float32)
    for kind in (LINEAR, RELU):
        y = np.full((60, WIDTH), 77.0, np.float32)
        dense_lanes.layer(weights, first, 7, n_out, kind, x.ravel(), 2, y.ravel(), 3)
        close(y[3 : 3 + n_out].T, references.network([(weight, bias)], [kind], x[2:].T))
        assert (y[:3] == 77.0).all()
        assert (y[3 + dense.padded(n_out) :] == 77.0).all()


@pytest.mark.parametrize("count", [1, 95, 96, 203])
@pytest.mark.parametrize(
    ("sizes", "kinds"),
    [((1, 100, 50, 16), (RELU, RELU, LINEAR)), ((7, 60, 30, 2), (SIGMOID, TANH, LINEAR))],
    ids=["ViterbiNet", "DeepSIC"],
)
def test_a_network_agrees_with_float64_however_many_inputs(sizes, kinds, count):
    layers = random_layers(*sizes)
    inputs = np.random.default_rng(3).standard_normal((count, sizes[0])).astype(np.float32)
    for normalise in (False, True):
        expected = references.network(layers, kinds, inputs)
        if normalise:
            expected -= np.log(np.exp(expected).sum(axis=1, keepdims=True))
        found = np.empty((count, sizes[-1]), np.float32)
        dense.Network.of(layers, kinds, normalise)(inputs, found)
        close(found, expected)


def test_no_bit_depends_on_how_many_inputs_come_at_once():
    network = dense.Network.of(random_layers(3, 20, 11), [TANH, LINEAR], normalise=True)
    inputs = np.random.default_rng(4).standard_normal((100, 3)).astype(np.float32)
    whole, cut = np.empty((2, 100, 11), np.float32)
    network(inputs, whole)
    for begin, end in pairwise((0, 1, 3, 8, 9, 50, 100)):
        network(inputs[begin:end], cut[begin:end])
    np.testing.assert_array_equal(cut, whole)


@pytest.mark.parametrize("n_states", [2, 16])
def test_metrics_of_sequences_in_lanes_are_the_negative_outputs(n_states):
    network = dense.Network.of(random_layers(2, 20, n_states), normalise=True)
    inputs = np.random.default_rng(5).standard_normal((9, 2, 8, 2)).astype(np.float32)
    rows = np.empty((9 * 16, n_states), np.float32)
    metrics = np.empty((9, n_states, 2, 8), np.float32)
    network(inputs.reshape(-1, 2), rows)
    network.metrics(inputs, metrics)
    np.testing.assert_array_equal(-metrics.transpose(0, 2, 3, 1).reshape(-1, n_states), rows)


def test_relu_hides_no_nan():
    [(weight, bias)] = random_layers(2, 3)
    found = np.empty((2, 3), np.float32)
    network = dense.Network.of([(weight, bias)], [RELU])
    network(np.array([[math.nan, 1.0], [-math.inf, 0.5]], np.float32), found)
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(found[1], np.where(weight[:, 0] > 0, 0.0, math.inf))


@pytest.mark.parametrize("rows", [1, 6])
def test_a_bias_of_minus_infinity_rules_an_output_out(rows):
    weights, _ = dense.join([dense.pack(np.ones((2, 9)), np.array([-math.inf, 1.0]))])
    y = np.empty((rows, 8), np.float32)
    dense.layer(weights, 0, 9, 2, LINEAR, np.ones((rows, 9), np.float32), 0, y, 0)
    np.testing.assert_array_equal(y[:, :2], np.tile([-math.inf, 10.0], (rows, 1)))


def test_weights_begin_with_a_cache_line():
    weights, _ = dense.join([np.ones(3, np.float32), np.ones(50, np.float32)])
    assert weights.ctypes.data % 64 == 0
    assert weights.sum() == 53


def test_layers_that_do_not_fit_are_refused():
    first, second = random_layers(1, 4, 3)
    with pytest.raises(ValueError, match=r"layer 1: weight \(3, 4\) and bias \(2,\), but \(3, 4\)"):
        dense.Network.of([first, (second[0], second[1][:2])])
    with pytest.raises(ValueError, match="1 activations for 2 layers"):
        dense.Network.of([first, second], [RELU])
    network = dense.Network.of([first, second])
    with pytest.raises(ValueError, match=r"outputs \(5, 4\), expected \(5, 1\) and \(5, 3\)"):
        network(np.zeros((5, 1), np.float32), np.zeros((5, 4), np.float32))
    with pytest.raises(ValueError, match=r"metrics \(5, 4, 2, 8\), expected \(5, 2, 8, 1\) and"):
        network.metrics(np.zeros((5, 2, 8, 1), np.float32), np.zeros((5, 4, 2, 8), np.float32))
