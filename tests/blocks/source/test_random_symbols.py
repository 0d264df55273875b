import numpy as np
import pytest
from scipy import stats

from blocks.source.random_symbols import RandomSymbols
from pipeline.block import Context, FieldType
from pipeline.errors import ParameterError


def sent_by(source, stream="main", seed=0):
    """The fields `sent` of all frames of a finite source."""
    source.context = Context("symbols", stream, seed)
    source.start()
    frames = []
    while (frame := source.process()) is not None:
        frames.append(frame.sent)
    return frames


@pytest.mark.parametrize(
    ("modulation", "alphabet"),
    [
        ("bpsk", {1, -1}),
        ("ook", {0, 1}),
        (
            "qpsk",
            {complex(np.complex64(a + 1j * b) / np.sqrt(2)) for a in (1, -1) for b in (1, -1)},
        ),
    ],
)
def test_symbols_of_an_alphabet_are_equally_likely(modulation, alphabet):
    sent = np.concatenate(sent_by(RandomSymbols(modulation=modulation, frames=40)))
    values, counts = np.unique(sent, return_counts=True)
    np.testing.assert_allclose(sorted(values), sorted(alphabet, key=lambda z: (z.real, z.imag)))
    assert stats.chisquare(counts).pvalue > 1e-3


def test_qpsk_has_unit_energy():
    (sent,) = sent_by(RandomSymbols(modulation="qpsk", frames=1))
    assert sent.dtype == np.complex64
    np.testing.assert_allclose(np.abs(sent), 1.0, rtol=1e-6)


def test_neighbouring_symbols_are_uncorrelated():
    sent = np.concatenate(sent_by(RandomSymbols(frames=100))).astype(float)
    for lag in (1, 2, 4096):
        correlation = np.mean(sent[lag:] * sent[:-lag])
        assert abs(correlation) < 4.0 / np.sqrt(sent.size - lag)


def test_length_and_words_cut_the_stream_and_do_not_change_it():
    whole = np.concatenate(sent_by(RandomSymbols(frames=3, length=2800)))
    for cut in ({"frames": 8400, "length": 1}, {"frames": 40, "length": 70, "words": 3}):
        frames = sent_by(RandomSymbols(**cut))
        np.testing.assert_array_equal(np.concatenate([f.ravel() for f in frames]), whole)
    assert frames[0].shape == (3, 70)


def test_streams_and_seeds_send_different_symbols():
    source = RandomSymbols(frames=1, count=3)
    assert source.streams() == ("0", "1", "2")
    assert RandomSymbols().streams() == ("main",)
    sent = [sent_by(source, stream)[0] for stream in source.streams()]
    sent.append(sent_by(source, "0", seed=1)[0])
    for i, one in enumerate(sent):
        for other in sent[:i]:
            assert 0.4 < np.mean(one == other) < 0.6


def test_frames_left_counts_down_to_the_end():
    source = RandomSymbols(frames=2, length=5)
    source.start()
    left = [source.frames_left()]
    while source.process() is not None:
        left.append(source.frames_left())
    assert left == [2, 1, 0]


def test_endless_source_does_not_know_what_is_left():
    source = RandomSymbols(frames=0, length=2)
    source.start()
    assert source.process() is not None
    assert source.frames_left() is None


def test_description_and_type_follow_the_parameters():
    stream, words = RandomSymbols(), RandomSymbols(modulation="qpsk", words=4)
    assert stream.describe().continuous
    assert stream.describe().replayable
    assert not words.describe().continuous
    assert stream.narrow({})["sent"] == FieldType.of("int8", "time")
    assert words.narrow({})["sent"] == FieldType.of("complex64", "word time")


def test_unknown_modulation_is_refused_with_the_known_ones():
    with pytest.raises(ParameterError, match="modulation = '8psk', but it must be one of 'bpsk'"):
        RandomSymbols(modulation="8psk")
