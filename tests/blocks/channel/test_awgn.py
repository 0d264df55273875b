import numpy as np
import pytest
from scipy import stats

from blocks.channel.awgn import Awgn
from pipeline.block import Context
from pipeline.frame import FrameInfo
from pipeline.instance import drive

COUNT = 200_000
BPSK = np.random.default_rng(1).choice(np.array([1, -1], np.int8), COUNT)
QPSK = (
    (BPSK + 1j * np.random.default_rng(2).choice([1, -1], COUNT)) / np.sqrt(2)
).astype(np.complex64)  # fmt: skip


def received(sent, snr_db, **context):
    (frame,) = drive(Awgn(snr_db=snr_db), [{"sent": sent}], context=Context(**context))
    return frame["samples"]


def within(measured, expected, deviations=4.0):
    """Whether a measured error rate lies within so many standard deviations of the expected."""
    return abs(measured - expected) < deviations * np.sqrt(expected * (1 - expected) / COUNT)


@pytest.mark.parametrize("snr_db", [0.0, 4.0, 7.0])
def test_error_rate_of_bpsk_is_the_q_function(snr_db):
    samples = received(BPSK, snr_db)
    assert samples.dtype == np.float32
    q = stats.norm.sf(np.sqrt(10 ** (snr_db / 10)))
    assert within(np.mean((samples > 0) != (BPSK > 0)), q)


def test_error_rate_of_qpsk_is_that_of_two_bpsk_at_the_same_snr():
    samples = received(QPSK, 5.0)
    assert samples.dtype == np.complex64
    q = stats.norm.sf(np.sqrt(10**0.5))
    wrong = ((samples.real > 0) != (QPSK.real > 0)) | ((samples.imag > 0) != (QPSK.imag > 0))
    assert within(np.mean(wrong), 1 - (1 - q) ** 2)


def test_real_noise_is_gaussian_with_variance_one_over_snr():
    noise = received(BPSK, 3.0) - BPSK
    variance = 10**-0.3
    assert abs(noise.var() / variance - 1) < 4 * np.sqrt(2 / COUNT)
    assert stats.kstest(noise / np.sqrt(variance), "norm").pvalue > 1e-3


def test_parts_of_complex_noise_are_uncorrelated_and_share_the_variance():
    noise = received(QPSK, 3.0) - QPSK
    variance = 10**-0.3
    for part in (noise.real, noise.imag):
        assert abs(part.var() / (variance / 2) - 1) < 4 * np.sqrt(2 / COUNT)
    assert abs(np.corrcoef(noise.real, noise.imag)[0, 1]) < 4 / np.sqrt(COUNT)
    assert abs(np.mean(noise[1:] * noise[:-1].conj())) < 4 * variance / np.sqrt(COUNT)


def test_blocks_streams_and_seeds_have_noise_of_their_own():
    contexts = [{}, {"name": "other"}, {"stream": "other"}, {"seed": 1}]
    noises = [received(BPSK[:4000], 0.0, **context) - BPSK[:4000] for context in contexts]
    correlation = np.corrcoef(noises) - np.eye(len(noises))
    assert np.abs(correlation).max() < 4 / np.sqrt(4000)


def test_words_take_the_noise_of_the_stream_in_reading_order():
    (frame,) = drive(Awgn(), [{"sent": BPSK[:60].reshape(5, 12)}])
    np.testing.assert_array_equal(frame["samples"].ravel(), received(BPSK[:60], 10.0))


def test_noise_is_not_used_twice_where_the_clock_is_slower_than_the_symbols():
    # Of a code of rate 1/2 the clock counts bits, and two symbols come for each.
    channel = Awgn(snr_db=0.0)
    channel.start()
    sent = np.zeros(1000, np.int8)
    noise = [channel.process(sent, FrameInfo(sample=500 * n)).samples for n in range(3)]
    whole = received(np.zeros(3000, np.int8), 0.0)
    np.testing.assert_array_equal(np.concatenate(noise), whole)
