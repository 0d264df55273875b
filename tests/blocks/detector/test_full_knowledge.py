import numpy as np
import pytest

from blocks.channel.isi import Isi
from blocks.detector.full_knowledge import FullKnowledge
from blocks.detector.viterbi import Viterbi
from pipeline.errors import FieldError
from pipeline.instance import drive

TAPS = (1.0, 0.6, -0.4, 0.2)


def received(words=12, length=50, **channel):
    """What a channel adds to random words, in two frames."""
    sent = np.random.default_rng(1).choice(np.array([-1, 1], np.int8), (words, length))
    frames = [{"sent": sent[:5].copy()}, {"sent": sent[5:].copy()}]
    block = Isi(taps=TAPS, before=-1, snr_db=4.0, **channel)
    return sent, drive(block, frames)


def decided(added, **values):
    frames = [{name: frame[name] for name in ("undistorted", "taps")} for frame in added]
    found = drive(FullKnowledge(**values), frames)
    return np.concatenate([frame["symbols"] for frame in found])


def test_over_a_channel_that_stays_it_is_the_viterbi_algorithm_whatever_distorts_the_samples():
    sent, added = received(tanh=2.0, quantiser_bits=2)
    undistorted = np.concatenate([frame["undistorted"] for frame in added])
    viterbi = Viterbi(taps=TAPS, start_state="known")
    (wanted,) = drive(viterbi, [{"samples": undistorted}])
    np.testing.assert_array_equal(decided(added), wanted["symbols"])
    assert 0 < (wanted["symbols"] != sent).mean() < 0.2


@pytest.mark.parametrize("coherence", [0, 150])
def test_each_word_is_decided_with_its_own_taps(coherence):
    _, added = received(fading="cosine", periods=(4.0, 3.0, 5.0, 2.0), coherence=coherence)
    found = decided(added, coherence=coherence)
    noisy = np.concatenate([frame["undistorted"] for frame in added])
    for k, (word, symbols) in enumerate(zip(noisy, found, strict=True)):
        block = 50 * k // (coherence or 50)
        taps = np.array(TAPS) * (
            0.8 + 0.2 * np.cos(2 * np.pi * block / np.array([4.0, 3.0, 5.0, 2.0]))
        )
        viterbi = Viterbi(taps=tuple(taps), start_state="known")
        (wanted,) = drive(viterbi, [{"samples": word[None]}])
        np.testing.assert_array_equal(symbols, wanted["symbols"][0])


def test_what_it_cannot_follow_is_refused():
    _, added = received(coherence=75, fading="cosine")
    with pytest.raises(FieldError, match="coherence = 75 symbols, but words have 50"):
        decided(added, coherence=75)
    with pytest.raises(FieldError, match="the channel has 4 taps, but memory = 3"):
        decided(added, memory=3)
