"""Samples into files."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Complex64, Float32, Int8

from blocks.formats import sigmf
from pipeline.block import Sink, param
from pipeline.errors import ParameterError, RunError
from pipeline.frame import Array, FrameInfo, StreamInfo

PARTIAL = ".partial"


class Recording(Sink, name="sink.recording"):
    """A SigMF recording of the field it reads, one pair of files per stream.

    SigMF 1.2, https://sigmf.org. `path` becomes `path.sigmf-data` and `path.sigmf-meta`; a
    stream that is not called main appends its name, as in `path.rx2.sigmf-data`. Words are
    recorded one after the other. After a gap a new capture begins, whose core:global_index
    counts the samples that are missing. `source.recording` plays back the same samples, bit for
    bit (int8 with `scaled = false`, as float32 of the same value), and the same gaps.

    The files are called `.partial` until the run ends, in whatever way, and then get their names
    at once. A recording cut off by a crash or a full disk keeps that name; it can be read as raw
    samples. Starting over drops what is not finished. Nothing is forced out of the caches of the
    system: power that fails just after a run may damage a recording, which its SHA-512 tells.

    samples    (..., time) float32, complex64 or int8: rf32_le, cf32_le, ri8

    Raises ParameterError, when it is made, if the files exist or cannot be made there; RunError
    if the disk is full, and where SigMF cannot say what happens to the stream.
    """

    path: str = param(
        items_at_least=1, doc="where to record, without ending; its folder must exist"
    )
    overwrite: bool = param(default=False, doc="replace recordings that are there already")
    description: str = param(default="", doc="what is recorded, for core:description")

    def check(self) -> None:
        if self.path.endswith(("/", sigmf.ARCHIVE)) or "\0" in self.path:
            raise ParameterError(
                f"path = {self.path!r}; expected a name without ending: a pair of files "
                f"{sigmf.DATA} and {sigmf.META} is written"
            )
        self._base = sigmf.base_of(Path(self.path).expanduser())
        try:
            if not self._base.parent.is_dir():
                raise ParameterError(f"there is no folder {self._base.parent}; make it first")
            if not os.access(self._base.parent, os.W_OK | os.X_OK):
                raise ParameterError(f"files cannot be made in the folder {self._base.parent}")
            in_the_way = _in_the_way(self._base, self.overwrite)
        except OSError as error:
            raise ParameterError(f"cannot record to {self.path}: {error.strerror}") from None
        if in_the_way:
            raise ParameterError(in_the_way)

    def start(self) -> None:
        for recorder in getattr(self, "_recorders", {}).values():
            recorder.discard()
        self._recorders: dict[str, _Recorder] = {}
        self._infos: dict[str, StreamInfo] = {}

    def open(self, stream: str, info: StreamInfo) -> None:
        self._infos[stream] = info
        if stream in self._recorders:
            self._recorders[stream].describe(info)

    def process(
        self,
        samples: (
            Float32[Array, "*word time"]
            | Complex64[Array, "*word time"]
            | Int8[Array, "*word time"]
        ),
        info: FrameInfo = FrameInfo(),
    ) -> None:
        if samples.size == 0:
            return
        recorder = self._recorders.get(info.stream)
        if recorder is None:
            about = self._infos.get(info.stream, self.context.info)
            recorder = self._recorders[info.stream] = self._recorder(info.stream, about)
        recorder.write(samples, info.sample)

    def finish(self) -> list[None]:
        block, what = self.context.name, self.description or "recorded by kalvit"
        errors = []
        for stream, recorder in self._recorders.items():
            try:
                recorder.close(f"{what} (block {block}, stream {stream})", label=block)
            except RunError as error:  # the recordings of other streams are finished all the same
                errors.append(error)
        if errors:
            raise errors[0]
        return []

    def report(self, folder: Path | None) -> Mapping[str, Any]:
        recorders = self._recorders.values()
        return {
            "paths": sorted(str(recorder.data) for recorder in recorders),
            "samples": sum(recorder.samples for recorder in recorders),
            "bytes": sum(recorder.bytes for recorder in recorders),
            "seconds": sum(recorder.seconds for recorder in recorders),
            "gaps": sum(recorder.gaps for recorder in recorders),
        }

    def _recorder(self, stream: str, info: StreamInfo) -> _Recorder:
        base = self._base
        if stream != "main":
            base = sigmf.beside(base, "." + quote(stream, safe=""))
        return _Recorder(f"{self.name}: ", base, info, self.overwrite)


class _Recorder:
    """The recording of one stream."""

    def __init__(self, where: str, base: Path, info: StreamInfo, overwrite: bool) -> None:
        self._where, self._base, self._info = where, base, info
        self.data = sigmf.beside(base, sigmf.DATA + PARTIAL)  # where the samples are now
        self.samples = self.bytes = self.gaps = 0
        self._next = 0  # index of the sample after the last one, on the stream's clock
        self._dtype = ""
        self._captures: list[dict[str, Any]] = []
        self._retuned = True  # a new capture is due
        self._digest = hashlib.sha512()
        if in_the_way := _in_the_way(base, overwrite):
            raise RunError(where + in_the_way)
        try:
            self._file: io.FileIO | None = io.FileIO(self._claim(overwrite), "w")
        except BlockingIOError:
            raise RunError(
                f"{where}another recording is being made in {self.data}; record under another name"
            ) from None
        except OSError as error:
            raise RunError(f"{where}cannot make {self.data}: {error.strerror}") from None

    @property
    def seconds(self) -> float:
        """Signal time recorded, without gaps; 0 where the rate is unknown."""
        return self.samples / self._info.rate_hz if self._info.rate_hz else 0.0

    def describe(self, info: StreamInfo) -> None:
        if info.rate_hz != self._info.rate_hz:
            raise RunError(
                f"{self._where}the sample rate changes from {self._info.rate_hz} Hz to "
                f"{info.rate_hz} Hz within {self._base}; a SigMF recording has one"
            )
        self._retuned |= info != self._info
        self._info = info

    def write(self, samples: Array, first: int) -> None:
        """Append a frame whose first sample has index `first`."""
        if self._file is None:
            raise RunError(f"{self._where}{self.data} is closed; nothing more can be recorded")
        if self.samples and first < self._next:
            raise RunError(
                f"{self._where}a frame begins at sample {first}, but the stream was recorded up "
                f"to {self._next}; SigMF cannot say that a clock runs backwards"
            )
        self._dtype = samples.dtype.name
        self._append(self._file, np.ascontiguousarray(samples).reshape(-1).view(np.uint8))
        if self._retuned or first != self._next:
            self.gaps += bool(self.samples) and first != self._next
            self._captures.append(self._capture(first))
            self._retuned = False
        self.samples += samples.size
        self._next = first + samples.size

    def close(self, description: str, label: str) -> None:
        """Write the metadata and give both files their names."""
        if self.samples == 0:
            self.discard()
        if self._file is None:
            return
        metadata = sigmf.metadata(
            datatype=sigmf.DATATYPES[self._dtype],
            samples=self.samples,
            sha512=self._digest.hexdigest(),
            captures=self._captures,
            rate_hz=self._info.rate_hz,
            continuous=self._info.continuous,
            description=description,
            label=label,
        )
        meta = sigmf.beside(self._base, sigmf.META)
        unnamed = sigmf.beside(meta, PARTIAL)
        try:
            unnamed.write_text(json.dumps(metadata, indent=2) + "\n")
            # Metadata name their data: without them there is no recording, so that an old pair
            # goes and a new one comes whole.
            meta.unlink(missing_ok=True)
            self.data = self.data.replace(sigmf.beside(self._base, sigmf.DATA))
            unnamed.replace(meta)
            self._file.close()  # only now, for it holds the lock
        except OSError as error:
            with suppress(OSError):
                unnamed.unlink()
            raise RunError(
                f"{self._where}cannot finish {meta}: {error.strerror}; the {self.samples} samples "
                f"({self._dtype}) are in {self.data}"
            ) from None
        finally:
            self._file = None

    def discard(self) -> None:
        """Drop what is not finished."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self.data.unlink(missing_ok=True)

    def _capture(self, first: int) -> dict[str, Any]:
        """The capture that begins with the next sample, which has index `first`."""
        info = self._info
        capture: dict[str, Any] = {sigmf.START: self.samples}
        if first != self.samples:
            capture["core:global_index"] = first
        if info.centre_hz:
            capture["core:frequency"] = info.centre_hz
        if info.epoch_utc_ns and (info.rate_hz or first == 0):
            since = round(first * sigmf.NANOSECONDS / info.rate_hz) if first else 0
            capture["core:datetime"] = sigmf.time_text(info.epoch_utc_ns + since)
        return capture

    def _claim(self, overwrite: bool) -> int:
        """The empty file of samples, locked for as long as it is open."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.data, flags | (0 if overwrite else os.O_EXCL), 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise
        except OSError:
            pass  # a file system without locks
        os.ftruncate(descriptor, 0)
        return descriptor

    def _append(self, file: io.FileIO, raw: Array) -> None:
        """Write all of `raw`, or leave the file as it was."""
        view = raw.data
        try:
            while view:
                view = view[file.write(view) :]
        except BaseException as error:
            with suppress(OSError):
                file.truncate(self.bytes)
                file.seek(self.bytes)
            if not isinstance(error, OSError):
                raise
            self._file = None
            with suppress(OSError):
                file.close()
            raise RunError(
                f"{self._where}cannot write {self.data}: {error.strerror}; the {self.samples} "
                f"samples ({self._dtype}) recorded so far are kept there"
            ) from None
        self._digest.update(raw.data)
        self.bytes += raw.size


def _in_the_way(base: Path, overwrite: bool) -> str:
    """What keeps a recording from being made at `base`, or nothing."""
    for suffix in (sigmf.DATA, sigmf.META):
        path = sigmf.beside(base, suffix)
        if path.is_dir():
            return f"{path} is a folder; record under another name"
        if path.exists() and not overwrite:
            return f"{path} exists; record under another name, or set overwrite = true"
    partial = sigmf.beside(base, sigmf.DATA + PARTIAL)
    if partial.exists() and not overwrite:
        return (
            f"{partial} exists: a recording was cut off, or is being made; move it away, or set "
            "overwrite = true"
        )
    return ""
