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


def anchors(knots: Array, widths: Array) -> Array:
    """Ramps of all knots at the middle one, which z keeps where it is; (K,), the last one 0."""
    middle = knots[knots.size // 2]
    x = (middle - knots) / widths
    return np.append(widths * (np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))), 0.0)


@njit(cache=True, nogil=True)
def straightened(y: float, curve: Array, slopes: Array) -> float:
    """z(y).

    curve   (4, K)  knots, widths, anchors, and exp(bends); of the first two the last is not used
    slopes  (K,)    written: derivatives to the bends
    """
    cells = slopes.size
    middle = curve[0, (cells - 1) // 2]
    z = middle
    left, left_middle = y, middle  # ramps of the knot on the left; the first cell has none
    for j in range(cells):
        right = _ramp(y, curve[0, j], curve[1, j]) if j + 1 < cells else 0.0
        slopes[j] = curve[3, j] * (left - right - left_middle + curve[2, j])
        z += slopes[j]
        left, left_middle = right, curve[2, j]
    return float(z)


@njit(cache=True, nogil=True)
def metrics(
    samples: Array, curve: Array, means: Array, scale: float,
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
            z = straightened(samples[t, part], curve, slopes)
            for c in range(out.shape[1]):
                error = z - means[part, c]
                known = out[t, c] if part else 0.0
                out[t, c] = known + scale * error * error


@njit(cache=True, nogil=True)
def log_posteriors(
    samples: Array, curve: Array, means: Array, scale: float,
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
        z = straightened(samples[part], curve, slopes[part])
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
    samples: Array, labels: Array, curve: Array, design: Array,
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
            samples[t], curve, means, scale, slopes, errors, logs
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
                for j in range(slopes.shape[1]):
                    out[n_linear + 1 + j] -= pull * slopes[part, j]
    count = samples.shape[0]
    for k in range(out.size):
        out[k] /= count
    return float(loss / count)


@njit(cache=True, nogil=True)
def jacobian(
    samples: Array, curve: Array, design: Array, means: Array,
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
            samples[t], curve, means, scale, slopes, errors, logs[t]
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
                for j in range(slopes.shape[1]):
                    row[n_linear + 1 + j] -= 2.0 * scale * error * slopes[part, j]
            share = math.exp(logs[t, c])
            for k in range(n):
                mean[k] += share * row[k]
        for c in range(logs.shape[1]):
            for k in range(n):
                out[t, c, k] -= mean[k]


@njit(cache=True, nogil=True)
def observed(
    samples: Array, labels: Array, curve: Array, design: Array,
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
    n_linear, cells = design.shape[2], curve.shape[1]
    per_sigma = math.sqrt(2.0 * scale)
    slopes = np.empty(cells)
    score[:] = 0.0
    at = 0
    for t in range(samples.shape[0]):
        for part in range(samples.shape[1]):
            y = samples[t, part]
            z = straightened(y, curve, slopes)
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
                    right = 1.0 / (1.0 + math.exp(-(y - curve[0, j]) / curve[1, j]))
                u[n_linear + 1 + j] = per_sigma * slopes[j]
                turned[n_linear + 1 + j] = curve[3, j] * (left - right)
                total += turned[n_linear + 1 + j]
                left = right
            for j in range(cells):
                turned[n_linear + 1 + j] /= total
            for k in range(score.size):
                score[k] += turned[k] - r * u[k]
