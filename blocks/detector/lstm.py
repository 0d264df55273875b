"""A recurrent network that reads samples as they come, as a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from blocks.detector.recurrent import RecurrentDetector
from blocks.kernels.recurrent_layers import RecurrentLayers
from pipeline.block import param
from pipeline.frame import Array


class Lstm(RecurrentDetector, name="detector.lstm"):
    """Symbols as a black box sees them that reads a few samples at a time, from the first on.

    The black box of Raviv, Park, Simeone, Eldar and Shlezinger, "Meta-ViterbiNet", 2021: recurrent
    layers in one direction, whose input at each time are `window` samples. Nothing is model-based.
    The published size is 2 layers of 256 units and a window of 4, some 60 times the work of the
    default. Here a symbol is decided when the window begins with its own sample, so window - 1
    samples late, and zeros follow the end of a stream or word.

    samples  (time) or (word, time)  float32, or complex64 for QPSK [V]
    symbols  as samples              int8, or complex64 for QPSK
    llr      (..., time, bit)        float32 [nat], within +-38; bits as in detector.sum_product

    Raises WeightsError where it is to decide without weights.
    """

    kind = "lstm"
    both = False
    trained_by = "blocks.trainer.sequences:fit_lstm"

    units: int = param(default=32, at_least=1, at_most=1024, doc="of a layer")
    window: int = param(
        default=4, at_least=1, at_most=64, unit="samples", doc="that the network reads at a time"
    )

    @property
    def n_in(self) -> int:
        return self.parts * self.window

    def _forget(self) -> None:
        self._tail = np.empty((0, self.parts), np.float32)  # samples of windows to come
        self._memory: Array | None = None

    def _words(self, network: RecurrentLayers, parts: Array) -> Array:
        words, time, _ = parts.shape
        if not words or not time:
            return np.empty((words, time, self.order))
        found = self._read(network, self._ended(parts), network.memory(words))
        return np.exp(found.astype(np.float64)).swapaxes(0, 1)

    def _push(self, network: RecurrentLayers, parts: Array) -> Array:
        self._tail = np.concatenate([self._tail, parts])
        count = max(0, len(self._tail) - self.window + 1)
        if not count:
            return np.empty((0, self.order))
        if self._memory is None:
            self._memory = network.memory(1)
        found = self._read(network, self._tail[None], self._memory)
        self._tail = self._tail[count:].copy()
        return np.exp(found[:, 0].astype(np.float64))

    def _last(self, network: RecurrentLayers) -> Array:
        count = self.window - 1 if len(self._tail) else 0
        found = self._push(network, np.zeros((count, self.parts), np.float32))
        self._forget()
        return found

    def _ended(self, parts: Array) -> Array:
        """Words with the zeros that follow them."""
        return np.pad(parts, ((0, 0), (0, self.window - 1), (0, 0)))

    def _read(self, network: RecurrentLayers, parts: Array, memory: Array) -> Array:
        """Log-probabilities (n, word, order) of words of n + window - 1 samples."""
        windows = np.lib.stride_tricks.sliding_window_view(parts, self.window, axis=1)
        inputs = np.moveaxis(windows, (0, 1, 3), (1, 0, 2))  # (n, word, window, parts)
        return network(np.ascontiguousarray(inputs).reshape(*inputs.shape[:2], -1), memory)

    def _kept(self) -> Mapping[str, Array]:
        memory = np.empty(0, np.float32) if self._memory is None else self._memory.copy()
        return {"tail": self._tail.copy(), "memory": memory}

    def _go_on(self, state: Mapping[str, Any]) -> None:
        self._tail, memory = np.array(state["tail"]), np.array(state["memory"])
        self._memory = memory if memory.size else None
