"""Stand-ins for what compiled code will have: numbers, vectors, truth values, indices and arrays.

While numba compiles, Python runs on them (kernels/unrolled.py), and each operation writes the
machine operation that it is. Without a builder nothing is written, and only types are found out.
"""

from __future__ import annotations

import operator
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils as untyped_cgutils
from numba.np import arrayobj

cgutils: Any = untyped_cgutils
make_array: Any = arrayobj.make_array
types: Any = numba.types

#: Problems that one vector holds: a cache line of float64, two AVX2 or one AVX-512 register.
LANES = 8
_NARROW = {8: 32, 16: 16}  # bits of a number -> lanes, where one AVX2 register holds more

# Multiplications and additions may fuse; nothing else is relaxed, so NaN keeps its meaning.
_FLAGS = ("contract",)


def lanes_in(bits: int) -> int:
    """Numbers of so many bits that one vector holds."""
    return _NARROW.get(bits, LANES)


class Traced:
    """A number that compiled code will have.

    type     float64 or float32, or an integer type: of decisions, or of metrics in few bits
    lanes    0 for a scalar, else the length of the vector
    builder  writes machine operations; None where only the types are wanted
    """

    __slots__ = ("builder", "lanes", "type", "value")

    def __init__(self, type_: Any, lanes: int, builder: Any = None, value: Any = None) -> None:
        self.type, self.lanes, self.builder, self.value = type_, lanes, builder, value

    def ir_type(self, lanes: int) -> Any:
        """The machine type of so many of these numbers in a vector, or of one if 0."""
        if isinstance(self.type, types.Integer):
            scalar = ir.IntType(self.type.bitwidth)
        else:
            scalar = ir.DoubleType() if self.type.bitwidth == 64 else ir.FloatType()
        return ir.VectorType(scalar, lanes) if lanes else scalar

    def spread(self, other: Any, lanes: int) -> Any:
        """The machine value of a number, of this type, spread over the lanes of a vector."""
        if not isinstance(other, Traced):
            value = other if isinstance(self.type, types.Integer) else float(other)
            return ir.Constant(self.ir_type(lanes), [value] * lanes if lanes else value)
        value = other.value
        whole = isinstance(self.type, types.Integer)
        if whole != isinstance(other.type, types.Integer):
            raise TypeError(f"{other.type} where {self.type} is due; nothing converts them")
        if other.type.bitwidth != self.type.bitwidth:
            wider = self.type.bitwidth > other.type.bitwidth
            longer = "sext" if whole and other.type.signed else "zext"
            name = (longer if wider else "trunc") if whole else ("fpext" if wider else "fptrunc")
            value = getattr(self.builder, name)(value, self.ir_type(other.lanes))
        if other.lanes == lanes:
            return value
        vector = ir.Constant(self.ir_type(lanes), ir.Undefined)
        zero = ir.Constant(ir.IntType(32), 0)
        vector = self.builder.insert_element(vector, value, zero)
        first = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
        return self.builder.shuffle_vector(vector, vector, first)

    def like(self, lanes: int, value: Any = None) -> Traced:
        """Another number of this type."""
        return Traced(self.type, lanes, self.builder, value)

    def _binary(self, name: str, left: Any, right: Any) -> Traced:
        numbers = [v for v in (left, right) if isinstance(v, Traced)]
        lanes = max(v.lanes for v in numbers)
        wider = max(numbers, key=lambda v: v.type.bitwidth)
        if self.builder is None:
            return wider.like(lanes)
        values = wider.spread(left, lanes), wider.spread(right, lanes)
        if isinstance(wider.type, types.Integer):
            return wider.like(lanes, getattr(self.builder, name.removeprefix("f"))(*values))
        return wider.like(lanes, getattr(self.builder, name)(*values, flags=_FLAGS))

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
            return self.like(self.lanes)
        whole = isinstance(self.type, types.Integer)
        return self.like(self.lanes, (self.builder.neg if whole else self.builder.fneg)(self.value))

    def __gt__(self, other: Any) -> Any:
        return self.compare(">", other)

    def __lt__(self, other: Any) -> Any:
        return self.compare("<", other)

    def __le__(self, other: Any) -> Any:
        return self.compare("<=", other)

    def _bitwise(self, name: str, other: Any) -> Any:
        if not isinstance(self.type, types.Integer):
            raise TypeError(f"{self.type} has no bits to work on")
        if self.builder is None:
            return self.like(self.lanes)
        return self.like(
            self.lanes, getattr(self.builder, name)(self.value, self.spread(other, self.lanes))
        )

    def __or__(self, other: Any) -> Any:
        return self._bitwise("or_", other)

    def __and__(self, other: Any) -> Any:
        return self._bitwise("and_", other)

    def __lshift__(self, other: Any) -> Any:
        return self._bitwise("shl", other)

    def __rshift__(self, other: Any) -> Any:
        """Bits move down, zeros follow."""
        return self._bitwise("lshr", other)

    def intrinsic(self, name: str, *others: Any) -> Traced:
        """What the LLVM intrinsic of this name makes of this number and others."""
        numbers = (self, *others)
        lanes = max(v.lanes for v in numbers if isinstance(v, Traced))
        if self.builder is None:
            return self.like(lanes)
        kind = self.ir_type(lanes)
        suffix = f"v{lanes}" if lanes else ""
        function = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(kind, [kind] * len(numbers)),
            f"llvm.{name}.{suffix}f{self.type.bitwidth}",
        )
        values = [self.spread(v, lanes) for v in numbers]
        return self.like(lanes, self.builder.call(function, values))

    def compare(self, which: str, other: Any) -> Any:
        """A truth value for `where`: false where a side is NaN, but for "uno"."""
        lanes = max(self.lanes, other.lanes if isinstance(other, Traced) else 0)
        found = Truth(self.like(lanes), None)
        if self.builder is not None:
            left, right = self.spread(self, lanes), self.spread(other, lanes)
            if isinstance(self.type, types.Integer):
                sign = "signed" if self.type.signed else "unsigned"
                found.value = getattr(self.builder, f"icmp_{sign}")(which, left, right)
            elif which == "uno":
                found.value = self.builder.fcmp_unordered("uno", left, right)
            else:
                found.value = self.builder.fcmp_ordered(which, left, right)
        return found


def _is(value: Any, constant: float) -> bool:
    return not isinstance(value, Traced) and operator.eq(value, constant)


class Truth:
    """The result of a comparison that compiled code will make, of numbers like `number`."""

    __slots__ = ("number", "value")

    def __init__(self, number: Traced, value: Any) -> None:
        self.number, self.value = number, value


class TracedArray:
    """An array that compiled code will have."""

    def __init__(self, type_: Any, context: Any = None, builder: Any = None, value: Any = None):
        self.type, self.context, self.builder, self.value = type_, context, builder, value

    def pointer(self, index: Any) -> Any:
        """Where an item stands."""
        index = index if isinstance(index, tuple) else (index,)
        if any(isinstance(i, int) and i < 0 for i in index):
            raise IndexError(f"{index} counts from the end, which unrolled code does not")
        places = [_whole(i) for i in index]
        array = make_array(self.type)(self.context, self.builder, self.value)
        return cgutils.get_item_pointer(
            self.context, self.builder, self.type, array, places, wraparound=False,
            boundscheck=self.context.enable_boundscheck,
        )  # fmt: skip

    def __getitem__(self, index: Any) -> Traced:
        if self.builder is None:
            return Traced(self.type.dtype, 0)
        value = self.builder.load(self.pointer(index))
        return Traced(self.type.dtype, 0, self.builder, value)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._check(is_written=True)
        if self.builder is not None:
            number = Traced(self.type.dtype, 0, self.builder)
            self.builder.store(number.spread(value, 0), self.pointer(index))

    def _check(self, *, is_written: bool = False, is_vector: bool = False) -> None:
        if is_written and not self.type.mutable:
            raise TypeError(f"{self.type} is read-only")
        if is_vector and self.type.layout != "C":
            raise TypeError(f"{self.type}: vectors are of numbers that lie side by side")

    def _lanes_pointer(self, index: tuple[Any, ...], number: Traced) -> tuple[Any, int]:
        index = index if len(index) == self.type.ndim else (*index, 0)
        if self.context.enable_boundscheck:  # of the last lane too
            last = Index(self.builder, _whole(index[-1])) + (number.lanes - 1)
            self.pointer((*index[:-1], last))
        pointer = self.builder.bitcast(
            self.pointer(index), number.ir_type(number.lanes).as_pointer()
        )
        return pointer, self.type.dtype.bitwidth // 8

    def lanes(self, index: tuple[Any, ...], count: int = 0) -> Traced:
        """A vector of numbers from this place on, as many as one holds or `count`."""
        self._check(is_vector=True)
        number = Traced(self.type.dtype, count or lanes_in(self.type.dtype.bitwidth), self.builder)
        if self.builder is None:
            return number
        pointer, align = self._lanes_pointer(index, number)
        return number.like(number.lanes, self.builder.load(pointer, align=align))

    def put_lanes(self, value: Any, index: tuple[Any, ...]) -> None:
        """Store the numbers of a vector, or one number in all lanes of one, from this place on."""
        self._check(is_written=True, is_vector=True)
        if self.builder is not None:
            lanes = value.lanes if isinstance(value, Traced) else 0
            number = Traced(
                self.type.dtype, lanes or lanes_in(self.type.dtype.bitwidth), self.builder
            )
            pointer, align = self._lanes_pointer(index, number)
            self.builder.store(number.spread(value, number.lanes), pointer, align=align)

    def _row_pointer(self, lane: int, first: Any, index: tuple[Any, ...]) -> Any:
        row = ir.Constant(first.value.type, lane)
        return self.pointer((self.builder.add(first.value, row), *index))

    def rows(self, count: int, first: Any, *index: Any) -> tuple[Traced, ...]:
        number = Traced(self.type.dtype, LANES, self.builder)
        if self.builder is None:
            return (number,) * count
        vectors = []
        for k in range(count):
            vector = ir.Constant(number.ir_type(LANES), ir.Undefined)
            for lane in range(LANES):
                item = self.builder.load(self._row_pointer(lane, first, (*index, k)))
                vector = self.builder.insert_element(vector, item, ir.IntType(32)(lane))
            vectors.append(number.like(LANES, vector))
        return tuple(vectors)

    def put_rows(self, values: tuple[Any, ...], first: Any, *index: Any) -> None:
        self._check(is_written=True, is_vector=True)
        if self.builder is None:
            return
        number = Traced(self.type.dtype, LANES, self.builder)
        align = self.type.dtype.bitwidth // 8
        for k in range(0, len(values), LANES):  # a square of LANES x LANES at a time
            part = [number.spread(value, LANES) for value in values[k : k + LANES]]
            missing = [ir.Constant(number.ir_type(LANES), ir.Undefined)] * (LANES - len(part))
            kind = number.ir_type(len(part)).as_pointer()
            for lane, row in enumerate(transposed_values(self.builder, part + missing)):
                if missing:
                    row = shuffled(self.builder, row, row, range(len(part)))
                if self.context.enable_boundscheck:
                    self._row_pointer(lane, first, (*index, k + len(part) - 1))
                pointer = self._row_pointer(lane, first, (*index, k))
                self.builder.store(row, self.builder.bitcast(pointer, kind), align=align)


def shuffled(builder: Any, a: Any, b: Any, places: Any) -> Any:
    """The items of two vectors, one after the other, that stand in these places."""
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(places)), list(places))
    return builder.shuffle_vector(a, b, mask)


def transposed_values(builder: Any, vectors: list[Any]) -> list[Any]:
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
                vectors[i] = shuffled(builder, a, b, lows)
                vectors[i + half] = shuffled(builder, a, b, highs)
        half //= 2
    return vectors


class Index:
    """An integer that compiled code will have, for use as an index; products and sums are, too."""

    __slots__ = ("builder", "value")

    def __init__(self, builder: Any = None, value: Any = None) -> None:
        self.builder, self.value = builder, value

    def _with(self, name: str, other: Any) -> Index:
        if self.builder is None:
            return self
        value = getattr(self.builder, name)(self.value, _whole(other), flags=("nsw",))
        return Index(self.builder, value)

    def __add__(self, other: Any) -> Index:
        return self._with("add", other)

    def __mul__(self, other: Any) -> Index:
        return self._with("mul", other)

    __radd__ = __add__
    __rmul__ = __mul__


def _whole(number: Any) -> Any:
    """The machine value of an index."""
    if isinstance(number, int):
        return ir.Constant(ir.IntType(64), number)
    return number.value if isinstance(number, Index) else number
