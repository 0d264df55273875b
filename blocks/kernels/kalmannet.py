"""The gain networks of KalmanNet: from features of a step to the Kalman gain.

Revach et al., "KalmanNet: Neural Network Aided Kalman Filtering for Partially Known Dynamics",
IEEE Trans. Signal Processing 2022, with the layers of the authors' code. Architecture #2, Fig. 4:
GRUs in the place of Q, Sigma and S, fully connected layers between. With m states and n
observations:

    FC5  relu  forward update difference     -> in_mult m
    Q    gru   FC5                           -> m^2
    FC6  relu  forward evolution difference  -> in_mult m
    Sigma gru  Q, FC6                        -> m^2
    FC1  relu  Sigma                         -> n^2
    FC7  relu  both observation differences  -> 2 in_mult n
    S    gru   FC1, FC7                      -> n^2
    FC2  relu  Sigma, S                      -> out_mult (m^2 + n^2)
         linear                              -> m n, the gain
    FC3  relu  S, gain                       -> m^2
    FC4  relu  Sigma, FC3                    -> m^2, the state of Sigma for the next step

Architecture #1, Fig. 3: one GRU for all of the second-order moments.

    L1   relu  all features                  -> in_mult (m + n)
    GRU  gru   L1                            -> units (m^2 + n^2)
    L2   relu  GRU                           -> out_mult m n
    L3   linear  L2                          -> m n, the gain

blocks/models/kalmannet.py has the same as torch modules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from blocks.kernels.activations import LINEAR, RELU
from blocks.kernels.caching import njit
from blocks.kernels.dense import aligned, join, pack, padded
from blocks.kernels.dense_lanes import copy, gru_cell, layer, put_rows
from blocks.kernels.recurrent import pack_gru

Array = np.ndarray[Any, Any]


def layers(m: int, n: int, in_mult: int = 5, out_mult: int = 40) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each layer, in the order in which they are evaluated."""
    mm, nn = m * m, n * n
    middle = out_mult * (mm + nn)
    return {
        "FC5": (m, in_mult * m),
        "GRU_Q": (in_mult * m, mm),
        "FC6": (m, in_mult * m),
        "GRU_Sigma": (mm + in_mult * m, mm),
        "FC1": (mm, nn),
        "FC7": (2 * n, 2 * in_mult * n),
        "GRU_S": (nn + 2 * in_mult * n, nn),
        "FC2.0": (mm + nn, middle),
        "FC2.2": (middle, m * n),
        "FC3": (nn + m * n, mm),
        "FC4": (2 * mm, mm),
    }


@njit(cache=True, nogil=True)
def _columns(m: int, n: int, in_mult: int, out_mult: int) -> tuple[int, ...]:
    """Where the inputs of GRU_Q, GRU_Sigma, GRU_S, FC2, FC2.2, FC3 and FC4 begin, and the end.

    Layers write whole vectors: what the first part of an input overhangs, the second overwrites.
    """
    mm, nn = m * m, n * n
    sigma = padded(in_mult * m)
    s = sigma + mm + padded(max(mm, in_mult * m))
    two = s + nn + padded(max(nn, 2 * in_mult * n))
    middle = two + mm + padded(max(mm, nn))
    three = middle + padded(out_mult * (mm + nn))
    four = three + nn + padded(m * n)
    return 0, sigma, s, two, middle, three, four, four + mm + padded(mm)


@njit(cache=True, nogil=True)
def gain(
    weights: Array, places: Array, m: int, n: int, in_mult: int, out_mult: int,
    features: Array, hidden: Array, scratch: Array, gains: Array,
) -> None:  # fmt: skip
    """Write the Kalman gains of one step, of a filter or of WIDTH side by side.

    Features, hidden states and scratch are one row or a tile, as in kernels/dense_lanes.py.

    weights   (size,)    of `dense.join`, in the order of `layers`
    places    (11,)      where each of them begins
    features  difference of observations (n), innovation (n), differences of forward evolution (m)
              and forward update (m), each normalised
    hidden    updated: states of Q, Sigma and S, as in a row of `Gain.start`
    scratch   of `Gain.columns` numbers
    gains     (1 or WIDTH, m n)  written
    """
    mm, nn, mn, wide, tall = m * m, n * n, m * n, in_mult * m, 2 * in_mult * n
    middle = out_mult * (mm + nn)
    in_q, in_sigma, in_s, in_2, in_out, in_3, in_4, _ = _columns(m, n, in_mult, out_mult)
    q, sigma, s = 0, padded(mm), 2 * padded(mm)
    y = scratch
    layer(weights, places[0], m, wide, RELU, features, 2 * n + m, y, in_q)
    gru_cell(weights, places[1], wide, mm, y, in_q, hidden, q, y, in_sigma)
    copy(y, in_sigma, mm, hidden, q)
    layer(weights, places[2], m, wide, RELU, features, 2 * n, y, in_sigma + mm)
    gru_cell(weights, places[3], mm + wide, mm, y, in_sigma, hidden, sigma, y, in_2)
    copy(y, in_2, mm, y, in_4)
    layer(weights, places[4], mm, nn, RELU, y, in_2, y, in_s)
    layer(weights, places[5], 2 * n, tall, RELU, features, 0, y, in_s + nn)
    gru_cell(weights, places[6], nn + tall, nn, y, in_s, hidden, s, y, in_2 + mm)
    copy(y, in_2 + mm, nn, hidden, s)
    copy(y, in_2 + mm, nn, y, in_3)
    layer(weights, places[7], mm + nn, middle, RELU, y, in_2, y, in_out)
    layer(weights, places[8], middle, mn, LINEAR, y, in_out, y, in_3 + nn)
    layer(weights, places[9], nn + mn, mm, RELU, y, in_3, y, in_4 + mm)
    layer(weights, places[10], 2 * mm, mm, RELU, y, in_4, hidden, sigma)
    put_rows(y, in_3 + nn, mn, gains, 0)


@njit(cache=True, nogil=True)
def branch(
    weights: Array, places: Array, first: int, n_in: int, wide: int, units: int, cells: int,
    middle: int, n_out: int, x: Array, x0: int, hidden: Array, h0: int, y: Array,
) -> int:  # fmt: skip
    """L1 (relu), GRUs one after the other, L2 (relu), L3 (linear): returns their place in y.

    weights, places   of `dense.join`; the first of its layers is number `first`
    wide, units, middle, n_out   outputs of L1, of each of so many `cells`, of L2 and of L3
    x                 n_in inputs from number x0 on; a row or a tile, as all that follow
    hidden            updated: padded(units) numbers for each cell, from h0 on
    y                 `branch_width` numbers are written
    """
    layer(weights, places[first], n_in, wide, RELU, x, x0, y, 0)
    source, size, at = 0, wide, padded(wide)
    for cell in range(cells):
        state = h0 + cell * padded(units)
        gru_cell(
            weights, places[first + 1 + cell], size, units, y, source, hidden, state, y, at
        )  # fmt: skip
        copy(y, at, units, hidden, state)
        source, size, at = at, units, at + padded(units)
    second, last = first + 1 + cells, at + padded(middle)
    layer(weights, places[second], units, middle, RELU, y, source, y, at)
    layer(weights, places[second + 1], middle, n_out, LINEAR, y, at, y, last)
    return int(last)


def branch_layers(
    n_in: int, wide: int, units: int, cells: int, middle: int, n_out: int, prefix: str
) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of the layers of a `branch`, in their order."""
    grus = {f"{prefix}GRU{k + 1}": (units if k else wide, units) for k in range(cells)}
    return {
        f"{prefix}L1": (n_in, wide), **grus, f"{prefix}L2": (units, middle),
        f"{prefix}L3": (middle, n_out),
    }  # fmt: skip


def branch_width(wide: int, units: int, cells: int, middle: int, n_out: int) -> int:
    """Numbers that a `branch` writes."""
    return int(padded(wide) + cells * padded(units) + padded(middle) + padded(n_out))


@njit(cache=True, nogil=True)
def single_gain(
    weights: Array, places: Array, m: int, n: int, in_mult: int, out_mult: int, units: int,
    features: Array, hidden: Array, scratch: Array, gains: Array,
) -> None:  # fmt: skip
    """As `gain`, of architecture #1: weights in the order of `single_layers`."""
    mn = m * n
    at = branch(
        weights, places, 0, 2 * (m + n), in_mult * (m + n), units * (m * m + n * n), 1,
        out_mult * mn, mn, features, 0, hidden, 0, scratch,
    )  # fmt: skip
    put_rows(scratch, at, mn, gains, 0)


def single_layers(
    m: int, n: int, in_mult: int = 80, out_mult: int = 4, units: int = 10
) -> dict[str, tuple[int, int]]:
    """Those of architecture #1."""
    wide, moments, middle = in_mult * (m + n), units * (m * m + n * n), out_mult * m * n
    return {
        "L1": (2 * (m + n), wide), "GRU": (wide, moments), "L2": (moments, middle),
        "L3": (middle, m * n),
    }  # fmt: skip


NO_SCALES: Array = np.empty(0)


class Gain(NamedTuple):
    """Weights and sizes of a gain network: what `gain` takes first.

    A changed network is a new one, made beside it; hidden states and scratch fit it too.

    scales  (m + n,)  usual sizes of states and observations, for kernels/kalmannet_filter.py; or
            none
    """

    weights: Array
    places: Array
    m: int
    n: int
    in_mult: int
    out_mult: int
    scales: Array = NO_SCALES

    @classmethod
    def of(
        cls,
        arrays: Mapping[str, Sequence[Array]],
        m: int,
        n: int,
        in_mult: int = 5,
        out_mult: int = 40,
    ) -> Gain:
        """From the arrays of each of `layers`, as torch's modules hold them.

        arrays  (weight, bias) of a dense layer, (weight_ih, weight_hh, bias_ih, bias_hh) of a GRU
        """
        sizes = f"in_mult={in_mult} and out_mult={out_mult}"
        packed = packed_layers(arrays, layers(m, n, in_mult, out_mult), m, n, sizes)
        return cls(*packed, m, n, in_mult, out_mult)

    def start(self, rows: int, Q: Array, Sigma: Array, S: Array) -> Array:
        """Hidden states before the first step, the same in each row: the flattened priors."""
        mm, nn = self.m**2, self.n**2
        hidden = aligned(rows, 2 * padded(mm) + padded(nn))
        for prior, at in ((Q, 0), (Sigma, padded(mm)), (S, 2 * padded(mm))):
            hidden[:, at : at + prior.size] = prior.ravel()
        return hidden

    def columns(self) -> int:
        """Numbers that `gain` writes in between."""
        return int(_columns(self.m, self.n, self.in_mult, self.out_mult)[-1])


class SingleGain(NamedTuple):
    """Weights and sizes of architecture #1: what `single_gain` takes first."""

    weights: Array
    places: Array
    m: int
    n: int
    in_mult: int
    out_mult: int
    units: int
    scales: Array = NO_SCALES

    @classmethod
    def of(
        cls,
        arrays: Mapping[str, Sequence[Array]],
        m: int,
        n: int,
        in_mult: int = 80,
        out_mult: int = 4,
        units: int = 10,
    ) -> SingleGain:
        """From the arrays of each of `single_layers`, as torch's modules hold them."""
        sizes = f"in_mult={in_mult}, out_mult={out_mult} and units={units}"
        packed = packed_layers(arrays, single_layers(m, n, in_mult, out_mult, units), m, n, sizes)
        return cls(*packed, m, n, in_mult, out_mult, units)

    def start(self, rows: int) -> Array:
        """Hidden states before the first step: zeros."""
        return aligned(rows, padded(self.units * (self.m**2 + self.n**2)))

    def columns(self) -> int:
        """Numbers that `single_gain` writes in between."""
        sizes = single_layers(self.m, self.n, self.in_mult, self.out_mult, self.units).values()
        return sum(padded(n_out) for _, n_out in sizes)


def packed_layers(
    arrays: Mapping[str, Sequence[Array]], wanted: Mapping[str, tuple[int, int]], m: int, n: int,
    sizes: str,
) -> tuple[Array, Array]:  # fmt: skip
    """The numbers of all layers, and where each begins; ValueError for one that does not fit."""
    parts = []
    for name, (n_in, n_out) in wanted.items():
        if name not in arrays:
            raise ValueError(f"no arrays of {name}; expected {', '.join(wanted)}")
        recurrent = "GRU" in name
        rows = 3 * n_out if recurrent else n_out
        if arrays[name][0].shape != (rows, n_in):
            raise ValueError(
                f"{name}: weight {arrays[name][0].shape}, but ({rows}, {n_in}) is due with "
                f"{m} states and {n} observations, {sizes}"
            )
        parts.append((pack_gru if recurrent else pack)(*arrays[name]))
    return join(parts)


def by_layer(arrays: Mapping[str, Array]) -> dict[str, list[Array]]:
    """Weights as torch names them, "FC5.weight" and so on, by layer and in the order of its parts.

    What belongs to no layer is left out; ValueError where parts are missing.
    """
    parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight", "bias")
    found: dict[str, dict[str, Array]] = {}
    for name, array in arrays.items():
        where, _, part = name.rpartition(".")
        if part in parts:
            found.setdefault(where, {})[part] = array
    ordered = {
        where: [own[part] for part in parts if part in own] for where, own in found.items()
    }  # fmt: skip
    for where, own in ordered.items():
        wanted = 4 if "GRU" in where else 2
        if len(own) != wanted:
            raise ValueError(f"{where} has {len(own)} arrays; expected {wanted}")
    return ordered


def network_of(hyper: Mapping[str, Any], arrays: Mapping[str, Array]) -> Gain | SingleGain:
    """The network of weights as torch names them.

    hyper   architecture, m, n and the sizes that differ from their defaults, and scales
    arrays  float32

    Raises ValueError where they do not fit together.
    """
    ordered = by_layer(arrays)
    sizes = sizes_of(hyper)
    scales = np.array(hyper.get("scales", ()), np.float64)
    if scales.size and (
        scales.shape != (sizes["m"] + sizes["n"],) or not (np.isfinite(scales) & (scales > 0)).all()
    ):
        raise ValueError(
            f"scales = {scales.tolist()}, but there must be {sizes['m']} + {sizes['n']} above 0"
        )
    if hyper["architecture"] == 1:
        return SingleGain.of(ordered, **sizes)._replace(scales=scales)
    if hyper["architecture"] == 2:
        return Gain.of(ordered, **sizes)._replace(scales=scales)
    raise ValueError(f"architecture = {hyper['architecture']!r}, but there are 1 and 2")


def sizes_of(hyper: Mapping[str, Any]) -> dict[str, int]:
    """Those of `hyper` that are sizes of a network."""
    keys = ("m", "n", "in_mult", "out_mult", "units")
    return {key: int(hyper[key]) for key in keys if key in hyper}
