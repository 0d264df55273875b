"""Forward and backward through the filter of kernels/learned_noise.py: how its noise learns.

All is float64. Back from an updated mean x and covariance P (with gradients x~ and P~, symmetric),
with the gain K, J = I - K H, and v = S^-1 e:

    innovation         e~ = K' x~
    predicted          x-~ = x~ - H' e~
    its covariance     P-~ = J' P~ J + sym(J' x~ (H' v)')
    the noise in S     N~ = K' P~ K - sym(K' x~ v')
    before             x~ += F' x-~,  P~ += F' P-~ F

Of Joseph's form this is all there is: at the gain of the filter it is stationary in K. That F and H
change with the states counts for nothing; for linear models these gradients are exact.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import matrices
from blocks.kernels.caching import njit
from blocks.kernels.indirect import call_linearise, call_observe_linearised
from blocks.kernels.learned_noise import FEATURES, LEAST, LIMIT, REACH, USUAL, _add_drift, _add_tilt
from blocks.kernels.state_space import wrapped

Array = np.ndarray[Any, Any]


class Parameters(NamedTuple):
    """What is learned, or its gradients.

    Q, R     (m, m), (n, n)
    w_in     (3 units, FEATURES n)   of the GRU, as torch has it
    w_hidden (3 units, units)
    b_in, b_hidden  (3 units,)
    told     (m + n, units + 1)
    drift, affine, tilt   those of learned_noise.Noise
    """

    Q: Array
    R: Array
    w_in: Array
    w_hidden: Array
    b_in: Array
    b_hidden: Array
    told: Array
    drift: Array
    affine: Array
    tilt: Array


class Tape(NamedTuple):
    """What the way back needs of each step of each row, (rows, time, ...)."""

    before: Array  # (m)     state before it was predicted
    F: Array  # (m, m)
    H: Array  # (n, m)      zero where nothing came
    seen: Array  # (n)      what the model sees, not tilted
    e: Array  # (n)
    K: Array  # (m, n)
    v: Array  # (n)         S^-1 e
    carried: Array  # (n)
    usual: Array  # (n)
    slopes: Array  # (n, m)  H, where nothing came, too
    features: Array  # (FEATURES n)
    hidden: Array  # (units) before
    gates: Array  # (4, units)  r, z, n and W_hn h + b_hn
    factors: Array  # (m + n)

    @classmethod
    def empty(cls, rows: int, time: int, m: int, n: int, units: int) -> Tape:
        shapes = (
            (m,), (m, m), (n, m), (n,), (n,), (m, n), (n,), (n,), (n,), (n, m), (FEATURES * n,),
            (units,), (4, units), (m + n,),
        )  # fmt: skip
        return cls(*(np.empty((rows, time, *shape)) for shape in shapes))


@njit(cache=True, nogil=True)
def _sigmoid(x: float) -> float:
    return float(1.0 / (1.0 + np.exp(-x)))


@njit(cache=True, nogil=True)
def _cell(
    w_in: Array, w_hidden: Array, b_in: Array, b_hidden: Array, x: Array, h: Array, gates: Array,
    new: Array,
) -> None:  # fmt: skip
    """The next state of a GRU; keeps its gates."""
    units = h.size
    for k in range(units):
        for gate in range(3):
            at = gate * units + k
            inner, outer = b_in[at], b_hidden[at]
            for j in range(x.size):
                inner += w_in[at, j] * x[j]
            for j in range(units):
                outer += w_hidden[at, j] * h[j]
            if gate < 2:
                gates[gate, k] = _sigmoid(inner + outer)
            else:
                gates[3, k] = outer
                gates[2, k] = np.tanh(inner + gates[0, k] * outer)
        new[k] = (1.0 - gates[1, k]) * gates[2, k] + gates[1, k] * h[k]


@njit(cache=True, nogil=True)
def _cell_back(
    w_in: Array, w_hidden: Array, x: Array, h: Array, gates: Array, by_new: Array, by_x: Array,
    by_h: Array, g_in: Array, g_hidden: Array, g_b_in: Array, g_b_hidden: Array,
) -> None:  # fmt: skip
    """Write the gradients by x and h, and add to those of the weights."""
    units = h.size
    for j in range(x.size):
        by_x[j] = 0.0
    for j in range(units):
        by_h[j] = by_new[j] * gates[1, j]
    for k in range(units):
        r, z, n, outer = gates[0, k], gates[1, k], gates[2, k], gates[3, k]
        by_n = by_new[k] * (1.0 - z) * (1.0 - n * n)
        by_z = by_new[k] * (h[k] - n) * z * (1.0 - z)
        by_r = by_n * outer * r * (1.0 - r)
        for gate in range(3):
            at = gate * units + k
            inner = by_r if gate == 0 else by_z if gate == 1 else by_n
            other = inner if gate < 2 else by_n * r
            g_b_in[at] += inner
            g_b_hidden[at] += other
            for j in range(x.size):
                g_in[at, j] += inner * x[j]
                by_x[j] += inner * w_in[at, j]
            for j in range(units):
                g_hidden[at, j] += other * h[j]
                by_h[j] += other * w_hidden[at, j]


@njit(cache=True, nogil=True)
def forward(
    observations: Array, intervals: Array, linearise: Any, motion: Array, observe: Any,
    seeing: Array, angles: Array, step_s: float, has_drift: bool, has_tilt: bool,
    Q: Array, R: Array, w_in: Array, w_hidden: Array, b_in: Array, b_hidden: Array, told: Array,
    drift: Array, affine: Array, tilt: Array, mean: Array, covariance: Array, hidden: Array,
    tape: Tape, means: Array, covariances: Array,
) -> None:  # fmt: skip
    """Filter rows, from mean (rows, m), covariance (rows, m, m), hidden (rows, units), updated."""
    rows, time, n = observations.shape
    m, units = mean.shape[1], hidden.shape[1]
    k = max(m, n)
    wide, S, B, J = np.empty((k, k)), np.empty((k, k)), np.empty((k, k)), np.empty((k, k))
    zeros, seen, H, z = np.zeros((k, k)), np.empty(n), np.empty((n, m)), np.empty(m)
    after = np.empty(m)
    N, P, F, new = np.empty((k, k)), np.empty((m, m)), np.empty((m, m)), np.empty(units)
    for row in range(rows):
        x, h = mean[row], hidden[row]
        P[:] = covariance[row]
        for t in range(time):
            over = intervals[row, t] / step_s
            tape.before[row, t] = x
            call_linearise(linearise, x, intervals[row, t], motion, after, F)
            if has_drift:
                _add_drift(drift, affine, over, x, z, after, F)
            tape.F[row, t] = F
            x[:] = after
            matrices.sandwich(F, P, zeros, m, m, wide, P)
            call_observe_linearised(observe, after, seeing, seen, H)
            tape.seen[row, t] = seen
            if has_tilt:
                _add_tilt(tilt, seen, H, wide)
            tape.slopes[row, t] = H
            e, factors = tape.e[row, t], tape.factors[row, t]
            for j in range(n):
                off = observations[row, t, j] - seen[j]
                e[j] = wrapped(off) if angles[j] else off
            factors[:] = 1.0
            if units:
                matrices.sandwich(H, P, zeros, n, m, wide, B)
                features = tape.features[row, t]
                for j in range(n):
                    usual = R[j, j]
                    for a in range(m):
                        for b in range(m):
                            usual += over * H[j, a] * Q[a, b] * H[j, b]
                    s = B[j, j]
                    tape.usual[row, t, j], tape.carried[row, t, j] = usual, s
                    w = features[n + j] = 0.0
                    if not np.isnan(e[j]):
                        w = e[j] / np.sqrt(s + usual)
                        features[n + j] = np.log1p(abs(w)) - USUAL
                    features[j] = w / (1.0 + abs(w))
                    ratio = 0.25 * np.log(max(s / R[j, j], LEAST))
                    features[2 * n + j] = min(max(ratio, -4.0), 4.0)
                tape.hidden[row, t] = h
                _cell(w_in, w_hidden, b_in, b_hidden, features, h, tape.gates[row, t], new)
                h[:] = new
                for a in range(m + n):
                    value = told[a, units]
                    for j in range(units):
                        value += told[a, j] * new[j]
                    factors[a] = np.exp(LIMIT * np.tanh(value / LIMIT))
            for a in range(m):
                for b in range(m):
                    P[a, b] += over * factors[a] * Q[a, b] * factors[b]
            for a in range(n):
                for b in range(n):
                    N[a, b] = factors[m + a] * R[a, b] * factors[m + b]
            for a in range(n):
                if np.isnan(e[a]):
                    H[a] = 0.0
                    e[a] = 0.0
                    N[a] = 0.0
                    N[:, a] = 0.0
                    N[a, a] = 1.0
            tape.H[row, t] = H
            matrices.sandwich(H, P, N, n, m, wide, S)  # wide = H P
            if not matrices.cholesky(S, n, S):
                means[row, t:] = np.nan
                x[:] = np.nan
                P[:] = np.nan
                break
            K, v = tape.K[row, t], tape.v[row, t]
            for a in range(n):
                B[a, 0] = e[a]
            matrices.solve_lower(S, n, B, 1)
            matrices.solve_upper(S, n, B, 1)
            for a in range(n):
                v[a] = B[a, 0]
            matrices.solve_lower(S, n, wide, m)
            matrices.solve_upper(S, n, wide, m)
            for i in range(m):
                for a in range(n):
                    K[i, a] = wide[a, i]
            for i in range(m):
                for a in range(n):
                    x[i] += K[i, a] * e[a]
                for j in range(m):
                    J[i, j] = 1.0 if i == j else 0.0
                    for a in range(n):
                        J[i, j] -= K[i, a] * H[a, j]
            matrices.sandwich(K, N, zeros, m, n, wide, B)
            matrices.sandwich(J, P, B, m, m, wide, P)
            means[row, t] = x
            covariances[row, t] = P
        covariance[row] = P


@njit(cache=True, nogil=True)
def backward(
    intervals: Array, step_s: float, has_drift: bool, has_tilt: bool,
    Q: Array, R: Array, w_in: Array, w_hidden: Array, b_in: Array, b_hidden: Array, told: Array,
    drift: Array, affine: Array, tilt: Array, observations: Array, tape: Tape, by_means: Array,
    by_covariances: Array, g: Parameters,
) -> None:  # fmt: skip
    """Add to gradients, given those by updated means and covariances."""
    rows, time, m = by_means.shape
    n, units = R.shape[0], w_hidden.shape[1]
    by_x, by_P, by_h = np.empty(m), np.empty((m, m)), np.empty(units)
    J, up, low = np.empty((m, m)), np.empty((m, m)), np.empty((n, n))
    u, a_, b_, by_e, z = np.empty(n), np.empty(m), np.empty(m), np.empty(n), np.empty(m)
    by_features, by_new, back = np.empty(FEATURES * n), np.empty(units), np.empty(units)
    next_x = np.empty(m)
    for row in range(rows):
        by_x[:] = 0.0
        by_P[:] = 0.0
        by_h[:] = 0.0
        for t in range(time - 1, -1, -1):
            over = intervals[row, t] / step_s
            K, H, F, v, e = (
                tape.K[row, t],
                tape.H[row, t],
                tape.F[row, t],
                tape.v[row, t],
                tape.e[row, t],
            )
            factors = tape.factors[row, t]
            for i in range(m):
                by_x[i] += by_means[row, t, i]
                for j in range(m):
                    by_P[i, j] += by_covariances[row, t, i, j]
                    J[i, j] = 1.0 if i == j else 0.0
                    for c in range(n):
                        J[i, j] -= K[i, c] * H[c, j]
            for c in range(n):
                u[c] = 0.0
                for i in range(m):
                    u[c] += K[i, c] * by_x[i]
                by_e[c] = u[c]
            for j in range(m):
                a_[j] = b_[j] = 0.0
                for i in range(m):
                    a_[j] += J[i, j] * by_x[i]
                for c in range(n):
                    b_[j] += H[c, j] * v[c]
            for c in range(n):  # N~
                for d in range(n):
                    value = -0.5 * (u[c] * v[d] + v[c] * u[d])
                    for i in range(m):
                        for j in range(m):
                            value += K[i, c] * by_P[i, j] * K[j, d]
                    if np.isnan(observations[row, t, c]) or np.isnan(observations[row, t, d]):
                        value = 0.0
                    low[c, d] = value
            for i in range(m):  # P-~
                for j in range(m):
                    value = 0.5 * (a_[i] * b_[j] + b_[i] * a_[j])
                    for k in range(m):
                        for q in range(m):
                            value += J[k, i] * by_P[k, q] * J[q, j]
                    up[i, j] = value
            for i in range(m):
                for j in range(m):
                    g.Q[i, j] += over * factors[i] * up[i, j] * factors[j]
            for c in range(n):
                for d in range(n):
                    g.R[c, d] += factors[m + c] * low[c, d] * factors[m + d]
            if units:
                for k in range(units):
                    by_new[k] = by_h[k]
                for i in range(m + n):
                    value = 0.0  # by the factor
                    if i < m:
                        for j in range(m):
                            value += 2.0 * over * up[i, j] * Q[i, j] * factors[j]
                    else:
                        for d in range(n):
                            value += 2.0 * low[i - m, d] * R[i - m, d] * factors[m + d]
                    bent = np.log(factors[i]) / LIMIT
                    value *= factors[i] * (1.0 - bent * bent)
                    g.told[i, units] += value
                    for k in range(units):
                        gates = tape.gates[row, t]
                        now = (1.0 - gates[1, k]) * gates[2, k] + gates[1, k] * tape.hidden[
                            row, t, k
                        ]
                        g.told[i, k] += value * now
                        by_new[k] += value * told[i, k]
                _cell_back(
                    w_in, w_hidden, tape.features[row, t], tape.hidden[row, t], tape.gates[row, t],
                    by_new, by_features, back, g.w_in, g.w_hidden, g.b_in, g.b_hidden,
                )  # fmt: skip
                for k in range(units):
                    by_h[k] = back[k]
                for c in range(n):
                    s, usual = tape.carried[row, t, c], tape.usual[row, t, c]
                    by_s = by_usual = 0.0
                    if not np.isnan(observations[row, t, c]):
                        deviation = np.sqrt(s + usual)
                        w = e[c] / deviation
                        one = 1.0 / (1.0 + abs(w))
                        by_w = by_features[c] * one * one + by_features[n + c] * one * np.sign(w)
                        by_e[c] += by_w / deviation
                        by_s = by_usual = -0.5 * by_w * w / (s + usual)
                    ratio = tape.features[row, t, 2 * n + c]
                    if abs(ratio) < 4.0:
                        by_s += 0.25 * by_features[2 * n + c] / s
                        g.R[c, c] -= 0.25 * by_features[2 * n + c] / R[c, c]
                    g.R[c, c] += by_usual
                    for i in range(m):
                        for j in range(m):
                            both = tape.slopes[row, t, c, i] * tape.slopes[row, t, c, j]
                            up[i, j] += by_s * both
                            g.Q[i, j] += over * by_usual * both
            for i in range(m):
                for c in range(n):
                    by_x[i] -= tape.slopes[row, t, c, i] * by_e[c]
            if has_tilt:
                for c in range(n):
                    g.tilt[c, n] -= by_e[c]
                    for d in range(n):
                        g.tilt[c, d] -= by_e[c] * tape.seen[row, t, d]
            if has_drift:
                _drift_back(drift, affine, over, tape.before[row, t], by_x, z, g.drift, g.affine)
            for j in range(m):
                next_x[j] = 0.0
                for i in range(m):
                    next_x[j] += F[i, j] * by_x[i]
            for j in range(m):
                by_x[j] = next_x[j]
            for i in range(m):
                for j in range(m):
                    value = 0.0
                    for k in range(m):
                        for q in range(m):
                            value += F[k, i] * up[k, q] * F[q, j]
                    by_P[i, j] = value


@njit(cache=True, nogil=True)
def _drift_back(
    drift: Array, affine: Array, over: float, before: Array, by: Array, z: Array, g_drift: Array,
    g_affine: Array,
) -> None:  # fmt: skip
    m = before.size
    for j in range(m):
        z[j] = (before[j] - affine[j, m + 1]) / affine[j, m + 2]
        z[j] = min(max(z[j], -REACH), REACH)
    for i in range(m):
        by_value = by[i] * over * affine[i, m + 2]
        g_affine[i, m] += by_value
        for j in range(m):
            g_affine[i, j] += by_value * z[j]
    for k in range(drift.shape[0]):
        value = drift[k, 2 * m]
        for j in range(m):
            value += drift[k, j] * z[j]
        value = np.tanh(value)
        total = 0.0
        for i in range(m):
            by_value = by[i] * over * affine[i, m + 2]
            g_drift[k, m + i] += by_value * value
            total += by_value * drift[k, m + i]
        total *= 1.0 - value * value
        g_drift[k, 2 * m] += total
        for j in range(m):
            g_drift[k, j] += total * z[j]
