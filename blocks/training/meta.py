"""Learning how to learn: parameters from which one word's steps lead to the next word's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from blocks.kernels.adam import Adam
from blocks.training.labelled import Labelled, Recent
from blocks.training.strategy import Strategy

Array = np.ndarray[Any, Any]


def meta_gradient(
    node: Any, support: Labelled, query: Labelled, *, rate: float, first_order: bool = False
) -> tuple[float, Array]:
    """Loss on the query after a gradient step on the support, and its gradient (n,).

    Finn, Abbeel and Levine, "Model-agnostic meta-learning", ICML 2017: with the step
    x - rate g(x) and H the Hessian of the support's loss at x, the gradient of the query's loss
    there, v, becomes v - rate H v. First order leaves the second term out.
    """
    at = node.parameters
    _, slope = node.gradient(support.samples, support.labels)
    loss, found = node.gradient_at(at - rate * slope, query.samples, query.labels)
    if not first_order:
        found = found - rate * node.hessian_product(support.samples, support.labels, found)
    return loss, found


class Meta(Strategy):
    """Steps of Adam on the newest word, from parameters chosen so that such steps do well.

    Predictive meta-learning, Raviv et al., "Meta-ViterbiNet", arXiv 2103.13483: words follow each
    other on a channel that changes, so parameters are sought from which a step on word j - 1 does
    well on word j. Every `every` words they are improved on pairs drawn from the newest words,
    neighbours among those that were accepted.

    steps, rate, batch  of Adam on the newest word, as in `Continued`
    every               words from one improvement to the next
    pairs               of words in an improvement, a step of Adam for each
    step                size of the gradient step on the first word of a pair
    meta_rate           of Adam on the parameters to start from
    words               how many of the newest words pairs are drawn from
    first_order         leave Hessians out: half the work
    seed                of the draws
    """

    def __init__(
        self, *, steps: int = 5, rate: float = 1e-3, batch: int = 0, every: int = 5,
        pairs: int = 20, step: float = 0.1, meta_rate: float = 1e-3, words: int = 25,
        first_order: bool = False, seed: int = 0,
    ) -> None:  # fmt: skip
        self.steps, self.rate, self.batch, self.every = steps, rate, batch, every
        self.pairs, self.step, self.meta_rate = pairs, step, meta_rate
        self.first_order, self.seed = first_order, seed
        self._words = Recent(words)
        self._start = np.empty(0)
        self._count = 0

    def update(self, serving: Any, word: Labelled) -> Any:
        if not (word.labels >= 0).any():
            return None
        if self._start.shape != serving.parameters.shape or not np.isfinite(self._start).all():
            self._start = serving.parameters
        rng = np.random.default_rng([self.seed, self._count])
        self._words.add(word)
        self._count += 1
        if self._count % self.every == 0 and len(self._words) > 1:
            self._improve(serving, rng)
        return serving.moved(self._start).descended(
            word.samples, word.labels, steps=self.steps, rate=self.rate, batch=self.batch, rng=rng
        )

    def _improve(self, serving: Any, rng: np.random.Generator) -> None:
        adam = Adam(self.meta_rate)
        for j in rng.integers(1, len(self._words), self.pairs):
            _, slope = meta_gradient(
                serving.moved(self._start), self._words[j - 1], self._words[j],
                rate=self.step, first_order=self.first_order,
            )  # fmt: skip
            self._start = self._start + adam.change(slope)

    def state(self) -> Mapping[str, Any]:
        return {**self._words.state(), "start": self._start, "count": self._count}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._words.restore(state)
        self._start, self._count = np.array(state["start"]), int(state["count"])
