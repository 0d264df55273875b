"""RTSNet: a smoother whose gains are told by networks, over whole records.

Ni, Revach, Shlezinger, "RTSNet: Learning to Smooth in Partially Known State-Space Models", IEEE
Trans. Signal Processing 2024 (arXiv 2110.04717). A pass goes through the record twice. On the way
there it is a KalmanNet (kernels/kalmannet_filter.py). On the way back, from the last step on,

    smoothed_t = updated_t + G_t (smoothed_t+1 - predicted_t+1),  predicted_t+1 = f(updated_t),

where a second network of the same layers, for as many observations as there are states, tells the
gain G_t. Every feature is divided by its length:

    F1  smoothed_t+1 less predicted_t+1
    F2  smoothed_t+1 less updated_t+1
    F3  smoothed_t+2 less smoothed_t+1, 0 where there is none
    F4  updated_t+1 less predicted_t+1, what the filter learned there; not in the paper

At the last step smoothed is updated. More passes follow in the same way, unfolded: each sees the
states that the one before has smoothed in place of observations. So may the first, of the extended
RTS smoother (kernels/smoother.py): with a gain of 1 there and 0 back a pass changes nothing, so
what it learns starts from a smoother of the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np

from blocks.kernels.caching import njit
from blocks.kernels.dense import aligned, padded
from blocks.kernels.dense_lanes import WIDTH, put_number
from blocks.kernels.indirect import address_of, call_advance
from blocks.kernels.kalman import Track, expect
from blocks.kernels.kalmannet import Gain, gain, layers, network_of
from blocks.kernels.kalmannet_filter import Filters, Tracks, put
from blocks.kernels.observations import matrix_observe, matrix_observe_linearised
from blocks.kernels.state_space import StateSpace

Array = np.ndarray[Any, Any]


def seeing_states(model: StateSpace) -> StateSpace:
    """The same motion, observed by states that another smoother found."""
    one = np.eye(model.size)
    return replace(
        model, rows=model.size, observe=address_of(matrix_observe, "observe"),
        observe_linearised=address_of(matrix_observe_linearised, "observe_linearised"),
        observe_parameters=one.ravel(), R=one, angles=np.zeros(model.size, np.bool_),
        linear_seen=True,
    )  # fmt: skip


def _shapes(m: int, n: int, in_mult: int, out_mult: int) -> dict[str, tuple[int, ...]]:
    """The shape of every array of a gain network, by torch's names."""
    found: dict[str, tuple[int, ...]] = {}
    for name, (n_in, n_out) in layers(m, n, in_mult, out_mult).items():
        if name.startswith("GRU"):
            found[f"{name}.weight_ih"], found[f"{name}.weight_hh"] = (
                (3 * n_out, n_in),
                (3 * n_out, n_out),
            )
            found[f"{name}.bias_ih"] = found[f"{name}.bias_hh"] = (3 * n_out,)
        else:
            found[f"{name}.weight"], found[f"{name}.bias"] = (n_out, n_in), (n_out,)
    return found


def joined(arrays: Mapping[str, Array], *sizes: int) -> Array:
    """All arrays of a gain network as one: a frame has not room for those of many networks.

    sizes   m, n, in_mult, out_mult
    """
    return np.concatenate([arrays[name].ravel() for name in _shapes(*sizes)])


def parted(numbers: Array, *sizes: int) -> dict[str, Array]:
    """The arrays that were joined; ValueError where they are not that many numbers."""
    shapes = _shapes(*sizes)
    counts = [math.prod(shape) for shape in shapes.values()]
    if numbers.shape != (sum(counts),):
        raise ValueError(
            f"{numbers.shape} numbers of a network, but ({sum(counts)},) are due with m, n, "
            f"in_mult, out_mult = {sizes}"
        )
    parts = np.split(numbers, np.cumsum(counts)[:-1])
    return {
        name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }


class Backward:
    """A network on the way back, with the scratch that it needs: one thread at a time."""

    def __init__(self, network: Gain, model: StateSpace) -> None:
        m = model.size
        if (network.m, network.n) != (m, m):
            raise ValueError(
                f"a network back for {network.m} states and {network.n} differences, but the "
                f"model has {m} states"
            )
        self.network, self.model = network, model
        one = np.eye(m, dtype=np.float32)
        self._first = network.start(1, one, np.zeros_like(one), one)
        sizes = padded(4 * m), self._first.size, network.columns()
        self._row = tuple(aligned(1, size) for size in sizes)
        self._tile = tuple(aligned(size * WIDTH) for size in sizes)
        self._scratch = (
            np.zeros((WIDTH, m * m), np.float32), tuple(np.empty((WIDTH, m)) for _ in range(4)),
            np.empty(m), np.empty(m),
        )  # fmt: skip

    def run(self, updated: Array, intervals: Array, *, together: bool) -> Array:
        """Smoothed states (tracks, time, m) of tracks that a filter has passed.

        updated    (tracks, time, m) float64
        intervals  (tracks, time) float64  before each step [s]
        together   whether tracks go side by side, as in Filters.run

        Raises ValueError for arrays of other shapes or dtypes.
        """
        count, time, _ = updated.shape
        shape = count, time, self.model.size
        expect(
            np.float64, updated=(updated, shape), intervals=(intervals, shape[:2])
        )  # fmt: skip
        smoothed = np.empty_like(updated)
        network, m = self.network, self.model.size
        _back(
            network.weights, network.places, m, network.in_mult, network.out_mult,
            self.model.advance, self.model.parameters, updated, intervals, self._first,
            *(self._tile if together else self._row), *self._scratch, smoothed,
        )  # fmt: skip
        return smoothed


@njit(cache=True, nogil=True)
def _back(
    weights: Array, places: Array, m: int, in_mult: int, out_mult: int, advance: Any,
    parameters: Array, updated: Array, intervals: Array, first: Array, features: Array,
    states: Array, scratch: Array, gains: Array, parts: tuple[Array, ...], before: Array,
    after: Array, smoothed: Array,
) -> None:  # fmt: skip
    count, steps = intervals.shape
    innovation, update, evolution, learned = parts
    no_scales = np.empty(0)
    width = 1 if features.ndim == 2 else WIDTH
    for begin in range(0, count, width):
        alive = min(width, count - begin)  # what stands in other lanes means nothing
        for row in range(width):
            for k in range(first.shape[1]):
                put_number(states, k, row, first[0, k])
        for t in range(steps - 1, -1, -1):
            if t < steps - 1:
                for row in range(alive):
                    track = begin + row
                    for i in range(m):
                        before[i] = updated[track, t, i]
                    call_advance(advance, before, intervals[track, t + 1], parameters, after)
                    for i in range(m):
                        ahead, there = smoothed[track, t + 1, i], updated[track, t + 1, i]
                        innovation[row, i], update[row, i] = ahead - after[i], ahead - there
                        learned[row, i] = there - after[i]
                        evolution[row, i] = 0.0
                        if t + 2 < steps:
                            evolution[row, i] = smoothed[track, t + 2, i] - ahead
                    put(innovation, row, m, no_scales, 0, features, 0, row)
                    put(update, row, m, no_scales, 0, features, m, row)
                    put(evolution, row, m, no_scales, 0, features, 2 * m, row)
                    put(learned, row, m, no_scales, 0, features, 3 * m, row)
                gain(weights, places, m, m, in_mult, out_mult, features, states, scratch, gains)
            for row in range(alive):
                track = begin + row
                for i in range(m):
                    correction = 0.0
                    if t < steps - 1:
                        for j in range(m):
                            correction += gains[row, i * m + j] * innovation[row, j]
                    smoothed[track, t, i] = updated[track, t, i] + correction


class Pass(NamedTuple):
    """The way there and back of one pass; `there` sees observations or states."""

    there: Filters
    back: Backward

    def quiet(self, steps: int) -> tuple[Array, Array]:
        """Observations (steps, n) that stay where the start foretells the first, and intervals."""
        model = self.there.model
        return np.tile(self.there.start(1).seen, (steps, 1)), np.full(steps, model.step_s)

    def filter(
        self, observations: Array, intervals: Array, tracks: Tracks, *, together: bool
    ) -> Array:
        """Updated states (tracks, time, m) of the way there; arrays as in Filters.run."""
        model = self.there.model
        out = Track.empty(observations.shape[:2], model.size, model.rows)
        self.there.run(observations, intervals, tracks, out, together=together, spread=False)
        return out.estimates

    def smooth(self, observations: Array, intervals: Array, starts: Array | None = None) -> Array:
        """Smoothed states (tracks, time, m) of whole records (tracks, time, n).

        starts   (tracks, m)  states one interval before the first observation; None: the model's
        """
        tracks = self.there.start(len(observations), starts)
        updated = self.filter(observations, intervals, tracks, together=True)
        return self.back.run(updated, intervals, together=True)


class Passes(NamedTuple):
    """What weights of an RTSNet make.

    sees     what the first of them sees: "observations", or "smoothed" states of the model's own
             extended RTS smoother
    passes   one after the other
    """

    sees: str
    passes: tuple[Pass, ...]

    @classmethod
    def of(cls, hyper: Mapping[str, Any], arrays: Mapping[str, Array], model: StateSpace) -> Passes:
        """From weights: "1.there", "1.back", "2.there" and so on, each as `joined` makes it.

        hyper   passes, sees, m, n, in_mult and out_mult
        arrays  float32

        Raises ValueError where they do not fit together or not to the model, KeyError for what is
        not there.
        """
        sees, count = hyper["sees"], int(hyper["passes"])
        if sees not in ("observations", "smoothed") or count < 1:
            raise ValueError(
                f"sees = {sees!r} and passes = {count}, but there is at least 1, the first of "
                "which sees 'observations' or 'smoothed' states"
            )
        m, *multiples = (int(hyper[name]) for name in ("m", "in_mult", "out_mult"))
        if (m, hyper["n"]) != (model.size, model.rows):
            raise ValueError(
                f"networks for {m} states and {hyper['n']} observations, but the model has "
                f"{model.size} and {model.rows}"
            )

        def network(name: str, n: int) -> Gain:
            hyper = {
                "architecture": 2,
                "m": m,
                "n": n,
                "in_mult": multiples[0],
                "out_mult": multiples[1],
            }
            return cast(Gain, network_of(hyper, parted(arrays[name], m, n, *multiples)))

        later = seeing_states(model)
        passes = []
        for number in range(1, count + 1):
            seen = later if number > 1 or sees == "smoothed" else model
            there = network(f"{number}.there", seen.rows)
            back = network(f"{number}.back", m)
            passes.append(Pass(Filters(there, seen), Backward(back, seen)))
        return cls(sees, tuple(passes))
