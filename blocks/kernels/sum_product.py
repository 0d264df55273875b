"""The sum-product algorithm: exact posteriors, for words and for streams with a fixed lag.

Shlezinger et al., "Model-Based Deep Learning", Proc. IEEE 2023: Algorithm 5 and its derivation
(F.1)-(F.5), on the trellis of kernels/trellis.py with any branch metrics. The function node (26)
is f = exp(-metric), zero between states that no branch joins; equally likely symbols add a
constant that drops out.

Probability domain, scaled: the factors of a sample are divided by the largest of them and each
message by its sum, which changes no posterior. Both are kept above a floor: denormal numbers would
make a step 5 to 20 times slower, and messages that vanish together could never recover. The floor
is such that the product of two is still a normal number: about 1e-139 in float64, 1e-17 in float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from blocks.kernels.caching import njit

Array = np.ndarray[Any, Any]

_VANISHES = 1e-30  # a smaller posterior is written as 0: float32 would hold it as a denormal


def floor_of(dtype: Any) -> Any:
    """Least factor and least entry of a message, in this dtype."""
    kind = np.dtype(dtype).type
    return kind(float(np.finfo(kind).tiny) ** 0.45)


@njit(cache=True, nogil=True)
def factor_step(metrics: Array, i: int, floor: float, factors: Array, row: int) -> None:
    """Function node (26) of one sample, scaled so that the largest factor is 1.

    metrics  (time, width)  row i is used
    factors  (depth, width)  row `row` written
    """
    width = metrics.shape[1]
    least = metrics[i, 0]
    for branch in range(1, width):
        least = min(least, metrics[i, branch])
    lowest = math.log(floor)
    for branch in range(width):
        factors[row, branch] = math.exp(max(least - metrics[i, branch], lowest))


@njit(cache=True, nogil=True)
def forward_step(
    factors: Array, row: int, order: int, floor: float, message: Array, messages: Array, to: int
) -> None:
    """Forward message of one step, (F.3).

    factors   (depth, n_branches or n_states)  row `row` is used
    message   (n_states,)  at i-1; replaced by that at i, which sums to one
    messages  (depth, n_states)  row `to` written: message at i
    """
    n_states = message.size
    older = n_states // order
    stride = n_states if factors.shape[1] > n_states else 0
    total = 0.0
    for base in range(older):
        for newest in range(order):
            s = base * order + newest
            value = factors[row, s] * message[base]
            for d in range(1, order):
                value += factors[row, s + d * stride] * message[base + d * older]
            messages[to, s] = value
            total += value
    for s in range(n_states):
        message[s] = max(messages[to, s] / total, floor)
        messages[to, s] = message[s]


@njit(cache=True, nogil=True)
def backward_step(
    factors: Array, row: int, order: int, floor: float, message: Array, scratch: Array
) -> None:
    """Backward message of one step, (F.4).

    factors  (depth, n_branches or n_states)  row `row` is used: those of sample i+1
    message  (n_states,)  at i+1; replaced by that at i, which sums to one
    scratch  (n_states,)
    """
    n_states = message.size
    older = n_states // order
    stride = n_states if factors.shape[1] > n_states else 0
    total = 0.0
    for d in range(order):
        for base in range(older):
            s = base * order
            value = factors[row, s + d * stride] * message[s]
            for newest in range(1, order):
                value += factors[row, s + newest + d * stride] * message[s + newest]
            scratch[base + d * older] = value
            total += value
    for s in range(n_states):
        message[s] = max(scratch[s] / total, floor)


@njit(cache=True, nogil=True)
def posterior_step(
    forwards: Array, row: int, order: int, backward: Array,
    posterior: Array, marginal: Array, to: int,
) -> None:  # fmt: skip
    """Posterior of the states at one step: forward times backward message, (F.5).

    forwards   (depth, n_states)  row `row` is used
    backward   (n_states,)
    posterior  (time, n_states)  row `to` written; sums to one
    marginal   (time, order)  row `to` written: posterior of the newest symbol
    """
    n_states = backward.size
    total = 0.0
    for s in range(n_states):
        total += forwards[row, s] * backward[s]
    for newest in range(order):
        marginal[to, newest] = 0.0
    for base in range(n_states // order):
        for newest in range(order):
            s = base * order + newest
            value = forwards[row, s] * backward[s] / total
            marginal[to, newest] += value
            posterior[to, s] = value if value > _VANISHES else 0.0


@njit(cache=True, nogil=True)
def to_factors(metrics: Array, floor: float, factors: Array) -> None:
    """Function node (26) of every sample, (words, time, width) each."""
    for word in range(metrics.shape[0]):
        of_word, written = metrics[word], factors[word]
        for i in range(metrics.shape[1]):
            factor_step(of_word, i, floor, written, i)


@njit(cache=True, nogil=True)
def forward(
    factors: Array, first: int, order: int, floor: float, message: Array, messages: Array
) -> None:
    """Forward messages of steps first, first + 1 ... of each word.

    factors   (words, time, n_branches or n_states)  of these steps
    message   (words, n_states)  before these steps; replaced by that after them
    messages  (words, length, n_states)  rows first, first + 1 ... written
    """
    for word in range(factors.shape[0]):
        of_word, carried, kept = factors[word], message[word], messages[word]
        for i in range(factors.shape[1]):
            forward_step(of_word, i, order, floor, carried, kept, first + i)


@njit(cache=True, nogil=True)
def backward(
    factors: Array, first: int, order: int, floor: float, message: Array, scratch: Array,
    forwards: Array, posterior: Array, marginal: Array,
) -> None:  # fmt: skip
    """Posteriors of steps first, first + 1 ... of each word, and the backward message before them.

    factors    (words, time, n_branches or n_states)  of these steps
    message    (words, n_states)  after these steps; replaced by that before them
    scratch    (n_states,)
    forwards   (words, length, n_states)  forward messages
    posterior  (words, length, n_states)  rows first, first + 1 ... written
    marginal   (words, length, order)     rows first, first + 1 ... written
    """
    for word in range(factors.shape[0]):
        of_word, carried, kept = factors[word], message[word], forwards[word]
        states, symbols = posterior[word], marginal[word]
        for i in range(factors.shape[1] - 1, -1, -1):
            to = first + i
            posterior_step(kept, to, order, carried, states, symbols, to)
            backward_step(of_word, i, order, floor, carried, scratch)


@njit(cache=True, nogil=True)
def window(
    factors: Array, forwards: Array, last: int, first: int, n: int, order: int, floor: float,
    message: Array, scratch: Array, posterior: Array, marginal: Array, to: int,
) -> None:  # fmt: skip
    """Posteriors of steps first ... first + n - 1 of a stream, seen from step `last`.

    factors    (depth, n_branches or n_states)  step i is row i mod depth
    forwards   (depth, n_states)  step i is row i mod depth
    message    (n_states,)  overwritten by the backward messages
    scratch    (n_states,)
    posterior  (time, n_states)  written from row `to` on
    marginal   (time, order)     written from row `to` on
    """
    depth = factors.shape[0]
    for s in range(message.size):
        message[s] = 1.0  # nothing is known of what follows
    for i in range(last, first - 1, -1):
        if i < first + n:
            posterior_step(forwards, i % depth, order, message, posterior, marginal, to + i - first)
        backward_step(factors, i % depth, order, floor, message, scratch)


@njit(cache=True, nogil=True)
def advance(
    metrics: Array, position: int, order: int, floor: float, forward_message: Array,
    message: Array, scratch: Array, factors: Array, forwards: Array,
    posterior: Array, marginal: Array,
) -> int:  # fmt: skip
    """Steps of a stream; posteriors are written at every step that is a multiple of the lag.

    metrics          (time, width)
    position         steps taken so far
    forward_message  (n_states,)  replaced
    message          (n_states,)  overwritten
    scratch          (n_states,)
    factors          (2 lag, width)     step i is row i mod 2 lag
    forwards         (2 lag, n_states)  step i is row i mod 2 lag
    posterior        (time, n_states)  written from row 0 on
    marginal         (time, order)     written from row 0 on

    Returns the number of rows written.
    """
    depth = factors.shape[0]
    lag = depth // 2
    decided = 0
    for i in range(metrics.shape[0]):
        row = position % depth
        factor_step(metrics, i, floor, factors, row)
        forward_step(factors, row, order, floor, forward_message, forwards, row)
        position += 1
        if position % lag == 0 and position >= depth:
            window(
                factors, forwards, position - 1, position - depth, lag, order, floor,
                message, scratch, posterior, marginal, decided,
            )  # fmt: skip
            decided += lag
    return decided


class FixedLag:
    """Posteriors of one stream, each given at least `lag` samples past its own.

    Symbols are counted from the start of the stream in windows of `lag`. The posteriors of window
    k are those given all samples up to the end of window k + 1, and come then: the forward message
    is carried on, the backward message starts as ones there. So they do not depend on how the
    stream is cut. `finish` gives those of the rest given all samples.

    start   (n_states,) bool  states before the first symbol
    order   size of the alphabet
    width   metrics per sample: number of branches, or of states
    dtype   of messages and factors, and of the metrics to come
    """

    def __init__(
        self, start: Array, order: int, width: int, lag: int, dtype: Any = np.float64
    ) -> None:
        n_states = start.size
        self._order, self._lag, self._floor = order, lag, floor_of(dtype)
        self.position = 0  # samples so far
        self._forward = (start / start.sum()).astype(dtype)
        self._message, self._scratch = np.empty((2, n_states), dtype)
        self._factors = np.zeros((2 * lag, width), dtype)
        self._forwards = np.zeros((2 * lag, n_states), dtype)

    @property
    def decided(self) -> int:
        """Symbols answered so far."""
        return max(0, self.position // self._lag - 1) * self._lag

    def push(self, metrics: Array) -> tuple[Array, Array]:
        """Posteriors that these samples complete: of the states, and of the newest symbol.

        metrics   (time, width)  of the next samples

        Returns (n, n_states) float32 and (n, order) in the dtype of the messages.
        """
        before = self.decided
        position, self.position = self.position, self.position + metrics.shape[0]
        posterior, marginal = self._empty(self.decided - before)
        advance(
            metrics, position, self._order, self._floor, self._forward, self._message,
            self._scratch, self._factors, self._forwards, posterior, marginal,
        )  # fmt: skip
        return posterior, marginal

    def finish(self) -> tuple[Array, Array]:
        """Posteriors of the rest, as `push` returns them; nothing may follow."""
        first, rest = self.decided, self.position - self.decided
        posterior, marginal = self._empty(rest)
        window(
            self._factors, self._forwards, self.position - 1, first, rest, self._order,
            self._floor, self._message, self._scratch, posterior, marginal, 0,
        )  # fmt: skip
        return posterior, marginal

    def state(self) -> dict[str, Any]:
        """What is remembered."""
        return {
            "position": self.position,
            "forward": self._forward.copy(),
            "factors": self._factors.copy(),
            "forwards": self._forwards.copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` of an equal object returned."""
        self.position = int(state["position"])
        self._forward[:] = state["forward"]
        self._factors[:] = state["factors"]
        self._forwards[:] = state["forwards"]

    def _empty(self, count: int) -> tuple[Array, Array]:
        posterior = np.empty((count, self._forward.size), np.float32)
        return posterior, np.empty((count, self._order), self._forward.dtype)
