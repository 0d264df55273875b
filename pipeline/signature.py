"""What a block reads and writes, read off the signature of its `process`.

`def process(self, samples: Float32[Array, "time"]) -> Decided` reads the field `samples` and
writes the fields of the NamedTuple `Decided`. Dims are names (`time`), sizes (`2`), a named
group of none or more (`*word`), or anything (`...`).
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pipeline.errors import ConnectError, FieldError
from pipeline.frame import DTYPES, Array, FrameInfo


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
    hints = get_type_hints(process, include_extras=True)
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
    result = hints.get("return")
    delayed = get_origin(result) is list
    if delayed:
        (result,) = get_args(result)
    if get_origin(result) in (Union, types.UnionType):  # `Sent | Gap | None` of a source
        result = next((t for t in get_args(result) if hasattr(t, "_fields")), None)
    writes: dict[str, FieldSpec] = {}
    if result in (None, type(None)):
        result = None
    elif hasattr(result, "_fields"):
        for name, hint in get_type_hints(result, include_extras=True).items():
            writes[name] = _field_spec(owner, name, hint, optional=False)
    else:
        raise ConnectError(
            f"{owner}: process returns {result}; expected a NamedTuple of fields, "
            "a list of them, or None"
        )
    return Signature(reads, writes, result, delayed, wants_info)


def _field_spec(owner: str, name: str, hint: Any, optional: bool) -> FieldSpec:
    meaning = None
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        meaning = next((extra for extra in extras if isinstance(extra, Field)), None)
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    options = tuple(option for option in options if option is not type(None))
    dtypes: list[str] = []
    dims: set[tuple[str, ...]] = set()
    for option in options:
        if get_origin(option) is Annotated:
            option, *extras = get_args(option)
            meaning = next((extra for extra in extras if isinstance(extra, Field)), meaning)
        if not hasattr(option, "dim_str"):
            raise ConnectError(
                f"{owner}: field {name!r} is annotated {option}; expected an array type such as "
                'Float32[Array, "time"]'
            )
        known = option.dtypes if isinstance(option.dtypes, (tuple, list)) else DTYPES
        dtypes += [dtype for dtype in DTYPES if dtype in known and dtype not in dtypes]
        dims.add(tuple(option.dim_str.split()))
    if len(dims) != 1:
        raise ConnectError(f"{owner}: the choices of field {name!r} differ in their dims")
    return FieldSpec(name, FieldType(tuple(dtypes), dims.pop()), meaning, optional)


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


def check_array(where: str, name: str, array: object, expected: FieldType) -> Array:
    """`array`, if it is what a settled type says; FieldError says what came otherwise.

    The worker calls it once a cheaper test has failed, so it may take its time.
    """
    import numpy as np

    if isinstance(array, np.ndarray):
        if array.dtype.name in expected.dtypes and array.ndim == len(expected.dims):
            sizes = zip(array.shape, expected.dims, strict=True)
            if all(not dim.isdigit() or size == int(dim) for size, dim in sizes):
                return array
        came = f"{array.dtype} with shape {array.shape}"
    else:
        came = f"a {type(array).__name__}"
    raise FieldError(f"{where}: {name!r} is {came}; expected {expected}")
