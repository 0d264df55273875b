"""What the ways to write Mode S messages down have in common."""

from __future__ import annotations

import numpy as np

from pipeline.frame import Array

TICKS_HZ = 12e6  # of the clock in timed AVR lines and in Beast
CLOCK_BITS = 48  # after which it begins again


def ticks(time_s: Array) -> list[int]:
    """Times since the start of a stream (n,) float64 [s] on the clock of AVR and Beast."""
    counts = np.rint(np.maximum(time_s, 0.0) * TICKS_HZ).astype(np.int64)
    return [int(count) for count in counts & ((1 << CLOCK_BITS) - 1)]


def contents(messages: Array, message_bits: Array) -> list[bytes]:
    """The bytes of messages (n, 14) uint8 of 56 or 112 bits (n,), each as long as it is."""
    sizes = (message_bits // 8).tolist()
    return [row[:size].tobytes() for row, size in zip(messages, sizes, strict=True)]
