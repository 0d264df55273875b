"""The Viterbi algorithm for shift-register codes: the most likely bits, of many words at once.

Heller and Jacobs, "Viterbi decoding for satellite and space communication", IEEE Trans. Commun.
Technol. 19(5), 1971, on the trellis of kernels/shift_register.py. A soft value q is positive for
bit 1; a branch pays |q| where its code bit disagrees with the sign and nothing where it agrees, so
that metrics are never negative and small integers suffice.

Two forms give equal bits. The plain one, here, reads like the equations, takes any code, and
decodes one sequence after the other. The other (kernels/convolutional_lanes.py) decodes sequences
side by side; it takes codes whose generators all count the newest and the oldest bit, as all good
ones do.

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

from typing import Any, Literal

import numpy as np

from blocks.kernels import tiles
from blocks.kernels.caching import njit
from blocks.kernels.convolutional_lanes import (
    Scratch,
    decide_lanes,
    places,
    round_to,
    states_per_word,
)
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
        self._n_words = code.n_states // states_per_word(self._width, self._block)
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
