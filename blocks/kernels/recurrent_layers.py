"""Recurrent layers that follow one another, and a softmax of a dense layer after them; float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from blocks.kernels import dense, recurrent

Array = np.ndarray[Any, Any]

_PACK = {"lstm": (4, recurrent.pack_lstm), "gru": (3, recurrent.pack_gru)}


class RecurrentLayers:
    """log p(class | inputs) at each time, as torch's LSTM or GRU, Linear and log_softmax give it.

    A changed network is a new one, made beside it. ValueError says which array does not fit.

    cell    "lstm" or "gru"
    n_in    numbers in an input
    layers  that follow one another, of `units` units each
    order   classes
    both    whether each layer runs in both directions
    arrays  weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, with _reverse for the way back, ...
            as torch names and shapes them, and output_weight, output_bias
    """

    def __init__(
        self, *, cell: str, n_in: int, layers: int, units: int, order: int, both: bool,
        arrays: Mapping[str, Array],
    ) -> None:  # fmt: skip
        self.units, self.layers, self.order = units, layers, order
        self._is_lstm, self._ways = cell == "lstm", 1 + both
        gates, pack = _PACK[cell]
        width = self._ways * units
        self._sizes = [n_in, *[width] * (layers - 1)]  # inputs of each layer
        parts = []
        for layer, size in enumerate(self._sizes):
            rows = gates * units
            for way in ("", "_reverse")[: self._ways]:
                parts.append(
                    pack(
                        _shaped(arrays, f"weight_ih_l{layer}{way}", (rows, size)),
                        _shaped(arrays, f"weight_hh_l{layer}{way}", (rows, units)),
                        _shaped(arrays, f"bias_ih_l{layer}{way}", (rows,)),
                        _shaped(arrays, f"bias_hh_l{layer}{way}", (rows,)),
                    )
                )
        self._weights, self._places = dense.join(parts)
        output = (
            _shaped(arrays, "output_weight", (order, width)),
            _shaped(arrays, "output_bias", (order,)),
        )
        self._output = dense.Network.of([output], normalise=True)

    def memory(self, rows: int) -> Array:
        """What the cells remember before the first time, (layers, ways, 2, rows, width) zeros."""
        return np.zeros((self.layers, self._ways, 2, rows, dense.padded(self.units)), np.float32)

    def __call__(self, inputs: Array, memory: Array) -> Array:
        """Log-probabilities (time, rows, order) of inputs (time, rows, n_in), float32.

        memory   of `memory(rows)` or of an earlier call; updated
        """
        time, rows, _ = inputs.shape
        width = self._ways * self.units
        for layer, size in enumerate(self._sizes):
            outputs = np.empty(
                (time, rows, width - self.units + dense.padded(self.units)), np.float32
            )
            for way in range(self._ways):
                first = self._places[layer * self._ways + way]
                state, cells = memory[layer, way]
                given = (self._weights, first, size, self.units, inputs, state)
                if self._is_lstm:
                    recurrent.lstm(*given, cells, way == 1, outputs, way * self.units)
                else:
                    recurrent.gru(*given, way == 1, outputs, way * self.units)
            inputs = outputs
        found = np.empty((time * rows, self.order), np.float32)
        self._output(np.ascontiguousarray(inputs[:, :, :width]).reshape(-1, width), found)
        return found.reshape(time, rows, self.order)


def _shaped(arrays: Mapping[str, Array], name: str, shape: tuple[int, ...]) -> Array:
    if name not in arrays:
        raise ValueError(f"there is no array {name!r}")
    if arrays[name].shape != shape:
        raise ValueError(f"{name} has shape {arrays[name].shape}; expected {shape}")
    return arrays[name]
