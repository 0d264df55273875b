"""What all strategies of learning from decisions have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any


class Strategy(ABC):
    """Makes a better node of the one that serves, from labelled words, in the order they come.

    It proposes; what serves is decided elsewhere. Nodes are those of blocks/nodes/node.py: closed
    forms have `fitted`, the others `parameters`, `moved`, `gradient`, `jacobian`, `descended`.
    The same words give the same nodes: what is drawn is drawn from a seed.
    """

    @abstractmethod
    def update(self, serving: Any, lesson: Any) -> Any:
        """Called once per lesson, a node or None: no change.

        A lesson is what a receiver learns from, one word that it accepted or knows (Labelled), or
        what a tracker does (training/tracks.py).
        """

    def lost(self) -> None:  # noqa: B027  most strategies learn nothing from it
        """Called once per word that the receiver did not accept."""

    def state(self) -> Mapping[str, Any]:
        """What is remembered from word to word: arrays and numbers by name."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027  most have no state
        """Go on from where `state` was taken."""


class Wrapped(Strategy):
    """A strategy around another, which it asks."""

    def __init__(self, inner: Strategy) -> None:
        self.inner = inner

    def lost(self) -> None:
        self.inner.lost()

    def state(self) -> Mapping[str, Any]:
        return {f"inner.{name}": value for name, value in self.inner.state().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        prefix = "inner."
        self.inner.restore(
            {name[len(prefix) :]: state[name] for name in state if name.startswith(prefix)}
        )
