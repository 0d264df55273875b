"""The extended Kalman filter with learned noise: constant, or told step by step by a network.

Backprop through a Kalman filter for its noise is that of Haarnoja et al., "Backprop KF", NIPS 2016,
and of Greenberg et al., "Optimization or Architecture: How to Hack Kalman Filtering", NeurIPS 2023,
whose log-Cholesky roots keep what is learned positive: a lower triangle L with the logarithms of
its diagonal in place of that gives Q = L L' per step_s, and so for R. Over another interval Q
grows in proportion.

Told noise: before it corrects, each step looks at three bounded features of every row, with the
innovation e, the variance s = (H F P F' H')_jj that is carried on, and w = e / sqrt(V),
V = s + (H Q H' + R)_jj by the constant Q and R:

    w / (1 + |w|)
    log(1 + |w|) less what it is on average where w is normal with variance 1
    log(s / R_jj) / 4, cut at -4 and 4

A row that is missing counts as 0 in the first two. A GRU and a linear layer make of them a factor
of the standard deviation of every number of the state and of the observation, cut smoothly at
exp(+-LIMIT): Q and R are multiplied by them from both sides. What the network remembers is its
only memory.

Covariances are those of the filter that uses this noise, in Joseph's form. Where its model is wrong
its errors may be far larger: then weights carry a calibration, Q~ and c, and what is told is not
the P that the gain K follows from but a second recursion beside it, of the same gain,

    P~ = (I - K H) (F P~ F' + c Q + Q~) (I - K H)' + c K R K'
    S~ = H (F P~ F' + c Q + Q~) H' + c R

with Q and R as the step has them; with c = 1 and no Q~ both are the same. Estimates know nothing of
it.

Two corrections of the model may be learned with the noise; both are affine or nearly so. The drift,
for a motion that is wrong, adds to each prediction

    interval / step_s  scale * (A z + B tanh(C z + c) + b),  z = (x - centre) / scale,

with z cut at -REACH and REACH, so that it is bounded wherever the state goes. The tilt, for
observations that are not as the model says, sees h(x) + D h(x) + d.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import matrices
from blocks.kernels.caching import njit
from blocks.kernels.calibration import Calibration
from blocks.kernels.dense import aligned, join, padded
from blocks.kernels.indirect import call_linearise, call_observe_linearised
from blocks.kernels.kalman import (
    Track,
    correct_arrays,
    expect,
    expect_track,
    seen_covariance,
    store,
)
from blocks.kernels.recurrent import gru_cell, pack_gru
from blocks.kernels.state_space import StateSpace, wrapped

Array = np.ndarray[Any, Any]

FEATURES = 3  # of every row of an observation
USUAL = 0.534  # mean of log(1 + |w|), w standard normal
LIMIT = 4.0  # of the logarithm of a factor of a standard deviation
REACH = 6.0  # scales from the centre beyond which the drift grows no more
LEAST = 1e-30


class Noise(NamedTuple):
    """What was learned, ready for the kernel; changed noise is another one of these.

    sizes    m, n, units of the GRU (0: constant), units of the drift (-1: none), is there a tilt
    Q, R     (m, m), (n, n)  constant covariances, Q per step_s
    cell     packed GRU
    told     (m + n, units + 1)  the linear layer, its bias last
    drift    (units, 2 m + 1)  rows of C, of B', and c
    affine   (m, m + 3)  A, b, centre, scale
    tilt     (n, n + 1)  D, d
    """

    sizes: tuple[int, int, int, int, bool]
    Q: Array
    R: Array
    cell: Array
    told: Array
    drift: Array
    affine: Array
    tilt: Array


def covariance_of(root: Array) -> Array:
    """L L' of a log-Cholesky root, of which what is above the diagonal does not count."""
    L: Array = np.tril(np.asarray(root, np.float64), -1)
    L += np.diag(np.exp(np.diagonal(root).astype(np.float64)))
    return L @ L.T


def root_of(covariance: Array, least: float) -> Array:
    """The log-Cholesky root of a covariance to whose diagonal `least` is added."""
    L: Array = np.linalg.cholesky(covariance + least * np.eye(len(covariance)))
    return np.tril(L, -1) + np.diag(np.log(np.diagonal(L)))


def shapes(m: int, n: int, units: int, drift: int, tilt: bool) -> dict[str, tuple[int, ...]]:
    """The arrays of a hyper, by torch's names."""
    found: dict[str, tuple[int, ...]] = {"process_root": (m, m), "observation_root": (n, n)}
    if units:
        found |= {
            "cell.weight_ih": (3 * units, FEATURES * n), "cell.weight_hh": (3 * units, units),
            "cell.bias_ih": (3 * units,), "cell.bias_hh": (3 * units,),
            "told.weight": (m + n, units), "told.bias": (m + n,),
        }  # fmt: skip
    if drift >= 0:
        found |= {
            "drift_centre": (m,), "drift_scale": (m,), "drift_matrix": (m, m), "drift_bias": (m,),
            "drift_in.weight": (drift, m), "drift_in.bias": (drift,), "drift_out": (m, drift),
        }  # fmt: skip
    if tilt:
        found |= {"tilt_matrix": (n, n), "tilt_bias": (n,)}
    return found


def noise_of(hyper: Mapping[str, Any], arrays: Mapping[str, Array]) -> Noise:
    """From weights; KeyError or ValueError says what is wrong with them."""
    m, n, units, drift = (int(hyper[name]) for name in ("m", "n", "units", "drift"))
    tilt = bool(hyper["tilt"])
    if min(m, n) < 1 or units < 0 or drift < -1:
        raise ValueError(f"sizes {dict(hyper)} are not those of any learned noise")
    given = {}
    for name, shape in shapes(m, n, units, drift, tilt).items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has shape {arrays[name].shape}, but {shape} is due")
        given[name] = np.asarray(arrays[name], np.float64)
    cell, told = aligned(1), np.zeros((m + n, 1))
    if units:
        parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        cell, _ = join([pack_gru(*(np.asarray(arrays[f"cell.{p}"], np.float32) for p in parts))])
        told = np.column_stack((given["told.weight"], given["told.bias"]))
    inner, affine = np.zeros((0, 2 * m + 1)), np.zeros((m, m + 3))
    if drift >= 0:
        if not (given["drift_scale"] > 0.0).all():
            raise ValueError("drift_scale must be above 0")
        inner = np.column_stack(
            (given["drift_in.weight"], given["drift_out"].T, given["drift_in.bias"])
        )
        names = ("drift_matrix", "drift_bias", "drift_centre", "drift_scale")
        affine = np.column_stack([given[name] for name in names])
    slope = np.zeros((n, n + 1))
    if tilt:
        slope = np.column_stack((given["tilt_matrix"], given["tilt_bias"]))
    Q, R = covariance_of(given["process_root"]), covariance_of(given["observation_root"])
    if not (np.isfinite(Q).all() and np.isfinite(R).all()):
        raise ValueError("roots give covariances that are not finite")
    rest = (np.ascontiguousarray(a) for a in (Q, R, cell, told, inner, affine, slope))
    return Noise((m, n, units, drift, tilt), *rest)


class Filter:
    """Noise in its filter, with the scratch that it needs: one thread at a time."""

    def __init__(
        self, noise: Noise, model: StateSpace, calibration: Calibration | None = None
    ) -> None:
        m, n, units, _, _ = noise.sizes
        if (m, n) != (model.size, model.rows):
            raise ValueError(
                f"noise of {m} states and {n} observations, but the model has {model.size} and "
                f"{model.rows}"
            )
        self.noise, self.model = noise, model
        given = calibration or Calibration(np.zeros((m, m)), np.empty((0, 0)), 1.0)
        self._beside = calibration is not None, given.process, given.share
        k = max(m, n)
        self._scratch = (
            np.zeros((k, k)), np.empty(m), np.empty((m, m)), np.empty((m, m)), np.empty(n),
            np.empty((n, m)), np.empty((k, k)), np.empty((n, n)), np.empty((n, n)), np.empty(n),
            np.empty(m), np.empty(m + n), aligned(1, padded(FEATURES * n)),
            aligned(1, padded(units)), np.empty((5, k, k)),
        )  # fmt: skip

    def hidden(self) -> Array:
        """The state of the network before the first step."""
        return np.zeros((1, padded(self.noise.sizes[2])), np.float32)

    def run(
        self, observations: Array, intervals: Array, mean: Array, covariances: Array,
        hidden: Array, out: Track,
    ) -> int:  # fmt: skip
        """Filter one track; returns how many steps went well.

        observations  (time, n)  NaN where nothing came
        intervals     (time,)    [s]
        mean          (m,)       replaced by the last updated mean
        covariances   (2, m, m)  likewise, of the gain and as told
        hidden        of `hidden`, replaced by the last one

        Raises ValueError for arrays of other shapes or dtypes.
        """
        model = self.model
        m, n = model.size, model.rows
        expect(np.float64, covariances=(covariances, (2, m, m)))
        expect_track(np.float64, intervals.shape, m, n, observations, mean, covariances[0], out)
        if intervals.dtype != np.float64 or hidden.shape != self.hidden().shape:
            raise ValueError(f"intervals are {intervals.dtype}, hidden has {hidden.shape}")
        done = _run(
            observations, intervals, model.linearise, model.parameters, model.observe_linearised,
            model.observe_parameters, model.angles, model.step_s, *self.noise, *self._beside, mean,
            *covariances, hidden, *self._scratch, *out,
        )  # fmt: skip
        return int(done)


@njit(cache=True, nogil=True)
def _add_drift(
    drift: Array, affine: Array, over: float, before: Array, z: Array, after: Array, F: Array
) -> None:
    """Add the drift of `over` nominal intervals to a predicted state and its Jacobian."""
    m = before.size
    for j in range(m):
        z[j] = (before[j] - affine[j, m + 1]) / affine[j, m + 2]
    for i in range(m):
        value = affine[i, m]
        for j in range(m):
            value += affine[i, j] * min(max(z[j], -REACH), REACH)
        after[i] += over * affine[i, m + 2] * value
    for j in range(m):
        if abs(z[j]) < REACH:
            for i in range(m):
                F[i, j] += over * affine[i, m + 2] * affine[i, j] / affine[j, m + 2]
    for k in range(drift.shape[0]):
        value = drift[k, 2 * m]
        for j in range(m):
            value += drift[k, j] * min(max(z[j], -REACH), REACH)
        value = np.tanh(value)
        slope = 1.0 - value * value
        for i in range(m):
            weight = over * affine[i, m + 2] * drift[k, m + i]
            after[i] += weight * value
            for j in range(m):
                if abs(z[j]) < REACH:
                    F[i, j] += weight * slope * drift[k, j] / affine[j, m + 2]


@njit(cache=True, nogil=True)
def _add_tilt(tilt: Array, seen: Array, H: Array, work: Array) -> None:
    """Replace what the model sees, and its Jacobian, by what is seen tilted."""
    n, m = H.shape
    for i in range(n):
        value = seen[i] + tilt[i, n]
        for k in range(n):
            value += tilt[i, k] * seen[k]
        work[0, i] = value
    for i in range(n):
        seen[i] = work[0, i]
    for i in range(n):
        for j in range(m):
            value = H[i, j]
            for k in range(n):
                value += tilt[i, k] * H[k, j]
            work[i, j] = value
    for i in range(n):
        for j in range(m):
            H[i, j] = work[i, j]


@njit(cache=True, nogil=True)
def _tell(
    cell: Array, told: Array, units: int, R: Array, carried: Array, usual: Array,
    innovations: Array, i: int, features: Array, hidden: Array, new: Array, factors: Array,
) -> None:  # fmt: skip
    """Write the factors of standard deviations, and go on with what the network remembers.

    carried  (n, n)  its diagonal: variances of what is seen that are carried on
    usual    (n,)    and that the constant noise adds
    """
    n = R.shape[0]
    for j in range(n):
        s, e = carried[j, j], innovations[i, j]
        w = 0.0
        features[0, n + j] = 0.0
        if not np.isnan(e):
            w = e / np.sqrt(s + usual[j])
            features[0, n + j] = np.log1p(abs(w)) - USUAL
        features[0, j] = w / (1.0 + abs(w))
        ratio = 0.25 * np.log(max(s / R[j, j], LEAST))
        features[0, 2 * n + j] = min(max(ratio, -4.0), 4.0)
    gru_cell(cell, 0, FEATURES * n, units, features, 0, hidden, 0, new, 0)
    for k in range(units):
        hidden[0, k] = new[0, k]
    for a in range(factors.size):
        value = told[a, units]
        for k in range(units):
            value += told[a, k] * new[0, k]
        factors[a] = np.exp(LIMIT * np.tanh(value / LIMIT))


@njit(cache=True, nogil=True)
def _judge(y: Array, e: Array, H: Array, R: Array, P: Array, work: Array) -> tuple[float, float]:
    """The nis and det of an innovation e, given the covariance predicted; NaN if not positive."""
    seen_covariance(y, H, R, P, work)
    S, column = work[2], work[3]
    if not matrices.cholesky(S, e.size, S):
        return np.nan, np.nan
    nis, det = 0.0, 1.0
    for j in range(e.size):
        column[j, 0] = 0.0 if np.isnan(y[j]) else e[j]
    matrices.solve_lower(S, e.size, column, 1)
    for j in range(e.size):
        nis += column[j, 0] * column[j, 0]
        det *= S[j, j] * S[j, j]
    return nis, det


@njit(cache=True, nogil=True)
def _run(
    observations: Array, intervals: Array, linearise: Any, parameters: Array, observe: Any,
    observe_parameters: Array, angles: Array, step_s: float,
    sizes: tuple[int, int, int, int, bool], Q: Array, R: Array, cell: Array, told: Array,
    drift: Array, affine: Array, tilt: Array, is_calibrated: bool, more: Array,
    share: float, mean: Array, P: Array, told_P: Array, hidden: Array,
    zeros: Array, after: Array, F: Array, grown: Array, seen: Array, H: Array, wide: Array,
    carried: Array, noise: Array, usual: Array, z: Array, factors: Array, features: Array,
    new: Array, work: Array, estimates: Array, covariances: Array, innovations: Array, nis: Array,
    det: Array,
) -> int:  # fmt: skip
    m, n, units, has_drift, has_tilt = sizes
    for a in range(m + n):
        factors[a] = 1.0
    for a in range(n):
        for b in range(n):
            noise[a, b] = R[a, b]
    for i in range(observations.shape[0]):
        over = intervals[i] / step_s
        call_linearise(linearise, mean, intervals[i], parameters, after, F)
        if has_drift >= 0:
            _add_drift(drift, affine, over, mean, z, after, F)
        for j in range(m):
            mean[j] = after[j]
        matrices.sandwich(F, P, zeros, m, m, grown, P)
        call_observe_linearised(observe, after, observe_parameters, seen, H)
        if has_tilt:
            _add_tilt(tilt, seen, H, wide)
        for j in range(n):
            off = observations[i, j] - seen[j]
            innovations[i, j] = wrapped(off) if angles[j] else off
        if units:
            matrices.sandwich(H, P, zeros, n, m, wide, carried)
            for j in range(n):
                usual[j] = R[j, j]
                for a in range(m):
                    for b in range(m):
                        usual[j] += over * H[j, a] * Q[a, b] * H[j, b]
            _tell(
                cell, told, units, R, carried, usual, innovations, i, features, hidden, new,
                factors,
            )  # fmt: skip
            for a in range(n):
                for b in range(n):
                    noise[a, b] = factors[m + a] * R[a, b] * factors[m + b]
        if is_calibrated:
            matrices.sandwich(F, told_P, zeros, m, m, grown, told_P)
        for a in range(m):
            for b in range(m):
                added = over * factors[a] * Q[a, b] * factors[b]
                P[a, b] += added
                told_P[a, b] += share * added + over * more[a, b]
        if is_calibrated:
            for a in range(n):
                for b in range(n):
                    carried[a, b] = share * noise[a, b]
            nis[i], det[i] = _judge(observations[i], innovations[i], H, carried, told_P, work)
        squared, determinant = correct_arrays(
            observations[i], innovations[i], H, noise, True, mean, P, work
        )
        if not squared < np.inf:
            return i
        if is_calibrated:
            for a in range(m):  # of I - K H, K' and K R K'
                for b in range(m):
                    work[4, a, b] *= share
            matrices.sandwich(work[2], told_P, work[4], m, m, grown, told_P)
            if not nis[i] < np.inf:
                return i
        else:
            nis[i], det[i] = squared, determinant
            told_P[:] = P
        store(mean, told_P, i, estimates, covariances)
    return int(observations.shape[0])
