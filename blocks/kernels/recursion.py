"""Recursions over a trellis for many sequences: one after the other, or side by side in lanes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from blocks.kernels import tiles
from blocks.kernels.trellis import Metrics
from blocks.kernels.windows import Windows

Array = np.ndarray[Any, Any]
Sizes = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]

_MOST = 1 << 28  # bytes of scratch for sequences side by side; longer ones go one by one

#: Steps from one normalisation of path metrics to the next, counted from the start of a sequence.
EVERY = 16


class Recursion(ABC):
    """Decides sequences over one trellis.

    Two forms do the same arithmetic in the same order, so that their results are equal to the last
    bit: the plain one reads like the equations, takes any alphabet, and one sequence after the
    other; the other takes alphabets of 2 and 4 symbols and tiles.WIDTH sequences side by side.

    metrics   how branch metrics come from what `decide` is given
    order     size of the alphabet
    start     (n_states,) bool  states before the first symbol of a stream or word
    lanes     whether sequences may be decided side by side
    """

    def __init__(self, metrics: Metrics, order: int, start: Array, *, lanes: bool = True) -> None:
        self.metrics, self.order, self.start = metrics, order, start
        self.n_states = start.size
        self.older = start.size // order  # states before, for each symbol that drops out
        #: places from a branch into a state to the next; 0 where they share their metric
        self.stride = self.n_states if metrics.width > self.n_states else 0
        self._lanes = lanes and order in (2, 4)
        self._any = np.ones(start.size, bool)
        self._scratch: dict[str, Array] = {}

    @abstractmethod
    def empty(self, *shape: int) -> tuple[Array, ...]:
        """Room for the results of so many (sequences, steps)."""

    def decide(
        self, values: Array, sequences: int, stride: int, steps: int, *,
        at_start: bool, end: Array | None = None, first: int = 0, keep: int | None = None,
    ) -> tuple[Array, ...]:  # fmt: skip
        """Results (sequences, keep, ...) of sequences of equal length.

        values    (...,)   as `metrics.flat` gives them; sequence k begins at step k stride
        steps     of each sequence
        at_start  they are starts of streams or words; else anything went before
        end       (n_states,) bool  states after the last step; None: any
        first     the first step whose results are wanted
        keep      and how many; all if not given
        """
        keep = steps - first if keep is None else keep
        results = self.empty(sequences, keep)
        if sequences == 0 or keep == 0:
            return results
        first_row = 0 if at_start else self.metrics.rows  # what metrics depend on
        start, end = self.start if at_start else self._any, self._any if end is None else end
        if self._lanes and self._scratch_of(steps) <= _MOST:
            self._side_by_side(values, stride, steps, first_row, start, end, first, results)
        else:
            size = stride * self.metrics.values
            for k in range(sequences):
                own = tuple(result[k] for result in results)
                self._one(values, k * size, steps, first_row, start, end, first, own)
        return results

    def stream(self, window: int, lag: int) -> Windows:
        """Decides a stream of values, as `metrics.flat` gives them."""
        empty = tuple(one[0] for one in self.empty(1, 0))
        return Windows(
            self.decide, empty, values=self.metrics.values, dtype=self.metrics.dtype,
            window=window, lag=lag,
        )  # fmt: skip

    @abstractmethod
    def _scratch_of(self, steps: int) -> int:
        """Bytes that a tile of so many steps takes."""

    @abstractmethod
    def _one(
        self, values: Array, place: int, steps: int, first_row: int, start: Array, end: Array,
        first: int, results: tuple[Array, ...],
    ) -> None:  # fmt: skip
        """Write the results (keep, ...) of the sequence from this place on."""

    @abstractmethod
    def _side_by_side(
        self, values: Array, stride: int, steps: int, first_row: int, start: Array, end: Array,
        first: int, results: tuple[Array, ...],
    ) -> None:  # fmt: skip
        """Write the results (sequences, keep, ...) of all sequences."""

    def _room(self, name: str, count: int, dtype: Any = None) -> Array:
        """Scratch of that size; what it held before is lost."""
        dtype = np.dtype(self.metrics.dtype if dtype is None else dtype)
        found = self._scratch.get(name)
        if found is None or found.size < count:
            found = self._scratch[name] = tiles.empty(count, dtype)
        return found[:count]

    def _costs(self, possible: Array) -> Array:
        """0 for states that are possible, and infinity, (n_states,)."""
        number = self.metrics.dtype.type
        costs: Array = np.where(possible, number(0.0), number(np.inf))
        return costs

    def _sizes(self, butterflies: int) -> Sizes:
        """Tuples as long as the alphabet, as many butterflies as to unroll, parts of a sample."""
        most = min(self.older, max(1, butterflies))
        return (0.0,) * self.order, (0.0,) * most, (0.0,) * self.metrics.parts

    def _chunks(
        self, values: Array, place: int, steps: int, first_row: int, *, backwards: bool = False
    ) -> Iterator[tuple[int, Array]]:
        """Metrics (some steps, width) of the sequence from this place on, and their first step."""
        at_once = min(self.metrics.chunk, steps)
        room = self._room("metrics", at_once * self.metrics.width)
        starts = range(0, steps, at_once)
        for at in reversed(starts) if backwards else starts:
            yield at, self.metrics(
                values, place + at * self.metrics.values, min(at_once, steps - at),
                first_row + at, room,
            )  # fmt: skip


class SoftRecursion(Recursion):
    """A recursion whose results are numbers for each symbol, and for each state if wanted.

    states   whether those of the states are wanted
    """

    def __init__(
        self, metrics: Metrics, order: int, start: Array, *, states: bool = True, lanes: bool = True
    ) -> None:
        super().__init__(metrics, order, start, lanes=lanes)
        self._states = start.size if states else 0

    def empty(self, *shape: int) -> tuple[Array, ...]:
        return (
            np.empty((*shape, self.order), self.metrics.dtype),
            np.empty((*shape, self._states), np.float32),
        )

    def _scratch_of(self, steps: int) -> int:
        numbers = self.metrics.values + 3 * self.n_states + self.metrics.width
        return int(steps * numbers * self.metrics.dtype.itemsize * tiles.WIDTH)
