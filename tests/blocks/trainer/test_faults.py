"""Receivers that learn in a flow, while something is wrong: no bad version may serve."""

from __future__ import annotations

import json
from typing import Annotated, NamedTuple

import numpy as np
import pytest
from jaxtyping import Bool, Float32, UInt8
from splits import run_alone

from pipeline.block import Block, Field, param
from pipeline.flow import Flow
from pipeline.frame import Array, FrameInfo
from pipeline.swaps import TRAINER_LOG
from pipeline.worker import Worker

WORDS = 200
TAPS = [1.0, 0.8187, 0.6703, 0.5488]  # channel.isi before it fades


class Believed(NamedTuple):
    believed: Annotated[UInt8[Array, "word code"], Field("code bits that a decoder claims")]
    claimed: Annotated[Bool[Array, "word"], Field("whether it claims a code word")]
    changed: Annotated[
        Float32[Array, "word"], Field("share of bits that it claims to have changed")
    ]


class Credulous(Block):
    """A decoder that takes a share of the words for others, and is sure of it."""

    share: float = param(default=0.3, doc="of words")

    def process(
        self, reencoded: UInt8[Array, "word code"], info: FrameInfo = FrameInfo()
    ) -> Believed:
        rng = np.random.default_rng(info.seq)
        bits = reencoded.copy()
        for row in bits:
            if rng.random() < self.share:
                row[:] = rng.integers(0, 2, row.size)
        return Believed(bits, np.ones(len(bits), bool), np.zeros(len(bits), np.float32))


class Heard(NamedTuple):
    heard: Annotated[Float32[Array, "word time"], Field("samples, as they came to the trainer")]


class Broken(Block):
    """Every third word comes with NaN or infinities."""

    def process(self, samples: Float32[Array, "word time"], info: FrameInfo = FrameInfo()) -> Heard:
        heard = samples.copy()
        if info.seq % 3 == 0:
            heard[:, info.seq % heard.shape[1]] = (np.nan, np.inf, -np.inf)[info.seq // 3 % 3]
        return Heard(heard)


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    monkeypatch.setitem(Block.registry, "decoder.credulous", Credulous)
    monkeypatch.setitem(Block.registry, "frontend.broken", Broken)


def receiver(
    *, channel=(), between="", reads=(), pilots=0, learns=True, words=WORDS, **trainer
) -> Flow:
    """Least squares that begins with the taps of the channel, retrained after every word."""
    flow = Flow("receiver", seed=4)
    flow.add("bits", "source.random_bits", length=120, words=1, frames=words, pilot_every=pilots)
    flow.add("code", "encoder.reed_solomon", n=17, k=15)
    flow.add("modulator", "encoder.modulator")
    flow.add("channel", "channel.isi", before=-1, **{"snr_db": 11.0, **dict(channel)})
    flow.add("detector", "detector.least_squares", taps=TAPS, noise_var=0.08)
    flow.add("hard_bits", "frontend.hard_bits")
    flow.add("decoder", "decoder.reed_solomon", n=17, k=15, pilot_every=pilots)
    flow.add("errors", "sink.error_rate")
    flow.connect("bits -> code -> modulator -> channel -> detector -> hard_bits -> decoder")
    flow.connect("decoder -> errors")
    if learns:
        flow.add("trainer", "trainer.refit", reads=dict(reads), **trainer)
        if between:
            flow.add("between", between.split()[0], **({"share": float(between.split()[1])}
                                                       if " " in between else {}))  # fmt: skip
            flow.tap("decoder -> between -> trainer")
        else:
            flow.tap("decoder -> trainer")
        flow.feedback("trainer ~> detector", delay=1)
    return flow


def outcome(**about):
    """Results and the counts of the detector's weights; the flow has to reach its end."""
    snapshot = run_alone(receiver(**about).check(), seconds=120.0)
    assert snapshot["emitted"]["bits"] == about.get("words", WORDS)
    return snapshot["results"], snapshot["models"]["detector"]


FADING = {"fading": "cosine"}
CLAIMS = {"reencoded": "believed", "accepted": "claimed", "difference": "changed"}


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_with_wrong_labels_a_receiver_still_gains(share):
    alone, _ = outcome(channel=FADING, learns=False)
    clean, _ = outcome(channel=FADING)
    wrong, _ = outcome(channel=FADING, between=f"decoder.credulous {share}", reads=CLAIMS)
    assert wrong["trainer"]["accepted"] == WORDS
    lies = sum(np.random.default_rng(seq).random() < share for seq in range(1, WORDS + 1))
    assert wrong["trainer"]["not_believed"] >= lies - 2  # nothing can be said of the first two
    assert wrong["trainer"]["published"] > 20
    assert clean["errors"]["errors"] < alone["errors"]["errors"] / 2
    assert wrong["errors"]["errors"] < alone["errors"]["errors"]


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_wrong_labels_cost_nothing_where_there_is_nothing_to_learn(share):
    noisy = {"snr_db": 8.0}
    alone, _ = outcome(channel=noisy, learns=False, words=400)
    wrong, _ = outcome(
        channel=noisy, between=f"decoder.credulous {share}", reads=CLAIMS, words=400, tolerance=0.0
    )
    low, high = alone["errors"]["ci95"]
    assert alone["errors"]["errors"] > 100
    # fits to a word of 136 symbols instead of the taps themselves
    assert wrong["errors"]["symbol_error_rate"] < 1.25 * high
    assert low < high


def test_samples_that_are_not_finite_reach_no_model():
    alone, _ = outcome(channel=FADING, learns=False)
    broken, model = outcome(channel=FADING, between="frontend.broken", reads={"samples": "heard"})
    assert broken["trainer"]["published"] > 40
    assert broken["errors"]["errors"] < alone["errors"]["errors"]
    assert model["refused"] == 0


def test_where_all_words_fail_nothing_changes():
    noise = {"snr_db": -5.0}
    alone, _ = outcome(channel=noise, learns=False)
    failing, model = outcome(channel=noise)
    # of random words, the code accepts (1 + 17 * 255) / 256^2 = 6.6 % wrongly, each much changed
    assert failing["trainer"]["accepted"] < 30
    assert (failing["trainer"]["trained"], failing["trainer"]["published"]) == (0, 0)
    assert model["swaps"] == 0
    assert failing["errors"]["errors"] == alone["errors"]["errors"]


def test_after_an_abrupt_change_pilots_bring_the_receiver_back():
    change = {"changed_taps": [-0.5, 0.6, 1.0, 0.3], "change_block": 60}
    alone, _ = outcome(channel=change, learns=False, pilots=10)
    changed, model = outcome(channel=change, pilots=10)
    assert alone["errors"]["word_errors"] > 120  # lost from there on
    assert changed["errors"]["errors"] < 0.5 * alone["errors"]["errors"]
    assert changed["trainer"]["accepted"] > 140
    assert model["version"] == changed["trainer"]["version"]


def test_weights_of_another_architecture_are_refused_and_the_receiver_goes_on():
    alone, _ = outcome(channel=FADING, learns=False)
    other, model = outcome(channel=FADING, kind="class_gaussians")
    assert other["trainer"]["published"] > 5
    sent = other["trainer"]["published"] + other["trainer"]["rolled_back"]
    assert (model["refused"], model["swaps"], model["name"]) == (sent, 0, "")
    assert other["errors"]["errors"] == alone["errors"]["errors"]


def test_the_log_of_a_run_says_what_the_trainer_decided_and_why(tmp_path):
    worker = Worker(receiver(channel=FADING, words=60).check(), folder=tmp_path)
    found = worker.run()["results"]["trainer"]
    lines = [json.loads(line) for line in (tmp_path / TRAINER_LOG).read_text().splitlines()]
    assert {line["block"] for line in lines} == {"trainer"}
    published = [line for line in lines if line["event"] == "published"]
    assert [line["version"] for line in published] == list(range(1, found["published"] + 1))
    refused = [line for line in lines if line["event"] == "refused"]
    assert len(refused) == found["refused"]
    assert all(line["why"] for line in refused)
    assert all(line["loss"] <= line["serving_loss"] + 1.0 for line in published)
