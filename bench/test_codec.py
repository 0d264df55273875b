"""Frames to bytes and back."""

from __future__ import annotations

import statistics
from types import MappingProxyType

import numpy as np
import pytest

from pipeline.frame import Frame, Kind
from pipeline.wire import Codec

SIZES = (1 << 10, 16 << 10, 256 << 10)  # bytes


def frame_of(size: int) -> Frame:
    samples = np.zeros(size // 4, np.float32)
    samples.flags.writeable = False
    return Frame(Kind.DATA, "main", 7, 21, 5, {"samples": samples}, MappingProxyType({}))


@pytest.mark.parametrize("size", SIZES)
def test_encode(benchmark, add, size):
    codec, frame = Codec(), frame_of(size)
    benchmark(codec.encode, frame)
    median = statistics.median(benchmark.stats.stats.data) * 1e6
    add(f"encode a frame of {size >> 10} KiB", f"{median:.2f} us", how="header, CRC, no copy yet")


@pytest.mark.parametrize("size", SIZES)
def test_decode(benchmark, add, size):
    codec = Codec()
    pieces = codec.encode(frame_of(size))
    if size > 64 << 10:
        head, *parts = pieces
        message = head, [memoryview(part) for part in parts]
    else:
        message = b"".join(pieces), []
    assert benchmark(codec.decode, *message)[0].fields["samples"].nbytes == size
    median = statistics.median(benchmark.stats.stats.data) * 1e6
    add(f"decode a frame of {size >> 10} KiB", f"{median:.2f} us", how="checks, CRC, view")
