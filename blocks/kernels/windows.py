"""Streams, decided in windows on absolute step numbers: the one rule of all recursions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]


class Decide(Protocol):
    """Decides sequences of equal length, as recursion.Recursion.decide does."""

    def __call__(
        self, values: Array, sequences: int, stride: int, steps: int, *,
        at_start: bool, first: int, keep: int,
    ) -> tuple[Array, ...]:  # fmt: skip
        """Results (sequences, keep, ...), one array for each kind."""


class Windows:
    """Decides the steps of one stream in windows, counted from its start.

    Window k holds steps k window ... (k + 1) window - 1. Their results are those of the sequence
    from `lag` steps before the window, before which anything may have been, to `lag` steps past it;
    no sequence reaches further than the start of the stream and its end. What is left at its end,
    less than window + lag steps, is decided as one window. So nothing depends on how the stream is
    cut, and windows that are complete are decided side by side.

    decide   decides sequences of values
    empty    results of no step, (0, ...) each
    values   numbers per step
    dtype    of the values
    """

    def __init__(
        self, decide: Decide, empty: tuple[Array, ...], *, values: int, dtype: Any,
        window: int, lag: int,
    ) -> None:  # fmt: skip
        self._decide, self._empty, self._per_step = decide, empty, values
        self._window, self._lag = window, lag
        self._values = np.empty(0, dtype)  # of steps `_from` ... and later
        self._from = 0  # the first step that a decision to come looks at
        self._decided = 0  # steps decided; a multiple of `window`

    @property
    def steps(self) -> int:
        """Steps whose values are complete."""
        return self._from + self._values.size // self._per_step

    def push(self, values: Array) -> tuple[Array, ...]:
        """Results of the steps that are decided with these values, (n, ...) each.

        values   (n,)  the next values
        """
        window, lag = self._window, self._lag
        self._values = np.concatenate([self._values, values])
        ready = max(0, (self.steps - lag) // window - self._decided // window)
        found = [self._empty]
        while ready and self._decided <= lag:  # the start of the stream is in sight
            found.append(self._sight(window, self._decided + window + lag))
            ready -= 1
        if ready:
            first = (self._decided - lag - self._from) * self._per_step
            side_by_side = self._decide(
                self._values[first:], ready, window, window + 2 * lag,
                at_start=False, first=lag, keep=window,
            )  # fmt: skip
            rows = ready * window
            found.append(tuple(one.reshape(rows, *one.shape[2:]) for one in side_by_side))
            self._decided += ready * window
        unseen = max(0, self._decided - lag) - self._from
        if unseen:
            self._values = self._values[unseen * self._per_step :].copy()
            self._from += unseen
        return tuple(np.concatenate(pieces) for pieces in zip(*found, strict=True))

    def finish(self) -> tuple[Array, ...]:
        """Results of the steps not yet decided, (n, ...) each; nothing may follow."""
        return self._sight(self.steps - self._decided, self.steps)

    def _sight(self, keep: int, stop: int) -> tuple[Array, ...]:
        """Results from the first undecided step on, by what is kept of the stream before `stop`."""
        found = self._decide(
            self._values, 1, 0, stop - self._from,
            at_start=self._from == 0, first=self._decided - self._from, keep=keep,
        )  # fmt: skip
        self._decided += keep
        return tuple(one[0] for one in found)

    def state(self) -> dict[str, Any]:
        """What is remembered."""
        return {"values": self._values.copy(), "from": self._from, "decided": self._decided}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` of an equal object returned."""
        self._values = np.array(state["values"])
        self._from, self._decided = int(state["from"]), int(state["decided"])
