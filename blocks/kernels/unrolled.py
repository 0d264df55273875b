"""Straight-line arithmetic on small matrices: Python that runs once, while numba compiles.

`unrolled(function)` is callable from compiled code. While that compiles, `function` runs with
stand-ins for its arguments, and each operation it does becomes one machine operation: loops and
comprehensions over tuples are unrolled, constants such as the zeros of a Jacobian fold away, and
no entry of a matrix passes through memory. So a step of a filter can be written in plain Python on
nested tuples (kernels/small.py), and costs what its multiplications cost.

Arguments are floats, integers used as indices (counted from the start), None, nested tuples, and
arrays; so are the results, but for arrays. Only + - * /, `sqrt`, `where`, `is_nan` and items of
arrays are known; there is no branch on a value. A product with the constant 0 is 0, whatever the
other factor. Lengths of tuples are known while compiling, so a tuple of None can choose what code
is made.

With `lanes` the last axis of an array, of length LANES, is loaded as one vector of a SIMD
register, and the same arithmetic works on LANES independent problems at a time. `load_rows` and
`store_rows` do so for problems that lie one after another, each with its numbers side by side.

Under NUMBA_DISABLE_JIT=1 `unrolled` returns the function as it is.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils as untyped_cgutils
from numba.core import config as untyped_config
from numba.extending import intrinsic
from numba.np import arrayobj

cgutils: Any = untyped_cgutils
config: Any = untyped_config
make_array: Any = arrayobj.make_array
types: Any = numba.types

#: Problems that one vector holds: a cache line of float64, two AVX2 or one AVX-512 register.
LANES = 8

# Multiplications and additions may fuse; nothing else is relaxed, so NaN keeps its meaning.
_FLAGS = ("contract",)


class Traced:
    """A number that compiled code will have.

    type     float64 or float32
    lanes    0 for a scalar, else the length of the vector
    builder  writes machine operations; None where only the types are wanted
    """

    __slots__ = ("builder", "lanes", "type", "value")

    def __init__(self, type_: Any, lanes: int, builder: Any = None, value: Any = None) -> None:
        self.type, self.lanes, self.builder, self.value = type_, lanes, builder, value

    def _ir_type(self, lanes: int) -> Any:
        scalar = ir.DoubleType() if self.type.bitwidth == 64 else ir.FloatType()
        return ir.VectorType(scalar, lanes) if lanes else scalar

    def _as(self, other: Any, lanes: int) -> Any:
        """The machine value of a number, of this type, spread over the lanes of a vector."""
        if not isinstance(other, Traced):
            value = float(other)
            return ir.Constant(self._ir_type(lanes), [value] * lanes if lanes else value)
        value = other.value
        if other.type.bitwidth != self.type.bitwidth:
            wider = self.type.bitwidth > other.type.bitwidth
            convert = self.builder.fpext if wider else self.builder.fptrunc
            value = convert(value, self._ir_type(other.lanes))
        if other.lanes == lanes:
            return value
        vector = ir.Constant(self._ir_type(lanes), ir.Undefined)
        zero = ir.Constant(ir.IntType(32), 0)
        vector = self.builder.insert_element(vector, value, zero)
        first = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
        return self.builder.shuffle_vector(vector, vector, first)

    def _new(self, lanes: int, value: Any = None) -> Traced:
        return Traced(self.type, lanes, self.builder, value)

    def _binary(self, name: str, left: Any, right: Any) -> Traced:
        numbers = [v for v in (left, right) if isinstance(v, Traced)]
        lanes = max(v.lanes for v in numbers)
        wider = max(numbers, key=lambda v: v.type.bitwidth)
        if self.builder is None:
            return wider._new(lanes)
        operation = getattr(self.builder, name)
        return wider._new(
            lanes, operation(wider._as(left, lanes), wider._as(right, lanes), flags=_FLAGS)
        )

    def __add__(self, other: Any) -> Any:
        return self if _is(other, 0.0) else self._binary("fadd", self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self if _is(other, 0.0) else self._binary("fsub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return -self if _is(other, 0.0) else self._binary("fsub", other, self)

    def __mul__(self, other: Any) -> Any:
        if _is(other, 0.0):
            return 0.0
        if _is(other, 1.0):
            return self
        return -self if _is(other, -1.0) else self._binary("fmul", self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return self if _is(other, 1.0) else self._binary("fdiv", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return 0.0 if _is(other, 0.0) else self._binary("fdiv", other, self)

    def __neg__(self) -> Any:
        if self.builder is None:
            return self._new(self.lanes)
        return self._new(self.lanes, self.builder.fneg(self.value))

    def __gt__(self, other: Any) -> Any:
        return self._compare(">", other)

    def _compare(self, which: str, other: Any) -> Any:
        """A truth value for `where`: false where a side is NaN, but for "uno"."""
        lanes = max(self.lanes, other.lanes if isinstance(other, Traced) else 0)
        found = _Truth(self._new(lanes), None)
        if self.builder is not None:
            left, right = self._as(self, lanes), self._as(other, lanes)
            if which == "uno":
                found.value = self.builder.fcmp_unordered("uno", left, right)
            else:
                found.value = self.builder.fcmp_ordered(which, left, right)
        return found


class _Truth:
    """The result of a comparison that compiled code will make, of numbers like `number`."""

    __slots__ = ("number", "value")

    def __init__(self, number: Traced, value: Any) -> None:
        self.number, self.value = number, value


class _TracedArray:
    """An array that compiled code will have."""

    def __init__(self, type_: Any, context: Any = None, builder: Any = None, value: Any = None):
        self.type, self.context, self.builder, self.value = type_, context, builder, value

    def _pointer(self, index: Any) -> Any:
        index = index if isinstance(index, tuple) else (index,)
        if any(isinstance(i, int) and i < 0 for i in index):
            raise IndexError(f"{index} counts from the end, which unrolled code does not")
        places = [
            self.context.get_constant(types.intp, i) if isinstance(i, int)
            else i.value if isinstance(i, _Index) else i
            for i in index
        ]  # fmt: skip
        array = make_array(self.type)(self.context, self.builder, self.value)
        return cgutils.get_item_pointer(
            self.context, self.builder, self.type, array, places, wraparound=False,
            boundscheck=self.context.enable_boundscheck,
        )  # fmt: skip

    def __getitem__(self, index: Any) -> Traced:
        if self.builder is None:
            return Traced(self.type.dtype, 0)
        value = self.builder.load(self._pointer(index))
        return Traced(self.type.dtype, 0, self.builder, value)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._check(is_written=True)
        if self.builder is not None:
            number = Traced(self.type.dtype, 0, self.builder)
            self.builder.store(number._as(value, 0), self._pointer(index))

    def _check(self, *, is_written: bool = False, is_vector: bool = False) -> None:
        if is_written and not self.type.mutable:
            raise TypeError(f"{self.type} is read-only")
        if is_vector and self.type.layout != "C":
            raise TypeError(f"{self.type}: vectors are of numbers that lie side by side")

    def _lanes_pointer(self, index: tuple[Any, ...]) -> tuple[Any, int]:
        number = Traced(self.type.dtype, LANES, self.builder)
        if self.context.enable_boundscheck:  # of the last lane too
            self._pointer((*index, LANES - 1))
        pointer = self._pointer((*index, 0))
        bits = self.type.dtype.bitwidth // 8
        return self.builder.bitcast(pointer, number._ir_type(LANES).as_pointer()), bits

    def lanes(self, *index: Any) -> Traced:
        self._check(is_vector=True)
        if self.builder is None:
            return Traced(self.type.dtype, LANES)
        pointer, align = self._lanes_pointer(index)
        value = self.builder.load(pointer, align=align)
        return Traced(self.type.dtype, LANES, self.builder, value)

    def put_lanes(self, value: Any, *index: Any) -> None:
        self._check(is_written=True, is_vector=True)
        if self.builder is not None:
            number = Traced(self.type.dtype, LANES, self.builder)
            pointer, align = self._lanes_pointer(index)
            self.builder.store(number._as(value, LANES), pointer, align=align)

    def _row_pointer(self, lane: int, first: Any, index: tuple[Any, ...]) -> Any:
        row = ir.Constant(first.value.type, lane)
        return self._pointer((self.builder.add(first.value, row), *index))

    def rows(self, count: int, first: Any, *index: Any) -> tuple[Traced, ...]:
        number = Traced(self.type.dtype, LANES, self.builder)
        if self.builder is None:
            return (number,) * count
        vectors = []
        for k in range(count):
            vector = ir.Constant(number._ir_type(LANES), ir.Undefined)
            for lane in range(LANES):
                item = self.builder.load(self._row_pointer(lane, first, (*index, k)))
                vector = self.builder.insert_element(vector, item, ir.IntType(32)(lane))
            vectors.append(number._new(LANES, vector))
        return tuple(vectors)

    def put_rows(self, values: tuple[Any, ...], first: Any, *index: Any) -> None:
        self._check(is_written=True, is_vector=True)
        if self.builder is None:
            return
        number = Traced(self.type.dtype, LANES, self.builder)
        align = self.type.dtype.bitwidth // 8
        for k in range(0, len(values), LANES):  # a square of LANES x LANES at a time
            part = [number._as(value, LANES) for value in values[k : k + LANES]]
            missing = [ir.Constant(number._ir_type(LANES), ir.Undefined)] * (LANES - len(part))
            kind = number._ir_type(len(part)).as_pointer()
            for lane, row in enumerate(_transposed(self.builder, part + missing)):
                if missing:
                    row = _shuffled(self.builder, row, row, range(len(part)))
                if self.context.enable_boundscheck:
                    self._row_pointer(lane, first, (*index, k + len(part) - 1))
                pointer = self._row_pointer(lane, first, (*index, k))
                self.builder.store(row, self.builder.bitcast(pointer, kind), align=align)


def _shuffled(builder: Any, a: Any, b: Any, places: Any) -> Any:
    """The items of two vectors, one after the other, that stand in these places."""
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(places)), list(places))
    return builder.shuffle_vector(a, b, mask)


def _transposed(builder: Any, vectors: list[Any]) -> list[Any]:
    """As many vectors as each has lanes, a power of 2, turned so that rows become columns.

    Blocks off the diagonal change places: halves first, then quarters, down to single items.
    """
    size = len(vectors)
    half = size // 2
    while half:
        for i in range(size):
            if not i & half:
                a, b = vectors[i], vectors[i + half]
                lows = [lane + (size - half if lane & half else 0) for lane in range(size)]
                highs = [lane + (size if lane & half else half) for lane in range(size)]
                vectors[i] = _shuffled(builder, a, b, lows)
                vectors[i + half] = _shuffled(builder, a, b, highs)
        half //= 2
    return vectors


class _Index:
    """An integer that compiled code will have; it can be an index and nothing else."""

    __slots__ = ("value",)

    def __init__(self, value: Any = None) -> None:
        self.value = value


def sqrt(value: Any) -> Any:
    """Square root; NaN of what is below 0."""
    if not isinstance(value, Traced):
        with np.errstate(invalid="ignore"):
            return np.sqrt(value)
    if value.builder is None:
        return value._new(value.lanes)
    kind = value._ir_type(value.lanes)
    name = f"llvm.sqrt.{f'v{value.lanes}' if value.lanes else ''}f{value.type.bitwidth}"
    function = cgutils.get_or_insert_function(
        value.builder.module, ir.FunctionType(kind, [kind]), name
    )
    return value._new(value.lanes, value.builder.call(function, [value.value]))


def where(condition: Any, yes: Any, no: Any) -> Any:
    """`yes` where the condition holds, else `no`; both have been computed."""
    if not isinstance(condition, _Truth):
        return np.where(condition, yes, no)[()]
    numbers = [v for v in (yes, no) if isinstance(v, Traced)] or [condition.number]
    number = max(numbers, key=lambda v: v.type.bitwidth)
    lanes = max(v.lanes for v in (*numbers, condition.number))
    if number.builder is None:
        return number._new(lanes)
    return number._new(
        lanes,
        number.builder.select(condition.value, number._as(yes, lanes), number._as(no, lanes)),
    )


def is_nan(value: Any) -> Any:
    """Whether a number is not one, for `where`."""
    return value._compare("uno", value) if isinstance(value, Traced) else np.isnan(value)


def lanes(array: Any, *index: Any) -> Any:
    """array[index + (0,)] ... array[index + (LANES - 1,)] as one vector."""
    return array.lanes(*index) if isinstance(array, _TracedArray) else array[index].copy()


def put_lanes(array: Any, value: Any, *index: Any) -> None:
    """Store a vector along the last axis of an array."""
    if isinstance(array, _TracedArray):
        array.put_lanes(value, *index)
    else:
        array[index] = value


def load_rows(array: Any, count: int, first: Any, *index: Any) -> Any:
    """`count` vectors: number k of lane l is array[(first + l, *index, k)]."""
    if isinstance(array, _TracedArray):
        return array.rows(count, first, *index)
    return tuple(array[(slice(first, first + LANES), *index, k)].copy() for k in range(count))


def store_rows(array: Any, values: Any, first: Any, *index: Any) -> None:
    """Store vectors: array[(first + l, *index, k)] becomes lane l of values[k]."""
    if isinstance(array, _TracedArray):
        array.put_rows(values, first, *index)
    else:
        for k, value in enumerate(values):
            array[(slice(first, first + LANES), *index, k)] = value


def unrolled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, callable from compiled code, which it becomes a part of."""
    if config.DISABLE_JIT:
        return function

    def declare(typing: Any, *arguments: Any) -> Any:
        dry = [_stand_in(kind, None, None, None) for kind in arguments]
        result = function(*dry)
        number = next((kind for kind in map(_number_type, arguments) if kind), types.float64)
        signature = _type_of(result, number)(*arguments)

        def lower(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            given = [
                _stand_in(kind, context, builder, value)
                for kind, value in zip(signature.args, values, strict=True)
            ]
            return _pack(context, builder, signature.return_type, function(*given))

        return signature, lower

    own = inspect.signature(function)
    first = inspect.Parameter("typing", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in own.parameters.values()]
    declare.__signature__ = inspect.Signature([first, *plain])  # type: ignore[attr-defined]
    declare.__name__ = function.__name__
    declare.__doc__ = function.__doc__
    made: Callable[..., Any] = intrinsic(declare)
    return made


def _is(value: Any, constant: float) -> bool:
    return not isinstance(value, Traced) and operator.eq(value, constant)


def _stand_in(kind: Any, context: Any, builder: Any, value: Any) -> Any:
    """What stands for an argument of this type while a function is traced."""
    if isinstance(kind, types.BaseTuple):
        return tuple(
            _stand_in(
                item, context, builder, None if builder is None else builder.extract_value(value, i)
            )
            for i, item in enumerate(kind)
        )
    if isinstance(kind, types.Array):
        return _TracedArray(kind, context, builder, value)
    if isinstance(kind, types.Float):
        return Traced(kind, 0, builder, value)
    if isinstance(kind, types.Integer):
        if builder is not None:
            value = context.cast(builder, value, kind, types.intp)
        return _Index(value)
    if isinstance(kind, types.NoneType):
        return None
    raise TypeError(f"unrolled functions take floats, indices, tuples and arrays, not {kind}")


def _number_type(kind: Any) -> Any:
    """The type of the numbers in an argument, or None."""
    if isinstance(kind, types.BaseTuple):
        return next((found for found in map(_number_type, kind) if found), None)
    if isinstance(kind, types.Array):
        return kind.dtype
    return kind if isinstance(kind, types.Float) else None


def _type_of(result: Any, number: Any) -> Any:
    if result is None:
        return types.none
    if isinstance(result, tuple):
        return types.BaseTuple.from_types([_type_of(item, number) for item in result])
    return result.type if isinstance(result, Traced) else number


def _pack(context: Any, builder: Any, kind: Any, result: Any) -> Any:
    if result is None:
        return context.get_dummy_value()
    if isinstance(result, tuple):
        items = [_pack(context, builder, k, r) for k, r in zip(kind, result, strict=True)]
        return context.make_tuple(builder, kind, items)
    return Traced(kind, 0, builder)._as(result, 0)
