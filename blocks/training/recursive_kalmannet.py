"""Gradients of a Recursive KalmanNet through its whole recursion, covariances included.

Mortada et al., "Recursive KalmanNet", EUSIPCO 2025. The loss is the negative log-likelihood of the
errors by the covariances that the filter tells, without its constant, per number of a state [nat].
No gradient passes through the Jacobians of motion and observation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from blocks.training.kalmannet import Unrolled
from blocks.training.layers import Branch, Layers
from blocks.training.trajectories import Trajectories

Array = np.ndarray[Any, Any]


class Likely(Unrolled):
    """A RecursiveNetwork in its filter; tracks have their covariances (rows, m, m) in front."""

    layers: _Layers

    def _layers(self) -> Layers:
        return _Layers(self.network)

    def start(self, states: Array) -> tuple[Array, ...]:
        covariance = np.tile(self.model.initial_covariance, (len(states), 1, 1))
        return covariance, *super().start(states)

    def teach(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        loss, end, (off, carried, inverse) = self._likelihood(track, part)
        if math.isfinite(loss):
            whitened = np.einsum("rtij,rtj->rti", inverse, off)
            by_means = whitened / off.size
            by_covariances = (inverse - whitened[..., None] * whitened[..., None, :]) / (
                2.0 * off.size
            )
            by_gains, by_told = self._backward_covariances(track[0], carried, by_covariances)
            self.backward(by_means.astype(self._dtype), by_gains=by_gains, by_told=by_told)
        return loss, end

    def judge(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        loss, end, _ = self._likelihood(track, part)
        return loss, end

    def _likelihood(
        self, track: Any, part: Trajectories
    ) -> tuple[float, Any, tuple[Array, Array, Array]]:
        """Loss, end, and (rows, time, ...): errors, covariances and their inverses."""
        means, end = self.forward(track[1:], part.observations, part.intervals)
        carried = self._carry(track[0])
        off = means - part.states
        found = (math.nan, (carried[:, -1], *end), (off, carried, carried))
        if not (np.isfinite(carried).all() and np.isfinite(off).all()):
            return found
        signs, logs = np.linalg.slogdet(carried)
        if not (signs > 0.0).all():
            return found
        inverse = np.linalg.inv(carried)
        squared = np.einsum("rti,rtij,rtj->", off, inverse, off)
        loss = 0.5 * float(squared + logs.sum()) / off.size
        return loss, found[1], (off, carried, inverse)

    def _carry(self, covariance: Array) -> Array:
        """Covariances (rows, time, m, m) of the steps that `forward` took."""
        m, H = self.model.size, self._seeing
        came = self.came.swapaxes(0, 1)[:, :, None]
        self._inner = np.eye(m) - (self._gains * came) @ H
        self._moves = self._inner @ self._moving
        self._factors = self.layers.factor(np.stack(self._told))
        noise = self._factors @ self._factors.swapaxes(2, 3)
        carried = []
        for move, added in zip(self._moves, noise, strict=True):
            covariance = move @ covariance @ move.swapaxes(1, 2) + added
            carried.append(covariance)
        return np.stack(carried, 1)

    def _backward_covariances(
        self, first: Array, carried: Array, by_covariances: Array
    ) -> tuple[Array, Array]:
        """Gradients by the gains (time, rows, m, n) and by what is told (time, rows, width)."""
        steps, came = len(self._moves), self.came.swapaxes(0, 1)[:, :, None]
        by, by_noise = np.zeros_like(first), np.empty_like(self._moves)
        by_gains = np.empty(self._gains.shape)
        for t in reversed(range(steps)):
            by = by + by_covariances[:, t]
            by_noise[t] = by
            move = self._moves[t]
            before = carried[:, t - 1] if t else first
            by_inner = 2.0 * by @ move @ before @ self._moving[t].swapaxes(1, 2)
            by_gains[t] = -by_inner @ self._seeing[t].swapaxes(1, 2)
            by = move.swapaxes(1, 2) @ by @ move
        by_told = self.layers.by_factor(np.stack(self._told), 2.0 * by_noise @ self._factors)
        return (by_gains * came).astype(self._dtype), by_told.astype(self._dtype)


class _Layers(Layers):
    """Those of both networks."""

    def __init__(self, net: Any) -> None:
        self.gain, self.noise = Branch(net.K, net.K.cells), Branch(net.C, net.C.cells)
        sizes = (*self.gain.sizes, *self.noise.sizes)
        super().__init__(net.m, net.n, [*self.gain.layers, *self.noise.layers], sizes)
        self._scale = net.square_scales[0].numpy()[:, None]
        self._lower = np.tril_indices(net.m)
        self._diagonal = np.eye(net.m, dtype=bool)

    def forward(self, t: int, features: Array, hidden: Any) -> tuple[Array, list[Array]]:
        K, after = self.gain.forward(t, hidden[:1], features)
        C, then = self.noise.forward(t, hidden[1:], features, K)
        return np.concatenate((K, C), 1), after + then

    def backward(self, t: int, by_told: Array, by_hidden: Any) -> tuple[Array, list[Array]]:
        mn = self.m * self.n
        by, earlier = self.noise.backward(t, by_told[:, mn:], by_hidden[1:])
        by_features, before = self.gain.backward(t, by_told[:, :mn] + by[:, -mn:], by_hidden[:1])
        return by_features + by[:, :-mn], before + earlier

    def gains(self, told: Array, seeing: Array) -> Array:
        return told[:, : self.m * self.n].reshape(-1, self.m, self.n)

    def by_told(self, told: Array, seeing: Array, by_gain: Array) -> Array:
        found = np.zeros_like(told)
        found[:, : self.m * self.n] = by_gain.reshape(len(told), -1)
        return found

    def factor(self, told: Array) -> Array:
        """C (..., m, m) of what is told, float64."""
        C = self._spread(told)
        return np.asarray(np.where(self._diagonal, np.logaddexp(0.0, C), C) * self._scale)

    def by_factor(self, told: Array, by_C: Array) -> Array:
        """The gradient by what is told, given that by C."""
        slope = np.where(self._diagonal, 1.0 / (1.0 + np.exp(-self._spread(told))), 1.0)
        found = np.zeros_like(told)
        found[..., self.m * self.n :] = (by_C * slope * self._scale)[..., *self._lower]
        return found

    def _spread(self, told: Array) -> Array:
        """The numbers of C in their places."""
        C = np.zeros((*told.shape[:-1], self.m, self.m))
        C[..., *self._lower] = told[..., self.m * self.n :]
        return C
