"""Runs a flow in the background, and asks it for changes as the command line does."""

from __future__ import annotations

import base64
import threading
import time
from pathlib import Path

from pipeline import rundir
from pipeline.control import ask
from pipeline.errors import RunError
from pipeline.flow import Flow
from pipeline.supervisor import Patience, Supervisor
from pipeline.weights import Weights


class Running:
    """A run in the background, once block `watched` has seen `until` frames.

    files    of blocks that the workers load
    """

    def __init__(
        self,
        flow: Flow,
        files: list[Path],
        replay: Path | None = None,
        until: int = 1,
        watched: str = "learned",
        patience: Patience | None = None,
    ) -> None:
        self.boss = Supervisor(flow.check(), block_files=files, replay=replay, patience=patience)
        self.outcome = None
        self._watched = watched
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.wait_for(until)

    def _run(self) -> None:
        self.outcome = self.boss.run()

    def wait_for(self, frames: int) -> None:
        """Wait until the watched block has seen so many frames."""
        deadline = time.monotonic() + 60.0
        while self.frames < frames:
            assert time.monotonic() < deadline
            assert self._thread.is_alive()
            time.sleep(0.01)

    def status(self) -> dict:
        """The summary so far."""
        _, self.endpoint = rundir.find(None)
        return ask(self.endpoint, {"verb": "status"})["summary"]

    @property
    def frames(self) -> int:
        try:
            found = self.status()["blocks"]
        except RunError:
            return 0
        return found.get(self._watched, {"frames": 0})["frames"]

    def swap(self, weights: Weights | bytes | str | None, block: str = "learned") -> dict:
        """Offer other weights."""
        data = weights.to_bytes() if isinstance(weights, Weights) else weights
        text = base64.b64encode(data).decode() if isinstance(data, bytes) else data
        return ask(self.endpoint, {"verb": "swap", "block": block, "weights": text}, 10_000)

    def use(self, block: str, use: str, *settings: str) -> dict:
        """Ask for another block."""
        message = {"verb": "replace", "block": block, "use": use, "set": list(settings)}
        return ask(self.endpoint, message, 30_000)

    def stop(self):
        """Stop it in order; how it ended."""
        ask(self.endpoint, {"verb": "stop"})
        return self.end()

    def end(self):
        """Wait for the end; how it ended."""
        self._thread.join(60.0)
        assert self.outcome is not None
        return self.outcome
