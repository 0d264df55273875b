"""Learning from what is known beforehand only."""

from __future__ import annotations

from typing import Any

from blocks.training.labelled import Labelled
from blocks.training.strategy import Wrapped


class Pilots(Wrapped):
    """Another strategy that is shown pilot words only, and no decisions."""

    def update(self, serving: Any, word: Labelled) -> Any:
        return self.inner.update(serving, word) if word.pilot else None
