"""Fits a node to labelled samples that all are there beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, Self, TypeVar

import numpy as np

Array = np.ndarray[Any, Any]

_STEPS = 100  # of an epoch, at least
_AT_FULL_RATE = 4  # one of so many epochs is not averaged: far from the end


class Descending(Protocol):
    """What `fit` asks of a node; blocks.nodes.node.Trainable has it."""

    @property
    def parameters(self) -> Array:
        """All that it learns, (n,) float64."""

    def moved(self, parameters: Array, /) -> Self:
        """The same kind of node with other parameters."""

    def prepared(self, samples: Array, labels: Array, /) -> Self:
        """With what these tell without gradients."""

    def losses(self, samples: Array, labels: Array, /) -> Array:
        """Loss of each sample that has a label [nat]."""

    def descended(
        self, samples: Array, labels: Array, /, *, steps: int, rate: float, batch: int,
        rng: np.random.Generator,
    ) -> Self:  # fmt: skip
        """After so many steps of Adam, from moments of zero."""


Learner = TypeVar("Learner", bound=Descending)


def fit(
    node: Learner,
    samples: Array,
    labels: Array,
    rng: np.random.Generator,
    *,
    epochs: int = 20,
    rate: float = 5e-3,
    batch: int = 50,
    held_out: float | tuple[Array, Array] = 0.1,
    patience: int = 3,
    progress: Callable[[int, int, float], None] = lambda epoch, epochs, loss: None,
) -> tuple[Learner, dict[str, float]]:
    """The node with the least loss on samples that it is not trained on, and its scores.

    Each epoch is a pass of Adam from moments of zero (at least 100 steps), with a rate that falls
    to nothing along a cosine (Loshchilov and Hutter, SGDR, 2017). After the first quarter
    parameters are averaged over epochs (Polyak and Juditsky, 1992), and the best average wins. The
    published schedule, 100 epochs of a constant rate of 0.01, has overfitted long before its end
    and leaves its noise in the weights.

    samples    (time,)
    labels     (time,) int64 class; -1: unknown, left out
    rng        of held-out samples and batches; nothing else is left to chance
    rate       of Adam, at first
    batch      samples of a step
    held_out   share of labelled samples that choose the epoch; or others, and their labels
    patience   epochs without a better average, after which it stops
    progress   called after each epoch with its number, their count, the loss on held-out samples

    Scores: loss (mean over held-out samples [nat]), epochs (those that led to this node), symbols
    (trained on). ValueError where there are too few samples with a label, or no epoch has a
    finite loss.
    """
    known = rng.permutation(np.flatnonzero(labels >= 0))
    apart = 0 if isinstance(held_out, tuple) else math.ceil(held_out * len(known))
    others = (
        held_out if isinstance(held_out, tuple) else (samples[known[:apart]], labels[known[:apart]])
    )
    if not apart < len(known) or not (others[1] >= 0).any():
        raise ValueError(f"{len(known)} labelled samples, {apart} of them held out; give more")
    own = np.sort(known[apart:])
    node = node.prepared(samples[own], labels[own])
    best, least, found = node, math.inf, 0
    first, total = epochs // _AT_FULL_RATE, np.zeros(len(node.parameters))
    for epoch in range(1, epochs + 1):
        node = node.descended(
            samples[own], labels[own], steps=max(_STEPS, len(own) // batch), batch=batch, rng=rng,
            rate=rate * 0.5 * (1.0 + math.cos(math.pi * (epoch - 1) / epochs)),
        )  # fmt: skip
        candidate = node
        if epoch > first:
            total += node.parameters
            candidate = node.moved(total / (epoch - first))
        loss = float(np.mean(candidate.losses(*others)))
        progress(epoch, epochs, loss)
        if epoch > first and loss < least:
            best, least, found = candidate, loss, epoch
        elif not math.isfinite(loss) or (found and epoch - found >= patience):
            break
    if not found:
        raise ValueError("training gave no finite loss; give finite samples, or a lower rate")
    return best, {"loss": least, "epochs": found, "symbols": len(own)}
