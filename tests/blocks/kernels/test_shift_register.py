import itertools

import numpy as np
import pytest
import references

from blocks.kernels.shift_register import STANDARD, ShiftRegisterCode

#: Free distances as the tables of Proakis, "Digital Communications", print them.
FREE_DISTANCE = {
    2: {3: 5, 4: 6, 5: 7, 6: 8, 7: 10, 8: 10, 9: 12},
    3: {3: 8, 4: 10, 5: 12, 6: 13, 7: 15, 8: 16, 9: 18},
}


def free_distance(code):
    """Least weight of a path that leaves state 0 and comes back, by relaxation."""
    weight = np.full(code.n_states, np.inf)
    branch = np.array([bin(pattern).count("1") for pattern in code.patterns])
    weight[1] = branch[1]  # the only way out
    changed = True
    while changed:
        before = weight.copy()
        for state, bit in itertools.product(range(1, code.n_states), (0, 1)):
            after = (2 * state + bit) % code.n_states
            if after:
                weight[after] = min(weight[after], weight[state] + branch[2 * state + bit])
        changed = not np.array_equal(weight, before)
    last = code.n_states // 2
    return weight[last] + branch[2 * last]


@pytest.mark.parametrize(("length", "outputs"), STANDARD)
def test_standard_codes_have_the_free_distance_of_the_tables(length, outputs):
    code = ShiftRegisterCode(STANDARD[length, outputs])
    assert code.outputs == outputs
    assert code.memory == length - 1
    assert free_distance(code) == FREE_DISTANCE[outputs][length]


def test_the_code_of_nasa_sends_its_impulse_response():
    # 133 = 1011011 and 171 = 1111001, newest bit first
    code = ShiftRegisterCode(["133", "171"])
    sent = code.encode(np.array([1, 0, 0, 0, 0, 0, 0]), np.zeros(6, np.uint8))
    np.testing.assert_array_equal(sent[0::2], [1, 0, 1, 1, 0, 1, 1])
    np.testing.assert_array_equal(sent[1::2], [1, 1, 1, 1, 0, 0, 1])


@pytest.mark.parametrize("generators", [("5", "7"), ("2", "7"), ("13", "15", "17"), ("561", "753")])
def test_code_bits_are_those_of_the_definition(generators):
    code, rng = ShiftRegisterCode(generators), np.random.default_rng(1)
    bits, before = rng.integers(0, 2, (5, 20)), rng.integers(0, 2, (5, code.memory))
    coded = code.encode(bits, before)
    assert coded.dtype == np.uint8
    for word in range(5):
        expected = references.code_bits(bits[word], generators, before[word])
        np.testing.assert_array_equal(coded[word], expected)


@pytest.mark.parametrize("generators", [("5", "7"), ("2", "7"), ("47", "53", "75")])
def test_patterns_are_the_code_bits_of_the_branches(generators):
    code = ShiftRegisterCode(generators)
    for branch, pattern in enumerate(code.patterns):
        newest_last = [branch >> k & 1 for k in range(code.memory, -1, -1)]
        sent = code.encode(np.array(newest_last[-1:]), np.array(newest_last[:-1]))
        assert [pattern >> j & 1 for j in range(code.outputs)] == sent.tolist()


def test_the_sum_of_two_code_words_is_a_code_word():
    code, rng = ShiftRegisterCode(STANDARD[7, 3]), np.random.default_rng(2)
    bits, before = rng.integers(0, 2, (2, 50)), rng.integers(0, 2, (2, 6))
    one, two = code.encode(bits, before)
    np.testing.assert_array_equal(code.encode(bits[0] ^ bits[1], before[0] ^ before[1]), one ^ two)


@pytest.mark.parametrize(
    ("generators", "text"),
    [
        ([], "reach over 0 bits"),
        (["1", "1"], "reach over 1 bits"),
        (["133", "1711"], "reach over 10 bits, but a constraint length is 2 ... 9"),
        (["133", "189"], "generator '189' is no octal number"),
        (["133", ""], "generator '' is no octal number"),
        (["133", "-5"], "generator '-5' is no octal number"),
        (["133", "0"], "generator 0 makes code bits that tell nothing"),
    ],
)
def test_polynomials_that_make_no_code_are_refused(generators, text):
    with pytest.raises(ValueError, match=text):
        ShiftRegisterCode(generators)
