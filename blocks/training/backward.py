"""Layers that remember what passed through them, step by step, and pass gradients back.

What torch's autograd does for a recurrence costs 10 us and more per operation, whatever its size;
of a network of a few thousand weights that is nearly all of the time. These layers do the same on
numpy arrays: weights are views of the module's own parameters, and the gradients of all steps are
summed by one product of matrices at the end. tests/blocks/training compares them with autograd.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, from_numpy, nn

Array = np.ndarray[Any, Any]


def _view(parameter: Tensor) -> Array:
    """The numbers of a parameter themselves."""
    found: Array = parameter.detach().numpy()
    return found


def _add(parameter: Tensor, gradient: Array) -> None:
    """Add to the gradient of a parameter."""
    found = from_numpy(np.ascontiguousarray(gradient))
    parameter.grad = found if parameter.grad is None else parameter.grad + found


class Dense:
    """activation(W x + b) of rows, where the activation is relu or nothing."""

    def __init__(self, layer: nn.Linear, *, relu: bool = True) -> None:
        self.layer, self.relu = layer, relu
        self.weight, self.bias = _view(layer.weight), _view(layer.bias)

    def begin(self, steps: int, rows: int) -> None:
        """Make room for so many steps."""
        n_out, n_in = self.weight.shape
        self.inputs = np.empty((steps, rows, n_in), self.weight.dtype)
        self.outputs = np.empty((steps, rows, n_out), self.weight.dtype)
        self.deltas = np.zeros((steps, rows, n_out), self.weight.dtype)

    def forward(self, t: int, *parts: Array) -> Array:
        """The outputs of step t, of inputs that stand side by side."""
        x: Array = np.concatenate(parts, 1, out=self.inputs[t])
        y: Array = np.dot(x, self.weight.T, out=self.outputs[t])
        y += self.bias
        return np.maximum(y, 0.0, out=y) if self.relu else y

    def backward(self, t: int, gradient: Array) -> Array:
        """The gradient by the inputs of step t, given that by its outputs."""
        delta: Array = self.deltas[t]
        if self.relu:
            np.multiply(gradient, self.outputs[t] > 0.0, out=delta)
        else:
            delta[:] = gradient
        found: Array = delta @ self.weight
        return found

    def finish(self) -> None:
        """Add what all steps gave to the gradients of the parameters."""
        n_out, n_in = self.weight.shape
        deltas = self.deltas.reshape(-1, n_out)
        _add(self.layer.weight, deltas.T @ self.inputs.reshape(-1, n_in))
        _add(self.layer.bias, deltas.sum(0))


class Gru:
    """A GRU cell of rows, gates r, z, n as in torch."""

    def __init__(self, cell: nn.GRUCell) -> None:
        self.cell, self.size = cell, cell.hidden_size
        self.w, self.u = _view(cell.weight_ih), _view(cell.weight_hh)
        self.b, self.c = _view(cell.bias_ih), _view(cell.bias_hh)

    def begin(self, steps: int, rows: int) -> None:
        """Make room for so many steps."""
        kind = self.w.dtype
        self.inputs = np.empty((steps, rows, self.w.shape[1]), kind)
        self.before = np.empty((steps, rows, self.size), kind)
        self.gates = np.empty((steps, rows, 3 * self.size), kind)
        self.inner = np.empty((steps, rows, self.size), kind)  # U_n h + c_n
        self.deltas = np.zeros((2, steps, rows, 3 * self.size), kind)

    def forward(self, t: int, state: Array, *parts: Array) -> Array:
        """The next state of step t, of inputs that stand side by side."""
        k = self.size
        x = np.concatenate(parts, 1, out=self.inputs[t])
        self.before[t] = state
        gates = np.dot(x, self.w.T, out=self.gates[t])
        gates += self.b
        hidden = state @ self.u.T
        hidden += self.c
        sums = gates[:, : 2 * k]
        sums += hidden[:, : 2 * k]
        np.negative(sums, out=sums)
        np.exp(np.minimum(sums, 80.0, out=sums), out=sums)
        sums += 1.0
        np.reciprocal(sums, out=sums)
        self.inner[t] = hidden[:, 2 * k :]
        n = gates[:, 2 * k :]
        n += gates[:, :k] * self.inner[t]
        np.tanh(n, out=n)
        found: Array = n + gates[:, k : 2 * k] * (state - n)
        return found

    def backward(self, t: int, gradient: Array) -> tuple[Array, Array]:
        """The gradients by the inputs and the state before, given that by the state after."""
        k = self.size
        r, z, n = (self.gates[t, :, i * k : (i + 1) * k] for i in range(3))
        by_x, by_h = self.deltas[:, t]
        by_n = gradient * (1.0 - z) * (1.0 - n * n)
        by_r = by_n * self.inner[t] * r * (1.0 - r)
        by_z = gradient * (self.before[t] - n) * z * (1.0 - z)
        by_x[:, :k], by_x[:, k : 2 * k], by_x[:, 2 * k :] = by_r, by_z, by_n
        by_h[:, : 2 * k] = by_x[:, : 2 * k]
        by_h[:, 2 * k :] = by_n * r
        return by_x @ self.w, by_h @ self.u + gradient * z

    def finish(self) -> None:
        """Add what all steps gave to the gradients of the parameters."""
        by_x, by_h = self.deltas.reshape(2, -1, 3 * self.size)
        _add(self.cell.weight_ih, by_x.T @ self.inputs.reshape(len(by_x), -1))
        _add(self.cell.weight_hh, by_h.T @ self.before.reshape(len(by_h), -1))
        _add(self.cell.bias_ih, by_x.sum(0))
        _add(self.cell.bias_hh, by_h.sum(0))
