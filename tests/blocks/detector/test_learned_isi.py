import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import references
from needs import compiled
from stub_nodes import dense_stub, stub

from blocks.detector.learned_factor_graph import LearnedFactorGraph
from blocks.detector.least_squares import LeastSquares
from blocks.detector.state_gaussian import StateGaussian
from blocks.detector.sum_product import SumProduct
from blocks.detector.viterbi import Viterbi
from blocks.detector.viterbinet import ViterbiNet
from blocks.kernels import trellis, viterbi
from blocks.kernels.trellis import ALPHABETS
from blocks.nodes.class_gaussians import ClassGaussians
from blocks.nodes.dense import Dense
from blocks.nodes.taps import Taps
from pipeline.errors import ConnectError, FieldError, ParameterError, WeightsError
from pipeline.signature import FieldType
from pipeline.weights import Weights

pytestmark = pytest.mark.usefixtures("dense_stub")
_ = dense_stub  # a fixture

TAPS, NOISE_VAR = (1.0, 0.6, -0.3), 0.3
LENGTH = {"bpsk": 6, "ook": 6, "qpsk": 4}


def started(block, weights=None):
    """The block, as a flow hands it frames."""
    block.start()
    if weights is not None:
        block.take(weights)
    return block


def given(modulation, shape, seed=1):
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal(shape)
    if modulation == "qpsk":
        samples = samples + 1j * rng.standard_normal(shape)
    return samples.astype(np.complex64 if modulation == "qpsk" else np.float32)


def every_word(block, node, samples, prior=0.0):
    """Enumerations of all that could have been sent, one for each word."""
    order, memory = node.order, max(node.memory - 1, 1)
    starts = trellis.start_states(block.start_state, block.known_symbol, order, memory)
    length = samples.shape[1]
    known = min(length, node.memory - 1) if block.end_state == "known" else 0
    ends = trellis.states_ending(block.known_symbol, known, order, memory)
    for word in samples:
        metrics = np.empty((length, node.n_classes), np.float32)
        node.metrics(word, metrics)
        yield references.EveryWord(metrics.astype(float) + prior, order, starts, ends)


@pytest.mark.parametrize("modulation", ["bpsk", "qpsk"])
@pytest.mark.parametrize("memory", [1, 2, 3])
@pytest.mark.parametrize(("start", "end"), [("known", "unknown"), ("unknown", "known")])
def test_words_are_the_most_likely_by_the_metrics_of_the_node(modulation, memory, start, end):
    node = stub(modulation, memory, seed=memory)
    block = ViterbiNet(
        modulation=modulation, memory=memory, start_state=start, end_state=end, known_symbol=1
    )
    samples = given(modulation, (5, LENGTH[modulation]))
    (result,) = started(block, node.weights("net")).process(samples)
    for symbols, every in zip(result.symbols, every_word(block, node, samples), strict=True):
        np.testing.assert_array_equal(symbols, ALPHABETS[modulation][list(every.best)])


@pytest.mark.parametrize("modulation", ["bpsk", "qpsk"])
@pytest.mark.parametrize("memory", [1, 2, 3])
@pytest.mark.parametrize("with_transition", [False, True])
def test_posteriors_are_those_of_the_function_nodes(modulation, memory, with_transition):
    node = stub(modulation, memory, seed=memory)
    arrays, prior = dict(node.arrays), 0.0
    if with_transition:
        transition = np.random.default_rng(9).random((node.order ** (memory - 1), node.order))
        arrays["transition"] = transition / transition.sum(axis=1, keepdims=True)
        prior = -np.log(arrays["transition"]).reshape(-1)
    block = LearnedFactorGraph(modulation=modulation, memory=memory, start_state="unknown")
    samples = given(modulation, (5, LENGTH[modulation]))
    (result,) = started(block, Weights("net", 1, arrays, node.hyper)).process(samples)
    for n, every in enumerate(every_word(block, node, samples, prior)):
        np.testing.assert_allclose(result.posterior[n], every.posterior, rtol=1e-4, atol=1e-7)
        newest = every.posterior.reshape(len(every.posterior), -1, node.order).sum(axis=1)
        bit_0 = newest[:, 1::2].sum(axis=1), newest[:, ::2].sum(axis=1)
        np.testing.assert_allclose(
            result.llr[n, :, 0], np.log(bit_0[0] / bit_0[1]), rtol=1e-3, atol=1e-4
        )
        np.testing.assert_array_equal(
            result.symbols[n], ALPHABETS[modulation][newest.argmax(axis=1)]
        )


def test_a_transition_that_never_happens_is_never_decided():
    node = stub("bpsk", 2, seed=1)
    transition = np.array([[1.0, 0.0], [0.5, 0.5]])  # no +1 after -1
    weights = Weights("net", 1, {**node.arrays, "transition": transition}, node.hyper)
    block = started(LearnedFactorGraph(memory=2, start_state="unknown"), weights)
    (result,) = block.process(given("bpsk", (20, 30)))
    symbols = result.symbols
    assert not ((symbols[:, :-1] == -1) & (symbols[:, 1:] == 1)).any()


def known_channel(modulation):
    taps = np.array(TAPS) * (1 + 0.3j) if modulation == "qpsk" else np.array(TAPS)
    return Taps(modulation, 3, {"taps": taps, "noise_var": np.array(NOISE_VAR)})


def model_based(cls, modulation, start, **more):
    taps = known_channel(modulation).arrays["taps"]
    more |= {"taps_imag": taps.imag} if modulation == "qpsk" else {}
    return started(
        cls(taps=taps.real, modulation=modulation, start_state=start, known_symbol=1, **more)
    )


@pytest.mark.parametrize("modulation", ["bpsk", "ook", "qpsk"])
@pytest.mark.parametrize("start", ["known", "unknown"])
@pytest.mark.parametrize("cls", [LeastSquares, StateGaussian])
def test_with_the_true_taps_all_is_as_by_detectors_that_know_them(cls, modulation, start):
    channel = known_channel(modulation)
    node = channel
    if cls is StateGaussian:
        variance = np.full(channel.n_classes, NOISE_VAR)
        node = ClassGaussians(modulation, 3, {"mean": channel.means, "variance": variance})
    values = {"modulation": modulation, "memory": 3, "start_state": start, "known_symbol": 1}
    samples = given(modulation, (7, 50))
    expected = model_based(Viterbi, modulation, start).process(samples)[0]
    block = started(cls(**values), node.weights("channel"))
    (found,) = block.process(samples)
    np.testing.assert_array_equal(found.symbols, expected.symbols)
    assert found.llr.shape == found.posterior.shape == (7, 50, 0)
    for algorithm, mode in (("sum_product", "exact"), ("max_log", "max_log")):
        expected = model_based(
            SumProduct, modulation, start, noise_var=NOISE_VAR, mode=mode
        ).process(samples)[0]
        block = started(cls(**values, algorithm=algorithm), node.weights("channel"))
        (found,) = block.process(samples)
        np.testing.assert_array_equal(found.symbols, expected.symbols)
        np.testing.assert_allclose(found.posterior, expected.posterior, rtol=2e-4, atol=1e-6)
        np.testing.assert_allclose(found.llr, expected.llr, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("cls", [LeastSquares, StateGaussian])
@pytest.mark.parametrize("modulation", ["bpsk", "qpsk"])
def test_taps_given_as_parameters_serve_from_the_start(cls, modulation):
    channel = known_channel(modulation)
    taps = channel.arrays["taps"]
    values = {"modulation": modulation, "memory": 3}
    more = {"taps": taps.real, "noise_var": NOISE_VAR, "algorithm": "max_log"}
    more |= {"taps_imag": taps.imag} if modulation == "qpsk" else {}
    samples = given(modulation, (3, 40))
    (found,) = started(cls(**values, **more)).process(samples)
    variance = np.full(channel.n_classes, NOISE_VAR)
    node = channel
    if cls is StateGaussian:
        node = ClassGaussians(modulation, 3, {"mean": channel.means, "variance": variance})
    block = started(cls(**values, algorithm="max_log"), node.weights("channel"))
    (expected,) = block.process(samples)
    np.testing.assert_array_equal(found.llr, expected.llr)


# --- Streams and swaps ----------------------------------------------------------------------------

BLOCKS = {
    "viterbinet": lambda **v: ViterbiNet(memory=3, **v),
    "learned_factor_graph": lambda **v: LearnedFactorGraph(memory=3, **v),
}


def decided(block, frames, weights):
    """Fields of a stream, put together; `weights` before the frame of that place.

    frames   arrays of samples
    weights  {place of a frame: Weights}
    """
    block.start()
    answers = []
    for place, samples in enumerate(frames):
        if place in weights:
            block.take(weights[place])
        answers += block.process(samples)
    answers += block.finish()
    assert [len(a.symbols) for a in answers] == [len(samples) for samples in frames]
    return [np.concatenate(rows) for rows in zip(*answers, strict=True)]


@pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("lag", [0, 1])
def test_a_stream_is_decided_alike_however_it_is_cut_between_swaps(make, lag):
    one, two = (stub("bpsk", 3, seed).weights("net") for seed in (1, 2))
    samples = given("bpsk", 900)
    whole = decided(make(lag=lag), np.split(samples, [350]), {0: one, 1: two})
    for step in (1, 7, 50):
        edges = np.unique([*range(step, 900, step), 350])
        swap = int(np.searchsorted(edges, 350)) + 1
        parts = decided(make(lag=lag), np.split(samples, edges), {0: one, swap: two})
        for found, expected in zip(parts, whole, strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)
def test_path_metrics_carry_on_over_a_swap(make):
    """The stream is that of one trellis whose metrics come from two nodes."""
    nodes = [stub("bpsk", 3, seed) for seed in (1, 2)]
    samples = given("bpsk", 12)
    weights = [node.weights("net") for node in nodes]
    found = decided(make(start_state="unknown"), np.split(samples, [5]), dict(enumerate(weights)))
    metrics = np.empty((12, 8), np.float32)
    nodes[0].metrics(samples[:5], metrics[:5])
    nodes[1].metrics(samples[5:], metrics[5:])
    every = references.EveryWord(metrics.astype(float), 2, np.ones(4, bool), np.ones(4, bool))
    if len(found) == 1:
        np.testing.assert_array_equal(found[0], 2 * np.array(every.best) - 1)
    else:
        np.testing.assert_allclose(found[1], every.posterior, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)
def test_words_after_a_swap_are_decided_as_by_a_fresh_detector(make):
    one, two = (stub("bpsk", 3, seed).weights("net") for seed in (1, 2))
    samples = given("bpsk", (20, 30))
    block = started(make(), one)
    (before,) = block.process(samples)
    block.take(two)
    (after,) = block.process(samples)
    (expected,) = started(make(), two).process(samples)
    for found, other in zip(after, expected, strict=True):
        np.testing.assert_array_equal(found, other)
    assert (before.symbols != after.symbols).any()


@compiled
def test_words_are_decided_alike_however_many_come_at_once():
    block = started(ViterbiNet(memory=3), stub("bpsk", 3, 1).weights("net"))
    samples = given("bpsk", (70, 41))
    (whole,) = block.process(samples)
    for count in (1, 16, 17):
        parts = [block.process(samples[at : at + count])[0] for at in range(0, 70, count)]
        np.testing.assert_array_equal(np.concatenate([p.symbols for p in parts]), whole.symbols)


def test_a_network_decides_by_its_table_as_by_its_metrics(monkeypatch):
    monkeypatch.undo()  # a network, no stub
    fresh = Dense.fresh("bpsk", 3, rng=np.random.default_rng(4), hidden=(9,), activations=("tanh",))
    node = Dense.of({**fresh.hyper, "span": [-1.0, 1.0]}, fresh.arrays)
    samples = given("bpsk", (35, 30))
    metrics = np.empty((samples.size, 8), np.float32)
    node.metrics(samples.reshape(-1), metrics)
    recursion = viterbi.Viterbi(
        trellis.Metrics.given(8, np.float32), 2, trellis.start_states("known", 0, 2, 2)
    )
    (indices,) = recursion.decide(metrics.reshape(-1), 35, 30, 30, at_start=True)
    block = started(ViterbiNet(memory=3), node.weights("net"))
    np.testing.assert_array_equal(block.process(samples)[0].symbols, 2 * indices.astype(int) - 1)
    alone = [block.process(word[None])[0].symbols for word in samples]
    np.testing.assert_array_equal(np.concatenate(alone), 2 * indices.astype(int) - 1)


def test_without_a_table_a_network_decides_by_its_layers(monkeypatch):
    monkeypatch.undo()  # a network, no stub
    node = Dense.fresh("bpsk", 3, rng=np.random.default_rng(1), hidden=(8,), activations=("relu",))
    hyper = {**node.hyper, "span": [-1.5, 1.5]}
    samples = given("bpsk", (4, 6))
    block = started(ViterbiNet(memory=3, table=False), Weights("net", 1, node.arrays, hyper))
    (result,) = block.process(samples)
    assert Dense.of(hyper, node.arrays).table is not None
    for symbols, every in zip(result.symbols, every_word(block, node, samples), strict=True):
        np.testing.assert_array_equal(symbols, ALPHABETS["bpsk"][list(every.best)])


def test_no_torch_is_imported():
    code = """
import sys
import numpy as np
from blocks.detector.viterbinet import ViterbiNet
from blocks.nodes.dense import Dense

node = Dense.fresh("bpsk", 3, rng=np.random.default_rng(4), hidden=(9,), activations=("tanh",))
block = ViterbiNet(memory=3)
block.start()
block.take(Dense.of({**node.hyper, "span": [-1.0, 1.0]}, node.arrays).weights("net"))
assert block.process(np.zeros((2, 20), np.float32))[0].symbols.shape == (2, 20)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


# --- What goes wrong ------------------------------------------------------------------------------


def changed(**values):
    """Weights of a stub of 3 symbols, with these values instead."""
    node = stub("bpsk", 3, 2)
    return Weights(
        **{"name": "net", "version": 7, "arrays": node.arrays, "hyper": node.hyper, **values}
    )


WRONG = [
    (changed(hyper={"kind": "gru"}), "of kind 'gru', which is no function node"),
    (known_channel("bpsk").weights("taps"), "kind 'taps', but detector.{} takes 'dense' or"),
    (stub("bpsk", 4, 2).weights("net"), "memory = 4, but detector.{} has memory = 3; train others"),
    (stub("qpsk", 3, 2).weights("net"), "modulation = 'qpsk', but detector.{} has modulation ="),
    (changed(arrays={"mean": np.zeros(8), "slope": np.full(8, 1e35)}), "are no numbers or overfl"),
]


@pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize(("weights", "said"), WRONG)
def test_weights_that_do_not_fit_leave_the_old_ones_serving(make, weights, said):
    block = started(make(), stub("bpsk", 3, 1).weights("net"))
    samples = given("bpsk", (20, 30))
    (before,) = block.process(samples)
    with pytest.raises(WeightsError, match=said.format(block.name.split(".")[1])):
        block.take(weights)
    (after,) = block.process(samples)
    for found, expected in zip(after, before, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("transition", "said"),
    [
        (np.full((8, 2), 0.5), r"transition has shape \(8, 2\); expected \(4, 2\)"),
        (np.full((4, 2), 0.6), "rows must sum to 1"),
        (np.array([[1.5, -0.5]] * 4), "transition holds no probabilities"),
    ],
)
def test_transitions_that_are_none_are_refused(transition, said):
    node = stub("bpsk", 3, 2)
    block = started(LearnedFactorGraph(memory=3), node.weights("net"))
    with pytest.raises(WeightsError, match=said):
        block.take(changed(arrays={**node.arrays, "transition": transition}))


@pytest.mark.parametrize("cls", [ViterbiNet, LearnedFactorGraph, LeastSquares, StateGaussian])
def test_without_weights_the_first_frame_says_where_to_get_them(cls):
    for samples in (given("bpsk", 10), given("bpsk", (2, 5))):
        with pytest.raises(WeightsError, match=r"kalvit train FLOW --block BLOCK.*model = NAME"):
            started(cls()).process(samples)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"memory": 0}, "memory = 0 symbols, but it must be at least 1"),
        ({"modulation": "qpsk", "memory": 10}, r"4\^9 states, but at most 65536"),
        ({"start_state": "silence"}, "start_state = 'silence'"),
        ({"taps": (1.0, 0.5)}, "taps has 2 items, but memory = 4"),
        ({"memory": 1, "taps": (1.0,), "taps_imag": (0.5,)}, "are taken as real"),
        ({"memory": 1, "taps": (1.0,), "taps_imag": (0.5, 0.1)}, "taps_imag has 2 items"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(values, said):
    with pytest.raises(ParameterError, match=f"^detector.least_squares: .*{said}"):
        LeastSquares(**values)


def test_samples_of_the_other_kind_are_refused():
    for modulation, dtype, right in (("bpsk", "complex64", "float32"), ("qpsk", "float32", "com")):
        block = started(LeastSquares(modulation=modulation, memory=1, taps=(1.0,)))
        with pytest.raises(ConnectError, match=f"{dtype}.*expected {right}"):
            block.narrow({"samples": FieldType.of(dtype, "time")})
        with pytest.raises(FieldError, match=f"{dtype}.*expected {right}"):
            block.process(np.zeros(3, dtype))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -2e6])
@pytest.mark.parametrize("modulation", ["bpsk", "qpsk"])
@pytest.mark.parametrize("kind", ["dense", "taps"])
def test_samples_that_are_no_numbers_tell_nothing(monkeypatch, kind, modulation, bad):
    monkeypatch.undo()  # networks, no stubs
    rng = np.random.default_rng(3)
    order = ALPHABETS[modulation].size
    if kind == "dense":
        fresh = Dense.fresh(modulation, 2, rng=rng, hidden=(6,), activations=("tanh",))
        span = None if modulation == "qpsk" else [-1.0, 1.0]
        node = Dense.of({**fresh.hyper, "span": span}, fresh.arrays)
        block = started(ViterbiNet(modulation=modulation, memory=2), node.weights("net"))
    else:
        taps = np.array([1.0, 0.5], complex if modulation == "qpsk" else float)
        node = Taps(modulation, 2, {"taps": taps, "noise_var": np.array(0.3)})
        block = started(LeastSquares(modulation=modulation, memory=2), node.weights("net"))
    samples = given(modulation, (1, 6))
    samples[0, 3] = bad
    metrics = np.zeros((6, node.n_classes), np.float32)
    seen = np.arange(6) != 3
    part = np.empty((5, node.n_classes), np.float32)
    node.metrics(samples[0, seen], part)
    metrics[seen] = part
    starts, ends = trellis.start_states("known", 0, order, 1), np.ones(order, bool)
    every = references.EveryWord(metrics.astype(float), order, starts, ends)
    (result,) = block.process(samples)
    np.testing.assert_array_equal(result.symbols[0], ALPHABETS[modulation][list(every.best)])
