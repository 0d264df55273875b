"""The max-log sum-product algorithm: how much better the best sequence is than the best with ...

Robertson, Villebrun and Hoeher, "A comparison of optimal and sub-optimal MAP decoding algorithms
operating in the log domain", ICC 1995: the sum over sequences that a posterior is made of is
replaced by its largest term. Sums of metrics take the place of products and minima that of sums,
on the trellis of kernels/trellis.py with any branch metrics; there is nothing to exponentiate, and
a factor on all metrics is the same factor on all results.

The cost of a state (or symbol) at a step is the least sum of metrics of all sequences through it,
up to a constant of the step. Every 16 steps, counted from the start of a sequence, the least entry
of a message is taken off all, so that they stay small however long the sequence.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import branch_metrics, tiles, unrolled
from blocks.kernels.caching import njit
from blocks.kernels.recursion import EVERY, SoftRecursion
from blocks.kernels.tiles import HALVES, VECTORS, WIDTH

Array = np.ndarray[Any, Any]

_VANISHES = 1e-30  # a smaller posterior is written as 0: float32 would hold it as a denormal

exp = unrolled.unrolled(unrolled.exp)


# --- One sequence ---------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def forward_step(metrics: Array, i: int, order: int, message: Array, out: Array) -> None:
    """Forward message of one step: the least sum of metrics of a sequence that ends in a state.

    metrics   (time, n_branches or n_states)  row i is used
    message   (n_states,)  before
    out       (n_states,)  written
    """
    n_states = message.size
    older = n_states // order
    stride = n_states if metrics.shape[1] > n_states else 0
    for base in range(older):
        for newest in range(order):
            s = base * order + newest
            value = metrics[i, s] + message[base]
            for d in range(1, order):
                value = min(value, metrics[i, s + d * stride] + message[base + d * older])
            out[s] = value


@njit(cache=True, nogil=True)
def backward_step(metrics: Array, i: int, order: int, message: Array, out: Array) -> None:
    """Backward message of one step: the least sum of metrics of what may follow a state.

    metrics  (time, n_branches or n_states)  row i is used
    message  (n_states,)  after
    out      (n_states,)  written
    """
    n_states = message.size
    older = n_states // order
    stride = n_states if metrics.shape[1] > n_states else 0
    for d in range(order):
        for base in range(older):
            s = base * order
            value = metrics[i, s + d * stride] + message[s]
            for newest in range(1, order):
                other = metrics[i, s + newest + d * stride] + message[s + newest]
                value = min(value, other)
            out[base + d * older] = value


@njit(cache=True, nogil=True)
def cost_step(
    forward: Array, backward: Array, costs: Array, posterior: Array, scratch: Array
) -> None:
    """What the best sequence through each symbol costs at one step, and through each state.

    forward    (n_states,)
    backward   (n_states,)
    costs      (order,)     written: least cost of the newest symbol; the least is 0
    posterior  (n_states,)  written: exp(-cost), scaled to sum to one; left out if it has length 0
    scratch    (n_states,)
    """
    n_states, order = backward.size, costs.size
    costs[:] = np.inf
    for base in range(n_states // order):
        for newest in range(order):
            s = base * order + newest
            costs[newest] = min(costs[newest], forward[s] + backward[s])
    least = costs[0]
    for newest in range(1, order):
        least = min(least, costs[newest])
    if posterior.size:
        total = least - least
        for s in range(n_states):
            scratch[s] = exp(least - (forward[s] + backward[s]))  # of the best: 1
            total += scratch[s]
        for s in range(n_states):
            posterior[s] = scratch[s] / total if scratch[s] > _VANISHES else 0.0
    for newest in range(order):
        costs[newest] -= least


@njit(cache=True, nogil=True)
def forward(metrics: Array, first: int, order: int, messages: Array) -> None:
    """Forward messages of steps first, first + 1 ... of a sequence.

    metrics   (time, n_branches or n_states)  of these steps
    messages  (length + 1, n_states)  row i is that before step i; written from first + 1 on
    """
    for i in range(first, first + metrics.shape[0]):
        forward_step(metrics, i - first, order, messages[i], messages[i + 1])
        if (i + 1) % EVERY == 0:
            tiles.normalise(messages[i + 1])


@njit(cache=True, nogil=True)
def backward(
    metrics: Array, first: int, order: int, message: Array, scratch: Array, messages: Array,
    wanted: int, costs: Array, posterior: Array,
) -> None:  # fmt: skip
    """Costs of steps first, first + 1 ... of a sequence, and the backward message before them.

    metrics    (time, n_branches or n_states)  of these steps
    message    (n_states,)  after these steps; replaced by that before them
    scratch    (n_states,)
    messages   (length + 1, n_states)  of `forward`
    wanted     the first step whose costs are written, in row 0
    costs      (keep, order)     written
    posterior  (keep, n_states or 0)  written
    """
    for i in range(first + metrics.shape[0] - 1, first - 1, -1):
        if wanted <= i < wanted + costs.shape[0]:
            to = i - wanted
            cost_step(messages[i + 1], message, costs[to], posterior[to], scratch)
        backward_step(metrics, i - first, order, message, scratch)
        message[:] = scratch
        if i % EVERY == 0:
            tiles.normalise(message)


# --- Sequences side by side; what is flat is described by its axes --------------------------------


@unrolled.unrolled
def _step_some(
    tile: Any, step: Any, slopes: Any, offsets: Any, row: Any, width: Any, stride: Any,
    messages: Any, here: Any, there: Any, older: Any, base: Any, order: Any, block: Any, parts: Any,
    backwards: Any,
) -> None:  # fmt: skip
    """`forward_step` for what follows `len(block)` states and their likes, or `backward_step`.

    backwards   one number: from the states that follow to those before; none: the other way
    """
    symbols = len(order)
    values = branch_metrics.values_in_lanes(tile, step, parts)
    for k in range(len(block)):
        before = [older * d + base + k for d in range(symbols)]
        after = [(base + k) * symbols + newest for newest in range(symbols)]
        ends, targets = (after, before) if backwards else (before, after)
        message = [
            [unrolled.lanes(messages, here + end * WIDTH + at) for at in HALVES] for end in ends
        ]
        for place, target in enumerate(targets):
            branches = [
                after[other] + stride * place if backwards else target + stride * other
                for other in range(symbols)
            ]
            metrics = [
                branch_metrics.in_lanes(tile, step, values, slopes, offsets, row, width, branch)
                for branch in branches
            ]
            for half, at in enumerate(HALVES):
                value = metrics[0][half] + message[0][half]
                for other in range(1, symbols):
                    value = _least(metrics[other][half] + message[other][half], value)
                unrolled.put_lanes(messages, value, there + target * WIDTH + at)


def _least(a: Any, b: Any) -> Any:
    return unrolled.where(a < b, a, b)


@unrolled.unrolled
def _costs_of_some(
    forwards: Any, forward: Any, backwards: Any, backward: Any, base: Any, costs: Any,
    order: Any, block: Any,
) -> None:  # fmt: skip
    """Lower the costs (order, WIDTH) of the newest symbol to what some states cost."""
    symbols = len(order)
    for newest in range(symbols):
        for at in HALVES:
            least = unrolled.lanes(costs, newest * WIDTH + at)
            for k in range(len(block)):
                place = ((base + k) * symbols + newest) * WIDTH + at
                cost = unrolled.lanes(forwards, forward + place)
                cost = cost + unrolled.lanes(backwards, backward + place)
                least = unrolled.where(cost < least, cost, least)
            unrolled.put_lanes(costs, least, newest * WIDTH + at)


@unrolled.unrolled
def _costs_out(costs: Any, least: Any, symbols: Any, to: Any, order: Any) -> None:
    """Write the costs of the newest symbol less the least of them, and that to `least` (WIDTH,)."""
    for at in HALVES:
        rows = [unrolled.lanes(costs, k * WIDTH + at) for k in range(len(order))]
        lowest = rows[0]
        for row in rows[1:]:
            lowest = _least(row, lowest)
        unrolled.put_lanes(least, lowest, at)
        for k, row in enumerate(rows):
            unrolled.put_lanes(symbols, row - lowest, (to * len(order) + k) * WIDTH + at)


@unrolled.unrolled
def _weights_of_some(
    forwards: Any, forward: Any, backwards: Any, backward: Any, base: Any, least: Any,
    weights: Any, total: Any, order: Any, block: Any,
) -> None:  # fmt: skip
    """Write exp(least - cost) of some states, and add them to `total` (WIDTH,)."""
    for at in HALVES:
        lowest, sum_ = unrolled.lanes(least, at), unrolled.lanes(total, at)
        for k in range(len(block) * len(order)):
            place = (base * len(order) + k) * WIDTH + at
            cost = unrolled.lanes(forwards, forward + place)
            cost = cost + unrolled.lanes(backwards, backward + place)
            weight = unrolled.exp(lowest - cost)
            unrolled.put_lanes(weights, weight, place)
            sum_ = sum_ + weight
        unrolled.put_lanes(total, sum_, at)


@unrolled.unrolled
def _shares_of_some(
    weights: Any, base: Any, total: Any, posterior: Any, to: Any, order: Any, block: Any
) -> None:
    """Write weight / total of some states as their posterior."""
    for at in HALVES:
        sum_ = unrolled.lanes(total, at)
        for k in range(len(block) * len(order)):
            place = (base * len(order) + k) * WIDTH + at
            weight = unrolled.lanes(weights, place)
            share = unrolled.where(weight > _VANISHES, weight / sum_, 0.0)
            unrolled.put_lanes(posterior, share, to + place)


class Scratch(NamedTuple):
    """What `costs_in_lanes` works in: flat, with the axes given here."""

    tile: Array  # (steps, parts or n_branches, WIDTH)
    starts: Array  # (WIDTH,) int64
    forwards: Array  # (steps + 1, n_states, WIDTH)
    backwards: Array  # (2, n_states, WIDTH)
    weights: Array  # (n_states, WIDTH)
    least: Array  # (WIDTH,)
    total: Array  # (WIDTH,)
    costs: Array  # (order, WIDTH)
    symbols: Array  # (keep, order, WIDTH)
    states: Array  # (keep, n_states or 0, WIDTH) float32


@njit(cache=True, nogil=True)
def costs_in_lanes(
    values: Array, stride_values: int, steps: int, first_row: int, slopes: Array, offsets: Array,
    rows: int, stride: int, start: Array, end: Array, first: int, scratch: Scratch,
    order: tuple[float, ...], block: tuple[float, ...], parts: tuple[float, ...],
    costs: Array, posterior: Array,
) -> None:  # fmt: skip
    """Costs of sequences, a tile at a time.

    values      (...,)                  sequence k begins at place k stride_values
    first_row   number of the first step, as far as metrics depend on it
    start, end  (n_states,)             messages before and after: 0 or infinity
    costs       (sequences, keep, order)  written, of steps first ... first + keep - 1
    posterior   (sequences, keep, n_states or 0) float32  written
    """
    tile, starts, forwards, backwards, weights, least, total, of_step, symbols, states = scratch
    sequences, keep = costs.shape[0], costs.shape[1]
    n_states, older, width = start.size, start.size // len(order), offsets.size // rows
    size, some = n_states * WIDTH, len(block)
    flat_costs, flat_posterior = costs.reshape(-1), posterior.reshape(-1)
    with_states = posterior.shape[2] > 0
    for at in range(0, sequences, WIDTH):
        tiles.fill(values, at, sequences, stride_values, starts, tile, VECTORS)
        tiles.spread(start, forwards, 0)
        tiles.spread(end, backwards, 0)
        for i in range(steps):
            row = min(first_row + i, rows - 1)
            for base in range(0, older, some):
                _step_some(
                    tile, i, slopes, offsets, row, width, stride, forwards, i * size,
                    (i + 1) * size, older, base, order, block, parts, (),
                )  # fmt: skip
            if (i + 1) % EVERY == 0:
                tiles.take_least_off(forwards, (i + 1) * size, n_states, least, block)
        here = 0
        for i in range(steps - 1, first - 1, -1):
            if i < first + keep:
                to = i - first
                of_step[:] = np.inf
                for base in range(0, older, some):
                    _costs_of_some(
                        forwards, (i + 1) * size, backwards, here, base, of_step, order, block
                    )
                _costs_out(of_step, least, symbols, to, order)
                if with_states:
                    total[:] = 0.0
                    for base in range(0, older, some):
                        _weights_of_some(
                            forwards, (i + 1) * size, backwards, here, base, least, weights,
                            total, order, block,
                        )  # fmt: skip
                    for base in range(0, older, some):
                        _shares_of_some(weights, base, total, states, to * size, order, block)
            row, there = min(first_row + i, rows - 1), size - here
            for base in range(0, older, some):
                _step_some(
                    tile, i, slopes, offsets, row, width, stride, backwards, here, there,
                    older, base, order, block, parts, (0.0,),
                )  # fmt: skip
            here = there
            if i % EVERY == 0:
                tiles.take_least_off(backwards, here, n_states, least, block)
        tiles.empty_out(symbols, keep * len(order), at, sequences, starts, flat_costs, VECTORS)
        tiles.empty_out(
            states, keep * posterior.shape[2], at, sequences, starts, flat_posterior, VECTORS
        )


@njit(cache=True, nogil=True)
def decide(costs: Array, alphabet: Array, limit: float, symbols: Array, llr: Array) -> None:
    """The symbols of the best sequences, and log-likelihood ratios of their bits.

    costs     (n, order)
    alphabet  (order,)
    symbols   (n,)       written: of equal ones the first
    llr       (n, bits)  written [nat], within +-limit: what bit 0 costs more than bit 1
    """
    n, order = costs.shape
    if order == 2:  # what follows, in a form that vectorises
        low, high, most = alphabet[0], alphabet[1], llr.dtype.type(limit)
        for i in range(n):
            more = costs[i, 0] - costs[i, 1]
            symbols[i] = high if more > 0 else low
            llr[i, 0] = max(-most, min(more, most))
        return
    for i in range(n):
        best = 0
        for symbol in range(1, order):
            if costs[i, symbol] < costs[i, best]:
                best = symbol
        symbols[i] = alphabet[best]
        for bit in range(llr.shape[1]):
            zero = one = np.inf
            for symbol in range(order):
                if symbol >> bit & 1:
                    one = min(one, costs[i, symbol])
                else:
                    zero = min(zero, costs[i, symbol])
            llr[i, bit] = max(-limit, min(zero - one, limit))


# --- Both forms behind one call -------------------------------------------------------------------


class MaxLog(SoftRecursion):
    """What the best sequences cost.

    `decide` returns the costs of the newest symbol, (sequences, keep, order) in the dtype of the
    metrics, the least 0; and posteriors of the states, (sequences, keep, n_states) float32, in
    proportion to exp(-cost), or of no columns where they are not asked for.
    """

    def _one(
        self, values: Array, place: int, steps: int, first_row: int, start: Array, end: Array,
        first: int, results: tuple[Array, ...],
    ) -> None:  # fmt: skip
        messages = self._room("forwards", (steps + 1) * self.n_states).reshape(steps + 1, -1)
        messages[0], message = self._costs(start), self._costs(end)
        scratch = self._room("scratch", self.n_states)
        for at, metrics in self._chunks(values, place, steps, first_row):
            forward(metrics, at, self.order, messages)
        for at, metrics in self._chunks(values, place, steps, first_row, backwards=True):
            backward(metrics, at, self.order, message, scratch, messages, first, *results)

    def _side_by_side(
        self, values: Array, stride: int, steps: int, first_row: int, start: Array, end: Array,
        first: int, results: tuple[Array, ...],
    ) -> None:  # fmt: skip
        costs, posterior = results
        metrics, keep, n_states = self.metrics, costs.shape[1], self.n_states
        scratch = Scratch(
            tile=self._room("tile", steps * metrics.values * WIDTH),
            starts=self._room("starts", WIDTH, np.int64),
            forwards=self._room("forwards", (steps + 1) * n_states * WIDTH),
            backwards=self._room("backwards", 2 * n_states * WIDTH),
            weights=self._room("weights", n_states * WIDTH),
            least=self._room("least", WIDTH),
            total=self._room("total", WIDTH),
            costs=self._room("costs", self.order * WIDTH),
            symbols=self._room("symbols", keep * self.order * WIDTH),
            states=self._room("states", keep * posterior.shape[2] * WIDTH, np.float32),
        )
        costs_in_lanes(
            values, stride * metrics.values, steps, first_row, metrics.slopes.reshape(-1),
            metrics.offsets.reshape(-1), metrics.rows, self.stride, self._costs(start),
            self._costs(end), first, scratch, *self._sizes(16 // self.order), costs, posterior,
        )  # fmt: skip
