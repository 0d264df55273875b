"""What a block reads and writes, read off the signature of its `process`.

`def process(self, samples: Float32[Array, "time"]) -> Decided` reads the field `samples` and
writes the fields of the NamedTuple `Decided`. Dims are names (`time`), sizes (`2`), a named
group of none or more (`*word`), or anything (`...`).
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from pipeline.errors import ConnectError, FieldError
from pipeline.frame import DTYPES, Array, FrameInfo, Gap, Silence
from pipeline.weights import Weights

#: What `process` may return beside fields: a source a Gap or Silence, a trainer Weights, both None.
BESIDE = (Gap, Silence, Weights, type(None))
_DIM = re.compile(r"\*?[A-Za-z]\w*|\d+|\.\.\.").fullmatch


@dataclass(frozen=True, slots=True)
class Field:
    """The meaning of a field, the same wherever its name appears.

    truth: only a channel, a sink or a block marked `genie` may read it, since no receiver can.
    """

    doc: str
    unit: str = ""
    truth: bool = False


@dataclass(frozen=True, slots=True)
class FieldType:
    """Dtypes and dims that a field may have; settled: one dtype and no open dims."""

    dtypes: tuple[str, ...]
    dims: tuple[str, ...]

    @classmethod
    def of(cls, dtype: str, dims: str) -> FieldType:
        """`FieldType.of("complex64", "word time")`."""
        return cls((dtype,), tuple(dims.split()))

    @property
    def settled(self) -> bool:
        """Whether nothing is left open."""
        return len(self.dtypes) == 1 and not any(_open(dim) for dim in self.dims)

    def __str__(self) -> str:
        return f"{' or '.join(self.dtypes)} with dims ({', '.join(self.dims)})"


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """A field that a block reads or writes."""

    name: str
    type: FieldType
    meaning: Field | None = None  # None where only the writer says it
    optional: bool = False  # read if something upstream writes it


@dataclass(frozen=True, slots=True)
class Signature:
    """The fields of a block.

    result     the NamedTuple that `process` returns (one, or a list of them), or None
    delayed    it returns a list: each element answers the oldest unanswered frame
    wants_info it asks for `info: FrameInfo`
    """

    reads: Mapping[str, FieldSpec]
    writes: Mapping[str, FieldSpec]
    result: type[Any] | None
    delayed: bool
    wants_info: bool


def signature_of(process: Callable[..., Any], owner: str) -> Signature:
    """Read the signature of a block's `process`; ConnectError says what it cannot mean."""
    hints = hints_of(process, owner)
    reads: dict[str, FieldSpec] = {}
    wants_info = False
    for name, parameter in inspect.signature(process).parameters.items():
        if name == "self":
            continue
        if name not in hints:
            raise ConnectError(f"{owner}: process argument {name!r} has no annotation")
        if hints[name] is FrameInfo:
            if name != "info":
                raise ConnectError(f"{owner}: call the FrameInfo argument 'info', not {name!r}")
            wants_info = True
            continue
        optional = parameter.default is None
        reads[name] = _field_spec(owner, name, hints[name], optional)
    result, delayed = _result_of(owner, hints.get("return"))
    writes: dict[str, FieldSpec] = {}
    if result is not None:
        for name, hint in hints_of(result, owner).items():
            writes[name] = _field_spec(owner, name, hint, optional=False)
    return Signature(reads, writes, result, delayed, wants_info)


def hints_of(annotated: Any, owner: str) -> dict[str, Any]:
    """Annotations of a function or class; ConnectError where one cannot be read."""
    try:
        return get_type_hints(annotated, include_extras=True)
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        raise ConnectError(
            f"{owner}: an annotation in {annotated.__qualname__} cannot be read: {error}"
        ) from error


def _result_of(owner: str, annotation: Any) -> tuple[type[Any] | None, bool]:
    """The NamedTuple of fields that `process` returns, if any, and whether in a list."""
    delayed = get_origin(annotation) is list
    inner = get_args(annotation)[0] if delayed else annotation
    choices = get_args(inner) if _is_union(inner) else (inner,)
    found = [c for c in choices if c is not None and c not in BESIDE]
    if len(found) > 1 or not all(hasattr(c, "_fields") and isinstance(c, type) for c in found):
        wrong = True
    else:
        wrong = delayed and len(choices) > len(found)  # a list holds fields and nothing else
    if wrong:
        raise ConnectError(
            f"{owner}: process returns {_called(annotation)}; expected a NamedTuple of fields, "
            "a list of them, or None"
        )
    return (found[0] if found else None), delayed


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _called(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _field_spec(owner: str, name: str, hint: Any, optional: bool) -> FieldSpec:
    meaning = None
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        meaning = next((extra for extra in extras if isinstance(extra, Field)), None)
    options = get_args(hint) if _is_union(hint) else (hint,)
    options = tuple(option for option in options if option is not type(None))
    dtypes: list[str] = []
    dims: set[tuple[str, ...]] = set()
    for option in options:
        if get_origin(option) is Annotated:
            option, *extras = get_args(option)
            meaning = next((extra for extra in extras if isinstance(extra, Field)), meaning)
        if not hasattr(option, "dim_str"):
            raise ConnectError(
                f"{owner}: field {name!r} is annotated {_called(option)}; expected an array type "
                'such as Float32[Array, "time"]'
            )
        known = option.dtypes if isinstance(option.dtypes, (tuple, list)) else DTYPES
        dtypes += [dtype for dtype in DTYPES if dtype in known and dtype not in dtypes]
        dims.add(tuple(option.dim_str.split()))
    if len(dims) != 1:
        raise ConnectError(f"{owner}: the choices of field {name!r} differ in their dims")
    if not dtypes:
        raise ConnectError(
            f"{owner}: field {name!r} is annotated {_called(options[0])}, but a field has one of "
            f"the dtypes {', '.join(DTYPES)}"
        )
    found = FieldType(tuple(dtypes), dims.pop())
    for dim in found.dims:
        if not _DIM(dim):
            raise ConnectError(
                f"{owner}: field {name!r} has a dim {dim!r}; expected a name such as time, a size "
                "such as 2, *word for none or one, or ..."
            )
    return FieldSpec(name, found, meaning, optional)


def _open(dim: str) -> bool:
    return dim == "..." or dim.startswith("*")


class MismatchError(ConnectError):
    """A field does not have the dtype or the dims that its reader expects."""


def bind(
    reads: Iterable[tuple[FieldSpec, FieldType]],
) -> dict[str, tuple[str, ...]]:
    """What the open dims of a block stand for, given the settled types of what it reads.

    Raises MismatchError where dtype or dims do not fit; its text names the field and both sides.
    """
    groups: dict[str, tuple[str, ...]] = {}
    for spec, given in reads:
        wrong = MismatchError(f"{spec.name!r} is {given}; expected {spec.type}")
        if not set(given.dtypes) <= set(spec.type.dtypes):
            raise wrong
        pattern, dims = spec.type.dims, given.dims
        position = next((i for i, dim in enumerate(pattern) if _open(dim)), None)
        if position is None:
            if pattern != dims:
                raise wrong
            continue
        tail = len(pattern) - position - 1
        middle = dims[position : len(dims) - tail]
        if (
            len(dims) < len(pattern) - 1
            or dims[:position] != pattern[:position]
            or dims[len(dims) - tail :] != pattern[position + 1 :]
        ):
            raise wrong
        name = pattern[position]
        if name.startswith("*") and (
            groups.setdefault(name, middle) != middle or middle not in ((), (name[1:],))
        ):
            raise wrong
    return groups


def settle(spec: FieldSpec, groups: Mapping[str, tuple[str, ...]]) -> FieldType:
    """The type of a written field once the open dims of the block are known."""
    dims: tuple[str, ...] = ()
    for dim in spec.type.dims:
        dims += groups.get(dim, (dim,))
    return replace(spec.type, dims=dims)


@cache
def _name(dtype: np.dtype[Any]) -> str:
    """Name of a dtype; numpy takes microseconds to make it up."""
    return dtype.name


def check_array(where: str, name: str, array: object, expected: FieldType) -> Array:
    """`array`, if it is what a settled type says; FieldError says what came otherwise.

    The worker calls it once a cheaper test has failed, so it may take its time.
    """
    if isinstance(array, np.ndarray):
        if _name(array.dtype) in expected.dtypes and array.ndim == len(expected.dims):
            sizes = zip(array.shape, expected.dims, strict=True)
            if all(not dim.isdigit() or size == int(dim) for size, dim in sizes):
                return array
        came = f"{array.dtype} with shape {array.shape}"
    else:
        came = f"a {type(array).__name__}"
    raise FieldError(f"{where}: {name!r} is {came}; expected {expected}")
