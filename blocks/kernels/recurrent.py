"""GRU and LSTM cells with torch's order of gates and place of biases, and runs of them; float32.

Units stand in vectors of LANES. The numbers of a vector of units lie together: the biases of its
gates, then the weights of all gates for each input, then those for each unit of the old state. As
everywhere in these kernels, whole vectors are read and written: of padded(n_hidden) columns those
after n_hidden have to be there, and mean nothing. Let those of a first state be 0, or they decay
until they are denormal, which is slow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from blocks.kernels.activations import sigmoid, tanh
from blocks.kernels.caching import njit
from blocks.kernels.dense import padded
from blocks.kernels.traced import LANES
from blocks.kernels.unrolled import fma, lanes, put_lanes, repeat, unrolled

Array = np.ndarray[Any, Any]

_TOGETHER = 3  # rows that share a load of weights: four sums of each stay in registers


def pack_gru(weight_ih: Array, weight_hh: Array, bias_ih: Array, bias_hh: Array) -> Array:
    """The numbers of a GRU cell as `gru_cell` reads them; gates r, z, n.

    weight_ih  (3 n_hidden, n_in)      as in torch's GRUCell
    weight_hh  (3 n_hidden, n_hidden)
    bias_ih    (3 n_hidden,)
    bias_hh    (3 n_hidden,)           that of n is multiplied by r together with W_hn h
    """
    _check(weight_ih, weight_hh, 3)
    (r, z, n), (r_h, z_h, n_h) = (np.split(bias, 3) for bias in (bias_ih, bias_hh))
    return _pack([r + r_h, z + z_h, n, n_h], weight_ih, weight_hh, 3)


def pack_lstm(weight_ih: Array, weight_hh: Array, bias_ih: Array, bias_hh: Array) -> Array:
    """The numbers of an LSTM cell as `lstm_cell` reads them; gates i, f, g, o.

    weight_ih  (4 n_hidden, n_in)      as in torch's LSTMCell
    weight_hh  (4 n_hidden, n_hidden)
    bias_ih    (4 n_hidden,)
    bias_hh    (4 n_hidden,)
    """
    _check(weight_ih, weight_hh, 4)
    return _pack(np.split(bias_ih + bias_hh, 4), weight_ih, weight_hh, 4)


def _check(weight_ih: Array, weight_hh: Array, gates: int) -> None:
    rows = gates * weight_hh.shape[1]
    if weight_hh.shape[0] != rows or weight_ih.shape[0] != rows:
        raise ValueError(
            f"weights {weight_ih.shape} and {weight_hh.shape} are not those of a cell with "
            f"{gates} gates; expected ({gates} n_hidden, n_in) and ({gates} n_hidden, n_hidden)"
        )


def _pack(biases: list[Array], weight_ih: Array, weight_hh: Array, gates: int) -> Array:
    n_hidden = weight_hh.shape[1]
    columns = [np.split(weight, gates) for weight in (weight_ih, weight_hh)]
    rows = [*biases]  # of one number for each unit
    for part in columns:
        rows += [gate[:, j] for j in range(part[0].shape[1]) for gate in part]
    whole = np.zeros((len(rows), padded(n_hidden)), np.float32)
    whole[:, :n_hidden] = rows
    return np.concatenate([whole[:, at : at + LANES].ravel() for at in range(0, n_hidden, LANES)])


def _products(
    gates: int, blocks: int, together: int, sums: Any, targets: tuple[int, ...],
    weights: Any, firsts: list[Any], count: Any, x: Any, row: Any, x0: Any,
) -> Any:  # fmt: skip
    """Add W x to the sums [block][row][which] named by `targets`, one for each gate."""

    def step(j: Any, sums: Any) -> Any:
        numbers = [x[row + r, x0 + j] for r in range(together)]
        found = []
        for first, block in zip(firsts, sums, strict=True):
            at = first + LANES * gates * j
            w = [lanes(weights, at + LANES * gate) for gate in range(gates)]
            rows = []
            for number, own in zip(numbers, block, strict=True):
                changed = list(own)
                for gate, target in enumerate(targets):
                    changed[target] = fma(number, w[gate], own[target])
                rows.append(tuple(changed))
            found.append(tuple(rows))
        return tuple(found)

    return repeat(count, step, sums)


def _cell(blocks: int, together: int) -> Any:
    """`blocks` vectors of units of a cell, for `together` rows."""

    def cell(
        kind: Any, weights: Any, first: Any, n_in: Any, n_hidden: Any, x: Any, row: Any, x0: Any,
        h: Any, h0: Any, memory: Any, out: Any, out0: Any, unit: Any,
    ) -> None:  # fmt: skip
        gates, (hidden_targets, finish) = len(kind), _KINDS[len(kind)]
        length = (n_in + n_hidden) * (LANES * gates) + LANES * 4
        firsts = [first + length * block for block in range(blocks)]
        sums: Any = tuple(
            (tuple(lanes(weights, at + LANES * k) for k in range(4)),) * together for at in firsts
        )
        firsts = [at + LANES * 4 for at in firsts]
        sums = _products(
            gates, blocks, together, sums, tuple(range(gates)), weights, firsts, n_in, x, row, x0
        )
        firsts = [at + n_in * (LANES * gates) for at in firsts]
        sums = _products(
            gates, blocks, together, sums, hidden_targets, weights, firsts, n_hidden, h, row, h0
        )
        for block, rows in enumerate(sums):
            for r, own in enumerate(rows):
                at = unit + LANES * block
                finish(own, h, memory, out, row + r, h0 + at, at, out0 + at)

    return unrolled(cell)


def gru_state(r: Any, z: Any, n: Any, n_h: Any, old: Any) -> Any:
    """The next state of units of a GRU, of the sums of its gates, those of n in two parts."""
    r, z = sigmoid(r), sigmoid(z)
    n = tanh(fma(r, n_h, n))
    return fma(z, old - n, n)


def _finish_gru(
    sums: Any, h: Any, memory: Any, out: Any, row: Any, at_h: Any, at_memory: Any, at: Any
) -> None:
    r, z, n, n_h = sums
    put_lanes(out, gru_state(r, z, n, n_h, lanes(h, row, at_h)), row, at)


def _finish_lstm(
    sums: Any, h: Any, memory: Any, out: Any, row: Any, at_h: Any, at_memory: Any, at: Any
) -> None:
    i, f, o = sigmoid(sums[0]), sigmoid(sums[1]), sigmoid(sums[3])
    c = fma(f, lanes(memory, row, at_memory), i * tanh(sums[2]))
    put_lanes(memory, c, row, at_memory)
    put_lanes(out, o * tanh(c), row, at)


#: By number of gates: a cell has four sums, of which the inputs add to as many as there are gates
#: and the old state to these; and what makes the new state of the sums.
_KINDS: dict[int, tuple[tuple[int, ...], Callable[..., None]]] = {
    3: ((0, 1, 3), _finish_gru),
    4: ((0, 1, 2, 3), _finish_lstm),
}
_GRU, _LSTM = (0.0,) * 3, (0.0,) * 4  # as long as the number of gates

_two, _one, _rows = _cell(2, 1), _cell(1, 1), _cell(1, _TOGETHER)


@njit(cache=True, nogil=True, inline="always")
def _next_state(
    kind: tuple[float, ...], weights: Array, first: int, n_in: int, n_hidden: int,
    x: Array, x0: int, h: Array, h0: int, memory: Array, out: Array, out0: int,
) -> None:  # fmt: skip
    """Write the next state of a cell of this kind, for each row."""
    length = LANES * (4 + len(kind) * (n_in + n_hidden))
    row = 0
    while row + _TOGETHER <= x.shape[0]:
        for unit in range(0, n_hidden, LANES):
            at = first + unit // LANES * length
            _rows(kind, weights, at, n_in, n_hidden, x, row, x0, h, h0, memory, out, out0, unit)
        row += _TOGETHER
    while row < x.shape[0]:
        for unit in range(0, n_hidden, 2 * LANES):
            at = first + unit // LANES * length
            if n_hidden - unit > LANES:
                _two(kind, weights, at, n_in, n_hidden, x, row, x0, h, h0, memory, out, out0, unit)
            else:
                _one(kind, weights, at, n_in, n_hidden, x, row, x0, h, h0, memory, out, out0, unit)
        row += 1


@njit(cache=True, nogil=True)
def gru_cell(
    weights: Array, first: int, n_in: int, n_hidden: int,
    x: Array, x0: int, h: Array, h0: int, out: Array, out0: int,
) -> None:  # fmt: skip
    """Write the next state of a GRU cell, for each row.

    r = sigmoid(W_ir x + b_ir + W_hr h + b_hr), z alike,
    n = tanh(W_in x + b_in + r (W_hn h + b_hn)), h' = (1 - z) n + z h.

    weights  (n,)           of `dense.join`; those of this cell begin at number `first`
    x        (rows, width)  inputs, from column x0 on; C-contiguous, as all arrays
    h        (rows, width)  old state, padded(n_hidden) columns from h0 on
    out      (rows, width)  written: new state, in columns from out0 on that are none of the others
    """
    _next_state(_GRU, weights, first, n_in, n_hidden, x, x0, h, h0, h, out, out0)


@njit(cache=True, nogil=True)
def lstm_cell(
    weights: Array, first: int, n_in: int, n_hidden: int,
    x: Array, x0: int, h: Array, h0: int, memory: Array, out: Array, out0: int,
) -> None:  # fmt: skip
    """Write the next state of an LSTM cell, for each row.

    c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c'), where each of i, f, g, o is
    W x + b + W_h h + b_h of its own. Arrays as in `gru_cell`, and

    memory   (rows, padded(n_hidden))  c; updated in place
    """
    _next_state(_LSTM, weights, first, n_in, n_hidden, x, x0, h, h0, memory, out, out0)


@njit(cache=True, nogil=True)
def gru(
    weights: Array, first: int, n_in: int, n_hidden: int,
    inputs: Array, state: Array, backward: bool, outputs: Array, column: int,
) -> None:  # fmt: skip
    """Run a GRU cell over records, from the last time to the first if `backward`.

    Of both directions, run the forward one first, into column 0, then the other into column
    n_hidden.

    inputs   (time, rows, width)  n_in columns are read
    state    (rows, padded(n_hidden))  updated
    outputs  (time, rows, width)  written: states after each time, padded(n_hidden) columns
    """
    time = inputs.shape[0]
    for i in range(time):
        t = time - 1 - i if backward else i
        gru_cell(weights, first, n_in, n_hidden, inputs[t], 0, state, 0, outputs[t], column)
        state[:, :n_hidden] = outputs[t, :, column : column + n_hidden]


@njit(cache=True, nogil=True)
def lstm(
    weights: Array, first: int, n_in: int, n_hidden: int,
    inputs: Array, state: Array, memory: Array, backward: bool, outputs: Array, column: int,
) -> None:  # fmt: skip
    """Run an LSTM cell over records; arrays as in `gru`, and memory (rows, padded(n_hidden))."""
    time = inputs.shape[0]
    for i in range(time):
        t = time - 1 - i if backward else i
        lstm_cell(
            weights, first, n_in, n_hidden, inputs[t], 0, state, 0, memory, outputs[t], column
        )
        state[:, :n_hidden] = outputs[t, :, column : column + n_hidden]
