"""AIS messages as ships and coast stations send them: for simulators and tests.

ITU-R M.1371-5, annex 8, whose names and units the arguments have: degrees, knots, metres. What is
not given is sent as "not available", or as 0 where there is no such value. Each function returns
the bytes of a message, which HDLC then sends least significant bit first.
"""

from __future__ import annotations

from collections.abc import Iterable

DEGREE = 600_000  # units of 1/10 000 minute
UNKNOWN_LATITUDE, UNKNOWN_LONGITUDE = 91.0, 181.0
UNKNOWN_SPEED, UNKNOWN_COURSE, UNKNOWN_HEADING, UNKNOWN_SECOND = 102.3, 360.0, 511, 60
CHARACTERS = "@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_ !\"#$%&'()*+,-./0123456789:;<=>?"  # table 47
MOST_TYPES = 27


def message_type(message: bytes) -> int:
    """The first 6 bits: 1 ... 27 for what M.1371-5 defines."""
    return message[0] >> 2 if message else 0


def _message(fields: Iterable[tuple[int, int]]) -> bytes:
    """The bytes of (value, width in bits), negative values as two's complements."""
    bits = width = 0
    for value, size in fields:
        bits = bits << size | value & ((1 << size) - 1)
        width += size
    return (bits << -width % 8).to_bytes((width + 7) // 8, "big")


def _text(text: str, length: int) -> tuple[int, int]:
    """So many characters of 6 bits."""
    bits = 0
    for character in text.upper()[:length].ljust(length, "@"):
        bits = bits << 6 | CHARACTERS.index(character)
    return bits, 6 * length


def _place(latitude: float, longitude: float) -> list[tuple[int, int]]:
    return [(round(longitude * DEGREE), 28), (round(latitude * DEGREE), 27)]


def _size(size: tuple[int, int, int, int]) -> list[tuple[int, int]]:
    """Metres from the antenna to bow, stern, port and starboard."""
    return [*((metres, 9) for metres in size[:2]), *((metres, 6) for metres in size[2:])]


def position_report(
    mmsi: int, latitude: float = UNKNOWN_LATITUDE, longitude: float = UNKNOWN_LONGITUDE, *,
    kind: int = 1, status: int = 0, speed: float = UNKNOWN_SPEED, course: float = UNKNOWN_COURSE,
    heading: int = UNKNOWN_HEADING, second: int = UNKNOWN_SECOND,
) -> bytes:  # fmt: skip
    """Messages 1, 2 and 3: of class A under way; the rate of turn is not told."""
    return _message([
        (kind, 6), (0, 2), (mmsi, 30), (status, 4), (-128, 8), (round(10 * speed), 10), (0, 1),
        *_place(latitude, longitude), (round(10 * course), 12), (heading, 9), (second, 6), (0, 25),
    ])  # fmt: skip


def base_station(
    mmsi: int, latitude: float, longitude: float, *, year: int = 0, month: int = 0, day: int = 0,
    hour: int = 24, minute: int = 60, second: int = 60,
) -> bytes:  # fmt: skip
    """Message 4: position and UTC of a base station."""
    return _message([
        (4, 6), (0, 2), (mmsi, 30), (year, 14), (month, 4), (day, 5), (hour, 5), (minute, 6),
        (second, 6), (0, 1), *_place(latitude, longitude), (7, 4), (0, 30),
    ])  # fmt: skip


def voyage(
    mmsi: int, *, imo: int = 0, callsign: str = "", name: str = "", ship_type: int = 0,
    size: tuple[int, int, int, int] = (0, 0, 0, 0), draught: float = 0.0, destination: str = "",
) -> bytes:  # fmt: skip
    """Message 5: who a ship of class A is and where it goes; 424 bits, two slots."""
    return _message([
        (5, 6), (0, 2), (mmsi, 30), (0, 2), (imo, 30), _text(callsign, 7), _text(name, 20),
        (ship_type, 8), *_size(size), (0, 4), (0, 4), (0, 5), (24, 5), (60, 6),
        (round(10 * draught), 8), _text(destination, 20), (0, 2),
    ])  # fmt: skip


def class_b_report(
    mmsi: int, latitude: float = UNKNOWN_LATITUDE, longitude: float = UNKNOWN_LONGITUDE, *,
    speed: float = UNKNOWN_SPEED, course: float = UNKNOWN_COURSE, heading: int = UNKNOWN_HEADING,
    second: int = UNKNOWN_SECOND,
) -> bytes:  # fmt: skip
    """Message 18: position of class B, as sent by one that listens before it sends."""
    return _message([
        (18, 6), (0, 2), (mmsi, 30), (0, 8), (round(10 * speed), 10), (0, 1),
        *_place(latitude, longitude), (round(10 * course), 12), (heading, 9), (second, 6), (0, 2),
        (1, 1), (0, 1), (0, 1), (1, 1), (0, 1), (0, 1), (0, 1), (0x60006, 20),
    ])  # fmt: skip


def class_b_name(mmsi: int, name: str) -> bytes:
    """Message 24, part A."""
    return _message([(24, 6), (0, 2), (mmsi, 30), (0, 2), _text(name, 20)])


def class_b_static(
    mmsi: int, *, ship_type: int = 0, callsign: str = "",
    size: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> bytes:  # fmt: skip
    """Message 24, part B; the vendor is not told."""
    return _message([
        (24, 6), (0, 2), (mmsi, 30), (1, 2), (ship_type, 8), (0, 42), _text(callsign, 7),
        *_size(size), (0, 6),
    ])  # fmt: skip
