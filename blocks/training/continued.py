"""Gradient steps from the node that serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from blocks.training.labelled import Labelled
from blocks.training.strategy import Strategy


class Continued(Strategy):
    """Some steps of Adam on the newest word, from the node that serves.

    As online ViterbiNet learns (Shlezinger et al., IEEE TWC 19(5), 2020, algorithm 2), with fewer
    steps: the 200 of Raviv et al. (arXiv 2103.13483) fit one word's noise.

    steps   of Adam per word, from moments of zero
    rate    of Adam
    batch   symbols drawn for each step; 0: the whole word
    seed    of the draws
    """

    def __init__(
        self, *, steps: int = 5, rate: float = 1e-3, batch: int = 0, seed: int = 0
    ) -> None:
        self.steps, self.rate, self.batch, self.seed = steps, rate, batch, seed
        self._count = 0

    def update(self, serving: Any, word: Labelled) -> Any:
        if not (word.labels >= 0).any():
            return None
        rng = np.random.default_rng([self.seed, self._count])
        self._count += 1
        return serving.descended(
            word.samples, word.labels, steps=self.steps, rate=self.rate, batch=self.batch, rng=rng
        )

    def state(self) -> Mapping[str, Any]:
        return {"count": self._count}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._count = int(state["count"])
