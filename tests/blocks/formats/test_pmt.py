"""PMT bytes, against what GNU Radio 3.10.5.1 wrote (pmt.serialize_str)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.formats.pmt import DEEPEST, Pair, PmtError, dumps, loads

WRITTEN = [
    (True, "00"),
    (False, "01"),
    (None, "06"),
    ("rx_rate", "02000772785f72617465"),
    ("é", "020002c3a9"),
    (5, "0300000005"),
    (-5, "03fffffffb"),
    (-(2**31), "0380000000"),
    (2**31, "0d0000000080000000"),
    (-(2**40), "0dffffff0000000000"),
    (np.uint64(7), "0b0000000000000007"),
    (1.5, "043ff8000000000000"),
    (1.5 - 2.0j, "053ff8000000000000c000000000000000"),
    (Pair(1, 2), "0703000000010300000002"),
    (Pair(1, Pair(2, Pair(3, None))), "07030000000107030000000207030000000306"),
    ([9, 9], "080000000203000000090300000009"),
    ([], "0800000000"),
    ((np.uint64(3), 0.25), "0c000000020b0000000000000003043fd0000000000000"),
    ((), "0c00000000"),
    ({"a": 1}, "090702000161030000000106"),
    ({"a": 1, "b": 2}, "0907020001620300000002090702000161030000000106"),
]
UNIFORM = [
    (np.array([1, 2, 255], np.uint8), "0a000000000301000102ff"),
    (np.array([1, -2], np.int8), "0a0100000002010001fe"),
    (np.array([1, 258], np.uint16), "0a0200000002010000010102"),
    (np.array([1, -2], np.int16), "0a030000000201000001fffe"),
    (np.array([1, 2], np.uint32), "0a040000000201000000000100000002"),
    (np.array([1, -2], np.int32), "0a0500000002010000000001fffffffe"),
    (np.array([1, 2], np.uint64), "0a0600000002010000000000000000010000000000000002"),
    (np.array([1, -2], np.int64), "0a070000000201000000000000000001fffffffffffffffe"),
    (np.array([1.5, 2], np.float32), "0a080000000201003fc0000040000000"),
    (np.array([1.5, 2], np.float64), "0a090000000201003ff80000000000004000000000000000"),
    (np.array([1.5 + 2j, 2], np.complex64), "0a0a0000000201003fc00000400000004000000000000000"),
    (np.array([1.5 - 2j]), "0a0b0000000101003ff8000000000000c000000000000000"),
    (np.empty(0, np.uint8), "0a00000000000100"),
]


@pytest.mark.parametrize(("value", "written"), WRITTEN, ids=str)
def test_values_are_read_and_written_as_by_gnu_radio(value, written):
    data = bytes.fromhex(written)
    assert dumps(value) == data
    found, end = loads(data)
    assert (found, type(found), end) == (value, type(value), len(data))


@pytest.mark.parametrize(("value", "written"), UNIFORM, ids=str)
def test_uniform_vectors_are_read_and_written_as_by_gnu_radio(value, written):
    data = bytes.fromhex(written)
    assert dumps(value) == data
    found, end = loads(data)
    assert end == len(data)
    assert found.dtype == value.dtype
    np.testing.assert_array_equal(found, value)


def test_values_stand_one_after_another():
    data = b"??" + dumps("a") + dumps((1, 2.0)) + b"??"
    key, at = loads(data, 2)
    value, at = loads(memoryview(data), at)
    assert (key, value, data[at:]) == ("a", (1, 2.0), b"??")


def test_other_bytes_before_the_elements_are_skipped():
    assert loads(bytes.fromhex("0a000000000203aabbcc0708"))[0].tolist() == [7, 8]


def test_the_first_of_equal_keys_counts():
    a, b = bytes.fromhex("0907020001610300000001"), bytes.fromhex("0907020001610300000002")
    assert loads(a + b + b"\x06")[0] == {"a": 1}


def test_symbols_that_are_no_utf_8_come_through():
    data = b"\x02\x00\x03\xff\xfea"
    assert dumps(loads(data)[0]) == data


def test_long_lists_are_read_and_written():
    data = (b"\x07" + dumps(1)) * 5000 + b"\x06"
    found, end = loads(data)
    assert end == len(data)
    assert dumps(found) == data


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("", "goes on past the end, byte 0"),
        ("030000", "value at byte 0 goes on past the end, byte 3"),
        ("02ffff61", "past the end"),
        ("0e", "byte 0 is 0x0e; no PMT begins so"),
        ("0cffffffff", "past the end"),
        ("08ffffffff06", "past the end"),
        ("0a0bffffffff0100", "past the end"),
        ("0a0c000000010100", "elements of type 12"),
        ("0a", "past the end"),
        ("07", "past the end"),
        ("0906", "past the end"),
        ("090606", "dict at byte 0 is no list of pairs"),
        ("0907060603", "past the end"),
        ("0907060600", "no list of pairs"),
        ("090708000000000606", "a key of the dict at byte 0 is no plain value"),
        ("0c00000001" * 40 + "06", f"more than {DEEPEST} values within each other"),
        ("07" + "0706" * 50, "past the end"),
        ("07" * 100, "more than"),
    ],
)
def test_other_bytes_are_refused(data, text):
    with pytest.raises(PmtError, match=text):
        loads(bytes.fromhex(data))


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2**64, "does not fit into 64 bits"),
        (-(2**63) - 1, "does not fit into 64 bits"),
        ("x" * 65536, "no symbol: 'x.*', of 65536 characters"),
        ("\ud800", "no symbol"),
        ({1, 2}, "PMT has nothing for a set"),
        (np.zeros((2, 2)), r"no uniform vector of float64 with shape \(2, 2\)"),
        (np.zeros(2, bool), "no uniform vector of bool"),
        (nested(DEEPEST), "more than"),
    ],
)
def test_values_that_pmt_cannot_say_are_refused(value, text):
    with pytest.raises(PmtError, match=text):
        dumps(value)


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.builds(Pair, inner, inner)
        | st.dictionaries(st.text(), inner, min_size=1, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=100)
@given(VALUES)
def test_what_is_written_is_read_back(value):
    data = dumps(value)
    found, end = loads(data)
    assert end == len(data)
    assert found == value
    assert dumps(found) == data


@settings(max_examples=200)
@given(st.binary(max_size=200) | st.lists(st.sampled_from(range(16)), max_size=60).map(bytes))
def test_any_bytes_give_a_value_or_an_error(data):
    try:
        value, end = loads(data)
    except PmtError:
        return
    assert 0 < end <= len(data)
    dumps(value)


@settings(max_examples=100)
@given(VALUES.map(dumps), st.data())
def test_damaged_bytes_give_a_value_or_an_error(data, draw):
    place = draw.draw(st.integers(0, len(data) - 1))
    damaged = bytearray(data)
    damaged[place] = draw.draw(st.integers(0, 255))
    for some in (bytes(damaged), data[:place]):
        try:
            _, end = loads(some)
        except PmtError:
            continue
        assert 0 < end <= len(some)
