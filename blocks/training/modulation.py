"""Trains a gain network together with the hypernetwork that modulates it, for trajectories.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from blocks.kernels.state_space import StateSpace
from blocks.training.backward import Dense
from blocks.training.kalmannet import Unrolled
from blocks.training.trajectories import Learner, Trajectories

Array = np.ndarray[Any, Any]

LEAST = 1e-6  # noise, in units of what the model says


class ModulatedDense(Dense):
    """activation(scales (W x + b) + shifts), with scales and shifts (rows, outputs) of each row."""

    def __init__(self, layer: nn.Linear, *, relu: bool = True) -> None:
        super().__init__(layer, relu=relu)
        self.modulation = np.ones((1, len(self.bias))), np.zeros((1, len(self.bias)))

    def begin(self, steps: int, rows: int) -> None:
        super().begin(steps, rows)
        self.sums = np.empty_like(self.outputs)
        self.by_modulation = np.zeros((2, rows, self.outputs.shape[2]), self.outputs.dtype)

    def forward(self, t: int, *parts: Array) -> Array:
        scales, shifts = self.modulation
        x = np.concatenate(parts, 1, out=self.inputs[t])
        sums = np.dot(x, self.weight.T, out=self.sums[t])
        sums += self.bias
        y: Array = np.multiply(sums, scales, out=self.outputs[t])
        y += shifts
        return np.maximum(y, 0.0, out=y) if self.relu else y

    def backward(self, t: int, gradient: Array) -> Array:
        by = gradient * (self.outputs[t] > 0.0) if self.relu else gradient
        self.by_modulation[0] += by * self.sums[t]
        self.by_modulation[1] += by
        delta = np.multiply(by, self.modulation[0], out=self.deltas[t])
        found: Array = delta @ self.weight
        return found


class Modulation(Learner):
    """A KalmanNet whose rows see noise of other loudness, of which its context tells.

    While it learns, the context of a row is taken from the truth: the mean squared noise of its
    stretch. The loss of a row is the squared error in units of that, so that all contexts count.
    """

    def __init__(self, network: Any, model: StateSpace) -> None:
        self.network, self.model = network, model
        self._unrolled = Unrolled(network.gains, model, ModulatedDense)
        self._modules = dict(network.gains.named_modules())
        self._layers = {
            id(layer.layer): layer
            for layer in self._unrolled.layers.all
            if isinstance(layer, ModulatedDense)
        }

    def start(self, states: Array) -> Any:
        return self._unrolled.start(states)

    def teach(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        noise = self._noise_of(part)
        told = self.network(context_of(noise))
        error, off, end = self._run(track, part, noise, told)
        if math.isfinite(error):
            weights = 2.0 / (off.size * noise[:, None, None])
            self._unrolled.backward((weights * off).astype(np.float32))
            tensors, gradients = [], []
            for name, pair in told.items():
                by = self._layers[id(self._modules[name])].by_modulation
                tensors += list(pair)
                gradients += [torch.from_numpy(array) for array in by]
            torch.autograd.backward(tensors, gradients)
        return error, end

    def judge(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        noise = self._noise_of(part)
        with torch.no_grad():
            told = self.network(context_of(noise))
        error, _, end = self._run(track, part, noise, told)
        return error, end

    def _run(
        self, track: Any, part: Trajectories, noise: Array, told: Any
    ) -> tuple[float, Array, Any]:
        for name, pair in told.items():
            scales, shifts = (tensor.detach().numpy() for tensor in pair)
            self._layers[id(self._modules[name])].modulation = scales, shifts
        means, end = self._unrolled.forward(track, part.observations, part.intervals)
        off = means - part.states
        error = np.square(off).mean((1, 2)) / noise
        return float(error.mean()), off, end

    def _noise_of(self, part: Trajectories) -> Array:
        """Mean squared noise of each row, in units of what the model says, (rows,) float32."""
        count, steps, m = part.states.shape
        seen = part.observations.reshape(count * steps, -1)
        off = self.model.residuals(seen, part.states.reshape(count * steps, m))
        units = off**2 / self.model.R.diagonal()
        noise = np.nanmean(units.reshape(count, -1), axis=1)
        found: Array = np.maximum(noise, LEAST).astype(np.float32)
        return found


def context_of(noise: Any) -> Tensor:
    """Contexts [dB] of mean squared noise, in units of what the model says."""
    return 10.0 * torch.as_tensor(noise).log10()
