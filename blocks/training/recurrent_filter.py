"""How a tracker.recurrent learns, for blocks/training/trajectories.py.

Gradients go through the whole recursion, the motion of the model included. What the network sees
and tells is scaled by what the training trajectories hold: means and standard deviations of
observations, states, one-step innovations and one-step corrections, each between true states.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from blocks.kernels.recurrent_filter import DIFFERENCES, OBSERVATIONS
from blocks.kernels.state_space import StateSpace
from blocks.training.kalmannet import around, predict
from blocks.training.layers import Layers1
from blocks.training.trajectories import Squared, Trajectories

Array = np.ndarray[Any, Any]

Track = tuple[Array, Array, Array]  # mean, update and hidden, kernels/recurrent_filter.py: Tracks


class Recurrent(Squared):
    """The recursion of kernels/recurrent_filter.py, on many tracks side by side.

    network  a RecurrentTracker, whose parameters get the gradients
    """

    def __init__(self, network: Any, model: StateSpace) -> None:
        self.network, self.model = network, model
        self.layers = Layers1(network)
        self._dtype = network.L1.weight.detach().numpy().dtype
        scales = "input_shift", "input_scale", "output_shift", "output_scale"
        self._scales = [getattr(network, name).numpy() for name in scales]

    def start(self, states: Array) -> Track:
        mean = np.array(states, self._dtype, order="C")
        hidden = np.zeros((len(states), self.network.GRU.hidden_size), self._dtype)
        return mean, np.zeros_like(mean), hidden

    def forward(self, track: Track, observations: Array, intervals: Array) -> tuple[Array, Track]:
        """Updated states (rows, time, m) of observations (rows, time, n), and the end."""
        (rows, steps, n), m, kind = observations.shape, self.model.size, self._dtype
        model = self.model
        self.layers.begin(steps, rows)
        self._moving, self._seeing = np.empty((steps, rows, m, m)), np.empty((steps, rows, n, m))
        self._came: Array = ~np.isnan(observations)
        shift, scale, out_shift, out_scale = self._scales
        means = np.empty((rows, steps, m), kind)
        mean, update, hidden = track
        sees = self.network.sees
        for t in range(steps):
            after, foretold = predict(
                model, mean, intervals[:, t], self._moving[t], self._seeing[t]
            )
            seen = np.where(self._came[:, t], observations[:, t], foretold)
            if sees == OBSERVATIONS:
                inputs = seen
            elif sees == DIFFERENCES:
                inputs = np.concatenate([around(model, seen - foretold), update], 1)
            else:
                inputs = np.concatenate([seen, after], 1)
            told, (new,) = self.layers.forward(t, ((inputs - shift) / scale).astype(kind), [hidden])
            told = out_shift + out_scale * told
            any_came = self._came[:, t].any(1, keepdims=True)
            mean = np.where(any_came, told if sees == OBSERVATIONS else after + told, after)
            mean, hidden = mean.astype(kind), np.where(any_came, new, hidden)
            update = (mean - after).astype(kind)
            means[:, t] = mean
        return means, (mean, update, hidden)

    def backward(self, gradients: Array) -> None:
        """Add to the gradients of the parameters, given those by the updated states."""
        rows, steps, m = gradients.shape
        n, kind, sees = self.model.rows, self._dtype, self.network.sees
        _, scale, _, out_scale = self._scales
        by_mean, by_update = np.zeros((2, rows, m), kind)
        by_hidden = np.zeros((rows, self.network.GRU.hidden_size), kind)
        for t in reversed(range(steps)):
            came = self._came[:, t]
            any_came = came.any(1, keepdims=True)
            total = by_mean + gradients[:, t] + by_update  # by the updated state
            by_told = np.where(any_came, total, 0.0) * out_scale
            inputs, (before,) = self.layers.backward(
                t, by_told.astype(kind), [np.where(any_came, by_hidden, 0.0).astype(kind)]
            )
            inputs = np.where(any_came, inputs, 0.0) / scale
            by_hidden = np.where(any_came, before, by_hidden)
            by_after = np.where(any_came, total if sees != OBSERVATIONS else 0.0, total) - by_update
            by_update = np.zeros((rows, m), kind)
            by_foretold = np.where(came, 0.0, inputs[:, :n])
            if sees == DIFFERENCES:
                by_foretold, by_update = np.where(came, -inputs[:, :n], 0.0), inputs[:, n:]
            elif sees != OBSERVATIONS:
                by_after = by_after + inputs[:, n:]
            by_after = by_after + np.einsum("ij,ijk->ik", by_foretold, self._seeing[t])
            by_mean = np.einsum("ij,ijk->ik", by_after, self._moving[t])
        self.layers.finish()

    def scale(self, training: Trajectories) -> None:
        """Fit what the network subtracts and divides by to these trajectories."""
        sees, model, m = self.network.sees, self.model, self.model.size
        states = training.states[:, 1:].reshape(-1, m)
        seen = training.observations[:, 1:].reshape(len(states), -1)
        before = training.states[:, :-1].reshape(-1, m)
        moving, seeing = np.empty((len(states), m, m)), np.empty((len(states), model.rows, m))
        after, foretold = predict(model, before, training.intervals[:, 1:].ravel(), moving, seeing)
        corrections, outputs = states - after, states - after
        if sees == OBSERVATIONS:
            inputs, outputs = seen, states
        elif sees == DIFFERENCES:
            inputs = np.concatenate([around(model, seen - foretold), corrections], 1)
        else:
            inputs = np.concatenate([seen, states], 1)
        of = zip(("input", "output"), (inputs, outputs), strict=True)
        with torch.no_grad():
            for name, values in of:
                shift, spread = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
                getattr(self.network, f"{name}_shift")[:] = torch.from_numpy(shift)
                getattr(self.network, f"{name}_scale")[:] = torch.from_numpy(
                    np.maximum(spread, 1e-12)
                )
