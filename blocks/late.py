"""Answers that come late, cut back into the frames they belong to."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.errors import FieldError
from pipeline.frame import Array


class LateRows:
    """Collects rows as they are decided, some time later, and hands them out frame by frame.

    empty   one array of no rows per output: gives dtype and row shape

    >>> late = LateRows(np.empty(0, np.int8))
    >>> late.expect(2), late.expect(0), late.expect(3)
    (None, None, None)
    >>> late.add(np.array([1, -1, 1], np.int8))
    >>> late.complete()
    [(array([ 1, -1], dtype=int8),), (array([], dtype=int8),)]
    """

    def __init__(self, *empty: Array) -> None:
        self._pieces: list[list[Array]] = [[rows] for rows in empty]
        self._have = 0
        self._lengths: deque[int] = deque()

    def expect(self, length: int) -> None:
        """A frame of so many rows has come in."""
        self._lengths.append(length)

    def check_idle(self, where: str) -> None:
        """FieldError if frames wait: words, answered at once, would be taken for theirs."""
        if self._lengths:
            raise FieldError(
                f"{where}: words came in the middle of a stream, of which {len(self._lengths)} "
                "frames are unanswered; finish() it first, or give words to a block of their own"
            )

    def add(self, *rows: Array) -> None:
        """The next rows of every output."""
        self._have += rows[0].shape[0]
        for pieces, new in zip(self._pieces, rows, strict=True):
            pieces.append(new)

    def complete(self) -> list[tuple[Array, ...]]:
        """The outputs of all frames that are complete, oldest first; never written again."""
        frames: list[tuple[Array, ...]] = []
        if not self._lengths or self._have < self._lengths[0]:
            return frames
        whole = [np.concatenate(pieces) for pieces in self._pieces]
        at = 0
        while self._lengths and at + self._lengths[0] <= self._have:
            stop = at + self._lengths.popleft()
            frames.append(tuple(rows[at:stop] for rows in whole))
            at = stop
        self._have -= at
        self._pieces = [[rows[at:].copy()] for rows in whole]
        return frames

    def state(self) -> dict[str, Any]:
        """What waits, as arrays."""
        rows = {f"late_{n}": np.concatenate(pieces) for n, pieces in enumerate(self._pieces)}
        return {"late_lengths": np.array(self._lengths, np.int64), **rows}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` of an equal object returned."""
        self._lengths = deque(int(length) for length in state["late_lengths"])
        self._pieces = [[np.array(state[f"late_{n}"])] for n in range(len(self._pieces))]
        self._have = self._pieces[0][0].shape[0]
