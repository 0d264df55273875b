"""Positions that aircraft told, from a file of tracks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64

from blocks import fields
from blocks.formats import tracks
from blocks.formats.tracks import Reports
from blocks.kernels import geodesy
from pipeline.block import Source, param
from pipeline.errors import ParameterError
from pipeline.frame import Array, Scalar, StreamInfo

Part = Literal["all", "training", "validation", "test"]
#: Shares of the aircraft: those whose tracks.share() lies there.
PARTS: Mapping[Part, tuple[float, float]] = {
    "all": (0.0, 1.0), "training": (0.0, 0.6), "validation": (0.6, 0.8), "test": (0.8, 1.0),
}  # fmt: skip


class Seen(NamedTuple):
    """What a frame starts with."""

    observations: Annotated[Float64[Array, "word time observation"], fields.OBSERVATIONS]
    interval_s: Annotated[Float64[Array, "word time"], fields.INTERVAL]


class Tracks(Source, name="source.tracks"):
    """Tracks of aircraft from a file, a word each: where they told they were, and how much later.

    Files are those of blocks/formats/tracks.py: JSON of the `traffic` package and traces of readsb,
    compressed by gzip or not. Places are measured from the first report of a word, east and north
    (kernels/geodesy.py: plane); it has the interval 0. A pause longer than `gap_s`, and `length`
    reports, end a track; what follows is another one. Shorter words end in NaN and the interval 0.

    Which aircraft are for training, validation (20 %) and test (20 %) follows from their addresses
    alone: none is ever in two parts, whatever the file.

    observations  (words, length, 2) float64 [m]; the last frame may hold fewer words
    interval_s    (words, length) float64 [s]

    Raises ParameterError, when it is made, for a file that cannot be read or is of another form,
    and where nothing is left of it.
    """

    path: str = param(doc="file of tracks to read: JSON of `traffic`, or a trace of readsb")
    part: Part = param(default="all", doc="which aircraft, by a hash of their addresses")
    gap_s: float = param(default=60.0, above=0.0, unit="s", doc="a longer pause ends a track")
    least: int = param(
        default=20, at_least=1, unit="steps", doc="tracks of fewer reports are left out"
    )
    length: int = param(default=200, at_least=1, unit="steps", doc="reports in a word at most")
    words: int = param(default=1, at_least=1, unit="words", doc="tracks per frame")
    frames: int = param(default=0, at_least=0, unit="frames", doc="frames to read; 0: all")

    def check(self) -> None:
        self._tracks = self._read()

    def describe(self) -> StreamInfo:
        return StreamInfo(format="tracks", continuous=False, replayable=True)

    def start(self) -> None:
        self._sent = 0  # words

    def process(self) -> Seen | None:
        if self.frames_left() == 0:
            return None
        words = self._tracks[self._sent : self._sent + self.words]
        self._sent += len(words)
        return seen(words, self.length)

    def frames_left(self) -> int | None:
        left = -(-(len(self._tracks) - self._sent) // self.words)
        if not self.frames:
            return left
        return max(0, min(left, self.frames - self._sent // self.words))

    def state(self) -> Mapping[str, Array | Scalar]:
        return {"sent": self._sent}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._sent = int(state["sent"])

    def _read(self) -> list[Reports]:
        path = Path(self.path).expanduser()
        try:
            stat = path.stat()
        except OSError as error:
            raise ParameterError(f"cannot read {path}: {error.strerror}") from None
        found = chosen(
            _of_file(path, stat.st_size, stat.st_mtime_ns), self.part, self.gap_s, self.least,
            self.length,
        )  # fmt: skip
        if not found:
            raise ParameterError(
                f"{path} holds no track of {self.least} reports without a pause of {self.gap_s:g} "
                f"s of the aircraft for part = {self.part!r}; lower least, or raise gap_s"
            )
        return found


@lru_cache(maxsize=1)
def _of_file(path: Path, size: int, changed_ns: int) -> list[Reports]:
    """The aircraft of a file, read once while it stays as it is: blocks are made several times."""
    return tracks.read(path)


def chosen(
    aircraft: list[Reports], part: Part, gap_s: float, least: int, length: int
) -> list[Reports]:
    """The tracks of the aircraft of one part, none of more than `length` reports."""
    low, high = PARTS[part]
    found = []
    for reports in aircraft:
        if low <= tracks.share(reports.address) < high:
            for piece in reports.pieces(gap_s, least):
                found += [piece.rows(first, length) for first in range(0, len(piece.time), length)]
    return [one for one in found if len(one.time) >= least]


def seen(words: list[Reports], length: int) -> Seen:
    """Tracks as observations, from the first report of each."""
    observations = np.full((len(words), length, 2), np.nan)
    intervals = np.zeros((len(words), length))
    for row, word in enumerate(words):
        count = len(word.time)
        geodesy.plane(word.latitude, word.longitude, observations[row, :count])
        intervals[row, 1:count] = np.diff(word.time)
    return Seen(observations, intervals)
