"""What is asked of a running worker, between two frames: other weights, another block."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import KalvitError, RunError, WeightsError
from pipeline.plan import Plan
from pipeline.replacing import Newcomer, check_kind
from pipeline.segment import Segment
from pipeline.swaps import SwapLog
from pipeline.takeovers import Takeovers
from pipeline.weights import Weights
from pipeline.weights_input import WeightsInput

Message = Mapping[str, Any]


class Changes:
    """Takes messages `swap` and `replace`, and answers each with `swapped`.

    segments  of the worker; a block that is replaced gets one of its own
    feedback  block -> where its weights come in; a block that takes over may add its own
    folder    where changes are logged
    repeats   the run repeats another one, and takes no changes
    """

    def __init__(
        self,
        plan: Plan,
        segments: list[Segment],
        feedback: dict[str, WeightsInput],
        folder: Path | None,
        send: Callable[[Message], None],
        repeats: bool,
    ) -> None:
        self._plan, self._segments, self._feedback = plan, segments, feedback
        self._log = None if folder is None else SwapLog(folder)
        self._send, self._repeats = send, repeats
        self._client = ""
        self._newcomer: Newcomer | None = None

    def swap(self, message: Message) -> None:
        """Swap weights between two frames."""
        block, client = message["block"], message["client"]
        segment = self._segment_of(block)
        try:
            if segment is None or segment.feedback is None:
                raise WeightsError(f"{self._plan.flow.name} has no block {block!r} with weights")
            weights = Weights.from_bytes(base64.b64decode(message["weights"]))
            segment.swap(weights)
        except (WeightsError, ValueError) as error:
            current = None if segment is None else segment.current
            serves = f"{current.name}@{current.version}" if current else ""
            self._answer(client, refused=str(error), serves=serves)
        else:
            self._answer(client, name=weights.name, version=weights.version)

    def replace(self, message: Message) -> None:
        """Begin to get another block ready; `look` lets it take over."""
        try:
            newcomer = self._newcomer_for(message["block"], message["use"], message["set"])
        except KalvitError as error:
            self._answer(message["client"], refused=str(error))
            return
        self._newcomer, self._client = newcomer, message["client"]
        newcomer.start()

    def _newcomer_for(self, name: str, use: str, settings: Sequence[str]) -> Newcomer:
        check_kind(name, self._plan.blocks[name].cls)
        if self._repeats:
            raise RunError(f"{name}: this run repeats the swaps of another one")
        if self._newcomer is not None:
            raise RunError(f"{self._newcomer.block} is being replaced at the moment; try again")
        segment = self._segment_of(name)
        if segment is None or segment.latest is None:
            raise RunError(f"{name} serves no stream at the moment; swap while frames come")
        stream = segment.latest[0].stream
        return Newcomer(
            self._plan, name, use, settings,
            serving=None if segment.takeovers is None else segment.takeovers.use,
            latest=segment.latest,
            context=segment.context(stream, name),
            feedback=self._feedback.get(name),
        )  # fmt: skip

    def look(self) -> None:
        """Let a block that is ready take over."""
        newcomer = self._newcomer
        if newcomer is None or newcomer.is_alive():
            return
        self._newcomer = None
        if newcomer.planned is None or newcomer.use is None:
            self._answer(self._client, refused=newcomer.error)
            return
        planned, use, name = newcomer.planned, newcomer.use, newcomer.block
        segment = self._alone(name)
        feedback = self._feedback.get(name)
        weights = newcomer.first_weights(None if feedback is None else feedback.newest)
        try:
            instances = segment.newcomers(planned, weights)
        except Exception as error:
            known = isinstance(error, KalvitError)
            text = str(error) if known else f"{use.use} raised {type(error).__name__}: {error}"
            self._answer(self._client, refused=text)
            return
        if planned.cls.takes_weights():
            if feedback is None:
                feedback = WeightsInput(name, "live", log=self._log)
                self._feedback[name] = segment.feedback = feedback
            feedback.begin(weights, only=newcomer.with_model)
        if segment.takeovers is None:
            segment.takeovers = Takeovers(segment.blocks[0], self._log)
        segment.replace(planned, use, instances)
        self._answer(self._client, use=use.use)

    def end(self) -> None:
        """The streams have ended."""
        if self._newcomer is not None:
            self._newcomer = None
            self._answer(self._client, refused="the flow has ended")

    def _answer(self, client: str, **answer: Any) -> None:
        self._send({"verb": "swapped", "client": client, **answer})

    def _segment_of(self, name: str) -> Segment | None:
        return next((s for s in self._segments if any(b.name == name for b in s.blocks)), None)

    def _alone(self, name: str) -> Segment:
        """The segment of this block, without the blocks before and after it."""
        (segment,) = (s for s in self._segments if any(b.name == name for b in s.blocks))
        place = [block.name for block in segment.blocks].index(name)
        if place:
            segment = segment.cut(place)
            self._segments.append(segment)
        if len(segment.blocks) > 1:
            self._segments.append(segment.cut(1))
        return segment


__all__ = ["Changes"]
