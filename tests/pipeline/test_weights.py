"""Weights: arrays that never change, with a digest that says which they are."""

from __future__ import annotations

import json
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from pipeline.errors import WeightsError
from pipeline.frame import Frame, Kind
from pipeline.weights import Weights
from pipeline.wire import Codec


def weights(**changed) -> Weights:
    given = {
        "name": "state_likelihood", "version": 3, "hyper": {"n_states": 16, "widths": (4, 2)},
        "arrays": {"a": np.arange(6.0).reshape(2, 3), "b": np.ones(2, np.int8)},
        "parent": 2, "labels": "pilots",
    }  # fmt: skip
    return Weights(**{**given, **changed})


def frame_of(**marks) -> Frame:
    frame = weights().to_frame("trainer", 5, 17)
    return frame._replace(marks={k: v for k, v in {**frame.marks, **marks}.items() if v != "gone"})


def test_what_the_trainer_goes_on_with_does_not_change_what_it_gave():
    array, hyper = np.zeros(3), {"n_states": 4}
    given = Weights("net", 1, {"a": array}, hyper)
    digest = given.digest
    array[:] = 1.0  # the trainer's next step
    hyper["n_states"] = 5
    np.testing.assert_array_equal(given.arrays["a"], np.zeros(3))
    assert given.hyper == {"n_states": 4}
    assert given.digest == digest


def test_arrays_are_read_only_fields():
    odd = {"strided": np.arange(12.0).reshape(3, 4).T, "big-endian": np.arange(3, dtype=">f4")}
    given = Weights("net", 1, odd)
    for name, array in given.arrays.items():
        assert array.flags.c_contiguous
        assert array.dtype.isnative
        np.testing.assert_array_equal(array, odd[name])
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(TypeError):
        given.arrays["new"] = np.zeros(1)


@given(
    arrays_of.arrays(
        st.sampled_from([np.float32, np.int16, np.complex64, np.bool_]),
        arrays_of.array_shapes(max_dims=3, max_side=4, min_side=0),
        elements={"allow_nan": False, "allow_infinity": False},
    )
)
def test_the_digest_depends_on_values_and_not_on_the_layout_in_memory(array):
    digest = Weights("net", 1, {"a": array}).digest
    big = array.astype(array.dtype.newbyteorder(">"), order="F")
    assert Weights("net", 1, {"a": big}).digest == digest
    if array.size:
        other = array.copy()
        other.flat[0] = 0 if array.flat[0] else 1
        assert Weights("net", 1, {"a": other}).digest != digest


def test_the_digest_tells_names_hyper_dtypes_and_shapes_apart():
    one = np.zeros(4, np.float32)
    different = [
        weights(),
        weights(name="other"),
        weights(hyper={"n_states": 17, "widths": (4, 2)}),
        Weights("net", 1, {"a": one}),
        Weights("net", 1, {"b": one}),
        Weights("net", 1, {"a": one.reshape(2, 2)}),
        Weights("net", 1, {"a": one.view(np.int32)}),
        Weights("net", 1, {"a": one[:2], "b": one[2:]}),
        Weights("net", 1, {"a": one[:3], "b": one[3:]}),
        Weights("net", 1, {}),
    ]
    assert len({w.digest for w in different}) == len(different)
    same = [weights(), weights(version=9, parent=8, labels="simulator")]
    same.append(weights(arrays=dict(reversed(weights().arrays.items()))))
    assert len({w.digest for w in same}) == 1


def test_a_frame_brings_back_the_same_weights():
    given = weights()
    frame = given.to_frame("trainer", 5, 17)
    assert (frame.kind, frame.stream, frame.seq, frame.born_ns) == (Kind.WEIGHTS, "trainer", 5, 17)
    codec = Codec()
    (over_the_wire,) = codec.decode(b"".join(codec.encode(frame)))
    for came in (Weights.from_frame(frame), Weights.from_frame(over_the_wire)):
        assert (came.name, came.version, came.parent, came.labels) == (
            "state_likelihood", 3, 2, "pilots",
        )  # fmt: skip
        assert came.hyper == {"n_states": 16, "widths": [4, 2]} == given.hyper
        assert came.digest == given.digest
        assert list(came.arrays) == ["a", "b"]


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array([0.0, np.nan]), "holds NaN or infinity"),
        (np.array([np.inf], np.float32), "holds NaN or infinity"),
        (np.array([1 + np.nan * 1j]), "holds NaN or infinity"),
        (np.zeros(2, np.float16), "has dtype float16; expected one of bool"),
        ([1.0], "is a list; expected a numpy array"),
    ],
)
def test_arrays_that_are_no_finite_fields_are_refused(array, text):
    with pytest.raises(WeightsError, match=rf"^weights 'net' v4: 'gain' {text}"):
        Weights("net", 4, {"fine": np.zeros(2), "gain": array})


@pytest.mark.parametrize(
    "hyper",
    [{"x": np.float32(1)}, {"x": float("nan")}, {"x": {1, 2}}, 5, {(1, 2): 3}],
    ids=["numpy", "nan", "set", "no mapping", "key"],
)
def test_hyperparameters_that_are_no_json_are_refused(hyper):
    with pytest.raises(WeightsError, match=r"^weights 'net' v1: hyper = .* cannot be written as J"):
        Weights("net", 1, {}, hyper)


@pytest.mark.parametrize(
    ("marks", "text"),
    [
        ({"name": "gone"}, r"^a weights frame has no name; expected a text"),
        ({"sha256": "gone"}, r"^a weights frame has no sha256; expected a text"),
        ({"version": "three"}, r"^a weights frame has version = 'three'; expected a whole number"),
        ({"version": True}, r"^a weights frame has version = True; expected a whole number"),
        ({"parent": 1.0}, r"^a weights frame has parent = 1.0; expected a whole number"),
        ({"hyper": "{"}, r"^weights 'state_likelihood' v3: hyper is not JSON: "),
        ({"hyper": "[" * 100_000}, r"^weights 'state_likelihood' v3: hyper is not JSON: "),
        ({"hyper": "[1]"}, r"hyper is a list; expected an object"),
        ({"hyper": "5"}, r"hyper is a int; expected an object"),
        ({"hyper": '{"n_states": 17}'}, r"v3 fail their SHA-256"),
        ({"name": "other"}, r"^weights 'other' v3 fail their SHA-256"),
        ({"sha256": "0" * 64}, r"fail their SHA-256"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_frame_that_was_damaged_is_refused(marks, text):
    with pytest.raises(WeightsError, match=text):
        Weights.from_frame(frame_of(**marks))


def test_damaged_arrays_are_refused():
    frame = frame_of()
    for fields in (
        {**frame.fields, "a": frame.fields["a"] + 1e-12},
        {**frame.fields, "a": np.full((2, 3), np.inf)},
        {**frame.fields, "c": np.zeros(1)},
        {"a": frame.fields["a"]},
        {},
    ):
        with pytest.raises(WeightsError):
            Weights.from_frame(frame._replace(fields=fields))
    with pytest.raises(WeightsError, match="a frame of kind data holds no weights"):
        Weights.from_frame(frame._replace(kind=Kind.DATA))


@pytest.mark.parametrize(
    "changed",
    [
        {"arrays": {f"layer{k}": np.zeros(1) for k in range(65)}},
        {"arrays": {"x" * 65: np.zeros(1)}},
        {"arrays": {"deep": np.zeros((1, 1, 1, 1, 1))}},
        {"hyper": {"text": "x" * 5000}},
        {"version": 1 << 64},
    ],
    ids=["too many", "long name", "five dims", "long hyper", "huge version"],
)
def test_what_no_edge_could_carry_is_refused_even_without_an_edge(changed):
    with pytest.raises(WeightsError, match=r"^weights 'state_likelihood' v\d+ cannot travel: "):
        weights(**changed).to_frame("trainer", 0, 0)


def test_hyper_of_any_mapping_is_kept_as_plain_json():
    hyper = MappingProxyType({"b": (1, 2), "a": {"x": None}})
    assert weights(hyper=hyper).hyper == json.loads('{"a": {"x": null}, "b": [1, 2]}')
