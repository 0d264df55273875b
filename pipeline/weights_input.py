"""Where the weights of one block come in, and which of them decides a frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import monotonic_ns, thread_time_ns
from typing import Any, Literal

from pipeline.block import Block
from pipeline.errors import WeightsError
from pipeline.frame import Frame, Kind
from pipeline.swaps import SwapLog, Swaps
from pipeline.weights import Weights

DATA = Kind.DATA
TAKES_LONG_NS = 500_000  # a block that takes weights faster may have them with every frame
REST = 20  # times as long as taking live weights took, it is not done again


class WeightsInput:
    """Where the weights of one block come in: they wait here until their frame comes.

    With an integer delay D, frame n is decided with exactly the weights that the trainer emitted
    after frame n - D; until its answer to that frame has come, `admits` says no. With delay
    "live" the newest weights that have come are used, and those of a swap at once. Where a block
    needs long to take them, newer ones wait: a trainer must not cost the receiver its time.

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
        self._past: dict[str, Weights] = {}  # by name
        self._serve(first)
        self.refusals: list[str] = []
        self._log = log if delay == "live" else None
        self._logged: dict[str, Weights] = {}  # stream -> what the log says decides it
        self._waiting: deque[tuple[int, Weights | None]] = deque()
        self._answered = -1
        self._rests_until_ns = 0

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

    @property
    def newest(self) -> Weights | None:
        """The weights for a block that takes over."""
        if self.delay == "live":
            for _, weights in reversed(self._waiting):
                if weights is not None:
                    return weights
        return self.current

    @property
    def past(self) -> list[Weights]:
        """The last weights of each name that have served, the newest first."""
        return list(reversed(self._past.values()))

    def begin(self, weights: Weights | None, *, only: bool) -> None:
        """Let these serve: a block that took over has them already.

        only    those that came before are out of date
        """
        self._serve(weights)
        self._logged.clear()
        if only:
            self._waiting.clear()

    def _serve(self, weights: Weights | None) -> None:
        self.current = weights
        if weights is not None:
            self._past.pop(weights.name, None)
            self._past[weights.name] = weights

    def take(self, seq: int, blocks: Sequence[Block]) -> None:
        """Hand over the newest weights that are due before frame `seq` and that fit.

        Where no block takes weights, the newest wait for the next that does.
        """
        due: list[tuple[int, Weights]] = []
        while self._waiting:
            after, weights = self._waiting[0]
            if self.delay != "live" and after > seq - self.delay:
                break
            self._waiting.popleft()
            if weights is not None:
                due.append((after, weights))
        if not blocks:
            self._waiting.extendleft(due[-1:])
            return
        for _, weights in reversed(due):
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
        self._serve(weights)
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
        if self._waiting and (self.delay != "live" or monotonic_ns() >= self._rests_until_ns):
            before_ns = thread_time_ns()
            self.take(frame.seq, list(blocks.values()))
            took_ns = thread_time_ns() - before_ns
            if took_ns > TAKES_LONG_NS:
                self._rests_until_ns = monotonic_ns() + REST * took_ns
        if frame.stream not in blocks:
            return None
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
        if frame.stream not in blocks:
            return None
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

    def took_over(self, stream: str) -> None:
        """Another block serves a stream; the log says with which weights it began."""
        self._serving.pop(stream, None)
        self._logged.pop(stream, None)


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


__all__ = ["ReplayInput", "WeightsInput", "never_decided"]
