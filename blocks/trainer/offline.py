"""Trains detectors of symbols offline, for `kalvit train`: labels, function nodes, baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from blocks.kernels.trellis import ALPHABETS
from blocks.nodes.class_gaussians import ClassGaussians
from blocks.nodes.dense import Dense
from blocks.nodes.node import Fitted, Node, Trainable, labels_of
from blocks.nodes.taps import Taps
from blocks.nodes.wiener import Wiener
from blocks.training import offline
from pipeline import catalogue
from pipeline.block import Block
from pipeline.errors import ParameterError
from pipeline.frame import Array
from pipeline.train import Learnt, Lessons, Record
from pipeline.weights import Weights

#: Detectors whose weights come by a closed form, and the kind of their node.
BASELINES = {"detector.least_squares": "taps", "detector.state_gaussian": "class_gaussians"}


def words_of(records: Sequence[Record]) -> Iterator[tuple[Array, Array]]:
    """(samples, sent) of each word, (time,) each; a stream is one long word."""
    for record in records:
        samples, sent = record["samples"], record["sent"]
        if samples.ndim == 1:
            yield samples, sent
        else:
            yield from zip(samples, sent, strict=True)


def indices_of(sent: Array, modulation: str) -> Array:
    """Indices into the alphabet, int64; ParameterError where other symbols were sent."""
    alphabet = ALPHABETS[modulation]
    distances = np.abs(sent.reshape(-1, 1) - alphabet)
    if sent.size and distances.min(axis=1).max() > 1e-3:
        raise ParameterError(
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


def closed_form(
    kind: str, records: Sequence[Record], modulation: str, memory: int, before: int | None
) -> Fitted:
    """The node "taps" or "class_gaussians" that fits all labels; ValueError if they are too few.

    Classes that were not met have the mean that the taps give them.
    """
    samples, labels = labelled(records, modulation, memory, before)
    channel = Taps(modulation, memory, {}).fitted(samples, labels)
    if kind == "taps":
        return channel
    variance = np.full(channel.n_classes, float(channel.arrays["noise_var"]))
    alike = {"mean": channel.means, "variance": variance}
    return ClassGaussians(modulation, memory, alike).fitted(samples, labels)


def baselines(
    lessons: Lessons, *, modulation: str, memory: int, before: int | None = None, **values: Any
) -> dict[str, float]:
    """Symbol error rates of the detectors that fit the same labels by a closed form.

    values   of their other parameters
    """
    values["start_state"] = "unknown" if before is None else "known"
    values["known_symbol"] = before or 0
    scores = {}
    for use, kind in BASELINES.items():
        try:
            node = closed_form(kind, lessons.training, modulation, memory, before)
        except ValueError:  # too few labels, and there is nothing to compare with
            continue
        block = catalogue.find(use)(modulation=modulation, memory=memory, **values)
        rate = symbol_error_rate(block, node.weights(kind), lessons.held_out)
        scores[f"{use.rpartition('.')[2]}_symbol_error_rate"] = rate
    return scores


def fit_closed_form(block: Any, lessons: Lessons) -> Learnt:
    """Fit a detector.least_squares or detector.state_gaussian."""
    try:
        node = closed_form(
            block.kinds[0], lessons.training, block.modulation, block.memory, _before(block)
        )
    except ValueError as error:
        raise ParameterError(f"{block.name}: {error}") from None
    return _learnt(block, lessons, node, node.arrays, {})


def fit_network(
    block: Any, lessons: Lessons, *, kind: str = "dense", hidden: Sequence[int] | None = None,
    activations: Sequence[str] | None = None, epochs: int = 20, rate: float = 5e-3,
    batch: int = 50, transition: bool = False,
) -> Learnt:  # fmt: skip
    """Fit the function node of a detector.viterbinet or detector.learned_factor_graph.

    kind         of node: dense or wiener
    hidden       units of the hidden layers of a dense one, and their activations; those of the
                 paper if not given
    transition   whether to count how often each symbol follows those before it (a factor graph
                 alone heeds it); one is added to each count, so that nothing is ruled out
    """
    samples, labels = labelled(lessons.training, block.modulation, block.memory, _before(block))
    rng = np.random.default_rng(lessons.seed)
    given = (block.modulation, block.memory)
    settings = {"kind": kind, "epochs": epochs, "rate": rate, "batch": batch}
    chosen = {"hidden": hidden, "activations": activations}
    layers: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    try:
        node: Trainable
        if kind == "dense":
            node = Dense.fresh(*given, rng=rng, **layers)
        elif layers:
            raise ValueError(f"{' and '.join(layers)} given, but only dense networks have layers")
        elif kind == "wiener":
            node = Wiener.fresh(*given, samples, labels)
        else:
            raise ValueError(f"kind = {kind!r}, but it must be dense or wiener")
        node, found = offline.fit(
            node, samples, labels, rng, epochs=epochs, rate=rate, batch=batch,
            held_out=labelled(lessons.held_out, *given, _before(block)),
            progress=lambda epoch, most, loss: lessons.progress(
                epoch, most, f"held-out loss {loss:.4f}"
            ),
        )  # fmt: skip
    except ValueError as error:
        raise ParameterError(f"{block.name}: {error}") from None
    arrays = dict(node.arrays)
    if transition:
        arrays["transition"] = _transition(labels, node.order, node.n_classes)
    return _learnt(block, lessons, node, arrays, {**settings, "epochs": int(found["epochs"])})


#: With a histogram of transitions, as in the paper.
fit_factor_graph = partial(fit_network, transition=True)


def _learnt(
    block: Any, lessons: Lessons, node: Node, arrays: Mapping[str, Array],
    training: Mapping[str, Any],
) -> Learnt:  # fmt: skip
    before = _before(block)
    samples, labels = labelled(lessons.held_out, block.modulation, block.memory, before)
    weights = Weights(node.kind, 1, arrays, node.hyper)
    same = {name: getattr(block, name) for name in ("window", "lag", "end_state")}
    recursion = "sum_product" if hasattr(block, "states") else "viterbi"
    others = baselines(
        lessons, modulation=block.modulation, memory=block.memory, before=before,
        algorithm=getattr(block, "algorithm", recursion), **same,
    )  # fmt: skip
    others.pop(f"{block.name.rpartition('.')[2]}_symbol_error_rate", None)
    scores = {
        "loss": float(np.mean(node.losses(samples, labels))),
        "symbol_error_rate": symbol_error_rate(block, weights, lessons.held_out),
        **others,
    }
    return Learnt(node.hyper, arrays, training, scores)


def _before(block: Any) -> int | None:
    """Index of the symbol that the block takes to be sent before each word."""
    return int(block.known_symbol) if block.start_state == "known" else None


def _transition(labels: Array, order: int, n_classes: int) -> Array:
    """p(symbol | those before it), (combinations of those before it, order) float32."""
    counts = 1.0 + np.bincount(labels[labels >= 0], minlength=n_classes).reshape(-1, order)
    found: Array = (counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)
    return found
