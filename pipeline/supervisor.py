"""Starts the workers of a flow, watches them, stops them, and carries their errors out.

The supervisor runs no block, so that it reacts at once. Workers are separate Python programs;
each gets the flow as data and ends when the supervisor ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import zmq

from pipeline.control import pack, unpack
from pipeline.errors import RunError
from pipeline.metrics import summary
from pipeline.plan import Plan
from pipeline.roots import Limits
from pipeline.rundir import RunDir
from pipeline.transport.edge import WINDOW
from pipeline.transport.sockets import CurveKeys
from pipeline.wire import CAP

START_S = 10.0  # a worker that says nothing for so long does not come up
READY_S = 60.0  # imports and the opening of files may take so long
DRAIN_S = 1.5  # after a stop, what is under way may take so long
END_S = 1.0  # a worker that is told to end may take so long
LOOK_MS = 50
STATUS_S = 0.25

#: Threads of numerical libraries: one for each worker, unless the user has set them.
ONE_THREAD = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip

Status = Callable[[Mapping[str, Any]], None]


@dataclass
class Outcome:
    """How a run ended.

    code     0 well, 1 a block or a worker failed, 2 bad use, 130 interrupted
    errors   what went wrong, each meant to be printed
    """

    summary: dict[str, Any]
    folder: Path
    code: int = 0
    errors: list[str] = field(default_factory=list)


class Supervisor:
    """One run of a flow in worker processes."""

    def __init__(
        self,
        plan: Plan,
        *,
        limits: Limits | None = None,
        runs: Path | None = None,
        block_files: Iterable[Path] = (),
        window: int = WINDOW,
        frame_cap: int = CAP,
    ) -> None:
        self._plan = plan
        self._limits = limits or Limits()
        self._runs = runs or Path(os.environ.get("KALVIT_RUNS", "runs"))
        self._block_files = [str(Path(file).resolve()) for file in block_files]
        self._window, self._frame_cap = window, frame_cap
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._last: dict[str, Mapping[str, Any]] = {}
        self._said: dict[str, str] = {}  # worker -> its last word of hello, ready, failed, done
        self._errors: list[str] = []
        self._code = 0
        self._signals = 0
        self._stop_at = 0.0  # when the stop was asked for
        self._started = 0.0

    def run(self, on_status: Status | None = None) -> Outcome:
        """Run the flow to its end; `on_status` gets a summary so far, four times a second.

        Raises RunError where it cannot start. SIGINT and SIGTERM stop it in order; a second one
        ends it at once.
        """
        handlers = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            with RunDir(self._plan.flow.name) as run_dir:
                return self._run(run_dir, on_status or (lambda snapshot: None))
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1

    def _run(self, run_dir: RunDir, on_status: Status) -> Outcome:
        self.run_id = run_dir.run_id
        folder = (self._runs / run_dir.run_id).resolve()
        try:
            folder.mkdir(parents=True)
            order = json.dumps(self._order(run_dir, folder))
            (run_dir.path / "order.json").write_text(order, encoding="utf-8")
            (run_dir.path / "order.json").chmod(0o600)
        except OSError as error:
            raise RunError(
                f"cannot write {error.filename}: {error.strerror}; make room, "
                "or set KALVIT_RUNS to another directory"
            ) from None
        self.folder = folder
        context = zmq.Context()
        self._router = context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 200)
        self._router.setsockopt(zmq.SNDHWM, 0)
        try:
            self._router.bind(run_dir.endpoint("control"))
            self._launch(run_dir)
            self._watch(on_status)
        finally:
            self._end()
            self._router.close()
            context.term()
        found = self._summary()
        if self._signals:
            self._code = 130
        outcome = Outcome(found, folder, self._code, self._errors)
        write_atomically(folder / "summary.json", json.dumps(found, indent=2) + "\n")
        return outcome

    def _order(self, run_dir: RunDir, folder: Path) -> dict[str, Any]:
        """Everything that a worker needs to know, as data."""
        endpoints = {}
        tcp = False
        for number, edge in enumerate(self._plan.flow.edges):
            if self._crosses(edge.source, edge.target):
                endpoints[edge.name] = edge.via or run_dir.endpoint(f"edge{number}")
                tcp |= bool(edge.via)
        return {
            "flow": self._plan.flow.to_dict(),
            "folder": str(folder),
            "block_files": self._block_files,
            "frames": self._limits.frames,
            "seconds": self._limits.seconds,
            "window": self._window,
            "frame_cap": self._frame_cap,
            "endpoints": endpoints,
            "keys": asdict(CurveKeys.new()) if tcp else None,
        }

    def _crosses(self, source: str, target: str) -> bool:
        return self._plan.blocks[source].worker != self._plan.blocks[target].worker

    def _launch(self, run_dir: RunDir) -> None:
        reading, self._lifeline = os.pipe()
        threads = {name: os.environ.get(name, "1") for name in ONE_THREAD}
        stdin_reader = self._stdin_worker()
        with open(self.folder / "log", "ab") as log:
            for name in self._plan.workers:
                self._processes[name] = subprocess.Popen(  # noqa: S603 (our own program)
                    [
                        sys.executable, "-m", "pipeline.worker", str(run_dir.path), name,
                        str(reading),
                    ],
                    env={**os.environ, **threads},
                    stdin=None if name == stdin_reader else subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[reading],
                    start_new_session=True,  # Ctrl-C reaches the supervisor alone
                )  # fmt: skip
        os.close(reading)
        self._started = time.monotonic()

    def _stdin_worker(self) -> str | None:
        """The worker whose source reads standard input, marked by the path '-'."""
        for block in self._plan.blocks.values():
            if block.block.values().get("path") == "-":
                return block.worker
        return None

    def _watch(self, on_status: Status) -> None:
        """The life of a run: wait for all workers, let them go, wait for their results."""
        going = False
        shown = 0.0
        while True:
            if self._router.poll(LOOK_MS):
                self._receive()
            now = time.monotonic()
            self._check_processes()
            if self._errors or self._signals > 1:
                return
            if self._signals and not self._stop_at:
                self._stop()
            if self._stop_at and not going:
                return
            if self._stop_at and now - self._stop_at > DRAIN_S:
                if now - self._stop_at > DRAIN_S + 0.5:
                    return
                self._tell("abort")
            if not going:
                going = self._all_ready(now)
            elif all(word == "done" for word in self._said.values()):
                return
            if going and now - shown > STATUS_S:
                shown = now
                on_status(self._summary())

    def _all_ready(self, now: float) -> bool:
        """Let the workers go once all are ready; name those that do not come up."""
        waited = now - self._started
        silent = [name for name in self._processes if name not in self._said]
        unready = [name for name in self._processes if self._said.get(name) != "ready"]
        if silent and waited > START_S:
            self._fail(1, f"worker {', '.join(silent)} did not come up within {START_S:.0f} s")
        elif unready and waited > READY_S:
            self._fail(1, f"worker {', '.join(unready)} was not ready within {READY_S:.0f} s")
        elif not unready:
            self._tell("go")
            self._went_ns = time.monotonic_ns()
            return True
        return False

    def _receive(self) -> None:
        with suppress(zmq.Again):
            while True:
                identity, data = self._router.recv_multipart(zmq.NOBLOCK)
                try:
                    message = unpack(data)
                except RunError:
                    continue
                if identity.startswith(b"worker:"):
                    self._from_worker(identity[len(b"worker:") :].decode(), message)
                else:
                    self._from_client(identity, message)

    def _from_worker(self, name: str, message: Mapping[str, Any]) -> None:
        verb = message["verb"]
        if name not in self._processes:
            return
        if verb in ("status", "done"):
            self._last[name] = message
        if verb != "status":
            self._said[name] = verb
        if verb == "failed":
            self._fail(2 if message["for_user"] else 1, message["text"])

    def _from_client(self, identity: bytes, message: Mapping[str, Any]) -> None:
        if message["verb"] == "stop":
            self._stop()
            answer: dict[str, Any] = {"verb": "ok"}
        elif message["verb"] == "status":
            workers = {name: process.pid for name, process in self._processes.items()}
            answer = {"verb": "status", "summary": self._summary(), "workers": workers}
        else:
            answer = {"verb": "error", "text": f"this release knows no {message['verb']!r}"}
        self._router.send_multipart([identity, pack(answer)])

    def _check_processes(self) -> None:
        for name, process in self._processes.items():
            code = process.poll()
            if code is None or self._said.get(name) in ("done", "failed"):
                continue
            self._receive()  # its last words may be under way
            if self._said.get(name) in ("done", "failed"):
                continue
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited ({code})"
            self._fail(1, f"worker {name} {how}; its output is in {self.folder / 'log'}")

    def _fail(self, code: int, text: str) -> None:
        if text not in self._errors:
            self._errors.append(text)
            self._code = self._code or code

    def _stop(self) -> None:
        if not self._stop_at:
            self._stop_at = time.monotonic()
            self._tell("stop")

    def _tell(self, verb: str) -> None:
        for name in self._processes:
            self._router.send_multipart([f"worker:{name}".encode(), pack({"verb": verb})])

    def _end(self) -> None:
        """End every worker: by word, then by signal."""
        self._tell("exit")
        patience = END_S if not self._errors and self._signals < 2 else 0.1
        deadline = time.monotonic() + patience
        for process in self._processes.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        for process in self._processes.values():
            process.wait()
        with suppress(OSError, AttributeError):
            os.close(self._lifeline)

    def _summary(self) -> dict[str, Any]:
        end_ns = max((int(s.get("finished_ns", 0)) for s in self._last.values()), default=0)
        if not all(word == "done" for word in self._said.values()):
            end_ns = time.monotonic_ns()
        went_ns = getattr(self, "_went_ns", end_ns)
        found = summary(
            flow=self._plan.flow.name,
            seed=self._plan.flow.seed,
            seconds=(end_ns - went_ns) / 1e9,
            workers=self._last,
            edges=[
                (e.source, e.target, not self._crosses(e.source, e.target))
                for e in self._plan.flow.edges
                if e.kind != "weights"
            ],
        )
        left = [s.get("left") for s in self._last.values()]
        found["left"] = None if not left or None in left else sum(int(n) for n in left if n)
        return {"run": self.run_id} | found


def write_atomically(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from None
