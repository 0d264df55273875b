"""Straight-line arithmetic on small matrices: Python that runs once, while numba compiles.

`unrolled(function)` is callable from compiled code. While that compiles, `function` runs with
stand-ins for its arguments, and each operation it does becomes one machine operation: loops and
comprehensions over tuples are unrolled, constants such as the zeros of a Jacobian fold away, and
no entry of a matrix passes through memory. So a step of a filter can be written in plain Python on
nested tuples (kernels/small.py), and costs what its multiplications cost.

Arguments are floats, integers used as indices (counted from the start), None, nested tuples, and
arrays; so are the results, but for arrays. Only + - * / and the functions below are known, and
items of arrays; there is no branch on a value. A product with the constant 0 is 0, whatever the
other factor. Lengths of tuples are known while compiling, so a tuple of None can choose what code
is made.

With `lanes` LANES numbers along the last axis of an array are loaded as one vector of a SIMD
register, and the same arithmetic works on LANES independent problems at a time. `load_rows` and
`store_rows` do so for problems that lie one after another, each with its numbers side by side.
Indices can be added and multiplied: of a flat array, with sums and products of constants as places,
the offsets of all vectors of a step are known while compiling. Vectors of integers know + - | & <<
>>, wrap around, and are longer if they are narrow (`lanes_of`).

Under NUMBA_DISABLE_JIT=1 `unrolled` returns the function as it is.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba.core import config as untyped_config
from numba.extending import intrinsic

from blocks.kernels.traced import (
    LANES,
    Index,
    Traced,
    TracedArray,
    Truth,
    lanes_in,
    shuffled,
    transposed_values,
)

config: Any = untyped_config
types: Any = numba.types


def sqrt(value: Any) -> Any:
    """Square root; NaN of what is below 0."""
    if isinstance(value, Traced):
        return value.intrinsic("sqrt")
    with np.errstate(invalid="ignore"):
        return np.sqrt(value)


def fma(a: Any, b: Any, c: Any) -> Any:
    """Sum of a b and c, rounded once on machines that have an instruction for it."""
    return a.intrinsic("fmuladd", b, c) if isinstance(a, Traced) else a * b + c


class _Exp(NamedTuple):
    """How e^x is computed: least and greatest x, a number whose last digit is 1, ln 2, terms."""

    least: float
    greatest: float
    magic: float
    ln2: tuple[float, float]
    terms: int
    mantissa: int
    bias: int


# ln 2 in two parts, the first with so few digits that its multiples are exact.
_EXP = {
    32: _Exp(-87.0, 88.0, 1.5 * 2.0**23, (0.693359375, -2.12194440e-4), 7, 23, 127),
    64: _Exp(
        -708.0, 709.0, 1.5 * 2.0**52, (0.693145751953125, 1.4286068203094172e-06), 13, 52, 1023
    ),
}


def exp(value: Any) -> Any:
    """e^x to 2e-7 (float32) or 1e-14 of itself; beyond where that overflows or is 0, as there.

    e^x = 2^n e^r with |r| <= ln 2 / 2 and a Taylor series; no branch and no table, so that lanes
    cost little more than one number.
    """
    if not isinstance(value, Traced):
        kind = _EXP[np.asarray(value).dtype.itemsize * 8]
        return np.exp(np.clip(value, kind.least, kind.greatest))
    kind = _EXP[value.type.bitwidth]
    x = where(value < kind.least, kind.least, value)
    x = where(x > kind.greatest, kind.greatest, x)
    shifted = fma(x, 1.0 / math.log(2.0), kind.magic)  # its last binary digits are those of n
    n = shifted - kind.magic
    r = fma(n, -kind.ln2[1], fma(n, -kind.ln2[0], x))
    series: Any = 1.0 / math.factorial(kind.terms - 1)
    for k in reversed(range(kind.terms - 1)):
        series = fma(r, series, 1.0 / math.factorial(k))
    if value.builder is None:
        return series
    builder, width = value.builder, value.type.bitwidth
    whole: Any = ir.IntType(width)
    whole = ir.VectorType(whole, value.lanes) if value.lanes else whole

    def constant(number: int) -> Any:
        return ir.Constant(whole, [number] * value.lanes if value.lanes else number)

    exponent = builder.add(builder.bitcast(shifted.value, whole), constant(kind.bias))
    power = builder.bitcast(
        builder.shl(exponent, constant(kind.mantissa)), value.ir_type(value.lanes)
    )
    return series * value.like(value.lanes, power)


def where(condition: Any, yes: Any, no: Any) -> Any:
    """`yes` where the condition holds, else `no`: numbers, or conditions themselves."""
    if not isinstance(condition, Truth):
        return np.where(condition, yes, no)[()]
    if isinstance(yes, Truth):
        chosen = Truth(yes.number, None)
        if yes.number.builder is not None:
            chosen.value = yes.number.builder.select(condition.value, yes.value, no.value)
        return chosen
    numbers = [v for v in (yes, no) if isinstance(v, Traced)] or [condition.number]
    number = max(numbers, key=lambda v: v.type.bitwidth)
    lanes = max(v.lanes for v in (*numbers, condition.number))
    if number.builder is None:
        return number.like(lanes)
    return number.like(
        lanes,
        number.builder.select(condition.value, number.spread(yes, lanes), number.spread(no, lanes)),
    )


def shift_in(bits: Any, condition: Any) -> Any:
    """2 bits + 1 where the condition holds, else 2 bits; of None for no bits yet.

    They are as wide as the integers that were compared, int32 where floats were.

    Each result hangs on the one before: LLVM cannot put off comparisons until all are due, which
    would keep both sides of all of them waiting in memory.
    """
    if not isinstance(condition, Truth):
        # Without a compiler nothing tells what was compared: the bits of before, or else 32.
        return np.where(condition, np.int32(1), np.int32(0)) + (0 if bits is None else bits << 1)
    number = condition.number
    kind = number.type if isinstance(number.type, types.Integer) else types.int32
    whole = Traced(kind, number.lanes, number.builder)
    if number.builder is None:
        return whole
    mask = number.builder.sext(condition.value, whole.ir_type(number.lanes))
    start = whole.spread(0, number.lanes)
    if bits is not None:
        start = number.builder.add(bits.value, bits.value)
    return whole.like(number.lanes, number.builder.sub(start, mask))


def scaled(value: Any, factor: Any) -> Any:
    """A vector of int8 times factor / 2^15, rounded to the nearest integer.

    The factor is an index of 0 ... 2^15 - 1; so nothing overflows.
    """
    if not isinstance(value, Traced):
        return (value.astype(np.int32) * factor + (1 << 14) >> 15).astype(np.int8)
    if value.builder is None:
        return value
    builder, lanes = value.builder, value.lanes

    def integers(bits: int) -> Any:
        return ir.VectorType(ir.IntType(bits), lanes)

    def constant(bits: int, number: int) -> Any:
        return ir.Constant(integers(bits), [number] * lanes)

    # Written such that one instruction multiplies 16 bits by 16 and keeps the upper 16.
    times = Traced(types.int16, 0, builder, builder.trunc(factor.value, ir.IntType(16)))
    high = builder.shl(builder.sext(value.value, integers(16)), constant(16, 8))
    sides = high, times.spread(times, lanes)
    product = builder.mul(*(builder.sext(side, integers(32)) for side in sides))
    upper = builder.trunc(builder.ashr(product, constant(32, 16)), integers(16))
    nearest = builder.ashr(builder.add(upper, constant(16, 64)), constant(16, 7))
    return value.like(lanes, builder.trunc(nearest, integers(8)))


def is_nan(value: Any) -> Any:
    """Whether a number is not one, for `where`."""
    return value.compare("uno", value) if isinstance(value, Traced) else np.isnan(value)


def lanes(array: Any, *index: Any, count: int = 0) -> Any:
    """Numbers along the last axis as one vector: from its begin, or from a whole index on.

    count   how many; lanes_of(array) if not given. Others are for numbers on their way to or from
            arrays of another width
    """
    if isinstance(array, TracedArray):
        return array.lanes(index, count)
    return _run(array, index, count or lanes_of(array)).copy()


def put_lanes(array: Any, value: Any, *index: Any) -> None:
    """Store a vector along the last axis: from its begin, or from a whole index on.

    One number goes to as many places as `lanes` would take.
    """
    if isinstance(array, TracedArray):
        array.put_lanes(value, index)
    else:
        _run(array, index, np.size(value) if np.ndim(value) else lanes_of(array))[:] = value


def lanes_of(array: Any) -> int:
    """How many items of an array `lanes` takes: 32 of 8 bits, 16 of 16 bits, else LANES."""
    if isinstance(array, TracedArray):
        return lanes_in(array.type.dtype.bitwidth)
    return lanes_in(8 * array.dtype.itemsize)


def index_at(array: Any, place: Any) -> Any:
    """An item of a flat array of int64, as an index."""
    if not isinstance(array, TracedArray):
        return int(array[place])
    if array.builder is None:
        return Index()
    return Index(array.builder, array.builder.load(array.pointer(place)))


def shuffle(a: Any, b: Any, picks: tuple[int, ...]) -> Any:
    """The vector of these entries of vectors a and b of one length, those of b numbered on."""
    if not isinstance(a, Traced):
        return np.concatenate((a, b))[list(picks)]
    if a.builder is None:
        return a.like(len(picks))
    return a.like(len(picks), shuffled(a.builder, a.value, b.value, picks))


def fold(vector: Any, operation: Callable[[Any, Any], Any]) -> Any:
    """One number of the LANES of a vector: the operation on its halves, until one is left."""
    size = LANES
    while size > 1:
        low, high = tuple(range(size // 2)), tuple(range(size // 2, size))
        vector = operation(shuffle(vector, vector, low), shuffle(vector, vector, high))
        size //= 2
    return item(vector, 0)


def item(vector: Any, i: int) -> Any:
    """Entry i of a vector."""
    if not isinstance(vector, Traced):
        return vector[i]
    if vector.builder is None:
        return vector.like(0)
    place = ir.Constant(ir.IntType(32), i)
    return vector.like(0, vector.builder.extract_element(vector.value, place))


def floor(value: Any) -> Any:
    """The greatest whole number that is not above a number."""
    return value.intrinsic("floor") if isinstance(value, Traced) else np.floor(value)


def index(value: Any) -> Any:
    """A whole number >= 0 as an index."""
    if not isinstance(value, Traced):
        return int(value)
    if value.builder is None:
        return Index()
    return Index(value.builder, value.builder.fptosi(value.value, ir.IntType(64)))


def _run(array: Any, index: tuple[Any, ...], count: int) -> Any:
    if len(index) < array.ndim:
        return array[index][:count]
    return array[index[:-1]][index[-1] : index[-1] + count]


def repeat(count: Any, step: Callable[[Any, Any], Any], start: Any) -> Any:
    """A loop of the compiled code: start = step(i, start) for i = 0 ... count - 1.

    What it carries is a number, or nested tuples of numbers; step keeps their types.
    """
    if not isinstance(count, Index):
        for i in range(count):
            start = step(i, start)
        return start
    carried = _flat(start)
    builder = count.builder
    if builder is None:
        step(Index(), start)
        return start
    entry = builder.block
    head, body, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    i = builder.phi(count.value.type)
    i.add_incoming(ir.Constant(i.type, 0), entry)
    phis = [builder.phi(number.value.type) for number in carried]
    for phi, number in zip(phis, carried, strict=True):
        phi.add_incoming(number.value, entry)
    kept = [number.like(number.lanes, phi) for number, phi in zip(carried, phis, strict=True)]
    builder.cbranch(builder.icmp_signed("<", i, count.value), body, after)
    builder.position_at_end(body)
    found = _flat(step(Index(builder, i), _shaped(start, iter(kept))))
    i.add_incoming(builder.add(i, ir.Constant(i.type, 1)), builder.block)
    for phi, number in zip(phis, found, strict=True):
        phi.add_incoming(number.value, builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    return _shaped(start, iter(kept))


def _flat(numbers: Any) -> list[Any]:
    """The numbers in nested tuples, in order."""
    if isinstance(numbers, tuple):
        return [number for part in numbers for number in _flat(part)]
    return [numbers]


def _shaped(like: Any, numbers: Any) -> Any:
    """Nested tuples as in `like`, of the numbers that an iterator gives."""
    if isinstance(like, tuple):
        return tuple(_shaped(part, numbers) for part in like)
    return next(numbers)


def transposed(rows: tuple[Any, ...]) -> tuple[Any, ...]:
    """Vector j of item j of each of these vectors, of which there are as many as lanes."""
    if not isinstance(rows[0], Traced):
        return tuple(np.stack(rows).T.copy())
    number = rows[0]
    if number.builder is None:
        return rows
    values = transposed_values(number.builder, [row.value for row in rows])
    return tuple(number.like(number.lanes, value) for value in values)


def load_rows(array: Any, count: int, first: Any, *index: Any) -> Any:
    """`count` vectors: number k of lane l is array[(first + l, *index, k)]."""
    if isinstance(array, TracedArray):
        return array.rows(count, first, *index)
    return tuple(array[(slice(first, first + LANES), *index, k)].copy() for k in range(count))


def store_rows(array: Any, values: Any, first: Any, *index: Any) -> None:
    """Store vectors: array[(first + l, *index, k)] becomes lane l of values[k]."""
    if isinstance(array, TracedArray):
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
        return TracedArray(kind, context, builder, value)
    if isinstance(kind, types.Float):
        return Traced(kind, 0, builder, value)
    if isinstance(kind, types.Integer):
        if builder is not None:
            value = context.cast(builder, value, kind, types.intp)
        return Index(builder, value)
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
    return Traced(kind, 0, builder).spread(result, 0)
