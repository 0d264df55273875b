"""Which block serves each stream where another one has taken its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipeline.frame import Array, Frame, Scalar
from pipeline.plan import Planned
from pipeline.swaps import SwapLog, Use

Latest = tuple[Frame, Mapping[str, Array]]  # a frame as it came, and its fields later on


class Takeovers:
    """Marks frames with what decided them, and writes down from which frame on.

    Frames that the block of the flow decides before it is replaced have no mark.

    planned  the block that serves: at first that of the flow
    log      where it is written down
    repeat   what another run did: (stream, first seq) -> block; None: this run has its own
    """

    def __init__(
        self,
        planned: Planned,
        log: SwapLog | None = None,
        repeat: Mapping[tuple[str, int], tuple[Planned, Use]] | None = None,
    ) -> None:
        self.planned = planned
        self.use: Use | None = None  # the same, once it is another block
        self.count = 0
        self.repeats = repeat is not None
        self._repeat = repeat or {}
        self._log = log
        self._serving: dict[str, Use] = {}  # by stream
        self._logged: dict[str, Use] = {}

    def opens(self, stream: str) -> None:
        """A stream has started; in a replay the block of the flow serves it at first."""
        if self.use is not None and not self.repeats:
            self._serving[stream] = self.use

    def due(self, frame: Frame) -> tuple[Planned, Use] | None:
        """The block that took over in the other run, to decide this frame."""
        return self._repeat.get((frame.stream, frame.seq))

    def replaced(self, planned: Planned, use: Use, streams: Iterable[str]) -> None:
        """Another block serves these streams now."""
        self.planned, self.use = planned, use
        self.count += 1
        self._serving.update(dict.fromkeys(streams, use))

    def marked(self, frame: Frame) -> Frame:
        """The data frame that is decided now, with the mark that says by what."""
        use = self._serving.get(frame.stream)
        if use is None:
            return frame
        name = self.planned.name
        if self._logged.get(frame.stream) is not use:
            self._logged[frame.stream] = use
            if self._log is not None:
                self._log.replaced(name, frame.stream, frame.seq, use)
        mark: dict[str, Scalar] = {f"{name}.use": use.use}
        return frame._replace(marks={**frame.marks, **mark})


__all__ = ["Latest", "Takeovers"]
