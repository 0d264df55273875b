"""A sliding bidirectional recurrent network as a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from blocks.detector.recurrent import RecurrentDetector
from blocks.kernels.recurrent_layers import RecurrentLayers
from pipeline.block import param
from pipeline.frame import Array

_TOGETHER = 256  # windows that pass through the layers together, within the cache


class Sbrnn(RecurrentDetector, name="detector.sbrnn"):
    """Symbols as a black box sees them: the mean of what all windows of samples say of each.

    Farsad and Goldsmith, "Neural Network Detection of Data Sequences in Communication Systems",
    IEEE Trans. Signal Proc. 66(21), 2018. Recurrent layers in both directions look at each window
    of `window` samples, which moves on by one sample; the probabilities that the windows give to a
    symbol are averaged. Nothing is model-based. The published size is 3 layers of 80 units, some
    40 times the work of the default; the published cells have peepholes, these have none.

    A stream is decided window - 1 samples late. A stream or word shorter than a window is one.

    samples  (time) or (word, time)  float32, or complex64 for QPSK [V]
    symbols  as samples              int8, or complex64 for QPSK
    llr      (..., time, bit)        float32 [nat], within +-38; bits as in detector.sum_product

    Raises WeightsError where it is to decide without weights.
    """

    kind = "sbrnn"
    both = True
    trained_by = "blocks.trainer.sequences:fit_sbrnn"

    units: int = param(default=16, at_least=1, at_most=512, doc="of a layer, each direction")
    window: int = param(
        default=12, at_least=2, at_most=512, unit="samples", doc="length of a window"
    )

    @property
    def n_in(self) -> int:
        return self.parts

    def _forget(self) -> None:
        self._tail = np.empty((0, self.parts), np.float32)  # samples of windows to come
        # What the last windows said, (window - 1, window, order); those before the stream nothing.
        self._said = np.zeros((self.window - 1, self.window, self.order), np.float32)
        self._begun = 0  # windows so far

    def _words(self, network: RecurrentLayers, parts: Array) -> Array:
        words, time, _ = parts.shape
        if not words or not time:
            return np.empty((words, time, self.order))
        length = min(self.window, time)
        said = self._said_by(network, _windows(parts, length).reshape(-1, length, self.parts))
        sums = _summed(said.reshape(words, -1, length, self.order))
        found: Array = sums / _cover(np.arange(time), time - length + 1, length)
        return found

    def _push(self, network: RecurrentLayers, parts: Array) -> Array:
        self._tail = np.concatenate([self._tail, parts])
        count = max(0, len(self._tail) - self.window + 1)
        if not count:
            return np.empty((0, self.order))
        said = self._said_by(network, _windows(self._tail[None], self.window)[0])
        self._tail = self._tail[count:].copy()
        decided = self._over(said, count)
        self._begun += count
        return decided

    def _last(self, network: RecurrentLayers) -> Array:
        if not self._begun:
            found: Array = self._words(network, self._tail[None])[0]
        else:
            found = self._over(self._said[:0], self.window - 1)
        self._forget()
        return found

    def _over(self, said: Array, count: int) -> Array:
        """Probabilities of the next `count` symbols, of whose windows the newest said this."""
        before = self.window - 1
        both = np.concatenate([self._said, said])
        symbols = np.arange(self._begun, self._begun + count)
        cover = _cover(symbols, self._begun + len(said), self.window)
        self._said = both[len(said) :].copy()
        found: Array = _summed(both)[before : before + count] / cover
        return found

    def _said_by(self, network: RecurrentLayers, windows: Array) -> Array:
        """Probabilities (count, length, order) that windows (count, length, parts) give."""
        found = np.empty((*windows.shape[:2], self.order), np.float32)
        for first in range(0, len(windows), _TOGETHER):
            some = windows[first : first + _TOGETHER]
            inputs = np.ascontiguousarray(some.swapaxes(0, 1))
            said = network(inputs, network.memory(len(some)))
            np.exp(said.swapaxes(0, 1), out=found[first : first + len(some)])
        return found

    def _kept(self) -> Mapping[str, Array]:
        return {
            "tail": self._tail.copy(), "said": self._said.copy(), "begun": np.array(self._begun)
        }  # fmt: skip

    def _go_on(self, state: Mapping[str, Any]) -> None:
        self._tail, self._said = np.array(state["tail"]), np.array(state["said"])
        self._begun = int(state["begun"])


def _windows(parts: Array, length: int) -> Array:
    """All windows of words (word, time, parts): (word, windows, length, parts), a copy."""
    found = np.lib.stride_tricks.sliding_window_view(parts, length, axis=1)
    return np.ascontiguousarray(found.swapaxes(2, 3))


def _summed(said: Array) -> Array:
    """What windows say of each symbol (..., n, length, order), summed (..., n + length - 1, order).

    In float64, and always in the same order, so that no sum depends on how a stream was cut.
    """
    *words, count, length, order = said.shape
    sums = np.zeros((*words, count + length - 1, order))
    for place in range(length):
        sums[..., place : place + count, :] += said[..., place, :]
    return sums


def _cover(symbols: Array, windows: int, length: int) -> Array:
    """How many of so many windows of a word hold each symbol, (symbols, 1)."""
    first = np.maximum(symbols - length + 1, 0)
    found: Array = (np.minimum(symbols, windows - 1) - first + 1)[:, None]
    return found
