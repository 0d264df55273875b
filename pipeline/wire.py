"""The wire: frames to bytes and back; any bytes give frames or a FrameError.

A message is one part holding one or more frames, each

    header (48 bytes) | description | padding | buffer | padding | buffer | padding ...

where everything starts at a multiple of 16, relative to the part. A frame with more than
PART_LIMIT bytes in its fields is a message of its own: header, description and padding are its
first part, and each field's buffer is a part that follows, not padded and not copied.

The header is little-endian and packed: magic "KLVT", protocol version u16, kind u8, flags u8
(bit 0: buffers are parts of their own), seq u64, sample i64, born_ns i64, length of the
description u32, length of the buffers with their padding u64, CRC-32 u32. The CRC runs over the
description and then over the header before the CRC, so that its first half can be remembered
together with what the description says. Buffers are not covered: edges are local or TCP.

The description is the msgpack array [stream, marks, [[field, dtype, length, length ...] ...]],
where dtype counts in `frame.DTYPES`; it takes at most 4 KiB. Frames of one stream mostly share
it byte by byte, so both ends remember what it means.

>>> codec = Codec()
>>> samples = np.arange(3, dtype=np.float32)
>>> part = b"".join(codec.encode(Frame(Kind.DATA, "main", 7, 21, 0, {"samples": samples}, {})))
>>> len(part)
96
>>> codec.decode(part)[0].fields["samples"]
array([0., 1., 2.], dtype=float32)
>>> codec.decode(part[:-1])
Traceback (most recent call last):
    ...
pipeline.errors.FrameError: frame at byte 0 takes 96 bytes, but 95 are left of its message
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from math import prod
from struct import Struct
from struct import error as StructError  # noqa: N812 (it is a class)
from types import MappingProxyType
from typing import Any, Never
from zlib import crc32

import msgpack
import numpy as np

from pipeline.errors import FieldError, FrameError
from pipeline.frame import DTYPES, Array, Frame, Kind, Scalar
from pipeline.limits import FRAME_CAP

__all__ = [
    "CHECKS", "DESCRIPTION_LIMIT", "DIMS_LIMIT", "FIELDS_LIMIT", "FRAMES_LIMIT",
    "PART_LIMIT", "PROTOCOL", "Codec",
]  # fmt: skip

PROTOCOL = 1
PART_LIMIT = 64 << 10  # bytes in the fields of a frame that is one part
DESCRIPTION_LIMIT = 4 << 10  # bytes
FIELDS_LIMIT = 64  # per frame
DIMS_LIMIT = 4  # per field
FRAMES_LIMIT = 4096  # per message; 64 KiB hold 1024 of the smallest
CACHE_LIMIT = 1024  # descriptions remembered per direction

#: What a FrameError may name as the check that failed, in the order in which they are made.
CHECKS = (
    "short",  # no room for a header, or no bytes at all
    "magic",  # not a frame of this project
    "version",  # another protocol version
    "kind",  # no such Kind
    "flags",  # bits that mean nothing
    "length",  # description too long, or the part ends within the frame, or too many frames
    "cap",  # more bytes in the buffers than a frame may have
    "crc",  # header or description damaged
    "description",  # not msgpack, or not [stream, marks, fields]
    "stream", "marks", "fields", "dtype", "shape",  # what it says is out of bounds
    "buffer",  # shapes do not add up to the buffers, or a bool is neither 0 nor 1
    "parts",  # buffers that should be parts of their own are missing, too many, or of other length
)  # fmt: skip

_PREFIX = b"KLVT" + PROTOCOL.to_bytes(2, "little")
_HEAD = Struct("<6sBBQqqIQ")  # what the CRC covers
_HEADER = Struct("<6sBBQqqIQI")
_CRC = Struct("<I")
_KINDS = tuple(Kind)
_LAST_KIND = len(_KINDS) - 1
_LARGE = 1  # flag
_DTYPES = tuple(np.dtype(name) for name in DTYPES)
_CODES = {dtype: code for code, dtype in enumerate(_DTYPES)}
_FIELD_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}").fullmatch
_MARK_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}").fullmatch  # "<block>.version" and the like
_STREAM_LIMIT = 64  # bytes of UTF-8
_INT64 = range(-(1 << 63), 1 << 63)
_PADDING = tuple(bytes(count) for count in range(16))
_BOOL = _DTYPES[0]
_NOTHING = bytes(16)  # what empty arrays are views of
_frombuffer = np.frombuffer
_new_tuple = tuple.__new__  # half the time of Frame(...)


class _Layout:
    """What a description means: made once, used for every frame that has it."""

    __slots__ = ("crc", "fields", "inline_bytes", "marks", "part_bytes", "plain", "stream")

    def __init__(
        self,
        text: bytes,
        stream: str,
        marks: Mapping[str, Scalar],
        fields: Sequence[tuple[str, np.dtype[Any], tuple[int, ...]]],
    ) -> None:
        self.crc = crc32(text)
        self.stream = stream
        self.marks = marks
        #: Per field: name, dtype, count, where its buffer starts, shape if not just (count,).
        self.fields: list[tuple[str, np.dtype[Any], int, int, tuple[int, ...] | None]] = []
        self.part_bytes = 0  # of the buffers as parts of their own
        at = 0
        for name, dtype, shape in fields:
            count = prod(shape)
            size = count * dtype.itemsize
            self.fields.append((name, dtype, count, at, None if len(shape) == 1 else shape))
            self.part_bytes += size
            at += _padded(size)
        self.inline_bytes = at  # of the buffers with their padding
        #: The only field, if it is one and nothing about it needs a closer look.
        self.plain: tuple[str, np.dtype[Any], int] | None = None
        if len(self.fields) == 1:
            name, dtype, count, _, other_shape = self.fields[0]
            if count and other_shape is None and dtype is not _BOOL:
                self.plain = name, dtype, count


class Codec:
    """Turns frames into messages and back; one per edge and thread, as it remembers descriptions.

    Marks are packed once for as long as frames carry the same mapping, so do not change one
    that has been sent: make a new one.

    cap     bytes that the buffers of one frame may take, padding included
    """

    def __init__(self, cap: int = FRAME_CAP) -> None:
        if cap < 1:
            raise ValueError(f"cap = {cap} bytes, but a frame needs at least 1")
        self.cap = cap
        self._layouts: dict[bytes, _Layout] = {}
        self._plans: dict[tuple[Any, ...], tuple[bytes, int, int, int, int, bool]] = {}
        self._pack = msgpack.Packer().pack
        self._marks: Mapping[str, Scalar] = {}
        self._packed_marks = b""
        #: Stream, marks, name, dtype and shape of the last frame with one field, and its plan.
        self._last: tuple[Any, ...] = ("", None, "", None, (), None)

    def is_large(self, frame: Frame) -> bool:
        """Whether the frame is a message of its own whose fields are parts of their own."""
        size = 0
        for array in frame.fields.values():
            size += array.nbytes
        return size > PART_LIMIT

    def encode(self, frame: Frame) -> list[bytes | Array]:
        """The pieces of a frame.

        Joined, they are one part, or stand in one behind other frames. Those of a large frame
        are parts as they are: header and description, then the arrays themselves.

        Raises FieldError where names, marks or sizes exceed what a frame may have.
        """
        return self.pack(frame)[0]

    def pack(self, frame: Frame) -> tuple[list[bytes | Array], int, bool]:
        """The pieces of a frame, their length in bytes together, and whether it is large."""
        kind, stream, seq, sample, born_ns, fields, marks = frame
        # the common case: one field, like the last frame; comparing costs less than hashing
        last_stream, last_marks, name, dtype, shape, plan = self._last
        array = fields.get(name)
        if (
            array is None
            or marks is not last_marks
            or array.shape != shape
            or array.dtype is not dtype
            or stream != last_stream
            or len(fields) != 1
        ):
            plan = self._look_up(frame)
        text, length, crc, flags, size, even = plan
        try:
            head = _HEAD.pack(_PREFIX, kind, flags, seq, sample, born_ns, length, size)
        except StructError:
            raise FieldError(
                f"frame of stream {stream!r} has seq {seq}, sample {sample}, "
                f"born_ns {born_ns}; expected 64-bit integers, seq not negative"
            ) from None
        check = _CRC.pack(crc32(head, crc))
        total = 48 + len(text) + size
        if flags:
            return [head + check + text, *fields.values()], total, True
        if even:
            return [head, check, text, *fields.values()], total, False
        pieces: list[bytes | Array] = [head, check, text]
        for array in fields.values():
            pieces.append(array)
            pieces.append(_PADDING[-array.nbytes % 16])
        return pieces, total, False

    def _look_up(self, frame: Frame) -> tuple[bytes, int, int, int, int, bool]:
        """The plan of a frame, made now or remembered."""
        marks = frame.marks
        if not marks:
            packed_marks: bytes | None = None
        elif marks is self._marks:
            packed_marks = self._packed_marks
        else:  # by their bytes: True, 1 and 1.0 are equal keys
            packed_marks = self._packed_marks = self._pack_marks(marks)
        fields = frame.fields
        key: list[Any] = [frame.stream, packed_marks]
        for name, array in fields.items():
            key += name, array.dtype, array.shape
        plan = self._plans.get(tuple(key))
        if plan is None:
            plan = self._plan(frame)
            if len(self._plans) >= CACHE_LIMIT:
                self._plans.clear()
            self._plans[tuple(key)] = plan
        self._marks = marks
        if len(fields) == 1:
            self._last = (frame.stream, marks, *key[2:], plan)
        return plan

    def decode(self, part: bytes, parts: Sequence[Any] = ()) -> list[Frame]:
        """The frames of a message.

        The arrays are read-only views of the message; of a part that lies across the alignment
        of its dtype, a copy.

        part    first part
        parts   buffers of the fields of a large frame: bytes, memoryviews or the like

        Raises FrameError, whose `check` is one of CHECKS, for everything that is no message.
        """
        if part.__class__ is not bytes:  # bytes start at a multiple of 16, and so do buffers
            part = bytes(part)
        layouts = self._layouts
        cap = self.cap
        frames: list[Frame] = []
        at = 0
        end = len(part)
        while True:
            if end - at < 48:
                _refuse_header(part, at, cap)
            prefix, kind, flags, seq, sample, born_ns, length, size, crc = _HEADER.unpack_from(
                part, at
            )
            if (
                prefix != _PREFIX
                or kind > _LAST_KIND
                or flags > _LARGE
                or length > DESCRIPTION_LIMIT
                or size > cap
            ):
                _refuse_header(part, at, cap)
            start = at + 48
            text = part[start : start + length]
            start += (length + 15) & ~15
            after = start if flags else start + size
            if after > end:
                raise FrameError(
                    "length",
                    f"frame at byte {at} takes {after - at} bytes, but {end - at} are left of "
                    "its message",
                )
            layout = layouts.get(text)
            if layout is None:
                if crc32(part[at : at + 44], crc32(text)) != crc:
                    _refuse_crc(at)
                layout = _read_description(text, cap)
                if len(layouts) >= CACHE_LIMIT:
                    layouts.clear()
                layouts[text] = layout
            elif crc32(part[at : at + 44], layout.crc) != crc:
                _refuse_crc(at)
            if flags:
                if at or after != end:
                    raise FrameError("parts", "a large frame shares its message with others")
                fields = _fields_of_parts(layout, size, parts)
                parts = ()
            elif size != layout.inline_bytes:
                raise FrameError(
                    "buffer",
                    f"frame at byte {at} has {size} bytes of buffers, but its fields take "
                    f"{layout.inline_bytes}",
                )
            elif layout.plain is not None:
                name, dtype, count = layout.plain
                fields = {name: _frombuffer(part, dtype, count, start)}
            else:
                fields = {}
                for name, dtype, count, offset, shape in layout.fields:
                    array = (
                        _frombuffer(part, dtype, count, start + offset)
                        if count
                        else _frombuffer(_NOTHING, dtype, 0)
                    )
                    if shape is not None:
                        array = array.reshape(shape)
                    if dtype is _BOOL:
                        _check_bools(name, array)
                    fields[name] = array
            frames.append(
                _new_tuple(
                    Frame,
                    (_KINDS[kind], layout.stream, seq, sample, born_ns, fields, layout.marks),
                )
            )
            if after == end:
                break
            at = after
            if len(frames) == FRAMES_LIMIT:
                raise FrameError("length", f"a message with more than {FRAMES_LIMIT} frames")
        if parts:
            raise FrameError(
                "parts", f"{len(parts)} parts follow frames that carry their buffers in themselves"
            )
        return frames

    def _pack_marks(self, marks: Mapping[str, Scalar]) -> bytes:
        try:
            return bytes(self._pack(dict(marks)))
        except (ValueError, TypeError, OverflowError) as error:
            for name, value in marks.items():
                if not _is_scalar(value):
                    raise FieldError(
                        f"mark {name!r} is {value!r:.40}, a {type(value).__name__}; expected a "
                        "bool, a 64-bit int, a float or a text"
                    ) from None
            raise FieldError(f"marks {sorted(marks)} cannot be sent: {error}") from None

    def _plan(self, frame: Frame) -> tuple[bytes, int, int, int, int, bool]:
        """What frames like this one have in common on the wire.

        Description with padding, its length and CRC, flags, bytes of buffers, whether the
        buffers need no padding.
        """
        where = f"frame of stream {frame.stream!r}"
        large = self.is_large(frame)
        size = sum(
            array.nbytes if large else _padded(array.nbytes) for array in frame.fields.values()
        )
        if size > self.cap:
            raise FieldError(
                f"{where} has {size} bytes in its fields, but may have {self.cap}; send shorter "
                "frames, or raise the cap"
            )
        described = []
        for name, array in frame.fields.items():
            if (code := _CODES.get(array.dtype)) is None:
                raise FieldError(
                    f"{where}: field {name!r} is {array.dtype}; expected one of {', '.join(DTYPES)}"
                )
            described.append([name, code, *array.shape])
        try:
            text = msgpack.packb([frame.stream, dict(frame.marks), described])
        except (ValueError, TypeError, OverflowError) as error:
            raise FieldError(f"{where}: its names cannot be sent: {error}") from None
        if len(text) > DESCRIPTION_LIMIT:
            raise FieldError(f"{where}: {_too_long(len(text), frame, described)}")
        try:  # one set of limits for both ends: what we send, the other side takes
            layout = _read_description(text, self.cap)
        except FrameError as error:
            raise FieldError(f"{where}: {error}") from None
        even = large or all(array.nbytes % 16 == 0 for array in frame.fields.values())
        padded = text + _PADDING[-len(text) % 16]
        return padded, len(text), layout.crc, _LARGE if large else 0, size, even


def _padded(size: int) -> int:
    return (size + 15) & ~15


def _is_scalar(value: object) -> bool:
    """Whether a mark may have this value."""
    kind = value.__class__
    return kind is str or kind is float or kind is bool or (kind is int and value in _INT64)


def _too_long(length: int, frame: Frame, described: Sequence[Any]) -> str:
    """Says which part of the description takes most room."""
    fields = len(msgpack.packb(described))
    text = f"its description takes {length} bytes, but may take {DESCRIPTION_LIMIT}"
    sizes = {name: len(msgpack.packb(value)) for name, value in frame.marks.items()}
    longest = max(sizes, key=lambda name: sizes[name], default="")
    if sizes.get(longest, 0) > fields:
        return f"{text}; shorten mark {longest!r}, which takes {sizes[longest]}"
    return f"{text}; its {len(described)} fields take {fields}, so use fewer or shorter names"


def _refuse_header(part: bytes, at: int, cap: int) -> Never:
    """Raise for the first thing that is wrong with the header at `at`; something is."""
    where = f"frame at byte {at}"
    left = len(part) - at
    if left < 6:
        raise FrameError("short", f"{where}: {left} bytes are no header, which takes 48")
    if part[at : at + 4] != _PREFIX[:4]:
        raise FrameError(
            "magic", f"{where}: starts with {part[at : at + 4]!r}, not {_PREFIX[:4]!r}"
        )
    version = int.from_bytes(part[at + 4 : at + 6], "little")
    if version != PROTOCOL:
        raise FrameError(
            "version",
            f"{where}: protocol version {version}, but this side speaks {PROTOCOL}; update the "
            f"side with version {min(version, PROTOCOL)}",
        )
    if left < 48:
        raise FrameError("short", f"{where}: {left} bytes are no header, which takes 48")
    _, kind, flags, _, _, _, length, size, _ = _HEADER.unpack_from(part, at)
    if kind > _LAST_KIND:
        raise FrameError("kind", f"{where}: kind {kind}; expected 0 to {_LAST_KIND}")
    if flags > _LARGE:
        raise FrameError("flags", f"{where}: flags {flags:#x}; expected 0 or {_LARGE}")
    if length > DESCRIPTION_LIMIT:
        raise FrameError(
            "length",
            f"{where}: description of {length} bytes; expected at most {DESCRIPTION_LIMIT}",
        )
    raise FrameError(
        "cap",
        f"{where}: {size} bytes in its buffers, but it may have {cap}; send shorter frames, or "
        "raise the cap",
    )


def _refuse_crc(at: int) -> Never:
    raise FrameError("crc", f"frame at byte {at}: its header or description is damaged")


def _read_description(text: bytes, cap: int) -> _Layout:
    """What a description says, every part of it checked."""
    try:
        described = msgpack.unpackb(text)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise FrameError("description", f"its description is not msgpack: {error}") from None
    if described.__class__ is not list or len(described) != 3:
        raise FrameError("description", "its description is not [stream, marks, fields]")
    stream, marks, entries = described
    if (
        stream.__class__ is not str
        or not stream.isprintable()
        or not 1 <= len(stream.encode()) <= _STREAM_LIMIT
    ):
        raise FrameError(
            "stream",
            f"its stream is {stream!r:.80}; expected 1 to {_STREAM_LIMIT} bytes of printable text",
        )
    if marks.__class__ is not dict:
        raise FrameError("marks", f"its marks are a {type(marks).__name__}; expected a map")
    for name, value in marks.items():
        if name.__class__ is not str or not _MARK_NAME(name):
            raise FrameError(
                "marks", f"a mark is called {name!r:.80}; expected 1 to 128 of A-Z a-z 0-9 _ . -"
            )
        if not _is_scalar(value):
            raise FrameError(
                "marks",
                f"mark {name!r} is {value!r:.40}; expected a bool, a 64-bit int, a float or a text",
            )
    return _Layout(text, stream, MappingProxyType(marks), _read_fields(entries, cap))


def _read_fields(entries: object, cap: int) -> list[tuple[str, np.dtype[Any], tuple[int, ...]]]:
    """Name, dtype and shape of each field of a description, checked."""
    if not isinstance(entries, list) or len(entries) > FIELDS_LIMIT:
        raise FrameError("fields", f"its fields are no array of at most {FIELDS_LIMIT} entries")
    fields: list[tuple[str, np.dtype[Any], tuple[int, ...]]] = []
    names: set[str] = set()
    for entry in entries:
        if not isinstance(entry, list) or len(entry) < 2:
            raise FrameError("fields", f"a field is {entry!r:.80}; expected [name, dtype, ...]")
        name, code, *shape = entry
        if name.__class__ is not str or not _FIELD_NAME(name) or name in names:
            raise FrameError(
                "fields",
                f"a field is called {name!r:.80}; expected 1 to 64 of A-Z a-z 0-9 _ . -, each "
                "name once",
            )
        names.add(name)
        if code.__class__ is not int or not 0 <= code < len(_DTYPES):
            raise FrameError("dtype", f"field {name!r} has dtype code {code!r:.40}")
        dtype = _DTYPES[code]
        if len(shape) > DIMS_LIMIT or any(n.__class__ is not int or n < 0 for n in shape):
            raise FrameError(
                "shape",
                f"field {name!r} has shape {shape!r:.80}; expected at most {DIMS_LIMIT} lengths",
            )
        # an empty array too must have lengths that numpy can multiply
        if prod(n for n in shape if n) * dtype.itemsize > cap:
            raise FrameError(
                "shape",
                f"field {name!r} with shape {shape!r:.80} of {dtype} exceeds the {cap} bytes of "
                "a frame",
            )
        fields.append((name, dtype, tuple(shape)))
    return fields


def _fields_of_parts(layout: _Layout, size: int, parts: Sequence[Any]) -> dict[str, Array]:
    """The fields of a large frame: views of its parts."""
    if size != layout.part_bytes:
        raise FrameError(
            "buffer",
            f"large frame has {size} bytes of buffers, but its fields take {layout.part_bytes}",
        )
    fields: dict[str, Array] = {}
    for described, part in zip_longest(layout.fields, parts):
        if described is None or part is None:
            raise FrameError(
                "parts", f"{len(parts)} parts for the {len(layout.fields)} fields of a large frame"
            )
        name, dtype, count, _, shape = described
        came = memoryview(part).nbytes
        if came != count * dtype.itemsize:
            raise FrameError(
                "parts",
                f"field {name!r} came with {came} bytes; expected {count * dtype.itemsize}",
            )
        array = _frombuffer(part if count else _NOTHING, dtype, count)
        if shape is not None:
            array = array.reshape(shape)
        if dtype is _BOOL:
            _check_bools(name, array)
        if not array.flags.aligned:
            array = array.copy()
        array.flags.writeable = False
        fields[name] = array
    return fields


def _check_bools(name: str, array: Array) -> None:
    """Other bytes than 0 and 1 in a bool array make numpy's results undefined."""
    if array.size and array.view(np.uint8).max() > 1:
        raise FrameError("buffer", f"field {name!r} is bool, but has bytes other than 0 and 1")
