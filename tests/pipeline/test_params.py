"""Parameters: what is taken, what is refused and in which words, and what help texts say."""

from __future__ import annotations

import json
import re
import warnings
from typing import Literal

import jsonschema
import numpy as np
import pytest

from pipeline.block import Block, Source, param
from pipeline.errors import ParameterError


class Every(Block):
    """One parameter of every kind."""

    gain: float = param(default=1, unit="V", above=0.0, at_most=10.0, doc="factor")
    count: int = param(default=3, at_least=1, doc="how many")
    label: str = param(default="x", items_at_least=1, items_at_most=3, doc="a short text")
    fast: bool = param(default=False, doc="whether to hurry")
    noise_var: float | None = param(default=None, at_least=0.0, unit="V^2", doc="if known")
    taps: tuple[float, ...] = param(default=[1, 0.5], items_at_least=1, doc="response")
    powers: tuple[float, ...] | None = param(default=None, above=0.0, doc="of each path")
    point: tuple[int, int] = param(default=(0, 0), doc="two of them")
    matrix: tuple[tuple[float, ...], ...] = param(default=(), doc="rows")
    mode: Literal["soft", "hard"] = param(default="soft", doc="of two kinds")
    first: int | str = param(default="unknown", doc="a state or a word")
    limits: dict[str, float] = param(default={}, at_least=0.0, doc="by name")


class Demanding(Block):
    rate_hz: float = param(unit="Hz", above=0.0, doc="sampling rate")


def test_defaults_stand_where_nothing_is_given():
    assert Every().values() == {
        "gain": 1.0, "count": 3, "label": "x", "fast": False, "noise_var": None,
        "taps": (1.0, 0.5), "powers": None, "point": (0, 0), "matrix": (), "mode": "soft",
        "first": "unknown", "limits": {},
    }  # fmt: skip


TAKEN = [
    ("gain", 8, 8.0),
    ("gain", np.float32(0.5), 0.5),
    ("gain", np.array(2), 2.0),
    ("count", np.int16(7), 7),
    ("fast", np.bool_(True), True),
    ("noise_var", 1, 1.0),
    ("noise_var", None, None),
    ("taps", [1, 0.5, 2], (1.0, 0.5, 2.0)),
    ("taps", np.array([1, 2], np.int8), (1.0, 2.0)),
    ("taps", (np.float64(1.5), 2), (1.5, 2.0)),
    ("powers", [1, 2], (1.0, 2.0)),
    ("point", [3, np.int64(4)], (3, 4)),
    ("matrix", np.eye(2, dtype=np.int64), ((1.0, 0.0), (0.0, 1.0))),
    ("matrix", [[1], [], [2, 3]], ((1.0,), (), (2.0, 3.0))),
    ("first", 5, 5),
    ("first", "known", "known"),
    ("limits", {"low": np.float32(1), "high": 2}, {"low": 1.0, "high": 2.0}),
]


@pytest.mark.parametrize(("name", "given", "expected"), TAKEN)
def test_values_of_the_right_kind_are_taken_as_plain_ones(name, given, expected):
    value = getattr(Every(**{name: given}), name)

    def types(x):
        if isinstance(x, dict):
            return [types(item) for item in x.values()]
        return [types(item) for item in x] if isinstance(x, tuple) else type(x)

    assert value == expected
    assert types(value) == types(expected)


REFUSED = [
    ("gain", 0.0, "gain = 0.0 V, but it must be above 0.0 and at most 10.0"),
    ("gain", 10.5, "gain = 10.5 V, but it must be above 0.0 and at most 10.0"),
    ("gain", "8", "gain = '8' V, but it must be a number, above 0.0 and at most 10.0"),
    ("gain", True, "gain = True V, but it must be a number, above 0.0 and at most 10.0"),
    ("gain", 1j, "gain = 1j V, but it must be a number, above 0.0 and at most 10.0"),
    ("gain", [1.0], "gain = (1.0,) V, but it must be a number, above 0.0 and at most 10.0"),
    ("gain", float("nan"), "gain = nan V, but it must be finite"),
    ("gain", float("inf"), "gain = inf V, but it must be finite"),
    ("gain", None, "gain = None V, but it must be a number, above 0.0 and at most 10.0"),
    ("count", 0, "count = 0, but it must be at least 1"),
    ("count", 2.0, "count = 2.0, but it must be a whole number, at least 1"),
    ("count", "2", "count = '2', but it must be a whole number, at least 1"),
    ("count", True, "count = True, but it must be a whole number, at least 1"),
    ("label", "", "label has 0 characters, but must have at least 1 character and at most 3 cha"),
    ("label", "long", "label has 4 characters, but must have at least 1 character and at most"),
    ("label", 3, "label = 3, but it must be a text, at least 1 character and at most 3 characters"),
    ("fast", 1, "fast = 1, but it must be true or false"),
    ("fast", "true", "fast = 'true', but it must be true or false"),
    ("noise_var", -1, "noise_var = -1 V^2, but it must be at least 0.0"),
    ("noise_var", "x", "noise_var = 'x' V^2, but it must be a number, or left out, at least 0.0"),
    ("taps", [], "taps has 0 items, but must have at least 1 item"),
    ("taps", 1.0, "taps = 1.0, but it must be a list of numbers, at least 1 item"),
    ("taps", [1, "x"], "taps[1] = 'x', but it must be a number"),
    ("taps", [1, True], "taps[1] = True, but it must be a number"),
    ("taps", [1, 2, float("-inf")], "taps[2] = -inf, but it must be finite"),
    ("taps", "1", "taps = '1', but it must be a list of numbers, at least 1 item"),
    ("taps", [1] * 200 + ["x"], "taps[200] = 'x', but it must be a number"),
    ("powers", [1, 0], "powers[1] = 0, but it must be above 0.0"),
    ("powers", [1, None], "powers[1] = None, but it must be a number, above 0.0"),
    ("powers", 3, "powers = 3, but it must be a list of numbers, or left out, above 0.0"),
    ("point", [1], "point = (1,), but it must be a list of 2 whole numbers"),
    ("point", [1, 2, 3], "point = (1, 2, 3), but it must be a list of 2 whole numbers"),
    ("point", [1, 2.5], "point[1] = 2.5, but it must be a whole number"),
    ("matrix", [[1, 2], [3, "x"]], "matrix[1][1] = 'x', but it must be a number"),
    ("matrix", [1], "matrix[0] = 1, but it must be a list of numbers"),
    ("mode", "Soft", "mode = 'Soft', but it must be one of 'soft', 'hard'"),
    ("first", 1.5, "first = 1.5, but it must be a whole number or a text"),
    ("limits", {"low": "x"}, "limits['low'] = 'x', but it must be a number, at least 0.0"),
    ("limits", {"low": -1}, "limits['low'] = -1, but it must be at least 0.0"),
    ("limits", [1], "limits = (1,), but it must be a table of numbers, at least 0.0"),
]


@pytest.mark.parametrize(("name", "given", "text"), REFUSED)
def test_other_values_are_refused_with_what_would_be_right(name, given, text):
    with pytest.raises(ParameterError, match=re.escape(text)):
        Every(**{name: given})


def test_a_huge_value_is_not_quoted_whole():
    with pytest.raises(ParameterError) as caught:
        Every(point=np.arange(10_000))
    assert len(str(caught.value)) < 200


def test_unknown_names_are_refused_with_the_nearest_and_all_there_are():
    with pytest.raises(ParameterError, match=r"no parameter 'gian'; did you mean 'gain'\? \(it ha"):
        Every(gian=1.0)
    with pytest.raises(ParameterError, match=r"no parameter 'rate'.* \(it has: rate_hz\)$"):
        Demanding(rate_hz=1.0, rate=2.0)
    with pytest.raises(ParameterError, match=r"no parameter 'x' \(it has: no parameters\)$"):
        type("Nothing", (Block,), {})(x=1)


def test_a_missing_parameter_is_named_with_its_meaning_and_unit():
    with pytest.raises(ParameterError, match=r"'rate_hz' is missing: sampling rate \[Hz\]$"):
        Demanding()


def test_a_default_out_of_range_is_refused_like_any_value():
    class Wrong(Block):
        gain: float = param(default=0.0, above=0.0, doc="factor")

    with pytest.raises(ParameterError, match=r"gain = 0.0, but it must be above 0.0"):
        Wrong()
    assert Wrong(gain=1.0).gain == 1.0


def test_values_make_an_equal_block_also_by_way_of_json():
    block = Every(taps=[1, 2], powers=(3.0,), point=(1, 2), noise_var=0.1, limits={"low": 1})
    assert Every(**block.values()).values() == block.values()
    assert Every(**json.loads(json.dumps(block.values()))).values() == block.values()


def test_values_are_no_ones_but_the_block_s():
    taps = [1.0, 2.0]
    block = Every(taps=taps)
    taps[0] = 9.0
    assert block.taps == (1.0, 2.0)
    assert Every().limits is not Every().limits


def test_help_says_type_unit_range_default_and_meaning():
    told = {p.name: p for p in Every.params().describe()}
    assert list(told) == list(Every().values())
    assert {name: p.type for name, p in told.items()} == {
        "gain": "a number", "count": "a whole number", "label": "a text", "fast": "true or false",
        "noise_var": "a number, or left out", "taps": "a list of numbers",
        "powers": "a list of numbers, or left out", "point": "a list of 2 whole numbers",
        "matrix": "a list of lists of numbers", "mode": "one of 'soft', 'hard'",
        "first": "a whole number or a text", "limits": "a table of numbers",
    }  # fmt: skip
    gain = told["gain"]
    assert (gain.unit, gain.doc, gain.default) == ("V", "factor", 1)
    assert gain.limits == "above 0.0 and at most 10.0"
    assert told["taps"].limits == "at least 1 item"
    assert told["label"].limits == "at least 1 character and at most 3 characters"
    assert not gain.required
    assert Demanding.params().describe()[0].required


def test_the_json_schema_takes_and_refuses_the_same():
    schema = Every.params().schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for name, given, _ in TAKEN:
        if isinstance(given, list | dict | int | str | None) and not isinstance(given, np.generic):
            given = json.loads(json.dumps(given, default=lambda value: value.item()))
            assert validator.is_valid({name: given}), (name, given)
    for name, given, _ in REFUSED:
        if given != 1j and given != 2.0 and "inf" not in str(given) and "nan" not in str(given):
            assert not validator.is_valid({name: given}), (name, given)
    assert not validator.is_valid({"gian": 1.0})
    assert schema["properties"]["gain"]["description"] == "factor"
    assert schema["properties"]["gain"]["unit"] == "V"
    assert Demanding.params().schema()["required"] == ["rate_hz"]


def test_subclasses_inherit_parameters_and_may_declare_them_anew():
    class Slow(Source):
        frames: int = param(default=0, at_least=0, doc="how many")

    class Slower(Slow):
        rate: float = param(default=5.0, above=0.0, unit="frames/s", doc="never at once")

    assert Slow.params().names == ("rate", "frames")
    assert Slow(rate=2).values() == {"rate": 2.0, "frames": 0}
    assert Slower().values() == {"rate": 5.0, "frames": 0}
    with pytest.raises(ParameterError, match=r"rate = 0.0 frames/s, but it must be above 0.0"):
        Slower(rate=0.0)
    assert Source.params().names == ("rate",)
    with pytest.raises(ParameterError, match=r"rate = -1 frames/s, but it must be at least 0.0"):
        Slow(rate=-1)


def test_declarations_that_could_not_work_are_refused_where_they_stand():
    with pytest.raises(TypeError, match="write the type of the parameter 'gain'"):
        type("Untyped", (Block,), {"gain": param(default=1.0, doc="factor")})
    for name in ("context", "process", "state", "check"):
        inherits = type("Has", (Block,), {"process": lambda self: None})
        declared = {name: param(default=1.0, doc=""), "__annotations__": {name: float}}
        with pytest.raises(TypeError, match=f"'{name}' is no name for a parameter"):
            type("Clash", (inherits,), declared)
    with pytest.raises(TypeError, match=r"'rate' is a parameter; declare it by param\(\)"):
        type("Plain", (Source,), {"rate": 5.0})


def test_names_that_models_have_already_are_free_for_parameters():
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Odd(Block):
            copy: bool = param(default=True, doc="a name that pydantic models have")
            model_fields: int = param(default=2, doc="another")
            validate: float = param(default=1.0, doc="and another")

        assert Odd(copy=False).values() == {"copy": False, "model_fields": 2, "validate": 1.0}


def test_a_check_of_the_block_names_the_block():
    class Fussy(Block):
        low: float = param(default=0.0, doc="")
        high: float = param(default=1.0, doc="")

        def check(self):
            if self.low >= self.high:
                raise ParameterError(f"low = {self.low} must be below high = {self.high}")

    Fussy.name = "channel.fussy"  # as its name in the catalogue would
    with pytest.raises(ParameterError, match=r"^channel.fussy: low = 2.0 must be below high = 1"):
        Fussy(low=2)
    with pytest.raises(ParameterError, match=r"^channel.fussy: no parameter 'lo'"):
        Fussy(lo=2)
