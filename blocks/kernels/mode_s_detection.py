"""Mode S messages in a stream of magnitudes: the model of a sample, and where messages begin.

A message is a row of chips of 0.5 us (ICAO Annex 10 Volume IV, 3.1.2.1): 16 of the preamble, with
pulses in chips 0, 2, 7 and 9, then two for each of 56 or 112 bits, of which a 1 has its pulse in
the first and a 0 in the second. Pulses of finite rise time, seen through a receiver of limited
bandwidth by a clock of its own, reach into the chips beside their own:

    y_n = a + sum_(i = -1, 0, 1) c_(k+i) h(e_n - i) + noise,

where k is the chip in which sample n lies, e_n its distance from the centre of that chip, and h the
response to a pulse; distances are in chips. h is a sum of known shapes, whose weights are fitted to
each message. Three chips in a row belong to two bits at most, so that a trellis whose state is the
newest bit holds the whole model: branch b_k + 2 b_(k-1), as in kernels/trellis.py, with metric
(y - mean)^2 summed over the samples that see these two bits and no others.

Where a message begins is a sample and a phase: the first pulse is centred on the sample, or on one
of a few fractions of a sample after it. Weights are numbered like the shapes, the last is a.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from blocks.kernels.caching import njit

Array = np.ndarray[Any, Any]

SHORT, LONG = 56, 112  # bits of a message
PULSES = (0, 2, 7, 9)  # chips of the preamble that are on
PREAMBLE = 16  # chips
BRANCHES = 4
FLAT = 1e-5  # of the energy: samples that vary less are all the same, but for rounding


class Rate(NamedTuple):
    """What is particular to a sampling rate.

    chip      samples per chip, of which `period` make a whole number of bits, `bits`
    phases    fractions of a sample at which a message may begin
    tries     phases, from the one at which the preamble correlates best, at which to fit h: it
              reaches further after a pulse than before
    shapes    values of the shapes of h at distances (N,), (N, n_shapes)
    typical   weights of a typical pulse, up to a factor
    pull      how firmly weights are pulled towards a multiple of `typical`, in samples
    """

    chip: float
    period: int
    bits: int
    phases: int
    tries: tuple[int, ...]
    shapes: Callable[[Array], Array]
    typical: tuple[float, ...]
    pull: float


def _per_chip(distance: Array) -> Array:
    """One shape for each of three chips: with one sample per chip, h is seen nowhere else."""
    nearest = np.floor(distance + 0.5 + 1e-9)
    return np.asarray(nearest[:, None] == np.array([-1.0, 0.0, 1.0]), float)


def _hats(distance: Array) -> Array:
    """Triangles half a chip apart: h is a straight line from each of five values to the next."""
    centres = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    return np.asarray(np.clip(1.0 - np.abs(distance[:, None] - centres) / 0.5, 0.0, None))


#: By samples per second. At 2.4 Msps a message has more weights than its preamble can tell, so that
#: they are held near those of a typical pulse. bench/MODES.md has what other values of `tries` and
#: `pull` give.
RATES = {
    2.0e6: Rate(1.0, 2, 1, 4, (-1,), _per_chip, (0.0, 1.0, 0.0), 0.0),
    2.4e6: Rate(1.2, 12, 5, 5, (-1, 1, 3), _hats, (0.0, 0.5, 1.0, 0.5, 0.0), 30.0),
}


class Model(NamedTuple):
    """Tables of a rate: P phases, W samples in the preamble, J + 1 weights, T samples in a period.

    chip         samples per chip
    pulses       (P, 4) int64              sample before the middle of each pulse of the preamble
    parts        (P, 4) int64              and how many phases later that is
    norms        (P,)                      length of the preamble as `correlate` sees it
    preamble     (P, W, J + 1)             design of its samples; 0 where they see data as well
    known        (P, J + 1, J + 1)         its normal matrix, with the pull
    weigh        (P, J + 1, W)             weights fitted to it alone, as a function of its samples
    first        (P,) int64                first sample of the data, from the first pulse
    counts       (P, 2) int64              samples of the data, of 56 and of 112 bits
    designs      (P, T, 4, J + 1)          design of each sample in a period, by branch
    steps        (P, T) int64              trellis step of each, from the first of the period
    bits         bits in a period
    ends         (P, 2) int64              samples up to the end of a message of 56 and of 112 bits
    """

    chip: float
    pulses: Array
    parts: Array
    norms: Array
    preamble: Array
    known: Array
    weigh: Array
    first: Array
    counts: Array
    designs: Array
    steps: Array
    bits: int
    ends: Array


def model_of(rate: Rate) -> Model:
    """The tables of a rate."""
    chip, phases = rate.chip, rate.phases
    window = math.floor((PREAMBLE - 1.5) * chip) + 2  # up to the last sample that sees no data
    n_weights = len(rate.typical) + 1
    typical = np.array(rate.typical) / np.linalg.norm(rate.typical)
    pull = 1e-3 * np.eye(n_weights)  # so that any bits whatever have a solution
    pull[:-1, :-1] += rate.pull * (np.eye(typical.size) - np.outer(typical, typical))
    on = np.isin(np.arange(-2, PREAMBLE + 2), PULSES).astype(float)  # chips from -2 on

    pulses, parts = np.empty((2, phases, len(PULSES)), np.int64)
    norms = np.empty(phases)
    preamble = np.zeros((phases, window, n_weights))
    known = np.empty((phases, n_weights, n_weights))
    weigh = np.empty((phases, n_weights, window))
    first = np.empty(phases, np.int64)
    counts, ends = np.empty((phases, 2), np.int64), np.empty((phases, 2), np.int64)
    designs = np.ones((phases, rate.period, BRANCHES, n_weights))
    steps = np.empty((phases, rate.period), np.int64)
    for p in range(phases):
        place = (np.arange(math.ceil((PREAMBLE + 2 * LONG) * chip) + 2) - p / phases) / chip
        nearest = np.floor(place + 0.5 + 1e-9).astype(int)  # the chip that a sample lies in
        apart = (place - nearest)[:, None] - np.array([-1.0, 0.0, 1.0])  # from it and its two
        seen = rate.shapes(apart.ravel()).reshape(*apart.shape, -1)

        middles = np.rint(p + np.array(PULSES) * chip * phases).astype(int)
        pulses[p], parts[p] = np.divmod(middles, phases)
        template = np.zeros(window)
        template[pulses[p]] = 1.0 - parts[p] / phases
        template[pulses[p] + 1] += parts[p] / phases
        norms[p] = np.linalg.norm(template - template.mean())
        three = np.stack([on[nearest[:window] + 2 + i] for i in (-1, 0, 1)], axis=1)
        preamble[p, :, :-1] = np.einsum("ni,nij->nj", three, seen[:window])
        preamble[p, :, -1] = 1.0
        preamble[p, nearest[:window] + 1 >= PREAMBLE] = 0.0
        known[p] = preamble[p].T @ preamble[p] + pull
        weigh[p] = np.linalg.solve(known[p], preamble[p].T)

        first[p] = np.argmax(nearest >= PREAMBLE)
        for k, size in enumerate((SHORT, LONG)):
            counts[p, k] = np.argmax(nearest >= PREAMBLE + 2 * size) - first[p]
            last = math.ceil(p / phases + (PREAMBLE + 2 * size - 1) * chip - 1e-9)
            ends[p, k] = max(first[p] + counts[p, k], last + 1)
        for r in range(rate.period):
            n = first[p] + r
            steps[p, r] = (nearest[n] - PREAMBLE + 1) // 2
            for branch in range(BRANCHES):
                new, old = branch % 2, branch // 2
                in_second = (old, 1 - old, new)  # it lies in the second chip of the older bit
                in_first = (1 - old, new, 1 - new)
                three_chips = in_second if (nearest[n] - PREAMBLE) % 2 else in_first
                designs[p, r, branch, :-1] = np.array(three_chips) @ seen[n]
    return Model(
        chip, pulses, parts, norms, preamble, known, weigh, first, counts, designs, steps,
        rate.bits, ends,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def add_up(x: Array, window: int, out: Array) -> None:
    """Sums of `window` neighbours, from sums of 1, 2, 4 ... of them.

    x    (count + window - 1,)   overwritten
    out  (count,)                written
    """
    out[:] = 0.0
    done, width = 0, 1
    while True:
        if window & width:
            add(out, x[done:])
            done += width
        if done == window:
            break
        add(x[: x.size - 2 * width + 1], x[width:])
        width *= 2


@njit(cache=True, nogil=True)
def add(x: Array, y: Array) -> None:
    """Add y (>= n,) to x (n,), each number after those before it."""
    for n in range(x.size):
        x[n] += y[n]


@njit(cache=True, nogil=True)
def correlate(y: Array, model: Model, score: Array, scratch: Array) -> None:
    """Normalised correlation with the preamble at each sample, at its best phase.

    Of the preamble only where the middles of its pulses are; in between samples, on a line from one
    to the next. All sums run in the same order wherever `y` begins.

    y        (count + W - 1,) float32
    score    (count,) float32           written: at most 1; 0 where all samples are equal
    scratch  (P + 4, >= count + W) float32
    """
    window, count, phases = model.preamble.shape[1], score.size, model.norms.size
    total, spread = scratch[phases][:count], scratch[phases + 1][:count]
    pulses, work = scratch[phases + 2][:count], scratch[phases + 3][: y.size]
    work[:] = y
    add_up(work, window, total)
    for n in range(y.size):
        work[n] = y[n] * y[n]
    add_up(work, window, spread)
    later = y[1:]
    for p in range(phases):
        share, between = np.float32(p / phases), scratch[p]
        for n in range(later.size):
            between[n] = y[n] + share * (later[n] - y[n])
    mean = np.float32(len(PULSES) / window)
    score[:] = -np.inf
    for p in range(phases):
        a = scratch[model.parts[p, 0]][model.pulses[p, 0] :]
        b = scratch[model.parts[p, 1]][model.pulses[p, 1] :]
        c = scratch[model.parts[p, 2]][model.pulses[p, 2] :]
        d = scratch[model.parts[p, 3]][model.pulses[p, 3] :]
        scale = np.float32(1.0 / model.norms[p])
        for n in range(count):
            pulses[n] = scale * ((a[n] + b[n]) + (c[n] + d[n]) - mean * total[n])
        for n in range(count):
            score[n] = pulses[n] if pulses[n] > score[n] else score[n]
    share = np.float32(1.0 / window)
    for n in range(count):
        rest = spread[n] - total[n] * total[n] * share
        varied = rest > np.float32(FLAT) * spread[n]
        score[n] = score[n] / math.sqrt(rest) if varied else np.float32(0.0)


@njit(cache=True, nogil=True)
def best_phase(y: Array, at: int, model: Model) -> int:
    """The phase at which a preamble that begins at a sample correlates best."""
    best, most = 0, -np.inf
    total = 0.0
    for n in range(at, at + model.preamble.shape[1]):
        total += y[n]
    mean = len(PULSES) / model.preamble.shape[1] * total
    for p in range(model.norms.size):
        product = -mean
        for k in range(len(PULSES)):
            n = at + model.pulses[p, k]
            product += y[n] + model.parts[p, k] / model.norms.size * (y[n + 1] - y[n])
        if product > most * model.norms[p]:
            best, most = p, product / model.norms[p]
    return best


@njit(cache=True, nogil=True)
def fit_preamble(y: Array, at: int, weigh: Array, weights: Array) -> None:
    """Weights (J + 1,) fitted to the preamble that begins at a sample.

    weigh    (J + 1, W)
    """
    for j in range(weights.size):
        value = 0.0
        for n in range(weigh.shape[1]):
            value += weigh[j, n] * y[at + n]
        weights[j] = value


@njit(cache=True, nogil=True)
def means_of(designs: Array, weights: Array, means: Array) -> None:
    """Noise-free samples of a period, (T, 4), for each branch."""
    for r in range(means.shape[0]):
        for branch in range(BRANCHES):
            value = 0.0
            for j in range(weights.size):
                value += designs[r, branch, j] * weights[j]
            means[r, branch] = value


@njit(cache=True, nogil=True)
def likeness(y: Array, at: int, count: int, means: Array, steps: Array, bits: int) -> float:
    """Squared correlation of `count` samples with what the best bits would give; at most 1.

    A forward pass that carries the bits of its survivors along. Being a correlation it forgives
    weights that are wrong by a factor or in their level, as after a preamble that another message
    lies on.

    means   (T, 4)
    steps   (T,)   the samples belong to the first 63 bits
    """
    period = means.shape[0]
    cost0, cost1 = np.inf, 0.0  # the preamble ends in silence, as a 1 does
    path0, path1 = np.int64(0), np.int64(1)
    step = 0
    m0, m1, m2, m3 = 0.0, 0.0, 0.0, 0.0
    r, offset = 0, 0
    for n in range(at, at + count + 1):
        if n == at + count or steps[r] + offset > step:
            from0, from1 = cost0 + m0, cost1 + m2
            other0, other1 = cost0 + m1, cost1 + m3
            new0 = (path0 if from0 < from1 else path1) << 1
            path1 = ((path0 if other0 < other1 else path1) << 1) | 1
            path0 = new0
            cost0, cost1 = min(from0, from1), min(other0, other1)
            m0, m1, m2, m3 = 0.0, 0.0, 0.0, 0.0
            step += 1
        if n < at + count:
            value = float(y[n])
            m0 += (value - means[r, 0]) ** 2
            m1 += (value - means[r, 1]) ** 2
            m2 += (value - means[r, 2]) ** 2
            m3 += (value - means[r, 3]) ** 2
            r += 1
            if r == period:
                r = 0
                offset += bits
    path = path0 if cost0 < cost1 else path1
    sy, sm, syy, smm, sym = 0.0, 0.0, 0.0, 0.0, 0.0
    r, offset = 0, 0
    for n in range(at, at + count):
        branch = (path >> (step - 1 - steps[r] - offset)) & 3
        value, mean = float(y[n]), means[r, branch]
        sy += value
        sm += mean
        syy += value * value
        smm += mean * mean
        sym += value * mean
        r += 1
        if r == period:
            r = 0
            offset += bits
    cross = count * sym - sy * sm
    spread = (count * syy - sy * sy) * (count * smm - sm * sm)
    return cross * cross / spread if cross > 0.0 and spread > 0.0 else 0.0


@njit(cache=True, nogil=True)
def screen(
    y: Array, score: Array, threshold: float, least: float, samples: int, model: Model,
    weights: Array, means: Array, found: Array, phases: Array,
) -> int:  # fmt: skip
    """Samples at which a message may begin, and their phases; returns how many.

    The score is above the threshold and no less than at the samples beside it, and what follows is
    like a message: noise that looks like a preamble does not go on like one.

    y          from the sample before the first that is looked at
    score      (count + 2,)        of the samples from the same on, one more than is looked at
    least      least squared correlation of the data with the best bits
    samples    of the data that are looked at for it
    weights    (J + 1,)            scratch
    means      (T, 4)              scratch
    found      (>= count,) int64   written: places in y
    phases     (>= count,) uint8   written
    """
    count = 0
    for n in range(1, score.size - 1):
        value = score[n]
        if not value > threshold or value <= score[n - 1] or value < score[n + 1]:
            continue
        p = best_phase(y, n, model)
        fit_preamble(y, n, model.weigh[p], weights)
        means_of(model.designs[p], weights, means)
        at = n + model.first[p]
        steps, bits = model.steps[p], model.bits
        if likeness(y, at, samples // 4, means, steps, bits) <= least:
            continue  # as most noise is
        if likeness(y, at, samples, means, steps, bits) > least:
            found[count], phases[count] = n, p
            count += 1
    return count
