import numpy as np
import pytest
import references

from blocks.encoder.convolutional import Convolutional
from pipeline.errors import ParameterError
from pipeline.instance import drive

RNG = np.random.default_rng(1)


def coded(bits, **values):
    (frame,) = drive(Convolutional(**values), [{"bits": bits}], time="data")
    return frame["coded"]


@pytest.mark.parametrize("ending", ["terminated", "tail_biting", "truncated"])
@pytest.mark.parametrize("length", [1, 2, 7, 20])
def test_words_are_those_of_the_definition(ending, length):
    bits = RNG.integers(0, 2, (6, length), dtype=np.uint8)
    found = coded(bits, constraint_length=5, rate="1/3", ending=ending)
    for word, made in zip(bits, found, strict=True):
        tail = (0,) * 4 if ending == "terminated" else ()
        before = np.resize(word[::-1], 4)[::-1] if ending == "tail_biting" else (0,) * 4
        expected = references.code_bits((*word, *tail), ("25", "33", "37"), before)
        np.testing.assert_array_equal(made, expected)


def test_a_turned_tail_biting_word_has_the_turned_code_word():
    bits = RNG.integers(0, 2, (1, 12), dtype=np.uint8)
    turned = coded(np.roll(bits, 5, axis=1), ending="tail_biting")
    np.testing.assert_array_equal(turned, np.roll(coded(bits, ending="tail_biting"), 10, axis=1))


def test_a_stream_is_one_word_without_end():
    bits = RNG.integers(0, 2, 100, dtype=np.uint8)
    frames = drive(Convolutional(), [{"bits": part} for part in np.split(bits, [1, 1, 40, 43])])
    expected = references.code_bits(bits, ("133", "171"))
    np.testing.assert_array_equal(np.concatenate([f["coded"] for f in frames]), expected)


def test_generators_overrule_length_and_rate():
    bits = RNG.integers(0, 2, (2, 9), dtype=np.uint8)
    np.testing.assert_array_equal(
        coded(bits, generators=("5", "7"), constraint_length=9, rate="1/3"),
        coded(bits, constraint_length=3),
    )


def test_empty_words_have_their_tail():
    empty = np.empty((3, 0), np.uint8)
    for ending, size in [("terminated", 12), ("tail_biting", 0), ("truncated", 0)]:
        np.testing.assert_array_equal(coded(empty, ending=ending), np.zeros((3, size)))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"generators": ("133",)}, "generators = \\['133'\\], but a code has 2 or 3 of them"),
        ({"generators": ("133", "181")}, "generator '181' is no octal number"),
        ({"constraint_length": 10}, "constraint_length = 10 bits, but it must be at .* most 9"),
        ({"rate": "2/3"}, "rate = '2/3', but it must be one of '1/2', '1/3'"),
    ],
)
def test_parameters_that_make_no_code_are_refused(values, text):
    with pytest.raises(ParameterError, match=f"^encoder.convolutional: {text}"):
        Convolutional(**values)
