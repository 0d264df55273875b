"""More samples than came: drawn from what each class looks like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from blocks.training.labelled import Labelled
from blocks.training.strategy import Strategy, Wrapped

Array = np.ndarray[Any, Any]


class Classes:
    """Centre and spread of the samples of each class, from words; old ones fade.

    memory   share of what was known that is kept at each word: 0 the newest word alone
    """

    def __init__(self, memory: float) -> None:
        self._memory = memory
        self._sums = np.zeros((3, 0), np.complex128)

    def add(self, samples: Array, labels: Array) -> None:
        """Count samples with a label; (time,) each."""
        size = max(self._sums.shape[1], int(labels.max()) + 1)
        found = np.zeros((3, size), np.complex128)
        found[:, : self._sums.shape[1]] = self._memory * self._sums
        wide = samples.astype(np.complex128)
        for row, values in zip(found, (np.ones(len(wide)), wide, np.abs(wide) ** 2), strict=True):
            np.add.at(row, labels, values)
        self._sums = found

    def drawn(self, count: int, rng: np.random.Generator, *, is_complex: bool) -> Any:
        """`count` samples of each class that was seen, and their labels.

        All classes have the same spread, that of the samples about the centres of their classes:
        a word holds too few of each class to tell one from the other.
        """
        weight = self._sums[0].real
        classes = np.flatnonzero(weight > 1e-3)
        centres = self._sums[1, classes] / weight[classes]
        squares = self._sums[2, classes].real - weight[classes] * np.abs(centres) ** 2
        degrees = max(float(weight.sum()) - len(classes), 1.0)
        spread = np.sqrt(max(float(squares.sum()), 0.0) / degrees)
        labels = np.repeat(classes, count)
        noise = rng.standard_normal((2, len(labels)))
        if is_complex:
            noisy = (noise[0] + 1j * noise[1]) / np.sqrt(2.0)
            return np.repeat(centres, count) + spread * noisy, labels
        return np.repeat(centres.real, count) + spread * noise[0], labels

    def state(self) -> Mapping[str, Any]:
        """What `restore` takes back."""
        return {"sums": self._sums}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._sums = np.array(state["sums"])


class Augmented(Wrapped):
    """Another strategy that is shown each word with synthetic samples behind it.

    Raviv and Shlezinger, "Data augmentation for deep receivers", IEEE TWC 22(11), 2023: samples of
    a class lie about a centre, so more are drawn about it, equally many of each class that was
    seen. The paper also turns and shifts constellations, which an intersymbol channel does not.

    count    synthetic samples of each class
    memory   share of the statistics that is kept from word to word
    seed     of the draws
    """

    def __init__(
        self, inner: Strategy, *, count: int = 16, memory: float = 0.5, seed: int = 0
    ) -> None:
        super().__init__(inner)
        self.count, self.seed = count, seed
        self._classes, self._words = Classes(memory), 0

    def update(self, serving: Any, word: Labelled) -> Any:
        known = word.labels >= 0
        if not known.any():
            return None
        rng = np.random.default_rng([self.seed, self._words])
        self._words += 1
        self._classes.add(word.samples[known], word.labels[known])
        samples, labels = self._classes.drawn(
            self.count, rng, is_complex=np.iscomplexobj(word.samples)
        )
        more = word._replace(
            samples=np.concatenate([word.samples, samples.astype(word.samples.dtype)]),
            labels=np.concatenate([word.labels, labels]),
        )
        return self.inner.update(serving, more)

    def state(self) -> Mapping[str, Any]:
        return {**super().state(), **self._classes.state(), "words": self._words}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._classes.restore(state)
        self._words = int(state["words"])
