"""Parameters of blocks: declared once with type, range, unit and meaning.

The one line `noise_var: float = param(above=0.0, unit="V^2", doc="...")` gives the check, the
help text, the JSON schema and the saved form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from pipeline.errors import ParameterError, did_you_mean


def param(
    *,
    doc: str,
    default: Any = PydanticUndefined,
    unit: str = "",
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    items_at_least: int | None = None,
    items_at_most: int | None = None,
) -> Any:
    """Declare a parameter of a block; without a default it must be given.

    `items_...` bound the length of a tuple or of a text; the other bounds hold for numbers.
    """
    return pydantic.Field(
        default,
        description=doc,
        gt=above,
        ge=at_least,
        lt=below,
        le=at_most,
        min_length=items_at_least,
        max_length=items_at_most,
        json_schema_extra={"unit": unit} if unit else None,
    )


@dataclass(frozen=True, slots=True)
class Param:
    """One declared parameter, for help texts."""

    name: str
    type: str  # as written, e.g. "tuple[float, ...]"
    default: Any  # PydanticUndefined where it must be given
    unit: str
    doc: str
    limits: str  # e.g. "above 0.0", or ""

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is PydanticUndefined


class ParamSet:
    """The parameters of one block class."""

    def __init__(self, owner: str, declared: Mapping[str, tuple[Any, FieldInfo]]) -> None:
        self._model = pydantic.create_model(  # type: ignore[call-overload]
            owner,
            __config__=pydantic.ConfigDict(
                extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
            ),
            **dict(declared),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names, in the order of their declaration."""
        return tuple(self._model.model_fields)

    def describe(self) -> list[Param]:
        """Every parameter, for help texts."""
        return [
            Param(
                name=name,
                type=_type_text(info.annotation),
                default=info.default,
                unit=_unit(info),
                doc=info.description or "",
                limits=_limits(info),
            )
            for name, info in self._model.model_fields.items()
        ]

    def schema(self) -> dict[str, Any]:
        """JSON schema of the parameters."""
        schema: dict[str, Any] = self._model.model_json_schema()
        return schema

    def validate(self, owner: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of all parameters, or a ParameterError that says what is wrong with one.

        owner    name of the block, for the error text
        values   as given by a caller or a flow file; lists stand for tuples
        """
        try:
            model = self._model(**{name: _plain(value) for name, value in values.items()})
        except pydantic.ValidationError as error:
            raise ParameterError(f"{owner}: {self._explain(error.errors()[0])}") from None
        return {name: getattr(model, name) for name in self._model.model_fields}

    def _explain(self, error: ErrorDetails) -> str:
        name = str(error["loc"][0])
        if error["type"] == "extra_forbidden":
            known = ", ".join(self.names) or "no parameters"
            return f"no parameter {name!r}{did_you_mean(name, self.names)} (it has: {known})"
        info = self._model.model_fields[name]
        unit = f" {_unit(info)}" if _unit(info) else ""
        if error["type"] == "missing":
            return f"parameter {name!r} is missing: {info.description}{unit and f' [{unit[1:]}]'}"
        place = "".join(f"[{index}]" for index in error["loc"][1:] if isinstance(index, int))
        limits = _limits(info)
        came, context = error["input"], error.get("ctx", {})
        if error["type"] in {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}:
            return f"{name}{place} = {came!r}{unit}, but it must be {limits}"
        if error["type"] in {"too_short", "too_long", "string_too_short", "string_too_long"}:
            length = context.get("actual_length", len(came))
            return f"{name} has {length} items, but must have {limits}"
        expected = _type_text(info.annotation) + (f", {limits}" if limits else "")
        return f"{name}{place} = {came!r}{unit}, but it must be {expected}"


def _plain(value: Any) -> Any:
    """Lists become tuples and numpy values plain ones, all the way down."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    return value


def _unit(info: FieldInfo) -> str:
    extra = info.json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def _limits(info: FieldInfo) -> str:
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    found = []
    for constraint in info.metadata:
        for key, word in words.items():
            if (bound := getattr(constraint, key, None)) is not None:
                found.append(f"{word} {bound}")
        if (least := getattr(constraint, "min_length", None)) is not None:
            found.append(f"at least {least} item{'s' * (least != 1)}")
        if (most := getattr(constraint, "max_length", None)) is not None:
            found.append(f"at most {most} item{'s' * (most != 1)}")
    return " and ".join(found)


def _type_text(annotation: Any) -> str:
    """The type as a user of a flow would say it."""
    names = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}
    if annotation in names:
        return names[annotation]
    text = str(annotation).replace("typing.", "")
    if text.startswith("Literal["):
        return "one of " + text[len("Literal[") : -1]
    if text.startswith("tuple["):
        inner = {"float": "numbers", "int": "whole numbers", "str": "texts"}
        element = text[len("tuple[") : -1].removesuffix(", ...")
        if element in inner:
            return f"a list of {inner[element]}"
    return text
