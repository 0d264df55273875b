"""Where the elements of a frame stand among all that a block has been handed."""

from __future__ import annotations

from pipeline.frame import FrameInfo


class Position:
    """Counts what passes a block: symbols of a channel, or words of a decoder.

    It starts at the clock of the stream and counts from there: where an encoder before the
    channel makes two code bits of one bit, the clock goes on half as fast as the symbols.
    """

    def __init__(self) -> None:
        self.next = -1  # not known before the first frame

    def take(self, info: FrameInfo, count: int) -> int:
        """Position of the first of so many that come now."""
        first = info.sample if self.next < 0 else self.next
        self.next = first + count
        return first
