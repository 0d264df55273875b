"""Frames and what makes an array a field."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import FieldError
from pipeline.frame import DTYPES, Frame, FrameInfo, Kind, StreamInfo, as_field


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4).T,
        np.arange(12.0)[::-2],
        np.arange(12, dtype=">i4"),
        np.array(3, dtype=">c16"),
        np.asfortranarray(np.ones((2, 3), bool)),
        np.zeros((0, 4), np.uint8),
        np.broadcast_to(np.float32(2.0), (3, 2)),
        np.arange(6.0).view(np.matrix),
    ],
    ids=["transposed", "strided", "big-endian", "0-d", "fortran", "empty", "broadcast", "matrix"],
)
def test_a_field_is_contiguous_little_endian_read_only_and_has_the_same_values(array):
    field = as_field(array)
    assert type(field) is np.ndarray
    assert field.flags.c_contiguous
    assert field.dtype.byteorder in "=|"
    assert field.dtype.name == array.dtype.name
    assert not field.flags.writeable
    np.testing.assert_array_equal(field, array)


def test_an_array_that_is_a_field_is_not_copied():
    field = as_field(np.arange(3.0))
    assert as_field(field) is field


def test_the_caller_may_go_on_writing_to_its_array():
    array = np.arange(3.0)
    field = as_field(array)
    array[0] = 9.0
    np.testing.assert_array_equal(field, [0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="read-only"):
        field[0] = 9.0


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_of_the_wire_makes_a_field(name):
    assert as_field(np.zeros(3, name)).dtype.name == name


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        ([1.0, 2.0], r"^gain is a list; expected a numpy array$"),
        (np.float32(1.0), r"^gain is a float32; expected a numpy array$"),
        (np.zeros(3, np.float16), r"^gain has dtype float16; expected one of bool, int8, "),
        (np.array(["a"]), r"^gain has dtype <U1; expected one of"),
        (np.array([None]), r"^gain has dtype object; expected one of"),
        (np.zeros(2, "f4,i4"), r"^gain has dtype .*; expected one of"),
        (np.zeros(2, "M8[ns]"), r"^gain has dtype datetime64\[ns\]; expected one of"),
    ],
)
def test_anything_else_is_no_field(thing, text):
    with pytest.raises(FieldError, match=text):
        as_field(thing, "gain")


def test_a_frame_counts_the_bytes_of_its_fields():
    fields = {"a": np.zeros((3, 4), np.complex64), "b": np.zeros(5, bool), "c": np.zeros((0, 9))}
    assert Frame(Kind.DATA, "main", 0, 0, 0, fields, {}).nbytes == 3 * 4 * 8 + 5
    assert Frame(Kind.START, "main", 0, 0, 0, {}, {}).nbytes == 0


def test_a_stream_is_described_by_the_marks_of_its_start():
    info = StreamInfo(2.4e6, 17, 1e9, "cu8", continuous=False, replayable=True)
    assert StreamInfo.from_marks(info.to_marks()) == info
    assert StreamInfo.from_marks({**info.to_marks(), "of_a_later_release": 1}) == info
    assert StreamInfo.from_marks({}) == StreamInfo()


def test_marks_that_nobody_gave_cannot_be_written():
    with pytest.raises(TypeError):
        FrameInfo().marks["version"] = 1
