import numpy as np
import pytest

from blocks.encoder.reed_solomon import ReedSolomon
from pipeline.errors import FieldError, ParameterError
from pipeline.instance import drive


def test_a_code_word_is_the_information_and_then_the_parity_the_highest_bit_first():
    # The message 0 ... 0 1 of a code with 2 bytes of parity and roots 1, 2: x^2 + 3 x + 2
    bits = np.zeros((2, 120), np.uint8)
    bits[0, -1] = 1
    (fields,) = drive(ReedSolomon(n=17, k=15), [{"bits": bits}])
    expected = np.zeros((2, 136), np.uint8)
    expected[0, 119:] = [1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    np.testing.assert_array_equal(fields["coded"], expected)


def test_words_of_another_length_are_refused():
    with pytest.raises(FieldError, match=r"'bits' has 100 bits per word, but n = 17 and k = 15 .* "
                                         "take 120"):  # fmt: skip
        drive(ReedSolomon(n=17, k=15), [{"bits": np.zeros((1, 100), np.uint8)}])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"n": 15, "k": 15}, "encoder.reed_solomon: n = 15 and k = 15, but 1 <= k < n <= 255"),
        ({"n": 256}, "n = 256 bytes, but it must be at least 2 and at most 255"),
        ({"generator": 1}, "generator = 1, but it must be at least 2 and"),
        ({"polynomial": 0x11B}, "generator = 2 are not all elements"),
    ],
)
def test_parameters_that_make_no_code_are_refused(values, text):
    with pytest.raises(ParameterError, match=text):
        ReedSolomon(**values)
