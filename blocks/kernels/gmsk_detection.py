"""Bursts of GMSK: where they begin, and which symbols they carry.

A burst begins with levels that are known. It is looked for by the phase that the signal turns
through in a symbol, which an offset of the carrier shifts by the same angle everywhere; then time,
frequency and phase are fitted to the known part, coherently. Two detectors decide what follows:
one looks at the turns, symbol by symbol, as an FM receiver does; the other is the Viterbi algorithm
on the phase trellis of kernels/gmsk.py, coherent: it decides some symbols more, fits the phase to
all that is decided, and so on, so that what the known part tells too coarsely becomes exact.
"""

from __future__ import annotations

import cmath
import math
from typing import Any

import numpy as np

from blocks.kernels import viterbi
from blocks.kernels.caching import njit
from blocks.kernels.gmsk import BRANCHES, POINTS, STATES

Array = np.ndarray[Any, Any]

TAPS, PHASES = 12, 128  # of the interpolation between samples
FAR = np.float32(1e9)  # metric of a state that the known part excludes
SPAN = 24  # symbols over which the level of a burst is looked at
FADED = 0.5  # share of the level of the known part below which a burst is over
FIRST, MOST = 16, 48  # symbols that are decided before the phase is fitted again
FITTED = 96  # newest symbols that the line of the phase is fitted to
SMOOTHED = 24  # symbols before and after whose phases are averaged in the end


# --- From samples to the channel ------------------------------------------------------------------


def low_pass(rate: float, edge: float, stop: float) -> Array:
    """Taps (odd,) float32 of a filter that passes |f| < edge and stops |f| > stop, as `rate`."""
    half = math.ceil(1.65 * rate / (stop - edge))
    n = np.arange(-half, half + 1)
    taps: Array = np.sinc(min(1.0, (edge + stop) / rate) * n) * np.hamming(2 * half + 1)
    taps /= taps.sum()
    return taps.astype(np.float32)


@njit(cache=True, nogil=True)
def turn_back(samples: Array, first: int, turns: float, out: Array) -> None:
    """Shift the frequency: sample n of the stream is turned back by n `turns` of the circle.

    samples  (n,) complex64, of which the first is sample `first` of the stream
    out      (n,) complex64  written
    """
    for i in range(out.size):
        place = (first + i) * turns
        out[i] = samples[i] * cmath.rect(1.0, -2.0 * math.pi * (place - math.floor(place)))


@njit(cache=True, nogil=True)
def thin(samples: Array, taps: Array, hop: int, out: Array) -> None:
    """Filter, and keep every hop-th sample.

    samples  (>= (n - 1) hop + taps.size,) complex64
    taps     (k,) float32
    out      (n,) complex64  written
    """
    for i in range(out.size):
        real, imag = np.float32(0.0), np.float32(0.0)
        for k in range(taps.size):
            value = samples[i * hop + k]
            real += taps[k] * value.real
            imag += taps[k] * value.imag
        out[i] = complex(real, imag)


def interpolation() -> Array:
    """Weights (PHASES + 1, TAPS) float32 of the samples around a place between two of them."""
    at = np.arange(PHASES + 1)[:, None] / PHASES
    n = np.arange(TAPS) - (TAPS // 2 - 1) - at
    weights: Array = np.sinc(n) * np.cos(np.pi * n / (TAPS + 2)) ** 2
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32)


@njit(cache=True, nogil=True)
def resample(y: Array, place: float, step: float, turn: float, weights: Array, out: Array) -> None:
    """Samples at place, place + step ..., turned back by `turn` [rad] per step; 0 past the ends.

    y        (n,) complex64
    weights  as of `interpolation`
    out      (m,) complex64  written
    """
    for i in range(out.size):
        at = place + i * step
        first = math.floor(at)
        row = int((at - first) * PHASES + 0.5)
        value = 0j
        for k in range(TAPS):
            j = first + k - (TAPS // 2 - 1)
            if 0 <= j < y.size:
                value += weights[row, k] * y[j]
        out[i] = value * cmath.rect(1.0, -turn * i)


# --- Where bursts begin ---------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def correlate(
    y: Array, lag: int, known: Array, scratch: Array, scores: Array, kinds: Array
) -> None:
    """How well the turns from each sample on agree with those of known levels, and of which.

    y        (>= n + k + lag,) complex64
    known    (K, k) complex64     turns of unit length
    scratch  (8, >= n + k) float32
    scores   (n,) float32  written: 0 ... 1
    kinds    (n,) int64    written: 2 known + 1 if all levels are the other way round
    """
    count, steps = scores.size, known.shape[1]
    real, imag, size, whole = scratch[0], scratch[1], scratch[2], scratch[3]
    real_a, imag_b, imag_a, real_b = scratch[4], scratch[5], scratch[6], scratch[7]
    for i in range(count + steps):
        turn = y[i + lag] * y[i].conjugate()
        real[i], imag[i] = turn.real, turn.imag
        size[i] = abs(turn)
    for i in range(count):
        scores[i], kinds[i] = 0.0, 0
        whole[i] = 0.0
    for k in range(steps):
        for i in range(count):
            whole[i] += size[i + k]
    for number in range(known.shape[0]):
        for i in range(count):
            real_a[i] = imag_b[i] = imag_a[i] = real_b[i] = 0.0
        for k in range(steps):
            a, b = known[number, k].real, known[number, k].imag
            for i in range(count):
                real_a[i] += real[i + k] * a
                imag_b[i] += imag[i + k] * b
                imag_a[i] += imag[i + k] * a
                real_b[i] += real[i + k] * b
        for i in range(count):
            plus = math.hypot(real_a[i] + imag_b[i], imag_a[i] - real_b[i])
            minus = math.hypot(real_a[i] - imag_b[i], imag_a[i] + real_b[i])
            best = max(plus, minus)
            if best > scores[i]:
                scores[i] = best
                kinds[i] = 2 * number + (1 if minus > plus else 0)
    for i in range(count):
        scores[i] = scores[i] / whole[i] if whole[i] > 0.0 else 0.0


@njit(cache=True, nogil=True)
def peaks(scores: Array, threshold: float, apart: int, found: Array) -> int:
    """Places whose score is the best of all at most `apart` from it; returns how many.

    scores  (n + 2 apart,)
    found   (n,) int64  written: places among the n in the middle
    """
    count = 0
    for i in range(scores.size - 2 * apart):
        score = scores[i + apart]
        if not score >= threshold:
            continue
        best = True
        for k in range(i, i + apart):
            if scores[k] >= score or scores[k + apart + 1] > score:
                best = False
                break
        if best:
            found[count] = i
            count += 1
    return count


@njit(cache=True, nogil=True)
def mean_turn(y: Array, place: int, lag: int, known: Array, inverted: bool) -> float:
    """The carrier's part of the turns from a place on, each over `lag` samples [rad].

    known     (k,) complex64  turns of the known levels
    inverted  whether all levels are the other way round
    """
    total = 0j
    for k in range(known.size):
        expected = known[k] if inverted else known[k].conjugate()
        total += y[place + k + lag] * y[place + k].conjugate() * expected
    return cmath.phase(total)


@njit(cache=True, nogil=True)
def fit(
    y: Array, place: float, step: float, known: Array, reach: int, weights: Array, turns: Array,
    room: Array, sums: Array,
) -> tuple[int, float, float, float, float]:  # fmt: skip
    """Where a burst begins, how fast its carrier turns, its phase, and how well all that fits.

    y        (n,) complex64
    place    of the middle of the first symbol, roughly
    step     samples per symbol
    known    (K, k, POINTS) complex64  waveforms of the first symbols, one of which it is
    reach    points to try before and after the place
    weights  as of `interpolation`
    turns    (l,) turns per symbol to try [rad], equally far apart, increasing
    room     (POINTS k + 2 reach,) complex64, sums (k,) complex64: scratch
    returns  which of the known, place, turn per symbol, phase of the first symbol [rad], and how
             well its symbols add up, of 0 ... 1
    """
    point = step / POINTS
    place -= 0.5 * (POINTS - 1) * point  # of the first point from here on
    resample(y, place - reach * point, point, 0.0, weights, room)
    best, kind, shift, turn = -1.0, 0, 0, 0.0
    for number in range(known.shape[0]):
        for tried in range(2 * reach + 1):
            _known_sums(room[tried:], known[number], sums)
            for k in range(turns.size):
                size = _size(sums, turns[k])
                if size > best:
                    best, kind, shift, turn = size, number, tried, turns[k]
    before = after = 0.0
    if shift > 0:
        _known_sums(room[shift - 1 :], known[kind], sums)
        before = _size(sums, turn)
    if shift < 2 * reach:
        _known_sums(room[shift + 1 :], known[kind], sums)
        after = _size(sums, turn)
    place += (shift - reach + _vertex(before, best, after)) * point
    resample(y, place, point, 0.0, weights, room)
    _known_sums(room, known[kind], sums)
    apart = turns[1] - turns[0]
    turn += apart * _vertex(_size(sums, turn - apart), _size(sums, turn), _size(sums, turn + apart))
    whole = _turned(sums, turn)
    power = 0.0
    for n in range(sums.size):
        power += sums[n].real * sums[n].real + sums[n].imag * sums[n].imag
    likeness = abs(whole) / math.sqrt(sums.size * power) if power > 0.0 else 0.0
    return kind, place + 0.5 * (POINTS - 1) * point, turn, cmath.phase(whole), likeness


@njit(cache=True, nogil=True)
def _known_sums(points: Array, known: Array, sums: Array) -> None:
    """Correlation of each symbol with its known waveform."""
    for n in range(sums.size):
        total = 0j
        for k in range(POINTS):
            total += points[n * POINTS + k] * known[n, k].conjugate()
        sums[n] = total


@njit(cache=True, nogil=True)
def _turned(sums: Array, turn: float) -> complex:
    """Sum of what is turned back by `turn` per symbol."""
    total, back, step = 0j, 1.0 + 0j, cmath.rect(1.0, -turn)
    for n in range(sums.size):
        total += sums[n] * back
        back *= step
    return total


@njit(cache=True, nogil=True)
def _size(sums: Array, turn: float) -> float:
    """Its magnitude."""
    return float(abs(_turned(sums, turn)))


@njit(cache=True, nogil=True)
def _vertex(before: float, here: float, after: float) -> float:
    """Where the parabola through three points one apart is highest, at most half a step away."""
    bend = before - 2.0 * here + after
    if not bend < 0.0:
        return 0.0
    return max(-0.5, min(0.5, 0.5 * (before - after) / bend))


# --- What they carry ------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def slice_turns(points: Array, known: int, taps: Array, room: Array, bits: Array) -> int:
    """Levels by the way the signal turns in the middle of each symbol; returns of how many.

    points  (N, POINTS) complex64  turned back by the carrier's offset
    known   symbols at the start whose power is that of the burst
    taps    (odd,) float32         of a filter at POINTS samples per symbol
    room    (N POINTS,) complex64  scratch
    bits    (N,) uint8             those after the known are written: 1 for a level of +1, 0 for -1
    """
    flat = points.reshape(-1)
    half = taps.size // 2
    for i in range(flat.size):
        value = 0j
        for k in range(max(0, half - i), min(taps.size, flat.size + half - i)):
            value += taps[k] * flat[i + k - half]
        room[i] = value
    power = _mean_power(room, 0, known)
    for n in range(known, bits.size):
        middle = n * POINTS + POINTS // 2
        turn = room[middle + 1] * room[middle - 1].conjugate()
        bits[n] = 1 if turn.imag > 0.0 else 0
        if not _mean_power(room, n + 1 - SPAN, n + 1) >= FADED * power:
            return n
    return bits.size


@njit(cache=True, nogil=True)
def _mean_power(points: Array, first: int, stop: int) -> float:
    """Mean power of some symbols."""
    total = 0.0
    for i in range(first * POINTS, stop * POINTS):
        value = points[i]
        total += value.real * value.real + value.imag * value.imag
    return total / (stop - first)


@njit(cache=True, nogil=True)
def branch_sums(points: Array, waveforms: Array, out: Array) -> None:
    """Correlations of each symbol with the waveforms of all branches.

    points     (N, POINTS) complex64
    waveforms  (BRANCHES, POINTS) complex64
    out        (N, BRANCHES) complex64  written
    """
    quarter = 1.0 + 0j  # (-j)^(n - 1), of which the first is j
    quarter *= 1j
    for n in range(out.shape[0]):
        for b in range(BRANCHES):
            total = 0j
            for k in range(POINTS):
                total += points[n, k] * waveforms[b, k].conjugate()
            out[n, b] = total * quarter
        quarter *= -1j


@njit(cache=True, nogil=True)
def branch(products: Array, n: int) -> int:
    """The branch of symbol n, 2 <= n <= N - 2."""
    state = 4 * np.int64(products[n - 1]) + 2 * np.int64(products[n]) + np.int64(products[n + 1])
    return int(state + STATES * np.int64(products[n - 2]))


@njit(cache=True, nogil=True)
def sequence(
    sums: Array, products: Array, known: int, phase: float, metrics: Array, survivors: Array,
    path: Array, scratch: Array, phases: Array, along: Array,
) -> int:  # fmt: skip
    """Products of levels by the Viterbi algorithm; returns of how many symbols.

    sums       (N, BRANCHES) complex64  as of `branch_sums`
    products   (N,) uint8   the first `known` are: 0 or 1 for -1 or 1; the others are written
    phase      of the carrier at the first [rad], by the known part; the samples do not turn
    metrics    (N, BRANCHES) float32, survivors (N, STATES) uint8, path and scratch (STATES,)
               float32, phases (N,) float64, along (N,) complex64: scratch
    """
    length = sums.shape[0]
    turn, middle = 0.0, 0.0
    for n in range(length):
        phases[n] = phase
    for n in range(2, known - 1):
        along[n] = sums[n, branch(products, n)]
    level = _level(along, phases, 2, known - 1)
    done, ended = known, False
    while done < length and not ended:
        stop = min(length, done + min(MOST, max(FIRST, done // 2)))
        _decide(sums, products, known, stop, metrics, survivors, path, scratch, phases)
        for n in range(known - 1, stop - 1):
            along[n] = sums[n, branch(products, n)]
        for n in range(done + 1, stop):
            if not _level(along, phases, n - SPAN, n) >= FADED * level:
                stop, ended = n, True
                break
        first = max(2, stop - FITTED)
        middle = 0.5 * (first + stop - 2)
        phase, turn = _line(along, first, stop - 1, middle, phases[int(middle)], turn)
        for n in range(first, length):
            phases[n] = phase + turn * (n - middle)
        done = stop
    _smooth(along, phases, 2, done - 1)
    _decide(sums, products, known, done, metrics, survivors, path, scratch, phases)
    return done


@njit(cache=True, nogil=True)
def _decide(
    sums: Array, products: Array, known: int, stop: int, metrics: Array, survivors: Array,
    path: Array, scratch: Array, phases: Array,
) -> None:  # fmt: skip
    """Write the products known ... stop - 1: symbol n tells product n + 1."""
    steps = stop - known
    for i in range(steps):
        n = known - 1 + i
        back = cmath.rect(1.0, -phases[n])
        for b in range(BRANCHES):
            metrics[i, b] = -(sums[n, b] * back).real
    path[:] = FAR
    path[branch(products, known - 2) % STATES] = 0.0
    viterbi.forward(metrics[:steps], 0, 2, path, scratch, survivors)
    viterbi.trace_back(survivors[:steps], viterbi.best_state(path), 2, 0, products[known:stop])


@njit(cache=True, nogil=True)
def _level(along: Array, phases: Array, first: int, stop: int) -> float:
    """Mean correlation of symbols with what was decided."""
    total = 0j
    for n in range(first, stop):
        total += along[n] * cmath.rect(1.0, -phases[n])
    return abs(total) / (stop - first)


@njit(cache=True, nogil=True)
def _line(
    along: Array, first: int, stop: int, middle: float, phase: float, turn: float
) -> tuple[float, float]:
    """Phase at the middle and turn per symbol that fit best, from guesses of them."""
    for _ in range(3):
        total = 0j
        for n in range(first, stop):
            total += along[n] * cmath.rect(1.0, -phase - turn * (n - middle))
        phase += cmath.phase(total)
        slope = bend = 0.0
        for n in range(first, stop):
            away = n - middle
            value = along[n] * cmath.rect(1.0, -phase - turn * away)
            slope += away * value.imag
            bend += away * away * value.real
        if bend > 0.0:
            turn += slope / bend
    return phase, turn


@njit(cache=True, nogil=True)
def _smooth(along: Array, phases: Array, first: int, stop: int) -> None:
    """Add to each phase what the symbols around it say; `along` is turned back by the phases."""
    for n in range(first, stop):
        along[n] *= cmath.rect(1.0, -phases[n])
    total = 0j
    for n in range(first, min(stop, first + SMOOTHED)):
        total += along[n]
    for n in range(first, stop):
        if n + SMOOTHED < stop:
            total += along[n + SMOOTHED]
        if n - SMOOTHED - 1 >= first:
            total -= along[n - SMOOTHED - 1]
        phases[n] += cmath.phase(total)
