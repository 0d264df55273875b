"""How GNU Radio's ZeroMQ blocks (gr-zeromq) talk: items, tag headers, sockets.

A message is one part: whole items in the byte order of the machine (little-endian), and no word
about their type, rate or number. Where a key is used, it is a part of its own before them. Where
tags are passed, a header stands before the items: magic and version, the number of the first item,
the number of tags, and each tag as the number of its item (all little-endian) and three PMT values:
key, value, and who set it.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import zmq

from blocks.formats import pmt
from pipeline.errors import ParameterError, RunError
from pipeline.frame import StreamInfo

#: The item types of GNU Radio by names as in recordings, and their dtypes: complex, float, int,
#: short, and byte, which has no sign or one.
FORMATS = {
    "cf32": "complex64", "f32": "float32", "s32": "int32", "s16": "int16", "s8": "int8",
    "u8": "uint8",
}  # fmt: skip
Format = Literal["cf32", "f32", "s32", "s16", "s8", "u8"]

REQUEST = struct.Struct("<I")  # how many items a REQ socket asks for
LARGEST = 1 << 30  # bytes of a message: whoever sends more is cut off

_MAGIC = 0x5FF0
_VERSION = 1
_HEAD = struct.Struct("<HBQQ")
_PLACE = struct.Struct("<Q")
_LONGEST_PATH = 107  # bytes of a path of ipc
NANOSECONDS = 1_000_000_000

Socket = zmq.Socket[bytes]


class HeaderError(ValueError):
    """Bytes are no tag header."""


class Tag(NamedTuple):
    """A tag as it came: the number of its item, and what was set.

    raw   key, value and setter as they stand in the message
    """

    item: int
    key: Any
    value: Any
    raw: bytes


class Header(NamedTuple):
    """A tag header: number of the first item of the message, tags, and its own bytes."""

    item: int
    tags: list[Tag]
    size: int


def has_header(message: memoryview) -> bool:
    """Whether a message seems to begin with a tag header."""
    return bytes(message[:3]) == _HEAD.pack(_MAGIC, _VERSION, 0, 0)[:3]


def read_header(message: memoryview) -> Header:
    """The tag header of a message; HeaderError where any other bytes stand there."""
    if not has_header(message) or len(message) < _HEAD.size:
        raise HeaderError("there is no tag header")
    _, _, item, count = _HEAD.unpack_from(message)
    at = _HEAD.size
    tags = []
    for number in range(count):  # each takes some bytes, or the message ends
        begin = at + _PLACE.size
        if begin > len(message):
            raise HeaderError(f"it has {count} tags, but ends after {number}")
        (place,) = _PLACE.unpack_from(message, at)
        try:
            key, at = pmt.loads(message, begin)
            value, at = pmt.loads(message, at)
            _, at = pmt.loads(message, at)
        except pmt.PmtError as error:
            raise HeaderError(f"tag {number} of {count}: {error}") from None
        tags.append(Tag(place, key, value, bytes(message[begin:at])))
    return Header(item, tags, at)


def write_header(item: int, tags: Iterable[tuple[int, bytes]]) -> bytes:
    """A tag header.

    item   number of the first item of the message
    tags   number of an item, and the bytes of key, value and setter
    """
    written = [_PLACE.pack(place) + raw for place, raw in tags]
    return b"".join([_HEAD.pack(_MAGIC, _VERSION, item, len(written)), *written])


def says(tag: Tag) -> dict[str, Any]:
    """What a tag of an SDR source says of the stream, as arguments of StreamInfo."""
    match (tag.key if isinstance(tag.key, str) else None), tag.value:
        case "rx_rate", int() | float() as rate_hz if 0.0 < rate_hz < math.inf:
            return {"rate_hz": float(rate_hz)}
        case "rx_freq", int() | float() as centre_hz if math.isfinite(centre_hz):
            return {"centre_hz": float(centre_hz)}
        case "rx_time", (whole, float() as part) if _is_time(whole, part):
            return {"epoch_utc_ns": int(whole) * NANOSECONDS + round(part * NANOSECONDS)}
    return {}


def tags_of(info: StreamInfo, sample: int) -> dict[str, Any]:
    """Keys and values of the tags that say what a stream is, at one of its samples."""
    tags: dict[str, Any] = {}
    if info.epoch_utc_ns and (info.rate_hz or sample == 0):
        since_ns = round(sample * NANOSECONDS / info.rate_hz) if sample else 0
        whole, part = divmod(info.epoch_utc_ns + since_ns, NANOSECONDS)
        tags["rx_time"] = (np.uint64(whole), part / NANOSECONDS)
    if info.rate_hz:
        tags["rx_rate"] = info.rate_hz
    if info.centre_hz:
        tags["rx_freq"] = info.centre_hz
    return tags


def _is_time(whole: object, part: float) -> bool:
    return isinstance(whole, int | np.uint64) and 0 <= int(whole) < 1 << 33 and 0.0 <= part < 1.0


def check_address(address: str) -> None:
    """Raise ParameterError for what is no address of a ZeroMQ socket."""
    path = address.removeprefix("ipc://")
    if path != address:
        size = len(os.fsencode(path))
        if not 1 <= size <= _LONGEST_PATH or "\0" in path:
            raise ParameterError(
                f"address = {address!r} has a path of {size} bytes; expected 1 to {_LONGEST_PATH}"
            )
    elif not re.fullmatch(r"tcp://[^\s/]+:(\d{1,5}|\*)", address):
        raise ParameterError(
            f"address = {address!r}; expected tcp://HOST:PORT, as in tcp://127.0.0.1:5555, or "
            "ipc://PATH"
        )


def check_key(key: str, pattern: str, keyed: str) -> None:
    """Raise ParameterError for a key with a pattern that has none."""
    if key and pattern != keyed:
        raise ParameterError(f'key = {key!r}, but pattern = "{pattern}" has none; "{keyed}" has')


def open_socket(
    context: zmq.Context[Socket],
    kind: int,
    address: str,
    bind: bool,
    options: Mapping[zmq.SocketOption, int],
) -> Socket:
    """An open socket; RunError where the address is taken or cannot be found."""
    socket = context.socket(kind)
    for option, value in {zmq.MAXMSGSIZE: LARGEST, **options}.items():
        socket.setsockopt(option, value)
    try:
        if bind:
            socket.bind(address)
        else:
            socket.connect(address)
    except zmq.ZMQError as error:
        why = zmq.strerror(error.errno or 0)
        socket.close(linger=0)
        raise RunError(
            f"cannot {'bind' if bind else 'connect to'} {address}: {why}; give another address, "
            f"or set bind = {'false' if bind else 'true'} if the other end "
            f"{'binds' if bind else 'connects'}"
        ) from None
    return socket
