"""Samples from a file or a pipe."""

from __future__ import annotations

import io
import os
import select
import stat
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Complex64, Float32

from blocks import fields
from blocks.formats import sigmf, wav
from blocks.formats.encoding import RAW, Recorded, whole_samples
from pipeline.block import FieldType, Gap, Source, param
from pipeline.errors import ParameterError, RunError
from pipeline.frame import Array, Scalar, StreamInfo

Format = Literal["auto", "cu8", "cs8", "cs16", "cf32", "f32", "s16", "wav", "sigmf"]


class Samples(NamedTuple):
    """What a frame starts with."""

    samples: Annotated[Float32[Array, "time"] | Complex64[Array, "time"], fields.SAMPLES]


class Recording(Source, name="source.recording"):
    """The samples of a recording, in order, the last partial frame included.

    Anything but a regular file is read as a pipe: standard input ("-"), a named pipe, a device.
    A pipe carries raw samples, is never read ahead of the frame at hand, and cannot be replayed.

    Whole numbers become -1 ... 1: cu8 is (n - 127.5) / 127.5, signed 8, 16, 24 and 32 bits are
    divided by 2^(bits - 1), WAV bytes are (n - 128) / 128. Floating point is taken as it is, NaN
    and infinity included. One channel is real, two are I and Q.

    Where a SigMF recording says that samples were lost (core:global_index), the frame ends there
    and a gap follows, as in the stream that was recorded. With `loop` the frames run on across
    the seam.

    samples    (length,) float32 or complex64, at full scale 1; the last frame may be shorter

    Raises ParameterError, when it is made, for a file that is missing, empty, cut short or of
    another format, and where a parameter contradicts the metadata; RunError while it runs, if a
    file shrinks or a pipe ends inside a sample (all whole samples are delivered before).
    """

    path: str = param(doc='file to read; "-": standard input')
    format: Format = param(
        default="auto",
        doc="how the samples are stored; auto: by the ending of the name, or a SigMF pair",
    )
    rate_hz: float = param(
        default=0.0, at_least=0.0, unit="Hz", doc="samples per second; 0: as the metadata say"
    )
    centre_hz: float = param(
        default=0.0, unit="Hz", doc="radio frequency at 0 Hz; 0: as the metadata say"
    )
    length: int = param(default=4096, at_least=1, unit="samples", doc="samples per frame")
    frames: int = param(default=0, at_least=0, unit="frames", doc="frames to read; 0: all")
    pace: Literal["fast", "real-time"] = param(
        default="fast", doc="as fast as possible, or as fast as it was recorded (sets `rate`)"
    )
    loop: bool = param(default=False, doc="begin again at the end, without end")
    continuous: bool = param(
        default=True, doc="consecutive samples were consecutive on the air; false: snipped"
    )
    channels: wav.Channels = param(
        default="iq", doc="the two channels of a WAV file: I and Q, or the one to keep"
    )
    scaled: bool = param(
        default=True, doc="whole numbers as -1 ... 1; false: as stored, less the zero level"
    )
    verify: bool = param(default=False, doc="compare with the SHA-512 in SigMF metadata first")

    _file: io.FileIO | io.BufferedReader | None = None
    _stdin_begun = False  # some of it is gone

    def check(self) -> None:
        self._recorded = recorded = self._look()
        if self.verify:
            sigmf.verify(recorded)
        self._lost = dict(recorded.gaps)
        #: Positions in the file that a frame does not cross.
        self._stops = [*self._lost, recorded.samples or 0]
        self._rate_hz = self._agreed("rate_hz", self.rate_hz, recorded.rate_hz)
        self._centre_hz = self._agreed("centre_hz", self.centre_hz, recorded.centre_hz)
        if self.loop and recorded.samples is None:
            raise ParameterError("loop = true, but a pipe cannot be read again")
        if self.pace == "real-time":
            if not self._rate_hz:
                raise ParameterError(
                    f'pace = "real-time" needs to know the sample rate, and {self.path} does not '
                    "tell; give rate_hz"
                )
            if self.rate not in (0.0, self._rate_hz / self.length):
                raise ParameterError(
                    f'rate = {self.rate} frames/s, but pace = "real-time" makes it '
                    f"{self._rate_hz / self.length}; leave one of them out"
                )

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        return {"samples": FieldType.of(self._recorded.encoding.dtype, "time")}

    def describe(self) -> StreamInfo:
        recorded = self._recorded
        return StreamInfo(
            rate_hz=self._rate_hz,
            epoch_utc_ns=recorded.epoch_utc_ns,
            centre_hz=self._centre_hz,
            format=recorded.format,
            continuous=self.continuous and recorded.continuous,
            replayable=recorded.samples is not None,
        )

    def start(self) -> None:
        self.close()
        self._file = self._open()
        self._place = 0  # samples read; of a file, the next sample's position in it
        self._sent = 0  # frames
        self._told = False  # of the gap at this place
        self._torn = 0  # bytes of a last sample that did not come whole
        self._ended = False
        if self.pace == "real-time":
            self.rate = self._rate_hz / self.length

    def process(self) -> Samples | Gap | None:
        if self._file is None or (self.frames and self._sent >= self.frames):
            return None
        if self._recorded.samples is None:
            raw = self._from_pipe(self._file)
        else:
            lost = self._lost.get(self._place, 0)
            if lost and not self._told:
                self._told = True
                return Gap(lost)
            raw = self._from_file(self._file, self._recorded.samples)
        if raw.size == 0:
            return None
        self._sent += 1
        return Samples(self._recorded.encoding.decode(raw, self.scaled))

    def frames_left(self) -> int | None:
        most = self.frames - self._sent if self.frames else None
        if self._recorded.samples is None or self.loop:
            return most
        left, place = 0, self._place
        for stop in self._stops:
            if stop > place:
                left += -(-(stop - place) // self.length)
                place = stop
        return left if most is None else min(left, most)

    def state(self) -> Mapping[str, Array | Scalar]:
        return {"place": self._place, "sent": self._sent, "told": self._told}

    def restore(self, state: Mapping[str, Any]) -> None:
        if self._file is None or self._recorded.samples is None:
            raise RunError(f"{self.name}: {self._where()} is a pipe; it cannot be read again")
        place = int(state["place"])
        if not 0 <= place <= self._recorded.samples:
            raise RunError(
                f"{self.name}: cannot go on at sample {place} of {self.path}, which has "
                f"{self._recorded.samples}"
            )
        self._place, self._sent, self._told = place, int(state["sent"]), bool(state["told"])
        self._seek(self._file)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()  # standard input itself stays open
            self._file = None

    def _look(self) -> Recorded:
        """What `path` is, without reading samples; ParameterError where it cannot be read."""
        if self.path == "-":
            return self._look_at_pipe()
        path = Path(self.path).expanduser()
        kind = self.format if self.format != "auto" else _format_by_name(path)
        if kind == "sigmf" and path.suffix != sigmf.ARCHIVE:
            recorded = sigmf.read(path)
            _try_to_open(recorded.path)
            return recorded
        try:
            mode = path.stat().st_mode
        except (OSError, ValueError) as error:
            raise ParameterError(_cannot_read(path, error)) from None
        if stat.S_ISDIR(mode):
            raise ParameterError(f"{path} is a folder; expected a file of samples")
        if not stat.S_ISREG(mode):
            return self._look_at_pipe()
        _try_to_open(path)
        size = path.stat().st_size
        if size == 0:
            raise ParameterError(f"{path} is empty")
        if kind == "sigmf":
            return sigmf.read(path)
        if kind == "wav":
            return wav.read(path, self.channels)
        encoding = RAW.get(kind)
        if encoding is None:
            raise ParameterError(
                f"cannot tell the format of {path} by its name; give format: one of "
                f"{', '.join(RAW)}, wav, sigmf"
            )
        samples = whole_samples(path, size, encoding)
        return Recorded(path, encoding, kind, samples=samples)

    def _look_at_pipe(self) -> Recorded:
        kind = _format_by_name(Path(self.path)) if self.format == "auto" else str(self.format)
        if kind not in RAW:
            raise ParameterError(
                f"format = {self.format!r}, but {self._where()} is a pipe, which carries raw "
                f"samples; give format: one of {', '.join(RAW)}"
            )
        return Recorded(Path(self.path).expanduser(), RAW[kind], kind)

    def _where(self) -> str:
        return "standard input" if self.path == "-" else self.path

    def _agreed(self, name: str, given: float, found: float) -> float:
        if given and found and given != found:
            raise ParameterError(
                f"{name} = {given} Hz, but {self._recorded.said_by} says {found} Hz; leave "
                f"{name} out"
            )
        return given or found

    def _open(self) -> io.FileIO | io.BufferedReader:
        recorded = self._recorded
        if self.path == "-" and self._stdin_begun:
            raise RunError(f"{self.name}: standard input cannot be read again")
        try:
            if self.path == "-":
                file = io.FileIO(0, closefd=False)
                if file.isatty():
                    raise RunError(
                        f"{self.name}: standard input is the terminal; pipe samples into it"
                    )
                return file
            if recorded.samples is None:
                return io.FileIO(recorded.path)
            regular = recorded.path.open("rb")
        except OSError as error:
            raise RunError(f"{self.name}: {_cannot_read(self._where(), error)}") from None
        size = os.fstat(regular.fileno()).st_size
        if size < recorded.offset + recorded.samples * recorded.encoding.bytes:
            regular.close()
            raise self._shrunk()
        regular.seek(recorded.offset)
        return regular

    def _seek(self, file: io.FileIO | io.BufferedReader) -> None:
        file.seek(self._recorded.offset + self._place * self._recorded.encoding.bytes)

    def _from_file(self, file: io.FileIO | io.BufferedReader, samples: int) -> Array:
        """The bytes of the next frame; none at the end."""
        width = self._recorded.encoding.bytes
        wanted = self.length
        if not self.loop:
            wanted = min(wanted, samples - self._place)
        raw = np.empty(wanted * width, np.uint8)
        done = 0
        while done < wanted:
            if self._place == samples:
                self._place = 0
                self._seek(file)
            stop = self._stops[bisect_right(self._stops, self._place)]
            count = min(wanted - done, stop - self._place)
            part = raw[done * width : (done + count) * width]
            if self._fill(file, part) < part.size:
                raise self._shrunk()
            done += count
            self._place += count
            self._told = False
            if self._place == stop < samples:
                break
        return raw[: done * width]

    def _from_pipe(self, file: io.FileIO | io.BufferedReader) -> Array:
        """The bytes of the next frame; none at the end."""
        width = self._recorded.encoding.bytes
        raw = np.empty(self.length * width, np.uint8)
        got = 0
        if not self._ended:
            self._stdin_begun = self.path == "-"
            got = self._fill(file, raw)
            self._ended = got < raw.size
            self._torn = got % width
            self._place += got // width
        if got < width and self._torn:
            torn, self._torn = self._torn, 0
            raise RunError(
                f"{self.name}: {self._where()} ends inside a sample: after {self._place} samples "
                f"{torn} bytes more came, but {self._recorded.encoding.name} has {width} bytes "
                "per sample; was it cut short, or is it another format?"
            )
        return raw[: got - got % width]

    def _fill(self, file: io.FileIO | io.BufferedReader, part: Array) -> int:
        """Read until `part` is full or the file ends; returns how many bytes came."""
        view, got = part.data, 0
        try:
            while got < len(view):
                count = file.readinto(view[got:])
                if count is None:  # a pipe that someone made non-blocking
                    select.select([file], [], [])
                elif count == 0:
                    break
                else:
                    got += count
        except OSError as error:
            raise RunError(f"{self.name}: {_cannot_read(self._where(), error)}") from None
        return got

    def _shrunk(self) -> RunError:
        return RunError(
            f"{self.name}: {self._recorded.path} no longer holds the {self._recorded.samples} "
            "samples that it held when the flow was checked"
        )


def _format_by_name(path: Path) -> str:
    ending = path.suffix.lower().removeprefix(".")
    if ending in RAW or ending == "wav":
        return ending
    if path.suffix in (sigmf.META, sigmf.DATA, sigmf.ARCHIVE):
        return "sigmf"
    if not path.exists() and sigmf.beside(path, sigmf.META).exists():
        return "sigmf"
    return ""


def _try_to_open(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ParameterError(_cannot_read(path, error)) from None


def _cannot_read(what: Path | str, error: Exception) -> str:
    return f"cannot read {what}: {getattr(error, 'strerror', None) or error}"
