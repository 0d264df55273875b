"""The Viterbi algorithm for shift-register codes: the most likely bits, of many words at once.

Heller and Jacobs, "Viterbi decoding for satellite and space communication", IEEE Trans. Commun.
Technol. 19(5), 1971, on the trellis of kernels/shift_register.py. A soft value q is positive for
bit 1; a branch pays |q| where its code bit disagrees with the sign and nothing where it agrees, so
that metrics are never negative and small integers suffice.

Two forms give equal bits. The plain one reads like the equations, takes any code, and decodes one
sequence after the other. The other decodes sequences side by side, W = 32, 16 or 8 of them for 8,
16 or 32 bits, one in each lane of a vector (kernels/unrolled.py). It takes codes whose generators
all count the newest and the oldest bit, as all good ones do: then the four branches of a butterfly
(states j and j + S/2 into states 2j and 2j + 1) have but two metrics. Decisions are packed over
states into words as wide as the metrics, so that all tracebacks are vectors, too.

Every few steps the least path metric is measured, and taken off the branch metrics of the step
after next: few numbers, and made before they are due.

8-bit path metrics. A path metric that is compared belongs to a path that leaves the best one at
most `memory` + 1 steps before: by linearity they differ in the code bits of a path out of state 0,
at most w, and their metrics by at most w top, where top is the largest |q|. The least path metric
grows by at most outputs top / 2 in a step, since the two branches out of a state are complements;
from one measurement until the next takes effect are STEPS + 1 steps. So w top + (STEPS + 1)
outputs top / 2 has to fit; then decisions are exact for the soft values as they were rounded.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from blocks.kernels import tiles, unrolled
from blocks.kernels.caching import njit
from blocks.kernels.shift_register import ShiftRegisterCode
from blocks.kernels.windows import Windows

Array = np.ndarray[Any, Any]
Metrics = Literal["uint8", "uint16", "float32"]

_MOST_SURVIVORS = 1 << 26  # bytes of survivors of a tile; longer words are decoded one by one

#: Steps from one measurement of the least path metric to the next, at least 2, so that one takes
#: effect before the next. With 8 bits they cost range, so precision.
STEPS: dict[str, int] = {"uint8": 2, "uint16": 32, "float32": 32}


def top_of(code: ShiftRegisterCode, metrics: Literal["uint8", "uint16"]) -> int:
    """The largest soft value for which path metrics of this dtype have room, at most 127."""
    inputs: Array = np.arange(2 * code.n_states)[:, None] >> np.arange(code.memory, -1, -1) & 1
    apart = int(code.encode(inputs, np.zeros_like(inputs[:, 1:])).sum(axis=1).max())
    growth = code.outputs * (STEPS[metrics] + 1)  # in halves
    return min(2 * int(np.iinfo(metrics).max) // (2 * apart + growth), 127)


def factor_of(top: int) -> int:
    """What `unrolled.scaled` needs to round soft values to -top ... top; 0 if nothing is due."""
    return (top * 32768 + 63) // 127 if 0 < top < 127 else 0


@unrolled.unrolled
def _round(soft: Any, factor: Any, place: Any, rounds: Any) -> None:
    for _ in rounds:
        q = unrolled.lanes(soft, place)
        q = unrolled.where(q < -127, -127, q)
        unrolled.put_lanes(soft, unrolled.scaled(q, factor), place)


@njit(cache=True, nogil=True)
def round_to(soft: Array, factor: int, rounds: tuple[float, ...]) -> None:
    """Round soft values of -127 ... 127 as `factor_of` says; -128 counts as -127.

    soft    (n,) int8, with n a multiple of 32
    rounds  one number; or none, and nothing happens, nor need they be int8
    """
    if len(rounds) > 0:
        for at in range(0, soft.size, 32):
            _round(soft, factor, at, rounds)


# --- One sequence ---------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def decode_one(
    soft: Array, patterns: Array, outputs: int, every: int, known_start: bool, known_end: bool,
    cost: Array, path: Array, scratch: Array, survivors: Array, bits: Array,
) -> None:  # fmt: skip
    """The most likely bits of one sequence. Of equal branches the one from the lower state wins.

    soft       (steps outputs,)         int8 or float32
    patterns   (2 n_states,) uint8      code bits of each branch, bit j the j-th
    every      steps from one measurement of the least path metric to the next, from the start
    cost       (2^outputs,)             scratch: branch metric of each pattern
    path       (n_states,)              scratch: path metrics, of the same dtype
    scratch    (n_states,)              scratch, of the same dtype
    survivors  (steps, n_states) uint8  scratch: 1 where the best branch came from the upper state
    bits       (steps,) uint8           written

    known_start, known_end: the register is empty before the first, after the last step.
    """
    number = path.dtype.type
    n_states, steps = path.size, bits.size
    half = n_states // 2
    reached = 1 if known_start else n_states  # states 0 ... reached - 1 have a past
    path[:] = 0
    least = found = number(0)
    for i in range(steps):
        for pattern in range(cost.size):
            total = number(0)
            for j in range(outputs):
                q = number(soft[i * outputs + j])
                paid = -q if pattern >> j & 1 else q
                total = number(total + max(paid, number(0)))
            cost[pattern] = total - least
        both = reached == n_states
        reached = min(2 * reached, n_states)
        for s in range(n_states):
            low = path[s >> 1] + cost[patterns[s]]
            # Where half of the states have no past, the upper ones are among them.
            high = path[(s >> 1) + half] + cost[patterns[s + n_states]] if both else low
            scratch[s] = high if high < low else low
            survivors[i, s] = 1 if high < low else 0
        path[:] = scratch
        least, found = found, number(0)
        if (i + 1) % every == 0:
            found = path[0]
            for s in range(1, reached):
                found = min(found, path[s])
    state = 0
    if not known_end:
        for s in range(1, reached):
            if path[s] < path[state]:
                state = s
    for i in range(steps - 1, -1, -1):
        bits[i] = state & 1
        state = (state >> 1) + (half if survivors[i, state] else 0)


# --- Sequences side by side; what is flat is described by its axes, W lanes the last --------------


@unrolled.unrolled
def _to_lanes(flat: Any, starts: Any, n: Any, tile: Any, place: Any) -> None:
    lanes = unrolled.lanes_of(tile)
    rows = tuple(
        unrolled.lanes(flat, unrolled.index_at(starts, v) + n, count=lanes) for v in range(lanes)
    )
    for k, column in enumerate(unrolled.transposed(rows)):
        unrolled.put_lanes(tile, column, place + k * lanes)


@unrolled.unrolled
def _from_lanes(tile: Any, place: Any, flat: Any, starts: Any, n: Any) -> None:
    lanes = unrolled.lanes_of(tile)
    columns = tuple(unrolled.lanes(tile, place + k * lanes) for k in range(lanes))
    for v, row in enumerate(unrolled.transposed(columns)):
        unrolled.put_lanes(flat, row, unrolled.index_at(starts, v) + n)


@njit(cache=True, nogil=True)
def fill(flat: Array, starts: Array, tile: Array) -> None:
    """Put one sequence into each lane of a tile.

    starts  (W,) int64   where in `flat` each sequence begins
    tile    (size, W)    written
    """
    lanes = starts.size
    size = tile.size // lanes
    if size < lanes:
        for n in range(size):
            for v in range(lanes):
                tile[n * lanes + v] = flat[starts[v] + n]
        return
    for at in range(0, size, lanes):
        n = min(at, size - lanes)  # the last square overlaps the one before
        _to_lanes(flat, starts, n, tile, n * lanes)


@njit(cache=True, nogil=True)
def empty_out(tile: Array, size: int, starts: Array, flat: Array) -> None:
    """Copy the first `size` rows of a tile: what `fill` does, backwards."""
    lanes = starts.size
    if size < lanes:
        for n in range(size):
            for v in range(lanes):
                flat[starts[v] + n] = tile[n * lanes + v]
        return
    for at in range(0, size, lanes):
        n = min(at, size - lanes)
        _from_lanes(tile, n * lanes, flat, starts, n)


def places(patterns: Array, outputs: int, lanes: int) -> Array:
    """Where `branch_costs` writes the row of each pattern; the next row has its complement."""
    half = 1 << (outputs - 1)
    pattern = patterns.astype(np.int64)
    row = np.where(pattern < half, 3 * pattern, 3 * (2 * half - 1 - pattern) + 1)
    return np.asarray(row * lanes)


@unrolled.unrolled
def branch_costs(
    tile: Any, place: Any, least: Any, off: Any, costs: Any, to: Any, outputs: Any
) -> None:
    """Branch metrics of a step: rows of patterns p, its complement, and p again for each pair.

    tile   soft values, those of the step from `place` on
    least  (2, W)  what at place `off` is taken off
    costs  written from place `to` on
    """
    lanes, half = unrolled.lanes_of(costs), 1 << (len(outputs) - 1)
    paid = []  # for each output, by a branch whose code bit is 0, 1
    for j in range(len(outputs)):
        q = unrolled.lanes(tile, place + j * lanes)
        paid.append((unrolled.where(q > 0, q, 0), unrolled.where(q < 0, -q, 0)))
    for low in range(half):
        for pattern, rows in ((low, (0, 2)), (2 * half - 1 - low, (1,))):
            total = paid[0][pattern & 1]
            for j in range(1, len(outputs)):
                total = total + paid[j][pattern >> j & 1]
            total = total - unrolled.lanes(least, off)
            for row in rows:
                unrolled.put_lanes(costs, total, to + (3 * low + row) * lanes)


@unrolled.unrolled
def extend(costs: Any, cost: Any, paths: Any, past: Any, new: Any) -> None:
    """The path metric of a state that one branch leads to."""
    unrolled.put_lanes(paths, unrolled.lanes(paths, past) + unrolled.lanes(costs, cost), new)


def _states_per_word(lanes: int, block: tuple[float, ...]) -> int:
    """States whose decisions one word holds: of 8 bits, or 16 of 16 or 32."""
    return min(256 // lanes, 2 * len(block), 16)


@unrolled.unrolled
def survive(
    costs: Any, cost: Any, butterflies: Any, first: Any, paths: Any, low: Any, high: Any, to: Any,
    words: Any, word: Any, block: Any,
) -> None:  # fmt: skip
    """Add, compare, select: `len(block)` butterflies, from butterfly `first` on.

    costs        from place `cost` on  of `branch_costs`
    butterflies  (n_states / 2,)       place, from there, of the branch from state j to 2j
    paths        read from places `low`, `high`; written from place `to` on
    words        written from place `word` on: one bit per state, the first state lowest; 1 where
                 the branch from the lower state is best
    """
    lanes = unrolled.lanes_of(paths)
    per_word = _states_per_word(lanes, block)
    found: Any = None
    for k in reversed(range(len(block))):
        at = unrolled.index_at(butterflies, first + k) + cost
        paid, opposite = unrolled.lanes(costs, at), unrolled.lanes(costs, at + lanes)
        a, b = unrolled.lanes(paths, low + k * lanes), unrolled.lanes(paths, high + k * lanes)
        for s, one, two in ((2 * k + 1, a + opposite, b + paid), (2 * k, a + paid, b + opposite)):
            wins = one <= two
            found = unrolled.shift_in(found, wins)
            unrolled.put_lanes(paths, unrolled.where(wins, one, two), to + s * lanes)
            if s % per_word == 0:
                unrolled.put_lanes(words, found, word + s // per_word * lanes)
                found = None


@unrolled.unrolled
def _lower(paths: Any, place: Any, least: Any, some: Any, before: Any) -> None:
    """Write what is least in `len(some)` rows, and in `least` itself if `before` is not empty."""
    lanes = unrolled.lanes_of(paths)
    rows = [unrolled.lanes(paths, place + k * lanes) for k in range(len(some))]
    while len(rows) > 1:
        rows = [unrolled.where(a < b, a, b) for a, b in zip(rows[::2], rows[1::2], strict=True)]
    rows += [unrolled.lanes(least, 0) for _ in before]
    unrolled.put_lanes(least, unrolled.where(rows[0] < rows[-1], rows[0], rows[-1]), 0)


@njit(cache=True, nogil=True)
def least_of(
    paths: Array, place: int, n: int, lanes: int, least: Array, some: tuple[float, ...]
) -> None:
    """Write what is least in n rows, from a place on, to the first row of `least`."""
    _lower(paths, place, least, (0.0,), ())
    if n < len(some):
        for s in range(1, n):
            _lower(paths, place + s * lanes, least, (0.0,), (0.0,))
    else:
        for s in range(0, n, len(some)):
            _lower(paths, place + s * lanes, least, some, (0.0,))


@njit(cache=True, nogil=True)
def forward_lanes(
    tile: Array, steps: int, butterflies: Array, places: Array, every: int, known_start: bool,
    costs: Array, least: Array, paths: Array, words: Array,
    outputs: tuple[float, ...], block: tuple[float, ...],
) -> int:  # fmt: skip
    """All trellis steps of a tile; returns the place in `paths` of the path metrics at the end.

    tile         (steps, outputs, W)   if the start is known, memory steps or more
    butterflies  (n_states / 2,)       see `survive`
    places       (2 n_states,)         of the branch metric of each branch
    costs        (2, 3 2^(outputs-1), W)  scratch: branch metrics of this step and of the next, made
                 ahead so that nothing waits for them
    least        (2, W)                scratch: least path metric, and zeros
    paths        (2, n_states, W)      scratch
    words        (steps, n_words, W)   written: decisions, but for the first `memory` steps after a
                 known start, where every state has one past
    """
    lanes, half, values = least.size // 2, butterflies.size, len(outputs) * (least.size // 2)
    words_per_block = words.size // (steps * (half // len(block)))
    here, other, now, soon = 0, 2 * half * lanes, 0, costs.size // 2
    reached, due, off, word = 1 if known_start else 2 * half, every, lanes, 0
    least[:] = 0
    paths[:] = 0
    branch_costs(tile, 0, least, off, costs, now, outputs)
    for i in range(steps):
        branch_costs(tile, min(i + 1, steps - 1) * values, least, off, costs, soon, outputs)
        if reached < 2 * half:
            reached *= 2
            for s in range(reached):
                extend(costs, places[s] + now, paths, here + (s >> 1) * lanes, other + s * lanes)
            word += half // len(block) * words_per_block
        else:
            low, new = here, other
            for first in range(0, half, len(block)):
                survive(
                    costs, now, butterflies, first, paths, low, low + half * lanes, new,
                    words, word, block,
                )  # fmt: skip
                low, new = low + len(block) * lanes, new + 2 * len(block) * lanes
                word += words_per_block
        here, other, now, soon = other, here, soon, now
        due -= 1
        off = lanes
        if due == 0:
            least_of(paths, here, reached, lanes, least, block)
            due, off = every, 0
    return here


@njit(cache=True, nogil=True)
def best_states(paths: Array, here: int, n_states: int, least: Array, state: Array) -> None:
    """Write the state with the least path metric of each lane to `state` (W,)."""
    lanes = state.size
    least[:lanes] = paths[here : here + lanes]
    state[:] = 0
    for s in range(1, n_states):
        for v in range(lanes):
            if paths[here + s * lanes + v] < least[v]:
                least[v] = paths[here + s * lanes + v]
                state[v] = s


@unrolled.unrolled
def step_back(
    words: Any, word: Any, state: Any, bits: Any, bit: Any, n_words: Any, block: Any, some: Any
) -> None:
    """`len(some)` steps of all tracebacks; the word of a state is found by halves, digit by digit.

    words   those of the first of these steps from place `word` on
    bits    written from place `bit` on
    """
    lanes, count = unrolled.lanes_of(words), len(n_words)
    per_word = _states_per_word(lanes, block)
    s = unrolled.lanes(state, 0)
    for i in reversed(range(len(some))):
        unrolled.put_lanes(bits, s & 1, bit + i * lanes)
        rows = [unrolled.lanes(words, word + (i * count + k) * lanes) for k in range(count)]
        digit = per_word
        while len(rows) > 1:
            odd = (s & digit) > 0
            rows = [unrolled.where(odd, b, a) for a, b in zip(rows[::2], rows[1::2], strict=True)]
            digit *= 2
        (found,) = rows
        bit_of_state: Any = 1
        digit = 1
        while digit < per_word:
            higher = bit_of_state << digit
            bit_of_state = unrolled.where((s & digit) > 0, higher, bit_of_state)
            digit *= 2
        past = s >> 1
        s = unrolled.where((found & bit_of_state) > 0, past, past | per_word * count // 2)
    unrolled.put_lanes(state, s, 0)


@unrolled.unrolled
def _shift_back(state: Any, bits: Any, bit: Any) -> None:
    s = unrolled.lanes(state, 0)
    unrolled.put_lanes(bits, s & 1, bit)
    unrolled.put_lanes(state, s >> 1, 0)


@njit(cache=True, nogil=True)
def trace_back_lanes(
    words: Array, steps: int, without: int, first: int, state: Array, bits: Array,
    n_words: tuple[float, ...], block: tuple[float, ...],
) -> None:  # fmt: skip
    """Follow the survivors of all lanes from the last step back to step `first`.

    words    (steps, n_words, W)
    without  steps at the start that have no survivors: a state has one past there
    state    (W,)                states after the last step; changed
    bits     (steps - first, W)  written
    """
    lanes, stop, i = state.size, max(first, without), steps
    of_step = len(n_words) * lanes
    while i - 4 >= stop:  # four at once: the states stay in a register
        i -= 4
        step_back(
            words, i * of_step, state, bits, (i - first) * lanes, n_words, block,
            (0.0, 0.0, 0.0, 0.0),
        )  # fmt: skip
    while i > stop:
        i -= 1
        step_back(words, i * of_step, state, bits, (i - first) * lanes, n_words, block, (0.0,))
    while i > first:
        i -= 1
        _shift_back(state, bits, (i - first) * lanes)


class Scratch(NamedTuple):
    """What `decide_lanes` works in: flat, with the axes given here."""

    tile: Array  # (steps, outputs, W) signed, as wide as the metrics
    starts: Array  # (W,) int64
    costs: Array  # (2, 3 2^(outputs-1), W)
    least: Array  # (2, W)
    paths: Array  # (2, n_states, W)
    words: Array  # (steps, n_words, W) integers as wide as the metrics
    state: Array  # (W,) as `words`
    bits: Array  # (steps - first, W) as `words`


@njit(cache=True, nogil=True)
def decide_lanes(
    soft: Array, stride: int, steps: int, butterflies: Array, places: Array, every: int,
    known_start: bool, known_end: bool, without: int, first: int, scratch: Scratch, factor: int,
    outputs: tuple[float, ...], block: tuple[float, ...], n_words: tuple[float, ...],
    rounds: tuple[float, ...], out: Array,
) -> None:  # fmt: skip
    """The most likely bits of sequences, a tile at a time.

    soft   (...,)                    sequence k begins at place k stride
    out    (sequences, keep) uint8   written: bits of steps first ... first + keep - 1
    """
    tile, starts, costs, least, paths, words, state, bits = scratch
    (sequences, keep), lanes = out.shape, state.size
    for at in range(0, sequences, lanes):
        for v in range(lanes):  # idle lanes get the last sequence, and write what it does
            starts[v] = min(at + v, sequences - 1) * stride
        fill(soft, starts, tile)
        round_to(tile, factor, rounds)
        here = forward_lanes(
            tile, steps, butterflies, places, every, known_start, costs, least, paths, words,
            outputs, block,
        )  # fmt: skip
        state[:] = 0
        if not known_end:
            best_states(paths, here, places.size // 2, least, state)
        trace_back_lanes(words, steps, without, first, state, bits, n_words, block)
        for v in range(lanes):
            starts[v] = min(at + v, sequences - 1) * keep
        empty_out(bits, keep, starts, out.reshape(-1))


# --- Both forms behind one call ---------------------------------------------------------------


class Decoder:
    """Decodes sequences of soft values of one code.

    metrics   arithmetic: uint8 or uint16 for soft values in int8 (uint8 rounds them to
              -top ... top first), float32 for float32
    lanes     whether many sequences are decoded side by side where the code allows it
    """

    def __init__(self, code: ShiftRegisterCode, metrics: Metrics, *, lanes: bool = True) -> None:
        self.code, self.metrics = code, metrics
        self.top = 0 if metrics == "float32" else top_of(code, metrics)
        ends = code.taps[:, 0] & code.taps[:, -1]
        self._lanes = lanes and bool(ends.all()) and code.outputs in (2, 3) and code.memory >= 3
        self._factor = factor_of(self.top)
        self._width = 32 // np.dtype(metrics).itemsize
        self._block = (0.0,) * min(8, code.n_states // 2)  # more at once, and registers spill
        self._n_words = code.n_states // _states_per_word(self._width, self._block)
        #: of what `decode` takes
        self.soft_dtype = np.dtype(np.float32 if metrics == "float32" else np.int8)

    def decode(
        self, soft: Array, sequences: int, stride: int, steps: int, *,
        known_start: bool, known_end: bool, first: int = 0, count: int | None = None,
    ) -> Array:  # fmt: skip
        """The most likely bits of all sequences, (sequences, count) uint8.

        soft          (...) int8 or float32    as the metrics want it; positive for bit 1
        stride        sequence k starts at place k stride, counted flat
        steps         bits of each sequence, those that empty the register included
        known_start   the register is empty before the first step; else it may hold anything
        known_end     the register is empty after the last step; else it may hold anything
        first, count  which bits are wanted; all if not given
        """
        count = steps if count is None else count
        bits = np.empty((sequences, count), np.uint8)
        if bits.size == 0:
            return bits
        # Writable: the kernels compile once, and not once more for read-only arrays.
        soft = np.require(soft, self.soft_dtype, ["C", "W"]).reshape(-1)
        code = self.code
        in_lanes = (
            self._lanes and steps > code.memory and steps * self._n_words * 32 <= _MOST_SURVIVORS
        )
        form = self._in_lanes if in_lanes else self._one_by_one
        form(soft, stride, steps, known_start, known_end, first, bits)
        return bits

    def decode_rings(self, soft: Array, lag: int) -> Array:
        """The most likely bits (words, bits) uint8 of tail-biting words.

        soft   (words, bits outputs)  in the dtype of the decoder
        lag    bits before and past a word that its decision looks at

        Words are first decoded as if they were repeated without end. Where the register does not
        hold the same before and after the word (often if that is short), all states are tried.
        """
        code = self.code
        words, size = soft.shape
        steps, memory = size // code.outputs, code.memory
        if soft.size == 0:
            return np.empty((words, steps), np.uint8)
        lag = max(lag, memory)
        around = np.arange(-lag * code.outputs, size + lag * code.outputs) % size
        found = self.decode(
            soft[:, around].reshape(-1), words, around.size, steps + 2 * lag,
            known_start=False, known_end=False, first=lag - memory, count=memory + steps,
        )  # fmt: skip
        bits = found[:, memory:]
        open_ended = np.flatnonzero((found[:, :memory] != found[:, steps:]).any(axis=1))
        at_once = max(1, 4096 // code.n_states)
        for at in range(0, open_ended.size, at_once):
            some = open_ended[at : at + at_once]
            bits[some] = self._closed(soft[some])
        return bits

    def stream(self, window: int, lag: int, *, known_start: bool) -> Windows:
        """Decodes a stream; `push` takes soft values, and both its calls return (bits,) uint8.

        known_start   the register is empty before the stream; else it may hold anything
        """

        def decide(
            values: Array, sequences: int, stride: int, steps: int, *,
            at_start: bool, first: int, keep: int,
        ) -> tuple[Array, ...]:  # fmt: skip
            bits = self.decode(
                values, sequences, stride * self.code.outputs, steps,
                known_start=known_start and at_start, known_end=False, first=first, count=keep,
            )  # fmt: skip
            return (bits,)

        return Windows(
            decide, (np.empty(0, np.uint8),), values=self.code.outputs, dtype=self.soft_dtype,
            window=window, lag=lag,
        )  # fmt: skip

    def _closed(self, soft: Array) -> Array:
        """The most likely bits of tail-biting words, each state at their ends tried in turn.

        The code is linear: take off a tail-biting word with this state at its ends, and what is
        left has state 0 there.
        """
        code = self.code
        words, size = soft.shape
        steps = size // code.outputs
        free = min(code.memory, steps)
        offsets = np.zeros((1 << free, steps), np.uint8)
        offsets[:, steps - free :] = np.arange(1 << free)[:, None] >> np.arange(free) & 1
        signs = 1 - 2 * code.encode_rings(offsets).astype(
            np.int8
        )  # -1 where a code bit is taken off
        soft = np.maximum(soft, -127) if soft.dtype == np.int8 else soft
        flipped = soft[:, None] * signs  # (words, states, size)
        bits = self.decode(
            flipped.reshape(-1), words << free, size, steps, known_start=True, known_end=True
        ).reshape(words, 1 << free, steps)
        bits ^= offsets
        fit = ((2.0 * code.encode_rings(bits) - 1) * soft[:, None]).sum(axis=2)
        return np.asarray(bits[np.arange(words), fit.argmax(axis=1)])

    def _one_by_one(
        self, soft: Array, stride: int, steps: int, known_start: bool, known_end: bool,
        first: int, bits: Array,
    ) -> None:  # fmt: skip
        code = self.code
        dtype = np.float32 if self.metrics == "float32" else np.int32
        cost, (path, scratch) = (
            np.empty(1 << code.outputs, dtype),
            np.empty((2, code.n_states), dtype),
        )
        survivors, found = np.empty((steps, code.n_states), np.uint8), np.empty(steps, np.uint8)
        if self._factor:
            soft = np.pad(soft, (0, -soft.size % 32))
            round_to(soft, self._factor, (0.0,))
        for k, row in enumerate(bits):
            one = soft[k * stride : k * stride + steps * code.outputs]
            decode_one(
                one, code.patterns, code.outputs, STEPS[self.metrics], known_start, known_end,
                cost, path, scratch, survivors, found,
            )  # fmt: skip
            row[:] = found[first : first + row.size]

    def _in_lanes(
        self, soft: Array, stride: int, steps: int, known_start: bool, known_end: bool,
        first: int, bits: Array,
    ) -> None:  # fmt: skip
        code, lanes, block = self.code, self._width, self._block
        words = np.dtype(np.int32 if self.metrics == "float32" else self.metrics)
        of_branches = places(code.patterns, code.outputs, lanes)
        scratch = Scratch(
            tile=tiles.empty(steps * code.outputs * lanes, self.metrics.lstrip("u")),
            starts=np.empty(lanes, np.int64),
            costs=tiles.empty(2 * 3 * (1 << (code.outputs - 1)) * lanes, self.metrics),
            least=tiles.empty(2 * lanes, self.metrics),
            paths=tiles.empty(2 * code.n_states * lanes, self.metrics),
            words=tiles.empty(steps * self._n_words * lanes, words),
            state=tiles.empty(lanes, words),
            bits=tiles.empty((steps - first) * lanes, words),
        )
        decide_lanes(
            soft, stride, steps, of_branches[: code.n_states : 2].copy(), of_branches,
            STEPS[self.metrics], known_start, known_end, code.memory if known_start else 0, first,
            scratch, self._factor, (0.0,) * code.outputs, block, (0.0,) * self._n_words,
            (0.0,) if self._factor else (), bits,
        )  # fmt: skip
