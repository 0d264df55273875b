"""The bits of a line with two levels, from samples of a band-limited signal.

The signal is cut into blocks of some 32 bits, counted from its start. All that is decided about a
block depends on the blocks within some reach of it and on nothing else, so that any stretch of a
long signal that reaches far enough to both sides gives the same bits.

timing      Changes of level come at whole bits, so that the squared slope has a line at the bit
            rate, whose phase is taken over the blocks within reach (Oerder and Meyr, "Digital
            filter and square timing recovery", IEEE Trans. Commun. 36(5), 1988, with the slope in
            the place of the magnitude: a constant does not matter).
slicer      A bit is 1 where the signal in its middle lies above its mean within reach.
sequence    A filter w on the points x_n around the middle of a bit, a constant c and taps g of a
            response with the leading tap 1 are fitted by least squares to the bits at hand,

                w . x_n + c  =  b_n + g_1 b_{n-1} + ... + g_L b_{n-L} + error,     b = -1, +1,

            which leaves errors that are nearly white, whatever the colour of the noise: w is the
            forward and g the backward filter of the decision feedback equaliser with the least
            mean square error. What the bits then are, is decided for the most likely sequence over
            the response g (Forney, Proc. IEEE 61(3), 1973; kernels/viterbi.py). The fit of a block
            is that of the blocks within reach, and is repeated with the new bits; blocks that the
            last fit did not suit, as noise before and after a burst, count less.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import matrices, viterbi
from blocks.kernels.caching import njit

Array = np.ndarray[Any, Any]

BITS = 32  # nominal, per block
POINTS = 4  # per bit, that a filter sees
CONTEXT = 16  # bits before and after a block that its most likely sequence is found with
_STEEPEST = 4.0  # slopes count at most this often their mean square: clicks do not set the clock
_SMOOTH = 2  # blocks to both sides of that mean
_RIDGE = 1e-4  # of each diagonal
_FLOOR = 0.02  # mean square error that no block is believed to be below


class Lane(NamedTuple):
    """One way to decide: how many blocks to both sides to use, and how often to fit."""

    timing: int
    fit: int
    rounds: int  # 0: slicer


def reach_of(lane: Lane) -> int:
    """Blocks to both sides that a block depends on, filters of up to a block included."""
    return lane.timing + max(lane.rounds, 1) * lane.fit + _SMOOTH + 2


def block_of(spacing: float) -> int:
    """Samples in a block, at so many samples per bit."""
    return round(BITS * spacing)


def lines(signal: Array, place: int, spacing: float, blocks: int) -> Array:
    """The line at the bit rate in each block, (blocks,) complex128.

    signal  (blocks size,)
    place   of its first sample in the whole signal
    """
    step = max(1, round(spacing / 5))
    slope = np.zeros_like(signal)
    slope[step:-step] = signal[2 * step :] - signal[: -2 * step]
    power = (slope * slope).reshape(blocks, -1)
    mean = _within(power.mean(axis=1), _SMOOTH) / _within(np.ones(blocks), _SMOOTH)
    power = np.minimum(power, _STEEPEST * mean[:, None]) / (mean[:, None] + 1e-30)
    turns = np.exp(-2j * np.pi * ((place + np.arange(signal.size)) / spacing % 1.0))
    return np.asarray((power * turns.reshape(power.shape)).sum(axis=1))


def _within(values: Array, reach: int) -> Array:
    """Sums of the values of the blocks within reach."""
    return np.convolve(values, np.ones(2 * reach + 1))[reach : reach + values.size]


def middles(line: Array, place: int, spacing: float, size: int, reach: int) -> Array:
    """Where the middles of the bits are, in samples from `place` on.

    line    (blocks,) as `lines` gives them
    size    of a block
    """
    blocks = line.size
    phases = np.unwrap(np.angle(_within(line, reach))) / (2.0 * np.pi)
    centres = (np.arange(blocks) + 0.5) * size
    ends = np.concatenate([[0.0], centres, [float(blocks * size)]])
    clock = (place + ends) / spacing + np.interp(ends, centres, phases) + 0.5  # whole at middles
    first = math.floor(clock[0])
    numbers = np.arange(first + 1, math.floor(clock[-1]) + 1)
    return np.asarray(np.interp(numbers - first, clock - first, ends))


def at(values: Array, times: Array) -> Array:
    """Values (T,) between samples, by the cubic of Catmull and Rom."""
    whole = np.floor(times).astype(np.int64)
    f = times - whole
    whole = whole.clip(1, values.size - 3)
    a, b, c, d = (values[whole + k] for k in (-1, 0, 1, 2))
    return np.asarray(
        b + 0.5 * f * (c - a + f * (2 * a - 5 * b + 4 * c - d + f * (3 * (b - c) + d - a)))
    )


@njit(cache=True, nogil=True)
def correlations(rows: Array, bits: Array, edges: Array, memory: int, out: Array) -> None:
    """Sums over each block of products of what the fit is made of.

    rows    (n, D) float64     points and a constant
    bits    (n,) int8          0 or 1
    edges   (blocks + 1,) int64  the first bit of each block, and the end
    out     (blocks, D + memory + 1, ...)  written, lower triangles: points, past bits times -1,
            the bit itself
    """
    width = rows.shape[1]
    total = width + memory + 1
    row = np.empty(total)
    out[:] = 0.0
    for k in range(edges.size - 1):
        for n in range(edges[k], edges[k + 1]):
            row[:width] = rows[n]
            for j in range(1, memory + 1):
                row[width + j - 1] = 1.0 - 2.0 * bits[max(n - j, 0)]
            row[total - 1] = 2.0 * bits[n] - 1.0
            for i in range(total):
                value = row[i]
                for j in range(i + 1):
                    out[k, i, j] += value * row[j]


@njit(cache=True, nogil=True)
def fit_and_decide(
    rows: Array, edges: Array, sums: Array, reach: int, memory: int, errors: Array, bits: Array
) -> None:
    """One round of all blocks.

    rows    (n, D), edges as in `correlations`, which gave `sums`
    errors  (blocks,)   mean square errors of the last fit, replaced by those of this one
    bits    (n,) int8   replaced by the most likely ones
    """
    width, blocks = rows.shape[1], edges.size - 1
    unknown = width + memory
    normal, right = np.empty((unknown, unknown)), np.empty((unknown, 1))
    before = errors.copy()
    n_branches = 2 << max(memory, 1)  # a state tells the newest bit, as in kernels/trellis.py
    most = 2 * CONTEXT
    for k in range(blocks):
        most = max(most, edges[k + 1] - edges[k] + 2 * CONTEXT)
    means, metrics = np.empty(n_branches), np.empty((most, n_branches))
    path, scratch = np.empty(n_branches // 2), np.empty(n_branches // 2)
    survivors, decided = np.empty((most, n_branches // 2), np.uint8), np.empty(most, np.uint8)
    for k in range(blocks):
        first, last = edges[k], edges[k + 1]
        if last == first:
            continue
        normal[:] = 0.0
        right[:] = 0.0
        for m in range(max(0, k - reach), min(blocks, k + reach + 1)):
            weight = 1.0 / (before[m] + _FLOOR)
            for i in range(unknown):
                right[i, 0] += weight * sums[m, unknown, i]
                for j in range(i + 1):
                    normal[i, j] += weight * sums[m, i, j]
        for i in range(unknown):
            normal[i, i] += _RIDGE * normal[i, i]
        if not matrices.cholesky(normal, unknown, normal):
            continue
        matrices.solve_lower(normal, unknown, right, 1)
        matrices.solve_upper(normal, unknown, right, 1)
        error = sums[k, unknown, unknown]
        for i in range(unknown):
            error -= 2.0 * right[i, 0] * sums[k, unknown, i]
            error += right[i, 0] ** 2 * sums[k, i, i]
            for j in range(i):
                error += 2.0 * right[i, 0] * right[j, 0] * sums[k, i, j]
        errors[k] = max(error, 0.0) / (last - first)
        for branch in range(n_branches):
            means[branch] = 2.0 * (branch & 1) - 1.0
            for j in range(1, memory + 1):
                means[branch] += right[width + j - 1, 0] * (2.0 * (branch >> j & 1) - 1.0)
        start, stop = max(0, first - CONTEXT), min(rows.shape[0], last + CONTEXT)
        for n in range(start, stop):
            value = 0.0
            for i in range(width):
                value += right[i, 0] * rows[n, i]
            for branch in range(n_branches):
                metrics[n - start, branch] = (value - means[branch]) ** 2
        path[:] = 0.0
        steps = stop - start
        viterbi.forward(metrics[:steps], 0, 2, path, scratch, survivors[:steps])
        viterbi.trace_back(
            survivors[:steps], viterbi.best_state(path), 2, first - start, decided[: last - first]
        )
        for n in range(first, last):
            bits[n] = decided[n - first]


class LineBits:
    """Decides stretches of a signal.

    spacing   samples per bit
    memory    bits before the newest that the response reaches back to; 0: the filter does it all
    span      bits that a filter reaches to each side
    """

    def __init__(self, spacing: float, memory: int, span: float) -> None:
        self.spacing, self.memory, self.size = spacing, memory, block_of(spacing)
        half = round(span * POINTS)
        self._offsets = np.arange(-half, half + 1) * (spacing / POINTS)

    def decide(
        self, signal: Array, features: Array, place: int, lane: Lane, first: int, last: int
    ) -> tuple[Array, Array]:
        """Bits (n,) uint8 and their middles (n,) [samples from the start of the whole signal].

        signal       (blocks size,)     what is sliced and sets the clock
        features     (F, blocks size)   what filters see
        place        of the first sample in the whole signal, a multiple of size
        first, last  blocks that are wanted; to both sides of them should be those within reach
        """
        blocks = signal.size // self.size
        line = lines(signal, place, self.spacing, blocks)
        times = middles(line, place, self.spacing, self.size, lane.timing)
        edges = np.searchsorted(times, np.arange(blocks + 1) * self.size)
        levels = at(signal, times)
        block = np.repeat(np.arange(blocks), np.diff(edges))
        mean = _within(np.bincount(block, levels, blocks), lane.fit)
        mean /= np.maximum(_within(np.diff(edges).astype(float), lane.fit), 1.0)
        bits = (levels > mean[block]).astype(np.int8)
        if lane.rounds:
            points = times[:, None] + self._offsets
            rows = np.concatenate(
                [*(at(feature, points) for feature in features), np.ones((times.size, 1))], axis=1
            )
            total = rows.shape[1] + self.memory + 1
            sums, errors = np.empty((blocks, total, total)), np.ones(blocks)
            for _ in range(lane.rounds):
                correlations(rows, bits, edges, self.memory, sums)
                fit_and_decide(rows, edges, sums, lane.fit, self.memory, errors, bits)
        wanted = slice(edges[first], edges[last])
        return bits[wanted].astype(np.uint8), place + times[wanted]
