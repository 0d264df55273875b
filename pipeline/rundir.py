"""Where a run keeps its sockets, and how runs on this host are found.

Sockets of a run lie in a private directory (mode 0700, new for each run), because libzmq lets a
second bind steal an ipc path without an error. A lock file, held as long as the supervisor lives,
tells a running one from what a killed one left behind; the next start sweeps those away. Runs
start and sweep one after the other, so that none takes a run that starts for one that was killed.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.errors import RunError, did_you_mean

IPC_PATH_LIMIT = 107  # bytes in a path of a Unix socket
ALONE_S = 5.0  # others start within milliseconds; one that was halted in the midst blocks us


def root() -> Path:
    """The directory that holds the run directories of this user."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.access(base, os.W_OK):
        return Path(base) / "kalvit"
    return Path(tempfile.gettempdir()) / f"kalvit-{os.getuid()}"


class RunDir:
    """A private directory for the sockets of one run; a context manager that removes it.

    taken   whether an id is in use elsewhere, in the folder of results for one
    """

    run_id: str
    path: Path

    def __init__(self, flow: str, taken: Callable[[str], bool] = lambda run_id: False) -> None:
        self._flow, self._taken = flow, taken
        self._lock = -1

    def __enter__(self) -> Self:
        parent = root()
        try:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _require_own(parent)
            with _alone(parent):
                _sweep(parent)
                self._make(parent)
        except OSError as error:
            raise RunError(
                f"cannot make a run directory in {parent}: {error.strerror}; "
                "set XDG_RUNTIME_DIR to another directory"
            ) from None
        return self

    def _make(self, parent: Path) -> None:
        while True:
            self.run_id = f"{self._flow}-{secrets.token_hex(3)}"
            self.path = parent / self.run_id
            self.endpoint("control")  # refuse a path that is too long before anything is made
            if self._taken(self.run_id):
                continue
            with suppress(FileExistsError):
                self.path.mkdir(mode=0o700)
                break
        self._lock = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

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


def _require_own(parent: Path) -> None:
    """RunError where someone else could have a hand in this directory."""
    found = parent.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise RunError(
            f"{parent} is no directory of your own; remove it, or set XDG_RUNTIME_DIR to yours"
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        parent.chmod(0o700)


@contextmanager
def _alone(parent: Path) -> Iterator[None]:
    """Hold the directory of all runs, so that nobody else starts or sweeps in it."""
    lock = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline = time.monotonic() + ALONE_S
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RunError(
                        f"another run has been starting in {parent} for {ALONE_S:.0f} s; "
                        "end it, or set XDG_RUNTIME_DIR to another directory"
                    ) from None
                time.sleep(0.005)
        yield
    finally:
        os.close(lock)


def _alive(path: Path) -> bool:
    """Whether a supervisor holds the lock of this run directory."""
    try:
        lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look do not collide
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def running() -> list[str]:
    """Ids of the runs that are alive."""
    parent = root()
    try:
        _require_own(parent)
        return sorted(path.name for path in parent.iterdir() if _alive(path))
    except FileNotFoundError:
        return []


def _sweep(parent: Path) -> None:
    """Remove the directories of runs whose supervisor is gone."""
    for path in parent.iterdir():
        if not _alive(path):
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
