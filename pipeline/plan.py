"""What a flow is to run: every block made, every field settled, every worker known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from pipeline.block import Block, Learned, Reframe, Sink, Source, Trainer
from pipeline.flow import Flow
from pipeline.flow_parts import Edge
from pipeline.instance import Port
from pipeline.models import Models
from pipeline.signature import FieldSpec
from pipeline.weights import Weights

MAIN = "main"  # the worker of the blocks that [workers] does not name
TRUTH_READERS = ("encoder", "channel", "sink")  # roles that may read truth


@dataclass(frozen=True, eq=False)
class Planned:
    """One block of a plan.

    block    made with its parameters, not started
    reads    pairs (argument of process, field of the frame); absent optional ones left out
    writes   pairs (field of the frame, its settled declaration), in the order of the result
    given    settled declarations of the fields on its input
    needed   those of them that it or something downstream reads
    worker   the one that runs it
    genie    it is marked as allowed to read truth
    spare    fields on its input that its alternatives read
    """

    name: str
    cls: type[Block]
    block: Block
    reads: tuple[tuple[str, str], ...]
    writes: tuple[tuple[str, FieldSpec], ...]
    given: Mapping[str, FieldSpec]
    needed: frozenset[str]
    worker: str
    genie: bool
    spare: frozenset[str] = frozenset()

    @cached_property
    def weights(self) -> Weights | None:
        """The weights that the block starts with; WeightsError where its model is not whole."""
        if isinstance(self.block, Learned) and self.block.model:
            return Models().load(self.block.model)
        return None

    def port(self) -> Port:
        """How an instance is joined to the frames that pass it.

        It knows of the fields that every split into workers carries here, so that a block is
        checked alike in all of them. The frames of a reframe block hold none of its input.
        """
        known = {} if issubclass(self.cls, Reframe) else self.given
        return Port(
            name=self.name,
            reads=self.reads,
            writes=tuple((name, spec.type) for name, spec in self.writes),
            given={name: spec.type for name, spec in known.items() if name in self.needed},
        )


@dataclass(frozen=True, eq=False)
class Plan:
    """A flow that was checked.

    blocks   in an order in which each comes after the one that feeds it
    workers  name -> blocks in that order; every block is in exactly one
    """

    flow: Flow
    blocks: Mapping[str, Planned]
    workers: Mapping[str, tuple[str, ...]]

    def children(self, name: str) -> list[Edge]:
        """Data and tap edges that leave a block."""
        return self._leaving.get(name, [])

    def parent(self, name: str) -> Edge | None:
        """The data or tap edge that feeds a block; None for a source."""
        return self._feeding.get(name)

    def carried(self, edge: Edge) -> tuple[str, ...]:
        """Fields that frames need to hold on an edge: those that someone downstream reads."""
        if edge.kind == "weights":
            return ()
        return tuple(sorted(self.blocks[edge.target].needed))

    def lossless(self, edge: Edge) -> bool:
        """Whether no frame may be dropped on an edge.

        Holds for data edges, and for a tap edge on the way to a trainer whose weights are taken
        after a given number of frames: it has to see every one.
        """
        if edge.kind != "tap":
            return True
        below = {edge.target, *self.below(edge.target)}
        return any(e.source in below and e.delay != "live" for e in self.flow.edges if e.delay)

    def dispensable(self, worker: str) -> bool:
        """Whether the flow goes on without a worker.

        Holds where it only learns: from taps that may drop frames, for weights that are "live".
        """
        for name in self.workers[worker]:
            cls = self.blocks[name].cls
            if issubclass(cls, Source) or (issubclass(cls, Sink) and not issubclass(cls, Trainer)):
                return False
        for edge in self.flow.edges:
            leaves, enters = (
                self.blocks[end].worker == worker for end in (edge.source, edge.target)
            )
            if (enters and not leaves and self.lossless(edge)) or (
                leaves and not enters and edge.delay != "live"
            ):
                return False
        return True

    def below(self, name: str) -> Iterator[str]:
        """All blocks that the frames of a block reach."""
        for edge in self.children(name):
            yield edge.target
            yield from self.below(edge.target)

    @cached_property
    def _leaving(self) -> dict[str, list[Edge]]:
        leaving: dict[str, list[Edge]] = {}
        for edge in self.flow.edges:
            if edge.kind != "weights":
                leaving.setdefault(edge.source, []).append(edge)
        return leaving

    @cached_property
    def _feeding(self) -> dict[str, Edge]:
        return {edge.target: edge for edge in self.flow.edges if edge.kind != "weights"}


__all__ = ["MAIN", "TRUTH_READERS", "Plan", "Planned"]
