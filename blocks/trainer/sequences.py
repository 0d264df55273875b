"""Trains the black-box detectors offline, for `kalvit train`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from blocks.models.recurrent import Lstm, Recurrent, Sbrnn
from blocks.trainer.offline import baselines, indices_of, symbol_error_rate, words_of
from blocks.training import sequences
from blocks.training.sequences import Sequences
from pipeline.errors import ParameterError
from pipeline.frame import Array
from pipeline.train import Learnt, Lessons, Record
from pipeline.weights import Weights


def fit_sbrnn(
    block: Any, lessons: Lessons, *, epochs: int = 20, rate: float = 0.01, batch: int = 200,
    patience: int = 5, memory: int = 4,
) -> Learnt:  # fmt: skip
    """Fit a detector.sbrnn to all windows of the words, as the paper does.

    memory   symbols that a sample depends on, for the baselines in the scores
    """
    torch.manual_seed(lessons.seed % (1 << 63))
    module = Sbrnn(
        order=block.order, n_in=block.n_in, cell=block.cell, layers=block.layers, units=block.units
    )
    training, held_out = (_windows(block, r) for r in (lessons.training, lessons.held_out))
    settings = {"epochs": epochs, "rate": rate, "batch": batch, "patience": patience}
    return _learnt(block, lessons, module, training, held_out, settings, memory)


def fit_lstm(
    block: Any, lessons: Lessons, *, epochs: int = 60, rate: float = 5e-3, batch: int = 8,
    patience: int = 15, length: int = 100, memory: int = 4,
) -> Learnt:  # fmt: skip
    """Fit a detector.lstm to words, cut into sequences of at most `length` symbols.

    memory   symbols that a sample depends on, for the baselines in the scores
    """
    torch.manual_seed(lessons.seed % (1 << 63))
    module = Lstm(
        order=block.order, n_in=block.n_in, cell=block.cell, layers=block.layers, units=block.units
    )
    training, held_out = (_pieces(block, r, length) for r in (lessons.training, lessons.held_out))
    settings = {"epochs": epochs, "rate": rate, "batch": batch, "patience": patience}
    return _learnt(block, lessons, module, training, held_out, settings, memory)


def _learnt(
    block: Any, lessons: Lessons, module: Recurrent, training: Sequences, held_out: Sequences,
    settings: dict[str, Any], memory: int,
) -> Learnt:  # fmt: skip
    def told(epoch: int, epochs: int, loss: float) -> None:
        lessons.progress(epoch, epochs, f"held-out loss {loss:.4f}")

    torch.set_num_threads(1)  # small layers: more threads only wait for each other
    try:
        found = sequences.fit(
            module, training, held_out, seed=lessons.seed, progress=told, **settings
        )
    except ValueError as error:
        raise ParameterError(f"{block.name}: {error}") from None
    arrays = module.arrays()
    weights = Weights(block.kind, 1, arrays, block.hyper)
    scores = {
        "loss": found["loss"],
        "symbol_error_rate": symbol_error_rate(block, weights, lessons.held_out),
        **baselines(lessons, modulation=block.modulation, memory=memory),
    }
    return Learnt(block.hyper, arrays, {**settings, "epochs": int(found["epochs"])}, scores)


def _windows(block: Any, records: Sequence[Record]) -> Sequences:
    """All windows of all words that are long enough."""
    length = block.window
    inputs, classes = [], []
    for samples, sent in words_of(records):
        if len(samples) < length:
            continue
        at = np.arange(len(samples) - length + 1)[:, None] + np.arange(length)
        inputs.append(_numbers(block, samples)[at])
        classes.append(indices_of(sent, block.modulation)[at])
    if not inputs:
        raise ParameterError(
            f"{block.name}: no word is as long as a window of {length} samples; set a shorter "
            "window, or let the source send longer words"
        )
    return Sequences(np.concatenate(inputs), np.concatenate(classes))


def _pieces(block: Any, records: Sequence[Record], length: int) -> Sequences:
    """What the network reads, word by word, in pieces of equal length, the last one filled up."""
    inputs, classes = [], []
    for samples, sent in words_of(records):
        numbers = np.pad(_numbers(block, samples), ((0, block.window - 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(numbers, block.window, axis=0)
        read = windows.swapaxes(1, 2).reshape(len(samples), -1)
        indices = indices_of(sent, block.modulation)
        for first in range(0, len(samples), length):
            inputs.append(_filled(read[first : first + length], length, 0.0))
            classes.append(_filled(indices[first : first + length], length, -1))
    return Sequences(np.stack(inputs), np.stack(classes))


def _numbers(block: Any, samples: Array) -> Array:
    """(time, parts) float32."""
    return np.ascontiguousarray(samples).view(np.float32).reshape(len(samples), block.parts)


def _filled(rows: Array, length: int, value: float) -> Array:
    """As many rows as `length`, those after the last of this value."""
    missing = ((0, length - len(rows)), *[(0, 0)] * (rows.ndim - 1))
    return np.pad(rows, missing, constant_values=value)
