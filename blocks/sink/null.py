"""A sink for flows whose result nobody looks at, such as benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.block import Sink
from pipeline.frame import Array, Scalar


class Null(Sink, name="sink.null"):
    """Counts frames and looks at nothing in them."""

    def start(self) -> None:
        self._frames = 0

    def process(self) -> None:
        self._frames += 1

    def report(self, folder: Path | None) -> Mapping[str, Any]:
        return {"frames": self._frames}

    def state(self) -> Mapping[str, Array | Scalar]:
        return {"frames": self._frames}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._frames = int(state["frames"])
