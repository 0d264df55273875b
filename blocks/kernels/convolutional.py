"""The Viterbi algorithm for shift-register codes: the most likely bits, of many words at once.

Heller and Jacobs, "Viterbi decoding for satellite and space communication", IEEE Trans. Commun.
Technol. 19(5), 1971, on the trellis of kernels/shift_register.py. A soft value q is positive for
bit 1; a branch pays |q| where its code bit disagrees with the sign and nothing where it agrees, so
that metrics are never negative and small integers suffice.

Two forms give equal bits. The plain one reads like the equations, takes any code, and decodes one
sequence after the other. The other decodes LANES sequences side by side: arrays have the lanes
last, so that one vector instruction treats many of them. It takes codes whose generators all count
the newest and the oldest bit, as all good ones do: then the four branches of a butterfly (states j
and j + S/2 into states 2j and 2j + 1) have but two metrics.

What makes LLVM vectorise the lanes: their number is a constant, all arrays are flat, and a loop
over lanes treats four butterflies and writes to one slice at multiples of LANES, so that few checks
whether arrays overlap are needed, once per loop. Decisions are packed over states, state s in bit
s mod 8 of byte s // 8, next to the path metrics that they belong to.

8-bit path metrics. Take the best sequence, and one that leaves it `memory` steps before the end for
any other state: by linearity they differ in the code bits of a path out of state 0, at most w, and
their metrics by at most w top, where top is the largest |q|. The least path metric grows by at most
outputs top / 2 in a step, since the two branches out of a state are complements. So with the least
made 0 every few steps, top can be chosen such that nothing overflows in between, and decisions are
exact for the soft values as they were rounded.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from blocks.kernels.caching import njit
from blocks.kernels.shift_register import ShiftRegisterCode
from blocks.kernels.windows import Windows

Array = np.ndarray[Any, Any]
Metrics = Literal["uint8", "uint16", "float32"]

LANES = 256  # sequences side by side: many, against the cost of a loop; few, for the cache
_BLOCK = 9 * LANES  # eight states and their decisions
_WORTH = 16  # sequences from which on a tile pays, though most of its lanes may be idle
_MOST_SURVIVORS = 1 << 26  # bytes of survivors of a tile; longer words are decoded one by one

#: Steps from one normalisation to the next. With 8 bits they cost range, so precision.
STEPS: dict[str, int] = {"uint8": 4, "uint16": 32, "float32": 32}


def top_of(code: ShiftRegisterCode, metrics: Literal["uint8", "uint16"]) -> int:
    """The largest soft value for which path metrics of this dtype have room, at most 127."""
    states: Array = np.arange(code.n_states)[:, None] >> np.arange(code.memory - 1, -1, -1) & 1
    apart = int(code.encode(states, np.zeros_like(states)).sum(axis=1).max())
    # One more step than from one normalisation to the next: sums are compared before the least is.
    growth = -(-code.outputs * (STEPS[metrics] + 1) // 2)
    return min(int(np.iinfo(metrics).max) // (apart + growth), 127)


@njit(cache=True, nogil=True)
def round_to(soft: Array, top: int, rounded: Array) -> None:
    """Soft values of -127 ... 127 rounded to -top ... top; -128 counts as -127.

    soft, rounded  (n,) int8
    """
    factor = (top * 65536 + 63) // 127
    for i in range(soft.size):
        q = max(np.int32(soft[i]), np.int32(-127))
        rounded[i] = np.int8((q * factor + 32768) >> 16)


# --- One sequence ---------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def decode_one(
    soft: Array, patterns: Array, outputs: int, every: int, known_start: bool, known_end: bool,
    cost: Array, path: Array, scratch: Array, survivors: Array, bits: Array,
) -> None:  # fmt: skip
    """The most likely bits of one sequence. Of equal branches the one from the lower state wins.

    soft       (steps outputs,)         int8 or float32
    patterns   (2 n_states,) uint8      code bits of each branch, bit j the j-th
    every      steps from one normalisation to the next; they count from the start
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
    for i in range(steps):
        for pattern in range(cost.size):
            total = number(0)
            for j in range(outputs):
                q = number(soft[i * outputs + j])
                paid = -q if pattern >> j & 1 else q
                total = number(total + max(paid, number(0)))
            cost[pattern] = total
        both = reached == n_states
        reached = min(2 * reached, n_states)
        due = (i + 1) % every == 0 if both else reached == n_states
        for s in range(n_states):
            low = path[s >> 1] + cost[patterns[s]]
            # Where half of the states have no past, the upper ones are among them.
            high = path[(s >> 1) + half] + cost[patterns[s + n_states]] if both else low
            scratch[s] = high if high < low else low
            survivors[i, s] = 1 if high < low else 0
        path[:] = scratch
        if due:
            least = path[0]
            for s in range(1, n_states):
                least = min(least, path[s])
            for s in range(n_states):
                path[s] -= least
    state = 0
    if not known_end:
        for s in range(1, reached):
            if path[s] < path[state]:
                state = s
    for i in range(steps - 1, -1, -1):
        bits[i] = state & 1
        state = (state >> 1) + (half if survivors[i, state] else 0)


# --- Sequences in lanes -----------------------------------------------------------------------


@njit(cache=True, nogil=True)
def to_lanes(soft: Array, first: int, stride: int, count: int, tile: Array) -> None:
    """Write value i of the sequence in lane v to place i LANES + v.

    soft    (...,)          sequence v starts at place first + v stride; lanes from `count` on,
                            which are idle, get the last sequence
    tile    (size LANES,)   written, in squares that stay in the cache
    """
    size = tile.size // LANES
    for begin in range(0, size, 64):
        stop = min(begin + 64, size)
        for v in range(LANES):
            at = first + min(v, count - 1) * stride
            source = soft[at + begin : at + stop]
            target = tile[begin * LANES + v :]
            for i in range(stop - begin):
                target[i * LANES] = source[i]


@njit(cache=True, nogil=True)
def from_lanes(tile: Array, out: Array) -> None:
    """Write place i LANES + v to out[v, i]; out has as many rows as lanes are in use."""
    count, size = out.shape
    for begin in range(0, size, 64):
        stop = min(begin + 64, size)
        for v in range(count):
            target = out[v, begin:stop]
            source = tile[begin * LANES + v :]
            for i in range(stop - begin):
                target[i] = source[i * LANES]


@njit(cache=True, nogil=True)
def branch_costs_2(soft: Array, rows: Array) -> None:
    """Branch metrics of codes with two outputs.

    soft   (2 LANES,)
    rows   (6 LANES,)  written: rows of patterns 0, 3, 0, 1, 2, 1, so that each pattern has its
           complement in the next row, see `places`
    """
    number = rows.dtype.type
    zero = soft.dtype.type(0)
    for v in range(LANES):
        q, r = soft[v], soft[LANES + v]
        q0, q1 = number(q if q > zero else zero), number(-q if q < zero else zero)
        r0, r1 = number(r if r > zero else zero), number(-r if r < zero else zero)
        c0, c1, c2, c3 = number(q0 + r0), number(q1 + r0), number(q0 + r1), number(q1 + r1)
        rows[v], rows[LANES + v], rows[2 * LANES + v] = c0, c3, c0
        rows[3 * LANES + v], rows[4 * LANES + v], rows[5 * LANES + v] = c1, c2, c1


@njit(cache=True, nogil=True)
def branch_costs_3(soft: Array, rows: Array) -> None:
    """Branch metrics of codes with three outputs.

    soft   (3 LANES,)
    rows   (12 LANES,)  written: rows of patterns 0, 7, 0, 1, 6, 1, 2, 5, 2, 3, 4, 3
    """
    number = rows.dtype.type
    zero = soft.dtype.type(0)
    for v in range(LANES):
        q, r, w = soft[v], soft[LANES + v], soft[2 * LANES + v]
        q0, q1 = number(q if q > zero else zero), number(-q if q < zero else zero)
        r0, r1 = number(r if r > zero else zero), number(-r if r < zero else zero)
        w0, w1 = number(w if w > zero else zero), number(-w if w < zero else zero)
        c0, c1, c2, c3 = number(q0 + r0), number(q1 + r0), number(q0 + r1), number(q1 + r1)
        c4, c5, c6, c7 = number(c0 + w1), number(c1 + w1), number(c2 + w1), number(c3 + w1)
        c0, c1, c2, c3 = number(c0 + w0), number(c1 + w0), number(c2 + w0), number(c3 + w0)
        rows[v], rows[LANES + v], rows[2 * LANES + v] = c0, c7, c0
        rows[3 * LANES + v], rows[4 * LANES + v], rows[5 * LANES + v] = c1, c6, c1
        rows[6 * LANES + v], rows[7 * LANES + v], rows[8 * LANES + v] = c2, c5, c2
        rows[9 * LANES + v], rows[10 * LANES + v], rows[11 * LANES + v] = c3, c4, c3


def places(outputs: int) -> Array:
    """Where `branch_costs_...` write the row of each pattern; the next row has its complement."""
    half = 1 << (outputs - 1)
    pattern = np.arange(2 * half)
    pair = np.where(pattern < half, 3 * pattern, 3 * (2 * half - 1 - pattern) + 1)
    return np.asarray(pair * LANES)


@njit(cache=True, nogil=True)
def eight_states(
    low: Array, high: Array, b0: Array, b1: Array, b2: Array, b3: Array, out: Array
) -> None:
    """Add, compare, select: butterflies j ... j + 3, which lead to eight states in a row.

    low, high    path metrics of states j ... j + 3, and of those S/2 above
    b0 ... b3    for each butterfly the row of the branch j -> 2j, then that of its complement
    out          (9 LANES,)  written: path metrics of the eight states, and a row of decisions
    """
    number = low.dtype.type
    none = number(0)
    for v in range(LANES):
        a, b, x, y = low[v], high[v], b0[v], b0[LANES + v]
        c0, c1, e0, e1 = number(a + x), number(b + y), number(a + y), number(b + x)
        out[v] = c1 if c1 < c0 else c0
        out[LANES + v] = e1 if e1 < e0 else e0
        d = number(1) if c1 < c0 else none
        d = number(d + (number(2) if e1 < e0 else none))

        a, b, x, y = low[LANES + v], high[LANES + v], b1[v], b1[LANES + v]
        c0, c1, e0, e1 = number(a + x), number(b + y), number(a + y), number(b + x)
        out[2 * LANES + v] = c1 if c1 < c0 else c0
        out[3 * LANES + v] = e1 if e1 < e0 else e0
        d = number(d + (number(4) if c1 < c0 else none))
        d = number(d + (number(8) if e1 < e0 else none))

        a, b, x, y = low[2 * LANES + v], high[2 * LANES + v], b2[v], b2[LANES + v]
        c0, c1, e0, e1 = number(a + x), number(b + y), number(a + y), number(b + x)
        out[4 * LANES + v] = c1 if c1 < c0 else c0
        out[5 * LANES + v] = e1 if e1 < e0 else e0
        d = number(d + (number(16) if c1 < c0 else none))
        d = number(d + (number(32) if e1 < e0 else none))

        a, b, x, y = low[3 * LANES + v], high[3 * LANES + v], b3[v], b3[LANES + v]
        c0, c1, e0, e1 = number(a + x), number(b + y), number(a + y), number(b + x)
        out[6 * LANES + v] = c1 if c1 < c0 else c0
        out[7 * LANES + v] = e1 if e1 < e0 else e0
        d = number(d + (number(64) if c1 < c0 else none))
        d = number(d + (number(128) if e1 < e0 else none))
        out[8 * LANES + v] = d


@njit(cache=True, nogil=True)
def state_row(path: Array, s: int) -> Array:
    """Path metrics of one state in all lanes."""
    at = (s >> 3) * _BLOCK + (s & 7) * LANES
    return path[at : at + LANES]


@njit(cache=True, nogil=True)
def normalise(path: Array, n_states: int, least: Array) -> None:
    """Take the least path metric of each lane off all; `least` (LANES,) is scratch."""
    number = path.dtype.type
    least[:] = state_row(path, 0)
    for s in range(1, n_states):
        row = state_row(path, s)
        for v in range(LANES):
            a, b = least[v], row[v]
            least[v] = b if b < a else a
    for s in range(n_states):
        row = state_row(path, s)
        for v in range(LANES):
            row[v] = number(row[v] - least[v])


@njit(cache=True, nogil=True)
def forward_lanes(
    tile: Array, outputs: int, patterns: Array, places: Array, every: int, known_start: bool,
    rows: Array, least: Array, path: Array, other: Array, survivors: Array,
) -> Array:  # fmt: skip
    """All trellis steps of all lanes; returns the array, of `path` and `other`, of the last.

    tile       (steps outputs LANES,)      soft values; if the start is known, memory steps or more
    rows       (3 2^(outputs-1) LANES,)    scratch: branch metrics
    least      (LANES,)                    scratch
    path       (n_states / 8 blocks,)      path metrics; 0 at the start
    other      as path                     scratch
    survivors  (steps, n_states / 8, LANES) uint8, flat; written but for the first `memory` steps
               after a known start, where every state has one past
    """
    number = path.dtype.type
    n_states = patterns.size // 2
    bytes_per_step = n_states // 8 * LANES
    upper = (n_states >> 4) * _BLOCK + (n_states >> 1 & 7) * LANES
    reached = 1 if known_start else n_states
    for i in range(tile.size // (outputs * LANES)):
        soft = tile[i * outputs * LANES : (i + 1) * outputs * LANES]
        if outputs == 2:
            branch_costs_2(soft, rows)
        else:
            branch_costs_3(soft, rows)
        if reached < n_states:
            reached *= 2
            for s in range(reached - 1, -1, -1):  # downwards: each past is read before it is lost
                new, past, paid = (
                    state_row(path, s),
                    state_row(path, s >> 1),
                    rows[places[patterns[s]] :],
                )
                for v in range(LANES):
                    new[v] = number(past[v] + paid[v])
            if reached == n_states:
                normalise(path, n_states, least)
            continue
        decisions = survivors[i * bytes_per_step : (i + 1) * bytes_per_step]
        for k in range(n_states >> 3):
            low = (k >> 1) * _BLOCK + (k & 1) * 4 * LANES
            eight_states(
                path[low:],
                path[low + upper :],
                rows[places[patterns[8 * k]] :],
                rows[places[patterns[8 * k + 2]] :],
                rows[places[patterns[8 * k + 4]] :],
                rows[places[patterns[8 * k + 6]] :],
                other[k * _BLOCK :],
            )
            made, kept = other[k * _BLOCK + 8 * LANES :], decisions[k * LANES :]
            for v in range(LANES):
                kept[v] = np.uint8(made[v])
        path, other = other, path
        if (i + 1) % every == 0:
            normalise(path, n_states, least)
    return path


@njit(cache=True, nogil=True)
def best_states(path: Array, n_states: int, least: Array, state: Array) -> None:
    """Write the state with the least path metric of each lane to `state` (LANES,) uint8."""
    least[:] = state_row(path, 0)
    state[:] = 0
    for s in range(1, n_states):
        row = state_row(path, s)
        for v in range(LANES):
            if row[v] < least[v]:
                least[v] = row[v]
                state[v] = s


@njit(cache=True, nogil=True)
def trace_back_lanes(
    survivors: Array,
    n_states: int,
    without: int,
    first: int,
    state: Array,
    byte: Array,
    bits: Array,
) -> None:
    """Follow the survivors of all lanes from the last step back to step `first`.

    without  steps at the start that have no survivors: a state has one past there
    state    (LANES,) uint8   states after the last step; changed
    byte     (LANES,) uint8   scratch
    bits     (n, LANES) uint8, flat  written: bits of steps first ... first + n - 1
    """
    groups = n_states >> 3
    half = np.uint8(n_states >> 1)
    one, two, three, four = np.uint8(1), np.uint8(2), np.uint8(3), np.uint8(4)
    zero = np.uint8(0)
    for i in range(survivors.size // (groups * LANES) - 1, first - 1, -1):
        if i < first + bits.size // LANES:
            decided = bits[(i - first) * LANES :]
            for v in range(LANES):
                decided[v] = state[v] & one
        # The byte of decisions that holds the state, by looking at all: vectors cannot gather.
        byte[:] = 0
        if i >= without:
            for k in range(groups):
                row = survivors[(i * groups + k) * LANES :]
                group = np.uint8(k)
                for v in range(LANES):
                    a, b = row[v], byte[v]
                    byte[v] = a if np.uint8(state[v] >> three) == group else b
        for v in range(LANES):
            s, d = state[v], byte[v]  # bit s mod 8 of d, by shifts that are the same in all lanes
            d = np.uint8(d >> one) if np.uint8(s & one) != zero else d
            d = np.uint8(d >> two) if np.uint8(s & two) != zero else d
            d = np.uint8(d >> four) if np.uint8(s & four) != zero else d
            past = np.uint8(s >> one)
            state[v] = np.uint8(past | half) if np.uint8(d & one) != zero else past


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
        # A writable copy: the kernels compile once, and not once more for read-only arrays.
        soft = np.array(soft, self.soft_dtype, order="C").reshape(-1)
        if 0 < self.top < 127:
            round_to(soft, self.top, soft)
        code = self.code
        in_lanes = (
            self._lanes
            and sequences >= _WORTH
            and steps > code.memory
            and steps * (code.n_states // 8) * LANES <= _MOST_SURVIVORS
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
        code, groups = self.code, self.code.n_states // 8
        tile = np.empty(steps * code.outputs * LANES, self.soft_dtype)
        rows = np.empty(3 * (1 << (code.outputs - 1)) * LANES, self.metrics)
        path, other = np.empty((2, groups * _BLOCK), self.metrics)
        least = np.empty(LANES, self.metrics)
        survivors = np.empty(steps * groups * LANES, np.uint8)
        state, byte = np.empty((2, LANES), np.uint8)
        found = np.empty(bits.shape[1] * LANES, np.uint8)
        without = code.memory if known_start else 0
        for at in range(0, len(bits), LANES):
            some = bits[at : at + LANES]
            to_lanes(soft, at * stride, stride, len(some), tile)
            path[:] = 0
            last = forward_lanes(
                tile, code.outputs, code.patterns, places(code.outputs), STEPS[self.metrics],
                known_start, rows, least, path, other, survivors,
            )  # fmt: skip
            state[:] = 0
            if not known_end:
                best_states(last, code.n_states, least, state)
            trace_back_lanes(survivors, code.n_states, without, first, state, byte, found)
            from_lanes(found, some)
