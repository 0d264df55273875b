"""Detectors: what each knows or learns, and by which rule it decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from bench.figures.channels import (
    CLASSES,
    MEMORY,
    Labelled,
    Place,
    Words,
    metrics_of,
    wrong_taps,
)
from bench.figures.decisions import Rule, by_oldest, by_sequence, by_symbol
from blocks.nodes.class_gaussians import ClassGaussians
from blocks.nodes.dense import Dense
from blocks.nodes.taps import Taps
from blocks.nodes.wiener import Wiener
from blocks.training import offline

Array = np.ndarray[Any, Any]

EPOCHS = 20


class Detector(NamedTuple):
    """How a detector is shown.

    group   "known" channel, "wrong" taps; "simple", "learned" function node or "black box" from
            the labelled symbols
    title   in pictures and tables
    """

    group: str
    title: str
    colour: str
    line: str = "-"
    marker: str = "o"


MAP, LEAST_SQUARES, GRAPH = "map", "least_squares", "factor_graph"

DETECTORS = {
    MAP: Detector("known", "exact MAP, true taps", "black", "-", ""),
    "viterbi": Detector("known", "Viterbi, true taps", "black", ":", ""),
    "wrong_map": Detector("wrong", "sum-product, taps wrong per block", "tab:gray", "--", "x"),
    "wrong_viterbi": Detector(
        "wrong", "Viterbi, taps wrong per symbol, lag 3", "tab:gray", ":", "+"
    ),
    LEAST_SQUARES: Detector("simple", "least squares", "tab:blue", "-", "s"),
    "poisson_fit": Detector("simple", "least squares, form known", "tab:cyan", "-", "D"),
    "gaussians": Detector("simple", "per-class Gaussian", "tab:green", "-", "^"),
    "wiener": Detector("learned", "linear channel and a curve", "tab:olive", "-", "*"),
    GRAPH: Detector("learned", "learned factor graph", "tab:red"),
    "viterbinet": Detector("learned", "ViterbiNet, traceback", "tab:orange", "--", "v"),
    "papers_rule": Detector("learned", "ViterbiNet, papers' lag 3", "tab:orange", ":", "<"),
    "sbrnn": Detector("black box", "SBRNN", "tab:brown", "-.", "d"),
    "lstm": Detector("black box", "LSTM", "tab:pink", "-.", "p"),
}  # fmt: skip


class Metric(Protocol):
    """What gives branch metrics: a function node."""

    def metrics(self, samples: Array, metrics: Array) -> None:
        """Write those of samples (time,) to (time, CLASSES) float32."""


class PoissonTaps:
    """Taps by their moments, where it is known that samples are Poisson counts."""

    def __init__(self, lesson: Labelled) -> None:
        self.place = lesson.place
        root_snr = 10.0 ** (lesson.place.snr_db / 20)
        symbols = lesson.place.channel.class_symbols[lesson.labels]
        taps, *_ = np.linalg.lstsq(root_snr * symbols, lesson.samples - 1.0, rcond=None)
        self.taps = np.maximum(taps, 0.0)[None]

    def metrics(self, samples: Array, metrics: Array) -> None:
        metrics[:] = metrics_of(self.place, samples, self.taps)


def _least_squares(lesson: Labelled, rng: np.random.Generator) -> Metric:
    nothing = {"taps": np.zeros(MEMORY), "noise_var": np.array(1.0)}
    node = Taps(lesson.place.channel.modulation, MEMORY, nothing)
    return node.fitted(lesson.samples, lesson.labels)


def _gaussians(lesson: Labelled, rng: np.random.Generator) -> Metric:
    nothing = {"mean": np.zeros(CLASSES), "variance": np.ones(CLASSES)}
    node = ClassGaussians(lesson.place.channel.modulation, MEMORY, nothing)
    return node.fitted(lesson.samples, lesson.labels)


def _dense(lesson: Labelled, rng: np.random.Generator) -> Metric:
    """The network of ViterbiNet, as `kalvit train` fits it, without stopping early."""
    node = Dense.fresh(lesson.place.channel.modulation, MEMORY, rng=rng)
    node, _ = offline.fit(node, lesson.samples, lesson.labels, rng, patience=EPOCHS, epochs=EPOCHS)
    return node


def _wiener(lesson: Labelled, rng: np.random.Generator) -> Metric:
    modulation = lesson.place.channel.modulation
    node = Wiener.fresh(modulation, MEMORY, lesson.samples, lesson.labels)
    for steps, rate in ((120, 2e-2), (80, 4e-3)):
        node = node.descended(
            lesson.samples, lesson.labels, steps=steps, rate=rate, batch=500, rng=rng
        )
    return node


#: How nodes are fitted, and the detectors that decide with them.
NODES: Mapping[str, tuple[Callable[[Labelled, np.random.Generator], Metric], dict[str, Rule]]] = {
    "taps": (_least_squares, {LEAST_SQUARES: by_symbol}),
    "poisson": (lambda lesson, rng: PoissonTaps(lesson), {"poisson_fit": by_symbol}),
    "gaussians": (_gaussians, {"gaussians": by_symbol}),
    "wiener": (_wiener, {"wiener": by_symbol}),
    "dense": (
        _dense, {GRAPH: by_symbol, "viterbinet": by_sequence, "papers_rule": by_oldest}
    ),
}  # fmt: skip


def known(place: Place, words: Words, seed: int) -> Iterator[tuple[str, Array]]:
    """What detectors decide that were told the taps, right or wrong; indices (word, time)."""
    shape = words.samples.shape
    flat = words.samples.reshape(-1)

    def metrics(taps: Array) -> Array:
        return metrics_of(place, flat, taps).reshape(*shape, CLASSES)

    true = metrics(place.taps)
    yield MAP, by_symbol(true)
    yield "viterbi", by_sequence(true)
    yield "wrong_map", by_symbol(metrics(wrong_taps(place, shape[0], "relative", seed)))
    yield "wrong_viterbi", by_oldest(metrics(wrong_taps(place, flat.size, "absolute", seed)))


def fitted(
    lesson: Labelled, knowledge: str, words: Words, seed: int
) -> Iterator[tuple[str, Array]]:
    """What detectors decide that learned function nodes from labelled symbols."""
    place = lesson.place
    flat = words.samples.reshape(-1)
    metrics = np.empty((flat.size, CLASSES), np.float32)
    shaped = metrics.reshape(*words.samples.shape, CLASSES)
    is_poisson = place.channel.values.get("noise") == "poisson"
    for kind, (fit, rules) in NODES.items():
        if kind == "poisson" and not is_poisson:
            continue
        rng = np.random.default_rng([seed, *f"{place} {knowledge} {kind}".encode()])
        fit(lesson, rng).metrics(flat, metrics)
        for name, rule in rules.items():
            yield name, rule(shaped)
