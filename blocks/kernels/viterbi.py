"""The Viterbi algorithm: the most likely sequence, for words and for streams with a fixed lag.

Forney, "The Viterbi algorithm", Proc. IEEE 61(3), 1973, on the trellis of kernels/trellis.py with
any branch metrics. The survivor of a state is kept as the symbol that its best branch drops out of
memory. Path metrics are scaled down at every step so that the best is 0: they stay small however
long the stream and whatever constants the metrics carry, and no step depends on how it was cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from blocks.kernels.caching import njit

Array = np.ndarray[Any, Any]


@njit(cache=True, nogil=True)
def step(
    metrics: Array, i: int, order: int, path: Array, scratch: Array, survivors: Array, row: int
) -> None:
    """Add, compare, select: one trellis step. Of equal branches the first survives.

    metrics    (time, n_branches or n_states)  row i is used
    path       (n_states,)  path metrics, replaced; the best becomes 0
    scratch    (n_states,)
    survivors  (time, n_states) uint8  row `row` written: symbol dropped by the best branch
    """
    n_states = path.size
    older = n_states // order  # states before, for each symbol that drops out
    stride = n_states if metrics.shape[1] > n_states else 0
    for base in range(older):
        for newest in range(order):
            s = base * order + newest
            best = path[base] + metrics[i, s]
            choice = 0
            for d in range(1, order):
                candidate = path[base + d * older] + metrics[i, s + d * stride]
                if candidate < best:
                    best = candidate
                    choice = d
            scratch[s] = best
            survivors[row, s] = choice
    least = scratch[0]
    for s in range(1, n_states):
        least = min(least, scratch[s])
    for s in range(n_states):
        path[s] = scratch[s] - least


@njit(cache=True, nogil=True)
def best_state(path: Array) -> int:
    """The state with the least path metric; of equal ones the first."""
    best = 0
    for s in range(1, path.size):
        if path[s] < path[best]:
            best = s
    return best


@njit(cache=True, nogil=True)
def trace_back(
    survivors: Array, state: int, last: int, first: int, order: int, symbols: Array, to: int, n: int
) -> None:
    """Follow the survivors from a state at step `last` back to step `first`.

    survivors  (depth, n_states) uint8  step i is row i mod depth
    symbols    (...,) uint8  written from place `to` on: symbols of steps first ... first + n - 1
    """
    depth, n_states = survivors.shape
    older = n_states // order
    for i in range(last, first - 1, -1):
        if i < first + n:
            symbols[to + i - first] = state % order
        state = state // order + np.int64(survivors[i % depth, state]) * older


@njit(cache=True, nogil=True)
def forward(
    metrics: Array, first: int, order: int, path: Array, scratch: Array, survivors: Array
) -> None:
    """Trellis steps first, first + 1 ... of each word.

    metrics    (words, time, n_branches or n_states)  of these steps
    path       (words, n_states)  path metrics, replaced
    scratch    (n_states,)
    survivors  (words, length, n_states) uint8  rows first, first + 1 ... written
    """
    for word in range(metrics.shape[0]):
        of_word, paths, decisions = metrics[word], path[word], survivors[word]
        for i in range(metrics.shape[1]):
            step(of_word, i, order, paths, scratch, decisions, first + i)


@njit(cache=True, nogil=True)
def decide(survivors: Array, path: Array, order: int, symbols: Array) -> None:
    """Full traceback of each word from its best final state.

    survivors  (words, length, n_states) uint8
    path       (words, n_states)  final path metrics
    symbols    (words, length) uint8  written
    """
    length = survivors.shape[1]
    for word in range(path.shape[0]):
        state = best_state(path[word])
        trace_back(survivors[word], state, length - 1, 0, order, symbols[word], 0, length)


@njit(cache=True, nogil=True)
def advance(
    metrics: Array, position: int, order: int, path: Array, scratch: Array, survivors: Array,
    symbols: Array,
) -> int:  # fmt: skip
    """Trellis steps of a stream; symbols are decided at every step that is a multiple of the lag.

    metrics    (time, n_branches or n_states)
    position   steps taken so far
    path       (n_states,)  path metrics, replaced
    scratch    (n_states,)
    survivors  (2 lag, n_states) uint8  step i is row i mod 2 lag
    symbols    (...,) uint8  written: decided symbols

    Returns the number of symbols decided.
    """
    depth = survivors.shape[0]
    lag = depth // 2
    decided = 0
    for i in range(metrics.shape[0]):
        step(metrics, i, order, path, scratch, survivors, position % depth)
        position += 1
        if position % lag == 0 and position >= depth:
            state = best_state(path)
            first = position - depth
            trace_back(survivors, state, position - 1, first, order, symbols, decided, lag)
            decided += lag
    return decided


class FixedLag:
    """Decides the symbols of one stream, each from at least `lag` samples past its own.

    Symbols are counted from the start of the stream in windows of `lag`. Window k is decided once
    the samples of window k + 1 are in, by tracing back from the state that is best then; so the
    decisions do not depend on how the stream is cut, and each symbol costs two steps of traceback.
    `finish` traces back from the state that is best at the end.

    start   (n_states,) bool   states before the first symbol
    order   size of the alphabet
    dtype   of the path metrics and of the metrics to come
    """

    def __init__(self, start: Array, order: int, lag: int, dtype: Any = np.float32) -> None:
        self._order, self._lag = order, lag
        self.position = 0  # samples so far
        self._path = np.where(start, 0.0, np.inf).astype(dtype)
        self._scratch = np.empty_like(self._path)
        self._survivors = np.zeros((2 * lag, start.size), np.uint8)

    @property
    def decided(self) -> int:
        """Symbols decided so far."""
        return max(0, self.position // self._lag - 1) * self._lag

    def push(self, metrics: Array) -> Array:
        """Indices of the symbols that are decided with these samples, (n,) uint8.

        metrics   (time, n_branches or n_states)  of the next samples
        """
        before = self.decided
        position, self.position = self.position, self.position + metrics.shape[0]
        symbols = np.empty(self.decided - before, np.uint8)
        advance(metrics, position, self._order, self._path, self._scratch, self._survivors, symbols)
        return symbols

    def finish(self) -> Array:
        """Indices of the symbols not yet decided, (n,) uint8; nothing may follow."""
        symbols = np.empty(self.position - self.decided, np.uint8)
        trace_back(
            self._survivors, best_state(self._path), self.position - 1, self.decided,
            self._order, symbols, 0, symbols.size,
        )  # fmt: skip
        return symbols

    def state(self) -> dict[str, Any]:
        """What is remembered."""
        return {
            "position": self.position,
            "path": self._path.copy(),
            "survivors": self._survivors.copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` of an equal object returned."""
        self.position = int(state["position"])
        self._path[:] = state["path"]
        self._survivors[:] = state["survivors"]
