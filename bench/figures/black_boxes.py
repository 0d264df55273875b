"""Recurrent networks that know nothing of channels, trained on the same labelled symbols."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.figures.channels import Labelled, Words
from blocks.detector.lstm import Lstm
from blocks.detector.sbrnn import Sbrnn
from blocks.kernels.trellis import ALPHABETS
from pipeline.train import Lessons
from pipeline.weights import Weights

Array = np.ndarray[Any, Any]

_HELD_OUT = 0.1  # share of the labelled symbols that choose the epoch


def decided(lesson: Labelled, words: Words, seed: int) -> Iterator[tuple[str, Array]]:
    """What detector.sbrnn and detector.lstm decide, indices (word, time), trained as by
    `kalvit train`, the former in half of its epochs: it takes longer than all others together.
    """
    from blocks.trainer.sequences import fit_lstm, fit_sbrnn  # torch

    modulation = lesson.place.channel.modulation
    own = round((1.0 - _HELD_OUT) * lesson.samples.size)
    training, held_out = (
        {
            "samples": lesson.samples[None, part],
            "sent": ALPHABETS[modulation][lesson.indices[None, part]],
        }
        for part in (slice(own), slice(own, None))
    )
    lessons = Lessons([training], [held_out], seed)
    sbrnn, lstm = Sbrnn(modulation=modulation), Lstm(modulation=modulation)
    learnt = fit_sbrnn(sbrnn, lessons, epochs=10, rate=0.01, batch=128), fit_lstm(lstm, lessons)
    for block, found in zip((sbrnn, lstm), learnt, strict=True):
        block.start()
        block.take(Weights(block.kind, 1, found.arrays, found.hyper))
        (answer,) = block.process(words.samples)
        yield block.kind, np.asarray(answer.symbols == ALPHABETS[modulation][1])
