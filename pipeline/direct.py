"""Calls the blocks of a flow in a bare Python loop: the limit that the runtime is held against.

Nothing of the runtime is used: no frames, no checks, no segments, no edges, no meters. Run as a
program it measures the calls for `kalvit bench`, in a process set up like a worker.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from pipeline import catalogue
from pipeline.block import Block, Context, Gap, Reframe, Silence, Sink, Source, make
from pipeline.flow import Flow
from pipeline.frame import Array, FrameInfo, StreamInfo
from pipeline.metrics import Histogram, micros
from pipeline.numbering import Clock, clock_of
from pipeline.plan import Plan
from pipeline.roots import Limits
from pipeline.weights import Weights
from pipeline.worker import die_with_parent

WARM_FRAMES = 3

now_ns = time.monotonic_ns

Fields = dict[str, Array]
Call = Callable[[Fields, FrameInfo], None]
Process = Callable[[Fields, FrameInfo], Any]
Take = Callable[[Fields, FrameInfo, Any], None]


@dataclass
class _Lane:
    """One stream of a source, with the instances that serve it.

    emit      fields of the next frame, a Gap, or None at the end
    after     calls what follows the source
    finish    for each block that answers later: completes what it holds, upstream ones last
    leap      for each block that cuts frames anew: goes on after a gap
    seq       of the next frame; 0 was the start of the stream
    """

    source: Source
    stream: str
    info: StreamInfo
    emit: Callable[[], Fields | Gap | None]
    clock: Clock | None
    after: Call = lambda fields, info: None
    blocks: list[Block] = field(default_factory=list)
    finish: list[Callable[[], None]] = field(default_factory=list)
    leap: list[Callable[[], None]] = field(default_factory=list)
    frames: int = 0
    seq: int = 1
    sample: int = 0

    def step(self) -> bool:
        """Emit one frame and call all that follows; False at the end."""
        fields = self.emit()
        if fields is None:
            return False
        if isinstance(fields, Gap):
            self._pass_gap(fields.samples)
            return True
        self.after(fields, FrameInfo(self.stream, self.seq, self.sample, now_ns()))
        self.frames += 1
        self.seq += 1
        self.sample += _length(fields, self.clock)
        return True

    def complete(self) -> None:
        """Let every block answer what it holds."""
        for finish in reversed(self.finish):
            finish()

    def _pass_gap(self, samples: int) -> None:
        self.complete()
        for block in self.blocks:
            block.start()
        self.seq += 1
        self.sample += samples
        for leap in self.leap:
            leap()


class DirectCalls:
    """The blocks of a plan, called one after the other.

    Arrays are marked read-only, since kernels are compiled for that. New weights are taken as
    soon as a trainer returns them.

    timed      note the duration of every call
    durations  block -> of each call, in ns
    latency    sink -> from the answer of the source to that of the sink, in ns
    """

    def __init__(self, plan: Plan, *, timed: bool = False) -> None:
        self.durations: dict[str, list[int]] = {name: [] for name in plan.blocks}
        self.latency: dict[str, list[int]] = {}
        self._plan, self._timed = plan, timed
        self._sinks: dict[str, Sink] = {}
        self._learners: dict[str, list[Block]] = {
            edge.target: [] for edge in plan.flow.edges if edge.kind == "weights"
        }
        self._lanes = [
            self._lane(name, stream)
            for name, planned in plan.blocks.items()
            if isinstance(planned.block, Source)
            for stream in planned.block.streams()
        ]

    @property
    def frames(self) -> int:
        """Data frames that the sources have emitted."""
        return sum(lane.frames for lane in self._lanes)

    def run(self, limits: Limits, interval_s: float = 0.0) -> float:
        """Call until the sources end or a limit is reached; returns the seconds it took.

        interval_s   from one frame to the next; 0: as fast as possible
        """
        lanes = deque(self._lanes)
        clock = time.perf_counter
        begin = due = clock()
        until = begin + limits.seconds if limits.seconds else float("inf")
        while lanes and clock() < until:
            lane = lanes.popleft()
            if limits.frames and lane.frames >= limits.frames:
                continue
            if interval_s:
                due += interval_s
                time.sleep(max(0.0, due - clock()))
            if lane.step():
                lanes.append(lane)
        for lane in self._lanes:
            lane.complete()
            lane.source.close()
        return clock() - begin

    def results(self) -> dict[str, dict[str, Any]]:
        """What each sink has found."""
        for sink in self._sinks.values():
            sink.finish()
        return {name: dict(sink.report(None)) for name, sink in self._sinks.items()}

    # building

    def _lane(self, name: str, stream: str) -> _Lane:
        planned = self._plan.blocks[name]
        source = make(planned.cls, planned.block.values(), self._context(name, stream))
        if not isinstance(source, Source):
            raise TypeError(f"{name} is no source")
        source.start()
        clock = clock_of(planned.port().writes)
        info = source.describe() or StreamInfo()
        lane = _Lane(source, stream, info, self._emitter(source, name), clock)
        lane.after = self._after(name, lane, lane.info)
        return lane

    def _context(self, name: str, stream: str, info: StreamInfo | None = None) -> Context:
        return Context(name, stream, self._plan.flow.seed, info or StreamInfo())

    def _emitter(self, source: Source, name: str) -> Callable[[], Fields | Gap | None]:
        process: Callable[[], Any] = source.process  # type: ignore[attr-defined]
        written = [field for field, _ in self._plan.blocks[name].writes]
        note, timed = self.durations[name].append, self._timed

        def emit() -> Fields | Gap | None:
            before = now_ns() if timed else 0
            while isinstance(result := process(), Silence):
                pass
            if timed:
                note(now_ns() - before)
            if result is None or isinstance(result, Gap):
                return result
            fields: Fields = {}
            _add(fields, written, result)
            return fields

        return emit

    def _after(self, name: str, lane: _Lane, info: StreamInfo) -> Call:
        """Calls all that follows a block, each branch with fields of its own."""
        edges = self._plan.children(name)
        if len(edges) != 1:
            return _fan_out([self._branch(edge.target, lane, info) for edge in edges])
        return self._branch(edges[0].target, lane, info)

    def _branch(self, name: str, lane: _Lane, info: StreamInfo) -> Call:
        """Calls a block and all that follows it: blocks that answer at once in one loop."""
        calls: list[Call] = []
        while True:
            block = self._instance(name, lane, info)
            process = self._process(name, block)
            edges = self._plan.children(name)
            if isinstance(block, Sink | Reframe) or block.signature().delayed:
                calls.append(_then(process, self._taker(name, block, lane, info)))
                break
            calls.append(_adding(process, self._written(name)))
            if len(edges) != 1:
                calls.append(self._after(name, lane, info))
                break
            name = edges[0].target
        return calls[0] if len(calls) == 1 else _in_turn(tuple(calls))

    def _written(self, name: str) -> list[str]:
        return [field for field, _ in self._plan.blocks[name].writes]

    def _process(self, name: str, block: Block) -> Process:
        """Calls `process` with the fields that it reads."""
        call = _caller(block, self._plan.blocks[name].reads)
        if not self._timed:
            return call
        note = self.durations[name].append

        def timed(fields: Fields, info: FrameInfo) -> Any:
            before = now_ns()
            result = call(fields, info)
            note(now_ns() - before)
            return result

        return timed

    def _instance(self, name: str, lane: _Lane, info: StreamInfo) -> Block:
        """A started block; sinks have one instance for all streams."""
        sink = self._sinks.get(name)
        if sink is not None:
            sink.open(lane.stream, info)
            return sink
        planned = self._plan.blocks[name]
        is_sink = issubclass(planned.cls, Sink)
        context = self._context(name, "" if is_sink else lane.stream, info)
        block = make(planned.cls, planned.block.values(), context)
        block.start()
        if planned.weights is not None:
            block.take(planned.weights)
        if isinstance(block, Sink):
            self._sinks[name] = block
            self.latency[name] = []
            block.open(lane.stream, info)
        else:
            lane.blocks.append(block)
        if name in self._learners:
            self._learners[name].append(block)
        return block

    # what is done with a result

    def _taker(self, name: str, block: Block, lane: _Lane, info: StreamInfo) -> Take:
        if isinstance(block, Sink):
            return self._ending(name)
        written = self._written(name)
        if isinstance(block, Reframe):
            after = self._after(name, lane, block.describe(info))
            return self._reframing(name, block, lane, written, after)
        return _holding(block, lane, written, self._after(name, lane, info))

    def _ending(self, name: str) -> Take:
        """For a sink: notes the latency; hands on the weights of a trainer."""
        note, timed = self.latency[name].append, self._timed
        learners = [
            self._learners[edge.target]
            for edge in self._plan.flow.edges
            if edge.kind == "weights" and edge.source == name
        ]

        def end(fields: Fields, info: FrameInfo, result: Any) -> None:
            if timed:
                note(now_ns() - info.born_ns)
            if isinstance(result, Weights):
                for blocks in learners:
                    for block in blocks:
                        block.take(result)

        return end

    def _reframing(
        self, name: str, block: Reframe, lane: _Lane, written: Sequence[str], after: Call
    ) -> Take:
        """For a block that cuts frames anew, and numbers them."""
        clock = clock_of(self._plan.blocks[name].port().writes)
        seq, sample = 1, 0

        def emit(results: Iterable[Any], born_ns: int) -> None:
            nonlocal seq, sample
            for result in results:
                fields: Fields = {}
                _add(fields, written, result)
                info = FrameInfo(lane.stream, seq, sample, born_ns)
                seq += 1
                sample += _length(fields, clock)
                after(fields, info)

        def leap() -> None:
            nonlocal seq, sample
            seq += 1
            sample = lane.sample

        lane.finish.append(lambda: emit(block.finish(), now_ns()))
        lane.leap.append(leap)
        return lambda fields, info, results: emit(results, info.born_ns)


def _caller(block: Block, reads: Sequence[tuple[str, str]]) -> Process:
    """Calls `process` as plainly as its arguments allow."""
    process: Callable[..., Any] = block.process  # type: ignore[attr-defined]
    signature = block.signature()
    arguments, names = [a for a, _ in reads], [name for _, name in reads]
    if signature.wants_info or arguments != list(signature.reads)[: len(arguments)]:

        def by_name(fields: Fields, info: FrameInfo) -> Any:
            given: dict[str, Any] = {argument: fields[name] for argument, name in reads}
            return process(**given, info=info) if signature.wants_info else process(**given)

        return by_name
    if not names:
        return lambda fields, info: process()
    if len(names) == 1:
        (name,) = names
        return lambda fields, info: process(fields[name])
    get = itemgetter(*names)
    return lambda fields, info: process(*get(fields))


def _adding(process: Process, written: Sequence[str]) -> Call:
    """For a block that answers at once."""
    if not written:
        return process
    if len(written) == 1:
        (name,) = written

        def add_one(fields: Fields, info: FrameInfo) -> None:
            (value,) = process(fields, info)
            if value.flags.writeable:
                value.flags.writeable = False
            fields[name] = value

        return add_one
    return lambda fields, info: _add(fields, written, process(fields, info))


def _then(process: Process, take: Take) -> Call:
    return lambda fields, info: take(fields, info, process(fields, info))


def _in_turn(calls: Sequence[Call]) -> Call:
    def in_turn(fields: Fields, info: FrameInfo) -> None:
        for call in calls:
            call(fields, info)

    return in_turn


def _fan_out(calls: Sequence[Call]) -> Call:
    def fan_out(fields: Fields, info: FrameInfo) -> None:
        for call in calls:
            call(dict(fields), info)

    return fan_out


def _holding(block: Block, lane: _Lane, written: Sequence[str], after: Call) -> Take:
    """For a block that may answer later."""
    held: deque[tuple[Fields, FrameInfo]] = deque()

    def complete(results: Iterable[Any]) -> None:
        for result in results:
            fields, info = held.popleft()
            _add(fields, written, result)
            after(fields, info)

    def hold(fields: Fields, info: FrameInfo, results: Any) -> None:
        held.append((fields, info))
        complete(results)

    lane.finish.append(lambda: complete(block.finish()))
    return hold


def _add(fields: Fields, written: Sequence[str], result: Iterable[Array]) -> None:
    for name, value in zip(written, result):  # noqa: B905 (both are as long as the type)
        if value.flags.writeable:
            value.flags.writeable = False
        fields[name] = value


def _length(fields: Fields, clock: Clock | None) -> int:
    """Samples in a frame."""
    if clock is None:
        return 1
    name, axes = clock
    shape, count = fields[name].shape, 1
    for axis in axes:
        count *= shape[axis]
    return count


def measure(plan: Plan, limits: Limits, *, interval_s: float, paced_s: float) -> dict[str, Any]:
    """Throughput, time per block, and latency of single frames, each from calls of its own.

    interval_s   from one frame to the next, and how long, where latency is measured
    """
    DirectCalls(plan).run(Limits(frames=WARM_FRAMES))
    plain = DirectCalls(plan)
    seconds = plain.run(limits)
    timed = DirectCalls(plan, timed=True)
    timed.run(limits)
    paced = DirectCalls(plan, timed=True)
    paced.run(Limits(seconds=paced_s), interval_s)
    blocks = {}
    for name, durations in timed.durations.items():
        histogram = Histogram()
        histogram.add(durations)
        busy_us = sum(durations) / 1e3 / max(timed.frames, 1)  # per frame of the source
        times = micros(histogram, ("p50", 0.5), ("p99", 0.99))
        blocks[name] = {**times, "busy_us": busy_us}
    return {
        "frames": plain.frames,
        "frames_per_s": plain.frames / seconds,
        "blocks": blocks,
        "latency_us": {
            sink: [ns / 1e3 for ns in durations] for sink, durations in paced.latency.items()
        },
    }


def main(order: str, result: str, lifeline: str) -> None:
    """Measure what the file `order` says, and leave the numbers in the file `result`."""
    die_with_parent(int(lifeline))
    told: Mapping[str, Any] = json.loads(Path(order).read_text(encoding="utf-8"))
    for file in told["block_files"]:
        catalogue.load_file(Path(file))
    found = measure(
        Flow.from_dict(told["flow"]).check(),
        Limits(told["frames"], told["seconds"]),
        interval_s=told["interval_s"],
        paced_s=told["paced_s"],
    )
    Path(result).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
