"""What trainers that learn on line have in common: who serves, who may come, and the way back."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from blocks.training.budget import Budget, TooLate
from blocks.training.gate import excess
from blocks.training.strategy import Strategy
from blocks.training.watch import Watch
from pipeline.block import Trainer, param
from pipeline.errors import WeightsError
from pipeline.frame import Array, Scalar
from pipeline.metrics import Histogram
from pipeline.models import Models
from pipeline.weights import Weights

MOST_NOTES = 10_000  # that wait to be written down
REASONS = ("worse", "not_finite", "failed", "too_late")


class Version(NamedTuple):
    """A node with the weights as which it was published; None: it knows nothing yet."""

    weights: Weights | None
    node: Any


class Candidate(NamedTuple):
    """A node that waits for something on which to prove itself."""

    node: Any
    labels: str  # what it learned from


class Gated(Trainer, ABC):
    """Lets a strategy propose nodes, and publishes those that prove themselves on what is new.

    What it learns from comes in parts, words of a receiver or stretches of a track. A node is what
    a subclass says; it has `weights(name, version, parent, labels)`. A proposed node is pending
    until it is judged by losses on a part that neither it nor what serves was trained on: it is
    published, unless its mean loss exceeds that of the serving node by more than `tolerance`
    standard errors of the paired difference, or anything is not finite. After k refusals in a row
    2^k parts pass, at most `longest_wait`, before it goes on.

    A version that turns out worse is taken back (training/watch.py): that which served `patience`
    parts ago is published again, under its number.

    A strategy may take `budget_s` for a lesson. One that takes longer is given up and begins anew,
    once what it was doing has ended; so a step that never ends costs what it learns and nothing
    else. With an integer delay of the feedback edge, results depend on the machine as soon as an
    update meets that bound; 0 has none.
    """

    #: Parameters, which a subclass declares with its own units and defaults.
    model: str
    tolerance: float
    patience: int
    longest_wait: int

    budget_s: float = param(
        default=10.0, at_least=0.0, unit="s", doc="time that an update may take; 0: any"
    )

    # What a subclass fills in:

    @abstractmethod
    def _strategy(self) -> Strategy:
        """A fresh one, which remembers nothing."""

    @abstractmethod
    def _fresh(self) -> Any:
        """A node that knows nothing, where no model is given; ParameterError where none can be."""

    @abstractmethod
    def _node_of(self, weights: Weights) -> Any:
        """The node that was published as these weights; WeightsError where they are none."""

    @abstractmethod
    def _rehearse(self, strategy: Strategy) -> None:
        """Let a strategy that is thrown away compile what it needs, by a lesson of nothing."""

    @abstractmethod
    def _fault(self, node: Any) -> tuple[str, str]:
        """For what reason, and why, a node cannot come in the place of what serves; or nothing."""

    def _begin(self) -> None:
        """Forget what was gathered to learn from."""

    def _counted(self) -> Sequence[str]:
        """Names of what it counts beside what all do."""
        return ()

    def _parts(self) -> Sequence[tuple[str, Any]]:
        """What has a state of its own, by name."""
        return (("strategy", self._making),)

    # the block

    def _first(self) -> Version:
        """What serves at the start."""
        if not self.model:
            return Version(None, self._fresh())
        weights = Models().load(self.model)
        return Version(weights, self._node_of(weights))

    def start(self) -> None:
        self._serving = self._first()
        self._newest = self._serving.weights.version if self._serving.weights else 0
        self._pending: Candidate | None = None
        self._watch = Watch(self.patience)
        self._budget = Budget(self.budget_s)
        self._begin()
        with suppress(Exception), np.errstate(all="ignore"):
            self._rehearse(self._strategy())  # compiling may take longer than an update may
        self._making = self._strategy()
        self._refused_in_a_row = self._wait = 0
        kinds = (*self._counted(), "trained", "published", "rolled_back", *REASONS)
        self._counts = dict.fromkeys(kinds, 0)
        self._update_ns, self._longest_ns = Histogram(), 0
        self._notes: deque[Mapping[str, Any]] = deque(maxlen=MOST_NOTES)

    def _take_back(self, where: Mapping[str, Any], why: str = "") -> None:
        """Let the version serve again that served before, if it was better."""
        reference = self._watch.reference
        if reference is None or reference is self._serving or reference.weights is None:
            return  # nothing to return to
        if why := why or self._watch.alarm():
            left, self._serving = self._serving, reference
            self._watch.returned()
            self._pending = None
            self._counts["rolled_back"] += 1
            self._back_off()
            self._note("returned", where, version=reference.weights.version,
                       instead_of=left.weights.version if left.weights else 0, why=why)  # fmt: skip

    def _decide(
        self, candidate: Candidate, losses: Array, less: Array, where: Mapping[str, Any]
    ) -> None:
        """Publish or refuse a candidate by its losses, and those of what serves on the same."""
        if not np.isfinite(losses).all():
            self._refuse("not_finite", where, why="its losses are not finite")
            return
        over = excess(losses, less)
        scores = {"loss": float(losses.mean()), "serving_loss": float(less.mean())}
        if over > self.tolerance:
            self._refuse("worse", where, why=self._said_worse, **scores)
            return
        parent = self._serving.weights
        try:
            weights = candidate.node.weights(
                parent.name if parent else candidate.node.kind, version=self._newest + 1,
                parent=parent.version if parent else 0, labels=candidate.labels,
            )  # fmt: skip
        except WeightsError as error:
            self._refuse("not_finite", where, why=str(error))
            return
        self._newest += 1
        self._serving = Version(weights, candidate.node)
        self._counts["published"] += 1
        self._refused_in_a_row = 0
        self._note("published", where, version=weights.version, parent=weights.parent,
                   labels=candidate.labels, **scores)  # fmt: skip

    @property
    def _said_worse(self) -> str:
        return "its loss is greater" if self.tolerance >= 0.0 else "its loss is not clearly less"

    def _train(self, lesson: Any, labels: str, where: Mapping[str, Any]) -> None:
        """Let the strategy propose something."""
        if self._budget.busy:
            return
        before = time.monotonic_ns()
        try:
            node = self._budget.run(lambda: self._making.update(self._serving.node, lesson))
            self._clock(time.monotonic_ns() - before)
            reason, why = ("", "") if node is None else self._fault(node)
        except TooLate as error:
            self._making = self._strategy()  # what goes on has the other one
            self._clock(time.monotonic_ns() - before)
            reason, why = "too_late", str(error)
        except Exception as error:
            reason, why = "failed", f"{type(error).__name__}: {error}"
        if reason:
            self._refuse(reason, where, why=why)
        elif node is not None:
            self._counts["trained"] += 1
            self._pending = Candidate(node, labels)

    def _refuse(self, reason: str, where: Mapping[str, Any], **about: Any) -> None:
        self._counts[reason] += 1
        self._back_off()
        self._note("refused", where, reason=reason, **about)

    def _back_off(self) -> None:
        self._refused_in_a_row += 1
        self._wait = min(2 ** min(self._refused_in_a_row, 30), self.longest_wait)

    def _clock(self, ns: int) -> None:
        self._update_ns.add([ns])
        self._longest_ns = max(self._longest_ns, ns)

    def _note(self, event: str, where: Mapping[str, Any], **about: Any) -> None:
        said = {
            key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in about.items()
        }  # JSON has no infinity
        self._notes.append({"event": event, **where, **said})

    def notes(self) -> Sequence[Mapping[str, Any]]:
        notes = list(self._notes)
        self._notes.clear()
        return notes

    def report(self, folder: Path | None) -> Mapping[str, Any]:
        serving = self._serving.weights
        counts = {key: count for key, count in self._counts.items() if key not in REASONS}
        return {
            **counts,
            "refused": sum(self._counts[reason] for reason in REASONS),
            **{f"refused_{reason}": self._counts[reason] for reason in REASONS},
            "version": serving.version if serving else 0,
            "newest_version": self._newest,
            "update_s": [self._update_ns.quantile(0.5) / 1e9, self._longest_ns / 1e9],
        }

    def state(self) -> Mapping[str, Array | Scalar]:
        seen = list(self._watch.seen)
        held = [self._serving]  # versions that may serve again, each once
        held += [part.serving for part in seen[-self.patience :]]
        versions = list({id(version): version for version in held}.values())
        places = {id(version): place for place, version in enumerate(versions)}
        notes = {
            "counts": self._counts,
            "newest": self._newest,
            "refused_in_a_row": self._refused_in_a_row,
            "wait": self._wait,
            "seen": [(places.get(id(w.serving), -1), w.accepted, w.worse) for w in seen],
            "pending": self._pending.labels if self._pending else "",
        }
        found: dict[str, Array | Scalar] = {"notes": json.dumps(notes)}
        for place, version in enumerate(versions):
            found[f"version.{place}"] = _as_bytes(version.weights)
        if self._pending:
            found["pending"] = _as_bytes(self._pending.node.weights("pending"))
        for part, remembers in self._parts():
            for name, value in remembers.state().items():
                is_array = isinstance(value, np.ndarray)
                found[f"{part}.{name}"] = np.array(value) if is_array else value
        return found

    def restore(self, state: Mapping[str, Any]) -> None:
        notes = json.loads(state["notes"])
        first = self._first()
        versions: list[Version] = []
        while (held := state.get(f"version.{len(versions)}")) is not None:
            weights = Weights.from_bytes(held.tobytes()) if held.size else None
            versions.append(Version(weights, self._node_of(weights)) if weights else first)
        self._serving = versions[0]
        self._counts, self._newest = notes["counts"], notes["newest"]
        self._refused_in_a_row, self._wait = notes["refused_in_a_row"], notes["wait"]
        self._watch = Watch(self.patience)
        for place, accepted, worse in notes["seen"]:
            self._watch.add(versions[place] if place >= 0 else None, accepted, worse)
        self._pending = None
        if notes["pending"]:
            node = self._node_of(Weights.from_bytes(state["pending"].tobytes()))
            self._pending = Candidate(node, notes["pending"])
        self._begin()
        self._making = self._strategy()
        for part, remembers in self._parts():
            prefix = f"{part}."
            remembers.restore(
                {
                    name.removeprefix(prefix): state[name]
                    for name in state
                    if name.startswith(prefix)
                }
            )


def _as_bytes(weights: Weights | None) -> Array:
    """(n,) uint8; none of what is published as nothing."""
    return np.frombuffer(weights.to_bytes() if weights else b"", np.uint8)
