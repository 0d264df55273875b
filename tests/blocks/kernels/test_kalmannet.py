import numpy as np
import pytest
from needs import package
from numba.core import config

from blocks.kernels import kalmannet
from blocks.kernels.dense import aligned
from blocks.kernels.dense_lanes import WIDTH

LONG = 100 if config.DISABLE_JIT else 3000


def gain_module(m, n):
    """The same layers in torch, in float64; maps features and hidden states to gain and states."""
    torch = package("torch", "train")
    torch.manual_seed(m)
    nets = torch.nn.ModuleDict()
    for name, (n_in, n_out) in kalmannet.layers(m, n).items():
        made = (torch.nn.GRUCell if name.startswith("GRU") else torch.nn.Linear)(n_in, n_out)
        nets[name.replace(".", "_")] = made.float().double()

    def step(features, hidden):
        def relu(name, *parts):
            return torch.relu(nets[name](torch.cat(parts, 1)))

        differences, evolution, update = torch.split(features, [2 * n, m, m], 1)
        q, sigma, s = hidden
        q = nets["GRU_Q"](relu("FC5", update), q)
        sigma = nets["GRU_Sigma"](torch.cat((q, relu("FC6", evolution)), 1), sigma)
        s = nets["GRU_S"](torch.cat((relu("FC1", sigma), relu("FC7", differences)), 1), s)
        gain = nets["FC2_2"](relu("FC2_0", sigma, s))
        return gain, (q, relu("FC4", sigma, relu("FC3", s, gain)), s)

    arrays = {
        name: [p.detach().numpy() for p in nets[name.replace(".", "_")].parameters()]
        for name in kalmannet.layers(m, n)
    }
    return step, arrays


def both(m, n, rows, time):
    """Gains (time, rows, m, n) of the kernel and of torch."""
    step, arrays = gain_module(m, n)
    import torch

    network = kalmannet.Gain.of(arrays, m, n)
    rng = np.random.default_rng(8)
    features = rng.standard_normal((time, rows, 2 * (m + n))).astype(np.float32)
    priors = [rng.standard_normal((k, k)).astype(np.float32) for k in (m, m, n)]
    hidden = network.start(1, *priors)
    scratch = aligned(1, network.columns())
    if rows > 1:  # a tile, whatever stands in lanes that are not used
        hidden, scratch = hidden.repeat(WIDTH, 0).T.ravel(), aligned(network.columns() * WIDTH)
    states = tuple(torch.tensor(p.ravel()).double().repeat(rows, 1) for p in priors)
    ours, theirs = np.empty((2, time, rows, m, n), np.float32)
    gains = np.empty((1 if rows == 1 else WIDTH, m * n), np.float32)
    with torch.inference_mode():
        for t in range(time):
            seen = features[t]
            if rows > 1:
                seen = rng.standard_normal((2 * (m + n), WIDTH)).astype(np.float32)
                seen[:, :rows] = features[t].T
                seen = seen.ravel()
            kalmannet.gain(*network[:6], seen, hidden, scratch, gains)
            ours[t] = gains[:rows].reshape(rows, m, n)
            gain, states = step(torch.tensor(features[t]).double(), states)
            theirs[t] = gain.numpy().reshape(rows, m, n)
    return ours, theirs


def test_the_3_by_3_network_has_the_printed_number_of_weights():
    """KalmanNet architecture #2 with in_mult 5 and out_mult 40: 23 928, 2x2 5 208, 4x2 29 088."""
    for (m, n), printed in {(3, 3): 23_928, (2, 2): 5_208, (4, 2): 29_088}.items():
        total = 0
        for name, (n_in, n_out) in kalmannet.layers(m, n).items():
            recurrent = name.startswith("GRU")
            total += 3 * n_out * (n_in + n_out + 2) if recurrent else n_out * (n_in + 1)
        assert total == printed


@pytest.mark.parametrize("rows", [1, 7, WIDTH])
@pytest.mark.parametrize(("m", "n"), [(3, 3), (2, 2), (4, 2), (1, 1), (2, 5)])
def test_gains_are_those_of_torch(m, n, rows):
    ours, theirs = both(m, n, rows, 4)
    assert (np.abs(ours - theirs) / np.maximum(1.0, np.abs(theirs))).max() <= 1e-5


def test_three_thousand_steps_do_not_drift():
    ours, theirs = both(3, 3, 1, LONG)
    error = np.abs(ours - theirs)
    assert error.max() < 1e-5
    assert error[-LONG // 10 :].max() < 3.0 * error[: LONG // 10].max()


def test_weights_that_are_missing_or_of_another_size_are_named():
    _, arrays = gain_module(2, 2)
    with pytest.raises(ValueError, match=r"FC5: weight \(10, 2\), but \(15, 3\) is due with 3 sta"):
        kalmannet.Gain.of(arrays, 3, 2)
    del arrays["GRU_S"]
    with pytest.raises(ValueError, match="no arrays of GRU_S; expected FC5, GRU_Q"):
        kalmannet.Gain.of(arrays, 2, 2)
