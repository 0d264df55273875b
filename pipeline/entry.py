"""What the `kalvit` command starts: Ctrl-C ends it quietly even while Python still imports."""

from __future__ import annotations

import errno
import os
import signal
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT
HUNG_UP = 128 + signal.SIGHUP
SHOW_CURSOR = b"\x1b[?25h"


def _leave(number: int, frame: FrameType | None) -> None:
    """Leave at once. Nothing has started yet, or all has ended."""
    if os.isatty(1):
        os.write(1, SHOW_CURSOR)  # a live table may have hidden it
    os._exit(INTERRUPTED)


signal.signal(signal.SIGINT, _leave)


def main() -> None:
    """Run the command line."""
    from pipeline.cli import run_app

    try:
        code = run_app()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        os._exit(HUNG_UP)  # the terminal is gone; there is nobody to tell
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is over: keep the exit code
    raise SystemExit(code)
