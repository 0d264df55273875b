"""What a block reads and writes: read off its signature, joined to what there is."""

from __future__ import annotations

import itertools
from typing import Annotated, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Bool, Complex64, Float, Float16, Float32, Int8, Shaped

from pipeline.block import Field, Gap
from pipeline.errors import ConnectError, FieldError
from pipeline.frame import DTYPES, Array, FrameInfo
from pipeline.signature import (
    FieldSpec,
    FieldType,
    MismatchError,
    Signature,
    bind,
    check_array,
    settle,
    signature_of,
)
from pipeline.weights import Weights

SENT = Field("what was sent", unit="V", truth=True)


class Sent(NamedTuple):
    sent: Annotated[Int8[Array, "*word time"], SENT]
    level: Float32[Array, ""]


class Other(NamedTuple):
    other: Int8[Array, "time"]


class Bad(NamedTuple):
    bad: int


def returning(annotation: object) -> Signature:
    def process(self): ...

    process.__annotations__ = {"return": annotation}
    return signature_of(process, "test.block")


def reading(annotation: object) -> FieldSpec:
    def process(self, samples): ...

    process.__annotations__ = {"samples": annotation}
    return signature_of(process, "test.block").reads["samples"]


# results


@pytest.mark.parametrize(
    "annotation",
    [Sent, "Sent", Sent | None, Sent | Gap | None, Gap | Sent | None, Gap | Sent],
    ids=str,
)
def test_fields_written_are_those_of_the_result(annotation):
    signature = returning(Sent if annotation == "Sent" else annotation)
    assert signature.result is Sent
    assert not signature.delayed
    assert signature.writes == {
        "sent": FieldSpec("sent", FieldType.of("int8", "*word time"), SENT),
        "level": FieldSpec("level", FieldType.of("float32", "")),
    }


def test_a_list_of_results_answers_later():
    signature = returning(list[Sent])
    assert (signature.result, signature.delayed) == (Sent, True)
    assert list(signature.writes) == ["sent", "level"]


@pytest.mark.parametrize("annotation", [None, Weights, Weights | None, Gap | None], ids=str)
def test_sinks_and_trainers_write_nothing(annotation):
    signature = returning(annotation)
    assert (signature.result, signature.delayed, signature.writes) == (None, False, {})


@pytest.mark.parametrize(
    "annotation",
    [
        int, tuple, tuple[Array, Array], dict, list, Array, Sent | Other, Sent | int, list[int],
        list[Sent] | None, list[Sent | None], list[Sent | Other], list[Weights], list[Gap],
    ],
    ids=str,
)  # fmt: skip
def test_any_other_result_is_refused(annotation):
    with pytest.raises(ConnectError, match=r"^test.block: process returns .*; expected a NamedTup"):
        returning(annotation)


def test_a_result_with_something_else_than_arrays_is_refused():
    with pytest.raises(ConnectError, match=r"field 'bad' is annotated int; expected an array type"):
        returning(Bad)


# reads


@pytest.mark.parametrize(
    ("annotation", "dtypes", "dims"),
    [
        (Float32[Array, "time"], "float32", "time"),
        (Float32[Array, "*word time"] | Complex64[Array, "*word time"], "float32 complex64",
         "*word time"),
        (Complex64[Array, "time"] | Float32[Array, "time"] | None, "complex64 float32", "time"),
        (Float[Array, "time tap"], "float32 float64", "time tap"),
        (Shaped[Array, "..."], " ".join(DTYPES), "..."),
        (Bool[Array, "message 2"], "bool", "message 2"),
        (Float32[Array, ""], "float32", ""),
        (Annotated[Int8[Array, "time"], SENT], "int8", "time"),
    ],
    ids=str,
)  # fmt: skip
def test_arrays_are_read_by_dtype_and_dims(annotation, dtypes, dims):
    found = reading(annotation).type
    assert found == FieldType(tuple(dtypes.split()), tuple(dims.split()))


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, r"field 'samples' is annotated int; expected an array type such as Float32\[Array"),
        (Array, r"field 'samples' is annotated numpy.ndarray.*; expected an array type"),
        (Float16[Array, "time"], r"Float16.*, but a field has one of the dtypes bool, int8,"),
        (Float32[Array, "a"] | Int8[Array, "b"], r"choices of field 'samples' differ in their dim"),
        (Float32[Array, "#time"], r"field 'samples' has a dim '#time'; expected a name such as t"),
        (Float32[Array, "time+1"], r"a dim 'time\+1'"),
        (Float32[Array, "time=4"], r"a dim 'time=4'"),
        (Float32[Array, "_ time"], r"a dim '_'"),
        (FrameInfo, r"call the FrameInfo argument 'info', not 'samples'"),
    ],
)
def test_other_annotations_are_refused(annotation, text):
    with pytest.raises(ConnectError, match=r"^test.block: .*" + text):
        reading(annotation)


def test_an_argument_without_annotation_is_refused():
    with pytest.raises(ConnectError, match="process argument 'samples' has no annotation"):
        signature_of(lambda samples: None, "test.block")


def test_arguments_with_default_none_are_optional_and_info_is_no_field():
    def process(
        self,
        samples: Float32[Array, "time"],
        taps: Float32[Array, "tap"] | None,
        sent: Int8[Array, "time"] | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> None: ...

    signature = signature_of(process, "test.block")
    assert {name: spec.optional for name, spec in signature.reads.items()} == {
        "samples": False, "taps": False, "sent": True,
    }  # fmt: skip
    assert signature.wants_info
    assert not returning(None).wants_info


# joining


def spec(name: str, dims: str, *dtypes: str) -> FieldSpec:
    return FieldSpec(name, FieldType(dtypes or ("float32",), tuple(dims.split())))


def kind(dims: str, dtype: str = "float32") -> FieldType:
    return FieldType.of(dtype, dims)


def test_open_dims_stand_for_what_came():
    assert bind([(spec("a", "time"), kind("time"))]) == {}
    assert bind([(spec("a", "*word time"), kind("time"))]) == {"*word": ()}
    groups = bind([(spec("a", "*word time"), kind("word time"))])
    assert groups == {"*word": ("word",)}
    assert settle(spec("b", "*word time state"), groups) == kind("word time state")
    assert settle(spec("b", "*word time"), {"*word": ()}) == kind("time")
    assert bind([(spec("a", "..."), kind("word time 2"))]) == {}
    assert bind([(spec("a", "time ... 2"), kind("time word tap 2"))]) == {}
    assert not settle(spec("b", "..."), {}).settled
    assert not settle(spec("b", "time", "float32", "complex64"), {}).settled


def test_two_reads_must_agree_in_their_open_dims():
    both = [spec("a", "*word time"), spec("b", "*word time")]
    assert bind(zip(both, [kind("word time")] * 2, strict=True)) == {"*word": ("word",)}
    with pytest.raises(MismatchError, match=r"'b' is float32 with dims \(time\); expected float32"):
        bind(zip(both, [kind("word time"), kind("time")], strict=True))


@pytest.mark.parametrize(
    ("pattern", "dims"),
    [
        ("time", "word time"), ("time", ""), ("time tap", "tap time"), ("time 2", "time 3"),
        ("*word time", "word"), ("*word time", ""), ("*word time", "burst time"),
        ("*word time", "word word time"), ("time ... 2", "time"), ("time ... 2", "time 3"),
        ("", "time"),
    ],
)  # fmt: skip
def test_dims_that_do_not_fit_are_refused(pattern, dims):
    with pytest.raises(MismatchError, match=r"'samples' is float32 with dims \("):
        bind([(spec("samples", pattern), kind(dims))])


def test_a_dtype_that_does_not_fit_is_refused():
    wanted = spec("samples", "time", "float32", "complex64")
    assert bind([(wanted, kind("time", "complex64"))]) == {}
    with pytest.raises(
        MismatchError,
        match=r"^'samples' is int8 with dims \(time\); expected float32 or complex64 with dims \(",
    ):
        bind([(wanted, kind("time", "int8"))])
    with pytest.raises(MismatchError):  # what may be the wrong one is wrong
        bind([(spec("a", "time"), FieldType(("float32", "float64"), ("time",)))])


NAMES = ("time", "word", "tap", "2")


@given(
    st.lists(st.sampled_from([*NAMES, "*word"]), max_size=3).filter(
        lambda dims: dims.count("*word") < 2
    ),
    st.lists(st.sampled_from(NAMES), max_size=4),
)
def test_a_group_fits_exactly_where_leaving_it_out_or_naming_it_fits(pattern, dims):
    stands_for = [(), ("word",)] if "*word" in pattern else [()]
    fitting = {
        middle
        for middle in stands_for
        if list(itertools.chain(*(middle if d == "*word" else (d,) for d in pattern))) == dims
    }
    try:
        groups = bind([(spec("a", " ".join(pattern)), kind(" ".join(dims)))])
    except MismatchError:
        assert not fitting
    else:
        assert groups.get("*word", ()) in fitting


def test_an_array_is_checked_against_its_type():
    wanted = kind("time 2")
    array = np.zeros((5, 2), np.float32)
    assert check_array("test.block", "pairs", array, wanted) is array
    for wrong, came in [
        (np.zeros((5, 3), np.float32), r"float32 with shape \(5, 3\)"),
        (np.zeros(5, np.float32), r"float32 with shape \(5,\)"),
        (np.zeros((5, 2)), r"float64 with shape \(5, 2\)"),
        ([[1.0, 2.0]], "a list"),
        (None, "a NoneType"),
    ]:
        expected = rf"^test.block: 'pairs' is {came}; expected float32 with dims \(time, 2\)$"
        with pytest.raises(FieldError, match=expected):
            check_array("test.block", "pairs", wrong, wanted)
