"""Dense layers, y = activation(W x + b), and chains of them, for one input or many; float32.

Outputs stand in vectors of LANES, and two vectors make a panel: its biases, then for each input
its 2 LANES weights. So a single input streams the weights once, in order, and of many inputs six
share each weight that is loaded. All layers of a network lie in one flat array (`join`), aligned
to cache lines, and a layer is found by the place of its first number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import activations
from blocks.kernels.activations import LINEAR, RELU, log_softmax
from blocks.kernels.caching import njit
from blocks.kernels.traced import LANES
from blocks.kernels.unrolled import fma, lanes, put_lanes, repeat, unrolled, where

Array = np.ndarray[Any, Any]

_PANEL = 2  # vectors of outputs: with six inputs, 12 of the 16 registers of AVX2 are sums
_TOGETHER = 6  # inputs that share a load of weights
_WAYS = 4  # partial sums of a single input, added at the end: hides the latency of fma
_TILE = 16 * _TOGETHER  # inputs that pass through all layers together, within the L1 cache


@njit(cache=True, nogil=True)
def padded(n: int) -> int:
    """How many numbers the whole vectors hold that n numbers need."""
    return (n + LANES - 1) // LANES * LANES


def aligned(*shape: int) -> Array:
    """Zeros, float32, from the begin of a cache line on."""
    size = math.prod(shape)
    room = np.zeros(size + 16, np.float32)
    first = -room.ctypes.data % 64 // room.itemsize
    return room[first : first + size].reshape(shape)


def pack(weight: Array, bias: Array) -> Array:
    """The numbers of a layer as the kernels read them.

    weight  (n_out, n_in)  as in torch's Linear
    bias    (n_out,)
    """
    n_out, n_in = weight.shape
    rows = np.zeros((1 + n_in, padded(n_out)), np.float32)
    rows[0, :n_out] = bias
    rows[1:, :n_out] = weight.T
    panel = _PANEL * LANES
    return np.concatenate([rows[:, at : at + panel].ravel() for at in range(0, n_out, panel)])


def join(parts: Sequence[Array]) -> tuple[Array, Array]:
    """All parts in one aligned array, and the place of each in it."""
    places = np.cumsum([0, *(part.size for part in parts)])
    weights = aligned(int(places[-1]))
    np.concatenate(parts, out=weights)
    return weights, places[:-1]


def _panel(blocks: int, ways: int, together: int) -> Any:
    """`blocks` vectors of outputs for `together` inputs, in `ways` partial sums."""

    def panel(
        weights: Any, first: Any, count: Any, rest: Any, x: Any, row: Any, x0: Any, least: Any,
        y: Any, y0: Any,
    ) -> None:  # fmt: skip
        def add(j: Any, sums: Any) -> Any:
            at = first + LANES * blocks * (j + 1)
            w = [lanes(weights, at + LANES * b) for b in range(blocks)]
            numbers = [x[row + r, x0 + j] for r in range(together)]
            return tuple(
                tuple(fma(number, w[b], own[b]) for b in range(blocks))
                for number, own in zip(numbers, sums, strict=True)
            )

        bias = [lanes(weights, first + LANES * b) for b in range(blocks)]
        zero = [where(value < value, value, 0.0) for value in bias]
        parts = tuple(
            tuple(tuple(zero if way else bias) for _ in range(together)) for way in range(ways)
        )
        parts = repeat(
            count,
            lambda j, sums: tuple(add(j * ways + way, own) for way, own in enumerate(sums)),
            parts,
        )
        sums = parts[0]
        for part in parts[1:]:
            sums = tuple(
                tuple(a + b for a, b in zip(*pair, strict=True))
                for pair in zip(sums, part, strict=True)
            )
        if ways > 1:
            sums = repeat(rest, lambda j, own: add(count * ways + j, own), sums)
        for r, own in enumerate(sums):
            for b, value in enumerate(own):
                put_lanes(y, where(value < least, least, value), row + r, y0 + LANES * b)

    return unrolled(panel)


_one_pair = _panel(2, _WAYS, 1)
_one_single = _panel(1, _WAYS, 1)
_six_pair = _panel(2, 1, _TOGETHER)
_six_single = _panel(1, 1, _TOGETHER)


@njit(cache=True, nogil=True)
def layer(
    weights: Array, first: int, n_in: int, n_out: int, activation: int,
    x: Array, x0: int, y: Array, y0: int,
) -> None:  # fmt: skip
    """Write activation(W x + b) of each row of x to the same row of y.

    weights  (n,)           of `join`; those of this layer begin at number `first`
    x        (rows, width)  inputs, from column x0 on; C-contiguous
    y        (rows, width)  written: padded(n_out) columns from y0 on; not those of x that are read
    """
    rows = x.shape[0]
    least = np.float32(0.0 if activation == RELU else -math.inf)
    for output in range(0, n_out, _PANEL * LANES):
        at = first + output * (n_in + 1)
        pair = n_out - output > LANES
        row = 0
        while row + _TOGETHER <= rows:
            if pair:
                _six_pair(weights, at, n_in, 0, x, row, x0, least, y, y0 + output)
            else:
                _six_single(weights, at, n_in, 0, x, row, x0, least, y, y0 + output)
            row += _TOGETHER
        count, rest = n_in // _WAYS, n_in % _WAYS
        while row < rows:
            if pair:
                _one_pair(weights, at, count, rest, x, row, x0, least, y, y0 + output)
            else:
                _one_single(weights, at, count, rest, x, row, x0, least, y, y0 + output)
            row += 1
    if activation > RELU:
        activations.apply(activation, y, y0, n_out)


@njit(cache=True, nogil=True)
def _through(
    weights: Array, sizes: Array, kinds: Array, normalise: bool, inputs: Array, begin: int,
    count: int, scratch: Array,
) -> int:  # fmt: skip
    """Pass `count` inputs from `begin` on through all layers; returns which scratch they end in."""
    # whole groups, so that no result depends on how many inputs come at once
    rows = (count + _TOGETHER - 1) // _TOGETHER * _TOGETHER
    for row in range(count):
        for j in range(sizes[0]):
            scratch[0, row, j] = inputs[begin + row, j]
    first = 0
    for k in range(kinds.size):
        x, y = scratch[k % 2, :rows], scratch[(k + 1) % 2, :rows]
        layer(weights, first, sizes[k], sizes[k + 1], kinds[k], x, 0, y, 0)
        first += (sizes[k] + 1) * padded(sizes[k + 1])
    end: int = kinds.size % 2
    if normalise:
        log_softmax(scratch[end, :count], 0, sizes[-1])
    return end


@njit(cache=True, nogil=True)
def chain(
    weights: Array, sizes: Array, kinds: Array, normalise: bool, scratch: Array,
    inputs: Array, outputs: Array,
) -> None:  # fmt: skip
    """Pass inputs through layers that follow one another.

    weights    (n,)             of `join`, layer after layer
    sizes      (n_layers + 1,)  numbers of inputs of each layer, and of outputs of the last
    kinds      (n_layers,)      activations
    normalise                   whether log_softmax follows
    scratch    (2, tile, width)  tile a multiple of six, width >= padded(size) for each size
    inputs     (count, n_in)
    outputs    (count, n_out)   written
    """
    tile = scratch.shape[1]
    for begin in range(0, inputs.shape[0], tile):
        count = min(tile, inputs.shape[0] - begin)
        end = _through(weights, sizes, kinds, normalise, inputs, begin, count, scratch)
        for row in range(count):
            for j in range(outputs.shape[1]):
                outputs[begin + row, j] = scratch[end, row, j]


@njit(cache=True, nogil=True)
def chain_lanes(
    weights: Array, sizes: Array, kinds: Array, normalise: bool, scratch: Array,
    inputs: Array, metrics: Array,
) -> None:  # fmt: skip
    """Pass inputs of 2 LANES sequences side by side through layers; write the outputs' negatives.

    inputs   (time, 2, LANES, n_in)   C-contiguous; the rest as in `chain`
    metrics  (time, n_out, 2, LANES)  written
    """
    rows = inputs.reshape(-1, inputs.shape[3])
    tile = scratch.shape[1] // LANES * LANES
    for begin in range(0, rows.shape[0], tile):
        count = min(tile, rows.shape[0] - begin)
        end = _through(weights, sizes, kinds, normalise, rows, begin, count, scratch)
        for row in range(0, count, LANES):
            t, half = divmod((begin + row) // LANES, 2)
            for s in range(metrics.shape[1]):
                for lane in range(LANES):
                    metrics[t, s, half, lane] = -scratch[end, row + lane, s]


class Network(NamedTuple):
    """Layers that follow one another, with scratch of its own: one thread at a time.

    A changed network is a new one: made beside it, and the reference swapped.
    """

    weights: Array
    sizes: Array
    kinds: Array
    normalise: bool
    scratch: Array

    @classmethod
    def of(
        cls,
        layers: Sequence[tuple[Array, Array]],
        kinds: Sequence[int] | None = None,
        normalise: bool = False,
    ) -> Network:
        """From (weight, bias) of each layer, as torch's Linear holds them.

        kinds      an activation for each layer; RELU and, last, LINEAR if not given
        normalise  whether outputs are made log-probabilities (log_softmax)
        """
        sizes = [layers[0][0].shape[1], *(weight.shape[0] for weight, _ in layers)]
        for k, ((weight, bias), (n_in, n_out)) in enumerate(
            zip(layers, pairwise(sizes), strict=True)
        ):
            if weight.shape != (n_out, n_in) or bias.shape != (n_out,):
                raise ValueError(
                    f"layer {k}: weight {weight.shape} and bias {bias.shape}, "
                    f"but ({n_out}, {n_in}) and ({n_out},) are due"
                )
        if kinds is None:
            kinds = [RELU] * (len(layers) - 1) + [LINEAR]
        if len(kinds) != len(layers):
            raise ValueError(f"{len(kinds)} activations for {len(layers)} layers")
        weights, _ = join([pack(*one) for one in layers])
        scratch = aligned(2, _TILE, padded(max(sizes)))
        return cls(weights, np.array(sizes), np.array(kinds), normalise, scratch)

    def __call__(self, inputs: Array, outputs: Array) -> None:
        """Write the outputs (count, n_out) of inputs (count, n_in)."""
        count = len(inputs)
        n_in, n_out = self.sizes[0], self.sizes[-1]
        if inputs.shape != (count, n_in) or outputs.shape != (count, n_out):
            raise ValueError(
                f"inputs are {inputs.shape} and outputs {outputs.shape}, "
                f"expected ({count}, {n_in}) and ({count}, {n_out})"
            )
        chain(*self, inputs, outputs)

    def metrics(self, inputs: Array, metrics: Array) -> None:
        """Write the negative outputs of 2 LANES sequences side by side.

        inputs   (time, 2, LANES, n_in)   float32
        metrics  (time, n_out, 2, LANES)  written: float32
        """
        time = len(inputs)
        n_in, n_out = self.sizes[0], self.sizes[-1]
        if inputs.shape != (time, 2, LANES, n_in) or metrics.shape != (time, n_out, 2, LANES):
            raise ValueError(
                f"inputs are {inputs.shape} and metrics {metrics.shape}, "
                f"expected ({time}, 2, {LANES}, {n_in}) and ({time}, {n_out}, 2, {LANES})"
            )
        chain_lanes(*self, inputs, metrics)
