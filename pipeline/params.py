"""Parameters of blocks: declared once with type, range, unit and meaning.

The one line `noise_var: float = param(above=0.0, unit="V^2", doc="...")` gives the check, the
help text, the JSON schema and the saved form.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic
from pydantic_core import ErrorDetails, PydanticUndefined

from pipeline.errors import ParameterError, did_you_mean

#: Bounds by their names in pydantic, and the words for them.
BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
LENGTHS = {"min_length": "at least", "max_length": "at most"}
Constrained: Any = pydantic.Field  # its overloads do not see through **bounds


@dataclass(frozen=True, slots=True)
class Declared:
    """What `param` was told.

    bounds    of numbers, those with a value: pydantic's name -> value
    lengths   of a tuple or text, likewise
    tune      from where to where `kalvit tune` looks for a good value, or None
    """

    doc: str
    default: Any
    unit: str
    bounds: Mapping[str, float]
    lengths: Mapping[str, int]
    tune: tuple[float, float] | None = None


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
    tune: tuple[float, float] | None = None,
) -> Any:
    """Declare a parameter of a block; without a default it must be given.

    `items_...` bound the length of a tuple or of a text; the other bounds hold for a number, or
    for each number of a tuple or table. The default None of a type such as `float | None` stands
    for a parameter that is left out. `tune` is where `kalvit tune` looks for a good value unless
    it is told otherwise, (low, high), both above 0; three values a decade.
    """
    if tune is not None and not 0.0 < tune[0] < tune[1]:
        raise ParameterError(f"tune = {tune}, but it must be two rising numbers above 0")
    bounds = {"gt": above, "ge": at_least, "lt": below, "le": at_most}
    lengths = {"min_length": items_at_least, "max_length": items_at_most}
    return Declared(
        doc,
        _plain(default),
        unit,
        {key: bound for key, bound in bounds.items() if bound is not None},
        {key: length for key, length in lengths.items() if length is not None},
        tune,
    )


@dataclass(frozen=True, slots=True)
class Param:
    """One declared parameter, for help texts."""

    name: str
    type: str  # in words, e.g. "a list of numbers"
    default: Any  # PydanticUndefined where it must be given
    unit: str
    doc: str
    limits: str  # e.g. "above 0.0", or ""
    tune: tuple[float, float] | None  # where `kalvit tune` looks

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is PydanticUndefined


class ParamSet:
    """The parameters of one block class."""

    def __init__(self, owner: str, declared: Mapping[str, tuple[Any, Declared]]) -> None:
        self._declared = dict(declared)
        fields = {
            name: (_bounded(annotation, item), _field(item))
            for name, (annotation, item) in declared.items()
        }
        with warnings.catch_warnings():  # of names such as "copy", which models have already
            warnings.simplefilter("ignore", UserWarning)
            try:
                self._model = pydantic.create_model(  # type: ignore[call-overload]
                    owner,
                    __config__=pydantic.ConfigDict(
                        extra="forbid",
                        strict=True,
                        allow_inf_nan=False,
                        protected_namespaces=(),
                        validate_default=True,  # so that `default=1` of a float is 1.0
                    ),
                    **fields,
                )
            except pydantic.errors.PydanticUserError as error:
                raise ParameterError(
                    f"{owner}: a parameter is of a type that cannot be checked: "
                    f"{error.message.partition('. ')[0]}; use numbers, texts, true or false, "
                    "Literal, or tuples of them"
                ) from error

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names, in the order of their declaration."""
        return tuple(self._declared)

    def describe(self) -> list[Param]:
        """Every parameter, for help texts."""
        return [
            Param(
                name=name,
                type=_type_text(annotation),
                default=item.default,
                unit=item.unit,
                doc=item.doc,
                limits=_limits(annotation, item),
                tune=item.tune,
            )
            for name, (annotation, item) in self._declared.items()
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
            raise ParameterError(f"{owner}: {self._explain(error.errors())}") from None
        return {name: getattr(model, name) for name in self._declared}

    def _explain(self, errors: list[ErrorDetails]) -> str:
        """What is wrong with the first parameter that is wrong."""
        name = str(errors[0]["loc"][0])
        if errors[0]["type"] == "extra_forbidden":
            known = ", ".join(self.names) or "no parameters"
            return f"no parameter {name!r}{did_you_mean(name, self.names)} (it has: {known})"
        annotation, item = self._declared[name]
        unit = f" {item.unit}" if item.unit else ""
        # each choice of a union has an error of its own; the one that reached deepest says most
        error = max(
            (e for e in errors if e["loc"][0] == name),
            key=lambda e: sum(isinstance(index, int) for index in e["loc"]),
        )
        path, kind, came = error["loc"][1:], error["type"], error["input"]
        if kind == "missing" and not path:
            return f"parameter {name!r} is missing: {item.doc}{unit and f' [{unit[1:]}]'}"
        limits = _limits(annotation, item)
        if kind == "missing" or (kind == "too_long" and not item.lengths):
            return f"{name} = {_short(came)}, but it must be {_type_text(annotation)}"
        if kind in {"too_short", "too_long", "string_too_short", "string_too_long"}:
            words = f"{len(came)} {_items(annotation, len(came))}"
            return f"{name} has {words}, but must have {_lengths(annotation, item)}"
        place, annotation = _walk(annotation, path)
        which = f"{name}{place} = {_short(came)}{unit}, but it must be"
        if kind in {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}:
            return f"{which} {_bounds(item)}"
        if kind == "finite_number":
            return f"{which} finite"
        if place:
            limits = _bounds(item)
        return f"{which} {_type_text(annotation)}" + (f", {limits}" if limits else "")


def _plain(value: Any) -> Any:
    """Lists become tuples and numpy values plain ones, all the way down."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return value


def _field(item: Declared) -> Any:
    extra: dict[str, Any] | None = {"unit": item.unit} if item.unit else None
    return pydantic.Field(item.default, description=item.doc, json_schema_extra=extra)


def _bounded(annotation: Any, item: Declared, inside: bool = False) -> Any:
    """A type with the bounds at the numbers, and with the lengths at the tuple or text itself."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if _is_union(annotation):
        return Union[tuple(_bounded(choice, item, inside) for choice in arguments)]  # noqa: UP007
    if annotation in (float, int) and item.bounds:
        return Annotated[annotation, Constrained(**item.bounds)]
    if origin is tuple:
        kinds = tuple(k if k is ... else _bounded(k, item, inside=True) for k in arguments)
        annotation = tuple[kinds]  # type: ignore[valid-type]
    if origin is dict:
        key, value = arguments
        annotation = dict[key, _bounded(value, item, inside=True)]  # type: ignore[misc, valid-type]
    if (origin is tuple or annotation is str) and item.lengths and not inside:
        return Annotated[annotation, Constrained(**item.lengths)]
    return annotation


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _walk(annotation: Any, path: tuple[int | str, ...]) -> tuple[str, Any]:
    """The place of an item as an error shows it, and the type that is declared for it."""
    place = ""
    for index in path:
        choices = get_args(annotation) if _is_union(annotation) else (annotation,)
        for choice in choices:
            arguments = get_args(choice)
            if get_origin(choice) is tuple and isinstance(index, int):
                place += f"[{index}]"
                annotation = arguments[0] if arguments[-1] is ... else arguments[index]
                break
            if get_origin(choice) is dict:
                place += f"[{index!r}]"
                annotation = arguments[1]
                break
    return place, annotation


def _bounds(item: Declared) -> str:
    return " and ".join(f"{BOUNDS[key]} {bound}" for key, bound in item.bounds.items())


def _lengths(annotation: Any, item: Declared) -> str:
    return " and ".join(
        f"{LENGTHS[key]} {length} {_items(annotation, length)}"
        for key, length in item.lengths.items()
    )


def _limits(annotation: Any, item: Declared) -> str:
    return " and ".join(filter(None, (_bounds(item), _lengths(annotation, item))))


def _items(annotation: Any, count: int) -> str:
    """The word for what a length counts."""
    return ("character" if annotation is str else "item") + "s" * (count != 1)


def _type_text(annotation: Any) -> str:
    """The type as a user of a flow would say it."""
    names = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}
    if annotation in names:
        return names[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if _is_union(annotation):
        choices = [_type_text(choice) for choice in arguments if choice is not type(None)]
        return " or ".join(choices) + (", or left out" if type(None) in arguments else "")
    if origin is Literal:
        return "one of " + ", ".join(repr(choice) for choice in arguments)
    if origin is tuple and arguments[-1] is ...:
        return f"a list of {_plural(arguments[0])}"
    if origin is tuple and len(set(arguments)) == 1:
        return f"a list of {len(arguments)} {_plural(arguments[0])}"
    if origin is tuple:
        return f"a list of {', '.join(_type_text(item) for item in arguments)}"
    if origin is dict:
        return f"a table of {_plural(arguments[1])}"
    return str(annotation).replace("typing.", "")


def _plural(annotation: Any) -> str:
    names = {float: "numbers", int: "whole numbers", str: "texts"}
    if annotation in names:
        return names[annotation]
    return _type_text(annotation).replace("a list", "lists", 1).replace("one of", "any of", 1)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:60] + " ... " + text[-15:]
