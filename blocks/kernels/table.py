"""Networks of one input as tables: log-probabilities of states, linear between equal steps.

A table is measured against its network half-way between its points, and has as many of them as the
error asked for needs. A curve that bends one way between two points (one kink of a ReLU network,
or none) errs nowhere more than twice what it errs half-way, because what it errs is then concave
and 0 at both ends; `error` is twice the greatest error found half-way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from blocks.kernels.activations import LINEAR, RELU
from blocks.kernels.caching import njit
from blocks.kernels.dense import Network, aligned, padded
from blocks.kernels.traced import LANES
from blocks.kernels.unrolled import (
    floor,
    fma,
    index,
    item,
    lanes,
    put_lanes,
    repeat,
    shuffle,
    unrolled,
    where,
)

Array = np.ndarray[Any, Any]

_TILE = 480  # inputs of a rising network that pass through all layers together
_FEWEST = 128  # cells of the first attempt
_PROBABLE = math.log(1e-6)  # errors of what is less probable do not count

# An 8 x 8 transposition: neighbours interleave in ones, in twos, in fours.
_ONES = (0, 8, 1, 9, 4, 12, 5, 13), (2, 10, 3, 11, 6, 14, 7, 15)
_TWOS = (0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)
_FOURS = (0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)


def transpose(v: list[Any]) -> list[Any]:
    """LANES vectors, entry i of each in vector i."""
    v = [shuffle(v[i], v[i + 1], picks) for i in (0, 2, 4, 6) for picks in _ONES]
    v = [shuffle(v[i], v[i + 2], picks) for i in (0, 1, 4, 5) for picks in _TWOS]
    return [shuffle(v[i], v[i + 4], picks) for picks in _FOURS for i in range(4)]


def _place(samples: Any, low: Any, per_volt: Any, cells: Any) -> tuple[Any, Any]:
    """Number of the cell that a sample is in, and where in it; beyond the ends, or NaN, an end."""
    x = (samples - low) * per_volt
    x = where(x > 0.0, x, 0.0)
    x = where(x < cells, x, cells)
    whole = floor(x)
    return whole, x - whole


def _between(values: Any, cell: Any, inside: Any, stride: Any, column: Any) -> Any:
    at = cell * stride + column
    first = lanes(values, at)
    return fma(inside, lanes(values, at + stride) - first, first)


@unrolled
def _row(
    values: Any, stride: Any, low: Any, per_volt: Any, cells: Any, sample: Any, state: Any,
    target: Any, row: Any, column: Any,
) -> None:  # fmt: skip
    """Write log-probabilities of LANES states from `state` on, for one sample."""
    whole, inside = _place(sample, low, per_volt, cells)
    put_lanes(target, _between(values, index(whole), inside, stride, state), row, column)


@unrolled
def _square(
    values: Any, stride: Any, low: Any, per_volt: Any, cells: Any, samples: Any, t: Any, half: Any,
    blocks: Any, metrics: Any,
) -> None:  # fmt: skip
    """Write metrics of `blocks` times LANES states, for LANES samples."""
    whole, inside = _place(lanes(samples, t, half), low, per_volt, cells)
    places = [(index(item(whole, k)), item(inside, k)) for k in range(LANES)]

    def step(block: Any, nothing: Any) -> Any:
        state = block * LANES
        rows = [_between(values, cell, part, stride, state) for cell, part in places]
        for s, metric in enumerate(transpose(rows)):
            put_lanes(metrics, -metric, t, state + s, half)
        return nothing

    repeat(blocks, step, ())


@unrolled
def _corner(
    values: Any, stride: Any, low: Any, per_volt: Any, cells: Any, samples: Any, t: Any, half: Any,
    state: Any, spare: Any,
) -> None:  # fmt: skip
    """Write to spare the metrics of LANES states from `state` on, for LANES samples."""
    whole, inside = _place(lanes(samples, t, half), low, per_volt, cells)
    rows = [
        _between(values, index(item(whole, k)), item(inside, k), stride, state)
        for k in range(LANES)
    ]
    for s, metric in enumerate(transpose(rows)):
        put_lanes(spare, -metric, s)


@njit(cache=True, nogil=True)
def log_probabilities(
    values: Array, low: float, per_volt: float, cells: float,
    samples: Array, spare: Array, outputs: Array,
) -> None:  # fmt: skip
    """Write log-probabilities of samples; of one beyond the table, those at its end.

    values    (cells + 2, stride)  at low + i / per_volt, the last row twice
    samples   (time,)
    spare     (LANES, LANES)       scratch
    outputs   (time, n_states)     written
    """
    stride, flat, n = values.shape[1], values.reshape(-1), outputs.shape[1]
    whole = n // LANES * LANES
    for t in range(samples.size):
        y = samples[t]
        for state in range(0, whole, LANES):
            _row(flat, stride, low, per_volt, cells, y, state, outputs, t, state)
        if whole < n:
            _row(flat, stride, low, per_volt, cells, y, whole, spare, 0, 0)
            for state in range(whole, n):
                outputs[t, state] = spare[0, state - whole]


@njit(cache=True, nogil=True)
def branch_metrics(
    values: Array, low: float, per_volt: float, cells: float,
    samples: Array, spare: Array, metrics: Array,
) -> None:  # fmt: skip
    """Write negative log-probabilities of 2 LANES sequences side by side.

    values    as in `log_probabilities`
    samples   (time, 2, LANES)
    spare     (LANES, LANES)             scratch
    metrics   (time, n_states, 2, LANES) written
    """
    stride, flat, n = values.shape[1], values.reshape(-1), metrics.shape[1]
    blocks, whole = n // LANES, n // LANES * LANES
    for t in range(samples.shape[0]):
        for half in range(2):
            _square(flat, stride, low, per_volt, cells, samples, t, half, blocks, metrics)
            if whole < n:
                _corner(flat, stride, low, per_volt, cells, samples, t, half, whole, spare)
                for state in range(whole, n):
                    for k in range(LANES):
                        metrics[t, state, half, k] = spare[state - whole, k]


@njit(cache=True, nogil=True)
def count_beyond(samples: Array, low: float, per_volt: float, cells: float) -> int:
    """How many of the samples (n,) are beyond the ends of the table, or NaN."""
    count = 0
    for i in range(samples.size):
        x = (samples[i] - low) * per_volt
        count += not ((x >= 0.0) & (x <= cells))
    return count


@njit(cache=True, nogil=True)
def _half_way_error(values: Array, cells: int, middle: Array) -> float:
    """The greatest error half-way between rows of values, where the truth `middle` is probable.

    Infinite where it is not finite.
    """
    worst = 0.0
    for i in range(cells):
        for s in range(middle.shape[1]):
            if not middle[i, s] <= _PROBABLE:
                error = abs(0.5 * (values[i, s] + values[i + 1, s]) - middle[i, s])
                if math.isnan(error):
                    return math.inf
                worst = max(worst, error)
    return worst


@njit(cache=True, nogil=True)
def _interleave(values: Array, cells: int, middle: Array) -> None:
    """Put rows of `middle` between the rows of values, whose count becomes 2 cells + 1."""
    n = middle.shape[1]
    for i in range(cells, 0, -1):
        for s in range(n):
            values[2 * i, s] = values[i, s]
            values[2 * i - 1, s] = middle[i - 1, s]


@njit(cache=True, nogil=True)
def _second_layer(
    knots: Array, at_left: Array, changes: Array, inputs: Array, hidden: Array
) -> None:
    """Write relu of the second layer's sums, which between two knots are linear in the input.

    knots    (k,)               rising
    at_left  (2, n_hidden)      slopes and constants left of all knots
    changes  (k, 2, n_hidden)   what each knot adds to them
    inputs   (count, 1)         any; fast where they rise
    hidden   (count, n_hidden)  written
    """
    n = hidden.shape[1]
    line = at_left.copy()
    passed = 0
    for i in range(inputs.shape[0]):
        x = inputs[i, 0]
        if passed and x < knots[passed - 1]:
            line[:] = at_left
            passed = 0
        while passed < knots.size and knots[passed] <= x:
            for j in range(n):
                line[0, j] += changes[passed, 0, j]
                line[1, j] += changes[passed, 1, j]
            passed += 1
        for j in range(n):
            value = line[0, j] * x + line[1, j]
            hidden[i, j] = 0.0 if value < 0.0 else value


class Rising(NamedTuple):
    """A network of one input and RELU layers, made for inputs that rise, as those of a table.

    A unit of the first layer bends at one input, its knot, and not elsewhere. So the sums of the
    second layer are lines between knots, and cost a product each, not one for each unit.
    """

    knots: Array
    at_left: Array
    changes: Array
    rest: Network
    hidden: Array

    @classmethod
    def of(cls, layers: Sequence[tuple[Array, Array]], normalise: bool = True) -> Rising:
        """From (weight, bias) of three layers or more, as torch's Linear holds them."""
        if len(layers) < 3 or layers[0][0].shape[1] != 1:
            raise ValueError("a rising network has one input and at least three layers")
        if not all(np.isfinite(part).all() for layer in layers for part in layer):
            raise ValueError("a rising network has weights that are finite; retrain it")
        (slope, constant), (weight, bias) = layers[0], layers[1]
        slope, constant = slope[:, 0].astype(np.float64), constant.astype(np.float64)
        lines = (
            np.stack([slope, constant], axis=1)[:, :, None] * weight.T.astype(np.float64)[:, None]
        )
        flat = slope == 0.0
        on_left = (slope < 0.0) | (flat & (constant > 0.0))
        at_left = lines[on_left].sum(axis=0)
        at_left[1] += bias
        knots = -constant[~flat] / slope[~flat]
        order = np.argsort(knots)
        changes = (lines * np.sign(slope)[:, None, None])[~flat][order]
        rest = Network.of(layers[2:], [RELU] * (len(layers) - 3) + [LINEAR], normalise)
        hidden = np.empty((_TILE, at_left.shape[1]), np.float32)
        return cls(knots[order], at_left, changes, rest, hidden)

    def __call__(self, inputs: Array, outputs: Array) -> None:
        """Write the outputs (count, n_out) of inputs (count, 1)."""
        for at in range(0, len(inputs), _TILE):
            part = inputs[at : at + _TILE]
            hidden = self.hidden[: len(part)]
            _second_layer(self.knots, self.at_left, self.changes, part, hidden)
            self.rest(hidden, outputs[at : at + _TILE])


class Table(NamedTuple):
    """A table and the function behind it; a changed function has a table of its own.

    values    (cells + 2, stride)  log-probabilities at low + i (high - low) / cells
    error     in nats: no log-probability above log(1e-6) is further from the function's, inside
              [low, high] and but for cells where the function bends both ways
    """

    function: Callable[[Array, Array], None]
    n_states: int
    low: float
    high: float
    values: Array
    error: float
    spare: Array

    @classmethod
    def of(
        cls,
        function: Callable[[Array, Array], None],
        n_states: int,
        low: float,
        high: float,
        error: float = 1e-2,
        most: int = 4096,
    ) -> Table:
        """Tabulate, halving the step until the error is met or there are `most` cells.

        function  writes log-probabilities (count, n_states) of inputs (count, 1), float32; it is
                  also asked for samples outside [low, high]
        """
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"a table from {low} to {high}; two finite numbers that rise are due")
        if most < _FEWEST:
            raise ValueError(f"a table of at most {most} cells; at least {_FEWEST} are due")
        most = _FEWEST << int(math.log2(most // _FEWEST))
        values = aligned(most + 2, padded(n_states))
        cells, found = _FEWEST, np.empty((most + 1, n_states), np.float32)
        function(_points(low, high, cells + 1, 0.0), found[: cells + 1])
        values[: cells + 1, :n_states] = found[: cells + 1]
        while True:
            function(_points(low, high, cells + 1, 0.5)[:-1], found[:cells])
            worst = 2.0 * _half_way_error(values, cells, found[:cells])
            if worst <= error or cells == most:
                break
            _interleave(values, cells, found[:cells])
            cells *= 2
        values[cells + 1] = values[cells]
        return cls(function, n_states, low, high, values[: cells + 2], worst, aligned(LANES, LANES))

    def log_probabilities(self, samples: Array, outputs: Array) -> int:
        """Write those of each sample; returns for how many the function was asked.

        samples  (time,)            float32
        outputs  (time, n_states)   written: float32
        """
        log_probabilities(*self.scale, samples, self.spare, outputs)
        places, found = self.beyond(samples)
        outputs[places] = found
        return places.size

    def metrics(self, samples: Array, metrics: Array) -> int:
        """Write negative log-probabilities of 2 LANES sequences side by side; returns as above.

        samples  (time, 2, LANES)            float32
        metrics  (time, n_states, 2, LANES)  written: float32
        """
        branch_metrics(*self.scale, samples, self.spare, metrics)
        places, found = self.beyond(samples.reshape(-1))
        if places.size:
            t, half, lane = np.unravel_index(places, samples.shape)
            metrics[t, :, half, lane] = -found
        return places.size

    @property
    def scale(self) -> tuple[Array, Any, Any, Any]:
        """What the kernels take: values, low, per_volt, cells."""
        cells = len(self.values) - 2
        per_volt = cells / (self.high - self.low)
        return self.values, np.float32(self.low), np.float32(per_volt), np.float32(cells)

    def beyond(self, samples: Array) -> tuple[Array, Array]:
        """Places of the samples (n,) that are outside, or NaN, rising, and what the function says.

        Returns (k,) int64 and log-probabilities (k, n_states) float32.
        """
        _, low, per_volt, cells = self.scale
        places = np.empty(0, np.int64)
        if count_beyond(samples, low, per_volt, cells):
            x = (samples - low) * per_volt
            places = np.flatnonzero(~((x >= 0.0) & (x <= cells)))
        found = np.empty((places.size, self.n_states), np.float32)
        if places.size:
            self.function(samples[places, None], found)
        return places, found


def _points(low: float, high: float, count: int, shift: float) -> Array:
    """Inputs of a network, low + (i + shift) (high - low) / (count - 1) for i < count."""
    points = low + (np.arange(count) + shift) * ((high - low) / (count - 1))
    return points.astype(np.float32)[:, None]
