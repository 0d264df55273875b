"""Learning only when something has changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from blocks.training.drift import DriftTest
from blocks.training.labelled import Labelled
from blocks.training.strategy import Strategy, Wrapped


class OnDrift(Wrapped):
    """Another strategy that is shown words only from when a test fires, and at the start.

    The test looks at what a receiver can see of each word: the mean loss of the serving node
    [nat], the share of code bits that the decoder changed, or whether the word was lost (1) or
    accepted (0).

    test    begins anew when it has fired
    watch   what it looks at
    words   shown from the one at which it fires; also the first ones of all
    """

    def __init__(
        self, inner: Strategy, test: DriftTest, *,
        watch: Literal["loss", "difference", "acceptance"] = "loss", words: int = 5,
    ) -> None:  # fmt: skip
        super().__init__(inner)
        self.test, self.watch, self.words = test, watch, words
        self.alarms, self._left = 0, words

    def update(self, serving: Any, word: Labelled) -> Any:
        if not (word.labels >= 0).any():
            return None
        if self.watch == "loss":
            self._look(float(serving.losses(word.samples, word.labels).mean()))
        else:
            self._look(word.difference if self.watch == "difference" else 0.0)
        if self._left == 0:
            return None
        self._left -= 1
        return self.inner.update(serving, word)

    def lost(self) -> None:
        if self.watch == "acceptance":
            self._look(1.0)
        super().lost()

    def _look(self, value: float) -> None:
        # What is not finite needs no test, and would stay in its sums for ever.
        if not math.isfinite(value) or self.test.add(value):
            self.alarms += 1
            self._left = self.words
            self.test.reset()

    def state(self) -> Mapping[str, Any]:
        test = {f"test.{name}": value for name, value in self.test.state().items()}
        return {**super().state(), **test, "alarms": self.alarms, "left": self._left}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.test.restore({name: state[f"test.{name}"] for name in self.test.state()})
        self.alarms, self._left = int(state["alarms"]), int(state["left"])
