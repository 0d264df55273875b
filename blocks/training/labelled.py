"""Words whose symbols a receiver knows, or may believe that it knows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Labelled(NamedTuple):
    """A word that the receiver accepted, or knows."""

    samples: Array  # (time,) float32 or complex64
    labels: Array  # (time,) int64 class, -1 unknown
    pilot: bool  # known to the receiver beforehand; else decisions that the code accepted
    difference: float  # share of code bits that the decoder changed; 0 for pilots decided rightly


def joined(words: Sequence[Labelled]) -> tuple[Array, Array]:
    """Samples and labels of all words, one after the other."""
    return (
        np.concatenate([word.samples for word in words]),
        np.concatenate([word.labels for word in words]),
    )


class Recent:
    """The newest words, at most so many."""

    def __init__(self, most: int) -> None:
        self._words: deque[Labelled] = deque(maxlen=most)

    def __len__(self) -> int:
        return len(self._words)

    def __iter__(self) -> Iterator[Labelled]:
        return iter(self._words)

    def __getitem__(self, index: int) -> Labelled:
        return self._words[index]

    def add(self, word: Labelled) -> None:
        """The word becomes the newest one; its arrays are not copied."""
        self._words.append(word)

    def state(self) -> Mapping[str, Any]:
        """What `restore` takes back: arrays."""
        if not self._words:
            return {}
        samples, labels = joined(list(self._words))
        return {
            "samples": samples,
            "labels": labels,
            "lengths": np.array([len(word.labels) for word in self._words]),
            "pilots": np.array([word.pilot for word in self._words]),
            "differences": np.array([word.difference for word in self._words]),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Hold the words that were there when `state` was taken."""
        self._words.clear()
        if "lengths" not in state:
            return
        ends = np.cumsum(state["lengths"])
        for end, length, pilot, difference in zip(
            ends, state["lengths"], state["pilots"], state["differences"], strict=True
        ):
            own = slice(end - length, end)
            self.add(
                Labelled(
                    state["samples"][own], state["labels"][own], bool(pilot), float(difference)
                )
            )
