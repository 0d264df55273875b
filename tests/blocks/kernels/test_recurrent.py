import numpy as np
import pytest
from needs import package
from numba.core import config

from blocks.kernels import dense, recurrent

torch = package("torch", "train")

LONG = 300 if config.DISABLE_JIT else 10_000
CELLS = {"gru": (torch.nn.GRU, recurrent.pack_gru), "lstm": (torch.nn.LSTM, recurrent.pack_lstm)}
SHAPES = [(1, 1), (15, 9), (39, 9), (6, 20), (5, 16)]


def modules(kind, n_in, n_hidden, scale=1.0, bidirectional=False):
    """A module of random weights in float64, and the packed numbers of each direction."""
    module, pack = CELLS[kind]
    torch.manual_seed(n_in)
    net = module(n_in, n_hidden, bidirectional=bidirectional).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_((scale * parameter).float())
    arrays = [parameter.detach().numpy() for parameter in net.parameters()]
    return net, dense.join([pack(*arrays[i : i + 4]) for i in range(0, len(arrays), 4)])


def run(kind, weights, first, inputs, n_hidden, outputs, backward=False, column=0):
    rows = inputs.shape[1]
    state, memory = (np.zeros((rows, dense.padded(n_hidden)), np.float32) for _ in range(2))
    sizes = (inputs.shape[2], n_hidden)
    if kind == "gru":
        recurrent.gru(weights, first, *sizes, inputs, state, backward, outputs, column)
    else:
        recurrent.lstm(weights, first, *sizes, inputs, state, memory, backward, outputs, column)
    return state[:, :n_hidden], memory[:, :n_hidden]


def close(found, expected, tolerance=1e-5):
    error = np.abs(found - expected) / np.maximum(1.0, np.abs(expected))
    assert error.max() <= tolerance


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
@pytest.mark.parametrize(("n_in", "n_hidden"), SHAPES)
def test_one_step_of_a_gru_from_the_same_state_is_that_of_torch(n_in, n_hidden, rows):
    net, (weights, _) = modules("gru", n_in, n_hidden, scale=4.0)
    rng = np.random.default_rng(rows)
    x = rng.standard_normal((rows, n_in + 1)).astype(np.float32)
    h = rng.standard_normal((rows, 2 + dense.padded(n_hidden))).astype(np.float32)
    out = np.full((rows, 40), 77.0, np.float32)
    recurrent.gru_cell(weights, 0, n_in, n_hidden, x, 1, h, 2, out, 5)
    given = torch.tensor(x[:, 1:]).double(), torch.tensor(h[:, 2 : 2 + n_hidden]).double()
    expected = net(given[0][None], given[1][None])[0][0].detach().numpy()
    close(out[:, 5 : 5 + n_hidden], expected)
    assert (out[:, :5] == 77.0).all()


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
@pytest.mark.parametrize(("n_in", "n_hidden"), SHAPES)
def test_one_step_of_an_lstm_from_the_same_state_is_that_of_torch(n_in, n_hidden, rows):
    net, (weights, _) = modules("lstm", n_in, n_hidden, scale=4.0)
    rng = np.random.default_rng(rows)
    x = rng.standard_normal((rows, n_in)).astype(np.float32)
    h, memory = rng.standard_normal((2, rows, dense.padded(n_hidden))).astype(np.float32)
    given = [torch.tensor(a[None, :, :n_hidden]).double() for a in (h, memory)]
    expected, (_, c) = net(torch.tensor(x).double()[None], given)
    out = np.empty((rows, dense.padded(n_hidden)), np.float32)
    recurrent.lstm_cell(weights, 0, n_in, n_hidden, x, 0, h, 0, memory, out, 0)
    close(out[:, :n_hidden], expected[0].detach().numpy())
    close(memory[:, :n_hidden], c[0].detach().numpy())


@pytest.mark.parametrize("kind", CELLS)
def test_ten_thousand_steps_do_not_drift_from_float64(kind):
    net, (weights, _) = modules(kind, 4, 9)
    inputs = np.random.default_rng(5).standard_normal((LONG, 1, 4)).astype(np.float32)
    outputs = np.empty((LONG, 1, 16), np.float32)
    run(kind, weights, 0, inputs, 9, outputs)
    with torch.inference_mode():
        expected = net(torch.tensor(inputs).double())[0].numpy()
    error = np.abs(outputs[:, :, :9] - expected)
    assert error.max() < 1e-5
    assert error[-LONG // 10 :].max() < 3.0 * error[: LONG // 10].max()


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("kind", CELLS)
def test_both_directions_side_by_side_are_torchs_bidirectional_module(kind, rows):
    net, (weights, places) = modules(kind, 3, 10, bidirectional=True)
    inputs = np.random.default_rng(6).standard_normal((12, rows, 3)).astype(np.float32)
    outputs = np.empty((12, rows, 26), np.float32)
    ends = [
        run(kind, weights, places[i], inputs, 10, outputs, backward, 10 * i)
        for i, backward in enumerate((False, True))
    ]
    expected, last = net(torch.tensor(inputs).double())
    close(outputs[:, :, :20], expected.detach().numpy())
    last = (last,) if kind == "gru" else last
    for found, torchs in zip(ends, zip(*last, strict=True), strict=True):
        for ours, theirs in zip(found, torchs, strict=False):
            close(ours, theirs.detach().numpy())


def test_weights_of_another_cell_are_refused():
    net, _ = modules("lstm", 3, 4)
    with pytest.raises(ValueError, match="not those of a cell with 3 gates"):
        recurrent.pack_gru(*(parameter.detach().numpy() for parameter in net.parameters()))
