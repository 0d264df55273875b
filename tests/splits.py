"""Runs the workers of a plan in threads of this process, joined by real sockets."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import zmq

from pipeline.flow_parts import Edge
from pipeline.frame import Frame
from pipeline.plan import MAIN, Plan
from pipeline.roots import Limits
from pipeline.transport.edge import TAP_WINDOW, WINDOW, Receiver, Sender
from pipeline.transport.sockets import bind, connect, data_socket
from pipeline.wire import FRAME_CAP, Codec
from pipeline.worker import Worker

Snapshot = dict[str, Any]


class Stuck(AssertionError):
    """A run did not end in time."""


class _Link:
    """Tells a worker to abort, once `aborted` is set."""

    def __init__(self, aborted: threading.Event) -> None:
        self._aborted = aborted
        self.statuses = 0

    def messages(self) -> list[Mapping[str, Any]]:
        return [{"verb": "abort"}] if self._aborted.is_set() else []

    def send(self, message: Mapping[str, Any]) -> None:
        self.statuses += 1


def run_alone(plan: Plan, limits: Limits | None = None, seconds: float = 20.0) -> Snapshot:
    """The last snapshot of a run of all blocks in one worker."""
    alone = replace(plan, workers={MAIN: tuple(plan.blocks)})
    return run_split(alone, limits=limits, seconds=seconds)[MAIN]


def run_split(
    plan: Plan,
    *,
    window: int = WINDOW,
    limits: Limits | None = None,
    seconds: float = 20.0,
    waits: dict[str, int] | None = None,
) -> dict[str, Snapshot]:
    """The last snapshot of each worker; the first error of one is raised.

    waits    gets how often each worker had nothing to do
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    folder = tempfile.mkdtemp(prefix="kalvit")  # short: paths of sockets are
    aborted = threading.Event()
    found: dict[str, Snapshot] = {}
    errors: list[BaseException] = []
    numbers = {edge.name: number for number, edge in enumerate(plan.flow.edges)}

    def build(name: str) -> tuple[Worker, Callable[[], None]]:
        sockets: list[zmq.Socket[bytes]] = []

        def socket() -> zmq.Socket[bytes]:
            sockets.append(data_socket(context, FRAME_CAP))
            return sockets[-1]

        def sender(edge: Edge, carried: Sequence[str] | None, lossless: bool) -> Sender:
            end = socket()
            connect(end, f"ipc://{folder}/{numbers[edge.name]}", None)
            credit = window if lossless else min(window, TAP_WINDOW)
            return Sender(
                edge.name, end, Codec(), carried, lossless=lossless,
                window=credit,
            )  # fmt: skip

        def receiver(edge: Edge, out: Callable[[Frame], None], lossless: bool) -> Receiver:
            end = socket()
            bind(end, f"ipc://{folder}/{numbers[edge.name]}", None)
            credit = window if lossless else min(window, TAP_WINDOW)
            return Receiver(edge.name, end, Codec(), out, lossless=lossless, window=credit)

        worker = Worker(
            plan, name, limits=limits, open_sender=sender, open_receiver=receiver,
            link=_Link(aborted),
        )  # fmt: skip

        def run() -> None:
            worker.poller = poller = zmq.Poller()
            for end in sockets:
                poller.register(end, zmq.POLLIN)

            def wait(ms: int) -> object:
                if waits is not None:
                    waits[name] = waits.get(name, 0) + 1
                return poller.poll(ms)

            try:
                found[name] = worker.run(wait)
            except BaseException as error:
                errors.append(error)
                aborted.set()

        return worker, run

    try:
        built = [build(name) for name in plan.workers]
        threads = [threading.Thread(target=run, daemon=True) for _, run in built]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds)
        stuck = [name for (name, thread) in zip(plan.workers, threads, strict=True)
                 if thread.is_alive()]  # fmt: skip
        aborted.set()
        for thread in threads:
            thread.join(10.0)
        if errors:
            raise errors[0]
        if stuck:
            raise Stuck(f"the workers {stuck} did not end within {seconds} s")
        return found
    finally:
        context.destroy(linger=0)
        shutil.rmtree(folder, ignore_errors=True)


def edges_of(snapshots: Mapping[str, Snapshot]) -> dict[str, dict[str, int]]:
    """Counts of all edges between workers, those of both ends put together."""
    found: dict[str, dict[str, int]] = {}
    for snapshot in snapshots.values():
        for name, counts in snapshot["edges"].items():
            ends = found.setdefault(name, {})
            for key, value in counts.items():
                assert ends.setdefault(key, value) == value or key != "frames", (name, ends, counts)
                ends[key] = max(ends[key], value)
    return found


def results_of(snapshots: Mapping[str, Snapshot]) -> dict[str, Any]:
    """Results of all sinks."""
    return {name: found for s in snapshots.values() for name, found in s["results"].items()}
