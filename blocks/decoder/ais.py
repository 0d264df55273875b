"""Decoder of AIS: packets in, what they say out."""

from __future__ import annotations

import importlib.util
from math import nan
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int8, Int16, Int32, UInt8, UInt32

from blocks import fields
from blocks.formats import ais, nmea
from blocks.rate import rate_of
from pipeline.block import Block, param
from pipeline.errors import ParameterError
from pipeline.frame import Array

CALLSIGN, NAME = 7, 20  # characters
#: Speeds that say "not available", where not 102.3 kt: in messages of aircraft, and of long range.
UNKNOWN_SPEEDS = {9: 1023.0, 27: 63.0}


class Decoded(NamedTuple):
    """What the decoder adds."""

    message_type: Annotated[UInt8[Array, "packet"], fields.MESSAGE_TYPE]
    message_time: Annotated[Float64[Array, "packet"], fields.MESSAGE_TIME]
    mmsi: Annotated[UInt32[Array, "packet"], fields.MMSI]
    latitude: Annotated[Float64[Array, "packet"], fields.LATITUDE]
    longitude: Annotated[Float64[Array, "packet"], fields.LONGITUDE]
    ground_speed: Annotated[Float64[Array, "packet"], fields.GROUND_SPEED]
    track: Annotated[Float64[Array, "packet"], fields.TRACK]
    heading: Annotated[Float64[Array, "packet"], fields.HEADING]
    navigation_status: Annotated[Int8[Array, "packet"], fields.NAVIGATION_STATUS]
    ship_type: Annotated[Int16[Array, "packet"], fields.SHIP_TYPE]
    callsign: Annotated[UInt8[Array, "packet character"], fields.CALLSIGN]
    ship_name: Annotated[UInt8[Array, "packet letter"], fields.SHIP_NAME]


class Ais(Block, name="decoder.ais"):
    """What the packets of AIS say, by the library pyais; one row for each packet.

    ITU-R M.1371-5, annex 8. A packet that is no message of types 1 ... 27, or that pyais cannot
    read, has type 0 and says nothing. What a message does not have, or calls not available, is NaN,
    -1 or zeros, as the fields say.

    packet_bytes   (packet, byte) uint8, packet_length (packet) int32 [bytes]
    packet_sample  (packet) float64

    Raises ParameterError, when it is made, where pyais is not installed; RunError, when the first
    packet comes, where the sample rate is not known.
    """

    rate_hz: float = param(
        default=0.0, at_least=0.0, unit="Hz", doc="samples per second; 0: as the stream says"
    )

    def check(self) -> None:
        if importlib.util.find_spec("pyais") is None:
            raise ParameterError("needs the package pyais: pip install 'kalvit[ais]'")

    def start(self) -> None:
        import pyais  # a tenth of a second, so not before it is needed

        self._pyais: Any = pyais

    def process(
        self,
        packet_bytes: UInt8[Array, "packet byte"],
        packet_length: Int32[Array, "packet"],
        packet_sample: Float64[Array, "packet"],
    ) -> Decoded:
        said = [
            self._said(row[:length].tobytes())
            for row, length in zip(packet_bytes, packet_length.tolist(), strict=True)
        ]
        return Decoded(
            message_type=np.array([s.get("msg_type", 0) for s in said], np.uint8),
            message_time=packet_sample / rate_of(self, self.rate_hz) if said else np.empty(0),
            mmsi=np.array([s.get("mmsi", 0) for s in said], np.uint32),
            latitude=_numbers(said, "lat", 90.0),
            longitude=_numbers(said, "lon", 180.0),
            ground_speed=np.array([_speed(s) for s in said], float),
            track=_numbers(said, "course", 359.95),
            heading=_numbers(said, "heading", 359.0),
            navigation_status=np.array([int(s.get("status", -1)) for s in said], np.int8),
            ship_type=np.array([s.get("ship_type", -1) for s in said], np.int16),
            callsign=_texts([s.get("callsign", "") for s in said], CALLSIGN),
            ship_name=_texts([s.get("shipname", s.get("name", "")) for s in said], NAME),
        )

    def _said(self, packet: bytes) -> dict[str, Any]:
        """The contents of a message by pyais's names; empty if it is none."""
        if not 1 <= ais.message_type(packet) <= ais.MOST_TYPES:
            return {}
        try:
            message = self._pyais.decode(*(line.encode() for line in nmea.sentences(packet)))
            return {name: told for name, told in message.asdict().items() if told is not None}
        except (self._pyais.exceptions.AISBaseException, ValueError, IndexError):
            return {}


def _numbers(said: list[dict[str, Any]], name: str, most: float) -> Array:
    """One number of each message; NaN where it has none, or one beyond `most`."""
    values = np.array([s.get(name, nan) for s in said], float)
    values[np.abs(values) > most] = nan
    return values


def _speed(said: dict[str, Any]) -> float:
    speed = float(said.get("speed", nan))
    unknown = UNKNOWN_SPEEDS.get(said.get("msg_type", 0), ais.UNKNOWN_SPEED)
    return speed if speed < unknown else nan


def _texts(texts: list[str], length: int) -> Array:
    """Characters (message, length) uint8, zeros past the end."""
    out = np.zeros((len(texts), length), np.uint8)
    for row, text in zip(out, texts, strict=True):
        characters = text.encode("ascii", "replace")[:length]
        row[: len(characters)] = np.frombuffer(characters, np.uint8)
    return out
