"""What Mode S messages say, as lines of the BaseStation program, for maps and loggers."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
from jaxtyping import Float64, Int8, Int16, UInt8, UInt32

from blocks.kernels.mode_s import ALL_CALL, NON_TRANSPONDER, SQUITTER
from blocks.sink.feed import Feed
from pipeline.frame import Array, FrameInfo, StreamInfo

#: Transmission type by downlink format; those of extended squitters are told by their type code.
BY_FORMAT = {0: 7, 4: 5, 5: 6, 16: 7, 20: 5, 21: 6, ALL_CALL: 8}
VELOCITY = 19  # type code
EMERGENCIES = (7500, 7600, 7700)  # squawks
BEGIN = datetime(1970, 1, 1)  # UTC, as all times here


class Sbs(Feed, name="sink.sbs"):
    """A line of 22 fields for each message, as BaseStation and dump1090 send at port 30003.

    MSG, transmission type, session, aircraft and flight numbers (which are those of a data base,
    and 1 here, but for the address), date and time of the message and of its writing (the same
    here, so that a run can be repeated), callsign, altitude [ft], speed over ground [kt], track
    [deg], latitude, longitude [deg], rate of climb [ft/min], squawk, and four flags, -1 for yes:
    alert, emergency, identification (SPI), on the ground. What a message does not tell is empty.

    Transmission types: 1 identification, 2 position on the surface, 3 in the air, 4 velocity,
    5 altitude, 6 squawk, 7 air to air, 8 all-call reply. Other squitters are left out. Times are
    UTC; where the stream does not say when it began, it began in 1970. What feeds share is told in
    sink/feed.py.
    """

    def start(self) -> None:
        super().start()
        self._epochs_ns: dict[str, int] = {}

    def open(self, stream: str, info: StreamInfo) -> None:
        self._epochs_ns[stream] = info.epoch_utc_ns

    def process(
        self,
        messages: UInt8[Array, "message byte"],
        message_time: Float64[Array, "message"],
        message_format: UInt8[Array, "message"],
        message_address: UInt32[Array, "message"],
        type_code: Int8[Array, "message"],
        latitude: Float64[Array, "message"],
        longitude: Float64[Array, "message"],
        altitude: Float64[Array, "message"],
        ground_speed: Float64[Array, "message"],
        track: Float64[Array, "message"],
        vertical_rate: Float64[Array, "message"],
        callsign: UInt8[Array, "message character"],
        squawk: Int16[Array, "message"],
        on_ground: Int8[Array, "message"],
        info: FrameInfo = FrameInfo(),
    ) -> None:
        epoch_ns = self._epochs_ns.get(info.stream, 0)
        lines = []
        for row, message in enumerate(messages):
            code = int(type_code[row])
            kind = BY_FORMAT.get(int(message_format[row])) or _kind_of_squitter(code)
            if not kind:
                continue
            at = _time_text(epoch_ns + round(1e9 * float(message_time[row])))
            alert, identified = _flags(int(message_format[row]), code, message)
            known = squawk[row] >= 0
            lines.append(
                ",".join([
                    "MSG", str(kind), "1", "1", f"{message_address[row]:06X}", "1", at, at,
                    callsign[row].tobytes().decode("ascii") if callsign[row, 0] else "",
                    _whole(altitude[row]), _whole(ground_speed[row]), _whole(track[row]),
                    _degrees(latitude[row]), _degrees(longitude[row]), _whole(vertical_rate[row]),
                    f"{squawk[row]:04d}" if known else "",
                    alert, _flag(int(squawk[row]) in EMERGENCIES) if known else "", identified,
                    _flag(on_ground[row] == 1) if on_ground[row] >= 0 else "",
                ])
            )  # fmt: skip
        self.send([f"{line}\r\n".encode() for line in lines])


def _kind_of_squitter(type_code: int) -> int:
    """Transmission type; 0: there is none."""
    if 1 <= type_code <= 4:
        return 1
    if 5 <= type_code <= 8:
        return 2
    if 9 <= type_code <= 18:
        return 3
    return 4 if type_code == VELOCITY else 0


def _flags(kind: int, type_code: int, message: Array) -> tuple[str, str]:
    """Alert and identification: from the flight status, or a squitter's surveillance status.

    Annex 10 Volume IV, 3.1.2.6.5.1; DO-260B, 2.2.3.2.3.2.
    """
    if kind in (4, 5, 20, 21):
        status = int(message[0]) & 7
        return _flag(status in (2, 3, 4)), _flag(status in (4, 5))
    if kind in (SQUITTER, NON_TRANSPONDER) and 9 <= type_code <= 18:
        status = int(message[4]) >> 1 & 3
        return _flag(status in (1, 2)), _flag(status == 3)
    return "", ""


def _time_text(utc_ns: int) -> str:
    """Date and time with milliseconds, as two fields."""
    seconds, rest = divmod(utc_ns // 1_000_000, 1000)
    return f"{BEGIN + timedelta(seconds=seconds):%Y/%m/%d,%H:%M:%S}.{rest:03d}"


def _flag(yes: bool) -> str:
    return "-1" if yes else "0"


def _whole(number: float) -> str:
    return f"{number:.0f}" if np.isfinite(number) else ""


def _degrees(number: float) -> str:
    return f"{number:.5f}" if np.isfinite(number) else ""
