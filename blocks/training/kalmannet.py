"""Gradients of a KalmanNet through its whole recursion, for blocks/training/trajectories.py.

Revach et al., "KalmanNet", IEEE Trans. Signal Processing 2022, III-D: features and motion included.
split_kalmannet.py and recursive_kalmannet.py beside it have the same with other networks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from blocks.kernels.caching import njit
from blocks.kernels.indirect import call_linearise, call_observe, call_observe_linearised
from blocks.kernels.kalmannet_filter import LEAST
from blocks.kernels.state_space import StateSpace, wrapped
from blocks.training.backward import Dense
from blocks.training.layers import Layers, Layers1, Layers2
from blocks.training.trajectories import Squared, Trajectories

Array = np.ndarray[Any, Any]


def predict(
    model: StateSpace, states: Array, intervals: Array, moving: Array, seeing: Array
) -> tuple[Array, Array]:
    """What a model foretells of states (rows, m), and what is seen there, float64.

    moving, seeing  (rows, m, m), (rows, n, m)  written: Jacobians of motion and observation
    """
    predicted, seen = np.empty((len(states), model.size)), np.empty((len(states), model.rows))
    _predict(
        model.linearise, model.parameters, model.observe_linearised, model.observe_parameters,
        np.ascontiguousarray(states, np.float64), np.ascontiguousarray(intervals), predicted, seen,
        moving, seeing,
    )  # fmt: skip
    return predicted, seen


@njit(cache=True, nogil=True)
def _predict(
    linearise: Any, parameters: Array, observe: Any, observe_parameters: Array, states: Array,
    intervals: Array, predicted: Array, seen: Array, moving: Array, seeing: Array,
) -> None:  # fmt: skip
    for row in range(states.shape[0]):
        call_linearise(
            linearise, states[row], intervals[row], parameters, predicted[row], moving[row]
        )
        call_observe_linearised(observe, predicted[row], observe_parameters, seen[row], seeing[row])


def around(model: StateSpace, differences: Array) -> Array:
    """Differences of observations (..., n), those of angles around the circle."""
    turns = np.round(differences / math.tau)
    return np.where(model.angles, differences - math.tau * turns, differences)


@njit(cache=True, nogil=True)
def _observe(observe: Any, parameters: Array, states: Array, seen: Array, seeing: Array) -> None:
    for row in range(states.shape[0]):
        call_observe_linearised(observe, states[row], parameters, seen[row], seeing)


def jacobians(model: StateSpace, states: Array, intervals: Array) -> tuple[Array, Array]:
    """Those of the motion (rows, m, m) at states (rows, m), and of what is seen after it."""
    rows, m, n = len(states), model.size, model.rows
    moving, seeing = np.empty((rows, m, m)), np.empty((rows, n, m))
    predict(model, states, intervals, moving, seeing)
    return moving, seeing


@njit(cache=True, nogil=True)
def _bend(
    observe: Any, parameters: Array, angles: Array, before: Array, predicted: Array,
    foretold: Array, seeing: Array, geometry: Array,
) -> None:  # fmt: skip
    rows, n, m = seeing.shape
    was = np.empty(n)
    for row in range(rows):
        call_observe(observe, before[row], parameters, was)
        squared = 0.0
        for j in range(n):
            off = foretold[row, j] - was[j]
            for i in range(m):
                off -= seeing[row, j, i] * (predicted[row, i] - before[row, i])
            geometry[row, j] = wrapped(off) if angles[j] else off
            squared += geometry[row, j] ** 2
        for j in range(n):
            geometry[row, j] /= max(np.sqrt(squared), LEAST)


def geometry_of(
    model: StateSpace, before: Array, predicted: Array, foretold: Array, seeing: Array
) -> Array:
    """Features (rows, n + m n) that no gradient passes through: how the observation bends, and H.

    before, predicted  (rows, m)     float64, last updated and predicted states
    foretold, seeing   (rows, n), (rows, n, m)  what is seen at those predicted, and its Jacobian
    """
    rows, n, _ = seeing.shape
    found = np.zeros((rows, n + seeing[0].size))
    found[:, n:] = seeing.reshape(rows, -1)
    if not model.linear_seen:
        _bend(
            model.observe, model.observe_parameters, model.angles, before, predicted, foretold,
            seeing, found,
        )  # fmt: skip
    return found


class Unrolled(Squared):
    """Filters side by side with their gradients, on numpy arrays: 20 times as fast as autograd.

    A track is mean, evolution, update and seen of Tracks in kernels/kalmannet_filter.py, then the
    hidden states of the network.

    network   a FilterNetwork, whose parameters get the gradients
    dense     what its dense layers are made of
    """

    def __init__(self, network: Any, model: StateSpace, dense: type[Dense] = Dense) -> None:
        self.network, self.model = network, model
        self._dense = dense
        self.layers = self._layers()
        self._used = network.used.numpy()
        self._dtype = next(network.parameters()).detach().numpy().dtype
        n, m = model.rows, model.size
        scales = np.array(network.scales or np.ones(m + n), self._dtype)
        self._units = (scales[m:], scales[m:], scales[:m], scales[:m])  # of F1 to F4
        self._unit_gain = scales[:m, None] / scales[m:]
        second = 2 * n + (n + m * n) * network.has_geometry
        #: columns of the features F1 to F4, and of the squares
        self._columns = [slice(0, n), slice(n, 2 * n)]
        self._columns += [slice(second, second + m), slice(second + m, second + 2 * m)]
        end = second + 2 * m
        self._squares: dict[int, tuple[slice, Array]] = {}
        if network.square_scales is not None:
            of_state, of_seen = (s.numpy() for s in network.square_scales)
            for k, scale in ((0, of_seen), (1, of_seen), (3, of_state)):
                self._squares[k] = slice(end, end + scale.size), scale
                end += scale.size
        self._width = end

    def _layers(self) -> Layers:
        """The layers of the network."""
        kind = Layers2 if hasattr(self.network, "GRU_Q") else Layers1
        return kind(self.network, self._dense)

    def start(self, states: Array) -> tuple[Array, ...]:
        mean, model = np.array(states, self._dtype, order="C"), self.model
        seen, seeing = np.empty((len(mean), model.rows)), np.empty((model.rows, model.size))
        _observe(
            model.observe_linearised, model.observe_parameters, mean.astype(np.float64), seen,
            seeing,
        )  # fmt: skip
        still = np.zeros_like(mean)
        hidden = (state.detach().numpy() for state in self.network.start(len(mean)))
        return mean, still, still, seen.astype(self._dtype), *hidden

    def forward(
        self, track: tuple[Array, ...], observations: Array, intervals: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        """Updated states (rows, time, m) of observations (rows, time, n), and the end."""
        (rows, steps, n), m, kind = observations.shape, self.model.size, self._dtype
        model = self.model
        self.layers.begin(steps, rows)
        self._moving, self._seeing = np.empty((steps, rows, m, m)), np.empty((steps, rows, n, m))
        self._features = np.empty((steps, rows, self._width), kind)
        self._lengths = np.empty((steps, rows, 4), kind)
        self._gains = np.empty((steps, rows, m, n), kind)
        self._told: list[Array] = []
        self.innovations = np.empty((steps, rows, n), kind)
        self.came: Array = ~np.isnan(observations)
        means = np.empty((rows, steps, m), kind)
        mean, evolution, update, seen, *hidden = track
        for t in range(steps):
            before64 = mean.astype(np.float64)
            predicted64, foretold64 = predict(
                model, before64, intervals[:, t], self._moving[t], self._seeing[t]
            )
            predicted, foretold = predicted64.astype(kind), foretold64.astype(kind)
            came = self.came[:, t]
            y = np.where(came, observations[:, t], foretold).astype(kind)
            innovation = np.where(came, around(model, y - foretold), 0.0).astype(kind)
            row = self._features[t]
            for k, part in enumerate((around(model, y - seen), innovation, evolution, update)):
                scaled = part / self._units[k]
                length = np.maximum(np.sqrt(np.einsum("ij,ij->i", scaled, scaled)), LEAST)
                self._lengths[t, :, k] = length
                row[:, self._columns[k]] = scaled * (self._long(length) / length)[:, None]
                if k in self._squares:
                    columns, scale = self._squares[k]
                    row[:, columns] = np.log1p(np.square(part / scale))
            if self.network.has_geometry:
                row[:, 2 * n : self._columns[2].start] = geometry_of(
                    model, before64, predicted64, foretold64, self._seeing[t]
                )
            told, hidden = self.layers.forward(t, row * self._used, hidden)
            gains = self.layers.gains(told, self._seeing[t]) * self._unit_gain
            self._gains[t], self.innovations[t] = gains, innovation
            self._told.append(told)
            update = np.einsum("ijk,ik->ij", gains, innovation)
            mean, before = predicted + update, mean
            evolution = mean - before
            seen = y
            means[:, t] = mean
        return means, (mean, evolution, update, seen, *hidden)

    def backward(
        self, gradients: Array, by_foretold: Array | None = None, by_gains: Array | None = None,
        by_told: Array | None = None,
    ) -> None:  # fmt: skip
        """Add to the gradients of the parameters, given those by the updated states.

        by_foretold  (rows, time, n)     by the predicted observations, if there are such gradients
        by_gains     (time, rows, m, n)  likewise by the gains themselves
        by_told      (time, rows, width) and by what the network tells
        """
        rows, steps, m = gradients.shape
        by_mean, by_evolution, by_update = np.zeros((3, rows, m), self._dtype)
        by_hidden = [np.zeros((rows, size), self._dtype) for size in self.layers.sizes]
        for t in reversed(range(steps)):
            after = by_mean + gradients[:, t] + by_evolution
            by_correction = after + by_update
            by_gain = by_correction[:, :, None] * self.innovations[t][:, None]
            by_innovation = np.einsum("ijk,ij->ik", self._gains[t], by_correction)
            if by_gains is not None:
                by_gain = by_gain + by_gains[t]
            by_gain = by_gain * self._unit_gain
            own = self.layers.by_told(self._told[t], self._seeing[t], by_gain)
            if by_told is not None:
                own = own + by_told[t]
            by_features, by_hidden = self.layers.backward(t, own, by_hidden)
            by_features = by_features * self._used
            by_part = []
            for k in (1, 2, 3):  # F1 is made of observations alone
                length = self._lengths[t, :, k, None]
                long = self._long(length)
                unit = self._features[t, :, self._columns[k]] / long
                own = by_features[:, self._columns[k]]
                along = np.einsum("ij,ij->i", unit, own)[:, None] * unit
                found = (own - along) * (long / length)
                if self.network.scales:
                    found = found + along / (1.0 + length)
                found = found / self._units[k]
                if k in self._squares:
                    columns, scale = self._squares[k]
                    value = unit * length
                    found = found + by_features[:, columns] * (
                        2.0 * value / (np.square(value) + np.square(scale))
                    )
                by_part.append(found.astype(self._dtype))
            by_seen = np.where(self.came[:, t], -by_innovation - by_part[0], 0.0)
            if by_foretold is not None:
                by_seen += by_foretold[:, t]
            by_predicted = after + np.einsum("ij,ijk->ik", by_seen, self._seeing[t])
            by_mean = np.einsum("ij,ijk->ik", by_predicted, self._moving[t]) - by_evolution
            by_evolution, by_update = by_part[1], by_part[2]
        self.layers.finish()

    def _long(self, lengths: Array) -> Array:
        """How long features are, given how long they would be."""
        return np.log1p(lengths) if self.network.scales else np.ones_like(lengths)


class Predicting(Unrolled):
    """The same, with a loss that needs no states: the mean squared innovation per row that came.

    Revach et al., "Unsupervised Learned Kalman Filtering", EUSIPCO 2022, (10): what is predicted
    of the next observation, in units of its variance, is as near to it as can be.

    variances  (n,)  of the innovations
    """

    def __init__(self, network: Any, model: StateSpace, variances: Array) -> None:
        super().__init__(network, model)
        self._over = (1.0 / variances).astype(self._dtype)

    def teach(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        error, end = self.judge(track, part)
        if math.isfinite(error):
            gradients = -2.0 / max(self.came.sum(), 1) * self._over * self.innovations
            rows, steps, _ = part.observations.shape
            by_means = np.zeros((rows, steps, self.model.size), self._dtype)
            self.backward(by_means, gradients.swapaxes(0, 1).astype(self._dtype))
        return error, end

    def judge(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        _, end = self.forward(track, part.observations, part.intervals)
        squares = self._over * np.square(self.innovations, dtype=np.float64)
        return float(squares.sum() / max(self.came.sum(), 1)), end
