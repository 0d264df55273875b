"""Starts the workers of a flow, watches them, stops them, and carries their errors out.

The supervisor runs no block, so that it reacts at once. Workers are separate Python programs;
each gets the flow as data and ends when the supervisor ends.

A run ends in up to three steps, each with its own patience: *stop* lets the sources end and all
that is under way be processed; *abort* drops what is under way and asks for results; *exit* ends
the processes, by signal where they do not hear. A flow that ends by itself needs only the last.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import zmq

from pipeline.control import pack, unpack
from pipeline.errors import RunError, did_you_mean
from pipeline.metrics import summary
from pipeline.plan import Plan
from pipeline.roots import Limits
from pipeline.rundir import RunDir
from pipeline.standstill import Standstill
from pipeline.transport.sockets import CurveKeys

LOOK_S = 0.05
ENDED = ("done", "failed", "lost")  # last words of a worker
STATUS_S = 0.25

#: Signals that stop a run in order; its exit code is then 128 + the number, as in a shell.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Threads of numerical libraries: one for each worker, unless the user has set them.
ONE_THREAD = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip

Status = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a supervisor waits, in seconds.

    start    for the first word of a worker
    ready    for its imports, and until its files are open
    stop     for what is under way, when asked to stop by `kalvit stop`: since a frame last moved
    signal   for all of it, after a signal: with `abort` and `end` well below 3 s
    draw     for pictures, on top of that, once all that was under way is processed
    abort    for the results of a worker that was told to drop what is under way
    end      for the end of a process that was told to end
    """

    start: float = 10.0
    ready: float = 60.0
    stop: float = 10.0
    signal: float = 1.4
    draw: float = 10.0
    abort: float = 0.6
    end: float = 0.4


class _Hurry(BaseException):
    """Breaks off a display that blocks, so that a second Ctrl-C ends a run at once."""


@dataclass
class Outcome:
    """How a run ended.

    code     0 well, 1 a block or a worker failed, 2 bad use, 128 + n stopped by signal n (130:
             Ctrl-C). A worker that only learns may fail: the flow goes on, and `warnings` of the
             summary say so
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
        patience: Patience | None = None,
        replay: Path | None = None,
    ) -> None:
        self._plan = plan
        self._replay = replay  # folder of a run whose swaps are repeated
        self._limits = limits or Limits()
        self._runs = runs or runs_folder()
        self._block_files = [str(Path(file).resolve()) for file in block_files]
        self._patience = patience or Patience()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._last: dict[str, Mapping[str, Any]] = {}  # worker -> its last numbers
        self._last_at: dict[str, float] = {}  # when they came
        self._frames: dict[str, int] = {}  # that the blocks of a worker have seen together
        self._moved_at = 0.0  # when that changed
        self._standstill = Standstill()
        self._said: dict[str, str] = {}  # worker -> its last word of hello, ready, failed, done
        self._drained: set[str] = set()  # workers whose streams have ended
        self._errors: list[str] = []
        self._warnings: list[str] = []
        self._code = 0
        self._signals: list[int] = []
        self._showing = False
        self._show: Status | None = None
        self._stopping = self._aborting = False
        self._deadline = float("inf")  # of the step under way
        self._started = 0.0
        self._went_ns = 0  # when the workers were let go

    @property
    def processes(self) -> dict[str, int]:
        """Process ids of the workers that were started, by name."""
        return {name: process.pid for name, process in self._processes.items()}

    def run(self, on_status: Status | None = None) -> Outcome:
        """Run the flow to its end; `on_status` gets a summary so far, four times a second.

        SIGINT, SIGTERM and SIGHUP stop it in order; a second one ends it at once. A display that
        cannot be written to is left alone; if its reader has gone, the flow is stopped.

        Raises RunError where it cannot start.
        """
        self._show = on_status
        handlers = {}
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # started by nohup
                handlers[number] = signal.signal(number, self._on_signal)
        try:
            runs = self._runs.resolve()
            with RunDir(self._plan.flow.name, lambda run_id: (runs / run_id).exists()) as run_dir:
                return self._run(run_dir, runs / run_dir.run_id)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)
        if self._showing and self._hurried:
            self._showing = False
            raise _Hurry

    @property
    def _hurried(self) -> bool:
        return len(self._signals) > 1

    def _run(self, run_dir: RunDir, folder: Path) -> Outcome:
        self.run_id, self.folder = run_dir.run_id, folder
        context = zmq.Context()
        self._router = context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 200)
        self._router.setsockopt(zmq.SNDHWM, 0)
        try:
            self._router.bind(run_dir.endpoint("control"))
            try:
                self._launch(run_dir)
            except OSError as error:
                raise RunError(
                    f"cannot make {error.filename or folder}: {error.strerror}; set KALVIT_RUNS "
                    "to a directory that has room and that you may write to"
                ) from None
            self._watch()
        finally:
            self._end()
            self._router.close()
            context.term()
        return self._outcome()

    def _outcome(self) -> Outcome:
        """The end of a run that has started, with its summary written."""
        code = 128 + self._signals[0] if self._signals else self._code
        found = self._summary() | {"exit_code": code, "errors": self._errors}
        try:
            text = json.dumps(found, indent=2, allow_nan=False) + "\n"
            write_atomically(self.folder / "summary.json", text)
        except RunError as error:
            self._fail(2, str(error))
        return Outcome(found, self.folder, code or self._code, self._errors)

    def _order(self, run_dir: RunDir) -> dict[str, Any]:
        """Everything that a worker needs to know, as data."""
        endpoints = {}
        tcp = False
        for number, edge in enumerate(self._plan.flow.edges):
            if self._crosses(edge.source, edge.target):
                endpoints[edge.name] = edge.via or run_dir.endpoint(f"edge{number}")
                tcp |= bool(edge.via)
        return {
            "flow": self._plan.flow.to_dict(),
            "folder": str(self.folder),
            "block_files": self._block_files,
            "frames": self._limits.frames,
            "seconds": self._limits.seconds,
            "window": self._plan.flow.window,
            "frame_cap": self._plan.flow.frame_cap,
            "endpoints": endpoints,
            "keys": asdict(CurveKeys.new()) if tcp else None,
            "replay": str(self._replay.resolve()) if self._replay else "",
        }

    def _crosses(self, source: str, target: str) -> bool:
        return self._plan.blocks[source].worker != self._plan.blocks[target].worker

    # starting

    def _launch(self, run_dir: RunDir) -> None:
        """Make the folder of the run and start every worker."""
        order = run_dir.path / "order.json"
        order.touch(mode=0o600)
        order.write_text(json.dumps(self._order(run_dir)), encoding="utf-8")
        self.folder.mkdir(parents=True)
        self._started = time.monotonic()
        reading, self._lifeline = os.pipe()
        threads = {name: os.environ.get(name, "1") for name in ONE_THREAD}
        stdin_reader = self._stdin_worker()
        try:
            with open(self.folder / "log", "ab") as log:
                for name in self._plan.workers:
                    if self._signals:
                        return
                    self._processes[name] = subprocess.Popen(  # noqa: S603 (our own program)
                        [
                            sys.executable, "-X", "faulthandler", "-m", "pipeline.worker",
                            str(run_dir.path), name, str(reading),
                        ],
                        env={**os.environ, **threads},
                        stdin=None if name == stdin_reader else subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        pass_fds=[reading],
                        start_new_session=True,  # Ctrl-C reaches the supervisor alone
                    )  # fmt: skip
        finally:
            os.close(reading)

    def _stdin_worker(self) -> str | None:
        """The worker whose source reads standard input, marked by the path '-'."""
        for block in self._plan.blocks.values():
            if block.block.values().get("path") == "-":
                return block.worker
        return None

    def _let_go(self, now: float) -> None:
        """Let the workers go once all are ready; name those that do not come up."""
        waited = now - self._started
        silent = [name for name in self._processes if name not in self._said]
        unready = [name for name in self._processes if self._said.get(name) != "ready"]
        if not unready:
            self._tell("go")
            self._went_ns = time.monotonic_ns()
        elif silent and waited > self._patience.start:
            self._late(silent, "did not come up", self._patience.start)
        elif waited > self._patience.ready:
            self._late(unready, "was not ready", self._patience.ready)

    def _late(self, names: list[str], what: str, waited: float) -> None:
        for name in names:
            self._fail(1, f"worker {name} {what} within {waited:g} s; its output is in {self._log}")

    # watching

    def _watch(self) -> None:
        """The life of a run: wait for all workers, let them go, wait for their results."""
        shown = time.monotonic()
        self._display()  # at once: starting takes a second
        while not self._hurried:
            self._wait(LOOK_S)
            self._check_processes()
            now = time.monotonic()
            if not self._went_ns:
                if self._errors or self._signals or self._stopping:
                    return  # nothing is under way yet
                self._let_go(now)
                continue
            if all(self._settled(name) for name in self._processes):
                return
            running = (name for name in self._processes if not self._settled(name))
            if text := self._standstill.error(running):
                self._fail(2, text)
            if self._signals:
                self._stop(now + self._patience.signal)
            if now > self._deadline and self._aborting:
                return
            if self._errors:
                self._abort(now)
            elif now > self._due():
                if self._lose_late():
                    self._deadline = now + self._patience.end
                    continue
                self._fail(1, "the flow took too long to stop; what was under way was dropped")
                self._abort(now)
            if now - shown > STATUS_S:
                shown = now
                self._display()

    def _due(self) -> float:
        """When a flow that was told to stop has taken too long."""
        deadline = self._deadline
        if self._stopping and not self._signals:
            deadline = max(deadline, self._moved_at + self._patience.stop)
        return deadline + (self._patience.draw if self._only_drawing() else 0.0)

    def _lose_late(self) -> bool:
        """End workers that only learn and did not stop; whether there were any."""
        late = [n for n in self._processes if not self._settled(n) and self._plan.dispensable(n)]
        for name in late:
            self._processes[name].kill()
            self._lose(name, f"worker {name} did not stop and was killed")
        return bool(late)

    def _settled(self, name: str) -> bool:
        """Whether a worker has told all that it can."""
        if self._said.get(name) in ENDED:
            return True
        # one that ends before is an error, which may not have been noticed yet
        return self._aborting and self._processes[name].poll() is not None

    def _only_drawing(self) -> bool:
        """Whether no worker has a frame under way any more."""
        return all(name in self._drained or self._settled(name) for name in self._processes)

    def _display(self) -> None:
        if self._show is None:
            return
        found = self._summary()
        try:
            try:
                self._showing = True
                self._show(found)
            finally:
                self._showing = False
        except _Hurry:
            self._show = None
        except BrokenPipeError:
            self._show = None
            self._stop(time.monotonic() + self._patience.stop)
        except OSError:
            self._show = None  # a terminal that has gone, a full disk: the run does not need it

    def _wait(self, seconds: float) -> None:
        """Take messages when they come, or after so long those whose coming was overlooked.

        Not by `poll`: that of pyzmq starts its time anew whenever a signal comes, and would wait
        for good while someone holds Ctrl-C down.
        """
        select.select([self._router.fileno()], [], [], seconds)
        self._receive()

    def _receive(self) -> None:
        with suppress(zmq.Again):
            while True:
                identity, *data = self._router.recv_multipart(zmq.NOBLOCK)
                try:
                    message = unpack(b"".join(data))
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
        if verb == "swapped":
            self._answer(bytes.fromhex(message["client"]), message)
            return
        if "blocks" in message:
            self._last[name] = message
            self._last_at[name] = time.monotonic()
            self._standstill.note(name, message)
            frames = sum(block["frames"] for block in message["blocks"].values())
            if self._frames.get(name) != frames:
                self._frames[name], self._moved_at = frames, time.monotonic()
        if verb == "drained":
            self._drained.add(name)
        elif verb != "status":
            self._said[name] = verb
        if verb == "failed" and self._plan.dispensable(name) and self._went_ns:
            self._lose(name, message["text"])
        elif verb == "failed":
            self._fail(2 if message["for_user"] else 1, message["text"])

    def _from_client(self, identity: bytes, message: Mapping[str, Any]) -> None:
        if message["verb"] == "stop":
            self._stop(time.monotonic() + self._patience.stop)
            answer: dict[str, Any] = {"verb": "ok"}
        elif message["verb"] == "status":
            answer = {"verb": "status", "summary": self._summary(), "workers": self.processes}
        elif message["verb"] in ("swap", "replace"):
            if not (refused := self._pass_change(identity, message)):
                return  # the worker answers
            answer = {"verb": "swapped", "refused": refused}
        else:
            answer = {"verb": "error", "text": f"this release knows no {message['verb']!r}"}
        self._answer(identity, answer)

    def _answer(self, identity: bytes, answer: Mapping[str, Any]) -> None:
        self._router.send_multipart([identity, pack(answer)])

    def _pass_change(self, identity: bytes, message: Mapping[str, Any]) -> str:
        """Pass a change on to the worker of the block; returns what stands against it."""
        block = self._plan.blocks.get(str(message.get("block")))
        if block is None:
            hint = did_you_mean(str(message.get("block")), self._plan.blocks)
            return f"{self._plan.flow.name} has no block {message.get('block')!r}{hint}"
        settings = message.get("set")
        if message["verb"] == "swap" and not isinstance(message.get("weights"), str):
            return "a swap that carries no weights"
        if message["verb"] == "replace" and not (
            isinstance(message.get("use"), str)
            and isinstance(settings, list)
            and all(isinstance(text, str) for text in settings)
        ):
            return "a swap that names no block to use"
        if not self._went_ns or self._said.get(block.worker) != "ready":
            return f"{block.name} is not running at the moment"
        order = {**message, "client": identity.hex()}
        self._answer(f"worker:{block.worker}".encode(), order)
        return ""

    def _check_processes(self) -> None:
        for name, process in self._processes.items():
            code = process.poll()
            if code is None or self._said.get(name) in ENDED:
                continue
            self._receive()  # its last words may be under way
            if self._said.get(name) in ENDED:
                continue
            how = f"was ended by {_signal_name(-code)}" if code < 0 else f"exited ({code})"
            text = f"worker {name} {how}; its output is in {self._log}"
            if self._plan.dispensable(name) and self._went_ns:
                self._lose(name, text)
            else:
                self._fail(1, text)

    def _lose(self, name: str, why: str) -> None:
        """Go on without a worker that only learns."""
        self._said[name] = "lost"
        self._standstill.forget(name)
        self._warnings.append(f"{why}; the flow goes on, and {name} learns no more")
        with suppress(OSError), open(self._log, "a", encoding="utf-8") as log:
            log.write(f"warning: {self._warnings[-1]}\n")
        self._tell("lost", worker=name)

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _fail(self, code: int, text: str) -> None:
        if text not in self._errors:
            self._errors.append(text)
            self._code = self._code or code

    # ending

    def _stop(self, deadline: float) -> None:
        """Let the sources end, and what is under way be processed until the deadline."""
        if self._aborting:
            return
        self._deadline = min(self._deadline, deadline)
        if not self._stopping:
            self._stopping = True
            self._tell("stop")

    def _abort(self, now: float) -> None:
        """Drop what is under way, and ask for results."""
        if not self._aborting:
            self._stopping = self._aborting = True
            self._deadline = now + self._patience.abort
            self._tell("abort")

    def _tell(self, verb: str, **more: str) -> None:
        for name in self._processes:
            self._router.send_multipart([f"worker:{name}".encode(), pack({"verb": verb, **more})])

    def _end(self) -> None:
        """End every worker: by word, then by signal."""
        alive = dict(self._processes)
        patience = self._patience.end if self._went_ns else 0.0  # before, there is nothing to close
        deadline = time.monotonic() + patience
        self._tell("exit")
        while True:
            alive = {name: process for name, process in alive.items() if process.poll() is None}
            if not alive or self._hurried or time.monotonic() > deadline:
                break
            self._wait(0.01)
        for name, process in alive.items():
            process.kill()
            told_all = self._said.get(name) in ENDED
            if self._went_ns and not self._hurried and not told_all:
                at = self._last_at.get(name)
                known = f"are {time.monotonic() - at:.1f} s old" if at else "are missing"
                self._fail(1, f"worker {name} did not stop and was killed; its numbers {known}")
        for process in self._processes.values():
            process.wait()
        with suppress(OSError, AttributeError):
            os.close(self._lifeline)

    def _summary(self) -> dict[str, Any]:
        went_ns = self._went_ns or time.monotonic_ns()
        end_ns = max((int(s.get("finished_ns", 0)) for s in self._last.values()), default=0)
        said = [self._said.get(name) for name in self._processes]
        live = not end_ns or any(word not in ("done", "lost") for word in said)
        if live:
            end_ns = time.monotonic_ns()
        found = summary(
            flow=self._plan.flow.name,
            seed=self._plan.flow.seed,
            seconds=(end_ns - went_ns) / 1e9,
            order=self._plan.blocks,
            workers=self._last,
            edges=[
                (e.source, e.target, not self._crosses(e.source, e.target))
                for e in self._plan.flow.edges
                if e.kind != "weights"
            ],
        )
        if live:
            at_ns = max((int(s["at_ns"]) for s in self._last.values()), default=went_ns)
            found["measured_s"] = round(max(0, at_ns - went_ns) / 1e9, 6)  # to the last counts
        left = [s.get("left") for s in self._last.values()]
        found["left"] = None if not left or None in left else sum(int(n) for n in left if n)
        return {"run": self.run_id} | found | {"warnings": list(self._warnings)}


def runs_folder() -> Path:
    """Where runs leave their folders."""
    return Path(os.environ.get("KALVIT_RUNS", "runs"))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def write_atomically(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from None
