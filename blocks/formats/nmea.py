"""AIS messages as sentences of NMEA 0183, IEC 61162-1: what chart programs read."""

from __future__ import annotations

from functools import reduce
from operator import xor

MOST_CHARACTERS = 60  # of a message in one sentence, so that it stays within 82


def armoured(message: bytes) -> tuple[str, int]:
    """The characters that carry a message, 6 bits each, and how many bits fill the last one."""
    fill = -8 * len(message) % 6
    bits = int.from_bytes(message, "big") << fill
    count = (8 * len(message) + fill) // 6
    values = (bits >> 6 * k & 63 for k in range(count - 1, -1, -1))
    return "".join(chr(value + 48 if value < 40 else value + 56) for value in values), fill


def sentences(message: bytes, channel: str = "A", number: int = 0) -> list[str]:
    """The !AIVDM sentences of one message, without the ends of lines.

    channel  A or B
    number   that tells the parts of one message from those of another; only its last digit counts

    >>> sentences(bytes.fromhex("0457461d64c00005cff6ea95a16b789100f60008e9"), "B")
    ['!AIVDM,1,1,,B,15M67FC000G?ufbE`FepT@3n00Sa,0*5C']
    """
    characters, fill = armoured(message)
    parts = [
        characters[at : at + MOST_CHARACTERS] for at in range(0, len(characters), MOST_CHARACTERS)
    ]
    several = str(number % 10) if len(parts) > 1 else ""
    lines = []
    for k, part in enumerate(parts, 1):
        last = fill if k == len(parts) else 0
        body = f"AIVDM,{len(parts)},{k},{several},{channel},{part},{last}"
        lines.append(f"!{body}*{reduce(xor, body.encode()):02X}")
    return lines
