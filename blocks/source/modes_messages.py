"""Mode S messages that some receiver wrote into a file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, Int16, UInt8

from blocks import fields
from blocks.formats.mode_s import TICKS_HZ
from blocks.kernels import mode_s
from pipeline.block import Source, param
from pipeline.errors import ParameterError, RunError
from pipeline.frame import Array, Scalar, StreamInfo

LONGEST = 10_000  # bytes of a line
_FRAME = re.compile(r"(?:[0-9A-Fa-f]{14}|[0-9A-Fa-f]{28})").fullmatch
_TIMED = re.compile(r"@([0-9A-Fa-f]{12})(\w*);").fullmatch
_BARE = re.compile(r"\*?(\w*);?").fullmatch

Form = Literal["csv", "timed", "bare"]
FORMS: Mapping[Form, str] = {
    "csv": "a unix time, a comma and a message",
    "timed": "@, 12 hexadecimal digits of time, a message and ;",
    "bare": "a message, alone or between * and ;",
}


class Candidates(NamedTuple):
    """What a frame starts with."""

    candidates: Annotated[UInt8[Array, "candidate bit"], fields.CANDIDATES]
    candidate_bits: Annotated[Int16[Array, "candidate"], fields.CANDIDATE_BITS]
    candidate_sample: Annotated[Float64[Array, "candidate"], fields.CANDIDATE_SAMPLE]
    candidate_time: Annotated[Float64[Array, "candidate"], fields.CANDIDATE_TIME]


class ModesMessages(Source, name="source.modes_messages"):
    """The messages of a text file, one a line, as candidates for `decoder.modes`.

    Messages are 14 or 28 hexadecimal digits. The first line tells which of three forms the file
    has:

    1457996400.2,8D406B90...       CSV: unix time [s], message; further columns are not read
    @0123456789AB8D406B90...;      AVR with 12 digits of a 12 MHz clock, which tell time since the
                                   first line
    *8D406B90...;                  AVR without time, or bare digits: all have time 0, and the stream
                                   is declared not continuous

    Empty lines are passed over. The clock of the stream counts messages; sample 0 is at the time of
    the first line.

    candidates        (length, 112)  uint8, bits; of short messages the last 56 are 0
    candidate_bits    (length,)      int16, 56 or 112
    candidate_sample  (length,)      float64, 0, 1, 2 ...
    candidate_time    (length,)      float64, since sample 0 [s]

    Raises ParameterError, when it is made, for a file that cannot be read or whose first line is
    none of these; RunError at a later line that is not like the first.
    """

    path: str = param(doc="file to read")
    length: int = param(default=100, at_least=1, unit="messages", doc="messages per frame")

    _file: BinaryIO | None = None

    def check(self) -> None:
        path = Path(self.path).expanduser()
        if path.is_dir():
            raise ParameterError(f"{path} is a folder; expected a file of messages")
        try:
            with path.open("rb") as file:
                line = _next_line(file)[0]
        except (OSError, ValueError) as error:
            raise ParameterError(_cannot_read(path, error)) from None
        if not line:
            raise ParameterError(f"{path} is empty")
        self._form: Form = "csv" if "," in line else "timed" if line[0] == "@" else "bare"
        first = self._parsed(line)
        if first is None:
            raise ParameterError(
                f"{path} begins with {_shown(line)}; expected {', or '.join(FORMS.values())} "
                "(14 or 28 hexadecimal digits)"
            )
        self._first_s = first[0]

    def describe(self) -> StreamInfo:
        return StreamInfo(
            epoch_utc_ns=round(self._first_s * 1e6) * 1000 if self._form == "csv" else 0,
            format=f"modes {self._form}",
            continuous=self._form != "bare",
            replayable=True,
        )

    def start(self) -> None:
        self.close()
        path = Path(self.path).expanduser()
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise RunError(f"{self.name}: {_cannot_read(path, error)}") from None
        self._line = self._sent = 0  # lines, messages read

    def process(self) -> Candidates | None:
        times: list[float] = []
        messages: list[bytes] = []
        while self._file is not None and len(messages) < self.length:
            line, count = _next_line(self._file)
            self._line += count
            if not line:
                break
            found = self._parsed(line)
            if found is None:
                raise RunError(
                    f"{self.name}: line {self._line} of {self.path} is {_shown(line)}; "
                    f"expected {FORMS[self._form]} (14 or 28 hexadecimal digits), as at first"
                )
            times.append(found[0] - self._first_s)
            messages.append(found[1])
        if not messages:
            return None
        packed = np.zeros((len(messages), mode_s.BYTES), np.uint8)
        for row, message in zip(packed, messages, strict=True):
            row[: len(message)] = np.frombuffer(message, np.uint8)
        self._sent += len(messages)
        return Candidates(
            candidates=np.unpackbits(packed, axis=1),
            candidate_bits=np.array([8 * len(message) for message in messages], np.int16),
            candidate_sample=np.arange(self._sent - len(messages), self._sent, dtype=float),
            candidate_time=np.array(times),
        )

    def state(self) -> Mapping[str, Array | Scalar]:
        place = self._file.tell() if self._file is not None else 0
        return {"place": place, "line": self._line, "sent": self._sent}

    def restore(self, state: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.seek(int(state["place"]))
        self._line, self._sent = int(state["line"]), int(state["sent"])

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _parsed(self, line: str) -> tuple[float, bytes] | None:
        """Time [s] and bytes of a line, None where it is not of the form of this file."""
        time, digits = 0.0, ""
        if self._form == "csv":
            columns = [column.strip().strip('"') for column in line.split(",")]
            try:
                time, digits = float(columns[0]), columns[1]
            except ValueError:
                return None
            if not (math.isfinite(time) and time >= 0.0):
                return None
        elif self._form == "timed" and (timed := _TIMED(line)):
            time, digits = int(timed[1], 16) / TICKS_HZ, timed[2]
        elif self._form == "bare" and (bare := _BARE(line)):
            digits = bare[1]
        return (time, bytes.fromhex(digits)) if _FRAME(digits) else None


def _next_line(file: BinaryIO) -> tuple[str, int]:
    """The next line that is not empty, or "" at the end, and how many lines were read for it."""
    count = 0
    while raw := file.readline(LONGEST):
        count += 1
        if line := raw.decode("ascii", "replace").strip():
            return line, count
    return "", count


def _shown(line: str) -> str:
    return repr(line if len(line) <= 60 else line[:60] + "...")


def _cannot_read(path: Path, error: Exception) -> str:
    return f"cannot read {path}: {getattr(error, 'strerror', None) or error}"
