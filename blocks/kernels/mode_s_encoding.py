"""Mode S and ADS-B messages as an aircraft sends them: for simulators and tests.

The sources are those of `mode_s`, which decodes; bits are numbered from 1, as there. A message is
7 or 14 bytes with its parity; the 56 bits that a long one carries beside are an integer.
"""

from __future__ import annotations

import math

import numpy as np

from blocks.kernels import cpr, mode_s
from blocks.kernels.mode_s import U8


def _message(fields: int, size: int, overlay: int) -> U8:
    """The bytes of `size` - 24 bits, with their parity overlaid by `overlay`."""
    sent = (fields << mode_s.PARITY).to_bytes(size // 8, "big")
    message = np.frombuffer(sent, np.uint8).copy()
    parity = (int(mode_s.residue(message, size)) ^ overlay).to_bytes(3, "big")
    message[-3:] = np.frombuffer(parity, np.uint8)
    return message


def all_call_reply(address: int, *, capability: int = 5, interrogator: int = 0) -> U8:
    """Format 11 (3.1.2.5.2.2); capability 4: on the ground, 5: airborne."""
    return _message(mode_s.ALL_CALL << 27 | capability << 24 | address, mode_s.SHORT, interrogator)


def extended_squitter(address: int, content: int, *, capability: int = 5) -> U8:
    """Format 17 (3.1.2.8.6) with 56 bits, as the functions below make them."""
    head = mode_s.SQUITTER << 27 | capability << 24 | address
    return _message(head << 56 | content, mode_s.LONG, 0)


def altitude_reply(
    address: int, altitude_ft: float, *, status: int = 0, register: int | None = None
) -> U8:
    """Format 4, or 20 with the 56 bits of a register (3.1.2.6.5, 3.1.2.6.6).

    status  flight status; 0: airborne, 1: on the ground
    """
    return _reply(4, address, status, altitude_code(altitude_ft), register)


def identity_reply(
    address: int, squawk: int, *, status: int = 0, register: int | None = None
) -> U8:
    """Format 5, or 21 with the 56 bits of a register (3.1.2.6.7, 3.1.2.6.8)."""
    return _reply(5, address, status, squawk_code(squawk), register)


def air_air_reply(address: int, altitude_ft: float, *, on_ground: bool = False) -> U8:
    """Format 0, of a transponder without collision avoidance (3.1.2.8.2)."""
    return _message(on_ground << 26 | altitude_code(altitude_ft), mode_s.SHORT, address)


def _reply(short: int, address: int, status: int, code: int, register: int | None) -> U8:
    if register is None:
        return _message(short << 27 | status << 24 | code, mode_s.SHORT, address)
    head = (short + 16) << 27 | status << 24 | code
    return _message(head << 56 | register, mode_s.LONG, address)


def _scattered(value: int, places: tuple[int, ...]) -> int:
    """The bits of a number, the last of them at the last of `places`."""
    return sum((value >> k & 1) << place for k, place in enumerate(reversed(places)))


def squawk_code(squawk: int) -> int:
    """The 13 bits of an identity; its four octal digits are read as a decimal number."""
    return _scattered(int(f"{squawk:04d}", 8), mode_s.SQUAWK_PLACES)


def altitude_code(altitude_ft: float) -> int:
    """The 13 bits of an altitude between -1000 and 126,700 ft; NaN: not known.

    In steps of 25 ft up to 50,175 ft, above in steps of 100 ft.
    """
    if math.isnan(altitude_ft):
        return 0
    steps = round((altitude_ft + 1000.0) / 25.0)
    if steps < 1 << 11:
        return (steps >> 5) << 7 | (steps >> 4 & 1) << 5 | mode_s.FINE | steps & 15
    coarse, hundreds = divmod(round((altitude_ft + 1200.0) / 100.0), 5)
    hundreds = 5 - hundreds if coarse & 1 else hundreds + 1
    if hundreds == 5:
        hundreds = 7
    return _scattered(coarse ^ coarse >> 1, mode_s.FIVE_HUNDREDS_PLACES) | _scattered(
        hundreds ^ hundreds >> 1, mode_s.HUNDREDS_PLACES
    )


def _content(*parts: tuple[int, int, int]) -> int:
    """56 bits of which some are (first bit, number of bits, value)."""
    content = 0
    for first, count, value in parts:
        if not 0 <= value < 1 << count:
            raise ValueError(f"{value} at bit {first} of a message does not fit into {count} bits")
        content |= value << (57 - first - count)
    return content


def callsign(text: str, *, type_code: int = 4, category: int = 0) -> int:
    """Identity of an extended squitter (DO-260B, 2.2.3.2.5): up to 8 capitals, digits, blanks."""
    return _content((1, 5, type_code), (6, 3, category), (9, 48, _characters(text)))


def callsign_register(text: str) -> int:
    """Register 2,0, for formats 20 and 21."""
    return _content((1, 8, 0x20), (9, 48, _characters(text)))


def _characters(text: str) -> int:
    """The 48 bits of 8 characters."""
    value = 0
    for character in f"{text:8}":
        number = mode_s.ALPHABET.find(character)
        if number < 1 or character == "#" or len(text) > 8:
            raise ValueError(f"{text!r} is no callsign: up to 8 capitals, digits and blanks")
        value = value << 6 | number
    return value


def airborne_position(
    latitude: float, longitude: float, altitude_ft: float, odd: int, *, type_code: int = 11
) -> int:
    """Airborne position (DO-260B, 2.2.3.2.3); type codes 9 ... 18 are barometric."""
    y, x = cpr.encode(latitude, longitude, odd, False)
    code = altitude_code(altitude_ft)
    code = code >> 7 << 6 | code & 0x3F  # without the bit that says metres
    return _content((1, 5, type_code), (9, 12, code), (22, 1, odd), (23, 17, y), (40, 17, x))


def surface_position(
    latitude: float, longitude: float, movement: int, track_deg: float, odd: int,
    *, type_code: int = 7,
) -> int:  # fmt: skip
    """Surface position (DO-260B, 2.2.3.2.4); NaN: the track is not known.

    movement  code of the speed, of which `mode_s.surface_speed` tells the meaning
    """
    y, x = cpr.encode(latitude, longitude, odd, True)
    known = not math.isnan(track_deg)
    track = round(track_deg / 360.0 * 128) % 128 if known else 0
    return _content(
        (1, 5, type_code), (6, 7, movement), (13, 1, known), (14, 7, track),
        (22, 1, odd), (23, 17, y), (40, 17, x),
    )  # fmt: skip


def ground_velocity(east_kt: float, north_kt: float, climb_ft_min: float) -> int:
    """Velocity over ground (DO-260B, 2.2.3.2.6, subtype 1, or 2 above 1021 kt)."""
    step = 1 if max(abs(round(east_kt)), abs(round(north_kt))) <= 1021 else 4
    east, north = round(east_kt / step), round(north_kt / step)
    return _velocity(
        1 if step == 1 else 2, (14, 1, east < 0), (15, 10, abs(east) + 1),
        (25, 1, north < 0), (26, 10, abs(north) + 1), climb_ft_min=climb_ft_min,
    )  # fmt: skip


def air_velocity(heading_deg: float, airspeed_kt: float, climb_ft_min: float, *, true: bool) -> int:
    """Velocity through the air (DO-260B, 2.2.3.2.6, subtype 3, or 4 above 1021 kt).

    true  true airspeed, or else indicated
    """
    step = 1 if round(airspeed_kt) <= 1021 else 4
    heading = round(heading_deg / 360.0 * 1024) % 1024
    return _velocity(
        3 if step == 1 else 4, (14, 1, 1), (15, 10, heading),
        (25, 1, true), (26, 10, round(airspeed_kt / step) + 1), climb_ft_min=climb_ft_min,
    )  # fmt: skip


def _velocity(subtype: int, *parts: tuple[int, int, int], climb_ft_min: float) -> int:
    climb = round(climb_ft_min / 64.0)
    return _content(
        (1, 5, 19), (6, 3, subtype), *parts, (37, 1, climb < 0), (38, 9, abs(climb) + 1)
    )
