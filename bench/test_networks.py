"""Small networks beside torch and numpy, and beside what the machine could do.

Two limits are computed in the same rounds: a single input has to read all weights once, so the
limit is the time in which one core reads as many bytes again and again; many inputs share the
weights, so the limit is the rate of multiply-adds of one core in registers.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numba import njit

from blocks.kernels import dense, kalmannet
from blocks.kernels.activations import RELU, SIGMOID
from blocks.kernels.dense import aligned
from blocks.kernels.dense_lanes import WIDTH
from blocks.kernels.table import Rising, Table
from blocks.kernels.traced import LANES
from blocks.kernels.unrolled import fma, fold, lanes, repeat, unrolled

torch = pytest.importorskip("torch", reason="needs torch: pip install 'kalvit[train]'")
nn = torch.nn

ROUNDS = 15
ROUND_S = 0.02  # of one measurement within a round
TRACKS = 96
SAMPLES = 9600  # by table
BATCH = 960  # evaluated
SUMS = 12  # independent chains of multiply-adds, which hide their latency

Round = dict[str, float]


@unrolled
def _read(numbers: Any, count: Any) -> Any:
    zero = lanes(numbers, 0) - lanes(numbers, 0)

    def step(i: Any, sums: Any) -> Any:
        return tuple(s + lanes(numbers, i * (8 * LANES) + LANES * k) for k, s in enumerate(sums))

    sums = repeat(count, step, (zero,) * 8)
    return fold(sum(sums[1:], sums[0]), lambda a, b: a + b)


@njit
def read(numbers: Any, times: int) -> float:
    """Read all numbers, as often as said."""
    total = 0.0
    for _ in range(times):
        total += _read(numbers, numbers.size // (8 * LANES))
    return total


@unrolled
def _multiply_add(numbers: Any, count: Any) -> Any:
    a = lanes(numbers, 0)

    def step(i: Any, sums: Any) -> Any:
        return tuple(fma(a, s, a) for s in sums)

    sums = repeat(count, step, tuple(a + float(k) for k in range(SUMS)))
    return fold(sum(sums[1:], sums[0]), lambda a, b: a + b)


@njit
def multiply_add(numbers: Any, count: int) -> float:
    """Do SUMS LANES count multiply-adds, in registers."""
    return _multiply_add(numbers, count)


@njit
def steps(network: Any, features: Any, hidden: Any, scratch: Any, gains: Any) -> None:
    """Steps of a gain network within a frame, features (time, parts, ...), a row or tile each."""
    weights, places, m, n, in_mult, out_mult = network
    for t in range(features.shape[0]):
        for k in range(features.shape[1]):
            kalmannet.gain(
                weights, places, m, n, in_mult, out_mult, features[t, k], hidden[k], scratch,
                gains[k],
            )  # fmt: skip


def seconds(work: Callable[[], object], units: float) -> float:
    """Time of one unit, of as many calls as fill a measurement.

    That of the processor: all of this is one thread, and what else runs on the machine is not
    counted, but for what it does to the caches.
    """
    begin = time.thread_time()
    work()
    calls = max(1, int(ROUND_S / (time.thread_time() - begin)))
    begin = time.thread_time()
    for _ in range(calls):
        work()
    return (time.thread_time() - begin) / calls / units


def in_rounds(
    works: dict[str, tuple[Callable[[], object], float]], rounds: int = ROUNDS
) -> list[Round]:
    """Seconds per unit of each work, in interleaved rounds, after each ran twice."""
    for work, _ in 2 * list(works.values()):
        work()
    return [
        {name: seconds(work, units) for name, (work, units) in works.items()} for _ in range(rounds)
    ]


def middle(rounds: list[Round], name: str) -> float:
    return statistics.median(found[name] for found in rounds)


def ratio(rounds: list[Round], slow: str, fast: str) -> float:
    return statistics.median(found[slow] / found[fast] for found in rounds)


class GainNetwork(nn.Module):
    """The same layers in torch, for one step; sequence and batch as torch's GRU wants them."""

    def __init__(self, m: int, n: int) -> None:
        super().__init__()
        self.split = [2 * n, m, m]
        self.nets = nn.ModuleDict(
            {
                name.replace(".", "_"): (nn.GRU if name.startswith("GRU") else nn.Linear)(*sizes)
                for name, sizes in kalmannet.layers(m, n).items()
            }
        )

    def relu(self, name: str, *parts: Any) -> Any:
        return torch.relu(self.nets[name](torch.cat(parts, 2) if len(parts) > 1 else parts[0]))

    def forward(self, features: Any, q: Any, sigma: Any, s: Any) -> Any:
        differences, evolution, update = torch.split(features, self.split, 2)
        nets = self.nets
        _, q = nets["GRU_Q"](self.relu("FC5", update), q)
        _, sigma = nets["GRU_Sigma"](torch.cat((q, self.relu("FC6", evolution)), 2), sigma)
        seen = torch.cat((self.relu("FC1", sigma), self.relu("FC7", differences)), 2)
        _, s = nets["GRU_S"](seen, s)
        gain = nets["FC2_2"](self.relu("FC2_0", sigma, s))
        return gain, q, self.relu("FC4", sigma, self.relu("FC3", s, gain)), s

    def arrays(self) -> dict[str, list[Any]]:
        return {
            name: [p.detach().numpy() for p in self.nets[name.replace(".", "_")].parameters()]
            for name in kalmannet.layers(3, 3)
        }


def gain_in_numpy(arrays: dict[str, Any], features: Any, q: Any, sigma: Any, s: Any) -> Any:
    """One step for one filter with 3 states and observations, vectors of float32."""

    def linear(name: str, x: Any) -> Any:
        weight, bias = arrays[name]
        return weight @ x + bias

    def relu(name: str, *parts: Any) -> Any:
        return np.maximum(linear(name, np.concatenate(parts)), 0.0)

    def gru(name: str, x: Any, h: Any) -> Any:
        weight_ih, weight_hh, bias_ih, bias_hh = arrays[name]
        (r, z, n), (r_h, z_h, n_h) = (
            np.split(a, 3) for a in (weight_ih @ x + bias_ih, weight_hh @ h + bias_hh)
        )
        r, z = 1.0 / (1.0 + np.exp(-(r + r_h))), 1.0 / (1.0 + np.exp(-(z + z_h)))
        n = np.tanh(n + r * n_h)
        return n + z * (h - n)

    q = gru("GRU_Q", relu("FC5", features[9:]), q)
    sigma = gru("GRU_Sigma", np.concatenate((q, relu("FC6", features[6:9]))), sigma)
    s = gru("GRU_S", np.concatenate((relu("FC1", sigma), relu("FC7", features[:6]))), s)
    gain = linear("FC2.2", relu("FC2.0", sigma, s))
    return gain, q, relu("FC4", sigma, relu("FC3", s, gain)), s


def gain_rounds(rows: int) -> list[Round]:
    """Seconds per step and track."""
    torch.manual_seed(0)
    net = GainNetwork(3, 3)
    arrays = net.arrays()
    network = kalmannet.Gain.of(arrays, 3, 3)
    time_steps = max(20, 1000 // rows)
    features = np.random.default_rng(1).standard_normal((time_steps, rows, 12)).astype(np.float32)
    zero = np.zeros((3, 3), np.float32)
    size = network.start(1, zero, zero, zero).size
    if rows == 1:
        shown, hidden, scratch = (
            features[:, None],
            aligned(1, 1, size),
            aligned(1, network.columns()),
        )
        gains = np.empty((1, 1, 9), np.float32)
    else:
        tiles = -(-rows // WIDTH)
        shown = np.zeros((time_steps, tiles * WIDTH, 12), np.float32)
        shown[:, :rows] = features
        shown = np.ascontiguousarray(
            shown.reshape(time_steps, tiles, WIDTH, 12).swapaxes(2, 3)
        ).reshape(time_steps, tiles, -1)
        hidden, scratch = aligned(tiles, size * WIDTH), aligned(network.columns() * WIDTH)
        gains = np.empty((tiles, WIDTH, 9), np.float32)

    first = torch.tensor(features[:1])
    states = [torch.zeros(1, rows, 9)] * 3
    flat = [np.zeros(9, np.float32)] * 3
    steps(network[:6], shown[:1], hidden, scratch, gains)
    with torch.inference_mode():
        expected = net(first, *states)[0].numpy().reshape(rows, 9)
    np.testing.assert_allclose(gains.reshape(-1, 9)[:rows], expected, atol=1e-5)
    in_numpy = gain_in_numpy(arrays, features[0, 0], *flat)[0].reshape(3, 3)
    np.testing.assert_allclose(gains.reshape(-1, 3, 3)[0], in_numpy, atol=1e-5)

    def inference() -> None:
        with torch.inference_mode():
            net(first, *states)

    works: dict[str, Any] = {
        "ours": (
            lambda: steps(network[:6], shown, hidden, scratch, gains),
            time_steps * rows,
        ),
        "torch": (lambda: net(first, *states), rows),
        "inference": (inference, rows),
        "read": (lambda: read(network.weights, 100), 100 * rows),
        "fma": (lambda: multiply_add(network.weights, 10_000), 10_000 * SUMS * LANES / 23_928),
    }
    if rows == 1:
        works["numpy"] = (lambda: gain_in_numpy(arrays, features[0, 0], *flat), 1)
    return in_rounds(works)


def test_gain_network_of_kalmannet(once, add):
    rounds = once(gain_rounds, 1)
    ours = middle(rounds, "ours")
    what = "KalmanNet's gain network (#2, 3x3, 23,928 weights), batch 1, within a frame"
    peers = {
        "inference": "torch inference_mode, a step per call; processor time, as in all these rows",
        "torch": "torch eager, a step per call",
        "numpy": "numpy float32, a step per call",
    }
    for peer, how in peers.items():
        add(
            what,
            f"{ours * 1e6:.2f} us",
            f"{middle(rounds, peer) * 1e6:.0f} us",
            f"{ratio(rounds, peer, 'ours'):.0f}x",
            "<= 5 us" if peer == "inference" else "",
            met=ours <= 5e-6 if peer == "inference" else None,
            how=how,
        )
        what = "  the same"
    add(
        "  the same; reach",
        f"{ours * 1e6:.2f} us",
        f"{middle(rounds, 'read') * 1e6:.2f} us",
        f"{ratio(rounds, 'read', 'ours'):.2f}",
        "<= 2.5 us",
        met=ours <= 2.5e-6,
        how="computed limit: its packed weights read once, 123 KiB from L2",
    )


def test_gain_network_of_many_tracks(once, add):
    rounds = once(gain_rounds, TRACKS)
    for peer, how in {
        "inference": "torch inference_mode",
        "fma": "computed limit: 23,928 multiply-adds in registers",
    }.items():
        add(
            f"  the same, {TRACKS} tracks at once, per track",
            f"{middle(rounds, 'ours') * 1e6:.2f} us",
            f"{middle(rounds, peer) * 1e6:.2f} us",
            f"{ratio(rounds, peer, 'ours'):.2f}",
            how=how,
        )


def trained(kind: Any) -> list[tuple[Any, Any]]:
    """Layers of 1-100-50-16 that tell 16 levels apart in noise, after a thousand steps."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(1, 100), kind, nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 16))
    levels = torch.linspace(-2.2, 2.2, 16)
    adam = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(1000):
        states = torch.randint(0, 16, (500,))
        samples = levels[states] + 0.3 * torch.randn(500)
        adam.zero_grad()
        nn.functional.cross_entropy(net(samples[:, None]), states).backward()
        adam.step()
    arrays = [parameter.detach().numpy() for parameter in net.parameters()]
    return list(zip(arrays[::2], arrays[1::2], strict=True))


def in_torch(layers: list[tuple[Any, Any]]) -> Any:
    linear = []
    for weight, bias in layers:
        one = nn.Linear(*weight.shape[::-1])
        one.weight.data, one.bias.data = torch.tensor(weight), torch.tensor(bias)
        linear += [one, nn.ReLU()]
    return nn.Sequential(*linear[:-1])


def network_rounds(layers: list[tuple[Any, Any]], count: int) -> list[Round]:
    """Seconds per sample of an evaluated network."""
    rng = np.random.default_rng(2)
    inputs = rng.standard_normal((count, layers[0][0].shape[1])).astype(np.float32)
    outputs = np.empty((count, layers[-1][0].shape[0]), np.float32)
    plain, whole = dense.Network.of(layers), dense.Network.of(layers, normalise=True)
    net, given = in_torch(layers), torch.tensor(inputs)
    plain(inputs, outputs)
    with torch.inference_mode():
        np.testing.assert_allclose(outputs, net(given).numpy(), rtol=1e-4, atol=1e-4)

    def inference() -> None:
        with torch.inference_mode():
            net(given)

    def in_numpy() -> None:
        x = inputs
        for weight, bias in layers[:-1]:
            x = np.maximum(x @ weight.T + bias, 0.0)
        weight, bias = layers[-1]
        np.add(x @ weight.T, bias, out=outputs)

    products = sum(weight.size for weight, _ in layers)
    return in_rounds(
        {
            "ours": (lambda: plain(inputs, outputs), count),
            "whole": (lambda: whole(inputs, outputs), count),
            "torch": (lambda: net(given), count),
            "inference": (inference, count),
            "numpy": (in_numpy, count),
            "fma": (lambda: multiply_add(plain.weights, 10_000), 10_000 * SUMS * LANES / products),
        }
    )


def per_second(seconds_each: float) -> str:
    return f"{1e-6 / seconds_each:.2f} Msamples/s"


PEERS = {
    "inference": "torch inference_mode, same batch",
    "torch": "torch eager, same batch",
    "numpy": "numpy float32, same batch",
    "fma": "computed limit: its multiply-adds in registers",
}


def test_viterbinet_evaluated(once, add):
    rounds = once(network_rounds, trained(nn.ReLU()), BATCH)
    for peer, how in PEERS.items():
        first = peer == "inference"
        add(
            f"MLP 1-100-50-16, float32, {BATCH} samples at once" if first else "  the same",
            per_second(middle(rounds, "ours")),
            per_second(middle(rounds, peer)),
            f"{ratio(rounds, peer, 'ours'):.2f}",
            ">= 5 Msamples/s" if first else "",
            met=middle(rounds, "ours") <= 1 / 5e6 if first else None,
            how=how,
        )
    add(
        "  the same with log-softmax",
        per_second(middle(rounds, "whole")),
        per_second(middle(rounds, "fma")),
        f"{ratio(rounds, 'fma', 'whole'):.2f}",
        how=PEERS["fma"] + ", softmax not counted",
    )


@pytest.mark.parametrize(
    ("what", "sizes", "count"),
    [
        ("MLP 1-100-50-16, one sample per call", (1, 100, 50, 16), 1),
        (f"MLP 7-60-30-2 (DeepSIC), {BATCH} samples at once", (7, 60, 30, 2), BATCH),
    ],
)
def test_other_networks(once, add, what, sizes, count):
    rng = np.random.default_rng(4)
    layers = [
        (a.astype(np.float32) / 4, np.zeros(len(a), np.float32))
        for a in (rng.standard_normal(pair[::-1]) for pair in pairwise(sizes))
    ]
    rounds = once(network_rounds, layers, count)
    for peer in ("inference", "numpy"):
        add(
            what if peer == "inference" else "  the same",
            per_second(middle(rounds, "ours")),
            per_second(middle(rounds, peer)),
            f"{ratio(rounds, peer, 'ours'):.1f}x",
            how=PEERS[peer],
        )


def table_rounds(first: str) -> tuple[list[Round], Table, float]:
    """Seconds per sample, and per rebuilt table; the table; the share of changed decisions."""
    layers = trained(nn.ReLU() if first == "ReLU" else nn.Sigmoid())
    kinds = [RELU if first == "ReLU" else SIGMOID, RELU, 0]
    network = dense.Network.of(layers, kinds, normalise=True)
    function = Rising.of(layers) if first == "ReLU" else network
    table = Table.of(function, 16, -4.0, 4.0)
    rng = np.random.default_rng(3)
    many = rng.uniform(-3.0, 3.0, 200_000).astype(np.float32)
    exact, found = np.empty((2, many.size, 16), np.float32)
    network(many[:, None], exact)
    table.log_probabilities(many, found)
    changed = float(np.mean(exact.argmax(axis=1) != found.argmax(axis=1)))
    samples, rows = many[:SAMPLES].copy(), found[:SAMPLES]
    tile, metrics = samples.reshape(-1, 2, LANES), np.empty((SAMPLES // 16, 16, 2, LANES), "f4")
    rounds = in_rounds(
        {
            "rows": (lambda: table.log_probabilities(samples, rows), SAMPLES),
            "tile": (lambda: table.metrics(tile, metrics), SAMPLES),
            "network": (lambda: network(samples[:, None], rows), SAMPLES),
            "rebuild": (lambda: Table.of(function, 16, -4.0, 4.0), 1),
            "remake": (lambda: Rising.of(layers), 1),
        }
    )
    return rounds, table, changed


@pytest.mark.parametrize("first", ["ReLU", "sigmoid"])
def test_viterbinet_by_table(once, add, first):
    rounds, table, changed = once(table_rounds, first)
    cells = len(table.values) - 2
    what = f"MLP 1-100-50-16 by table, {first} first, {cells} cells"
    for name, form in (("rows", "log-probabilities"), ("tile", "metrics of 16 sequences in lanes")):
        add(
            f"{what}: {form}",
            per_second(middle(rounds, name)),
            per_second(middle(rounds, "network")),
            f"{ratio(rounds, 'network', name):.0f}x",
            ">= 100 Msamples/s",
            met=middle(rounds, name) <= 1e-8,
            how="our network evaluated, with log-softmax",
        )
    rebuilt = middle(rounds, "rebuild") + (middle(rounds, "remake") if first == "ReLU" else 0.0)
    add(
        "  rebuilt after a change of weights",
        f"{rebuilt * 1e3:.2f} ms",
        bar="<= 1 ms",
        met=rebuilt <= 1e-3,
        how="evaluation at points and half-way, errors, table; preparing the network",
    )
    add(
        "  its stated error where p > 1e-6",
        f"{table.error:.1e} nats",
        bar="<= 2e-2 nats",
        met=table.error <= 2e-2,
        how="twice the greatest error half-way between points",
    )
    add(
        "  share of changed decisions",
        f"{changed:.1e}",
        bar="<= 1e-4",
        met=changed <= 1e-4,
        how="most probable state of 200,000 samples, uniform in [-3, 3]",
    )
