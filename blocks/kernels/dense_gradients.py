"""Derivatives of dense classifiers by their parameters, in numpy: accurate, and once per word.

Layers as in kernels/dense.py, (weight, bias) as torch's Linear holds them, and a softmax after the
last, which is LINEAR. All arithmetic has the dtype of the inputs. Parameters are numbered layer
after layer, weights (n_out, n_in) and then biases. Many steps in a row are kernels/dense_training's
matter, whose reference this is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from blocks.kernels.activations import RELU, SIGMOID, TANH, sigmoid

Array = np.ndarray[Any, Any]
Layers = Sequence[tuple[Array, Array]]


def gradient(
    layers: Layers, kinds: Sequence[int], inputs: Array, labels: Array
) -> tuple[float, Array]:
    """Mean cross entropy [nat], and its gradient (n,); not finite where a number is not.

    kinds   activation of each layer
    inputs  (count, n_in)
    labels  (count,)  class, 0 ... n_classes - 1
    """
    with np.errstate(invalid="ignore", over="ignore"):
        levels, log_probabilities = _forward(layers, kinds, inputs)
        rows = np.arange(len(labels))
        d = np.exp(log_probabilities)
        d[rows, labels] -= 1.0
        d /= len(labels)
        parts: list[Array] = []
        for k in reversed(range(len(layers))):
            parts[:0] = (d.T @ levels[k]).ravel(), d.sum(axis=0)
            if k:
                d = d @ layers[k][0] * _slope(kinds[k - 1], levels[k])
        return float(-log_probabilities[rows, labels].mean()), np.concatenate(parts)


def jacobian(layers: Layers, kinds: Sequence[int], inputs: Array) -> tuple[Array, Array]:
    """Log-probabilities (count, n_classes), and their derivatives (count, n_classes, n)."""
    with np.errstate(invalid="ignore", over="ignore"):
        levels, log_probabilities = _forward(layers, kinds, inputs)
        count, n_classes = log_probabilities.shape
        end = sum(weight.size + bias.size for weight, bias in layers)
        derivatives = np.empty((count, n_classes, end), inputs.dtype)
        d = np.eye(n_classes, dtype=inputs.dtype) - np.exp(log_probabilities)[:, None]
        for k in reversed(range(len(layers))):
            weight, x = layers[k][0], levels[k]
            derivatives[:, :, end - len(weight) : end] = d
            end -= len(weight)
            products = derivatives[:, :, end - weight.size : end]
            shape = (count, n_classes, *weight.shape)
            np.multiply(d[:, :, :, None], x[:, None, None], out=products.reshape(shape))  # a view
            end -= weight.size
            if k:
                d = d @ weight * _slope(kinds[k - 1], x)[:, None]
        return log_probabilities, derivatives


def _forward(layers: Layers, kinds: Sequence[int], inputs: Array) -> tuple[list[Array], Array]:
    """Inputs of each layer, and log-probabilities."""
    levels, y = [inputs], inputs
    for (weight, bias), kind in zip(layers, kinds, strict=True):
        y = y @ weight.T + bias
        if kind == RELU:
            y = np.where(y < 0.0, 0.0, y)  # NaN remains
        elif kind == SIGMOID:
            y = sigmoid(y)
        elif kind == TANH:
            y = np.tanh(y)
        levels.append(y)
    y = y - y.max(axis=1, keepdims=True)
    return levels[:-1], y - np.log(np.exp(y).sum(axis=1, keepdims=True))


def _slope(kind: int, y: Array) -> Array:
    """Derivative of an activation where its value is y."""
    if kind == RELU:
        return (y > 0.0).astype(y.dtype)
    if kind == SIGMOID:
        return y * (1.0 - y)
    return 1.0 - y * y if kind == TANH else np.ones_like(y)
