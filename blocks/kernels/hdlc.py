"""HDLC as radio links use it: flags, stuffed bits, a check of 16 bits, NRZI, a scrambler.

ISO/IEC 13239: a frame stands between flags 01111110, bytes go least significant bit first, a 0 is
stuffed in after five ones, and the last two bytes are the frame check sequence, CRC-16/X.25. On the
line a 0 is a change and a 1 is none (NRZI), so that polarity does not matter. Modems after G3RUH
(9600 baud) scramble the line with 1 + x^12 + x^17, which is linear, so that either order is right.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from blocks.kernels.caching import njit

Array = np.ndarray[Any, Any]

FLAG = (0, 1, 1, 1, 1, 1, 1, 0)
FCS = 2  # bytes of the frame check sequence
_GOOD = 0xF0B8  # what the register holds after a frame with a right check
_TAIL = 7  # bits of the closing flag that were taken for content before it was known as a flag


class Outcome(IntEnum):
    """What became of a frame that was long enough to be a packet."""

    GOOD = 0
    BAD_FCS = 1
    ABORTED = 2  # seven ones came before a flag
    BAD_LENGTH = 3  # no whole number of bytes, or longer than the longest packet


def _table() -> Array:
    table = np.arange(256, dtype=np.int64)
    for _ in range(8):
        table = table >> 1 ^ 0x8408 * (table & 1)
    return table


_TABLE = _table()


@njit(cache=True, nogil=True)
def register_after(content: Array, count: int) -> int:
    """The register of the check after so many bytes (>= count,) uint8."""
    value = 0xFFFF
    for k in range(count):
        value = value >> 8 ^ _TABLE[(value ^ np.int64(content[k])) & 0xFF]
    return int(value)


# --- Receiving ------------------------------------------------------------------------------------


class State(NamedTuple):
    """What is remembered of each of L lanes.

    line        (L,) int64    the last bits as the line had them, newest lowest
    level       (L,) int64    the last bit after the scrambler was undone
    ones        (L,) int64    ones since the last 0
    collected   (L,) int64    bits of the frame at hand; -1: no flag has come
    first       (L,) float64  sample of its first bit
    contents    (L, longest + 3) uint8  its bytes, with the check and most of the closing flag
    """

    line: Array
    level: Array
    ones: Array
    collected: Array
    first: Array
    contents: Array


class Found(NamedTuple):
    """Room for the packets of one call.

    contents   (P, longest) uint8, zeros past the end
    lengths    (P,) int32    bytes, without the check
    lanes      (P,) int16
    spans      (P, 2)        samples of the first bit after the opening and of the last of the
                             closing flag
    """

    contents: Array
    lengths: Array
    lanes: Array
    spans: Array


def state_of(lanes: int, longest: int) -> State:
    """Nothing has come yet."""
    return State(
        line=np.zeros(lanes, np.int64),
        level=np.zeros(lanes, np.int64),
        ones=np.zeros(lanes, np.int64),
        collected=np.full(lanes, -1, np.int64),
        first=np.zeros(lanes),
        contents=np.zeros((lanes, longest + FCS + 1), np.uint8),
    )


def room_for(lanes: int, bits: int, shortest: int, longest: int) -> Found:
    """Room for as many packets as that many more bits can complete."""
    most = lanes * (bits // (8 * (shortest + FCS)) + 1)
    return Found(
        np.zeros((most, longest), np.uint8), np.empty(most, np.int32), np.empty(most, np.int16),
        np.empty((most, 2)),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def receive(
    bits: Array, samples: Array, scrambled: bool, nrzi: bool, shortest: int, state: State,
    counts: Array, found: Found,
) -> int:  # fmt: skip
    """Take the next bits of each lane; returns how many packets they complete.

    bits      (L, n) uint8   0 or 1; others are left out
    samples   (L, n) float64 where they are
    shortest  packet, in bytes without the check; what is less between two flags is no frame
    counts    (L, 4)         added to: frames by Outcome
    found     written, lane after lane
    """
    n_found = 0
    least = 8 * (shortest + FCS)
    for lane in range(bits.shape[0]):
        line, level = state.line[lane], state.level[lane]
        ones, collected = state.ones[lane], state.collected[lane]
        content = state.contents[lane]
        for i in range(bits.shape[1]):
            if bits[lane, i] > 1:
                continue
            bit = np.int64(bits[lane, i])
            if scrambled:
                plain = bit ^ (line >> 11 & 1) ^ (line >> 16 & 1)
                line = (line << 1 | bit) & 0x1FFFF
                bit = plain
            if nrzi:
                same = 1 ^ bit ^ level
                level = bit
                bit = same
            if bit == 1:
                ones += 1
                if ones == 7 and collected >= 0:
                    if collected - (_TAIL - 1) >= least:
                        counts[lane, Outcome.ABORTED] += 1
                    collected = -1
            elif ones == 5:  # a stuffed one
                ones = 0
                continue
            elif ones == 6:  # a flag
                ones = 0
                size = collected - _TAIL
                if size >= least:
                    if size % 8:
                        counts[lane, Outcome.BAD_LENGTH] += 1
                    elif register_after(content, size // 8) != _GOOD:
                        counts[lane, Outcome.BAD_FCS] += 1
                    else:
                        counts[lane, Outcome.GOOD] += 1
                        length = size // 8 - FCS
                        found.contents[n_found, :length] = content[:length]
                        found.lengths[n_found] = length
                        found.lanes[n_found] = lane
                        found.spans[n_found, 0] = state.first[lane]
                        found.spans[n_found, 1] = samples[lane, i]
                        n_found += 1
                collected = 0
                continue
            else:
                ones = 0
            if collected >= 0:
                if collected == 0:
                    state.first[lane] = samples[lane, i]
                place = collected >> 3
                if place == content.size:
                    counts[lane, Outcome.BAD_LENGTH] += 1
                    collected = -1
                    continue
                if collected & 7 == 0:
                    content[place] = 0
                content[place] |= bit << (collected & 7)
                collected += 1
        state.line[lane], state.level[lane] = line, level
        state.ones[lane], state.collected[lane] = ones, collected
    return n_found


# --- Sending --------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def stuff(content: Array, out: Array) -> int:
    """Write the bits of a frame between its flags; returns how many.

    content  (N,) uint8     with the check
    out      (>= 9.6 N,) uint8  written: least significant bits first, a 0 after five ones
    """
    count = ones = 0
    for k in range(content.size):
        for shift in range(8):
            bit = np.int64(content[k]) >> shift & 1
            out[count] = bit
            count += 1
            ones = ones + 1 if bit else 0
            if ones == 5:
                out[count] = 0
                count += 1
                ones = 0
    return count


def frame(packet: bytes) -> Array:
    """The bits (n,) uint8 of a packet with its check, stuffed, without flags."""
    check = register_after(np.frombuffer(packet, np.uint8), len(packet)) ^ 0xFFFF
    content = np.frombuffer(packet + check.to_bytes(FCS, "little"), np.uint8)
    out = np.empty(10 * content.size, np.uint8)
    return out[: stuff(content, out)]


@njit(cache=True, nogil=True)
def to_line(bits: Array, scrambled: bool, nrzi: bool, out: Array) -> None:
    """Write what the line carries for these bits (n,) uint8, from a level of 0 on."""
    line, level = 0, 0
    for i in range(bits.size):
        bit = int(bits[i])
        level = level ^ 1 ^ bit if nrzi else bit
        if scrambled:
            line = (line << 1 | (level ^ line >> 11 & 1 ^ line >> 16 & 1)) & 0x1FFFF
            out[i] = line & 1
        else:
            out[i] = level
