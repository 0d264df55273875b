"""Runs the blocks of one worker. This is the only hot loop.

A worker has roots (its sources, and the edges that come in) and hands each frame of a root
through segments by direct calls until a sink or an edge to another worker ends the branch. It
never waits inside a frame: a root whose branches are out of credit is left alone, so that workers
that feed each other cannot lock up.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol

import zmq

from pipeline import catalogue
from pipeline.block import Reframe, Sink, Trainer
from pipeline.changes import Changes
from pipeline.control import WorkerLink
from pipeline.errors import KalvitError, RunError
from pipeline.flow import Edge, Flow
from pipeline.frame import Frame
from pipeline.metrics import Histogram
from pipeline.plan import Plan, Planned
from pipeline.rehearse import rehearse
from pipeline.replacing import planned_all
from pipeline.roots import WAIT_MS, Branch, EdgeRoot, Limits, SourceRoot
from pipeline.segment import BlockError, Out, Segment
from pipeline.swaps import Place, Replay, SwapLog, Use, read_swaps
from pipeline.takeovers import Takeovers
from pipeline.transport.edge import TAP_WINDOW, Receiver, Sender
from pipeline.transport.sockets import CurveKeys, bind, connect, data_socket
from pipeline.weights_input import ReplayInput, WeightsInput, never_decided
from pipeline.wire import Codec

now_ns = time.monotonic_ns

SLICE_NS = 2_000_000  # one root may work this long before the others and the edges are looked at
LOOK_NS = (
    5_000_000  # control messages, acknowledgements and stale messages are looked at this often
)
STATUS_NS = 200_000_000
STATUS_SHARE = 20  # times as long as a status took, the next one waits: frames come first


class Link(Protocol):
    """The worker's line to its supervisor."""

    def messages(self) -> list[Mapping[str, Any]]:
        """Messages that have come."""

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message."""


class Worker:
    """Builds the segments of one worker and runs them until its streams have ended.

    receivers  and senders: opens the ends of the edges to other workers, by edge; needed only
               where the plan has such edges
    folder     where sinks leave pictures and files, and swaps are logged
    replay     what changed in another run, to be repeated; None: this run has its own changes
    """

    def __init__(
        self,
        plan: Plan,
        name: str = "main",
        *,
        limits: Limits | None = None,
        folder: Path | None = None,
        open_sender: Callable[[Edge, Sequence[str] | None, bool], Sender] | None = None,
        open_receiver: Callable[[Edge, Callable[[Frame], None], bool], Receiver] | None = None,
        link: Link | None = None,
        replay: Replay | None = None,
    ) -> None:
        self.name = name
        self._plan, self._folder, self._link = plan, folder, link
        self._replay = replay
        self._log = None if folder is None else SwapLog(folder)
        self._limits = limits or Limits()
        self._open_sender, self._open_receiver = open_sender, open_receiver
        self.sources: list[SourceRoot] = []
        self.segments: list[Segment] = []
        self.senders: list[Sender] = []
        self.receivers: list[EdgeRoot] = []
        self.sockets: list[zmq.Socket[bytes]] = []  # to be polled while there is nothing to do
        self.poller: zmq.Poller | None = None  # that polls them
        self._stopping = False
        self._aborted = False
        self._finished: set[Segment] = set()
        self._feedback: dict[str, WeightsInput] = {}
        self._trainers: dict[str, tuple[Segment, list[Branch]]] = {}
        self._repeats: dict[str, dict[Place, tuple[Planned, Use]]] = {}
        self._build()
        self._changes = Changes(
            plan, self.segments, self._feedback, folder,
            (lambda message: None) if link is None else link.send, replay is not None,
        )  # fmt: skip

    # building

    def _build(self) -> None:
        here = set(self._plan.workers[self.name])
        weights = [edge for edge in self._plan.flow.edges if edge.kind == "weights"]
        delays = {edge.target: edge.delay for edge in weights}
        for name in self._plan.workers[self.name]:
            uses = self._replay.uses.get(name, {}) if self._replay is not None else {}
            if uses:
                self._repeats[name] = planned_all(self._plan, name, uses)
            classes = [self._plan.blocks[name].cls]
            classes += [planned.cls for planned, _ in self._repeats.get(name, {}).values()]
            if any(cls.takes_weights() for cls in classes):
                self._feedback[name] = self._weights_input(name, delays.get(name))
        for block in self._plan.blocks.values():
            if block.name not in here:
                continue
            feeding = self._plan.parent(block.name)
            if feeding is None:
                root = SourceRoot(block, self._plan.flow.seed, self._limits)
                self.sources.append(root)
                root.outs.extend(self._outs(block.name, root.branches))
            elif feeding.source not in here:
                below: list[Branch] = []
                segment = self._segment(block.name, below)
                receiver = self._receiver(feeding, segment.push, self._plan.lossless(feeding))
                self.receivers.append(EdgeRoot(receiver, below))
        for edge in weights:
            if edge.source in here:
                self._join_trainer(edge, edge.target in here)
            elif edge.target in here:
                receiver = self._receiver(edge, self._feedback[edge.target].push, True)
                self.receivers.append(EdgeRoot(receiver, []))

    def _weights_input(self, name: str, delay: int | Literal["live"] | None) -> WeightsInput:
        if self._replay is not None and not isinstance(delay, int):
            return ReplayInput(name, self._replay.weights.get(name, {}), self._log)
        first = self._plan.blocks[name].weights
        return WeightsInput(name, "live" if delay is None else delay, first, self._log)

    def _join_trainer(self, edge: Edge, inside: bool) -> None:
        """Join a feedback edge to its trainer."""
        trainer, branches = self._trainers[edge.source]
        trainer.answers_all |= isinstance(edge.delay, int)
        if inside:
            trainer.weights_outs.append(self._feedback[edge.target])
        else:
            sender = self._sender(edge, None, True)
            trainer.weights_outs.append(sender)
            if edge.delay == "live":
                trainer.keeper = self._log
            branches.append(sender)

    def _segment(self, first: str, branches: list[Branch]) -> Segment:
        """The segment that starts with block `first`, and all that follows it in this worker."""
        blocks: list[Planned] = []
        name = first
        while True:
            block = self._plan.blocks[name]
            blocks.append(block)
            last = block.cls.signature().delayed or issubclass(block.cls, Sink | Reframe)
            edges = self._plan.children(name)
            last |= name in self._repeats
            if last or len(edges) != 1 or not self._continues(edges[0].target):
                break
            name = edges[0].target
        feedback = self._feedback.get(first)
        segment = Segment(blocks, self._plan.flow.seed, feedback)
        self.segments.append(segment)
        if first in self._repeats:
            segment.takeovers = Takeovers(blocks[0], self._log, self._repeats[first])
        if feedback is not None:
            branches.append(segment)
        if issubclass(blocks[-1].cls, Trainer):
            self._trainers[name] = (segment, branches)
        segment.outs.extend(self._outs(name, branches))
        return segment

    def _continues(self, name: str) -> bool:
        here = name in self._plan.workers[self.name]
        return here and name not in self._feedback and name not in self._repeats

    def _outs(self, name: str, branches: list[Branch]) -> list[Out]:
        outs: list[Out] = []
        for edge in self._plan.children(name):
            if edge.target in self._plan.workers[self.name]:
                outs.append(self._segment(edge.target, branches))
            else:
                sender = self._sender(edge, self._plan.carried(edge), self._plan.lossless(edge))
                branches.append(sender)
                outs.append(sender)
        return outs

    def _sender(self, edge: Edge, carried: Sequence[str] | None, lossless: bool) -> Sender:
        if self._open_sender is None:
            raise RunError(f"edge {edge.name} leaves worker {self.name!r}, which runs alone")
        sender = self._open_sender(edge, carried, lossless)
        self.senders.append(sender)
        return sender

    def _receiver(self, edge: Edge, out: Callable[[Frame], None], lossless: bool) -> Receiver:
        if self._open_receiver is None:
            raise RunError(f"edge {edge.name} enters worker {self.name!r}, which runs alone")
        return self._open_receiver(edge, out, lossless)

    # running

    def run(self, wait: Callable[[int], object] | None = None) -> dict[str, Any]:
        """Run until every stream has ended; returns the last snapshot, results included.

        wait   called with a time in ms when there is nothing to do
        """
        try:
            self._loop(wait or (lambda ms: time.sleep(ms / 1e3)))
            self.finished_ns = now_ns()
            self._changes.end()
            if self._link is not None:
                self._link.send({"verb": "drained"})
            snapshot = self.snapshot()
            snapshot["results"] = self._results()
        finally:
            for source in self.sources:
                source.close()
        snapshot["finished_ns"] = self.finished_ns
        return snapshot

    def _loop(self, wait: Callable[[int], object]) -> None:
        for source in self.sources:
            source.start()
        roots: list[SourceRoot | EdgeRoot] = [*self.sources, *self.receivers]
        look_ns = now_ns()
        status_ns = look_ns + STATUS_NS
        while not self._aborted:
            worked = False
            for root in tuple(roots):
                worked |= root.pump(now_ns() + SLICE_NS)
                if root.done:
                    roots.remove(root)
                    for branch in root.branches:
                        if isinstance(branch, Sender):
                            branch.close()
            if self._feedback:
                self._check_weights_can_come(roots)
            now = now_ns()
            if now >= look_ns + LOOK_NS:
                look_ns = now
                self._control()
                for sender in self.senders:
                    sender.poll()
                for root in self.receivers:
                    root.receiver.ack()  # for one that never falls idle, its sender would wait
                if now >= status_ns:
                    self._status()
                    status_ns = now + max(STATUS_NS, STATUS_SHARE * (now_ns() - now))
            if worked:
                continue
            for sender in self.senders:
                sender.flush()
            if not roots and all(sender.settled for sender in self.senders):
                return
            self._idle(wait)

    def _check_weights_can_come(self, roots: Sequence[SourceRoot | EdgeRoot]) -> None:
        """Refuse to wait for weights that nobody is left to send.

        Where other workers are part of the circle, the supervisor notices.
        """
        if any(isinstance(root, EdgeRoot) for root in roots):
            return
        for segment in self.segments:
            if (waits := segment.waits) is not None:
                holds = {name: held for s in self.segments for name, held in s.holds.items()}
                raise RunError(never_decided(waits, holds))

    def _idle(self, wait: Callable[[int], object]) -> None:
        """Wait until something comes or is due; acknowledge if nothing comes at once."""
        self._heed_only_what_can_be_processed()
        due = min((source.wait_ms() for source in self.sources), default=WAIT_MS)
        unacknowledged = [r.receiver for r in self.receivers if r.receiver.unacknowledged]
        if unacknowledged and not wait(min(due, 1)):
            for receiver in unacknowledged:
                receiver.ack()
            unacknowledged = []
        if not unacknowledged:
            wait(due)

    def _heed_only_what_can_be_processed(self) -> None:
        """Leave out the edges whose messages have to wait: they would end every wait at once."""
        if self.poller is None:
            return
        for root in self.receivers:
            socket = root.receiver.socket
            if root.blocked and socket in self.poller:
                self.poller.unregister(socket)
            elif not root.blocked and socket not in self.poller:
                self.poller.register(socket, zmq.POLLIN)

    def _control(self) -> None:
        for message in self._link.messages() if self._link else ():
            if message["verb"] == "stop":
                self.stop()
            elif message["verb"] == "abort":
                self._aborted = True
            elif message["verb"] == "lost":
                self._go_on_without(message["worker"])
            elif message["verb"] == "swap":
                self._changes.swap(message)
            elif message["verb"] == "replace":
                self._changes.replace(message)
        self._changes.look()

    def _go_on_without(self, worker: str) -> None:
        """Wait no longer for a worker that has died, and that only learned."""
        ends = {
            edge.name: (
                self._plan.blocks[edge.source].worker,
                self._plan.blocks[edge.target].worker,
            )
            for edge in self._plan.flow.edges
        }
        for sender in self.senders:
            sender.abandoned |= ends[sender.name][1] == worker
        for root in self.receivers:
            root.receiver.ended |= ends[root.receiver.name][0] == worker

    def stop(self) -> None:
        """Let every source close its streams; what is under way is still processed."""
        if not self._stopping:
            self._stopping = True
            for source in self.sources:
                source.stop()

    def _status(self) -> None:
        """Sum the meters up, so that they stay small, and tell the supervisor."""
        snapshot = self.snapshot()
        self._keep_notes()
        if self._link is not None:
            live = {s.blocks[-1].name: dict(s.report(None)) for s in self.segments if s.sink}
            self._link.send({"verb": "status", **snapshot, "results": live})

    def _keep_notes(self) -> None:
        """Write down what trainers decided, while the run goes on."""
        if self._folder is not None:
            for segment in self.segments:
                segment.keep_notes(self._folder)

    def _results(self) -> dict[str, Any]:
        folder = None if self._aborted else self._folder
        return {
            segment.blocks[-1].name: self._result(segment, folder)
            for segment in self.segments
            if segment.sink is not None
        }

    def _result(self, segment: Segment, folder: Path | None) -> dict[str, Any]:
        if segment not in self._finished:
            self._finished.add(segment)
            segment.finish()
            if self._folder is not None:
                segment.keep_notes(self._folder)
        return dict(segment.report(folder))

    def last_words(self) -> dict[str, Any]:
        """A snapshot after an error, with the results of all sinks that still have some."""
        results = {}
        for segment in self.segments:
            if segment.sink is not None:
                with suppress(BlockError):
                    results[segment.blocks[-1].name] = self._result(segment, None)
        return {**self.snapshot(), "results": results}

    def snapshot(self) -> dict[str, Any]:
        """Numbers of this worker so far."""
        blocks = {
            source.planned.name: source.meter.snapshot()
            | {"gaps": source.gaps, "lost_samples": source.lost_samples}
            for source in self.sources
        }
        latency = Histogram()
        models = {}
        for segment in self.segments:
            for name, meter in segment.meters.items():
                blocks[name] = meter.snapshot()
            latency.merge(Histogram(segment.latency.snapshot()["histogram"]))
            if (takeovers := segment.takeovers) is not None and takeovers.use is not None:
                name = takeovers.planned.name
                blocks[name] |= {"use": takeovers.use.use, "replaced": takeovers.count}
            if segment.feedback is not None:
                current = segment.current
                models[segment.feedback.block] = {
                    "name": current.name if current else "",
                    "version": current.version if current else 0,
                    **segment.feedback.counts,
                }
        left = [source.frames_left for source in self.sources]
        return {
            "blocks": blocks,
            "at_ns": now_ns(),
            "emitted": {source.planned.name: source.frames for source in self.sources},
            "left": None if None in left else sum(n for n in left if n is not None),
            "latency": latency.counts(),
            "edges": {s.name: s.counts() for s in self.senders}
            | {r.receiver.name: r.receiver.counts() for r in self.receivers},
            "models": models,
            "waits": [waits for segment in self.segments if (waits := segment.waits)],
            "holds": {name: held for s in self.segments for name, held in s.holds.items()},
            "held_up": [root.receiver.name for root in self.receivers if root.blocked],
        }


def main(run_dir: str, name: str, lifeline: int) -> int:
    """Run one worker of the flow that the supervisor has left in `run_dir`."""
    die_with_parent(lifeline)
    context = zmq.Context()
    link = WorkerLink(context, f"ipc://{run_dir}/control", name)
    link.send({"verb": "hello", "pid": os.getpid()})
    order = json.loads((Path(run_dir) / "order.json").read_text(encoding="utf-8"))
    worker = None
    try:
        worker = _from_order(context, link, order, name)
        gc.collect()
        gc.freeze()  # what is there now stays; looking through it takes 100 ms, in mid-stream
        link.send({"verb": "ready"})
        if link.wait_for("go", "exit")["verb"] == "exit":
            return 0
        worker.poller = poller = zmq.Poller()
        for socket in [link.socket, *worker.sockets]:
            poller.register(socket, zmq.POLLIN)
        done = worker.run(lambda ms: poller.poll(ms))
        link.send({"verb": "done", **done})
    except (BlockError, KalvitError) as error:
        known = {} if worker is None else worker.last_words()
        link.send({"verb": "failed", **_failure(error, Path(order["folder"])), **known})
    link.wait_for("exit")
    context.destroy(linger=0)
    return 0


def _failure(error: BlockError | KalvitError, folder: Path) -> dict[str, Any]:
    """What the supervisor should know of an error; that of a block is kept in the run folder."""
    if not isinstance(error, BlockError):
        return {"text": str(error), "for_user": True}
    place = "-".join(filter(None, (error.block, error.stream, str(error.seq))))
    file = folder / "errors" / (re.sub(r"[^\w.-]", "_", place)[:120] + ".txt")
    try:
        file.parent.mkdir(exist_ok=True)
        file.write_text(
            f"block {error.block}\nstream {error.stream}\nseq {error.seq}\n\n{error.text}",
            encoding="utf-8", errors="backslashreplace",
        )  # fmt: skip
        kept = f"traceback: {file}"
    except OSError as failed:
        kept = f"its traceback could not be written: {failed.strerror}"
    if error.for_user:
        return {"text": f"{error.block}: {error.__cause__}", "for_user": True}
    return {"text": f"{error} ({kept})", "for_user": False}


def _from_order(
    context: zmq.Context[zmq.Socket[bytes]], link: WorkerLink, order: Mapping[str, Any], name: str
) -> Worker:
    """The worker that the supervisor's order describes, with its sockets open."""
    for file in order["block_files"]:
        catalogue.load_file(Path(file))
    plan = Flow.from_dict(order["flow"]).check()
    codec = Codec(order["frame_cap"])
    keys = CurveKeys(**order["keys"]) if order["keys"] else None
    sockets: list[zmq.Socket[bytes]] = []

    def socket() -> zmq.Socket[bytes]:
        sockets.append(data_socket(context, order["frame_cap"]))
        return sockets[-1]

    def sender(edge: Edge, carried: Sequence[str] | None, lossless: bool) -> Sender:
        end = socket()
        connect(end, order["endpoints"][edge.name], keys)
        window = order["window"] if lossless else TAP_WINDOW
        return Sender(edge.name, end, codec, carried, lossless=lossless, window=window)

    def receiver(edge: Edge, out: Callable[[Frame], None], lossless: bool) -> Receiver:
        end = socket()
        bind(end, order["endpoints"][edge.name], keys)
        window = order["window"] if lossless else TAP_WINDOW
        return Receiver(edge.name, end, codec, out, lossless=lossless, window=window)

    limits = Limits(order["frames"], order["seconds"])
    worker = Worker(
        plan, name, limits=limits, folder=Path(order["folder"]), open_sender=sender,
        open_receiver=receiver, link=link,
        replay=read_swaps(Path(order["replay"])) if order["replay"] else None,
    )  # fmt: skip
    worker.sockets = sockets
    rehearse(plan, name)
    return worker


def die_with_parent(lifeline: int) -> None:
    """End this process when the supervisor is gone, even by SIGKILL.

    The kernel is asked to do it where it can (Linux); elsewhere, and for a supervisor that died
    before the request, a thread waits until the supervisor's end of a pipe closes.
    """

    def watch() -> None:
        while os.read(lifeline, 1):
            pass
        os._exit(1)

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
