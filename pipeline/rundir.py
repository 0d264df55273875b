"""Where a run keeps its sockets, and how runs on this host are found.

Sockets of a run lie in a private directory (mode 0700, new for each run), because libzmq lets a
second bind steal an ipc path without an error. A lock file, held as long as the supervisor lives,
tells a running one from what a killed one left behind; the next start sweeps those away.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.errors import RunError, did_you_mean

IPC_PATH_LIMIT = 107  # bytes in a path of a Unix socket


def root() -> Path:
    """The directory that holds the run directories of this user."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.access(base, os.W_OK):
        return Path(base) / "kalvit"
    return Path(tempfile.gettempdir()) / f"kalvit-{os.getuid()}"


class RunDir:
    """A private directory for the sockets of one run; a context manager that removes it."""

    def __init__(self, flow: str) -> None:
        self.run_id = f"{flow}-{secrets.token_hex(3)}"
        self.path = root() / self.run_id
        self._lock = -1

    def __enter__(self) -> Self:
        sweep()
        try:
            parent = root()
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if parent.stat().st_uid != os.getuid():
                raise RunError(f"{parent} belongs to another user; set XDG_RUNTIME_DIR to your own")
            self.path.mkdir(mode=0o700)
            self._lock = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise RunError(f"cannot make the run directory {self.path}: {error.strerror}") from None
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    def endpoint(self, name: str) -> str:
        """An ipc address in this directory; RunError where its path is too long for one."""
        path = str(self.path / name)
        if len(os.fsencode(path)) > IPC_PATH_LIMIT:
            raise RunError(
                f"{path} is longer than the {IPC_PATH_LIMIT} bytes of a socket path; "
                "set XDG_RUNTIME_DIR to a shorter directory"
            )
        return f"ipc://{path}"


def _alive(path: Path) -> bool:
    """Whether a supervisor holds the lock of this run directory."""
    try:
        lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def running() -> list[str]:
    """Ids of the runs that are alive."""
    try:
        return sorted(path.name for path in root().iterdir() if _alive(path))
    except OSError:
        return []


def sweep() -> None:
    """Remove the directories of runs whose supervisor is gone."""
    try:
        paths = list(root().iterdir())
    except OSError:
        return
    for path in paths:
        # a directory without a lock file is a run that starts at this moment
        if (path / "lock").exists() and not _alive(path):
            shutil.rmtree(path, ignore_errors=True)


def find(run: str | None) -> tuple[str, str]:
    """(id, control endpoint) of a running flow; None means the only one there is."""
    alive = running()
    if run is None:
        if len(alive) == 1:
            (run,) = alive
        elif not alive:
            raise RunError("no flow is running")
        else:
            raise RunError(f"several flows are running; name one: {', '.join(alive)}")
    elif run not in alive:
        known = f"; running: {', '.join(alive)}" if alive else "; no flow is running"
        raise RunError(f"no run named {run!r}{did_you_mean(run, alive) or known}")
    return run, f"ipc://{root() / run / 'control'}"
