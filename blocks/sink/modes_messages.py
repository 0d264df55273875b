"""What came of Mode S messages: counts, a picture of positions, JSON lines."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int8, Int16, UInt8, UInt32

from blocks.kernels import mode_s
from blocks.kernels.mode_s import Candidate, Position
from blocks.sink import positions
from blocks.sink.new_file import NewFile
from pipeline.block import Sink, param
from pipeline.frame import Array, FrameInfo, Scalar, StreamInfo

DRAWN = 20_000  # positions in the picture, the last ones
DECIMALS = 6  # of numbers in lines of JSON


class ModesMessages(Sink, name="sink.modes_messages"):
    """Counts of messages, aircraft and positions, and where the aircraft were.

    messages is how many candidates were accepted, df0, df17 ... how many of each downlink format;
    strict_messages leaves out those of format 11 with an interrogator code that never came often
    enough (see decoder.modes), but counts those that came before it had; aircraft is how many
    addresses sent a clean message; positions is how many positions were told. rejected_... are
    candidates that were no messages, position_... messages whose position was not told, by reason.

    The picture shows the last 20,000 positions. With `path` each message becomes a line of JSON,
    with what it says; time is UTC where the stream says when it began, else since its start.

    Raises ParameterError, when it is made, if the file of `path` exists or cannot be made.
    """

    path: str = param(default="", doc="file for a line of JSON per message; empty: none")
    overwrite: bool = param(default=False, doc="replace the file if it is there already")

    _file: NewFile | None = None

    def check(self) -> None:
        if self.path:
            self._file = NewFile(self.name, self.path, self.overwrite)

    def start(self) -> None:
        self._close()
        self._formats = np.zeros(mode_s.COMM_D + 1, np.int64)
        self._candidates = np.zeros(len(Candidate), np.int64)
        self._positions = np.zeros(len(Position), np.int64)
        self._strict = 0
        #: Messages per stream, address and interrogator code that wait for it to be believed.
        self._doubtful: Counter[tuple[str, int, int]] = Counter()
        self._aircraft: set[int] = set()
        self._callsigns: dict[int, str] = {}
        self._trail: deque[tuple[int, float, float, float]] = deque(maxlen=DRAWN)
        self._epochs: dict[str, float] = {}  # of streams [s]

    def open(self, stream: str, info: StreamInfo) -> None:
        self._epochs[stream] = info.epoch_utc_ns / 1e9

    def process(
        self,
        candidate_status: UInt8[Array, "candidate"],
        messages: UInt8[Array, "message byte"],
        message_bits: Int16[Array, "message"],
        message_time: Float64[Array, "message"],
        message_format: UInt8[Array, "message"],
        message_address: UInt32[Array, "message"],
        message_interrogator: UInt8[Array, "message"],
        message_strict: UInt8[Array, "message"],
        type_code: Int8[Array, "message"],
        latitude: Float64[Array, "message"],
        longitude: Float64[Array, "message"],
        position_status: UInt8[Array, "message"],
        altitude: Float64[Array, "message"],
        ground_speed: Float64[Array, "message"],
        track: Float64[Array, "message"],
        indicated_airspeed: Float64[Array, "message"],
        true_airspeed: Float64[Array, "message"],
        heading: Float64[Array, "message"],
        vertical_rate: Float64[Array, "message"],
        containment: Float64[Array, "message"],
        callsign: UInt8[Array, "message character"],
        squawk: Int16[Array, "message"],
        on_ground: Int8[Array, "message"],
        info: FrameInfo = FrameInfo(),
    ) -> None:
        self._candidates += np.bincount(candidate_status, minlength=len(Candidate))
        if not len(messages):
            return
        self._formats += np.bincount(message_format, minlength=mode_s.COMM_D + 1)
        self._positions += np.bincount(position_status, minlength=len(Position))
        self._count_strict(info.stream, message_address, message_interrogator, message_strict)
        clean = np.isin(message_format, mode_s.BARE) & (message_interrogator == 0)
        self._aircraft.update(message_address[clean].tolist())
        for row in np.flatnonzero(callsign[:, 0]).tolist():
            address = int(message_address[row])
            self._callsigns[address] = callsign[row].tobytes().decode("ascii").strip()
        told = np.isfinite(latitude)
        columns = (message_address, latitude, longitude, altitude)
        self._trail.extend(zip(*(column[told].tolist() for column in columns), strict=True))
        if self._file is not None:
            said = {
                "latitude": latitude, "longitude": longitude, "altitude": altitude,
                "ground_speed": ground_speed, "track": track,
                "indicated_airspeed": indicated_airspeed, "true_airspeed": true_airspeed,
                "heading": heading, "vertical_rate": vertical_rate, "containment": containment,
            }  # fmt: skip
            epoch_s = self._epochs.get(info.stream, 0.0)
            for row, message in enumerate(messages):
                line: dict[str, Any] = {
                    "time": round(epoch_s + float(message_time[row]), 6),
                    "stream": info.stream,
                    "address": f"{message_address[row]:06X}",
                    "format": int(message_format[row]),
                    "strict": bool(message_strict[row]),
                    "message": message[: message_bits[row] // 8].tobytes().hex().upper(),
                }
                if type_code[row] >= 0:
                    line["type_code"] = int(type_code[row])
                if callsign[row, 0]:
                    line["callsign"] = callsign[row].tobytes().decode("ascii").strip()
                if squawk[row] >= 0:
                    line["squawk"] = f"{squawk[row]:04d}"
                if on_ground[row] >= 0:
                    line["on_ground"] = bool(on_ground[row])
                for name, column in said.items():
                    if np.isfinite(column[row]):
                        line[name] = round(float(column[row]), DECIMALS)
                self._file.write(json.dumps(line).encode() + b"\n")

    def _count_strict(self, stream: str, addresses: Array, codes: Array, strict: Array) -> None:
        """Count strict messages, and those that were in doubt until their code is believed."""
        self._strict += int(strict.sum())
        for row in np.flatnonzero(codes).tolist():
            sent = stream, int(addresses[row]), int(codes[row])
            if strict[row]:
                self._strict += self._doubtful.pop(sent, 0)
            else:
                self._doubtful[sent] += 1

    def finish(self) -> list[None]:
        self._close()
        return []

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()

    def report(self, folder: Path | None) -> Mapping[str, Any]:
        told = int(self._positions[Position.PAIR] + self._positions[Position.NEAR])
        found: dict[str, Any] = {
            "messages": int(self._formats.sum()),
            "strict_messages": self._strict,
            "aircraft": len(self._aircraft),
            "positions": told,
        }
        found |= {f"df{kind}": int(self._formats[kind]) for kind in np.flatnonzero(self._formats)}
        for kinds, counts, name in (
            (list(Candidate)[1:], self._candidates, "rejected"),
            (list(Position)[3:], self._positions, "position"),
        ):
            found |= {f"{name}_{kind.name.lower()}": int(counts[kind]) for kind in kinds}
        if folder is not None and self._trail:
            positions.draw(
                folder / "positions.png", np.array(self._trail), self._label, "altitude [ft]",
                "aircraft",
            )  # fmt: skip
            found["picture"] = "positions.png"
        return found

    def _label(self, address: int) -> str:
        return self._callsigns.get(address, f"{address:06X}")

    def state(self) -> Mapping[str, Array | Scalar]:
        notes = {
            "callsigns": list(self._callsigns.items()),
            "doubtful": [[*sent, count] for sent, count in self._doubtful.items()],
        }
        return {
            "formats": self._formats.copy(),
            "candidates": self._candidates.copy(),
            "positions": self._positions.copy(),
            "strict": self._strict,
            "aircraft": np.array(sorted(self._aircraft), np.uint32),
            "trail": np.array(self._trail, float).reshape(-1, 4),
            "notes": json.dumps(notes),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._formats = np.array(state["formats"])
        self._candidates = np.array(state["candidates"])
        self._positions = np.array(state["positions"])
        self._strict = int(state["strict"])
        self._aircraft = set(state["aircraft"].tolist())
        self._trail = deque(map(tuple, state["trail"].tolist()), maxlen=DRAWN)
        notes = json.loads(state["notes"])
        self._callsigns = dict(notes["callsigns"])
        self._doubtful = Counter({tuple(sent): count for *sent, count in notes["doubtful"]})
