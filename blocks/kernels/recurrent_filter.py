"""Recurrent networks that track: what they are handed, and what becomes of what they say.

The baselines of Revach et al., "KalmanNet", IEEE Trans. Signal Processing 2022, IV. A network of a
dense layer, a GRU and two dense layers,

    L1   relu    inputs -> wide
    GRU  gru     wide   -> units
    L2   relu    units  -> wide
    L3   linear  wide   -> m

sees one of three things and tells the updated state, or what it is more than was predicted:

    OBSERVATIONS  the observation                              the state: no model at all
    PREDICTIONS   the observation, and the predicted state     the correction
    DIFFERENCES   the innovation, and the correction before    the correction

Inputs and outputs are shifted and scaled by numbers that belong to the network. Before the first
step the correction before is 0.

An observation that is NaN is missing: its row counts as seen where it was predicted, and a step
without any observation predicts only, while the network waits. Angles are compared around the
circle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from blocks.kernels.activations import LINEAR, RELU
from blocks.kernels.caching import njit
from blocks.kernels.dense import aligned, join, layer, pack, padded
from blocks.kernels.indirect import call_advance, call_observe
from blocks.kernels.kalman import Track, expect
from blocks.kernels.recurrent import gru_cell, pack_gru
from blocks.kernels.state_space import StateSpace, wrapped

Array = np.ndarray[Any, Any]

OBSERVATIONS, PREDICTIONS, DIFFERENCES = SEES = ("observations", "predictions", "differences")


def inputs_of(sees: str, m: int, n: int) -> int:
    """How many numbers a network is handed."""
    return n if sees == OBSERVATIONS else n + m


def shapes(sees: str, m: int, n: int, wide: int, units: int) -> dict[str, tuple[int, ...]]:
    """All arrays of a network with m states and n observations, by their names."""
    inputs = inputs_of(sees, m, n)
    return {
        "L1.weight": (wide, inputs), "L1.bias": (wide,),
        "GRU.weight_ih": (3 * units, wide), "GRU.weight_hh": (3 * units, units),
        "GRU.bias_ih": (3 * units,), "GRU.bias_hh": (3 * units,),
        "L2.weight": (wide, units), "L2.bias": (wide,),
        "L3.weight": (m, wide), "L3.bias": (m,),
        "input_shift": (inputs,), "input_scale": (inputs,),
        "output_shift": (m,), "output_scale": (m,),
    }  # fmt: skip


class Network(NamedTuple):
    """Weights and sizes of a network.

    sees          place in SEES
    input_shift, input_scale    (inputs,) float64  what is subtracted, then divided by
    output_shift, output_scale  (m,) float64       what is added, after multiplying
    """

    weights: Array
    places: Array
    sees: int
    m: int
    n: int
    wide: int
    units: int
    input_shift: Array
    input_scale: Array
    output_shift: Array
    output_scale: Array

    @classmethod
    def of(cls, hyper: Mapping[str, Any], arrays: Mapping[str, Array]) -> Network:
        """From arrays as torch's modules hold them.

        hyper  sees, m, n, wide, units

        Raises ValueError where they do not fit together, KeyError for what is not there.
        """
        sees = hyper["sees"]
        if sees not in SEES:
            raise ValueError(f"sees = {sees!r}, but there are {', '.join(SEES)}")
        m, n, wide, units = (int(hyper[name]) for name in ("m", "n", "wide", "units"))
        for name, shape in shapes(sees, m, n, wide, units).items():
            if arrays[name].shape != shape:
                raise ValueError(f"{name} is {arrays[name].shape}, but {shape} is due")
        if not (arrays["input_scale"] > 0.0).all():
            raise ValueError(f"input_scale = {arrays['input_scale']}; expected numbers above 0")
        gru = (arrays[f"GRU.{k}"] for k in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        dense = [pack(arrays[f"L{k}.weight"], arrays[f"L{k}.bias"]) for k in (1, 2, 3)]
        weights, places = join([dense[0], pack_gru(*gru), *dense[1:]])
        scales = ("input_shift", "input_scale", "output_shift", "output_scale")
        given = (np.array(arrays[name], np.float64) for name in scales)
        return cls(weights, places, SEES.index(sees), m, n, wide, units, *given)


class Tracks(NamedTuple):
    """Where trackers stand between two steps, a row each.

    mean    (tracks, m) float64  last updated states
    update  (tracks, m) float64  what they are more than was predicted
    hidden  (tracks, width) float32  state of the GRU
    """

    mean: Array
    update: Array
    hidden: Array


class Trackers:
    """A network that tracks, with the scratch that it needs: one thread at a time."""

    def __init__(self, network: Network, model: StateSpace) -> None:
        if (network.m, network.n) != (model.size, model.rows):
            raise ValueError(
                f"a network for {network.m} states and {network.n} observations, but the model "
                f"has {model.size} and {model.rows}"
            )
        self.network, self.model = network, model
        m, n, wide, units = network.m, network.n, network.wide, network.units
        self._scratch = (
            aligned(1, padded(m + n)), aligned(1, 3 * padded(wide) + padded(units) + padded(m)),
            np.empty(m), np.empty(m), np.empty(n), np.empty(n),
        )  # fmt: skip

    def start(self, tracks: int) -> Tracks:
        """Trackers that stand at the start of the model."""
        mean = np.tile(self.model.initial, (tracks, 1))
        return Tracks(mean, np.zeros_like(mean), aligned(tracks, padded(self.network.units)))

    def hidden_of(self, hidden: Array) -> Array | None:
        """The state of another network's GRU to go on with; None where it does not fit."""
        own = self.start(len(hidden)).hidden
        if own.shape != hidden.shape:
            return None
        own[:] = hidden
        return own

    def run(self, observations: Array, intervals: Array, tracks: Tracks, out: Track) -> Array:
        """Track; returns how many steps of each track went well, (tracks,) int64.

        observations  (tracks, time, n) float64
        intervals     (tracks, time) float64  [s]
        tracks        updated
        out           (tracks, time)  estimates and innovations are written, the rest is NaN

        Raises ValueError for arrays of other shapes or dtypes.
        """
        model, network = self.model, self.network
        count, time, n = observations.shape
        m, shape = model.size, (count, time)
        expect(
            np.float64, observations=(observations, (*shape, n)), intervals=(intervals, shape),
            estimates=(out.estimates, (*shape, m)), innovations=(out.innovations, (*shape, n)),
            mean=(tracks.mean, (count, m)), update=(tracks.update, (count, m)),
        )  # fmt: skip
        expect(np.float32, hidden=(tracks.hidden, (count, padded(network.units))))
        for array in (out.covariances, out.nis, out.det):
            array[:] = np.nan
        done = np.full(count, time, np.int64)
        _run(
            *network, model.advance, model.parameters, model.observe, model.observe_parameters,
            model.angles, observations, intervals, *tracks, *self._scratch, out.estimates,
            out.innovations, done,
        )  # fmt: skip
        return done


@njit(cache=True, nogil=True)
def _run(
    weights: Array, places: Array, sees: int, m: int, n: int, wide: int, units: int,
    input_shift: Array, input_scale: Array, output_shift: Array, output_scale: Array,
    advance: Any, parameters: Array, observe: Any, observe_parameters: Array, angles: Array,
    observations: Array, intervals: Array, mean: Array, update: Array, hidden: Array,
    inputs: Array, y: Array, before: Array, after: Array, foretold: Array, seen: Array,
    estimates: Array, innovations: Array, done: Array,
) -> None:  # fmt: skip
    gru = padded(wide)
    second = gru + padded(units)
    third = second + padded(wide)
    count, steps = intervals.shape
    for track in range(count):
        state = hidden[track : track + 1]
        for t in range(steps):
            for i in range(m):
                before[i] = mean[track, i]
            call_advance(advance, before, intervals[track, t], parameters, after)
            call_observe(observe, after, observe_parameters, foretold)
            came = 0
            for j in range(n):
                value = observations[track, t, j]
                seen[j] = foretold[j] if np.isnan(value) else value
                came += not np.isnan(value)
                off = value - foretold[j]
                innovations[track, t, j] = wrapped(off) if angles[j] else off
            if came:
                for j in range(n):
                    if sees == 2:
                        off = seen[j] - foretold[j]
                        seen[j] = wrapped(off) if angles[j] else off
                    inputs[0, j] = (seen[j] - input_shift[j]) / input_scale[j]
                if sees:
                    for i in range(m):
                        value = after[i] if sees == 1 else update[track, i]
                        inputs[0, n + i] = (value - input_shift[n + i]) / input_scale[n + i]
                size = n + m if sees else n
                layer(weights, places[0], size, wide, RELU, inputs, 0, y, 0)
                gru_cell(weights, places[1], wide, units, y, 0, state, 0, y, gru)
                for i in range(units):
                    state[0, i] = y[0, gru + i]
                layer(weights, places[2], units, wide, RELU, y, gru, y, second)
                layer(weights, places[3], wide, m, LINEAR, y, second, y, third)
            total = 0.0
            for i in range(m):
                now = after[i]
                if came:
                    told = output_shift[i] + output_scale[i] * y[0, third + i]
                    now = told + (after[i] if sees else 0.0)
                update[track, i] = now - after[i]
                mean[track, i] = estimates[track, t, i] = now
                total += now
            if not np.isfinite(total) and done[track] == steps:
                done[track] = t
