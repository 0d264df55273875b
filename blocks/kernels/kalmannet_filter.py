"""Filters whose gain is told by a network, over whole frames.

Revach et al., "KalmanNet", IEEE Trans. Signal Processing 2022. Each step predicts by the model,
makes features of how the track goes, asks the network for the gain, and corrects. The network is
that of KalmanNet (kernels/kalmannet.py), of Split-KalmanNet (split_kalmannet.py) or of Recursive
KalmanNet (recursive_kalmannet.py). Features of all, each divided by its length:

    F1  observation less the one before
    F2  innovation
    F3  last updated state less the one before
    F4  last updated state less what was predicted

Before the first step F3 and F4 are 0, and F1 is taken from what the start foretells. The latter two
networks also see the geometry: how far the observation is from linear between the last updated
state and the predicted one (the papers' h(x) - H x would jump where an angle turns), likewise
divided by its length, and its Jacobian H. Recursive KalmanNet sees log(1 + (v / scale)^2) of F1,
F2 and F4 as well. They stand in a row as F1, F2, geometry, F3, F4, squares.

So a network does not see how long they are, and its gain is in the units of the model. One that has
`scales`, usual sizes of every number of states and observations, gets features in these units whose
length is log(1 + length) in place of 1, and its gain is in them: then it can tell an observation
that is far off from a usual one, whatever the units of the model.

An observation that is NaN is missing: its row counts as seen where it was predicted, for F1 of this
step and of the next, too. Its innovation is 0, so a step without any observation predicts only,
while the network goes on. (Where it waits for the next one, and F3 and F4 with it, the Lorenz
attractor of the paper is followed worse, by 0.4 dB with 10 % missing and by 3 dB with 30 %.) Angles
are compared around the circle.

Covariances come from a recursion, with the gain K over the rows that came and the model's Jacobians
F and H, so that they are always positive:

    P = (I - K H) (F P F' + Q) (I - K H)' + c K R K'    where weights were calibrated
    P = (I - K H) F P F' (I - K H)' + c C C'            of Recursive KalmanNet, calibrated or not
    S = H (F P F' + Q) H' + R                           of the innovation, where calibrated

Q, R and c are a `Calibration`; blocks/training/calibration.py fits them. Q is for a nominal
interval, and in proportion for others. Where Recursive KalmanNet observes nothing, Q takes the
place of c C C'.

Other weights give what the gain alone tells. With the gain K of a Kalman filter K R = P H', and
S^-1 = R^-1 (I - H K): so P = K R H (H'H)^-1 where all of the state is seen (H has full column
rank), the form of Klein et al., "Uncertainty in Data-Driven Kalman Filtering for Partially Known
State-Space Models", ICASSP 2022, solved for what it needs. Their symmetric parts are taken, over
the rows that came, with the R of the model; what is not positive, or not determined, is NaN.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import matrices
from blocks.kernels.caching import njit
from blocks.kernels.calibration import Calibration
from blocks.kernels.dense import aligned, padded
from blocks.kernels.dense_lanes import WIDTH, number, put_number
from blocks.kernels.indirect import (
    call_advance,
    call_linearise,
    call_observe,
    call_observe_linearised,
)
from blocks.kernels.kalman import Track, expect
from blocks.kernels.kalmannet import NO_SCALES, Gain, SingleGain, gain, single_gain
from blocks.kernels.recursive_kalmannet import RecursiveGain, factor, recursive_gain
from blocks.kernels.split_kalmannet import SplitGain, split_gain
from blocks.kernels.state_space import StateSpace, wrapped

Array = np.ndarray[Any, Any]

LEAST = 1e-12  # length that a feature is divided by at least
RANK = 1e-12  # of a pivot of H'H to its largest diagonal, below which H has not full column rank

DOUBLE, SINGLE, SPLIT, RECURSIVE = range(4)  # kinds of networks; the first two are KalmanNet's
NOTHING, TOLD, CARRIED = range(3)  # covariances: none, those that the gain tells, the recursion

Network = Gain | SingleGain | SplitGain | RecursiveGain


class Tracks(NamedTuple):
    """Where filters stand between two steps, a row each.

    mean       (tracks, m) float64  last updated states
    evolution  (tracks, m) float64  F3 of the next step, not divided
    update     (tracks, m) float64  F4 of the next step, not divided
    seen       (tracks, n) float64  last observation, as predicted where none came
    hidden     (tracks, width) float32  hidden states of the network
    covariance (tracks, m, m) float64  of the last updated states; as at the start where none is
                               carried
    """

    mean: Array
    evolution: Array
    update: Array
    seen: Array
    hidden: Array
    covariance: Array


class Filters:
    """A network in its filter, with the scratch that it needs: one thread at a time.

    A changed network is another one of these, made beside it.
    """

    def __init__(
        self, network: Network, model: StateSpace, calibration: Calibration | None = None
    ) -> None:
        if (network.m, network.n) != (model.size, model.rows):
            raise ValueError(
                f"a network for {network.m} states and {network.n} observations, but the model "
                f"has {model.size} and {model.rows}"
            )
        self.network, self.model, self.calibration = network, model, calibration
        m, n = model.size, model.rows
        self._kind = (Gain, SingleGain, SplitGain, RecursiveGain).index(type(network))
        units = 0 if isinstance(network, Gain) else network.units
        self._sizes = self._kind, network.in_mult, network.out_mult, units
        self._scales = network.scales if isinstance(network, Gain | SingleGain) else NO_SCALES
        scales = np.ones(m), np.ones(n)
        if isinstance(network, RecursiveGain):
            scales = network.state_scales, network.seen_scales
        self._carries = calibration is not None or self._kind == RECURSIVE
        H = model.seen_matrix() if model.linear_seen else np.empty((n, m))
        R = model.R if calibration is None else calibration.observation
        Q = np.zeros((m, m)) if calibration is None else calibration.process
        share = 1.0 if calibration is None else calibration.share
        self._noise = Q, R, share, 1.0 / model.step_s, calibration is not None, *scales, H
        width = padded(5 * n + 2 * m * n + 3 * m)  # all that is ever used of it
        largest = max(m, n)
        sizes = width, self._first(1).size, network.columns()
        self._row = tuple(aligned(1, size) for size in sizes)
        self._tile = tuple(aligned(size * WIDTH) for size in sizes)
        self._scratch = (
            np.zeros((WIDTH, m * n), np.float32), np.zeros((WIDTH, m * m + n * n), np.float32),
            np.empty((WIDTH, m)), np.empty((WIDTH, n)), np.empty((1, n)), np.empty((1, n)),
            np.empty(m), np.empty(m), np.empty(n), np.empty(n), np.empty((m, m)),
            tuple(np.zeros((largest, largest)) for _ in range(12)),
        )  # fmt: skip

    def _first(self, rows: int) -> Array:
        """Hidden states before the first step: the priors Q = S = I and Sigma = 0, or zeros."""
        if not isinstance(self.network, Gain):
            return self.network.start(rows)
        one_m, one_n = (np.eye(k, dtype=np.float32) for k in (self.network.m, self.network.n))
        return self.network.start(rows, one_m, np.zeros_like(one_m), one_n)

    def start(self, tracks: int, states: Array | None = None) -> Tracks:
        """Filters that stand at the start of the model; the first ones at these states (few, m)."""
        m, n = self.model.size, self.model.rows
        mean, seen = np.tile(self.model.initial, (tracks, 1)), np.empty((tracks, n))
        if states is not None:
            mean[: len(states)] = states
        _observe(self.model.observe, self.model.observe_parameters, mean, seen)
        zeros = np.zeros((2, tracks, m))
        covariance = np.tile(self.model.initial_covariance, (tracks, 1, 1))
        return Tracks(mean, zeros[0], zeros[1], seen, self._first(tracks), covariance)

    def hidden_of(self, hidden: Array) -> Array | None:
        """Hidden states of another network to go on with; None where they do not fit."""
        own = self._first(len(hidden))
        if own.shape != hidden.shape:
            return None
        own[:] = hidden
        return own

    def run(
        self, observations: Array, intervals: Array, tracks: Tracks, out: Track, *,
        together: bool, spread: bool = True,
    ) -> Array:  # fmt: skip
        """Filter tracks; returns how many steps of each went well, (tracks,) int64.

        observations  (tracks, time, n) float64
        intervals     (tracks, time) float64  [s]
        tracks        updated
        out           (tracks, time)
        together      whether tracks go side by side, which rounds otherwise than one by one: so the
                      result of a track depends neither on the others nor on how many there are
        spread        whether covariances, nis and det are wanted; else they are NaN

        Raises ValueError for arrays of other shapes or dtypes.
        """
        model, network = self.model, self.network
        count, time, n = observations.shape
        m, shape = model.size, (count, time)
        expect(
            np.float64, observations=(observations, (*shape, n)), intervals=(intervals, shape),
            estimates=(out.estimates, (*shape, m)), innovations=(out.innovations, (*shape, n)),
            covariances=(out.covariances, (*shape, m, m)), nis=(out.nis, shape),
            det=(out.det, shape), mean=(tracks.mean, (count, m)),
            evolution=(tracks.evolution, (count, m)), update=(tracks.update, (count, m)),
            seen=(tracks.seen, (count, n)), covariance=(tracks.covariance, (count, m, m)),
        )  # fmt: skip
        expect(np.float32, hidden=(tracks.hidden, (count, self._first(1).shape[1])))
        done = np.full(count, time, np.int64)
        wanted = NOTHING
        if spread:
            wanted = CARRIED if self._carries else TOLD
        _run(
            network.weights, network.places, m, n, self._sizes, self._scales, model.advance,
            model.linearise, model.parameters, model.observe, model.observe_linearised,
            model.observe_parameters, model.angles, *self._noise, model.linear_seen,
            wanted, observations, intervals, *tracks, *(self._tile if together else self._row),
            *self._scratch, *out, done,
        )  # fmt: skip
        return done


@njit(cache=True, nogil=True)
def _observe(observe: Any, parameters: Array, states: Array, seen: Array) -> None:
    for row in range(states.shape[0]):
        call_observe(observe, states[row], parameters, seen[row])


@njit(cache=True, nogil=True)
def put(
    values: Array, row: int, count: int, scales: Array, first: int, features: Array, at: int,
    lane: int,
) -> None:  # fmt: skip
    """Put a row of values (rows, count) among the features.

    It is divided by its length, or told in scales from `first` on.
    """
    squared = 0.0
    for j in range(count):
        value = values[row, j]
        if scales.size:
            value /= scales[first + j]
        squared += value * value
    length = max(np.sqrt(squared), LEAST)
    over = (np.log1p(length) if scales.size else 1.0) / length
    for j in range(count):
        value = values[row, j]
        if scales.size:
            value /= scales[first + j]
        put_number(features, at + j, lane, over * value)


@njit(cache=True, nogil=True)
def _put_geometry(
    linear: bool, before: Array, after: Array, foretold: Array, was: Array, H: Array,
    angles: Array, bend: Array, scales: Array, features: Array, at: int, lane: int,
) -> None:  # fmt: skip
    """Put how far the observation is from linear, and H, among the features."""
    n, m = H.shape
    for j in range(n):
        bend[0, j] = 0.0
        if not linear:
            off = foretold[j] - was[j]
            for i in range(m):
                off -= H[j, i] * (after[i] - before[i])
            bend[0, j] = wrapped(off) if angles[j] else off
        for i in range(m):
            put_number(features, at + n + j * m + i, lane, H[j, i])
    put(bend, 0, n, scales, m, features, at, lane)


@njit(cache=True, nogil=True)
def _put_squares(
    values: Array, row: int, scales: Array, features: Array, at: int, lane: int
) -> None:  # fmt: skip
    """Put log(1 + (v / scale)^2) among the features."""
    for j in range(scales.size):
        value = values[row, j] / scales[j]
        put_number(features, at + j, lane, np.log1p(value * value))


@njit(cache=True, nogil=True)
def _compare(
    observations: Array, track: int, t: int, foretold: Array, seen: Array, angles: Array,
    change: Array, off: Array, row: int,
) -> None:  # fmt: skip
    """Write F1 and F2 before they are divided."""
    for j in range(foretold.size):
        y = observations[track, t, j]
        if np.isnan(y):
            y = foretold[j]
        one, two = y - seen[track, j], y - foretold[j]
        change[0, j] = wrapped(one) if angles[j] else one
        off[row, j] = wrapped(two) if angles[j] else two
        seen[track, j] = y


@njit(cache=True, nogil=True)
def _run(
    weights: Array, places: Array, m: int, n: int, sizes: tuple[int, int, int, int], scales: Array,
    advance: Any, linearise: Any, parameters: Array, observe: Any, observe_linearised: Any,
    observe_parameters: Array, angles: Array, Q: Array, R: Array, share: float, per_second: float,
    is_calibrated: bool, state_scales: Array, seen_scales: Array, H: Array, linear_seen: bool,
    wanted: int, observations: Array, intervals: Array, mean: Array, evolution: Array,
    update: Array, seen: Array, hidden: Array, covariance: Array, features: Array,
    states: Array, scratch: Array, gains: Array, told: Array, predicted: Array, off: Array,
    change: Array, bend: Array, before: Array, after: Array, foretold: Array, was: Array, F: Array,
    work: tuple[Array, ...], estimates: Array, covariances: Array, innovations: Array, nis: Array,
    det: Array, done: Array,
) -> None:  # fmt: skip
    count, steps = intervals.shape
    kind, in_mult, out_mult, units = sizes
    second = 2 * n if kind < SPLIT else 3 * n + m * n  # where F3 stands
    width = 1 if features.ndim == 2 else WIDTH
    for begin in range(0, count, width):
        alive = min(width, count - begin)
        for row in range(alive):  # what stands in other lanes means nothing
            for k in range(hidden.shape[1]):
                put_number(states, k, row, hidden[begin + row, k])
        for t in range(steps):
            for row in range(alive):
                track = begin + row
                # no views of rows in this loop: each counts its references, which is atomic
                for i in range(m):
                    before[i] = mean[track, i]
                call_advance(advance, before, intervals[track, t], parameters, after)
                if kind >= SPLIT and not linear_seen:
                    call_observe_linearised(
                        observe_linearised, after, observe_parameters, foretold, H
                    )
                    call_observe(observe, before, observe_parameters, was)
                else:
                    call_observe(observe, after, observe_parameters, foretold)
                for i in range(m):
                    predicted[row, i] = after[i]
                _compare(observations, track, t, foretold, seen, angles, change, off, row)
                put(change, 0, n, scales, m, features, 0, row)
                put(off, row, n, scales, m, features, n, row)
                put(evolution, track, m, scales, 0, features, second, row)
                put(update, track, m, scales, 0, features, second + m, row)
                if kind >= SPLIT:
                    _put_geometry(
                        linear_seen, before, after, foretold, was, H, angles, bend, scales,
                        features, 2 * n, row,
                    )  # fmt: skip
                if kind == RECURSIVE:
                    at = second + 2 * m
                    _put_squares(change, 0, seen_scales, features, at, row)
                    _put_squares(off, row, seen_scales, features, at + n, row)
                    _put_squares(update, track, state_scales, features, at + 2 * n, row)
            if kind == DOUBLE:
                gain(weights, places, m, n, in_mult, out_mult, features, states, scratch, gains)
            elif kind == SINGLE:
                single_gain(
                    weights, places, m, n, in_mult, out_mult, units, features, states, scratch,
                    gains,
                )  # fmt: skip
            elif kind == SPLIT:
                split_gain(
                    weights, places, m, n, in_mult, out_mult, units, features, states, scratch,
                    told,
                )  # fmt: skip
            else:
                recursive_gain(
                    weights, places, m, n, in_mult, out_mult, units, features, states, scratch,
                    gains, told,
                )  # fmt: skip
            if scales.size:
                for row in range(alive):
                    for i in range(m):
                        for j in range(n):
                            gains[row, i * n + j] *= scales[i] / scales[m + j]
            for row in range(alive):
                track = begin + row
                if not linear_seen and (kind == SPLIT or wanted):
                    for i in range(m):
                        after[i] = predicted[row, i]
                    call_observe_linearised(
                        observe_linearised, after, observe_parameters, foretold, H
                    )
                if kind == SPLIT:
                    _multiply_factors(told, row, H, gains)
                if wanted == CARRIED:
                    for i in range(m):
                        before[i] = mean[track, i]
                    call_linearise(linearise, before, intervals[track, t], parameters, after, F)
                total = 0.0
                for i in range(m):
                    correction = 0.0
                    for j in range(n):
                        correction += gains[row, i * n + j] * off[row, j]
                    now = predicted[row, i] + correction
                    evolution[track, i] = now - mean[track, i]
                    update[track, i] = correction
                    mean[track, i] = estimates[track, t, i] = now
                    total += now
                if not np.isfinite(total) and done[track] == steps:
                    done[track] = t
                for j in range(n):
                    is_there = not np.isnan(observations[track, t, j])
                    innovations[track, t, j] = off[row, j] if is_there else np.nan
                if wanted == CARRIED:
                    if kind == RECURSIVE:
                        factor(told, row, state_scales, work[11])
                    nis[track, t], det[track, t] = _carry(
                        kind == RECURSIVE, is_calibrated, gains, row, innovations, covariance,
                        covariances, track, t, F, H, Q, R, intervals[track, t] * per_second, share,
                        work,
                    )  # fmt: skip
                elif wanted == TOLD:
                    nis[track, t], det[track, t] = _spread(
                        gains, row, innovations, covariances, track, t, H, R, work
                    )
                else:
                    nis[track, t] = det[track, t] = np.nan
                    for i in range(m):
                        for j in range(m):
                            covariances[track, t, i, j] = np.nan
        for row in range(alive):
            for k in range(hidden.shape[1]):
                hidden[begin + row, k] = number(states, k, row)


@njit(cache=True, nogil=True)
def _multiply_factors(told: Array, row: int, H: Array, gains: Array) -> None:
    """Write the gain P H' S of Split-KalmanNet."""
    n, m = H.shape
    for i in range(m):
        for j in range(n):
            total = 0.0
            for k in range(n):
                inner = 0.0
                for p in range(m):
                    inner += told[row, i * m + p] * H[k, p]
                total += inner * told[row, m * m + k * n + j]
            gains[row, i * n + j] = total


@njit(cache=True, nogil=True)
def _came(
    gains: Array, row: int, innovations: Array, track: int, t: int, H: Array, R: Array,
    work: tuple[Array, ...],
) -> int:  # fmt: skip
    """Write what belongs to the rows that came, side by side; returns how many there are."""
    n, m = H.shape
    Rp, Hp, K, e = work[0], work[1], work[4], work[5]
    rows = 0
    for j in range(n):
        if np.isnan(innovations[track, t, j]):
            continue
        at = 0
        for k in range(n):
            if not np.isnan(innovations[track, t, k]):
                Rp[rows, at] = R[j, k]
                at += 1
        for i in range(m):
            Hp[rows, i] = H[j, i]
            K[i, rows] = gains[row, i * n + j]
        e[rows, 0] = innovations[track, t, j]
        rows += 1
    return rows


@njit(cache=True, nogil=True)
def _carry(
    is_recursive: bool, is_calibrated: bool, gains: Array, row: int, innovations: Array,
    covariance: Array, covariances: Array, track: int, t: int, F: Array, H: Array, Q: Array,
    R: Array, intervals: float, share: float, work: tuple[Array, ...],
) -> tuple[float, float]:  # fmt: skip
    """Write the next covariance of a track; returns nis and the determinant of S.

    intervals  nominal ones that went by
    work       C in its last; the one before stays all zeros
    """
    m = H.shape[1]
    Rp, Hp, A, B, K, e, S, P, moved, noise, zeros, C = work
    rows = _came(gains, row, innovations, track, t, H, R, work)
    for i in range(m):
        for j in range(m):
            P[i, j] = covariance[track, i, j]
    matrices.sandwich(F, P, zeros, m, m, B, moved)
    for i in range(m):
        for j in range(m):
            P[i, j] = moved[i, j] + intervals * Q[i, j]  # as predicted
    nis, det = 0.0, 1.0
    if rows:
        nis = det = np.nan
        if is_calibrated:
            matrices.sandwich(Hp, P, Rp, rows, m, B, S)
            if matrices.cholesky(S, rows, S):
                matrices.solve_lower(S, rows, e, 1)
                nis, det = 0.0, 1.0
                for i in range(rows):
                    nis += e[i, 0] * e[i, 0]
                    det *= S[i, i] * S[i, i]
    if rows or (is_recursive and not is_calibrated):
        if is_recursive:
            for i in range(m):
                for j in range(i + 1):
                    total = 0.0
                    for k in range(j + 1):
                        total += C[i, k] * C[j, k]
                    noise[i, j] = noise[j, i] = total
        else:
            matrices.sandwich(K, Rp, zeros, m, rows, B, noise)
        matrices.multiply(K, Hp, m, rows, m, A)
        for i in range(m):
            for j in range(m):
                A[i, j] = (1.0 if i == j else 0.0) - A[i, j]
                noise[i, j] *= share
        if is_recursive:
            matrices.sandwich(A, moved, noise, m, m, B, P)
        else:
            matrices.sandwich(A, P, noise, m, m, B, P)
    for i in range(m):
        for j in range(m):
            covariance[track, i, j] = covariances[track, t, i, j] = P[i, j]
    return nis, det


@njit(cache=True, nogil=True)
def _spread(
    gains: Array, row: int, innovations: Array, covariances: Array, track: int, t: int, H: Array,
    R: Array, work: tuple[Array, ...],
) -> tuple[float, float]:  # fmt: skip
    """Write the updated covariance that a gain tells; returns nis and the determinant of S."""
    m = H.shape[1]
    Rp, Hp, A, B, K, e, solved = work[:7]
    rows = _came(gains, row, innovations, track, t, H, R, work)
    for i in range(m):
        for j in range(m):
            covariances[track, t, i, j] = np.nan
    if rows == 0:
        return 0.0, 1.0
    # K R, while R is there
    matrices.multiply(K, Rp, m, rows, rows, B)
    # S^-1 = R^-1 (I - H K)
    matrices.multiply(Hp, K, rows, m, rows, A)
    for i in range(rows):
        for j in range(rows):
            A[i, j] = (1.0 if i == j else 0.0) - A[i, j]
    nis = det = np.nan
    if matrices.cholesky(Rp, rows, Rp):
        matrices.solve_lower(Rp, rows, A, rows)
        matrices.solve_upper(Rp, rows, A, rows)
        squared = 0.0
        for i in range(rows):
            for j in range(rows):
                squared += e[i, 0] * A[i, j] * e[j, 0]
                solved[i, j] = 0.5 * (A[i, j] + A[j, i])
        if matrices.cholesky(solved, rows, solved):
            nis, det = squared, 1.0
            for i in range(rows):
                det /= solved[i, i] * solved[i, i]
    if rows < m:
        return nis, det
    # P = K R H (H'H)^-1: its transpose is (H'H)^-1 (K R H)'
    matrices.multiply(B, Hp, m, rows, m, A)
    largest = 0.0
    for i in range(m):
        for j in range(m):
            total = 0.0
            for k in range(rows):
                total += Hp[k, i] * Hp[k, j]
            Rp[i, j] = total
            solved[i, j] = A[j, i]
        largest = max(largest, Rp[i, i])
    if not matrices.cholesky(Rp, m, Rp):
        return nis, det
    for i in range(m):
        if not Rp[i, i] * Rp[i, i] > RANK * largest:
            return nis, det
    matrices.solve_lower(Rp, m, solved, m)
    matrices.solve_upper(Rp, m, solved, m)
    for i in range(m):
        for j in range(m):
            A[i, j] = 0.5 * (solved[i, j] + solved[j, i])
    if matrices.cholesky(A, m, B):
        for i in range(m):
            for j in range(m):
                covariances[track, t, i, j] = A[i, j]
    return nis, det
