"""PMT: the bytes in which GNU Radio writes values of any type.

The code of `gnuradio/pmt/pmt_serial_tags.h`, then big-endian numbers; what it means in Python:

    nil, bool           None, bool
    integer, uint64     int, numpy.uint64
    real, complex       float, complex
    symbol              str
    pair                Pair
    vector, tuple       list, tuple
    dict                dict; an empty one is nil
    uniform vector      numpy array of one dimension

GNU Radio itself is not needed.

>>> loads(dumps(("rx_time", Pair(1, [2.5]))))
(('rx_time', Pair(car=1, cdr=[2.5])), 35)
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.frame import Array

DEEPEST = 32  # values within values; no tag needs more

_TRUE, _FALSE, _SYMBOL, _INT32, _DOUBLE, _COMPLEX, _NIL, _PAIR = range(8)
_VECTOR, _DICT, _UNIFORM, _UINT64, _TUPLE, _INT64 = range(8, 14)

#: Codes that are followed by one number.
_NUMBERS = {
    _INT32: struct.Struct(">i"),
    _INT64: struct.Struct(">q"),
    _UINT64: struct.Struct(">Q"),
    _DOUBLE: struct.Struct(">d"),
    _COMPLEX: struct.Struct(">dd"),
}
_COUNT = struct.Struct(">I")
_LENGTH = struct.Struct(">H")
_UNIFORM_HEAD = struct.Struct(">BIB")  # type of the elements, how many, bytes before them

_ANY_BYTES = "surrogateescape"  # symbols are bytes; those that are no UTF-8 come through

#: Elements of uniform vectors, in the order of their codes.
_ELEMENTS = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "c8", "c16")


class PmtError(ValueError):
    """Bytes are no PMT, or a value cannot be one."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two values; a list is a chain of them, whose last cdr is None."""

    car: Any
    cdr: Any


def loads(data: bytes | memoryview, at: int = 0) -> tuple[Any, int]:
    """The value that begins at byte `at`, and where the next one begins.

    Any bytes give a value or a PmtError, in time and memory in proportion to their number. Of the
    entries of a dict that have the same key the first counts, as in GNU Radio.
    """
    try:
        return _load(memoryview(data), at, DEEPEST)
    except (struct.error, IndexError):
        raise PmtError(f"the value at byte {at} goes on past the end, byte {len(data)}") from None


def dumps(value: object) -> bytes:
    """The bytes of a value; PmtError where PMT has none for it.

    Whole numbers take 32 bits where they fit, else 64, with a sign where they fit.
    """
    parts: list[bytes] = []
    _dump(value, parts, DEEPEST)
    return b"".join(parts)


def _load(data: memoryview, at: int, depth: int) -> tuple[Any, int]:
    if depth == 0:
        raise PmtError(f"more than {DEEPEST} values within each other, at byte {at}")
    code, begin = data[at], at
    at += 1
    if code in _NUMBERS:
        numbers = _NUMBERS[code].unpack_from(data, at)
        at += _NUMBERS[code].size
        if code == _COMPLEX:
            return complex(*numbers), at
        return np.uint64(numbers[0]) if code == _UINT64 else numbers[0], at
    if code == _SYMBOL:
        end = at + 2 + _LENGTH.unpack_from(data, at)[0]
        return str(_cut(data, at + 2, end), "utf-8", _ANY_BYTES), end
    if code in (_PAIR, _DICT):
        return _load_chain(data, begin, depth)
    if code in (_VECTOR, _TUPLE):
        (count,) = _COUNT.unpack_from(data, at)
        at += _COUNT.size
        values = []
        for _ in range(count):  # each takes a byte at least, or the bytes end
            value, at = _load(data, at, depth - 1)
            values.append(value)
        return (tuple(values) if code == _TUPLE else values), at
    if code == _UNIFORM:
        kind, count, gap = _UNIFORM_HEAD.unpack_from(data, at)
        if kind >= len(_ELEMENTS):
            raise PmtError(f"the uniform vector at byte {begin} has elements of type {kind}")
        at += _UNIFORM_HEAD.size + gap
        dtype = np.dtype(">" + _ELEMENTS[kind])
        end = at + count * dtype.itemsize
        array = np.frombuffer(_cut(data, at, end), dtype)
        return array.astype(dtype.newbyteorder("=")), end
    if code not in (_TRUE, _FALSE, _NIL):
        raise PmtError(f"byte {begin} is {code:#04x}; no PMT begins so")
    return (None if code == _NIL else code == _TRUE), at


def _load_chain(data: memoryview, at: int, depth: int) -> tuple[Any, int]:
    """A chain of pairs or the entries of a dict, which may be long, without going deeper."""
    code, begin = data[at], at
    cars = []
    while data[at] == code:
        car, at = _load(data, at + 1, depth - 1)
        cars.append(car)
    last, at = _load(data, at, depth - 1)
    if code == _PAIR:
        for car in reversed(cars):
            last = Pair(car, last)
        return last, at
    if last is not None or not all(isinstance(car, Pair) for car in cars):
        raise PmtError(f"the dict at byte {begin} is no list of pairs")
    try:
        return {car.car: car.cdr for car in reversed(cars)}, at
    except TypeError:
        raise PmtError(f"a key of the dict at byte {begin} is no plain value") from None


def _cut(data: memoryview, begin: int, end: int) -> memoryview:
    if end > len(data):
        raise IndexError
    return data[begin:end]


def _dump(value: object, parts: list[bytes], depth: int) -> None:
    if depth == 0:
        raise PmtError(f"more than {DEEPEST} values within each other")
    match value:
        case None:
            parts.append(bytes([_NIL]))
        case bool():
            parts.append(bytes([_TRUE if value else _FALSE]))
        case int():
            parts.append(_integer(value, (_INT32, _INT64, _UINT64)))
        case np.integer() if isinstance(value, np.uint64):
            parts.append(_integer(int(value), (_UINT64,)))
        case float():
            parts.append(bytes([_DOUBLE]) + _NUMBERS[_DOUBLE].pack(value))
        case complex():
            parts.append(bytes([_COMPLEX]) + _NUMBERS[_COMPLEX].pack(value.real, value.imag))
        case str():
            parts.append(_symbol(value))
        case Pair():
            while isinstance(value, Pair):
                parts.append(bytes([_PAIR]))
                _dump(value.car, parts, depth - 1)
                value = value.cdr
            _dump(value, parts, depth - 1)
        case dict():
            for entry in reversed(value.items()):  # the last one comes first, as in GNU Radio
                parts.append(bytes([_DICT]))
                _dump(Pair(*entry), parts, depth - 1)
            parts.append(bytes([_NIL]))
        case list() | tuple():
            code = _VECTOR if isinstance(value, list) else _TUPLE
            parts.append(bytes([code]) + _COUNT.pack(len(value)))
            for item in value:
                _dump(item, parts, depth - 1)
        case np.ndarray():
            parts.append(_uniform(value))
        case _:
            raise PmtError(f"PMT has nothing for a {type(value).__name__}")


def _integer(value: int, codes: tuple[int, ...]) -> bytes:
    """`value` with the first code that has room for it."""
    for code in codes:
        with suppress(struct.error):
            return bytes([code]) + _NUMBERS[code].pack(value)
    raise PmtError(f"{value} does not fit into 64 bits")


def _symbol(value: str) -> bytes:
    try:
        text = value.encode("utf-8", _ANY_BYTES)
        return bytes([_SYMBOL]) + _LENGTH.pack(len(text)) + text
    except (struct.error, UnicodeEncodeError):
        raise PmtError(f"no symbol: {value[:40]!r}, of {len(value)} characters") from None


def _uniform(value: Array) -> bytes:
    name = value.dtype.str[1:]
    if value.ndim != 1 or name not in _ELEMENTS:
        raise PmtError(f"PMT has no uniform vector of {value.dtype} with shape {value.shape}")
    head = bytes([_UNIFORM]) + _UNIFORM_HEAD.pack(_ELEMENTS.index(name), len(value), 1) + b"\0"
    return head + value.astype(">" + name).tobytes()
