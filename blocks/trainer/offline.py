"""What `kalvit train` needs for detectors of symbols: labels, scores, the baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from blocks.kernels.trellis import ALPHABETS
from blocks.nodes.node import labels_of
from pipeline import catalogue
from pipeline.block import Block
from pipeline.frame import Array
from pipeline.train import Record
from pipeline.weights import Weights


def words_of(records: Sequence[Record]) -> Iterator[tuple[Array, Array]]:
    """(samples, sent) of each word, (time,) each; a stream is one long word."""
    for record in records:
        samples, sent = record["samples"], record["sent"]
        if samples.ndim == 1:
            yield samples, sent
        else:
            yield from zip(samples, sent, strict=True)


def indices_of(sent: Array, modulation: str) -> Array:
    """Indices into the alphabet, int64; ValueError where other symbols were sent."""
    alphabet = ALPHABETS[modulation]
    distances = np.abs(sent.reshape(-1, 1) - alphabet)
    if sent.size and distances.min(axis=1).max() > 1e-3:
        raise ValueError(
            f"symbols were sent that are none of {modulation}; set the modulation of the block to "
            "that of the source"
        )
    found: Array = distances.argmin(axis=1).reshape(sent.shape).astype(np.int64)
    return found


def labelled(
    records: Sequence[Record], modulation: str, memory: int, before: int | None
) -> tuple[Array, Array]:
    """All samples of the records (n,) and the class of each (n,), -1 where it is unknown.

    before   index of the symbol before each word, None: unknown
    """
    order = ALPHABETS[modulation].size
    samples, labels = [], []
    for word, sent in words_of(records):
        samples.append(word)
        labels.append(labels_of(indices_of(sent, modulation), memory, order, before))
    return np.concatenate(samples), np.concatenate(labels)


def symbol_error_rate(block: Block, weights: Weights, records: Sequence[Record]) -> float:
    """Share of symbols that the block decides wrongly with these weights."""
    wrong = count = 0
    for record in records:
        block.start()
        block.take(weights)
        process: Any = block.process  # type: ignore[attr-defined]
        results = [*process(record["samples"]), *block.finish()]
        symbols = np.concatenate([result.symbols for result in results])
        wrong += int((np.abs(symbols - record["sent"]) > 1e-3).sum())
        count += symbols.size
    return wrong / max(count, 1)


def least_squares(
    records: Sequence[Record], held_out: Sequence[Record], *, modulation: str, memory: int,
    before: int | None = None, **values: Any,
) -> dict[str, float]:  # fmt: skip
    """The score of detector.least_squares, fitted to the same labels; none if there are too few.

    values   of its other parameters
    """
    from blocks.nodes.taps import Taps

    samples, labels = labelled(records, modulation, memory, before)
    try:
        node = Taps(modulation, memory, {}).fitted(samples, labels)
    except ValueError:
        return {}
    known = {} if before is None else {"start_state": "known", "known_symbol": before}
    given = {"start_state": "unknown", **known, **values}
    cls = catalogue.find("detector.least_squares")
    block = cls(modulation=modulation, memory=memory, **given)
    return {"least_squares": symbol_error_rate(block, node.weights("taps"), held_out)}
