"""Headers of WAV files.

Microsoft and IBM, "Multimedia Programming Interface and Data Specifications 1.0" (RIFF, WAVE);
EBU Tech 3306 (RF64, for more than 4 GiB). The `wave` module of Python reads no floating point,
so the header is read here; the samples are read by the source like those of any other file.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Literal

from blocks.formats.encoding import Encoding, Recorded, whole_samples
from pipeline.errors import ParameterError

Channels = Literal["iq", "first", "second"]

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
UNKNOWN = 0xFFFFFFFF  # length of samples written to a pipe, or in RF64 said elsewhere
MOST_CHUNKS = 1000  # a header with more is no header


def read(path: Path, channels: Channels) -> Recorded:
    """Where the samples of a WAV file lie; one channel is real, two are I and Q.

    Reads 8-bit (unsigned), 16-, 24- and 32-bit PCM and 32- and 64-bit floating point.

    channels    what two channels are: "iq", or the one of them to keep
    Raises ParameterError for anything else, and where the file is shorter than its header says.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        head = file.read(12)
        if head[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:12] != b"WAVE":
            raise ParameterError(f"{path} is no WAV file: it does not begin with RIFF and WAVE")
        encoding, rate_hz, long_length = None, 0, UNKNOWN
        for _ in range(MOST_CHUNKS):
            head = file.read(8)
            if len(head) < 8:
                break
            name, length = struct.unpack("<4sI", head)
            begin = file.tell()
            if name == b"ds64":
                long_length = struct.unpack("<8xQ", file.read(16).ljust(16, b"\0"))[0]
            elif name == b"fmt ":
                encoding, rate_hz = _encoding(path, file.read(min(length, 40)), channels)
            elif name == b"data":
                if encoding is None:
                    raise ParameterError(f"{path} is damaged: its samples precede their format")
                if length == UNKNOWN:
                    length = long_length if long_length != UNKNOWN else size - begin
                if length > size - begin:
                    raise ParameterError(
                        f"{path} was cut short: its header says {length} bytes of samples, but "
                        f"{size - begin} bytes follow"
                    )
                return Recorded(
                    path, encoding, f"wav {encoding.name}", offset=begin,
                    samples=whole_samples(path, length, encoding),
                    rate_hz=float(rate_hz), said_by=str(path),
                )  # fmt: skip
            file.seek(begin + length + length % 2)
    raise ParameterError(f"{path} is damaged: a WAV file without samples (no data chunk)")


def _encoding(path: Path, fmt: bytes, wanted: Channels) -> tuple[Encoding, int]:
    """Encoding and sample rate in Hz that a fmt chunk tells."""
    if len(fmt) < 16:
        raise ParameterError(f"{path} is damaged: its fmt chunk has {len(fmt)} bytes, not 16")
    tag, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", fmt)
    if tag == EXTENSIBLE and len(fmt) >= 26:
        (tag,) = struct.unpack_from("<H", fmt, 24)  # the sub-format begins with the plain tag
    if channels not in (1, 2):
        raise ParameterError(
            f"{path} has {channels} channels; expected 1 (real samples) or 2 (I and Q)"
        )
    known: dict[tuple[int, int], Encoding] = {
        (PCM, 8): Encoding("u8", "u1", channels, zero=128.0, full=128.0),
        (PCM, 16): Encoding("s16", "<i2", channels, full=2.0**15),
        (PCM, 24): Encoding("s24", "<i4", channels, full=2.0**31, packed=True),
        (PCM, 32): Encoding("s32", "<i4", channels, full=2.0**31),
        (FLOAT, 32): Encoding("f32", "<f4", channels),
        (FLOAT, 64): Encoding("f64", "<f8", channels),
    }
    encoding = known.get((tag, bits))
    if encoding is None or block != encoding.bytes:
        raise ParameterError(
            f"{path} has samples of {bits} bits with format tag {tag} in blocks of {block} bytes; "
            "expected PCM (1) of 8, 16, 24 or 32 bits or floating point (3) of 32 or 64"
        )
    if channels == 2 and wanted != "iq":
        encoding = replace(encoding, keep=("first", "second").index(wanted))
    return encoding, rate
