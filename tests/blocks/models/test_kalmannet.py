"""The gain networks of KalmanNet as torch modules."""

import numpy as np
import pytest
from needs import package

torch = package("torch", "train")

from blocks.kernels import kalmannet  # noqa: E402
from blocks.models.kalmannet import network_of  # noqa: E402


@pytest.mark.parametrize(
    ("m", "n", "second", "first"),
    [(2, 2, 5_208, 99_444), (3, 3, 23_928, 367_689), (4, 2, 29_088, 419_256)],
)
def test_the_networks_have_the_known_numbers_of_weights(m, n, second, first):
    """As counted for the authors' code; the first layer of #1 has rows for all four features."""
    count = {k: sum(p.numel() for p in network_of(k, m=m, n=n).parameters()) for k in (1, 2)}
    assert count[2] == second
    assert count[1] - 80 * (m + n) * (m + n) == first


@pytest.mark.parametrize("architecture", [1, 2])
def test_a_feature_that_is_not_used_changes_no_gain_and_has_no_weights_in_the_arrays(architecture):
    network = network_of(architecture, m=3, n=2, features=(2, 4))
    features = torch.randn(4, 10)
    other = features.clone()
    other[:, :2] = other[:, 4:7] = 7.0  # F1 and F3
    gains = [network(given, network.start(4))[0] for given in (features, other)]
    assert (gains[0] == gains[1]).all()
    arrays = network.arrays()
    unused = {1: [("L1.weight", slice(0, 2)), ("L1.weight", slice(4, 7))],
              2: [("FC7.weight", slice(0, 2)), ("FC6.weight", slice(None))]}  # fmt: skip
    for name, columns in unused[architecture]:
        assert not arrays[name][:, columns].any()
    assert any(array.any() for array in arrays.values())


@pytest.mark.parametrize("architecture", [1, 2])
def test_a_network_is_made_again_from_its_arrays(architecture):
    torch.manual_seed(1)
    network = network_of(architecture, m=2, n=2)
    again = network_of(**network.hyper)
    again.load(network.arrays())
    features = torch.randn(3, 8)
    found, expected = (one(features, one.start(3)) for one in (again, network))
    assert (found[0] == expected[0]).all()
    assert kalmannet.network_of(network.hyper, network.arrays()).m == 2


def test_features_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match=r"features = \(0,\), but there are 1 to 4"):
        network_of(2, m=2, n=2, features=(0,))


def test_a_fresh_network_begins_by_trusting_the_model():
    network = network_of(2, m=3, n=3)
    gains, _ = network(torch.randn(100, 12), network.start(100))
    assert np.abs(gains.detach().numpy()).max() < 0.1
