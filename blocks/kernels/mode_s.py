"""Mode S and ADS-B messages: parity, and what their bits mean.

Sources: ICAO Annex 10 Volume IV, 3.1.2 (formats, parity, altitude and identity codes); ICAO
Doc 9871 and RTCA DO-260B, 2.2.3.2 (extended squitters), as the openly published book "The 1090
Megahertz Riddle" (Sun, 2nd edition) tells them. Bits are numbered from 1, as there.
A message is a row of 14 bytes; of a short one, which has 56 bits, the last 7 are 0.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from blocks.kernels.caching import njit

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
I16 = npt.NDArray[np.int16]
I32 = npt.NDArray[np.int32]
F64 = npt.NDArray[np.float64]

SHORT, LONG = 56, 112  # bits of a message
BYTES = LONG // 8
GENERATOR = 0xFFF409  # of the parity, without its leading x^24: Annex 10, 3.1.2.3.3
PARITY = 24  # bits

ALL_CALL, SQUITTER, NON_TRANSPONDER = 11, 17, 18  # downlink formats
COMM_D = 24  # any that begins with two ones
#: Formats whose parity checks by itself, but for an interrogator code in the last 7 bits of 11;
#: that of the others is overlaid with the address.
BARE = (ALL_CALL, SQUITTER, NON_TRANSPONDER)
FORMATS = (0, 4, 5, 16, 20, 21, COMM_D, *BARE)
#: One more than the largest interrogator code: 4 bits of code, 3 bits (0 ... 4) of label.
INTERROGATORS = 80


class Number(IntEnum):
    """Columns of the numbers that `contents` writes; NaN where a message says nothing of it."""

    ALTITUDE = 0  # barometric [ft]
    GROUND_SPEED = 1  # [kt]
    TRACK = 2  # of the motion over ground, clockwise from true north [deg]
    INDICATED_AIRSPEED = 3  # [kt]
    TRUE_AIRSPEED = 4  # [kt]
    HEADING = 5  # of the nose, clockwise from north [deg]
    VERTICAL_RATE = 6  # [ft/min]
    CONTAINMENT = 7  # radius that holds the position with near certainty [m]


class Code(IntEnum):
    """Columns of the codes that `contents` writes; -1 where a message says nothing of it."""

    TYPE = 0  # type code of an extended squitter
    SQUAWK = 1  # the four octal digits, read as a decimal number
    ON_GROUND = 2
    ODD = 3  # which of the two grids the position is told in
    CPR_LATITUDE = 4
    CPR_LONGITUDE = 5


class Candidate(IntEnum):
    """What became of a candidate."""

    MESSAGE = 0
    FORMAT = 1  # there is none such, its length is another, or bits are set that nobody sets
    PARITY = 2  # of a format whose parity checks by itself
    UNKNOWN = 3  # the parity would fit an address that no clean message came from of late
    OVERLAP = 4  # lies on a message that was decoded before


class Position(IntEnum):
    """How the position in a message was found, or why it was not."""

    NONE = 0  # the message has none
    PAIR = 1  # from this message and the newest on the other grid
    NEAR = 2  # as the one nearest to the last position
    ALONE = 3  # no last position, and no message on the other grid that is new enough
    ZONES = 4  # the two messages lie in different zones of longitude
    FIRST = 5  # from a pair, which no other has confirmed yet
    IMPLAUSIBLE = 6  # too far from the last position, or from the receiver


def _table() -> U32:
    table = np.zeros(256, np.uint32)
    for byte in range(256):
        value = byte << 16
        for _ in range(8):
            value = value << 1 ^ (GENERATOR | 1 << PARITY if value & 0x800000 else 0)
        table[byte] = value
    return table


_TABLE = _table()


@njit(cache=True, nogil=True)
def _signed(value: int | np.unsignedinteger[Any]) -> int:
    """The same number; numba would turn unsigned and signed ones together into floats."""
    return int(np.int64(value))


@njit(cache=True, nogil=True)
def residue(message: U8, size: int) -> int:
    """Remainder of a message of `size` bits on division by the generator, parity included.

    It is 0 for a clean message whose parity is bare, else what the parity is overlaid with: the
    address, or an interrogator code (Annex 10, 3.1.2.3.3). Linear over exclusive or.
    """
    value = 0
    data = size // 8 - 3
    for k in range(data):
        value = (value << 8 & 0xFFFFFF) ^ _signed(_TABLE[value >> 16 ^ _signed(message[k])])
    for k in range(3):
        value ^= _signed(message[data + k]) << (16 - 8 * k)
    return value


@njit(cache=True, nogil=True)
def residues(messages: U8, size: int, out: U32) -> None:
    """The residue of each of several messages (N, 14) of one size, (N,)."""
    for n in range(len(messages)):
        out[n] = residue(messages[n], size)


def syndromes(size: int) -> U32:
    """The residue that each single wrong bit adds, (size,), first bit of a message first."""
    units = np.zeros((size, BYTES), np.uint8)
    units[:, : size // 8] = np.packbits(np.eye(size, dtype=np.uint8), axis=1)
    out = np.empty(size, np.uint32)
    residues(units, size, out)
    return out


@njit(cache=True, nogil=True)
def bits(message: U8, first: int, count: int) -> int:
    """The number in `count` bits from bit `first` on, most significant first."""
    value = 0
    for k in range(first - 1, first - 1 + count):
        value = value << 1 | (_signed(message[k >> 3]) >> (7 - (k & 7)) & 1)
    return value


@njit(cache=True, nogil=True)
def format_of(message: U8) -> int:
    """Downlink format."""
    return int(min(_signed(message[0]) >> 3, COMM_D))


@njit(cache=True, nogil=True)
def _unassigned(message: U8, kind: int) -> bool:
    """Whether bits are set that no transponder sets (Annex 10, 3.1.2.3.2.1)."""
    if kind in (4, 5, 20, 21):
        return bool(bits(message, 6, 3) > 5)  # flight status
    if kind == 0:
        return bool(bits(message, 8, 1) + bits(message, 12, 2) + bits(message, 18, 2) > 0)
    if kind == 16:
        return bool(bits(message, 7, 2) + bits(message, 12, 2) + bits(message, 18, 2) > 0)
    return False


@njit(cache=True, nogil=True)
def screen(
    candidates: U8, sizes: I16, comm_d: bool, packed: U8, formats: U8, found: U32, status: U8
) -> None:
    """Tell what no list of addresses is needed for.

    candidates  (N, 112)  bits
    sizes       (N,)      56 or 112 bits
    comm_d      whether there is a format 24
    packed      (N, 14)   written: bytes
    formats     (N,)      written: downlink format
    found       (N,)      written: residues; 0 where there is no such format
    status      (N,)      written: FORMAT or PARITY; MESSAGE where the residue is 0 or may be an
                          address or an interrogator code
    """
    for n in range(len(candidates)):
        for k in range(BYTES):
            byte = 0
            for i in range(8 * k, 8 * k + 8):
                byte = byte << 1 | _signed(candidates[n, i] & 1)
            packed[n, k] = byte
        kind = format_of(packed[n])
        formats[n] = kind
        found[n] = 0
        size = SHORT if kind < 16 else LONG
        if (
            kind not in FORMATS
            or sizes[n] != size
            or (kind == COMM_D and not comm_d)
            or _unassigned(packed[n], kind)
        ):
            status[n] = Candidate.FORMAT
            continue
        found[n] = residue(packed[n], size)
        if kind in BARE and found[n] >= (INTERROGATORS if kind == ALL_CALL else 1):
            status[n] = Candidate.PARITY
        else:
            status[n] = Candidate.MESSAGE


@njit(cache=True, nogil=True)
def _from_gray(code: int) -> int:
    value = 0
    while code:
        value ^= code
        code >>= 1
    return value


#: Where the pulses of a 13-bit code stand, lowest bit 0: C1 A1 C2 A2 C4 A4 x B1 D1 B2 D2 B4 D4.
SQUAWK_PLACES = (7, 9, 11, 1, 3, 5, 8, 10, 12, 0, 2, 4)  # A4 A2 A1 B4 B2 B1 C4 C2 C1 D4 D2 D1
FIVE_HUNDREDS_PLACES = (2, 0, 11, 9, 7, 5, 3, 1)  # D2 D4 A1 A2 A4 B1 B2 B4
HUNDREDS_PLACES = (12, 10, 8)  # C1 C2 C4
METRIC, FINE = 1 << 6, 1 << 4  # M and Q: altitude in metres; in steps of 25 ft


@njit(cache=True, nogil=True)
def _gathered(code: int, places: tuple[int, ...]) -> int:
    value = 0
    for place in places:
        value = value << 1 | (code >> place & 1)
    return value


@njit(cache=True, nogil=True)
def squawk(code: int) -> int:
    """Identity in 13 bits: its octal digits ABCD, read as a decimal number (3.1.2.6.7.1)."""
    octal = _gathered(code, SQUAWK_PLACES)
    return int((octal >> 9) * 1000 + (octal >> 6 & 7) * 100 + (octal >> 3 & 7) * 10 + (octal & 7))


@njit(cache=True, nogil=True)
def altitude(code: int) -> float:
    """Altitude [ft] in 13 bits, NaN where they tell none (3.1.2.6.5.4).

    In steps of 25 ft it is a number; in steps of 100 ft a Gray code of the 500 ft, and one of the
    100 ft that runs up and down in turn (Annex 10 Volume IV, appendix to chapter 3). Metres, for
    which there is no rule, tell none.
    """
    if code == 0 or code & METRIC:
        return math.nan
    if code & FINE:
        return 25.0 * ((code >> 7) << 5 | (code >> 5 & 1) << 4 | code & 15) - 1000.0
    coarse = _from_gray(_gathered(code, FIVE_HUNDREDS_PLACES))
    hundreds = _from_gray(_gathered(code, HUNDREDS_PLACES))
    if hundreds == 7:
        hundreds = 5
    elif hundreds in (0, 5, 6):
        return math.nan
    if coarse & 1:
        hundreds = 6 - hundreds
    return float(500.0 * coarse + 100.0 * hundreds - 1300.0)


@njit(cache=True, nogil=True)
def surface_speed(movement: int) -> float:
    """Speed over ground [kt] of a movement code; NaN: not known (DO-260B, 2.2.3.2.4.2)."""
    if movement < 1 or movement > 124:
        return math.nan
    if movement < 9:
        return 0.125 * (movement - 1)
    if movement < 13:
        return 1.0 + 0.25 * (movement - 9)
    if movement < 39:
        return 2.0 + 0.5 * (movement - 13)
    if movement < 94:
        return 15.0 + (movement - 39)
    if movement < 109:
        return 70.0 + 2.0 * (movement - 94)
    return 100.0 + 5.0 * (movement - 109)


@njit(cache=True, nogil=True)
def containment(type_code: int) -> float:
    """Radius of containment [m] of a position's type code; NaN: none (DO-260B, 2.2.3.2.3.1).

    Where a supplement that comes in another message would tell two radii apart, the larger.
    """
    if type_code in (5, 9, 20):
        return 7.5
    if type_code in (6, 10, 21):
        return 25.0
    if type_code in (7, 11):
        return 185.2
    if type_code == 12:
        return 370.4
    if type_code == 13:
        return 1111.2
    if type_code == 14:
        return 1852.0
    if type_code == 15:
        return 3704.0
    if type_code == 16:
        return 14816.0
    if type_code == 17:
        return 37040.0
    return math.nan


#: The 64 characters of a callsign; # is none (Annex 10 Volume IV, table 3-9).
ALPHABET = "#ABCDEFGHIJKLMNOPQRSTUVWXYZ##### ###############0123456789######"
_ASCII = np.frombuffer(ALPHABET.encode(), np.uint8)


@njit(cache=True, nogil=True)
def _write_callsign(message: U8, first: int, out: U8) -> bool:
    """Write the 8 characters from bit `first` on, if each of them is one; tells whether."""
    for k in range(8):
        if _ASCII[bits(message, first + 6 * k, 6)] == 35:
            return False
    for k in range(8):
        out[k] = _ASCII[bits(message, first + 6 * k, 6)]
    return True


@njit(cache=True, nogil=True)
def _write_velocity(message: U8, numbers: F64) -> None:
    """Airborne velocity: DO-260B, 2.2.3.2.6. A component of 0 is none, else one more than it is."""
    subtype = bits(message, 38, 3)
    if subtype < 1 or subtype > 4:
        return
    first, second = bits(message, 47, 10) - 1, bits(message, 58, 10) - 1
    step = 1.0 if subtype in (1, 3) else 4.0  # supersonic
    if subtype <= 2 and first >= 0 and second >= 0:
        east = -first if bits(message, 46, 1) else first
        north = -second if bits(message, 57, 1) else second
        numbers[Number.GROUND_SPEED] = step * math.hypot(east, north)
        if first or second:
            numbers[Number.TRACK] = math.degrees(math.atan2(east, north)) % 360.0
    elif subtype >= 3:
        if bits(message, 46, 1):
            numbers[Number.HEADING] = bits(message, 47, 10) * 360.0 / 1024.0
        if second >= 0:
            kind = Number.TRUE_AIRSPEED if bits(message, 57, 1) else Number.INDICATED_AIRSPEED
            numbers[kind] = step * second
    climb = bits(message, 70, 9) - 1
    if climb >= 0:
        numbers[Number.VERTICAL_RATE] = -64.0 * climb if bits(message, 69, 1) else 64.0 * climb


@njit(cache=True, nogil=True)
def _write_squitter(message: U8, numbers: F64, codes: I32, callsign: U8) -> None:
    """The 56 bits from bit 33 on of an extended squitter."""
    kind = bits(message, 33, 5)
    codes[Code.TYPE] = kind
    if 1 <= kind <= 4:
        _write_callsign(message, 41, callsign)
    elif kind == 19:
        _write_velocity(message, numbers)
    elif 5 <= kind <= 8:
        numbers[Number.GROUND_SPEED] = surface_speed(bits(message, 38, 7))
        if bits(message, 45, 1):
            numbers[Number.TRACK] = bits(message, 46, 7) * 360.0 / 128.0
        codes[Code.ON_GROUND] = 1
    elif kind == 0 or 9 <= kind <= 18 or 20 <= kind <= 22:
        if kind < 20:  # the others tell a geometric height
            code = bits(message, 41, 12)
            numbers[Number.ALTITUDE] = altitude((code & 0xFC0) << 1 | code & 0x3F)
        if kind:
            codes[Code.ON_GROUND] = 0
    if 5 <= kind <= 18 or 20 <= kind <= 22:
        numbers[Number.CONTAINMENT] = containment(kind)
        codes[Code.ODD] = bits(message, 54, 1)
        codes[Code.CPR_LATITUDE] = bits(message, 55, 17)
        codes[Code.CPR_LONGITUDE] = bits(message, 72, 17)


@njit(cache=True, nogil=True)
def contents(messages: U8, numbers: F64, codes: I32, callsigns: U8) -> None:
    """What messages say, as far as one message says it.

    messages   (N, 14)              bytes of messages that came without an error
    numbers    (N, len(Number))     written
    codes      (N, len(Code))       written
    callsigns  (N, 8)               written: ASCII, or zeros
    """
    numbers[:] = np.nan
    codes[:] = -1
    callsigns[:] = 0
    for n in range(len(messages)):
        message = messages[n]
        kind = format_of(message)
        if kind in (SQUITTER, ALL_CALL):
            capability = bits(message, 6, 3)  # 3.1.2.5.2.2.1
            if capability in (4, 5):
                codes[n, Code.ON_GROUND] = 5 - capability
        elif kind in (0, 16):
            codes[n, Code.ON_GROUND] = bits(message, 6, 1)  # vertical status, 3.1.2.8.2.1
        elif kind in (4, 5, 20, 21):
            status = bits(message, 6, 3)  # flight status, 3.1.2.6.5.1
            if status < 4:
                codes[n, Code.ON_GROUND] = status & 1
        if kind in (0, 4, 16, 20):
            numbers[n, Number.ALTITUDE] = altitude(bits(message, 20, 13))
        elif kind in (5, 21):
            codes[n, Code.SQUAWK] = squawk(bits(message, 20, 13))
        if kind in (20, 21) and bits(message, 33, 8) == 0x20:  # register 2,0: the callsign
            _write_callsign(message, 41, callsigns[n])
        # of format 18, only what is laid out as ADS-B (2.2.3.2.1)
        if kind == SQUITTER or (kind == NON_TRANSPONDER and bits(message, 6, 3) in (0, 1, 6)):
            _write_squitter(message, numbers[n], codes[n], callsigns[n])
