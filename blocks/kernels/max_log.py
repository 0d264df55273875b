"""The max-log sum-product algorithm: how much better the best sequence is, for words and streams.

Robertson, Villebrun and Hoeher, "A comparison of optimal and sub-optimal MAP decoding algorithms
operating in the log domain", ICC 1995: the sum over sequences that a posterior is made of is
replaced by its largest term. Sums of metrics take the place of products and minima that of sums,
on the trellis of kernels/trellis.py with any branch metrics; there is nothing to exponentiate, and
a factor on all metrics is the same factor on all results.

The cost of a state (or symbol) at a step is the least sum of metrics of all sequences through it,
up to a constant of the step. Messages are shifted so that the least entry is 0, at every step, so
that they stay small however long the stream.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from blocks.kernels.caching import njit

Array = np.ndarray[Any, Any]

_VANISHES = 1e-30  # a smaller posterior is written as 0: float32 would hold it as a denormal


@njit(cache=True, nogil=True)
def forward_step(
    metrics: Array, row: int, order: int, message: Array, messages: Array, to: int
) -> None:
    """Forward message of one step: the least sum of metrics of a sequence that ends in a state.

    metrics   (depth, n_branches or n_states)  row `row` is used
    message   (n_states,)  at i-1; replaced by that at i, whose least entry is 0
    messages  (depth, n_states)  row `to` written: message at i
    """
    n_states = message.size
    older = n_states // order
    stride = n_states if metrics.shape[1] > n_states else 0
    least = np.inf
    for base in range(older):
        for newest in range(order):
            s = base * order + newest
            value = metrics[row, s] + message[base]
            for d in range(1, order):
                other = metrics[row, s + d * stride] + message[base + d * older]
                value = min(value, other)
            messages[to, s] = value
            least = min(least, value)
    for s in range(n_states):
        message[s] = messages[to, s] - least
        messages[to, s] = message[s]


@njit(cache=True, nogil=True)
def backward_step(metrics: Array, row: int, order: int, message: Array, scratch: Array) -> None:
    """Backward message of one step: the least sum of metrics of what may follow a state.

    metrics  (depth, n_branches or n_states)  row `row` is used: those of sample i+1
    message  (n_states,)  at i+1; replaced by that at i, whose least entry is 0
    scratch  (n_states,)
    """
    n_states = message.size
    older = n_states // order
    stride = n_states if metrics.shape[1] > n_states else 0
    least = np.inf
    for d in range(order):
        for base in range(older):
            s = base * order
            value = metrics[row, s + d * stride] + message[s]
            for newest in range(1, order):
                other = metrics[row, s + newest + d * stride] + message[s + newest]
                value = min(value, other)
            scratch[base + d * older] = value
            least = min(least, value)
    for s in range(n_states):
        message[s] = scratch[s] - least


@njit(cache=True, nogil=True)
def cost_step(
    forwards: Array, row: int, order: int, backward: Array,
    posterior: Array, costs: Array, to: int,
) -> None:  # fmt: skip
    """What the best sequence through each state costs at one step, and through each symbol.

    forwards   (depth, n_states)  row `row` is used
    backward   (n_states,)
    posterior  (time, n_states)  row `to` written: exp(-cost), scaled to sum to one
    costs      (time, order)     row `to` written: least cost of the newest symbol; the least is 0
    """
    n_states = backward.size
    for newest in range(order):
        costs[to, newest] = np.inf
    for base in range(n_states // order):
        for newest in range(order):
            s = base * order + newest
            costs[to, newest] = min(costs[to, newest], forwards[row, s] + backward[s])
    least = costs[to, 0]
    for newest in range(1, order):
        least = min(least, costs[to, newest])
    total = 0.0
    for s in range(n_states):
        value = math.exp(least - (forwards[row, s] + backward[s]))  # of the best: 1
        posterior[to, s] = value if value > _VANISHES else 0.0
        total += value
    for s in range(n_states):
        posterior[to, s] /= total
    for newest in range(order):
        costs[to, newest] -= least


@njit(cache=True, nogil=True)
def forward(metrics: Array, first: int, order: int, message: Array, messages: Array) -> None:
    """Forward messages of steps first, first + 1 ... of each word.

    metrics   (words, time, n_branches or n_states)  of these steps
    message   (words, n_states)  before these steps; replaced by that after them
    messages  (words, length, n_states)  rows first, first + 1 ... written
    """
    for word in range(metrics.shape[0]):
        of_word, carried, kept = metrics[word], message[word], messages[word]
        for i in range(metrics.shape[1]):
            forward_step(of_word, i, order, carried, kept, first + i)


@njit(cache=True, nogil=True)
def backward(
    metrics: Array, first: int, order: int, message: Array, scratch: Array,
    forwards: Array, posterior: Array, costs: Array,
) -> None:  # fmt: skip
    """Costs of steps first, first + 1 ... of each word, and the backward message before them.

    metrics    (words, time, n_branches or n_states)  of these steps
    message    (words, n_states)  after these steps; replaced by that before them
    scratch    (n_states,)
    forwards   (words, length, n_states)  forward messages
    posterior  (words, length, n_states)  rows first, first + 1 ... written
    costs      (words, length, order)     rows first, first + 1 ... written
    """
    for word in range(metrics.shape[0]):
        of_word, carried, kept = metrics[word], message[word], forwards[word]
        states, symbols = posterior[word], costs[word]
        for i in range(metrics.shape[1] - 1, -1, -1):
            to = first + i
            cost_step(kept, to, order, carried, states, symbols, to)
            backward_step(of_word, i, order, carried, scratch)


@njit(cache=True, nogil=True)
def window(
    metrics: Array, forwards: Array, last: int, first: int, n: int, order: int,
    message: Array, scratch: Array, posterior: Array, costs: Array, to: int,
) -> None:  # fmt: skip
    """Costs of steps first ... first + n - 1 of a stream, seen from step `last`.

    metrics    (depth, n_branches or n_states)  step i is row i mod depth
    forwards   (depth, n_states)  step i is row i mod depth
    message    (n_states,)  overwritten by the backward messages
    scratch    (n_states,)
    posterior  (time, n_states)  written from row `to` on
    costs      (time, order)     written from row `to` on
    """
    depth = metrics.shape[0]
    message[:] = 0.0  # nothing is known of what follows
    for i in range(last, first - 1, -1):
        if i < first + n:
            cost_step(forwards, i % depth, order, message, posterior, costs, to + i - first)
        backward_step(metrics, i % depth, order, message, scratch)


@njit(cache=True, nogil=True)
def advance(
    new: Array, position: int, order: int, forward_message: Array, message: Array, scratch: Array,
    metrics: Array, forwards: Array, posterior: Array, costs: Array,
) -> int:  # fmt: skip
    """Steps of a stream; costs are written at every step that is a multiple of the lag.

    new              (time, width)  metrics of these steps
    position         steps taken so far
    forward_message  (n_states,)  replaced
    message          (n_states,)  overwritten
    scratch          (n_states,)
    metrics          (2 lag, width)     step i is row i mod 2 lag
    forwards         (2 lag, n_states)  step i is row i mod 2 lag
    posterior        (time, n_states)  written from row 0 on
    costs            (time, order)     written from row 0 on

    Returns the number of rows written.
    """
    depth = metrics.shape[0]
    lag = depth // 2
    decided = 0
    for i in range(new.shape[0]):
        row = position % depth
        for branch in range(new.shape[1]):
            metrics[row, branch] = new[i, branch]
        forward_step(metrics, row, order, forward_message, forwards, row)
        position += 1
        if position % lag == 0 and position >= depth:
            window(
                metrics, forwards, position - 1, position - depth, lag, order,
                message, scratch, posterior, costs, decided,
            )  # fmt: skip
            decided += lag
    return decided


class FixedLag:
    """Costs of one stream, each given at least `lag` samples past its own.

    Windows are those of sum_product.FixedLag: symbols are counted from the start of the stream in
    windows of `lag`, and window k is that given all samples up to the end of window k + 1.

    start   (n_states,) bool  states before the first symbol
    order   size of the alphabet
    width   metrics per sample: number of branches, or of states
    dtype   of messages and of the metrics to come
    """

    def __init__(
        self, start: Array, order: int, width: int, lag: int, dtype: Any = np.float64
    ) -> None:
        n_states = start.size
        self._order, self._lag = order, lag
        self.position = 0  # samples so far
        self._forward = np.where(start, 0.0, np.inf).astype(dtype)
        self._message, self._scratch = np.empty((2, n_states), dtype)
        self._metrics = np.zeros((2 * lag, width), dtype)
        self._forwards = np.zeros((2 * lag, n_states), dtype)

    @property
    def decided(self) -> int:
        """Symbols answered so far."""
        return max(0, self.position // self._lag - 1) * self._lag

    def push(self, metrics: Array) -> tuple[Array, Array]:
        """What these samples complete: posteriors of the states, costs of the newest symbol.

        metrics   (time, width)  of the next samples

        Returns (n, n_states) float32 and (n, order) in the dtype of the messages.
        """
        before = self.decided
        position, self.position = self.position, self.position + metrics.shape[0]
        posterior, costs = self._empty(self.decided - before)
        advance(
            metrics, position, self._order, self._forward, self._message, self._scratch,
            self._metrics, self._forwards, posterior, costs,
        )  # fmt: skip
        return posterior, costs

    def finish(self) -> tuple[Array, Array]:
        """Those of the rest, as `push` returns them; nothing may follow."""
        first, rest = self.decided, self.position - self.decided
        posterior, costs = self._empty(rest)
        window(
            self._metrics, self._forwards, self.position - 1, first, rest, self._order,
            self._message, self._scratch, posterior, costs, 0,
        )  # fmt: skip
        return posterior, costs

    def state(self) -> dict[str, Any]:
        """What is remembered."""
        return {
            "position": self.position,
            "forward": self._forward.copy(),
            "metrics": self._metrics.copy(),
            "forwards": self._forwards.copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` of an equal object returned."""
        self.position = int(state["position"])
        self._forward[:] = state["forward"]
        self._metrics[:] = state["metrics"]
        self._forwards[:] = state["forwards"]

    def _empty(self, count: int) -> tuple[Array, Array]:
        posterior = np.empty((count, self._forward.size), np.float32)
        return posterior, np.empty((count, self._order), self._forward.dtype)
