"""What the `kalvit` command starts: Ctrl-C ends it quietly even while Python still imports."""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = 130


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


signal.signal(signal.SIGINT, _leave)


def main() -> None:
    """Run the command line."""
    from pipeline.cli import run_app

    raise SystemExit(run_app())
