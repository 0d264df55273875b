"""AX.25: what packets say of who sent them, over whom, and what for."""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Int8, Int16, Int32, UInt8

from blocks import fields
from pipeline.block import Block
from pipeline.frame import Array

ADDRESS = 7  # bytes
TEXT = 9  # characters of a callsign, a dash and two digits
HOPS = 8  # digipeaters at most
INFORMATION = 0x03  # control of an UI frame, without its poll bit
POLL = 0x10
_CALLSIGN = re.compile(rb"(?=.*[^ ])[ -~]{6}").fullmatch  # some satellites send odd ones


class Packet(NamedTuple):
    """One packet, as `parse` finds it."""

    destination: str
    source: str
    digipeaters: tuple[str, ...]
    repeated: tuple[bool, ...]  # of each digipeater: it has sent the packet on
    command: int  # 1 a command, 0 a response, -1 neither, as before version 2
    control: int
    pid: int  # -1: none
    info: int  # where the information begins


class Ax25Packets(NamedTuple):
    """What the decoder adds."""

    packet_valid: Annotated[UInt8[Array, "packet"], fields.PACKET_VALID]
    packet_destination: Annotated[UInt8[Array, "packet character"], fields.PACKET_DESTINATION]
    packet_source: Annotated[UInt8[Array, "packet character"], fields.PACKET_SOURCE]
    packet_digipeaters: Annotated[UInt8[Array, "packet hop character"], fields.PACKET_DIGIPEATERS]
    packet_repeated: Annotated[Int8[Array, "packet hop"], fields.PACKET_REPEATED]
    packet_command: Annotated[Int8[Array, "packet"], fields.PACKET_COMMAND]
    packet_control: Annotated[UInt8[Array, "packet"], fields.PACKET_CONTROL]
    packet_pid: Annotated[Int16[Array, "packet"], fields.PACKET_PID]
    packet_info: Annotated[Int32[Array, "packet"], fields.PACKET_INFO]


def parse(packet: bytes) -> Packet | None:
    """What a packet without its check says; None where it is none of AX.25.

    "AX.25 Link Access Protocol for Amateur Packet Radio", version 2.2, 1998, with up to 8
    digipeaters as in version 2.0. Numbered frames are taken to count modulo 8: nothing in a packet
    tells.

    >>> parse(bytes.fromhex("82a0a4a64040e0 9c608682986274 ae92888a6240e3 03f0 3e"))[:4]
    ('APRS', 'N0CAL1-10', ('WIDE1-1',), (True,))
    """
    addresses: list[str] = []
    flags: list[bool] = []
    at = 0
    while True:
        address = packet[at : at + ADDRESS]
        if len(address) < ADDRESS or any(byte & 1 for byte in address[:-1]):
            return None
        callsign = bytes(byte >> 1 for byte in address[:-1])
        if not _CALLSIGN(callsign):
            return None
        ssid = address[-1] >> 1 & 15
        addresses.append(callsign.decode("ascii").rstrip() + (f"-{ssid}" if ssid else ""))
        flags.append(bool(address[-1] & 0x80))
        at += ADDRESS
        if address[-1] & 1:
            break
        if len(addresses) == 2 + HOPS:
            return None
    if len(addresses) < 2 or at == len(packet):
        return None
    control, pid = packet[at], -1
    at += 1
    if control & 1 == 0 or control & ~POLL == INFORMATION:  # only these have a protocol
        if at == len(packet):
            return None
        pid = packet[at]
        at += 1
    command = -1 if flags[0] == flags[1] else int(flags[0])
    return Packet(
        addresses[0], addresses[1], tuple(addresses[2:]), tuple(flags[2:]), command, control, pid,
        at,
    )  # fmt: skip


class Ax25(Block, name="decoder.ax25"):
    """What packets of AX.25 say: addresses, control, protocol, where the information begins.

    A packet whose addresses are not of printable characters is not valid, and all else of it is 0:
    of those that pass a check of 16 bits by chance, hardly any begins with addresses.

    packet_bytes        (packet, byte)            uint8
    packet_length       (packet)                  int32
    packet_valid        (packet)                  uint8
    packet_destination, packet_source  (packet, 9)     uint8, ASCII, zeros past the end
    packet_digipeaters  (packet, 8, 9)            uint8, the same
    packet_repeated     (packet, 8)               int8, 1 or 0; -1: no such digipeater
    packet_command      (packet)                  int8, 1 command, 0 response, -1 neither
    packet_control      (packet)                  uint8
    packet_pid          (packet)                  int16; -1: none
    packet_info         (packet)                  int32, of `packet_bytes`
    """

    def process(
        self,
        packet_bytes: UInt8[Array, "packet byte"],
        packet_length: Int32[Array, "packet"],
    ) -> Ax25Packets:
        count = len(packet_bytes)
        out = Ax25Packets(
            packet_valid=np.zeros(count, np.uint8),
            packet_destination=np.zeros((count, TEXT), np.uint8),
            packet_source=np.zeros((count, TEXT), np.uint8),
            packet_digipeaters=np.zeros((count, HOPS, TEXT), np.uint8),
            packet_repeated=np.full((count, HOPS), -1, np.int8),
            packet_command=np.full(count, -1, np.int8),
            packet_control=np.zeros(count, np.uint8),
            packet_pid=np.full(count, -1, np.int16),
            packet_info=np.zeros(count, np.int32),
        )
        for row in range(count):
            found = parse(packet_bytes[row, : packet_length[row]].tobytes())
            if found is None:
                continue
            out.packet_valid[row] = 1
            _write(out.packet_destination[row], found.destination)
            _write(out.packet_source[row], found.source)
            for hop, digipeater in enumerate(found.digipeaters):
                _write(out.packet_digipeaters[row, hop], digipeater)
                out.packet_repeated[row, hop] = found.repeated[hop]
            out.packet_command[row] = found.command
            out.packet_control[row] = found.control
            out.packet_pid[row] = found.pid
            out.packet_info[row] = found.info
        return out


def _write(characters: Array, text: str) -> None:
    characters[: len(text)] = np.frombuffer(text.encode("ascii"), np.uint8)
