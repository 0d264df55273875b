"""Runs flows as a user does and does them harm; shared by test_faults.py and bench/faults.py."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).parent.parent
BLOCKS = Path(__file__).with_name("fault_blocks.py")
THREE = ("--worker", "middle=middle", "--worker", "end=count")

FLOW = """
name = "faulty"
doc = "a source, a block and a sink that fail on request"
[blocks.source]
use = "source.fault"
[blocks.middle]
use = "frontend.fault"
[blocks.count]
use = "sink.fault"
[edges]
data = ["source -> middle -> count"]
"""


def wait_until(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The first true answer; AssertionError where none comes in time."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.005)
    return found


def gone(pid: int) -> bool:
    """Whether a process has ended (one that nobody has waited for has)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@dataclass
class Place:
    """A runs folder and a runtime directory of one's own."""

    path: Path

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    @property
    def root(self) -> Path:
        """Where run directories lie."""
        return self.path / "kalvit"

    @property
    def env(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "KALVIT_RUNS": str(self.runs),
            "XDG_RUNTIME_DIR": str(self.path),
            "PYTHONPATH": str(REPOSITORY),
        }

    def flow(self, text: str = FLOW) -> Path:
        """A flow file."""
        file = self.path / "faulty.toml"
        file.write_text(text, encoding="utf-8")
        return file

    def folders(self) -> list[Path]:
        """Run folders, the oldest first."""
        with suppress(FileNotFoundError):
            return sorted(self.runs.iterdir(), key=lambda path: path.stat().st_mtime)
        return []

    def workers(self, run: str = "") -> dict[str, int]:
        """Process ids of the workers of a run by name, or of all."""
        found = {}
        for process in psutil.process_iter(["cmdline", "pid", "status"]):
            words = process.info["cmdline"] or []
            if "pipeline.worker" in words and process.info["status"] != psutil.STATUS_ZOMBIE:
                directory, name = words[words.index("pipeline.worker") + 1 :][:2]
                if directory.startswith(str(self.root / run)):
                    found[name] = process.info["pid"]
        return found

    def leftovers(self) -> list[str]:
        """Processes, sockets and locks that outlived their run."""
        left = [f"process {pid} ({name})" for name, pid in self.workers().items()]
        if self.root.exists():
            left += [str(path) for path in self.root.rglob("*")]
        return left

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A `kalvit` command beside the runs of this place."""
        return subprocess.run(
            [*KALVIT, *arguments], env=self.env, text=True, capture_output=True, timeout=60
        )


def _kalvit() -> list[str]:
    script = Path(sys.executable).with_name("kalvit")
    return [str(script)] if script.exists() else [sys.executable, "-m", "pipeline"]


KALVIT = _kalvit()


@contextmanager
def place() -> Iterator[Place]:
    """A place that is empty, and removed afterwards; its path is short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="kf-"))
    here = Place(path)
    try:
        yield here
    finally:
        for pid in here.workers().values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(path, ignore_errors=True)


@dataclass
class Run:
    """A `kalvit run` in a process of its own; a context manager that leaves none behind."""

    place: Place
    process: subprocess.Popen[bytes]
    spawned: float
    output: Path
    before: set[Path]

    @classmethod
    def start(cls, place: Place, flow: str, *arguments: str, stdout: Any = None) -> Run:
        before = set(place.folders())
        output = place.path / f"output{len(list(place.path.glob('output*')))}"
        with open(output, "wb") as file:
            spawned = time.monotonic()
            process = subprocess.Popen(
                [*KALVIT, "run", flow, *arguments],
                env=place.env, stdin=subprocess.DEVNULL, stdout=stdout or file, stderr=file,
                start_new_session=True,
            )  # fmt: skip
        return cls(place, process, spawned, output, before)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            wait_until(lambda: not self.workers())
            shutil.rmtree(self.place.root, ignore_errors=True)

    def text(self) -> str:
        """What it has printed."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def folder(self) -> Path | None:
        """The run folder, once there is one; of several started at once, any."""
        return next((path for path in self.place.folders() if path not in self.before), None)

    def workers(self) -> dict[str, int]:
        """Process ids of its workers by name."""
        folder = self.folder()
        return self.place.workers(folder.name) if folder else {}

    def running(self, workers: int, seconds: float = 30.0) -> dict[str, int]:
        """Wait until frames flow; process ids of the workers by name."""

        def flowing() -> bool:
            assert self.process.poll() is None, self.text()
            blocks = self.status().get("blocks", {})
            return len(blocks) == 3 and all(block["frames"] for block in blocks.values())

        wait_until(flowing, seconds)
        found = self.workers()
        assert len(found) == workers, found
        return found

    def status(self) -> Mapping[str, Any]:
        """What the supervisor says, or nothing while it cannot."""
        from pipeline.control import ask
        from pipeline.errors import RunError

        folder = self.folder()
        control = self.place.root / folder.name / "control" if folder else None
        if control is None or not control.exists():
            return {}
        try:
            summary: Mapping[str, Any] = ask(f"ipc://{control}", {"verb": "status"})["summary"]
        except RunError:
            return {}
        return summary

    def end(self, seconds: float = 20.0) -> float:
        """Wait for the end; returns how long that took."""
        begin = time.monotonic()
        self.process.wait(seconds)
        return time.monotonic() - begin

    def summary(self) -> Any:
        """The summary that it has written."""
        folder = self.folder()
        assert folder is not None
        return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Interrupted:
    """How a run took a Ctrl-C."""

    delay: float
    workers: int
    code: int
    seconds: float
    folder: bool
    summary: bool
    traceback: bool
    leftovers: Sequence[str]
    text: str

    def faults(self, limit_s: float) -> list[str]:
        """What was not as it should be."""
        found = []
        if self.code != 130:
            found.append(f"exit code {self.code}")
        if self.seconds > limit_s:
            found.append(f"took {self.seconds:.2f} s")
        if self.folder and not self.summary:
            found.append("no summary")
        if self.traceback:
            found.append("traceback")
        return [*found, *self.leftovers]


def interrupt(delay: float, workers: int) -> Interrupted:
    """Start an endless flow with 1 or 3 workers and press Ctrl-C after `delay` seconds."""
    with place() as here:
        arguments = THREE if workers == 3 else ()
        with Run.start(here, str(here.flow()), "--blocks", str(BLOCKS), *arguments) as run:
            time.sleep(max(0.0, run.spawned + delay - time.monotonic()))
            run.process.send_signal(signal.SIGINT)
            seconds = run.end()
            folder = run.folder()
            return Interrupted(
                delay, workers, run.process.returncode, seconds,
                folder is not None, folder is not None and (folder / "summary.json").exists(),
                "Traceback" in run.text(), here.leftovers(), run.text(),
            )  # fmt: skip
