"""KalmanNet over whole frames: a filter whose gain is told by a network.

Revach et al., "KalmanNet", IEEE Trans. Signal Processing 2022. Each step predicts by the model,
makes four features of how the track goes, asks the network (kernels/kalmannet.py) for the gain, and
corrects. Every feature is divided by its length, or by the root of the sum of squares of that and
of a scale of its own, which leaves it a length that tells how much it is:

    F1  observation less the one before
    F2  innovation
    F3  last updated state less the one before
    F4  last updated state less what was predicted

Before the first step F3 and F4 are 0, and F1 is taken from what the start foretells.

An observation that is NaN is missing: its row counts as seen where it was predicted, for F1 of this
step and of the next, too. Its innovation is 0, so a step without any observation predicts only,
while the network goes on. (Where it waits for the next one, and F3 and F4 with it, the Lorenz
attractor of the paper is followed worse, by 0.4 dB with 10 % missing and by 3 dB with 30 %.) Angles
are compared around the circle.

There is no recursion of covariances; the gain tells them. With the gain K of a Kalman filter
K R = P H', and S^-1 = R^-1 (I - H K): so P = K R H (H'H)^-1 where all of the state is seen (H has
full column rank), the form of Klein et al., "Uncertainty in Data-Driven Kalman Filtering for
Partially Known State-Space Models", ICASSP 2022, solved for what it needs. Their symmetric parts
are taken, over the rows that came; what is not positive, or not determined, is NaN.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import matrices
from blocks.kernels.caching import njit
from blocks.kernels.dense import aligned, padded
from blocks.kernels.indirect import call_advance, call_observe, call_observe_linearised
from blocks.kernels.kalman import Track, expect
from blocks.kernels.kalmannet import Gain, SingleGain, gain, single_gain
from blocks.kernels.state_space import StateSpace, wrapped

Array = np.ndarray[Any, Any]

TOGETHER = 6  # tracks that share each load of weights, kernels/dense.py
TILE = 4 * TOGETHER  # tracks that go through time together: what they write stays in the cache
LEAST = 1e-12  # length that a feature is divided by at least
UNIT = np.zeros(4)  # scales of F1 to F4 by which all have length 1, as in the paper
RANK = 1e-12  # of a pivot of H'H to its largest diagonal, below which H has not full column rank


class Tracks(NamedTuple):
    """Where filters stand between two steps, a row each.

    mean       (tracks, m) float64  last updated states
    evolution  (tracks, m) float64  F3 of the next step, not divided
    update     (tracks, m) float64  F4 of the next step, not divided
    seen       (tracks, n) float64  last observation, as predicted where none came
    hidden     (tracks, width) float32  hidden states of the network
    """

    mean: Array
    evolution: Array
    update: Array
    seen: Array
    hidden: Array


class Filters:
    """A network in its filter, with the scratch that it needs: one thread at a time.

    A changed network is another one of these, made beside it.
    """

    def __init__(self, network: Gain | SingleGain, model: StateSpace, scales: Array = UNIT) -> None:
        if (network.m, network.n) != (model.size, model.rows):
            raise ValueError(
                f"a network for {network.m} states and {network.n} observations, but the model "
                f"has {model.size} and {model.rows}"
            )
        self.network, self.model, self._scales = network, model, scales
        m, n = model.size, model.rows
        units = network.units if isinstance(network, SingleGain) else 0
        self._sizes = network.in_mult, network.out_mult, units
        self._H = model.seen_matrix() if model.linear_seen else np.empty((n, m))
        width = padded(2 * (m + n))
        self._scratch = (
            aligned(TILE, width), network.scratch(TILE), np.zeros((TILE, m, n), np.float32),
            np.empty((TILE, m)), np.empty((TILE, n)), np.empty((1, n)), np.empty(m), np.empty(m),
            np.empty(n),
            tuple(np.empty((max(m, n), max(m, n))) for _ in range(7)),
        )  # fmt: skip

    def _first(self, rows: int) -> Array:
        """Hidden states before the first step: the priors Q = S = I and Sigma = 0, or zeros."""
        if isinstance(self.network, SingleGain):
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
        return Tracks(mean, zeros[0], zeros[1], seen, self._first(tracks))

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
        tracks        updated; if `together`, with rows for a whole number of TOGETHER tracks
        out           (tracks, time)
        together      whether tracks share loads of weights, which rounds otherwise than one alone;
                      so of a track of many the result does not depend on how many there are
        spread        whether covariances, nis and det are wanted; else they are NaN

        Raises ValueError for arrays of other shapes or dtypes.
        """
        model, network = self.model, self.network
        count, time, n = observations.shape
        m, shape = model.size, (count, time)
        rows = -(-count // TOGETHER) * TOGETHER if together else count
        expect(
            np.float64, observations=(observations, (*shape, n)), intervals=(intervals, shape),
            estimates=(out.estimates, (*shape, m)), innovations=(out.innovations, (*shape, n)),
            covariances=(out.covariances, (*shape, m, m)), nis=(out.nis, shape),
            det=(out.det, shape), mean=(tracks.mean, (rows, m)),
            evolution=(tracks.evolution, (rows, m)), update=(tracks.update, (rows, m)),
            seen=(tracks.seen, (rows, n)),
        )  # fmt: skip
        expect(np.float32, hidden=(tracks.hidden, (rows, self._first(1).shape[1])))
        done = np.full(count, time, np.int64)
        _run(
            network.weights, network.places, m, n, self._sizes, model.advance, model.parameters,
            model.observe, model.observe_linearised, model.observe_parameters, model.angles,
            model.R, self._H, model.linear_seen, self._scales, TILE if together else 1, spread,
            observations, intervals, *tracks, *self._scratch, *out, done,
        )  # fmt: skip
        return done


@njit(cache=True, nogil=True)
def _observe(observe: Any, parameters: Array, states: Array, seen: Array) -> None:
    for row in range(states.shape[0]):
        call_observe(observe, states[row], parameters, seen[row])


@njit(cache=True, nogil=True)
def put_feature(
    values: Array, row: int, count: int, scale: float, features: Array, to: int, at: int
) -> None:
    """Put a row of values (rows, count), divided by its length and scale, among the features."""
    squared = 0.0
    for j in range(count):
        squared += values[row, j] * values[row, j]
    over = 1.0 / max(np.sqrt(squared + scale * scale), LEAST)
    for j in range(count):
        features[to, at + j] = over * values[row, j]


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
    weights: Array, places: Array, m: int, n: int, sizes: tuple[int, int, int], advance: Any,
    parameters: Array, observe: Any, observe_linearised: Any, observe_parameters: Array,
    angles: Array, R: Array, H: Array, linear_seen: bool, scales: Array, tile: int,
    spread: bool, observations: Array, intervals: Array, mean: Array, evolution: Array,
    update: Array, seen: Array, hidden: Array, all_features: Array, scratch: Array,
    all_gains: Array, predicted: Array, off: Array, change: Array, before: Array, after: Array,
    foretold: Array,
    work: tuple[Array, ...], estimates: Array, covariances: Array, innovations: Array, nis: Array,
    det: Array, done: Array,
) -> None:  # fmt: skip
    count, steps = intervals.shape
    for begin in range(0, count, tile):
        alive = min(tile, count - begin)
        rows = min(tile, mean.shape[0] - begin)  # beyond `alive` they only fill the vectors
        features, gains = all_features[:rows], all_gains[:rows]
        states = hidden[begin : begin + rows]
        for t in range(steps):
            for row in range(alive):
                track = begin + row
                # no views of rows in this loop: each counts its references, which is atomic
                for i in range(m):
                    before[i] = mean[track, i]
                call_advance(advance, before, intervals[track, t], parameters, after)
                call_observe(observe, after, observe_parameters, foretold)
                for i in range(m):
                    predicted[row, i] = after[i]
                _compare(observations, track, t, foretold, seen, angles, change, off, row)
                put_feature(change, 0, n, scales[0], features, row, 0)
                put_feature(off, row, n, scales[1], features, row, n)
                put_feature(evolution, track, m, scales[2], features, row, 2 * n)
                put_feature(update, track, m, scales[3], features, row, 2 * n + m)
            if sizes[2]:
                single_gain(
                    weights, places, m, n, sizes[0], sizes[1], sizes[2], features, states, scratch,
                    gains,
                )  # fmt: skip
            else:
                gain(
                    weights, places, m, n, sizes[0], sizes[1], features, states, scratch, gains
                )  # fmt: skip
            for row in range(alive):
                track = begin + row
                total = 0.0
                for i in range(m):
                    correction = 0.0
                    for j in range(n):
                        correction += gains[row, i, j] * off[row, j]
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
                if spread:
                    if not linear_seen:
                        for i in range(m):
                            after[i] = predicted[row, i]
                        call_observe_linearised(
                            observe_linearised, after, observe_parameters, foretold, H
                        )
                    nis[track, t], det[track, t] = _spread(
                        gains, row, innovations, covariances, track, t, H, R, work
                    )
                else:
                    nis[track, t] = det[track, t] = np.nan
                    for i in range(m):
                        for j in range(m):
                            covariances[track, t, i, j] = np.nan


@njit(cache=True, nogil=True)
def _spread(
    gains: Array, row: int, innovations: Array, covariances: Array, track: int, t: int, H: Array,
    R: Array, work: tuple[Array, ...],
) -> tuple[float, float]:  # fmt: skip
    """Write the updated covariance that a gain tells; returns nis and the determinant of S."""
    n, m = H.shape
    Rp, Hp, A, B, K, e, solved = work
    rows = 0
    for j in range(n):  # what came, side by side
        if np.isnan(innovations[track, t, j]):
            continue
        at = 0
        for k in range(n):
            if not np.isnan(innovations[track, t, k]):
                Rp[rows, at] = R[j, k]
                at += 1
        for i in range(m):
            Hp[rows, i] = H[j, i]
            K[i, rows] = gains[row, i, j]
        e[rows, 0] = innovations[track, t, j]
        rows += 1
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
