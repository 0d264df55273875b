"""Blocks called one after the other: the part of a flow between two branches.

A flow is a tree: every block has one input. Within a worker it falls into segments, runs of
blocks without a branch, which hand a frame on by direct calls. A block that may answer later,
that cuts frames anew or that ends a branch is the last of its segment; a block that takes
weights is the first.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from pipeline.block import Block, Context, Reframe, Sink, Trainer, make
from pipeline.errors import FieldError, KalvitError, RunError, WeightsError
from pipeline.frame import Frame, Kind, Scalar, StreamInfo
from pipeline.instance import Fields, Instance
from pipeline.metrics import Meter
from pipeline.numbering import Numbering, clock_of
from pipeline.plan import Planned
from pipeline.swaps import SwapLog, Swaps, keep_notes
from pipeline.weights import Weights

now_ns = time.monotonic_ns
DATA = Kind.DATA  # looking up a member of an enum costs more than a frame should wait


class Out(Protocol):
    """Where frames go on: another segment, or an edge to another worker."""

    def push(self, frame: Frame) -> None:
        """Take one frame."""


class BlockError(Exception):
    """A block raised; says which, on which frame, and keeps the traceback as text."""

    def __init__(self, block: str, stream: str, seq: int, cause: BaseException) -> None:
        where = f" on {stream}:{seq}" if stream else ""
        super().__init__(f"{block} raised {type(cause).__name__}{where}: {cause}")
        self.block, self.stream, self.seq = block, stream, seq
        #: Meant for the user of the flow, such as a full disk; anything else is a bug.
        self.for_user = isinstance(cause, KalvitError) and not isinstance(cause, FieldError)
        self.text = "".join(traceback.format_exception(cause))


class WeightsInput:
    """Where the weights of one block come in: they wait here until their frame comes.

    With an integer delay D, frame n is decided with exactly the weights that the trainer emitted
    after frame n - D; until its answer to that frame has come, `admits` says no. With delay
    "live" the newest weights that have come are used, and those of a swap at once.

    first   weights that serve from the start
    log     where "live" writes down what it did
    """

    def __init__(
        self,
        block: str,
        delay: int | Literal["live"],
        first: Weights | None = None,
        log: SwapLog | None = None,
    ) -> None:
        self.block, self.delay = block, delay
        self.stream = ""  # whose frames an integer delay counts
        self.wake: Callable[[], None] = lambda: None
        self.counts = {"swaps": 0, "refused": 0, "rolled_back": 0}
        self.current = first
        self.refusals: list[str] = []
        self._log = log if delay == "live" else None
        self._logged: dict[str, Weights] = {}  # stream -> what the log says decides it
        self._waiting: deque[tuple[int, Weights | None]] = deque()
        self._answered = -1

    def push(self, frame: Frame) -> None:
        """Take an answer of the trainer: new weights, or none."""
        after = int(frame.marks["after"])
        weights: Weights | None = None
        if "sha256" in frame.marks:
            try:
                weights = Weights.from_frame(frame)
            except WeightsError as error:
                self._refuse(error)
        self._waiting.append((after, weights))
        self._answered = max(self._answered, after)
        self.wake()

    def admits(self, seq: int) -> bool:
        """Whether the frame with this number may be decided now."""
        return self.delay == "live" or self._answered >= seq - self.delay

    def take(self, seq: int, blocks: Sequence[Block]) -> None:
        """Hand over the newest weights that are due before frame `seq` and that fit."""
        due: list[Weights] = []
        while self._waiting and blocks:
            after, weights = self._waiting[0]
            if self.delay != "live" and after > seq - self.delay:
                break
            self._waiting.popleft()
            if weights is not None:
                due.append(weights)
        for weights in reversed(due):
            if self.swap(weights, blocks) is None:
                return

    def swap(self, weights: Weights, blocks: Sequence[Block]) -> WeightsError | None:
        """Hand weights over at once; returns the error with which a block refused them."""
        try:
            for block in blocks:
                block.take(weights)
        except WeightsError as error:
            self._refuse(error)
            if self.current is not None:  # some instances may have taken them
                for block in blocks:
                    block.take(self.current)
            return error
        self._count(weights, self.current)
        self.current = weights
        return None

    def _count(self, weights: Weights, before: Weights | None) -> None:
        """Count a swap; of one model, from a version to an older one was back."""
        self.counts["swaps"] += 1
        if before is not None and before.name == weights.name:
            self.counts["rolled_back"] += weights.version < before.version

    def before(self, frame: Frame, blocks: Mapping[str, Block]) -> Weights | None:
        """Hand over what is due; returns the weights with which this frame is decided.

        blocks   stream -> the instance that serves it
        """
        if self._waiting:
            self.take(frame.seq, list(blocks.values()))
        if self._log is not None:
            self._write(self._log, frame, self.current)
        return self.current

    def at_start(self, stream: str) -> Weights | None:
        """The weights for an instance that starts."""
        return self.current

    def _write(self, log: SwapLog, frame: Frame, weights: Weights | None) -> None:
        last = self._logged.get(frame.stream)
        if frame.kind is not DATA or weights is None or weights is last:
            return
        self._logged[frame.stream] = weights
        if last is None or (weights.version, weights.digest) != (last.version, last.digest):
            log.swapped(self.block, frame.stream, frame.seq, weights)

    def _refuse(self, error: WeightsError) -> None:
        self.counts["refused"] += 1
        self.refusals = [*self.refusals[-9:], str(error)]
        if self._log is not None:
            self._log.refused(self.block, str(error))


class ReplayInput(WeightsInput):
    """Hands over what the log of another run says, at the same frames, and nothing else."""

    def __init__(self, block: str, swaps: Swaps, log: SwapLog | None = None) -> None:
        super().__init__(block, "live", log=log)
        self._swaps = swaps
        self._serving: dict[str, Weights] = {}

    def push(self, frame: Frame) -> None:
        """Leave aside what the trainer finds this time."""

    def before(self, frame: Frame, blocks: Mapping[str, Block]) -> Weights | None:
        """Hand over what decided this frame; other streams have their own time."""
        weights = self._swaps.get((frame.stream, frame.seq))
        if weights is not None:
            blocks[frame.stream].take(weights)
            self._count(weights, self._serving.get(frame.stream))
            self._serving[frame.stream] = self.current = weights
        serving = self._serving.get(frame.stream)
        if self._log is not None:
            self._write(self._log, frame, serving)
        return serving

    def at_start(self, stream: str) -> Weights | None:
        """The weights for an instance that starts anew after a gap."""
        return self._serving.get(stream)


def never_decided(waits: Mapping[str, Any], holds: Mapping[str, Sequence[int]]) -> str:
    """The error of a flow that cannot go on: its last frames wait for weights.

    waits    what `Segment.waits` says of one of them
    holds    what `Segment.holds` says, of all segments of the flow together
    """
    block, seq, after, delay = (waits[key] for key in ("block", "seq", "after", "delay"))
    blame = [name for name, held in holds.items() if after in held]
    why = f"which {blame[0]} holds back" if blame else "which has not reached the trainer"
    return (
        f"{block}: frame {seq} waits for the weights after frame {after}, {why}; set the delay of "
        f"the feedback edge above {delay}, or shorten the decision delay between {block} and its "
        "trainer"
    )


class Segment:
    """Runs its blocks on each frame that is pushed, and pushes the result to `outs`."""

    def __init__(
        self,
        blocks: Sequence[Planned],
        seed: int,
        feedback: WeightsInput | None = None,
    ) -> None:
        self.blocks = tuple(blocks)
        self.outs: list[Out] = []
        self.weights_outs: list[Out] = []  # feedback edges that leave a trainer
        self.answers_all = False  # one of them has an integer delay
        self.meters = {block.name: Meter() for block in blocks}
        self.latency = Meter()  # from birth to the sink at the end
        self.feedback = feedback
        self._seed = seed
        self.blocked = False  # frames wait here for weights
        self._parked: deque[Frame] = deque()
        self._unparking = False
        self._instances: dict[str, list[Instance]] = {}  # stream -> one for each block
        self._learned: dict[str, Block] = {}  # stream -> the block that takes weights, if any does
        self._shared: Instance | None = None  # of the sink or trainer at the end
        self._reframed: dict[str, Numbering] = {}
        self._origin: dict[str, tuple[int, Mapping[str, Scalar]]] = {}  # of frames cut anew
        last = self.blocks[-1]
        self._is_sink = issubclass(last.cls, Sink)
        self._is_trainer = issubclass(last.cls, Trainer)
        self._is_reframe = issubclass(last.cls, Reframe)
        self._is_delayed = last.cls.signature().delayed and not self._is_reframe
        self._answers_whole = self._is_delayed or self._is_reframe or self._is_trainer
        self._steps: dict[str, list[tuple[Callable[[Frame, Fields], Any], Callable[[int], None]]]]
        self._steps = {}
        self._weights_seq = 0
        if feedback is not None:
            feedback.wake = self._unpark
        if self._is_sink:
            self._shared = self._instance(last, Context(last.name, "", seed))

    @property
    def sink(self) -> Sink | None:
        """The sink at the end, if there is one."""
        block = self._shared.block if self._shared else None
        return block if isinstance(block, Sink) else None

    def push(self, frame: Frame) -> None:
        """Take one frame of any kind, in the order of its stream."""
        if self.feedback is not None:
            if self._parked or not self.feedback.admits(frame.seq):
                self._park(frame)
                return
            frame = self._with_weights(frame)
        if frame.kind is DATA:
            self._data(frame)
        else:
            self._control(frame)

    def finish(self) -> None:
        """Let the sink know that no more frames come."""
        if self._shared is not None:
            self._guard(self._shared, "", -1, self._shared.block.finish)

    def report(self, folder: Path | None) -> Mapping[str, Any]:
        """What the sink at the end has found."""
        if self._shared is None or not isinstance(self._shared.block, Sink):
            return {}
        block = self._shared.block
        found: Mapping[str, Any] = self._guard(self._shared, "", -1, lambda: block.report(folder))
        return found

    def keep_notes(self, folder: Path) -> None:
        """Write down what the trainer at the end has to say."""
        trainer, name = self.sink, self.blocks[-1].name
        if self._shared is not None and isinstance(trainer, Trainer):
            self._guard(self._shared, "", -1, lambda: keep_notes(folder, name, trainer.notes()))

    # data

    def _data(self, frame: Frame) -> None:
        steps = self._steps.get(frame.stream)
        if steps is None:
            raise RunError(f"stream {frame.stream!r} sent data before its start")
        fields = dict(frame.fields)
        place = 0
        before = now_ns()
        try:
            for step, note in steps:
                step(frame, fields)
                now = now_ns()
                note(now - before)
                before = now
                place += 1
        except Exception as error:
            raise BlockError(self.blocks[place].name, frame.stream, frame.seq, error) from error
        if self._is_sink and not self._is_trainer:
            self.latency.note(before - frame.born_ns)
            return
        whole = Frame(
            DATA, frame.stream, frame.seq, frame.sample, frame.born_ns, fields, frame.marks
        )
        if self._answers_whole:
            self._last(whole)
        else:
            for out in self.outs:
                out.push(whole)

    def _last(self, frame: Frame) -> None:
        """Run the last block of the segment where it does not simply add fields."""
        instance = self._instances[frame.stream][-1]
        before = now_ns()
        if self._is_reframe:
            self._origin[frame.stream] = frame.born_ns, frame.marks
            results = self._guard(instance, frame.stream, frame.seq, lambda: instance.call(frame))
            self.meters[instance.port.name].note(now_ns() - before)
            self._emit_reframed(instance, frame, results)
        elif self._is_trainer:
            weights = self._guard(instance, frame.stream, frame.seq, lambda: instance.call(frame))
            self.meters[instance.port.name].note(now_ns() - before)
            self._emit_weights(frame, weights)
        else:
            answers = self._guard(instance, frame.stream, frame.seq, lambda: instance.answer(frame))
            self.meters[instance.port.name].note(now_ns() - before)
            self._emit(answers)

    def _emit(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            for out in self.outs:
                out.push(frame)

    def _emit_reframed(self, instance: Instance, frame: Frame, results: Sequence[Any]) -> None:
        numbering = self._reframed[frame.stream]
        born_ns, marks = self._origin.get(frame.stream, (frame.born_ns, {}))
        for result in results:
            fields: Fields = {}
            self._guard(instance, frame.stream, frame.seq, partial(instance.store, fields, result))
            self._emit([numbering.data(fields, born_ns, marks)])

    def _emit_weights(self, frame: Frame, weights: Weights | None) -> None:
        """Answer a frame that the trainer has seen: with new weights, or that none came."""
        sender = self.blocks[-1].name
        if weights is not None:
            try:
                if not isinstance(weights, Weights):
                    came = type(weights).__name__
                    raise FieldError(f"process returned {came}, not Weights or None")
                answer = weights.to_frame(sender, self._weights_seq, now_ns())
            except Exception as error:
                raise BlockError(sender, frame.stream, frame.seq, error) from error
        elif self.answers_all:
            answer = Frame(Kind.WEIGHTS, sender, self._weights_seq, 0, frame.born_ns, {}, {})
        else:
            return
        self._weights_seq += 1
        answer = answer._replace(marks={**answer.marks, "after": frame.seq})
        for out in self.weights_outs:
            out.push(answer)

    # control frames

    def _control(self, frame: Frame) -> None:
        if frame.kind is Kind.START:
            self._open(frame)
        elif frame.kind is Kind.GAP:
            self._flush(frame)
            for instance in self._instances[frame.stream]:
                if instance is not self._shared:
                    self._guard(instance, frame.stream, frame.seq, instance.restart)
            self._take_again(frame)
        elif frame.kind is Kind.END:
            self._flush(frame)
        if self._is_trainer:
            self._emit_weights(frame, None)
        elif self._is_reframe:
            frame = self._reframed[frame.stream].control(frame)
        for out in self.outs:
            out.push(frame)
        if frame.kind is Kind.END:
            self._close(frame.stream)

    def _open(self, frame: Frame) -> None:
        feedback = self.feedback
        if feedback is not None and feedback.delay != "live":
            if feedback.stream not in ("", frame.stream):
                raise RunError(
                    f"{feedback.block}: delay = {feedback.delay} counts the frames of one stream, "
                    f"but there are {feedback.stream!r} and {frame.stream!r}; "
                    'use delay = "live", or a flow for each stream'
                )
            feedback.stream = frame.stream
        info = StreamInfo.from_marks(frame.marks)
        instances = []
        for planned in self.blocks:
            if self._shared is not None and planned is self.blocks[-1]:
                instances.append(self._shared)
                if self.sink is not None:
                    opening = partial(self.sink.open, frame.stream, info)
                    self._guard(self._shared, frame.stream, frame.seq, opening)
            else:
                context = Context(planned.name, frame.stream, self._seed, info)
                instances.append(self._instance(planned, context))
        self._instances[frame.stream] = instances
        if feedback is not None:
            self._learned[frame.stream] = instances[0].block
        plain = instances[:-1] if self._answers_whole else instances
        self._steps[frame.stream] = [
            (instance.step, self.meters[instance.port.name].note) for instance in plain
        ]
        if self._is_reframe:
            block = instances[-1].block
            if isinstance(block, Reframe):
                clock = clock_of(instances[-1].port.writes)
                describe = partial(block.describe, info)
                anew = self._guard(instances[-1], frame.stream, frame.seq, describe)
                self._reframed[frame.stream] = Numbering(frame.stream, anew, clock, info)
        self._take_again(frame)

    def _take_again(self, frame: Frame) -> None:
        """Hand the current weights to a block that has started."""
        weights = None if self.feedback is None else self.feedback.at_start(frame.stream)
        if weights is not None:
            instance = self._instances[frame.stream][0]
            taking = partial(instance.block.take, weights)
            self._guard(instance, frame.stream, frame.seq, taking)

    def _close(self, stream: str) -> None:
        del self._instances[stream], self._steps[stream]
        self._learned.pop(stream, None)
        self._reframed.pop(stream, None)
        self._origin.pop(stream, None)

    def _flush(self, frame: Frame) -> None:
        """Let every block answer what it holds, before a gap or the end goes on."""
        for instance in self._instances[frame.stream]:
            if instance is self._shared:
                continue
            if self._is_reframe and instance is self._instances[frame.stream][-1]:
                rest = self._guard(instance, frame.stream, frame.seq, instance.block.finish)
                self._emit_reframed(instance, frame, rest)
            else:
                self._emit(self._guard(instance, frame.stream, frame.seq, instance.finish))

    def _instance(self, planned: Planned, context: Context) -> Instance:
        try:
            return Instance(make(planned.cls, planned.block.values(), context), planned.port())
        except Exception as error:
            raise BlockError(planned.name, context.stream, 0, error) from error

    def _guard(self, instance: Instance, stream: str, seq: int, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            raise BlockError(instance.port.name, stream, seq, error) from error

    # weights

    def _with_weights(self, frame: Frame) -> Frame:
        feedback = self.feedback
        if feedback is None:
            return frame
        try:
            weights = feedback.before(frame, self._learned)
        except Exception as error:
            raise BlockError(feedback.block, frame.stream, frame.seq, error) from error
        if frame.kind is DATA and weights is not None:
            version: dict[str, Scalar] = {f"{feedback.block}.version": weights.version}
            frame = frame._replace(marks={**frame.marks, **version})
        return frame

    def swap(self, weights: Weights) -> None:
        """Hand weights to all streams of the block between two frames.

        WeightsError where they are refused; the old ones serve on.
        """
        feedback, blocks = self.feedback, list(self._learned.values())
        if feedback is None:
            return
        name = feedback.block
        if isinstance(feedback, ReplayInput):
            raise WeightsError(f"{name}: this run repeats the swaps of another one")
        if feedback.delay != "live":
            raise WeightsError(
                f"{name} decides each frame with the weights that its trainer emitted "
                f'{feedback.delay} frames before; only with delay = "live" others may come between'
            )
        if not blocks:
            raise WeightsError(f"{name} serves no stream at the moment; swap while frames come")
        try:
            refused = feedback.swap(weights, blocks)
        except Exception as error:
            raise BlockError(name, "", -1, error) from error
        if refused is not None:
            raise refused

    @property
    def waits(self) -> dict[str, Any] | None:
        """What the first frame that is parked here waits for."""
        if self.feedback is None or self.feedback.delay == "live" or not self._parked:
            return None
        frame, delay = self._parked[0], self.feedback.delay
        return {
            "block": self.feedback.block, "delay": delay, "stream": frame.stream,
            "seq": frame.seq, "after": frame.seq - delay,
        }  # fmt: skip

    @property
    def holds(self) -> dict[str, list[int]]:
        """Numbers of the frames that blocks which answer later hold back."""
        found = {}
        for instances in self._instances.values():
            if instances[-1].delayed and (held := instances[-1].held):
                found[instances[-1].port.name] = held
        return found

    def _park(self, frame: Frame) -> None:
        """Keep a frame until the weights that should decide it have come."""
        self._parked.append(frame)
        self.blocked = True

    def _unpark(self) -> None:
        if self._unparking or self.feedback is None:
            return  # weights that a frame released here brings are seen by the loop below
        self._unparking = True
        while self._parked and self.feedback.admits(self._parked[0].seq):
            frame = self._with_weights(self._parked.popleft())
            if frame.kind is DATA:
                self._data(frame)
            else:
                self._control(frame)
        self._unparking = False
        self.blocked = bool(self._parked)
