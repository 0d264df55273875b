"""Black boxes: what their networks say, whatever the cut, and nothing without weights."""

from dataclasses import replace

import numpy as np
import pytest
from needs import package
from random_layers import random_layers

from blocks.detector.lstm import Lstm
from blocks.detector.sbrnn import Sbrnn
from blocks.kernels.trellis import ALPHABETS
from pipeline.errors import ConnectError, FieldError, WeightsError
from pipeline.signature import FieldType

SMALL = {"units": 3, "layers": 1, "window": 5}
RNG = np.random.default_rng(40)


def served(cls, seed=0, **values):
    block = cls(**{**SMALL, **values})
    block.start()
    block.take(random_layers(block, seed))
    return block


def samples_of(shape, modulation="bpsk"):
    samples = RNG.standard_normal(shape)
    if modulation == "qpsk":
        return (samples + 1j * RNG.standard_normal(shape)).astype(np.complex64)
    return samples.astype(np.float32)


def parts_of(samples):
    return np.stack([samples.real, samples.imag], -1) if np.iscomplexobj(samples) else (
        samples[..., None]
    )  # fmt: skip


def module_of(block, weights):
    """The torch module of these weights in float64: (batch, time, n_in) -> probabilities."""
    torch = package("torch", "train")
    from blocks.models import recurrent

    cls = recurrent.Sbrnn if block.both else recurrent.Lstm
    names = ("order", "n_in", "cell", "layers", "units")
    module = cls(**{name: getattr(block, name) for name in names})
    state = {name.replace("output_", "output."): torch.tensor(array)
             for name, array in weights.arrays.items()}  # fmt: skip
    module.load_state_dict(
        {name if name.startswith("output") else f"cells.{name}": a for name, a in state.items()}
    )
    module.double()

    def probabilities(inputs):
        with torch.inference_mode():
            return module(torch.tensor(inputs).double()).exp().numpy()

    return probabilities


def averaged(network, parts, window):
    """What all windows that hold a symbol say of it, one after the other."""
    said = [[] for _ in parts]
    length = min(window, len(parts))
    for first in range(len(parts) - length + 1):
        for place, row in enumerate(network(parts[None, first : first + length])[0]):
            said[first + place].append(row)
    return np.array([np.mean(rows, axis=0) for rows in said])


def read(network, parts, window):
    """What the network says when it reads `window` samples at a time, zeros after the end."""
    ended = np.concatenate([parts, np.zeros((window - 1, parts.shape[1]))])
    inputs = [ended[at : at + window].ravel() for at in range(len(parts))]
    return network(np.array(inputs)[None])[0]


KINDS = [(Sbrnn, averaged), (Lstm, read)]


@pytest.mark.parametrize(("cls", "reference"), KINDS)
@pytest.mark.parametrize("modulation", ["bpsk", "qpsk"])
@pytest.mark.parametrize("time", [1, 4, 5, 6, 40])
def test_words_are_decided_by_what_the_module_says(cls, reference, modulation, time):
    block = served(cls, modulation=modulation, cell="gru" if time == 6 else "lstm", layers=2)
    samples = samples_of((3, time), modulation)
    (decided,) = block.process(samples)
    network = module_of(block, random_layers(block))
    for n, word in enumerate(samples):
        p = reference(network, parts_of(word), block.window)
        if modulation == "bpsk":
            llr = np.log(p[:, 1:] / p[:, :1])
        else:  # bit 0 is the lowest digit of the index
            llr = np.log([[(q[1] + q[3]) / (q[0] + q[2]), (q[2] + q[3]) / (q[0] + q[1])]
                          for q in p])  # fmt: skip
        np.testing.assert_allclose(decided.llr[n], llr, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(decided.symbols[n], ALPHABETS[modulation][p.argmax(axis=1)])


@pytest.mark.parametrize("cls", [Sbrnn, Lstm])
@pytest.mark.parametrize("time", [0, 3, 5, 300])
def test_a_stream_is_decided_as_one_long_word(cls, time):
    samples = samples_of(time)
    (word,) = served(cls).process(samples[None])
    block = served(cls)
    results = [r for part in np.array_split(samples, 7) for r in block.process(part)]
    results += block.finish()
    assert len(results) == 7
    symbols, llr = (
        np.concatenate([getattr(r, name) for r in results]) for name in ("symbols", "llr")
    )
    np.testing.assert_array_equal(symbols, word.symbols[0])
    np.testing.assert_array_equal(llr, word.llr[0])


@pytest.mark.parametrize("cls", [Sbrnn, Lstm])
def test_a_symbol_of_a_stream_comes_when_its_last_sample_has(cls):
    block = served(cls)
    answers = [len(block.process(samples_of(1))) for _ in range(9)]
    assert answers == [0, 0, 0, 0, 1, 1, 1, 1, 1]  # window - 1 samples late
    assert len(block.finish()) == 4


@pytest.mark.parametrize("cls", [Sbrnn, Lstm])
def test_new_weights_decide_what_comes_after_them(cls):
    samples = samples_of((2, 30))
    block = served(cls)
    (first,) = block.process(samples)
    block.take(random_layers(block, seed=1))
    (second,) = block.process(samples)
    (other,) = served(cls, seed=1).process(samples)
    np.testing.assert_array_equal(second.llr, other.llr)
    assert not np.array_equal(first.llr, second.llr)


@pytest.mark.parametrize("cls", [Sbrnn, Lstm])
@pytest.mark.parametrize(
    ("name", "value"),
    [("kind", "dense"), ("units", 4), ("window", 6), ("cell", "gru"), ("modulation", "ook")],
)
def test_weights_of_another_network_are_refused_and_the_old_ones_serve(cls, name, value):
    block = served(cls)
    samples = samples_of((1, 9))
    (before,) = block.process(samples)
    weights = random_layers(block, seed=1)
    other = replace(weights, hyper={**weights.hyper, name: value})
    with pytest.raises(WeightsError, match=f"have {name} = .*{value}.*train others"):
        block.take(other)
    damaged = replace(weights, arrays={**weights.arrays, "output_bias": np.zeros(3, np.float32)})
    with pytest.raises(WeightsError, match="are damaged: output_bias has shape"):
        block.take(damaged)
    np.testing.assert_array_equal(block.process(samples)[0].llr, before.llr)


@pytest.mark.parametrize("cls", [Sbrnn, Lstm])
def test_mistakes_are_named(cls):
    block = cls(**SMALL)
    block.start()
    with pytest.raises(WeightsError, match="no weights to decide with; train some with `kalvit"):
        block.process(samples_of(3))
    block.take(random_layers(block))
    with pytest.raises(FieldError, match="'samples' holds nan; expected finite numbers"):
        block.process(np.array([1.0, np.nan], np.float32))
    with pytest.raises(FieldError, match="'samples' is complex64; expected float32 for bpsk"):
        block.process(samples_of(3, "qpsk"))
    with pytest.raises(ConnectError, match="for bpsk it must be float32"):
        block.narrow({"samples": FieldType.of("complex64", "time")})
    block.process(samples_of(3))
    with pytest.raises(FieldError, match="words came in the middle of a stream"):
        block.process(samples_of((2, 3)))
