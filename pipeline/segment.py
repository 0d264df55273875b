"""Blocks called one after the other: the part of a flow between two branches.

A flow is a tree: every block has one input. Within a worker it falls into segments, runs of
blocks without a branch, which hand a frame on by direct calls. A block that may answer later,
that cuts frames anew or that ends a branch is the last of its segment; a block that takes
weights is the first. A block that another one replaces stands alone.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from pipeline.block import Block, Context, Reframe, Sink, Trainer, make
from pipeline.errors import FieldError, KalvitError, RunError, WeightsError
from pipeline.frame import Frame, Kind, Scalar, StreamInfo
from pipeline.instance import Fields, Instance
from pipeline.metrics import Meter
from pipeline.numbering import Numbering, clock_of
from pipeline.plan import Planned
from pipeline.swaps import SwapLog, Use, keep_notes
from pipeline.takeovers import Latest, Takeovers
from pipeline.weights import Weights
from pipeline.weights_input import ReplayInput, WeightsInput

now_ns = time.monotonic_ns
DATA = Kind.DATA  # looking up a member of an enum costs more than a frame should wait

Step = Callable[[Frame, Fields], Any]
Note = Callable[[int], None]


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


class Segment:
    """Runs its blocks on each frame that is pushed, and pushes the result to `outs`."""

    def __init__(
        self,
        blocks: Sequence[Planned],
        seed: int,
        feedback: WeightsInput | None = None,
        shared: Instance | None = None,
    ) -> None:
        self.blocks = tuple(blocks)
        self.outs: list[Out] = []
        self.weights_outs: list[Out] = []  # feedback edges that leave a trainer
        self.keeper: SwapLog | None = None  # writes down what leaves live for another worker
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
        self._shared = shared  # of the sink or trainer at the end
        self._reframed: dict[str, Numbering] = {}
        self._origin: dict[str, tuple[int, Mapping[str, Scalar]]] = {}  # of frames cut anew
        self._steps: dict[str, tuple[list[tuple[Step, Note]], bool]] = {}
        self._weights_seq = 0
        self.latest: Latest | None = None  # a data frame that came, with all that was added to it
        self.takeovers: Takeovers | None = None  # once its block was replaced, or in a replay
        self._set_kind()
        if self._is_sink and shared is None:
            last = self.blocks[-1]
            self._shared = self._instance(last, Context(last.name, "", seed))

    def _set_kind(self) -> None:
        last = self.blocks[-1]
        self._is_sink = issubclass(last.cls, Sink)
        self._is_trainer = issubclass(last.cls, Trainer)
        self._is_reframe = issubclass(last.cls, Reframe)

    @property
    def feedback(self) -> WeightsInput | None:
        """Where weights come in for the first block, if it takes any."""
        return self._feedback

    @feedback.setter
    def feedback(self, feedback: WeightsInput | None) -> None:
        self._feedback = feedback
        if feedback is not None:
            feedback.wake = self._unpark

    @property
    def sink(self) -> Sink | None:
        """The sink at the end, if there is one."""
        block = self._shared.block if self._shared else None
        return block if isinstance(block, Sink) else None

    def push(self, frame: Frame) -> None:
        """Take one frame of any kind, in the order of its stream."""
        feedback = self._feedback
        if feedback is not None and (self._parked or not feedback.admits(frame.seq)):
            self._park(frame)
        else:
            self._process(frame)

    def _process(self, frame: Frame) -> None:
        if self.takeovers is not None:
            frame = self._with_use(self.takeovers, frame)
        if self._feedback is not None:
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
        found = self._steps.get(frame.stream)
        if found is None:
            raise RunError(f"stream {frame.stream!r} sent data before its start")
        steps, answers_whole = found
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
        self.latest = frame, fields
        if self._is_sink and not self._is_trainer:
            self.latency.note(before - frame.born_ns)
            return
        whole = Frame(
            DATA, frame.stream, frame.seq, frame.sample, frame.born_ns, fields, frame.marks
        )
        if answers_whole:
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
                if self.keeper is not None:
                    self.keeper.keep(weights)
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
        self._join(frame.stream, instances)
        if self.takeovers is not None:
            self.takeovers.opens(frame.stream)
        if self._is_reframe:
            block = instances[-1].block
            if isinstance(block, Reframe):
                clock = clock_of(instances[-1].port.writes)
                describe = partial(block.describe, info)
                anew = self._guard(instances[-1], frame.stream, frame.seq, describe)
                self._reframed[frame.stream] = Numbering(frame.stream, anew, clock, info)
        self._take_again(frame)

    def _join(self, stream: str, instances: list[Instance]) -> None:
        """Let these serve a stream."""
        self._instances[stream] = instances
        last = instances[-1]
        answers_whole = last.delayed or self._is_reframe or self._is_trainer
        plain = instances[:-1] if answers_whole else instances
        steps = [(instance.step, self.meters[instance.port.name].note) for instance in plain]
        self._steps[stream] = steps, answers_whole
        self._learned.pop(stream, None)
        if self._feedback is not None and instances[0].block.takes_weights():
            self._learned[stream] = instances[0].block

    def _take_again(self, frame: Frame) -> None:
        """Hand the current weights to a block that has started."""
        if self._feedback is None or frame.stream not in self._learned:
            return
        weights = self._feedback.at_start(frame.stream)
        if weights is not None:
            instance = self._instances[frame.stream][0]
            taking = partial(instance.block.take, weights)
            self._guard(instance, frame.stream, frame.seq, taking)

    def _close(self, stream: str) -> None:
        del self._instances[stream], self._steps[stream]
        if self.latest is not None and self.latest[0].stream == stream:
            self.latest = None
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
        if not blocks and self._instances:
            raise WeightsError(f"{self.serving.block.name}, which serves {name} now, takes none")
        if not blocks:
            raise WeightsError(f"{name} serves no stream at the moment; swap while frames come")
        try:
            refused = feedback.swap(weights, blocks)
        except Exception as error:
            raise BlockError(name, "", -1, error) from error
        if refused is not None:
            raise refused

    # another block in the place of one

    @property
    def serving(self) -> Planned:
        """The block at the start, as it serves now."""
        return self.blocks[0] if self.takeovers is None else self.takeovers.planned

    @property
    def current(self) -> Weights | None:
        """The weights that serve, where the block that serves takes any."""
        if self._feedback is None or not self.serving.cls.takes_weights():
            return None
        return self._feedback.current

    def cut(self, place: int) -> Segment:
        """Leave the blocks from `place` on to a segment of their own, which follows this one."""
        rest = Segment(self.blocks[place:], self._seed, shared=self._shared)
        self.blocks, self._shared = self.blocks[:place], None
        self._set_kind()
        rest.outs, self.outs = self.outs, [rest]
        rest.weights_outs, rest.answers_all = self.weights_outs, self.answers_all
        rest._weights_seq = self._weights_seq
        rest._reframed, self._reframed = self._reframed, {}
        rest._origin, self._origin = self._origin, {}
        rest.latency, self.latency = self.latency, rest.latency
        rest.latest = self.latest
        rest.meters = {block.name: self.meters.pop(block.name) for block in rest.blocks}
        for stream, instances in list(self._instances.items()):
            rest._join(stream, instances[place:])
            self._join(stream, instances[:place])
        return rest

    def context(self, stream: str, name: str) -> Context:
        """Where a block of this segment serves a stream."""
        (found,) = (i for i in self._instances[stream] if i.port.name == name)
        return found.block.context

    def newcomers(self, planned: Planned, weights: Weights | None) -> dict[str, Instance]:
        """An instance for each stream, that has started; raises what the block raises."""
        found = {}
        for stream in self._instances:
            block = make(planned.cls, planned.block.values(), self.context(stream, planned.name))
            found[stream] = Instance(block, planned.port())
            if weights is not None:
                block.take(weights)
        return found

    def replace(self, planned: Planned, use: Use, newcomers: Mapping[str, Instance]) -> None:
        """Let another block take over on all streams, between two frames.

        The segment has no other block, and `takeovers` are there. The old one answers what it
        holds.
        """
        self.blocks = (planned,)
        for stream, instance in newcomers.items():
            self._exchange(stream, instance)
        if self.takeovers is not None:
            self.takeovers.replaced(planned, use, newcomers)

    def _exchange(self, stream: str, instance: Instance) -> None:
        old = self._instances[stream][0]
        seq = self.latest[0].seq if self.latest else 0
        self._emit(self._guard(old, stream, seq, old.finish))
        self._join(stream, [instance])

    def _with_use(self, takeovers: Takeovers, frame: Frame) -> Frame:
        """Repeat what another run did before this frame, and say what decides it."""
        if frame.kind is not DATA:
            return frame
        due = takeovers.due(frame)
        if due is not None:
            planned, use = due
            instance = self._instance(planned, self.context(frame.stream, planned.name))
            self._exchange(frame.stream, instance)
            if isinstance(self._feedback, ReplayInput):
                self._feedback.took_over(frame.stream)
            self._take_again(frame)
            takeovers.replaced(planned, use, [frame.stream])
        return takeovers.marked(frame)

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
            self._process(self._parked.popleft())
        self._unparking = False
        self.blocked = bool(self._parked)
