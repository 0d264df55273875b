"""Dense classifiers learn: many steps of Adam on the cross entropy, float32.

Layers as in kernels/dense.py, log_softmax after the last, which is LINEAR.

One product of matrices does all: forward y = x W, backward to the weights x^T d, and to the inputs
d W^T. It keeps six rows and two vectors of columns in registers. For it,
* the numbers of a level (inputs, or outputs of a layer) of one sample are a row, followed by a 1,
  which the biases multiply, and zeros up to a width in which six rows or whole vectors fit;
* parameters of a layer are rows too, one for each input, then the biases; what fills up rows and
  columns is zero and remains it, because its gradients are;
* a batch passes in tiles of samples that stay in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import activations
from blocks.kernels.activations import LINEAR, RELU, SIGMOID, TANH, log_softmax
from blocks.kernels.adam import FIRST, SECOND, SMALL
from blocks.kernels.caching import njit
from blocks.kernels.dense import padded
from blocks.kernels.traced import LANES
from blocks.kernels.unrolled import fma, lanes, put_lanes, repeat, sqrt, unrolled, where

Array = np.ndarray[Any, Any]

_ROWS = 6  # of a product, in registers with two vectors of columns
_TILE = 8 * _ROWS  # samples that pass through all layers together


def _block(vectors: int) -> Any:
    """Six rows and `vectors` vectors of columns of a product."""

    def block(
        a: Any, a0: Any, a_row: Any, a_k: Any, b: Any, b0: Any, b_k: Any, count: Any,
        c: Any, c0: Any, c_row: Any, adds: Any,
    ) -> None:  # fmt: skip
        rows = [a0 + a_row * r for r in range(_ROWS)]
        targets = [
            [c0 + c_row * r + LANES * vector for vector in range(vectors)] for r in range(_ROWS)
        ]

        def add(k: Any, sums: Any) -> Any:
            of_k = [lanes(b, b0 + k * b_k + LANES * vector) for vector in range(vectors)]
            numbers = [a[row + k * a_k] for row in rows]
            return tuple(
                tuple(fma(number, *pair) for pair in zip(of_k, own, strict=True))
                for number, own in zip(numbers, sums, strict=True)
            )

        start = tuple(
            tuple(where(adds > 0.0, lanes(c, target), 0.0) for target in row) for row in targets
        )
        for row, own in zip(targets, repeat(count, add, start), strict=True):
            for target, value in zip(row, own, strict=True):
                put_lanes(c, value, target)

    return unrolled(block)


_pair = _block(2)
_single = _block(1)


@njit(cache=True, nogil=True)
def product(
    a: Array, a0: int, a_row: int, a_k: int, b: Array, b0: int, b_k: int, count: int,
    c: Array, c0: int, c_row: int, rows: int, columns: int, adds: float,
) -> None:  # fmt: skip
    """c[i, j] = sum of a[i, k] b[k, j] over k < count, added to c where `adds` is above 0.

    All flat: a[i, k] stands at a0 + i a_row + k a_k, b[k, j] at b0 + k b_k + j, c[i, j] at
    c0 + i c_row + j. Rows are made full sixes, columns full vectors; those beyond are written too.
    """
    for column in range(0, columns, 2 * LANES):
        pair = columns - column > LANES
        for row in range(0, rows, _ROWS):
            at, to = a0 + row * a_row, c0 + row * c_row + column
            if pair:
                _pair(a, at, a_row, a_k, b, b0 + column, b_k, count, c, to, c_row, adds)
            else:
                _single(a, at, a_row, a_k, b, b0 + column, b_k, count, c, to, c_row, adds)


@unrolled
def _adam_lanes(
    parameters: Any, gradient: Any, first: Any, second: Any, at: Any, factor: Any, rate: Any,
    correction: Any,
) -> None:  # fmt: skip
    g = lanes(gradient, at) * factor
    m, v = lanes(first, at), lanes(second, at)
    m = m + (1.0 - FIRST) * (g - m)
    v = v + (1.0 - SECOND) * (g * g - v)
    put_lanes(first, m, at)
    put_lanes(second, v, at)
    step = rate * m / (sqrt(v * correction) + SMALL)
    put_lanes(parameters, lanes(parameters, at) - step, at)


class Layout(NamedTuple):
    """Where what stands; all int64.

    sizes    (n_layers + 1,)  numbers of a level
    kinds    (n_layers,)      activations, the last LINEAR
    widths   (n_layers + 1,)  of a row of a level
    levels   (n_layers + 1,)  place of each level, of _TILE rows
    layers   (n_layers,)      place of the parameters of each layer
    turned   (n_layers,)      place of its weights with outputs in rows
    lengths  (3,)             numbers of all levels, all parameters, all turned weights
    """

    sizes: Array
    kinds: Array
    widths: Array
    levels: Array
    layers: Array
    turned: Array
    lengths: Array

    @classmethod
    def of(cls, sizes: Sequence[int], kinds: Sequence[int]) -> Layout:
        """For layers of these sizes."""
        widths = [padded(_sixes(n + 1)) for n in sizes]
        levels = np.cumsum([0, *(_TILE * width for width in widths)])
        pairs = list(pairwise(sizes))
        layers = np.cumsum([0, *(_sixes(n_in + 1) * padded(n_out) for n_in, n_out in pairs)])
        turned = np.cumsum([0, *(n_out * padded(n_in) for n_in, n_out in pairs)])
        lengths = np.array([levels[-1], layers[-1], turned[-1]])
        return cls(
            np.array(sizes), np.array(kinds), np.array(widths), levels[:-1], layers[:-1],
            turned[:-1], lengths,
        )  # fmt: skip


@njit(cache=True, nogil=True)
def _sixes(n: int) -> int:
    return (n + _ROWS - 1) // _ROWS * _ROWS


@njit(cache=True, nogil=True)
def _turn(layout: Layout, parameters: Array, turned: Array) -> None:
    """Write the weights of all layers but the first with outputs in rows."""
    for k in range(1, layout.kinds.size):
        n_in, n_out = layout.sizes[k], layout.sizes[k + 1]
        across, along = padded(n_in), padded(n_out)
        for i in range(n_in):
            at, to = layout.layers[k] + i * along, layout.turned[k] + i
            for o in range(n_out):
                turned[to + o * across] = parameters[at + o]


@njit(cache=True, nogil=True)
def _gather(layout: Layout, inputs: Array, order: Array, rows: int, x: Array) -> None:
    """Put the inputs of some samples into the first level."""
    n, width = layout.sizes[0], layout.widths[0]
    for row in range(rows):
        for j in range(n):
            x[row * width + j] = inputs[order[row], j]
        x[row * width + n] = 1.0


@njit(cache=True, nogil=True)
def _forward(layout: Layout, parameters: Array, rows: int, x: Array) -> None:
    """Write all levels of x after the first; the last holds log-probabilities."""
    last = layout.kinds.size - 1
    rows = _sixes(rows)
    for k in range(layout.kinds.size):
        n, width, kind = layout.sizes[k + 1], layout.widths[k + 1], layout.kinds[k]
        to = layout.levels[k + 1]
        product(
            x, layout.levels[k], layout.widths[k], 1, parameters, layout.layers[k], padded(n),
            layout.sizes[k] + 1, x, to, width, rows, padded(n), 0.0,
        )  # fmt: skip
        level = x[to : to + rows * width].reshape(rows, width)
        if k == last:
            log_softmax(level, 0, n)
            break
        if kind > RELU:
            activations.apply(kind, level, 0, n)
        for row in range(rows):
            if kind == RELU:
                for j in range(n):
                    if level[row, j] < 0.0:
                        level[row, j] = 0.0
            level[row, n] = 1.0
            for j in range(n + 1, width):
                level[row, j] = 0.0


@njit(cache=True, nogil=True)
def _slopes(kind: int, level: Array, row: Array) -> None:
    """Multiply a row by the derivatives of the activation that made `level`."""
    if kind == RELU:
        for j in range(row.size):
            if level[j] <= 0.0:
                row[j] = 0.0
    elif kind == SIGMOID:
        for j in range(row.size):
            row[j] *= level[j] * (np.float32(1.0) - level[j])
    elif kind == TANH:
        for j in range(row.size):
            row[j] *= np.float32(1.0) - level[j] * level[j]


@njit(cache=True, nogil=True)
def _to_inputs(layout: Layout, turned: Array, k: int, rows: int, d: Array) -> None:
    """Write the derivatives by the inputs of layer k from those by its outputs, both in d."""
    product(
        d, layout.levels[k + 1], layout.widths[k + 1], 1, turned, layout.turned[k],
        padded(layout.sizes[k]), layout.sizes[k + 1], d, layout.levels[k], layout.widths[k],
        _sixes(rows), padded(layout.sizes[k]), 0.0,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _backward(
    layout: Layout, turned: Array, rows: int, x: Array, d: Array, gradient: Array
) -> None:
    """Add to the gradient what the derivatives by the last level, in d, make of it."""
    for k in range(layout.kinds.size - 1, -1, -1):
        width = layout.widths[k]
        product(
            x, layout.levels[k], 1, width, d, layout.levels[k + 1], layout.widths[k + 1], rows,
            gradient, layout.layers[k], padded(layout.sizes[k + 1]), _sixes(layout.sizes[k] + 1),
            padded(layout.sizes[k + 1]), 1.0,
        )  # fmt: skip
        if k:
            _to_inputs(layout, turned, k, rows, d)
            for row in range(rows):
                at = layout.levels[k] + row * width
                to = at + padded(layout.sizes[k])
                _slopes(layout.kinds[k - 1], x[at:to], d[at:to])


@njit(cache=True, nogil=True)
def gradient(
    layout: Layout, parameters: Array, turned: Array, inputs: Array, labels: Array, order: Array,
    x: Array, d: Array, gradient: Array,
) -> float:  # fmt: skip
    """Mean cross entropy of some samples [nat], and its gradient; not finite where a number is not.

    parameters  (n,)              as `Layout` has them
    turned      (n_turned,)       written: weights the other way
    inputs      (count, n_in)
    labels      (count,)          class, 0 ... sizes[-1] - 1
    order       (batch,)          which samples
    x, d        (n_levels,)       scratch
    gradient    (n,)              written
    """
    _turn(layout, parameters, turned)
    gradient[:] = 0.0
    last, n, width = layout.levels[-1], layout.sizes[-1], layout.widths[-1]
    share = np.float32(1.0 / order.size)
    loss = 0.0
    for begin in range(0, order.size, _TILE):
        rows = min(_TILE, order.size - begin)
        _gather(layout, inputs, order[begin:], rows, x)
        _forward(layout, parameters, rows, x)
        for row in range(rows):
            at = last + row * width
            label = labels[order[begin + row]]
            for j in range(n):
                d[at + j] = share * np.exp(x[at + j])
            for j in range(n, padded(n)):
                d[at + j] = 0.0
            d[at + label] -= share
            loss -= x[at + label]
        _backward(layout, turned, rows, x, d, gradient)
    mean: float = loss / order.size
    return mean


@njit(cache=True, nogil=True)
def adam(
    layout: Layout, parameters: Array, first: Array, second: Array, done: int, turned: Array,
    inputs: Array, labels: Array, batches: Array, rate: float, most: float, x: Array, d: Array,
    slopes: Array,
) -> float:  # fmt: skip
    """Steps of Adam with bias correction (Kingma and Ba, 2015, Algorithm 1); the mean loss.

    parameters     (n,)            replaced
    first, second  (n,)            moments; replaced
    done           steps taken with these moments before
    batches        (steps, batch)  which samples
    rate           step size
    most           a gradient with a larger norm is shortened to it; infinity: none is
    slopes         (n,)            scratch; the rest as in `gradient`
    """
    total = 0.0
    for step in range(batches.shape[0]):
        total += gradient(layout, parameters, turned, inputs, labels, batches[step], x, d, slopes)
        factor = 1.0
        if most < math.inf:
            norm = 0.0
            for i in range(slopes.size):
                norm += slopes[i] * slopes[i]
            if norm > most * most:
                factor = most / math.sqrt(norm)
        passed = done + step + 1
        by = np.float32(rate / (1.0 - FIRST**passed))
        correction = np.float32(1.0 / (1.0 - SECOND**passed))
        for at in range(0, parameters.size, LANES):
            _adam_lanes(parameters, slopes, first, second, at, np.float32(factor), by, correction)
    mean: float = total / max(batches.shape[0], 1)
    return mean


class Learner:
    """A dense classifier that learns: layers, and room to work in; one thread at a time.

    Parameters are one vector, as torch has them: weights (n_out, n_in) and then biases, layer
    after layer.

    sizes  numbers of inputs of each layer, and of classes
    kinds  activations, the last LINEAR
    """

    def __init__(self, sizes: Sequence[int], kinds: Sequence[int]) -> None:
        if len(kinds) != len(sizes) - 1 or not kinds or kinds[-1] != LINEAR:
            raise ValueError(f"activations {kinds} for {len(sizes) - 1} layers; the last is linear")
        self.layout = Layout.of(sizes, kinds)
        self.size = sum((n_in + 1) * n_out for n_in, n_out in pairwise(sizes))
        levels, parameters, turned = self.layout.lengths
        self._x, self._d = np.zeros((2, levels), np.float32)
        self._packed, self._slopes, self._first, self._second = np.zeros(
            (4, parameters), np.float32
        )
        self._turned = np.zeros(turned, np.float32)

    def _parts(self, vector: Array, packed: Array) -> Iterator[tuple[Array, Array]]:
        """Views of weights and biases, in a vector and as the kernels have them."""
        at = 0
        for (n_in, n_out), place in zip(
            pairwise(self.layout.sizes.tolist()), self.layout.layers.tolist(), strict=True
        ):
            width = padded(n_out)
            rows = packed[place : place + (n_in + 1) * width].reshape(-1, width)
            weight = vector[at : at + n_in * n_out].reshape(n_out, n_in)
            at += n_in * n_out
            yield weight.T, rows[:-1, :n_out]
            yield vector[at : at + n_out], rows[-1, :n_out]
            at += n_out

    def _pack(self, vector: Array) -> Array:
        if vector.shape != (self.size,):
            raise ValueError(f"parameters have shape {vector.shape}; expected ({self.size},)")
        for part, place in self._parts(vector, self._packed):
            place[:] = part
        packed: Array = self._packed
        return packed

    def _unpack(self, packed: Array) -> Array:
        vector = np.empty(self.size)
        for part, place in self._parts(vector, packed):
            part[:] = place
        return vector

    def gradient(self, parameters: Array, inputs: Array, labels: Array) -> tuple[float, Array]:
        """Mean cross entropy [nat] and its gradient (n,); not finite where a number is not.

        inputs  (count, n_in)
        labels  (count,) int64, class
        """
        self._check(inputs, labels)
        loss = gradient(
            self.layout, self._pack(parameters), self._turned, inputs, labels,
            np.arange(len(inputs)), self._x, self._d, self._slopes,
        )  # fmt: skip
        return loss, self._unpack(self._slopes)

    def adam(
        self, parameters: Array, inputs: Array, labels: Array, batches: Array, rate: float,
        *, most: float = math.inf,
    ) -> tuple[float, Array]:  # fmt: skip
        """Mean loss over steps of Adam from moments of zero, and the parameters after them.

        batches  (steps, batch) int64  which samples each step looks at
        rate     step size
        most     a gradient with a larger norm is shortened to it
        """
        self._check(inputs, labels)
        if batches.size and not 0 <= batches.min() <= batches.max() < len(inputs):
            raise ValueError(f"batches of samples beyond the {len(inputs)} there are")
        packed = self._pack(parameters)
        self._first[:] = self._second[:] = 0.0
        loss = adam(
            self.layout, packed, self._first, self._second, 0, self._turned, inputs, labels,
            batches, rate, most, self._x, self._d, self._slopes,
        )  # fmt: skip
        return loss, self._unpack(packed)

    def _check(self, inputs: Array, labels: Array) -> None:
        n_in, n_classes = self.layout.sizes[0], self.layout.sizes[-1]
        if inputs.dtype != np.float32 or inputs.ndim != 2 or inputs.shape[1] != n_in:
            raise ValueError(
                f"inputs are {inputs.dtype} {inputs.shape}, expected float32 (count, {n_in})"
            )
        if labels.size and not 0 <= labels.min() <= labels.max() < n_classes:
            raise ValueError(
                f"labels from {labels.min()} to {labels.max()}; expected 0 to {n_classes - 1}"
            )
