"""Blocks that fail on request; loaded with `--blocks tests/fault_blocks.py`."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float32

from pipeline.block import Block, Field, Sink, Source, StreamInfo, param
from pipeline.errors import RunError
from pipeline.frame import Array, FrameInfo

How = Literal["raise", "disk full", "dawdle", "sleep", "spin", "exit", "kill"]

NUMBER = Field("number of the frame, in every element")
HOW = "what goes wrong"
AT = "data frame at which it does, from 0; -1: never"
MARKER = "file to be made just before"


def fail(how: str, marker: str = "") -> None:
    """What a block may do to its worker."""
    if marker:
        Path(marker).touch()
    if how == "raise":
        raise ValueError("the cup is broken")
    if how == "disk full":
        raise RunError("cannot write /mnt/tape: No space left on device; make room")
    if how == "exit":
        sys.exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "dawdle":
        time.sleep(3.0)
    if how == "sleep":
        time.sleep(1e6)
    if how == "spin":
        from numba import njit

        @njit  # without nogil: no other thread of this worker runs any more
        def spin(counter: Any) -> None:
            while counter[0] < 1e18:
                counter[0] += 1.0

        spin(np.zeros(1))


class Numbers(NamedTuple):
    samples: Annotated[Float32[Array, "time"], NUMBER]


class FaultSource(Source, name="source.fault"):
    """Frames that carry their number, until one goes wrong."""

    bytes: int = param(default=1024, at_least=4, unit="bytes", doc="payload of a frame")
    frames: int = param(default=0, at_least=0, doc="frames to emit; 0: endless")
    how: How = param(default="raise", doc=HOW)
    at: int = param(default=-1, doc=AT)
    where: Literal["start", "process", "close"] = param(default="process", doc="in which method")
    marker: str = param(default="", doc=MARKER)

    def start(self) -> None:
        self._count = 0
        if self.where == "start" and self.at >= 0:
            fail(self.how, self.marker)

    def process(self) -> Numbers | None:
        if self._count == self.frames > 0:
            return None
        if self.where == "process" and self._count == self.at:
            fail(self.how, self.marker)
        self._count += 1
        return Numbers(np.full(self.bytes // 4, self._count - 1, np.float32))

    def close(self) -> None:
        if self.where == "close" and self.at >= 0:
            fail(self.how, self.marker)


class Fault(Block, name="frontend.fault"):
    """Lets frames pass, until one goes wrong."""

    how: How = param(default="raise", doc=HOW)
    at: int = param(default=-1, doc=AT)
    where: Literal["start", "process", "finish"] = param(default="process", doc="in which method")
    marker: str = param(default="", doc=MARKER)

    def start(self) -> None:
        self._count = 0
        if self.where == "start" and self.at >= 0:
            fail(self.how, self.marker)

    def process(self, samples: Float32[Array, "time"]) -> None:
        if self.where == "process" and self._count == self.at:
            fail(self.how, self.marker)
        self._count += 1

    def finish(self) -> list[None]:
        if self.where == "finish" and self.at >= 0:
            fail(self.how, self.marker)
        return []


class FaultSink(Sink, name="sink.fault"):
    """Counts frames, until one goes wrong."""

    how: How = param(default="raise", doc=HOW)
    at: int = param(default=-1, doc=AT)
    where: Literal["start", "open", "process", "report", "last report", "finish"] = param(
        default="process", doc="in which method"
    )
    marker: str = param(default="", doc=MARKER)
    pause: float = param(default=0.0, at_least=0.0, unit="s", doc="time to take for each frame")
    closed: str = param(default="", doc="file to be made by finish")

    def start(self) -> None:
        self._count = 0
        self._fail_in("start")

    def open(self, stream: str, info: StreamInfo) -> None:
        self._fail_in("open")

    def process(self, samples: Float32[Array, "time"], info: FrameInfo = FrameInfo()) -> None:
        if self.where == "process" and self._count == self.at:
            fail(self.how, self.marker)
        if self.pause:
            time.sleep(self.pause)
        self._count += 1

    def report(self, folder: Path | None) -> Mapping[str, Any]:
        if folder is not None:
            self._fail_in("last report")
        self._fail_in("report")
        return {"frames": self._count, "odd": [float("nan"), b"\0", 10**30, "\udcff"]}

    def finish(self) -> list[None]:
        if self.closed:
            Path(self.closed).touch()
        self._fail_in("finish")
        return []

    def _fail_in(self, where: str) -> None:
        if self.where == where and self.at >= 0:
            fail(self.how, self.marker)
