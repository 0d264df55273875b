import numpy as np
import pytest

from blocks.encoder.modulator import Modulator
from pipeline.errors import FieldError
from pipeline.instance import drive

BITS = np.array([0, 0, 1, 0, 0, 1, 1, 1], np.uint8)


def sent_for(bits, modulation):
    (frame,) = drive(Modulator(modulation=modulation), [{"coded": bits}])
    return frame["sent"]


def test_bit_one_is_plus_one_of_bpsk_and_one_of_ook():
    np.testing.assert_array_equal(sent_for(BITS, "bpsk"), 2 * BITS.astype(int) - 1)
    np.testing.assert_array_equal(sent_for(BITS, "ook"), BITS)
    assert sent_for(BITS, "ook").dtype == np.int8


def test_bits_of_qpsk_are_the_signs_of_its_parts():
    sent = sent_for(BITS, "qpsk")
    assert sent.dtype == np.complex64
    np.testing.assert_array_equal(sent.real > 0, BITS[0::2])
    np.testing.assert_array_equal(sent.imag > 0, BITS[1::2])
    np.testing.assert_allclose(np.abs(sent), 1.0, rtol=1e-6)


def test_neighbours_of_qpsk_differ_in_one_bit():
    sent = sent_for(BITS, "qpsk")  # 00, 10, 01, 11
    apart = np.abs(sent[:, None] - sent)
    bits = np.abs(BITS.reshape(4, 2)[:, None].astype(int) - BITS.reshape(4, 2)).sum(axis=2)
    np.testing.assert_allclose(apart, np.sqrt(2 * bits), rtol=1e-6)


@pytest.mark.parametrize("cuts", [[1], [3, 4, 4, 5], [2, 7]])
def test_a_symbol_belongs_to_the_frame_in_which_it_is_complete(cuts):
    frames = drive(Modulator(modulation="qpsk"), [{"coded": part} for part in np.split(BITS, cuts)])
    ends = np.array([0, *cuts, 8]) // 2
    assert [frame["sent"].size for frame in frames] == np.diff(ends).tolist()
    whole = np.concatenate([frame["sent"] for frame in frames])
    np.testing.assert_array_equal(whole, sent_for(BITS, "qpsk"))


def test_words_have_whole_symbols():
    np.testing.assert_array_equal(
        sent_for(BITS.reshape(2, 4), "qpsk"), sent_for(BITS, "qpsk").reshape(2, 2)
    )
    with pytest.raises(FieldError, match="'coded' has 3 bits per word, but a symbol of qpsk takes"):
        sent_for(BITS[:6].reshape(2, 3), "qpsk")
