"""Frames: numbered records that grow on their way through a flow.

A frame carries named arrays (fields) and small scalars (marks). Blocks add fields and change
none: adding makes a new frame that shares the read-only arrays of the old one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import numpy as np

from pipeline.errors import FieldError

if sys.byteorder != "little":  # fields are little-endian in memory and on the wire
    raise ImportError("kalvit runs on little-endian machines only")

Array = np.ndarray[Any, Any]
Scalar = bool | int | float | str

#: The dtypes that a field may have, in the order of their codes on the wire.
DTYPES: tuple[str, ...] = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float32", "float64", "complex64", "complex128",
)  # fmt: skip


class Kind(IntEnum):
    """What a frame says: `start`, `data`, `gap` and `end` share the numbering of their stream."""

    START = 0  # opens a stream and describes it (StreamInfo in the marks)
    DATA = 1
    GAP = 2  # samples that the source lost: marks `first` and `last`
    END = 3  # closes a stream: mark `frames`, the number of data frames it had
    WEIGHTS = 4  # a model; numbered on its own
    BARRIER = 5  # reserved for checkpoints


class Frame(NamedTuple):
    """One record of a stream. Treat everything in it as read-only.

    kind      what it is
    stream    key of the stream it belongs to
    seq       0, 1, 2 ... within the stream, over all kinds
    sample    index of its first element on the stream's clock
    born_ns   CLOCK_MONOTONIC when the source handed it over (latency, on one host) [ns]
    fields    name -> C-contiguous little-endian read-only array
    marks     name -> small scalar: model versions, lock state
    """

    kind: Kind
    stream: str
    seq: int
    sample: int
    born_ns: int
    fields: Mapping[str, Array]
    marks: Mapping[str, Scalar]

    @property
    def nbytes(self) -> int:
        """Bytes in the fields."""
        return sum(array.nbytes for array in self.fields.values())


class FrameInfo(NamedTuple):
    """What a block may know about the frame it is handed, apart from the fields it reads."""

    stream: str = "main"
    seq: int = 0
    sample: int = 0
    born_ns: int = 0
    marks: Mapping[str, Scalar] = MappingProxyType({})


class Gap(NamedTuple):
    """What a source returns in place of fields when it lost samples."""

    samples: int


class Silence(NamedTuple):
    """What a source returns in place of fields while nothing comes; it is asked again."""


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Description of a stream, carried by its `start` frame: time = epoch + sample / rate_hz."""

    rate_hz: float = 0.0  # samples per second of signal time; 0: unknown
    epoch_utc_ns: int = 0  # UTC of sample 0; 0: unknown
    centre_hz: float = 0.0  # radio frequency at 0 Hz of complex samples
    format: str = ""  # how the samples were stored or made
    continuous: bool = True  # consecutive frames are consecutive samples
    replayable: bool = False  # the source can be started again at any sample

    def to_marks(self) -> dict[str, Scalar]:
        """The marks of a `start` frame."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_marks(cls, marks: Mapping[str, Scalar]) -> Self:
        """Read the description back; marks it does not know are left alone."""
        names = {field.name for field in fields(cls)}
        return cls(**{k: v for k, v in marks.items() if k in names})  # type: ignore[arg-type]


def as_field(array: object, what: str = "array") -> Array:
    """`array` as a field: C-contiguous, little-endian, read-only, of an allowed dtype.

    A read-only array that already is one comes back as it is; others are copied, so that the
    caller may go on writing to them. Raises FieldError for anything that is no array of an
    allowed dtype.
    """
    if not isinstance(array, np.ndarray):
        raise FieldError(f"{what} is a {type(array).__name__}; expected a numpy array")
    if array.dtype.name not in DTYPES:
        raise FieldError(f"{what} has dtype {array.dtype}; expected one of {', '.join(DTYPES)}")
    if array.flags.writeable or not array.dtype.isnative or not array.flags.c_contiguous:
        array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
        array.flags.writeable = False
    return np.asarray(array)  # of the class ndarray itself
