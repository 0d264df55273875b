"""What torch modules say, receivers say without torch."""

import numpy as np
import pytest
from needs import package

from blocks.kernels import dense
from blocks.kernels.activations import RELU, SIGMOID
from blocks.kernels.recurrent_layers import RecurrentLayers

torch = package("torch", "train")

from blocks.models.recurrent import Lstm, Sbrnn  # noqa: E402 (torch may be missing)
from blocks.models.state_likelihood import StateLikelihood  # noqa: E402

#: log-probabilities of float32 kernels against float64 modules: relative to 1 + |expected|
RTOL = 1e-5


def close(found, expected):
    error = np.abs(found - expected) / (1.0 + np.abs(expected))
    assert error.max() <= RTOL


def spread(module, scale=3.0):
    """The module with larger parameters, all of them float32 numbers, in float64."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_((scale * parameter).float())
    return module.double()


def layers_of(module, both):
    return RecurrentLayers(**module.hyper, both=both, arrays=module.arrays())


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize(("layers", "units"), [(1, 3), (2, 16), (3, 9)])
def test_bidirectional_layers_agree_with_the_module(cell, layers, units):
    torch.manual_seed(units)
    module = spread(Sbrnn(order=4, n_in=2, cell=cell, layers=layers, units=units))
    inputs = np.random.default_rng(1).standard_normal((7, 12, 2)).astype(np.float32)
    network = layers_of(module, both=True)
    found = network(np.ascontiguousarray(inputs.swapaxes(0, 1)), network.memory(7))
    with torch.inference_mode():
        expected = module(torch.tensor(inputs).double()).numpy()
    close(found.swapaxes(0, 1), expected)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_layers_that_go_on_agree_with_the_module_over_the_whole(cell):
    torch.manual_seed(3)
    module = spread(Lstm(order=2, n_in=4, cell=cell, units=20))
    inputs = np.random.default_rng(2).standard_normal((50, 1, 4)).astype(np.float32)
    network = layers_of(module, both=False)
    memory = network.memory(1)
    found = np.concatenate([network(part, memory) for part in np.split(inputs, [1, 30])])
    with torch.inference_mode():
        expected = module(torch.tensor(inputs).double().swapaxes(0, 1)).numpy()[0]
    close(found[:, 0], expected)


@pytest.mark.parametrize("n_in", [1, 2])
def test_a_dense_classifier_agrees_with_the_module(n_in):
    torch.manual_seed(4)
    module = spread(StateLikelihood(n_states=16, n_in=n_in))
    assert sum(p.numel() for p in module.parameters()) == 6066 + 100 * (n_in - 1)
    samples = np.random.default_rng(5).standard_normal((40, n_in)).astype(np.float32)
    arrays = module.arrays()
    network = dense.Network.of(
        [(arrays[f"weight{k}"], arrays[f"bias{k}"]) for k in range(3)],
        [SIGMOID, RELU, 0], normalise=True,
    )  # fmt: skip
    found = np.empty((40, 16), np.float32)
    network(samples, found)
    with torch.inference_mode():
        close(found, module(torch.tensor(samples).double()).numpy())


def test_a_vector_of_real_samples_is_as_good_as_a_column():
    module = StateLikelihood(n_states=4, hidden=(5,), activations=("tanh",))
    samples = torch.linspace(-2.0, 2.0, 9)
    assert torch.equal(module(samples), module(samples[:, None]))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (
            "weight_hh_l0",
            lambda a: a[:, :-1],
            r"weight_hh_l0 has shape \(16, 3\)",
        ),
        ("bias_ih_l0", lambda a: a[:-1], r"bias_ih_l0 has shape"),
        ("output_weight", lambda a: a.T, r"output_weight has shape"),
        ("output_bias", None, "no array 'output_bias'"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name, change, said):
    module = Lstm(order=2, layers=1, units=4)
    arrays = module.arrays()
    if change is None:
        del arrays[name]
    else:
        arrays[name] = change(arrays[name])
    with pytest.raises(ValueError, match=said):
        RecurrentLayers(**module.hyper, both=False, arrays=arrays)
