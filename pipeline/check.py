"""Checks a flow, before anything starts: its blocks, edges and workers, then its fields.

Each error names its place, what came, and what would be right; the first one ends the check.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NoReturn

from pipeline import catalogue
from pipeline.block import Block, Reframe, Sink, Source, Trainer
from pipeline.check_fields import join_fields
from pipeline.errors import ConnectError, FlowError, KalvitError, ParameterError, did_you_mean
from pipeline.flow import Flow
from pipeline.flow_parts import RESERVED, BlockSpec, Edge, put_place
from pipeline.plan import MAIN, Plan
from pipeline.replacing import replaceable


def make_plan(flow: Flow) -> Plan:
    """The plan of a flow, or the first thing that is wrong with it as a KalvitError."""
    return _Check(flow).plan()


class _Check:
    """The checks, in the order in which they can be made."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.blocks: dict[str, Block] = {}
        self.feeding: dict[str, Edge] = {}
        self.order: list[str] = []
        self.worker: dict[str, str] = {}

    def plan(self) -> Plan:
        flow = self.flow
        flow.check_head()  # it may have been changed since it was made
        if not flow.blocks:
            raise FlowError(f"{flow.where()}: the flow has no blocks; add [blocks.NAME] with `use`")
        for spec in flow.blocks.values():
            self.blocks[spec.name] = self._make(spec)
        for edge in flow.edges:
            self._ends(edge)
            if edge.kind == "weights":
                self._weights(edge)
            else:
                self._feed(edge)
        for name in flow.blocks:
            self._fed(name)
        self._sort()
        for edge in flow.edges:
            if edge.kind == "weights":
                self._numbering(edge)
        workers = self._workers()
        parents = {name: edge.source for name, edge in self.feeding.items()}
        planned = join_fields(flow, self.blocks, parents, self.order, self.worker)
        for name, item in planned.items():
            try:
                item.weights  # noqa: B018 (read now, and kept for whoever runs the block)
            except KalvitError as error:
                put_place(error, flow.where("blocks", name, "model"))
                raise
        return Plan(flow, planned, workers)

    # Blocks

    def _make(self, spec: BlockSpec) -> Block:
        """The block of a table, with valid parameters and renames."""
        flow, at = self.flow, ("blocks", spec.name)
        try:
            cls = catalogue.find(spec.use)
            signature, parameters = cls.signature(), cls.params().names
        except KalvitError as error:
            put_place(error, flow.where(*at, "use"))
            raise
        clash = next((name for name in RESERVED if name in parameters), None)
        if clash is not None:
            raise ParameterError(
                f"{flow.where(*at)}: {spec.use} has a parameter {clash!r}, a key that flow files "
                "keep for themselves; rename it"
            )
        try:
            block = cls(**spec.params)
        except KalvitError as error:
            put_place(error, self._where_parameter(spec, str(error)))
            raise
        except OSError as error:
            raise ParameterError(f"{flow.where(*at)}: {spec.use}: {error}") from error
        for key, renamed, known in (
            ("reads", spec.reads, signature.reads),
            ("writes", spec.writes, signature.writes),
        ):
            for name in renamed:
                if name not in known:
                    hint = did_you_mean(name, known) or f" (it {key}: {_list(known)})"
                    raise ConnectError(
                        f"{flow.where(*at, key, name)}: {self._called(spec.name)} {key} no field "
                        f"{name!r}{hint}"
                    )
        wrong = ""
        if issubclass(cls, Source) and signature.reads:
            wrong = f"is a source, but its process reads {_list(signature.reads)}"
        if issubclass(cls, Sink) and signature.writes:
            wrong = f"is a sink, but its process writes {_list(signature.writes)}"
        if wrong:
            raise ConnectError(f"{flow.where(*at)}: {spec.use} {wrong}")
        for other in spec.alternatives:
            try:
                replaceable(spec.name, cls, other)
            except KalvitError as error:
                put_place(error, flow.where(*at, "alternatives"))
                raise
        return block

    def _where_parameter(self, spec: BlockSpec, error: str) -> str:
        """The place of the parameter that an error text begins with, or of the block's table."""
        said = error.removeprefix(f"{spec.use}: ")
        begins = r"(?:(?:no )?parameter )?'?{}(?!\w)"
        names = [n for n in spec.params if re.match(begins.format(re.escape(n)), said)]
        return self.flow.where("blocks", spec.name, *sorted(names, key=len)[-1:])

    # Edges

    def _ends(self, edge: Edge) -> None:
        """Both ends of an edge are blocks of the flow, and not the same one."""
        where = self.flow.where_edge(edge)
        for name in (edge.source, edge.target):
            if name not in self.blocks:
                hint = did_you_mean(name, self.blocks) or f" (it has: {', '.join(self.blocks)})"
                raise FlowError(f"{where}: the flow has no block {name!r}{hint}")
        if edge.source == edge.target:
            raise FlowError(f"{where}: the edge {edge.name} joins a block to itself")

    def _feed(self, edge: Edge) -> None:
        """A data or tap edge leaves a block with an output and is the only one into its target."""
        where, source, target = self.flow.where_edge(edge), edge.source, edge.target
        if isinstance(self.blocks[source], Sink):
            hint = f"connect {target} to a block before it"
            if isinstance(self.blocks[source], Trainer):
                hint = f'its weights travel by weights = ["{source} ~> {target}"]'
            raise FlowError(
                f"{where}: the edge {edge.name} leaves {self._called(source)}, which ends its "
                f"branch; {hint}"
            )
        if isinstance(self.blocks[target], Source):
            raise FlowError(
                f"{where}: the edge {edge.name} enters {self._called(target)}, which starts a "
                "stream and has no input"
            )
        if target in self.feeding:
            raise FlowError(
                f"{where}: {target} has two inputs, {self.feeding[target].name} and {edge.name}; "
                "a block has one. Blocks in a chain see the fields of all before them"
            )
        self.feeding[target] = edge

    def _weights(self, edge: Edge) -> None:
        """A weights edge leaves a trainer and is the only one into a block that takes weights."""
        where, source, target = self.flow.where_edge(edge), edge.source, edge.target
        if not isinstance(self.blocks[source], Trainer):
            raise FlowError(
                f"{where}: weights come from a trainer, but {self._called(source)} is none"
            )
        if not type(self.blocks[target]).takes_weights():
            raise FlowError(f"{where}: {self._called(target)} takes no weights")
        if isinstance(self.blocks[target], Source):
            raise FlowError(
                f"{where}: {self._called(target)} is a source, which has no frames to decide with "
                "weights"
            )
        for other in self.flow.edges:
            if other.kind == "weights" and other.target == target and other != edge:
                raise FlowError(
                    f"{where}: {target} takes weights from {other.source} and from {source}; a "
                    "block takes them from one trainer"
                )

    def _fed(self, name: str) -> None:
        """Every block but a source has an input."""
        if name not in self.feeding and not isinstance(self.blocks[name], Source):
            key = "tap" if isinstance(self.blocks[name], Trainer) else "data"
            raise FlowError(
                f"{self.flow.where('blocks', name)}: {self._called(name)} has no input; connect "
                f'it in [edges], such as {key} = ["{self._a_block_before(name)} -> {name}"]'
            )

    def _a_block_before(self, name: str) -> str:
        others = [o for o in self.blocks if o != name and not isinstance(self.blocks[o], Sink)]
        earlier = [o for o in others if list(self.blocks).index(o) < list(self.blocks).index(name)]
        return (earlier[-1:] or others[:1] or ["source"])[0]

    def _sort(self) -> None:
        """Put each block after the one that feeds it; refuse a cycle."""
        children: dict[str, list[str]] = {}
        for edge in self.flow.edges:
            if edge.kind != "weights":
                children.setdefault(edge.source, []).append(edge.target)
        waiting = [name for name in self.blocks if name not in self.feeding][::-1]
        while waiting:
            name = waiting.pop()
            self.order.append(name)
            waiting += children.get(name, [])[::-1]
        reached = set(self.order)
        for edge in self.flow.edges:
            if edge.kind != "weights" and edge.target not in reached:
                self._cycle(edge)

    def _cycle(self, edge: Edge) -> NoReturn:
        """Name the cycle that an edge is on or hangs from."""
        trail = [edge.source]
        while self.feeding[trail[-1]].source not in trail:
            trail.append(self.feeding[trail[-1]].source)
        cycle = trail[trail.index(self.feeding[trail[-1]].source) :][::-1]
        first = min(range(len(cycle)), key=lambda at: list(self.blocks).index(cycle[at]))
        cycle = cycle[first:] + cycle[: first + 1]
        raise FlowError(
            f"{self.flow.where_edge(edge)}: the edges {' -> '.join(cycle)} go in a circle; frames "
            'only go forward, and what goes back is weights = ["trainer ~> block"]'
        )

    def _numbering(self, edge: Edge) -> None:
        """A delay in frames makes sense only where both ends count the same frames."""
        if edge.delay == "live":
            return
        starts = [self._numbered_by(name) for name in (edge.source, edge.target)]
        if starts[0] != starts[1]:
            raise FlowError(
                f"{self.flow.where_edge(edge)}: delay = {edge.delay} counts frames, but "
                f"{edge.source} counts those of {starts[0]} and {edge.target} those of "
                f'{starts[1]}; use delay = "live"'
            )

    def _numbered_by(self, name: str) -> str:
        """The source or reframe block that numbers the frames on the input of a block."""
        while name in self.feeding:
            name = self.feeding[name].source
            if isinstance(self.blocks[name], Reframe):
                break
        return name

    # Workers

    def _workers(self) -> dict[str, tuple[str, ...]]:
        flow = self.flow
        for worker, names in flow.workers.items():
            where = flow.where("workers", worker)
            if not names:
                raise FlowError(
                    f"{where}: worker {worker!r} runs no block; name one, such as "
                    f'{worker} = ["{self.order[-1]}"], or leave it out'
                )
            for name in names:
                if name not in self.blocks:
                    hint = did_you_mean(name, self.blocks) or f" (it has: {', '.join(self.blocks)})"
                    raise FlowError(
                        f"{where}: worker {worker!r} runs {name!r}, but the flow has no such "
                        f"block{hint}"
                    )
                if self.worker.setdefault(name, worker) != worker:
                    raise FlowError(
                        f"{where}: block {name!r} is in the workers {self.worker[name]!r} and "
                        f"{worker!r}; leave it in one"
                    )
        for name in self.blocks:
            self.worker.setdefault(name, MAIN)
        for edge in flow.edges:
            if edge.via and self.worker[edge.source] == self.worker[edge.target]:
                raise FlowError(
                    f"{flow.where_edge(edge)}: the edge {edge.name} has via = {edge.via!r}, but "
                    f"both ends run in worker {self.worker[edge.source]!r}; leave `via` out, or "
                    "put one of them into another worker"
                )
        order = dict.fromkeys([MAIN, *flow.workers])
        runs = {w: tuple(n for n in self.order if self.worker[n] == w) for w in order}
        return {worker: names for worker, names in runs.items() if names}

    # Words

    def _called(self, name: str) -> str:
        return f"{name} ({self.flow.blocks[name].use})"


def _list(names: Mapping[str, object]) -> str:
    return ", ".join(names) or "none"


__all__ = ["make_plan"]
