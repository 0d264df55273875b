"""A linear channel behind a memoryless curve: likelihoods of classes, and their derivatives.

A sample y has passed an unknown rising curve; z straightens it, and what is left is linear in the
symbols with Gaussian noise:

    -log p(y | class) = scale sum over parts of (z(y) - mean[part, class])^2 / noise_var + ...

where "..." holds z'(y), which all classes share. z' goes smoothly from exp(bends[j]) in one cell
of the samples' range to the next (knots between them), so z rises everywhere and goes on straight
outside the knots. Parameters, in this order:

    linear      (L,)  mean = design @ linear: taps and offset, in real numbers
    log_noise   ()    log(noise_var)
    bends       (K,)  log of the slope in each cell; zeros: z(y) = y
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from blocks.kernels.caching import njit

Array = np.ndarray[Any, Any]


@njit(cache=True, nogil=True)
def _ramp(y: float, knot: float, width: float) -> float:
    """Zero left of the knot and y - knot right of it, smooth over some widths."""
    x = (y - knot) / width
    return width * (max(x, 0.0) + math.log1p(math.exp(-abs(x))))


@njit(cache=True, nogil=True)
def straightened(y: float, knots: Array, widths: Array, bends: Array, slopes: Array) -> float:
    """z(y), which keeps the middle knot where it is.

    knots, widths  (K - 1,)  rising
    bends          (K,)
    slopes         (K,)      written: derivatives to the bends
    """
    cells = bends.size
    middle = knots[(cells - 1) // 2]
    z = float(middle)
    left, left_middle = y, middle  # ramps of the knot on the left; the first cell has none
    for j in range(cells):
        right, right_middle = 0.0, 0.0
        if j + 1 < cells:
            right = _ramp(y, knots[j], widths[j])
            right_middle = _ramp(middle, knots[j], widths[j])
        slopes[j] = math.exp(bends[j]) * (left - right - left_middle + right_middle)
        z += slopes[j]
        left, left_middle = right, right_middle
    return z


@njit(cache=True, nogil=True)
def metrics(
    samples: Array, knots: Array, widths: Array, bends: Array, means: Array, scale: float,
    slopes: Array, out: Array,
) -> None:  # fmt: skip
    """Write scale sum over parts of (z - mean)^2 for each class.

    samples  (time, parts)
    means    (parts, n_classes)
    slopes   (K,)                scratch
    out      (time, n_classes)   written
    """
    for t in range(samples.shape[0]):
        for part in range(samples.shape[1]):
            z = straightened(samples[t, part], knots, widths, bends, slopes)
            for c in range(out.shape[1]):
                error = z - means[part, c]
                known = out[t, c] if part else 0.0
                out[t, c] = known + scale * error * error


@njit(cache=True, nogil=True)
def log_posteriors(
    samples: Array, knots: Array, widths: Array, bends: Array, means: Array, scale: float,
    slopes: Array, errors: Array, out: Array,
) -> None:  # fmt: skip
    """Write log p(class | sample) of one sample, classes equally likely.

    samples  (parts,)
    slopes   (parts, K)          written: derivatives of z to the bends
    errors   (parts, n_classes)  written: z - mean
    out      (n_classes,)        written
    """
    n_classes = out.size
    for c in range(n_classes):
        out[c] = 0.0
    for part in range(samples.size):
        z = straightened(samples[part], knots, widths, bends, slopes[part])
        for c in range(n_classes):
            errors[part, c] = z - means[part, c]
            out[c] -= scale * errors[part, c] * errors[part, c]
    top, total = out.max(), 0.0
    for c in range(n_classes):
        total += math.exp(out[c] - top)
    shift = top + math.log(total)
    for c in range(n_classes):
        out[c] -= shift


@njit(cache=True, nogil=True)
def gradient(
    samples: Array, labels: Array, knots: Array, widths: Array, bends: Array, design: Array,
    means: Array, scale: float, slopes: Array, errors: Array, logs: Array, out: Array,
) -> float:  # fmt: skip
    """Mean of -log p(label | sample), and its gradient.

    samples               (time, parts)
    labels                (time,)
    design                (parts, n_classes, L)
    slopes, errors, logs  scratch of `log_posteriors`
    out                   (L + 1 + K,)  written
    """
    n_linear = design.shape[2]
    out[:] = 0.0
    loss = 0.0
    for t in range(samples.shape[0]):
        log_posteriors(
            samples[t], knots, widths, bends, means, scale, slopes, errors, logs
        )  # fmt: skip
        loss -= logs[labels[t]]
        for c in range(logs.size):
            wrong = math.exp(logs[c]) - (1.0 if c == labels[t] else 0.0)
            if abs(wrong) < 1e-12:
                continue
            for part in range(samples.shape[1]):
                error = errors[part, c]
                pull = 2.0 * scale * wrong * error
                for k in range(n_linear):
                    out[k] += pull * design[part, c, k]
                out[n_linear] += wrong * scale * error * error
                for j in range(bends.size):
                    out[n_linear + 1 + j] -= pull * slopes[part, j]
    count = samples.shape[0]
    for k in range(out.size):
        out[k] /= count
    return float(loss / count)


@njit(cache=True, nogil=True)
def jacobian(
    samples: Array, knots: Array, widths: Array, bends: Array, design: Array, means: Array,
    scale: float, slopes: Array, errors: Array, logs: Array, out: Array,
) -> None:  # fmt: skip
    """Write log p(class | sample) and its derivatives to all parameters.

    samples         (time, parts)
    slopes, errors  scratch of `log_posteriors`
    logs            (time, n_classes)             written
    out             (time, n_classes, L + 1 + K)  written
    """
    n_linear, n = design.shape[2], out.shape[2]
    mean = np.empty(n)
    for t in range(samples.shape[0]):
        log_posteriors(
            samples[t], knots, widths, bends, means, scale, slopes, errors, logs[t]
        )  # fmt: skip
        mean[:] = 0.0
        for c in range(logs.shape[1]):
            row = out[t, c]
            row[:] = 0.0
            for part in range(samples.shape[1]):
                error = errors[part, c]
                for k in range(n_linear):
                    row[k] += 2.0 * scale * error * design[part, c, k]
                row[n_linear] += scale * error * error
                for j in range(bends.size):
                    row[n_linear + 1 + j] -= 2.0 * scale * error * slopes[part, j]
            share = math.exp(logs[t, c])
            for k in range(n):
                mean[k] += share * row[k]
        for c in range(logs.shape[1]):
            for k in range(n):
                out[t, c, k] -= mean[k]


@njit(cache=True, nogil=True)
def observed(
    samples: Array, labels: Array, knots: Array, widths: Array, bends: Array, design: Array,
    means: Array, scale: float, score: Array, rows: Array,
) -> None:  # fmt: skip
    """The derivative of sum of log p(sample | label), and what its covariance is made of.

    With r = (z - mean) / sigma, standard normal, u the derivative of r to a parameter at a fixed
    sample and u' that of u to r, the score is u' - r u, and by Stein's lemma its covariance is the
    mean of u u + u' u'. u' of a bend is the share that its cell has in the slope of z.

    samples  (time, parts)
    labels   (time,)
    design   (parts, n_classes, L)
    score    (L + 1 + K,)                   written
    rows     (2 time parts, L + 1 + K)      written: u and u'
    """
    n_linear, cells = design.shape[2], bends.size
    per_sigma = math.sqrt(2.0 * scale)
    slopes = np.empty(cells)
    score[:] = 0.0
    at = 0
    for t in range(samples.shape[0]):
        for part in range(samples.shape[1]):
            y = samples[t, part]
            z = straightened(y, knots, widths, bends, slopes)
            r = per_sigma * (z - means[part, labels[t]])
            u, turned = rows[at], rows[at + 1]
            at += 2
            for k in range(n_linear):
                u[k] = -per_sigma * design[part, labels[t], k]
                turned[k] = 0.0
            u[n_linear] = -0.5 * r
            turned[n_linear] = -0.5
            left, total = 1.0, 0.0
            for j in range(cells):
                right = 0.0
                if j + 1 < cells:
                    right = 1.0 / (1.0 + math.exp(-(y - knots[j]) / widths[j]))
                u[n_linear + 1 + j] = per_sigma * slopes[j]
                turned[n_linear + 1 + j] = math.exp(bends[j]) * (left - right)
                total += turned[n_linear + 1 + j]
                left = right
            for j in range(cells):
                turned[n_linear + 1 + j] /= total
            for k in range(score.size):
                score[k] += turned[k] - r * u[k]
