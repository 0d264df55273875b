"""Notices a flow that cannot go on: frames wait for weights that nobody will send.

With an integer delay, frame n waits for the weights after frame n - delay. If a block on the way
to the trainer holds that frame back until it sees frame n, neither ever moves. One worker sees that
by itself; where several are part of the circle, the statuses that they send show it: frames wait
somewhere, nothing is under way to a worker that would take it, and no worker has done anything
between several statuses of each. A worker that computes sends none, so a slow trainer is not
mistaken for one that stands still.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.weights_input import never_decided

QUIET = 5  # statuses without a change, of every worker


class Standstill:
    """Follows the statuses of the workers of a run."""

    def __init__(self) -> None:
        self._last: dict[str, Mapping[str, Any]] = {}
        self._moved: dict[str, Any] = {}
        self._quiet: dict[str, int] = {}

    def note(self, worker: str, status: Mapping[str, Any]) -> None:
        """Take the status of a worker."""
        self._last[worker] = status
        moved = (
            {name: block["frames"] for name, block in status["blocks"].items()},
            {name: edge["frames"] for name, edge in status["edges"].items()},
            status["waits"],
        )
        if moved == self._moved.get(worker):
            self._quiet[worker] = self._quiet.get(worker, 0) + 1
        else:
            self._moved[worker] = moved
            self._quiet.clear()

    def forget(self, worker: str) -> None:
        """Leave aside a worker without which the flow goes on."""
        for known in (self._last, self._moved, self._quiet):
            known.pop(worker, None)

    def error(self, running: Iterable[str]) -> str:
        """What stands still and why; "" while something may still move.

        running   the workers that have not ended
        """
        waits = [item for status in self._last.values() for item in status["waits"]]
        if not waits or any(self._quiet.get(worker, 0) < QUIET for worker in running):
            return ""
        frames: dict[str, set[int]] = {}
        holds: dict[str, list[int]] = {}
        held_up: set[str] = set()
        for status in self._last.values():
            holds.update(status["holds"])
            held_up.update(status["held_up"])
            for name, edge in status["edges"].items():
                frames.setdefault(name, set()).add(edge["frames"])
        if any(len(counts) > 1 for name, counts in frames.items() if name not in held_up):
            return ""  # something is under way
        return never_decided(waits[0], holds)


__all__ = ["Standstill"]
