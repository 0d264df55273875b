"""The sum-product algorithm: exact posteriors of symbols and states.

Shlezinger et al., "Model-Based Deep Learning", Proc. IEEE 2023: Algorithm 5 and its derivation
(F.1)-(F.5), on the trellis of kernels/trellis.py with any branch metrics. The function node (26)
is f = exp(-metric), zero between states that no branch joins; equally likely symbols add a
constant that drops out.

Probability domain, scaled: the factors of a sample are divided by the largest of them and each
message by its largest entry, which changes no posterior. Both are kept above a floor, but for the
zeros of states that cannot be reached: denormal numbers would make a step 5 to 20 times slower, and
messages that vanish together could never recover. The floor is such that the product of two is
still a normal number, about 1e-17 in float32 and 1e-139 in float64: log-likelihood ratios hold up
to 39 or 319 nats.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import branch_metrics, tiles, unrolled
from blocks.kernels.caching import njit
from blocks.kernels.recursion import SoftRecursion
from blocks.kernels.tiles import HALVES, VECTORS, WIDTH

Array = np.ndarray[Any, Any]

_VANISHES = 1e-30  # a smaller posterior is written as 0: float32 would hold it as a denormal

# Rounded as they are where sequences run side by side, so that both forms agree.
exp = unrolled.unrolled(unrolled.exp)
fma = unrolled.unrolled(unrolled.fma)


def floor_of(dtype: Any) -> Any:
    """Least factor and least entry of a message, in this dtype."""
    kind = np.dtype(dtype).type
    return kind(float(np.finfo(kind).tiny) ** 0.45)


# --- One sequence ---------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def to_factors(metrics: Array, floor: float, factors: Array) -> None:
    """Function nodes (26), scaled so that the largest of each sample is 1.

    A sample of which all metrics are infinite tells nothing: all its factors are the floor.

    metrics  (time, width)
    factors  (time, width)  written
    """
    for i in range(metrics.shape[0]):
        least = metrics.dtype.type(np.inf)
        for branch in range(metrics.shape[1]):
            if metrics[i, branch] < least:
                least = metrics[i, branch]
        for branch in range(metrics.shape[1]):
            factor = exp(least - metrics[i, branch])
            factors[i, branch] = factor if factor > floor else floor  # so is what is NaN


@njit(cache=True, nogil=True)
def scale(message: Array, floor: float) -> None:
    """Divide by the largest entry, and keep what is not 0 above the floor."""
    most = message[0]
    for s in range(1, message.size):
        most = max(most, message[s])
    over = message.dtype.type(1.0) / most
    for s in range(message.size):
        value = message[s] * over
        message[s] = max(value, floor) if value > 0.0 else value


@njit(cache=True, nogil=True)
def forward_step(
    factors: Array, i: int, order: int, floor: float, message: Array, out: Array
) -> None:
    """Forward message of one step, (F.3).

    factors   (time, n_branches or n_states)  row i is used
    message   (n_states,)  before
    out       (n_states,)  written; the largest entry is 1
    """
    n_states = message.size
    older = n_states // order
    stride = n_states if factors.shape[1] > n_states else 0
    for base in range(older):
        for newest in range(order):
            s = base * order + newest
            value = factors[i, s] * message[base]
            for d in range(1, order):
                value = fma(factors[i, s + d * stride], message[base + d * older], value)
            out[s] = value
    scale(out, floor)


@njit(cache=True, nogil=True)
def backward_step(
    factors: Array, i: int, order: int, floor: float, message: Array, out: Array
) -> None:
    """Backward message of one step, (F.4).

    factors  (time, n_branches or n_states)  row i is used
    message  (n_states,)  after
    out      (n_states,)  written; the largest entry is 1
    """
    n_states = message.size
    older = n_states // order
    stride = n_states if factors.shape[1] > n_states else 0
    for d in range(order):
        for base in range(older):
            s = base * order
            value = factors[i, s + d * stride] * message[s]
            for newest in range(1, order):
                value = fma(factors[i, s + newest + d * stride], message[s + newest], value)
            out[base + d * older] = value
    scale(out, floor)


@njit(cache=True, nogil=True)
def posterior_step(forward: Array, backward: Array, marginal: Array, posterior: Array) -> None:
    """Posterior of the symbol, and of the states, at one step: forward times backward, (F.5).

    forward    (n_states,)
    backward   (n_states,)
    marginal   (order,)          written: posterior of the newest symbol
    posterior  (n_states or 0,)  written; sums to one
    """
    n_states, order = backward.size, marginal.size
    for newest in range(order):
        marginal[newest] = forward[newest] * backward[newest]
        for s in range(newest + order, n_states, order):
            marginal[newest] = fma(forward[s], backward[s], marginal[newest])
    total = marginal[0]
    for newest in range(1, order):
        total += marginal[newest]
    over = marginal.dtype.type(1.0) / total
    for newest in range(order):
        marginal[newest] *= over
    for s in range(posterior.size):
        value = forward[s] * backward[s] * over
        posterior[s] = value if value > _VANISHES else 0.0


@njit(cache=True, nogil=True)
def forward(factors: Array, first: int, order: int, floor: float, messages: Array) -> None:
    """Forward messages of steps first, first + 1 ... of a sequence.

    factors   (time, n_branches or n_states)  of these steps
    messages  (length + 1, n_states)  row i is that before step i; written from first + 1 on
    """
    for i in range(first, first + factors.shape[0]):
        forward_step(factors, i - first, order, floor, messages[i], messages[i + 1])


@njit(cache=True, nogil=True)
def backward(
    factors: Array, first: int, order: int, floor: float, message: Array, scratch: Array,
    messages: Array, wanted: int, marginal: Array, posterior: Array,
) -> None:  # fmt: skip
    """Posteriors of steps first, first + 1 ... of a sequence, and the backward message before them.

    factors    (time, n_branches or n_states)  of these steps
    message    (n_states,)  after these steps; replaced by that before them
    scratch    (n_states,)
    messages   (length + 1, n_states)  of `forward`
    wanted     the first step whose posteriors are written, in row 0
    marginal   (keep, order)          written
    posterior  (keep, n_states or 0)  written
    """
    for i in range(first + factors.shape[0] - 1, first - 1, -1):
        if wanted <= i < wanted + marginal.shape[0]:
            to = i - wanted
            posterior_step(messages[i + 1], message, marginal[to], posterior[to])
        backward_step(factors, i - first, order, floor, message, scratch)
        message[:] = scratch


# --- Sequences side by side; what is flat is described by its axes --------------------------------


@unrolled.unrolled
def _factors_of_some(
    metrics: Any, least: Any, floor: Any, branch: Any, factors: Any, to: Any, order: Any, block: Any
) -> None:
    """`to_factors` for some branches, of metrics (width, WIDTH), from place `to` on."""
    for k in range(len(order) * len(block)):
        for at in HALVES:
            place = (branch + k) * WIDTH + at
            exponent = unrolled.lanes(least, at) - unrolled.lanes(metrics, place)
            factor = unrolled.exp(exponent)
            unrolled.put_lanes(factors, _most(factor, floor), to + place)


@unrolled.unrolled
def _step_some(
    factors: Any, of_step: Any, stride: Any, messages: Any, here: Any, there: Any, older: Any,
    base: Any, most: Any, order: Any, block: Any, backwards: Any,
) -> None:  # fmt: skip
    """`forward_step` for what follows `len(block)` states and their likes, or `backward_step`.

    Unscaled.

    most        (WIDTH,)  raised to the largest entries
    backwards   one number: from the states that follow to those before; none: the other way
    """
    symbols = len(order)
    for at in HALVES:
        largest = unrolled.lanes(most, at)
        for k in range(len(block)):
            before = [older * d + base + k for d in range(symbols)]
            after = [(base + k) * symbols + newest for newest in range(symbols)]
            ends, targets = (after, before) if backwards else (before, after)
            message = [unrolled.lanes(messages, here + end * WIDTH + at) for end in ends]
            for place, target in enumerate(targets):
                branches = [
                    after[other] + stride * place if backwards else target + stride * other
                    for other in range(symbols)
                ]
                of_branches = [
                    unrolled.lanes(factors, of_step + branch * WIDTH + at) for branch in branches
                ]
                value = of_branches[0] * message[0]
                for factor, entry in zip(of_branches[1:], message[1:], strict=True):
                    value = unrolled.fma(factor, entry, value)
                unrolled.put_lanes(messages, value, there + target * WIDTH + at)
                largest = _most(value, largest)
        unrolled.put_lanes(most, largest, at)


@unrolled.unrolled
def _scale_some(messages: Any, place: Any, most: Any, floor: Any, order: Any, block: Any) -> None:
    """`scale` for some states, from a place on."""
    for at in HALVES:
        over = 1.0 / unrolled.lanes(most, at)
        for k in range(len(order) * len(block)):
            row = unrolled.lanes(messages, place + k * WIDTH + at) * over
            row = unrolled.where(row > 0.0, _most(row, floor), row)
            unrolled.put_lanes(messages, row, place + k * WIDTH + at)


@unrolled.unrolled
def _marginals_of_some(
    forwards: Any, forward: Any, backwards: Any, backward: Any, base: Any, marginals: Any,
    order: Any, block: Any,
) -> None:  # fmt: skip
    """Add forward times backward message of some states to `marginals` (order, WIDTH)."""
    for newest in range(len(order)):
        for at in HALVES:
            sum_ = unrolled.lanes(marginals, newest * WIDTH + at)
            for k in range(len(block)):
                place = ((base + k) * len(order) + newest) * WIDTH + at
                before = unrolled.lanes(forwards, forward + place)
                sum_ = unrolled.fma(before, unrolled.lanes(backwards, backward + place), sum_)
            unrolled.put_lanes(marginals, sum_, newest * WIDTH + at)


@unrolled.unrolled
def _marginals_out(marginals: Any, over: Any, symbols: Any, to: Any, order: Any) -> None:
    """Write marginals that sum to one, and what they were multiplied by to `over` (WIDTH,)."""
    for at in HALVES:
        rows = [unrolled.lanes(marginals, k * WIDTH + at) for k in range(len(order))]
        total = rows[0]
        for row in rows[1:]:
            total = total + row
        factor = 1.0 / total
        unrolled.put_lanes(over, factor, at)
        for k, row in enumerate(rows):
            unrolled.put_lanes(symbols, row * factor, (to * len(order) + k) * WIDTH + at)


@unrolled.unrolled
def _posteriors_of_some(
    forwards: Any, forward: Any, backwards: Any, backward: Any, base: Any, over: Any,
    states: Any, to: Any, order: Any, block: Any,
) -> None:  # fmt: skip
    """Write the posterior of some states, from place `to` on."""
    for at in HALVES:
        factor = unrolled.lanes(over, at)
        for k in range(len(order) * len(block)):
            place = (base * len(order) + k) * WIDTH + at
            before = unrolled.lanes(forwards, forward + place)
            value = before * unrolled.lanes(backwards, backward + place) * factor
            unrolled.put_lanes(states, unrolled.where(value > _VANISHES, value, 0.0), to + place)


def _most(a: Any, b: Any) -> Any:
    return unrolled.where(b < a, a, b)


class Scratch(NamedTuple):
    """What `posteriors_in_lanes` works in: flat, with the axes given here."""

    tile: Array  # (steps, parts or n_branches, WIDTH)
    starts: Array  # (WIDTH,) int64
    metrics: Array  # (n_branches, WIDTH)
    factors: Array  # (steps, n_branches, WIDTH)
    forwards: Array  # (steps + 1, n_states, WIDTH)
    backwards: Array  # (2, n_states, WIDTH)
    row: Array  # (WIDTH,)
    marginals: Array  # (order, WIDTH)
    symbols: Array  # (keep, order, WIDTH)
    states: Array  # (keep, n_states or 0, WIDTH) float32


@njit(cache=True, nogil=True)
def posteriors_in_lanes(
    values: Array, stride_values: int, steps: int, first_row: int, slopes: Array, offsets: Array,
    rows: int, stride: int, start: Array, end: Array, floor: float, first: int, scratch: Scratch,
    order: tuple[float, ...], block: tuple[float, ...], parts: tuple[float, ...],
    marginal: Array, posterior: Array,
) -> None:  # fmt: skip
    """Posteriors of sequences, a tile at a time.

    values      (...,)                  sequence k begins at place k stride_values
    first_row   number of the first step, as far as metrics depend on it
    start, end  (n_states,)             messages before and after
    marginal    (sequences, keep, order)  written, of steps first ... first + keep - 1
    posterior   (sequences, keep, n_states or 0) float32  written
    """
    tile, starts, metrics, factors, forwards, backwards, row, marginals, symbols, states = scratch
    sequences, keep = marginal.shape[0], marginal.shape[1]
    n_states, older, width = start.size, start.size // len(order), offsets.size // rows
    size, some = n_states * WIDTH, len(block)
    flat_marginal, flat_posterior = marginal.reshape(-1), posterior.reshape(-1)
    with_states = posterior.shape[2] > 0
    for at in range(0, sequences, WIDTH):
        tiles.fill(values, at, sequences, stride_values, starts, tile, VECTORS)
        tiles.spread(start, forwards, 0)
        tiles.spread(end, backwards, 0)
        for i in range(steps):
            branch_metrics.write_all(
                tile, i, slopes, offsets, min(first_row + i, rows - 1), width, metrics, order,
                block, parts,
            )  # fmt: skip
            tiles.least_of(metrics, 0, width, row, block)
            of_step = i * width * WIDTH
            for branch in range(0, width, some * len(order)):
                _factors_of_some(metrics, row, floor, branch, factors, of_step, order, block)
            row[:] = 0.0
            here, there = i * size, (i + 1) * size
            for base in range(0, older, some):
                _step_some(
                    factors, of_step, stride, forwards, here, there, older, base, row, order,
                    block, (),
                )  # fmt: skip
            for s in range(0, size, some * len(order) * WIDTH):
                _scale_some(forwards, there + s, row, floor, order, block)
        here = 0
        for i in range(steps - 1, first - 1, -1):
            if i < first + keep:
                to, before = i - first, (i + 1) * size
                marginals[:] = 0.0
                for base in range(0, older, some):
                    _marginals_of_some(
                        forwards, before, backwards, here, base, marginals, order, block
                    )
                _marginals_out(marginals, row, symbols, to, order)
                if with_states:
                    for base in range(0, older, some):
                        _posteriors_of_some(
                            forwards, before, backwards, here, base, row, states, to * size,
                            order, block,
                        )  # fmt: skip
            row[:] = 0.0
            there, of_step = size - here, i * width * WIDTH
            for base in range(0, older, some):
                _step_some(
                    factors, of_step, stride, backwards, here, there, older, base, row, order,
                    block, (0.0,),
                )  # fmt: skip
            for s in range(0, size, some * len(order) * WIDTH):
                _scale_some(backwards, there + s, row, floor, order, block)
            here = there
        tiles.empty_out(symbols, keep * len(order), at, sequences, starts, flat_marginal, VECTORS)
        tiles.empty_out(
            states, keep * posterior.shape[2], at, sequences, starts, flat_posterior, VECTORS
        )


@njit(cache=True, nogil=True, error_model="numpy")
def decide(marginal: Array, alphabet: Array, symbols: Array, odds: Array) -> None:
    """The most likely symbols, and the odds of their bits.

    marginal  (n, order)  posterior of the symbols
    alphabet  (order,)
    symbols   (n,)        written: of equal ones the first
    odds      (n, bits)   written: probability of bit 1 over that of bit 0, infinite if that is 0
    """
    n, order = marginal.shape
    if order == 2:  # what follows, in a form that vectorises
        low, high = alphabet[0], alphabet[1]
        for i in range(n):
            zero, one = marginal[i, 0], marginal[i, 1]
            symbols[i] = high if one > zero else low
            odds[i, 0] = one / zero  # one of the two is not 0
        return
    for i in range(n):
        best = 0
        for symbol in range(1, order):
            if marginal[i, symbol] > marginal[i, best]:
                best = symbol
        symbols[i] = alphabet[best]
        for bit in range(odds.shape[1]):
            zero = one = marginal.dtype.type(0.0)
            for symbol in range(order):
                if symbol >> bit & 1:
                    one += marginal[i, symbol]
                else:
                    zero += marginal[i, symbol]
            odds[i, bit] = one / zero  # one of the two is not 0


# --- Both forms behind one call -------------------------------------------------------------------


class SumProduct(SoftRecursion):
    """Posteriors given all samples of a sequence.

    `decide` returns those of the newest symbol, (sequences, keep, order) in the dtype of the
    metrics, and of the states, (sequences, keep, n_states) float32, or of no columns where they are
    not asked for.
    """

    def _one(
        self, values: Array, place: int, steps: int, first_row: int, start: Array, end: Array,
        first: int, results: tuple[Array, ...],
    ) -> None:  # fmt: skip
        dtype, floor = self.metrics.dtype, floor_of(self.metrics.dtype)
        messages = self._room("forwards", (steps + 1) * self.n_states).reshape(steps + 1, -1)
        messages[0], message = start, end.astype(dtype)
        scratch = self._room("scratch", self.n_states)
        factors = self._room("factors", min(self.metrics.chunk, steps) * self.metrics.width)
        for at, metrics in self._chunks(values, place, steps, first_row):
            some = factors[: metrics.size].reshape(metrics.shape)
            to_factors(metrics, floor, some)
            forward(some, at, self.order, floor, messages)
        for at, metrics in self._chunks(values, place, steps, first_row, backwards=True):
            some = factors[: metrics.size].reshape(metrics.shape)
            to_factors(metrics, floor, some)
            backward(some, at, self.order, floor, message, scratch, messages, first, *results)

    def _side_by_side(
        self, values: Array, stride: int, steps: int, first_row: int, start: Array, end: Array,
        first: int, results: tuple[Array, ...],
    ) -> None:  # fmt: skip
        marginal, posterior = results
        metrics, keep, n_states = self.metrics, marginal.shape[1], self.n_states
        scratch = Scratch(
            tile=self._room("tile", steps * metrics.values * WIDTH),
            starts=self._room("starts", WIDTH, np.int64),
            metrics=self._room("metrics", metrics.width * WIDTH),
            factors=self._room("factors", steps * metrics.width * WIDTH),
            forwards=self._room("forwards", (steps + 1) * n_states * WIDTH),
            backwards=self._room("backwards", 2 * n_states * WIDTH),
            row=self._room("row", WIDTH),
            marginals=self._room("marginals", self.order * WIDTH),
            symbols=self._room("symbols", keep * self.order * WIDTH),
            states=self._room("states", keep * posterior.shape[2] * WIDTH, np.float32),
        )
        posteriors_in_lanes(
            values, stride * metrics.values, steps, first_row, metrics.slopes.reshape(-1),
            metrics.offsets.reshape(-1), metrics.rows, self.stride, start.astype(metrics.dtype),
            end.astype(metrics.dtype), floor_of(metrics.dtype), first, scratch,
            *self._sizes(8 // self.order), marginal, posterior,
        )  # fmt: skip
