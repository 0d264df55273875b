"""Words of a shift-register code, decoded side by side: one in each lane of a vector.

The algorithm is that of kernels/convolutional.py, for W = 32, 16 or 8 sequences where metrics have
8, 16 or 32 bits (kernels/unrolled.py), and for codes whose generators all count the newest and the
oldest bit: then the four branches of a butterfly (states j and j + S/2 into states 2j and 2j + 1)
have but two metrics. Decisions are packed over states into words as wide as the metrics, so that
all tracebacks are vectors, too. What is flat is described by its axes, W lanes the last.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import tiles, unrolled
from blocks.kernels.caching import njit

Array = np.ndarray[Any, Any]


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


def states_per_word(lanes: int, block: tuple[float, ...]) -> int:
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
    per_word = states_per_word(lanes, block)
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


@unrolled.unrolled
def step_back(
    words: Any, word: Any, state: Any, bits: Any, bit: Any, n_words: Any, block: Any, some: Any
) -> None:
    """`len(some)` steps of all tracebacks; the word of a state is found by halves, digit by digit.

    words   those of the first of these steps from place `word` on
    bits    written from place `bit` on
    """
    lanes, count = unrolled.lanes_of(words), len(n_words)
    per_word = states_per_word(lanes, block)
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
    (sequences, keep), lanes, flat = out.shape, state.size, out.reshape(-1)
    for at in range(0, sequences, lanes):
        tiles.fill(soft, at, sequences, stride, starts, tile, (0.0,))
        round_to(tile, factor, rounds)
        here = forward_lanes(
            tile, steps, butterflies, places, every, known_start, costs, least, paths, words,
            outputs, block,
        )  # fmt: skip
        state[:] = 0
        if not known_end:
            tiles.best_rows(paths, here, places.size // 2, least, state)
        trace_back_lanes(words, steps, without, first, state, bits, n_words, block)
        tiles.empty_out(bits, keep, at, sequences, starts, flat, (0.0,))
