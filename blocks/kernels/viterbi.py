"""The Viterbi algorithm: the most likely sequences.

Forney, "The Viterbi algorithm", Proc. IEEE 61(3), 1973, on the trellis of kernels/trellis.py with
any branch metrics. The survivor of a state is kept as the symbol that its best branch drops out of
memory. Every 16 steps, counted from the start of a sequence, the least path metric is taken off
all, so that they stay small however long the sequence and whatever constants the metrics carry.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import branch_metrics, table, tiles, unrolled
from blocks.kernels.caching import njit
from blocks.kernels.recursion import EVERY, Recursion
from blocks.kernels.tiles import HALVES, VECTORS, WIDTH
from blocks.kernels.traced import LANES

Array = np.ndarray[Any, Any]


# --- One sequence ---------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def step(
    metrics: Array, i: int, order: int, path: Array, scratch: Array, survivors: Array, row: int
) -> None:
    """Add, compare, select: one trellis step. Of equal branches the first survives.

    metrics    (time, n_branches or n_states)  row i is used
    path       (n_states,)  path metrics, replaced
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
    for s in range(n_states):
        path[s] = scratch[s]


@njit(cache=True, nogil=True)
def forward(
    metrics: Array, first: int, order: int, path: Array, scratch: Array, survivors: Array
) -> None:
    """Trellis steps first, first + 1 ... of a sequence.

    metrics    (time, n_branches or n_states)  of these steps
    path       (n_states,)  path metrics, replaced
    scratch    (n_states,)
    survivors  (length, n_states) uint8  rows first, first + 1 ... written
    """
    for i in range(first, first + metrics.shape[0]):
        step(metrics, i - first, order, path, scratch, survivors, i)
        if (i + 1) % EVERY == 0:
            tiles.normalise(path)


@njit(cache=True, nogil=True)
def best_state(path: Array) -> int:
    """The state with the least path metric; of equal ones the first."""
    best = 0
    for s in range(1, path.size):
        if path[s] < path[best]:
            best = s
    return best


@njit(cache=True, nogil=True)
def trace_back(survivors: Array, state: int, order: int, first: int, symbols: Array) -> None:
    """Follow the survivors from a state after the last step back to step `first`.

    survivors  (length, n_states) uint8
    symbols    (n,) uint8  written: symbols of steps first ... first + n - 1
    """
    length, n_states = survivors.shape
    older = n_states // order
    for i in range(length - 1, first - 1, -1):
        if i < first + symbols.size:
            symbols[i - first] = state % order
        state = state // order + np.int64(survivors[i, state]) * older


@njit(cache=True, nogil=True)
def decide_word_by_table(
    values: Array, low: float, per_volt: float, cells: float, word: Array, beyond: Array,
    found: Array, metrics: Array, spare: Array, order: int, path: Array, end: Array,
    scratch: Array, survivors: Array, symbols: Array,
) -> None:  # fmt: skip
    """`decide_by_table` for one word: all in one call, of which a short one takes few.

    metrics     (time, n_branches)      scratch
    path, end   (n_states,)             path metrics before, replaced, and added after
    scratch     (n_states,)
    survivors   (time, n_states) uint8  scratch
    symbols     (time,) uint8           written
    """
    table.log_probabilities(values, low, per_volt, cells, word, spare, metrics)
    for k in range(beyond.size):
        metrics[beyond[k]] = found[k]
    for i in range(metrics.shape[0]):
        for branch in range(metrics.shape[1]):
            metrics[i, branch] = -metrics[i, branch]
    forward(metrics, 0, order, path, scratch, survivors)
    for s in range(path.size):
        path[s] += end[s]
    trace_back(survivors, best_state(path), order, 0, symbols)


# --- Sequences side by side; what is flat is described by its axes --------------------------------


@unrolled.unrolled
def survive(
    tile: Any, step: Any, slopes: Any, offsets: Any, row: Any, width: Any, stride: Any,
    paths: Any, here: Any, there: Any, older: Any, base: Any, words: Any, word: Any,
    order: Any, block: Any, parts: Any,
) -> None:  # fmt: skip
    """Add, compare, select for the states that follow `len(block)` states and their likes.

    paths   (2 n_states, WIDTH)  path metrics: read from place `here`, written from place `there`
    base    the first of the states before, of those whose oldest symbol is 0
    words   (..., WIDTH) int32   word `word` written: the symbols dropped by the best branches, as
            digits to base `order`, the first state lowest
    """
    symbols = len(order)
    values = branch_metrics.values_in_lanes(tile, step, parts)
    found: list[Any] = [None for _ in HALVES]
    for k in reversed(range(len(block))):
        past = [
            [unrolled.lanes(paths, here + (older * d + base + k) * WIDTH + at) for at in HALVES]
            for d in range(symbols)
        ]
        for newest in reversed(range(symbols)):
            s = (base + k) * symbols + newest
            metrics = [
                branch_metrics.in_lanes(
                    tile, step, values, slopes, offsets, row, width, s + stride * d
                )
                for d in range(symbols)
            ]
            for half, at in enumerate(HALVES):
                rivals = [past[d][half] + metrics[d][half] for d in range(symbols)]
                best, wins = _best(rivals)
                for win in wins:
                    found[half] = unrolled.shift_in(found[half], win)
                unrolled.put_lanes(paths, best, there + s * WIDTH + at)
    for half, at in enumerate(HALVES):
        unrolled.put_lanes(words, found[half], word * WIDTH + at)


def _best(rivals: list[Any]) -> tuple[Any, list[Any]]:
    """The least of two or four numbers, and the binary digits of its place, the highest first.

    A knock-out: of equal ones the first wins, as if they were compared one by one.
    """
    if len(rivals) == 2:
        second = rivals[1] < rivals[0]
        return unrolled.where(second, rivals[1], rivals[0]), [second]
    (low, (of_low,)), (high, (of_high,)) = _best(rivals[:2]), _best(rivals[2:])
    second = high < low
    return unrolled.where(second, high, low), [second, unrolled.where(second, of_high, of_low)]


@njit(cache=True, nogil=True)
def forward_lanes(
    tile: Array, steps: int, first: int, slopes: Array, offsets: Array, rows: int, stride: int,
    older: int, paths: Array, least: Array, room: Array, words: Array,
    order: tuple[float, ...], block: tuple[float, ...], parts: tuple[float, ...],
) -> int:  # fmt: skip
    """All trellis steps of a tile; returns the place in `paths` of the path metrics at the end.

    tile    (steps, parts or n_branches, WIDTH)
    first   number of the first step, as far as metrics depend on it
    paths   (2, n_states, WIDTH)  path metrics; the first half is what they are at the start
    least   (WIDTH,)              scratch
    room    (n_branches, WIDTH)   scratch
    words   (steps, n_words, WIDTH) int32  written: decisions, see `survive`
    """
    width, n_states, n_words = offsets.size // rows, older * len(order), older // len(block)
    here, other = 0, n_states * WIDTH
    for i in range(steps):
        row, there = min(first + i, rows - 1), other - here
        if len(order) == 4 and len(parts) > 0:
            # Four branches into each state: with their metrics at hand, registers suffice.
            branch_metrics.write_all(
                tile, i, slopes, offsets, row, width, room, order, block, parts
            )
            for w in range(n_words):
                survive(
                    room, 0, slopes, offsets, row, width, stride, paths, here, there, older,
                    w * len(block), words, i * n_words + w, order, block, (),
                )  # fmt: skip
        else:
            for w in range(n_words):
                survive(
                    tile, i, slopes, offsets, row, width, stride, paths, here, there, older,
                    w * len(block), words, i * n_words + w, order, block, parts,
                )  # fmt: skip
        here = there
        if (i + 1) % EVERY == 0:
            tiles.take_least_off(paths, here, n_states, least, block)
    return here


@unrolled.unrolled
def step_back(
    words: Any, step: Any, state: Any, symbols: Any, at_symbol: Any, order: Any, block: Any
) -> None:
    """One step of all tracebacks, where the decisions of a step fit into one word."""
    count = len(order)
    bits, n_states = count.bit_length() - 1, len(block) * count
    for at in HALVES:
        s = unrolled.lanes(state, at)
        unrolled.put_lanes(symbols, s & (count - 1), at_symbol * WIDTH + at)
        choice = unrolled.lanes(words, step * WIDTH + at) >> (s << (bits - 1)) & (count - 1)
        top = n_states.bit_length() - 1 - bits
        unrolled.put_lanes(state, s >> bits | choice << top, at)


@njit(cache=True, nogil=True)
def trace_back_lanes(
    words: Array, steps: int, older: int, first: int, keep: int, state: Array, symbols: Array,
    order: tuple[float, ...], block: tuple[float, ...],
) -> None:  # fmt: skip
    """Follow the survivors of a tile from the last step back to step `first`.

    words    (steps, n_words, WIDTH) int32
    state    (WIDTH,) int32        states after the last step; changed
    symbols  (keep, WIDTH) int32   written: symbols of steps first ... first + keep - 1
    """
    n_words = older // len(block)
    if n_words == 1:
        for i in range(steps - 1, first - 1, -1):
            # What lies past the steps that are wanted is written, too, and then written over.
            step_back(words, i, state, symbols, min(i - first, keep - 1), order, block)
        return
    per_word, bits = len(block) * len(order), len(order) // 2  # states, and bits of each
    for i in range(steps - 1, first - 1, -1):
        for v in range(WIDTH):
            s = np.int64(state[v])
            if i < first + keep:
                symbols[(i - first) * WIDTH + v] = s % len(order)
            word = np.int64(words[(i * n_words + s // per_word) * WIDTH + v])
            choice = word >> (s % per_word * bits) & (len(order) - 1)
            state[v] = s // len(order) + choice * older


class Scratch(NamedTuple):
    """What `decide_lanes` works in: flat, with the axes given here."""

    tile: Array  # (steps, parts or n_branches, WIDTH)
    starts: Array  # (WIDTH,) int64
    paths: Array  # (2, n_states, WIDTH)
    least: Array  # (WIDTH,)
    room: Array  # (n_branches, WIDTH)
    words: Array  # (steps, n_words, WIDTH) int32
    state: Array  # (WIDTH,) int32
    symbols: Array  # (keep, WIDTH) int32


@njit(cache=True, nogil=True)
def _end_lanes(
    steps: int, here: int, end: Array, first: int, scratch: Scratch, order: tuple[float, ...],
    block: tuple[float, ...], at: int, out: Array,
) -> None:  # fmt: skip
    """Choose the best states at the end of a tile, and write the symbols on the way there.

    here   place of the path metrics at the end
    at     number of the first sequence of the tile; the rest as in `decide_lanes`
    """
    _, starts, paths, least, _, words, state, symbols = scratch
    sequences, keep = out.shape
    n_states = end.size
    for s in range(n_states):
        for v in range(WIDTH):
            paths[here + s * WIDTH + v] += end[s]
    tiles.best_rows(paths, here, n_states, least, state)
    trace_back_lanes(
        words, steps, n_states // len(order), first, keep, state, symbols, order, block
    )
    tiles.empty_out(symbols, keep, at, sequences, starts, out.reshape(-1), VECTORS)


@njit(cache=True, nogil=True)
def decide_lanes(
    values: Array, stride_values: int, steps: int, first_row: int, slopes: Array, offsets: Array,
    rows: int, stride: int, start: Array, end: Array, first: int, scratch: Scratch,
    order: tuple[float, ...], block: tuple[float, ...], parts: tuple[float, ...], out: Array,
) -> None:  # fmt: skip
    """The most likely symbols of sequences, a tile at a time.

    values      (...,)                  sequence k begins at place k stride_values
    first_row   number of the first step, as far as metrics depend on it
    start, end  (n_states,)             path metrics before, and added after: 0 or infinity
    out         (sequences, keep) uint8 written: symbols of steps first ... first + keep - 1
    """
    tile, starts, paths, least, room, words, _, _ = scratch
    older = start.size // len(order)
    for at in range(0, out.shape[0], WIDTH):
        tiles.fill(values, at, out.shape[0], stride_values, starts, tile, VECTORS)
        tiles.spread(start, paths, 0)
        here = forward_lanes(
            tile, steps, first_row, slopes, offsets, rows, stride, older, paths, least, room,
            words, order, block, parts,
        )  # fmt: skip
        _end_lanes(steps, here, end, first, scratch, order, block, at, out)


@njit(cache=True, nogil=True)
def decide_by_table(
    values: Array, low: float, per_volt: float, cells: float, samples: Array, beyond: Array,
    found: Array, inputs: Array, metrics: Array, spare: Array, offsets: Array, stride: int,
    start: Array, end: Array, scratch: Scratch, order: tuple[float, ...],
    block: tuple[float, ...], out: Array,
) -> None:  # fmt: skip
    """The most likely symbols of words of samples, whose metrics a table gives.

    Metrics of some steps of a tile are made and used before the next: they stay in the cache.

    values ... cells   of table.branch_metrics
    samples     (words, time) float32
    beyond      (n,) int64               places of samples that the table does not reach, rising
    found       (n, n_branches)          log-probabilities of those
    inputs      (some, 2, LANES)         scratch; `some` divides by EVERY
    metrics     (some, n_branches, 2, LANES)  scratch, of which scratch.tile is the flat form
    spare       (LANES, LANES)           scratch
    offsets     (n_branches,)            zeros
    start, end  (n_states,)              path metrics before, and added after: 0 or infinity
    out         (words, time) uint8      written: symbols
    """
    tile, starts, paths, least, room, survivors, _, _ = scratch
    count, steps = samples.shape
    older, some = start.size // len(order), inputs.shape[0]
    n_words = older // len(block)
    flat, lanes = samples.reshape(-1), inputs.reshape(-1)
    here = since = till = 0
    for at in range(0, count, WIDTH):
        tiles.spread(start, paths, 0)
        since = till
        while till < beyond.size and beyond[till] < (at + WIDTH) * steps:
            till += 1
        for first in range(0, steps, some):
            now = min(some, steps - first)
            tiles.fill(flat[first:], at, count, steps, starts, lanes[: now * WIDTH], VECTORS)
            table.branch_metrics(values, low, per_volt, cells, inputs[:now], spare, metrics[:now])
            for k in range(since, till):
                word, i = divmod(beyond[k], steps)
                if first <= i < first + now:
                    # idle lanes hold the last word
                    for v in range(word - at, WIDTH if word == count - 1 else word - at + 1):
                        for branch in range(offsets.size):
                            tile[((i - first) * offsets.size + branch) * WIDTH + v] = -found[
                                k, branch
                            ]
            here = forward_lanes(
                tile, now, 0, offsets, offsets, 1, stride, older, paths, least, room,
                survivors[first * n_words * WIDTH :], order, block, (),
            )  # fmt: skip
        _end_lanes(steps, here, end, 0, scratch, order, block, at, out)


# --- Both forms behind one call -------------------------------------------------------------------


class Viterbi(Recursion):
    """The most likely sequences; `decide` returns one array, their symbols, uint8."""

    def empty(self, *shape: int) -> tuple[Array, ...]:
        return (np.empty(shape, np.uint8),)

    def _scratch_of(self, steps: int) -> int:
        return int(steps * (self.metrics.values + max(1, self.n_states // 16)) * 4 * WIDTH)

    def _one(
        self, values: Array, place: int, steps: int, first_row: int, start: Array, end: Array,
        first: int, results: tuple[Array, ...],
    ) -> None:  # fmt: skip
        survivors = self._room("survivors", steps * self.n_states, np.uint8).reshape(steps, -1)
        path, scratch = self._costs(start), self._room("path", self.n_states)
        for at, metrics in self._chunks(values, place, steps, first_row):
            forward(metrics, at, self.order, path, scratch, survivors)
        path += self._costs(end)
        trace_back(survivors, best_state(path), self.order, first, results[0])

    def _side_by_side(
        self, values: Array, stride: int, steps: int, first_row: int, start: Array, end: Array,
        first: int, results: tuple[Array, ...],
    ) -> None:  # fmt: skip
        (symbols,) = results
        metrics, sizes = self.metrics, self._sizes(16 // self.order)
        n_words, keep = self.older // len(sizes[1]), symbols.shape[1]
        scratch = Scratch(
            self._room("tile", steps * metrics.values * WIDTH),
            self._room("starts", WIDTH, np.int64),
            self._room("paths", 2 * self.n_states * WIDTH),
            self._room("least", WIDTH),
            self._room("room", metrics.width * WIDTH),
            self._room("words", steps * n_words * WIDTH, np.int32),
            self._room("state", WIDTH, np.int32),
            self._room("symbols", keep * WIDTH, np.int32),
        )
        decide_lanes(
            values, stride * metrics.values, steps, first_row, metrics.slopes.reshape(-1),
            metrics.offsets.reshape(-1), metrics.rows, self.stride, self._costs(start),
            self._costs(end), first, scratch, *sizes, symbols,
        )  # fmt: skip

    def decide_by_table(
        self, of: table.Table, samples: Array, *, end: Array | None = None
    ) -> tuple[Array, ...]:
        """As `decide`, of words of samples whose metrics a table gives.

        samples   (words, time)      float32
        end       (n_states,) bool   states after the last step; None: any
        """
        words, steps = samples.shape
        end = self._any if end is None else end
        results = self.empty(words, steps)
        samples = np.require(samples, np.float32, ["C", "W"])  # as in trellis.Metrics.flat
        if words == 1:  # lanes would be idle but for one
            metrics = self._room("rows", steps * self.metrics.width).reshape(steps, -1)
            survivors = self._room("survivors", steps * self.n_states, np.uint8)
            word, path = samples[0], self._costs(self.start)
            decide_word_by_table(
                *of.scale, word, *of.beyond(word), metrics, of.spare, self.order, path,
                self._costs(end), self._room("path", self.n_states), survivors.reshape(steps, -1),
                results[0][0],
            )  # fmt: skip
            return results
        sizes = self._sizes(16 // self.order)[:2]
        n_words, width = self.older // len(sizes[1]), self.metrics.width
        inputs = self._room("inputs", EVERY * WIDTH).reshape(EVERY, 2, LANES)
        tile = self._room("tile", EVERY * width * WIDTH)
        scratch = Scratch(
            tile,
            self._room("starts", WIDTH, np.int64),
            self._room("paths", 2 * self.n_states * WIDTH),
            self._room("least", WIDTH),
            self._room("room", width * WIDTH),
            self._room("words", steps * n_words * WIDTH, np.int32),
            self._room("state", WIDTH, np.int32),
            self._room("symbols", steps * WIDTH, np.int32),
        )
        decide_by_table(
            *of.scale,
            samples,
            *of.beyond(samples.reshape(-1)),
            inputs,
            tile.reshape(EVERY, width, 2, LANES),
            of.spare,
            self.metrics.offsets.reshape(-1),
            self.stride,
            self._costs(self.start),
            self._costs(end),
            scratch,
            *sizes,
            results[0],
        )
        return results
