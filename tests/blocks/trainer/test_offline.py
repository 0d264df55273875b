"""`kalvit train` for the detectors of the catalogue: what is trained beats chance by far."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from needs import package

from blocks import CATALOGUE
from blocks.nodes.node import node_of
from blocks.trainer.offline import indices_of, labelled, symbol_error_rate
from pipeline import catalogue
from pipeline.block import Learned
from pipeline.errors import KalvitError, ParameterError
from pipeline.flow import Flow
from pipeline.local import run
from pipeline.models import Models
from pipeline.train import Training, fit_of

BLACK_BOXES = ("detector.sbrnn", "detector.lstm")
TINY = {"units": 4, "layers": 1}


def flow_of(use, source=None, channel=None, **values):
    """Two taps at 10 dB, after which the last symbol stands in the way of the next."""
    flow = Flow("small")
    flow.add("symbols", "source.random_symbols", **(source or {}))
    flow.add("channel", "channel.isi", **{"taps": [1.0, 0.6], "snr_db": 10.0, **(channel or {})})
    flow.add("detector", use, **values)
    flow.add("errors", "sink.error_rate")
    flow.connect("symbols -> channel -> detector -> errors")
    return flow


def trained(use, symbols=1000, options=None, source=None, channel=None, **values):
    flow = flow_of(use, source, channel, **values)
    training = Training(flow, "detector", symbols=symbols, held_out=2000, options=options or {})
    return training.run()


NODES = ("detector.viterbinet", "detector.learned_factor_graph", "detector.least_squares",
         "detector.state_gaussian")  # fmt: skip
BEFORE = {"before": -1}


@pytest.mark.parametrize("use", NODES)
def test_function_nodes_decide_nearly_as_least_squares(use):
    # two errors of ten thousand with true taps; a guess is wrong every other time
    small = {"hidden": [10], "activations": ["sigmoid"]} if use in NODES[:2] else {}
    found = trained(use, options=small, channel=BEFORE, memory=2)
    assert found.scores["symbol_error_rate"] < 0.01
    assert found.weights.labels == "simulator"
    assert found.training["symbols"] == 1000
    others = {"least_squares", "state_gaussian"} - {use.partition(".")[2]}
    for other in others:
        assert found.scores[f"{other}_symbol_error_rate"] < 0.01
    assert np.isfinite(found.scores["loss"])
    assert len(found.scores) == 2 + len(others)


@pytest.mark.parametrize("use", BLACK_BOXES)
@pytest.mark.parametrize("modulation", ["bpsk", "qpsk"])
def test_tiny_black_boxes_beat_chance_by_far(use, modulation):
    package("torch", "train")
    options = {"epochs": 6, "rate": 0.03, "memory": 2, "batch": 50}
    options |= {"epochs": 12, "length": 20, "batch": 8} if use == "detector.lstm" else {}
    words = {"length": 50, "words": 10} if modulation == "qpsk" else {}
    found = trained(
        use, 1500, options, {"modulation": modulation, **words}, window=4, modulation=modulation,
        **TINY,
    )  # fmt: skip
    chance = 0.5 if modulation == "bpsk" else 0.75
    assert found.scores["symbol_error_rate"] < 0.2 * chance
    assert found.scores["least_squares_symbol_error_rate"] < 0.02
    assert found.scores["loss"] < 0.5 * np.log(4 if modulation == "qpsk" else 2)


def test_the_noise_that_least_squares_finds_is_that_of_the_channel():
    found = trained("detector.least_squares", 4000, channel=BEFORE, memory=2)
    node = node_of(found.weights)
    # standard errors: 0.1 ** 0.5 / 4000 ** 0.5 = 0.005, and 0.1 (2 / 4000) ** 0.5 = 0.0022
    np.testing.assert_allclose(node.arrays["taps"], [1.0, 0.6], atol=0.02)
    assert node.arrays["noise_var"] == pytest.approx(0.1, abs=0.009)


def test_a_factor_graph_counts_transitions_and_rules_nothing_out():
    found = trained("detector.learned_factor_graph", 500, {"epochs": 1, "hidden": [4],
                    "activations": ["relu"]}, None, BEFORE, memory=3)  # fmt: skip
    transition = found.weights.arrays["transition"]
    assert transition.shape == (4, 2)
    np.testing.assert_allclose(transition.sum(axis=1), 1.0, rtol=1e-6)
    # of 125 each: five standard deviations are 0.22
    np.testing.assert_allclose(transition, 0.5, atol=0.22)
    assert (transition != 0.5).any()
    plain = trained("detector.viterbinet", 500, {"epochs": 1}, None, BEFORE, memory=3)
    assert "transition" not in plain.weights.arrays


def test_a_wiener_node_may_take_the_place_of_the_network():
    bent = {**BEFORE, "tanh": 1.0, "snr_db": 14.0}
    found = trained("detector.viterbinet", 2000, {"kind": "wiener"}, None, bent, memory=2)
    assert found.weights.hyper["kind"] == "wiener"
    assert found.scores["symbol_error_rate"] < 0.01


def test_networks_run_as_they_were_trained(tmp_path, monkeypatch):
    package("torch", "train")
    monkeypatch.setenv("KALVIT_MODELS", str(tmp_path))
    small = {"window": 3, **TINY}
    found = trained("detector.lstm", 1500, {"epochs": 8, "rate": 0.03, "length": 20}, **small)
    Models().add(found.weights)
    flow = flow_of("detector.lstm", model="lstm@1", **small)
    score = run(flow, frames=5)["results"]["errors"]["symbol_error_rate"]
    expected = found.scores["symbol_error_rate"]
    assert score == pytest.approx(expected, abs=4.0 * (expected / 2000) ** 0.5 + 0.002)


def test_a_receiver_loads_neither_torch_nor_what_trains(tmp_path):
    code = """
import sys
sys.path.insert(0, "tests")
from random_layers import random_layers
from blocks.detector.sbrnn import Sbrnn
from blocks.detector.viterbinet import ViterbiNet
from pipeline.flow import Flow
from pipeline.local import run
from pipeline.models import Models
Models().add(random_layers(Sbrnn(units=3, window=5)))
flow = Flow("small")
flow.add("symbols", "source.random_symbols")
flow.add("channel", "channel.isi")
flow.add("detector", "detector.sbrnn", units=3, window=5, model="net@1")
flow.add("errors", "sink.error_rate")
flow.connect("symbols -> channel -> detector -> errors")
run(flow, frames=1)
bad = [m for m in sys.modules if m.split(".")[0] == "torch" or m.startswith(
    ("blocks.training", "blocks.models", "blocks.trainer", "pipeline.train"))]
assert not bad, bad
"""
    environment = {**os.environ, "KALVIT_MODELS": str(tmp_path)}
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=root, check=True, timeout=200)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_learned_block_says_how_it_is_trained(name):
    cls = catalogue.find(name)
    if not issubclass(cls, Learned):
        return
    if name not in NODES:
        package("torch", "train")
    arguments = list(inspect.signature(fit_of(cls, name)).parameters.values())
    assert [a.name for a in arguments[:2]] == ["block", "lessons"]
    assert all(a.default is not inspect.Parameter.empty for a in arguments[2:])
    assert cls.learns_from


# labels, scores, mistakes


def test_labels_begin_with_what_the_block_takes_to_be_known():
    records = [
        {"samples": np.arange(6.0).reshape(2, 3), "sent": np.array([[1, -1, 1], [-1, -1, 1]])},
        {"samples": np.array([7.0]), "sent": np.array([1])},
    ]
    samples, labels = labelled(records, "bpsk", 2, before=1)
    assert samples.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0]
    assert labels.tolist() == [3, 2, 1, 2, 0, 1, 3]  # newest symbol in the lowest digit
    assert labelled(records, "bpsk", 2, before=None)[1].tolist() == [-1, 2, 1, -1, 0, 1, -1]


def test_symbols_of_another_alphabet_are_refused():
    assert indices_of(np.array([[-1, 1]]), "bpsk").tolist() == [[0, 1]]
    with pytest.raises(ParameterError, match="that are none of bpsk; set the modulation"):
        indices_of(np.array([0, 1]), "bpsk")


def test_errors_are_counted_against_what_was_sent():
    found = trained("detector.least_squares", channel=BEFORE, memory=2)
    block = catalogue.find("detector.least_squares")(memory=2)
    sent = np.array([1, -1, -1, 1, 1], np.int8)
    samples = np.convolve(np.r_[-1, sent], [1.0, 0.6])[1:6].astype(np.float32)
    wrong = sent.copy()
    wrong[2] = 1
    records = [{"samples": samples, "sent": sent}, {"samples": samples, "sent": wrong}]
    assert symbol_error_rate(block, found.weights, records) == 0.1


@pytest.mark.parametrize(
    ("use", "given", "said"),
    [
        ("detector.least_squares", {"symbols": 2}, "2 labelled samples do not determine 2 taps"),
        ("detector.viterbinet", {"options": {"kind": "taps"}}, "it must be dense or wiener"),
        ("detector.viterbinet", {"options": {"kind": "wiener", "hidden": [3]}}, "hidden given"),
        ("detector.viterbinet", {"source": {"modulation": "ook"}}, "none of bpsk"),
        ("detector.least_squares", {"options": {"epochs": 3}}, "no option 'epochs' .it has: none"),
    ],
)
def test_mistakes_are_told_to_the_user(use, given, said):
    with pytest.raises(ParameterError, match=said):
        trained(use, memory=2, channel={} if "source" in given else BEFORE, **given)


def test_words_shorter_than_a_window_teach_a_sliding_network_nothing():
    package("torch", "train")
    with pytest.raises(KalvitError, match="no word is as long as a window of 12 samples"):
        trained("detector.sbrnn", source={"length": 5, "words": 10})
