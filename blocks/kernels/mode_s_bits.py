"""The bits of Mode S messages whose places are known, decided in several ways.

A bit detector is called with the magnitudes and with the places of N messages in them,

    detect(y, starts, phases) -> Decided

    y        (time,) float32  reaching to the end of a long message after each place, Model.ends
    starts   (N,) int64       sample on which the first pulse is centred, or which it follows by
    phases   (N,) uint8       so many steps of a phase

and decides each message by itself, whatever the others are. It says at which phases, from the one
at which the preamble correlates best, it wants to be called. A learned one has the same form.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any, NamedTuple, Protocol

import numpy as np

from blocks.kernels import mode_s
from blocks.kernels.caching import njit
from blocks.kernels.mode_s_detection import (
    BRANCHES,
    FLAT,
    LONG,
    PREAMBLE,
    SHORT,
    Model,
    fit_preamble,
    means_of,
)

Array = np.ndarray[Any, Any]

LLR_LIMIT = 300.0  # nats


class Decided(NamedTuple):
    """What a bit detector finds.

    bits    (N, 112) uint8     0 past the end of short messages
    sizes   (N,) int16         56 or 112, as the first bit says
    llr     (N, 112) float32   log-likelihood ratios [nat], positive for 1; 0 past the end
    """

    bits: Array
    sizes: Array
    llr: Array


class BitDetector(Protocol):
    """Decides the bits of messages; `tries` are the phases, from the best one, to call it at."""

    tries: tuple[int, ...]

    def __call__(self, y: Array, starts: Array, phases: Array) -> Decided:
        """What was sent at these places."""


@njit(cache=True, nogil=True)
def at_chips(y: Array, starts: Array, phases: Array, chip: float, steps: int, out: Array) -> None:
    """Write what `chips_of` returns; between two samples it lies on a line.

    chip    samples per chip
    steps   phases of a sample
    """
    for k in range(starts.size):
        for i in range(out.shape[1]):
            place = phases[k] / steps + (PREAMBLE + i) * chip
            whole = math.floor(place)
            share = place - whole
            at = starts[k] + whole
            value = y[at]
            if share > 0.0:
                value += share * (y[at + 1] - value)
            out[k, i] = value


@njit(cache=True, nogil=True)
def levels(chips: Array, bits: Array, sizes: Array, out: Array) -> None:
    """Mean magnitude in the middle of the pulses of each message.

    chips   (N, 224)
    bits    (N, 112)
    sizes   (N,)
    out     (N,)  written
    """
    for k in range(out.size):
        total = 0.0
        for n in range(sizes[k]):
            total += chips[k, 2 * n + (1 - bits[k, n])]
        out[k] = total / sizes[k]


def chips_of(y: Array, starts: Array, phases: Array, model: Model) -> Array:
    """Magnitudes in the middle of each chip of the data, (N, 224) float32."""
    out = np.empty((starts.size, 2 * LONG), np.float32)
    at_chips(y, starts, phases, model.chip, len(model.first), out)
    return out


def _sizes(long: Array) -> Array:
    return np.where(long, LONG, SHORT).astype(np.int16)


class Slicer:
    """A bit is 1 if its first chip is higher than its second.

    The ratio of a difference d is that of Gaussian noise, 2 d m / v, with the mean m and the
    variance v of |d| over the message.
    """

    tries: tuple[int, ...] = (0,)

    def __init__(self, model: Model) -> None:
        self._model = model

    def __call__(self, y: Array, starts: Array, phases: Array) -> Decided:
        chips = chips_of(y, starts, phases, self._model).reshape(-1, LONG, 2)
        difference = (chips[:, :, 0] - chips[:, :, 1]).astype(np.float64)
        sizes = _sizes(difference[:, 0] > 0)
        own = np.arange(LONG) < sizes[:, None]
        height = np.abs(difference) * own
        mean = height.sum(axis=1) / sizes
        variance = ((height - mean[:, None]) ** 2 * own).sum(axis=1) / sizes
        scale = 2.0 * mean / np.maximum(variance, 1e-6 * mean**2 + 1e-30)
        llr = (difference * scale[:, None] * own).clip(-LLR_LIMIT, LLR_LIMIT).astype(np.float32)
        return Decided((llr > 0).astype(np.uint8), sizes, llr)


class Repair:
    """Another detector, with up to two of its least sure bits turned where the parity is wrong.

    Only where that makes the parity right, for formats whose parity checks by itself (11, 17 and
    18; Annex 10, 3.1.2.3.3), and not where what is left may be an interrogator code. The format
    itself is not touched. Ratios stay as they are: they contradict the bits that were turned.

    unsure   how many of the least sure bits may be turned
    """

    def __init__(self, detector: BitDetector, unsure: int = 8) -> None:
        self._detector, self.tries = detector, detector.tries
        self._weights = {size: mode_s.syndromes(size).astype(np.int64) for size in (SHORT, LONG)}
        single = [(k, k) for k in range(unsure)]
        self._pairs = np.array(single + list(combinations(range(unsure), 2)))
        self._unsure = unsure

    def __call__(self, y: Array, starts: Array, phases: Array) -> Decided:
        decided = self._detector(y, starts, phases)
        formats = decided.bits[:, :FORMAT] @ (1 << np.arange(FORMAT)[::-1])
        for k in np.flatnonzero(np.isin(formats, SELF_CHECKING)):
            size = int(decided.sizes[k])
            bits, weights = decided.bits[k, :size], self._weights[size]
            residue = np.bitwise_xor.reduce(weights[bits == 1], initial=0)
            if residue == 0 or (size == SHORT and residue < INTERROGATORS):
                continue
            sure = np.abs(decided.llr[k, FORMAT:size])
            places = FORMAT + np.argsort(sure, kind="stable")[: self._unsure]
            first, second = places[self._pairs].T
            turned = weights[first] ^ np.where(first == second, 0, weights[second])
            for n in np.flatnonzero(turned == residue)[:1]:
                bits[np.unique([first[n], second[n]])] ^= 1
        return decided


FORMAT = 5  # bits of the downlink format, first of all
SELF_CHECKING = (11, 17, 18)
INTERROGATORS = 128  # what is left of a format 11 is the code of who asked


# --- The sequence detector ------------------------------------------------------------------------


class Scratch(NamedTuple):
    """What `sequences` works in."""

    weights: Array  # (J + 1,)
    means: Array  # (T, 4)
    counts: Array  # (T, 4)
    sums: Array  # (T, 4)
    normal: Array  # (J + 1, J + 1)
    metrics: Array  # (112 + 1, 4)
    forward: Array  # (112 + 2, 2)


@njit(cache=True, nogil=True)
def decide(
    y: Array, start: int, p: int, size: int, model: Model, scratch: Scratch, gains: Array
) -> None:
    """How much less the best bits cost with each bit 1 than with it 0, for the weights at hand.

    The recursion of kernels/max_log.py, over the steps of the bits and one more, in which the
    silence that follows comes into sight. It is written out for two states, since those there,
    for any trellis, take many times as long; the tests compare the two.

    p      phase
    size   of the message, 56 or 112 bits
    gains  (>= size,)  written
    """
    means, metrics, forward = scratch.means, scratch.metrics[: size + 1], scratch.forward
    means_of(model.designs[p], scratch.weights, means)
    period, at = means.shape[0], start + model.first[p]
    metrics[:] = 0.0
    r, offset = 0, 0
    for n in range(at, at + model.counts[p, 1 if size == LONG else 0]):
        row = metrics[model.steps[p, r] + offset]
        for branch in range(BRANCHES):
            row[branch] += (y[n] - means[r, branch]) ** 2
        r += 1
        if r == period:
            r = 0
            offset += model.bits
    forward[0, 0], forward[0, 1] = np.inf, 0.0  # silence before, as at the end of a 1
    for n in range(size + 1):
        zero, one = forward[n, 0], forward[n, 1]
        forward[n + 1, 0] = min(zero + metrics[n, 0], one + metrics[n, 2])
        forward[n + 1, 1] = min(zero + metrics[n, 1], one + metrics[n, 3])
    zero, one = metrics[size, 0], metrics[size, 2]  # and silence after, as at the start of a 0
    for n in range(size - 1, -1, -1):
        gains[n] = (forward[n + 1, 0] + zero) - (forward[n + 1, 1] + one)
        zero, one = (
            min(metrics[n, 0] + zero, metrics[n, 1] + one),
            min(metrics[n, 2] + zero, metrics[n, 3] + one),
        )


@njit(cache=True, nogil=True)
def fit(
    y: Array, start: int, p: int, size: int, model: Model, gains: Array, scratch: Scratch
) -> float:
    """Fit the weights to the preamble and the decided bits; returns the mean square of the rest.

    A design has few different rows, T for each branch, so that all least squares take is how many
    samples have each, and their sum.

    gains  (>= size,)  positive where the bit is 1
    """
    weights, counts, sums, normal = scratch.weights, scratch.counts, scratch.sums, scratch.normal
    period, samples = counts.shape[0], int(model.counts[p, 1 if size == LONG else 0])
    counts[:] = 0.0
    sums[:] = 0.0
    energy, at = 0.0, start + model.first[p]
    r, offset = 0, 0
    for n in range(at, at + samples):
        step = model.steps[p, r] + offset
        branch = 2 if step == 0 or gains[step - 1] > 0.0 else 0
        if step < size and gains[step] > 0.0:
            branch += 1
        value = float(y[n])
        counts[r, branch] += 1.0
        sums[r, branch] += value
        energy += value * value
        r += 1
        if r == period:
            r = 0
            offset += model.bits
    normal[:] = model.known[p]
    weights[:] = 0.0
    for n in range(model.preamble.shape[1]):
        value = float(y[start + n])
        if model.preamble[p, n, weights.size - 1] != 0.0:
            energy += value * value
            samples += 1
        for j in range(weights.size):
            weights[j] += model.preamble[p, n, j] * value
    for r in range(period):
        for branch in range(BRANCHES):
            for j in range(weights.size):
                share = model.designs[p, r, branch, j]
                weights[j] += share * sums[r, branch]
                for i in range(j + 1):
                    normal[j, i] += share * model.designs[p, r, branch, i] * counts[r, branch]
    return float(max(energy - solve(normal, weights), FLAT * energy) / samples)


@njit(cache=True, nogil=True)
def solve(normal: Array, right: Array) -> float:
    """Solve normal x = right by Cholesky's method; returns right . x.

    normal  (n, n)  the lower triangle is used, and overwritten
    right   (n,)    overwritten by x
    """
    product = 0.0
    for j in range(right.size):
        for i in range(j, right.size):
            value = normal[i, j]
            for k in range(j):
                value -= normal[i, k] * normal[j, k]
            normal[i, j] = math.sqrt(value) if i == j else value / normal[j, j]
        value = right[j]
        for k in range(j):
            value -= normal[j, k] * right[k]
        right[j] = value / normal[j, j]
        product += right[j] * right[j]
    for j in range(right.size - 1, -1, -1):
        value = right[j]
        for i in range(j + 1, right.size):
            value -= normal[i, j] * right[i]
        right[j] = value / normal[j, j]
    return product


@njit(cache=True, nogil=True)
def sequences(
    y: Array, starts: Array, phases: Array, rounds: int, model: Model, scratch: Scratch,
    sizes: Array, llr: Array,
) -> None:  # fmt: skip
    """Sizes (N,) and log-likelihood ratios (N, 112) of messages, both written."""
    for k in range(starts.size):
        start, p, gains = starts[k], phases[k], llr[k]
        fit_preamble(y, start, model.weigh[p], scratch.weights)
        decide(y, start, p, SHORT, model, scratch, gains)
        variance = fit(y, start, p, SHORT, model, gains, scratch)
        decide(y, start, p, SHORT, model, scratch, gains)
        size = LONG if gains[0] > 0.0 else SHORT
        if size == LONG:
            decide(y, start, p, LONG, model, scratch, gains)
        for _ in range(rounds):
            variance = fit(y, start, p, size, model, gains, scratch)
            decide(y, start, p, size, model, scratch, gains)
        sizes[k] = size
        for n in range(size):
            gains[n] = min(max(gains[n] / (2.0 * variance), -LLR_LIMIT), LLR_LIMIT)
        gains[size:] = 0.0


class Sequence:
    """The bits of the most likely sequence over the interference between chips.

    The response to a pulse is fitted to each message on its own decisions: first to the preamble
    alone, then to that and the bits decided with it, and so on. The first 56 bits tell whether a
    message is long: a fit over 112 of a short one would take noise for data.

    A frame of some milliseconds has few messages, each of which goes through rounds of its own, so
    they are decided one by one: with two states, the general recursion of kernels/max_log.py takes
    five times as long, and its form for sequences side by side longer to call than this to run.

    tries    phases, from the best one, at which to fit: of a Rate
    rounds   of fitting and deciding
    """

    def __init__(self, model: Model, tries: tuple[int, ...], rounds: int) -> None:
        self._model, self._rounds, self.tries = model, rounds, tries
        period, n_weights = model.designs.shape[1], model.known.shape[1]
        self._scratch = Scratch(
            weights=np.empty(n_weights),
            means=np.empty((period, BRANCHES)),
            counts=np.empty((period, BRANCHES)),
            sums=np.empty((period, BRANCHES)),
            normal=np.empty((n_weights, n_weights)),
            metrics=np.empty((LONG + 1, BRANCHES)),
            forward=np.empty((LONG + 2, 2)),
        )

    def __call__(self, y: Array, starts: Array, phases: Array) -> Decided:
        sizes = np.empty(starts.size, np.int16)
        llr = np.empty((starts.size, LONG), np.float32)
        sequences(y, starts, phases, self._rounds, self._model, self._scratch, sizes, llr)
        return Decided((llr > 0).astype(np.uint8), sizes, llr)
