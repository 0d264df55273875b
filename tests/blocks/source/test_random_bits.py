import numpy as np
import pytest
from scipy import stats

from blocks.source.random_bits import RandomBits
from pipeline.block import Context
from pipeline.errors import ParameterError


def bits_of(stream="main", seed=0, **values):
    source = RandomBits(**values)
    source.context = Context("bits", stream, seed)
    source.start()
    frames = []
    while (frame := source.process()) is not None:
        frames.append(frame.bits)
    assert source.frames_left() == 0
    return frames


def test_bits_are_equally_likely_and_independent():
    bits = np.concatenate(bits_of(frames=100))
    assert bits.dtype == np.uint8
    triples = bits[: bits.size // 3 * 3].reshape(-1, 3) @ [1, 2, 4]
    assert stats.chisquare(np.bincount(triples, minlength=8)).pvalue > 1e-3


@pytest.mark.parametrize(
    "cut", [{"frames": 2100, "length": 1}, {"frames": 10, "length": 30, "words": 7}]
)
def test_length_and_words_cut_the_stream_and_do_not_change_it(cut):
    whole = np.concatenate(bits_of(frames=3, length=700))
    frames = bits_of(**cut)
    np.testing.assert_array_equal(np.concatenate([frame.ravel() for frame in frames]), whole)
    assert frames[0].shape == ((7, 30) if "words" in cut else (1,))


def test_streams_and_seeds_have_bits_of_their_own():
    assert RandomBits(count=3).streams() == ("0", "1", "2")
    made = [bits_of(stream, seed, frames=1)[0] for stream, seed in [("0", 0), ("1", 0), ("0", 1)]]
    for i, one in enumerate(made):
        for other in made[:i]:
            assert 0.4 < np.mean(one == other) < 0.6


def test_an_endless_source_does_not_know_what_is_left():
    source = RandomBits(frames=0, length=2)
    source.start()
    assert source.process().bits.shape == (2,)
    assert source.frames_left() is None


def test_pilots_are_the_same_whoever_sends_them_and_the_others_as_without():
    setting = {"frames": 1, "length": 40, "words": 12}
    plain = bits_of(**setting)[0]
    one = bits_of(pilot_every=5, **setting)[0]
    other = bits_of("1", 3, pilot_every=5, **setting)[0]
    pilot = np.array([0, 5, 10])
    np.testing.assert_array_equal(one[pilot], other[pilot])
    rest = np.setdiff1d(np.arange(12), pilot)
    np.testing.assert_array_equal(one[rest], plain[rest])
    seeded = bits_of(pilot_every=5, pilot_seed=1, **setting)[0]
    assert 0.3 < np.mean(seeded[pilot] == one[pilot]) < 0.7
    assert len({tuple(word) for word in one}) == 12


def test_pilots_need_words():
    with pytest.raises(ParameterError, match="pilot_every = 5 counts words, but words = 0"):
        RandomBits(pilot_every=5)
