"""What a flow is to run: every block made, every field settled, every worker known.

`make_plan` finds, before anything starts, what does not fit together. Each error names its
place, what came, and what would be right; the first one ends the check.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

from pipeline import catalogue
from pipeline.block import Block, Reframe, Sink, Source, Trainer, writes_of
from pipeline.errors import ConnectError, FlowError, KalvitError, ParameterError, did_you_mean
from pipeline.flow import Flow
from pipeline.flow_parts import RESERVED, BlockSpec, Edge
from pipeline.instance import Port
from pipeline.signature import FieldSpec, MismatchError, bind

if TYPE_CHECKING:
    from pipeline.signature import FieldType

MAIN = "main"  # the worker of the blocks that [workers] does not name
TRUTH_READERS = ("encoder", "channel", "sink")  # roles that may read truth
DIMS_LIMIT = 4  # of a field, as the wire carries it
FIELDS_LIMIT = 64  # of a frame, likewise


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
        below = {edge.target, *self._below(edge.target)}
        return any(e.source in below and e.delay != "live" for e in self.flow.edges if e.delay)

    def _below(self, name: str) -> Iterator[str]:
        for edge in self.children(name):
            yield edge.target
            yield from self._below(edge.target)

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
        planned = self._fields()
        return Plan(flow, {name: planned[name] for name in self.order}, workers)

    # Blocks

    def _make(self, spec: BlockSpec) -> Block:
        """The block of a table, with valid parameters and renames."""
        flow, at = self.flow, ("blocks", spec.name)
        try:
            cls = catalogue.find(spec.use)
            signature = cls.signature()
        except KalvitError as error:
            raise type(error)(f"{flow.where(*at, 'use')}: {error}") from error
        clash = next((name for name in RESERVED if name in cls.params().names), None)
        if clash is not None:
            raise ParameterError(
                f"{flow.where(*at)}: {spec.use} has a parameter {clash!r}, a key that flow files "
                "keep for themselves; rename it"
            )
        try:
            block = cls(**spec.params)
        except KalvitError as error:
            raise type(error)(f"{self._where_parameter(spec, str(error))}: {error}") from error
        except OSError as error:
            raise ParameterError(f"{flow.where(*at)}: {spec.use}: {error}") from error
        for key, known, what in (
            ("reads", signature.reads, "reads"),
            ("writes", signature.writes, "writes"),
        ):
            for name in getattr(spec, key):
                if name not in known:
                    hint = did_you_mean(name, known) or f" (it {what}: {_list(known)})"
                    raise ConnectError(
                        f"{flow.where(*at, key, name)}: {spec.name} ({spec.use}) {what} no field "
                        f"{name!r}{hint}"
                    )
        wrong = ""
        if issubclass(cls, Source) and signature.reads:
            wrong = f"is a source, but its process reads {_list(signature.reads)}"
        if issubclass(cls, Sink) and signature.writes:
            wrong = f"is a sink, but its process writes {_list(signature.writes)}"
        if wrong:
            raise ConnectError(f"{flow.where(*at)}: {spec.use} {wrong}")
        return block

    def _where_parameter(self, spec: BlockSpec, error: str) -> str:
        """The place of the parameter that an error text begins with, or of the block's table."""
        words = error.removeprefix(f"{spec.use}: ").replace("parameter ", " ").split()
        near = [word.strip("',:;=").partition("[")[0] for word in words[:2]]
        name = next((word for word in near if word in spec.params), None)
        return self.flow.where("blocks", spec.name, *([name] if name else []))

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

    # Fields

    def _fields(self) -> dict[str, Planned]:
        """Join readers to writers, from the sources on, and settle every type."""
        planned: dict[str, Planned] = {}
        leaving: dict[str, dict[str, FieldSpec]] = {}
        writers: dict[str, dict[str, str]] = {}  # block -> field on its output -> who wrote it
        for name in self.order:
            spec, block = self.flow.blocks[name], self.blocks[name]
            before = self.feeding[name].source if name in self.feeding else None
            given = leaving[before] if before is not None else {}
            wrote = writers[before] if before is not None else {}
            reads = self._reads(spec, block, given, wrote)
            writes = self._writes(spec, block, reads, given)
            if isinstance(block, Reframe):
                kept: dict[str, FieldSpec] = {}
            else:
                kept = dict(given)
                for field, _ in writes:
                    if field in given:
                        self._written_twice(spec, field, wrote[field])
            if len(kept) + len(writes) > FIELDS_LIMIT:
                raise ConnectError(
                    f"{self.flow.where('blocks', name)}: after {self._called(name)} frames have "
                    f"{len(kept) + len(writes)} fields, but may have {FIELDS_LIMIT}"
                )
            leaving[name] = {**kept, **dict(writes)}
            writers[name] = {f: wrote[f] for f in kept} | {field: name for field, _ in writes}
            planned[name] = Planned(
                name, type(block), block, reads, writes, given, frozenset(), self.worker[name],
                spec.genie,
            )  # fmt: skip
        self._need(planned)
        return planned

    def _need(self, planned: dict[str, Planned]) -> None:
        """Find for each block what it and those after it read of its input, from the ends back."""
        wanted: dict[str, set[str]] = {name: set() for name in planned}
        for name in reversed(self.order):
            item = planned[name]
            needed = {field for _, field in item.reads}
            if not isinstance(item.block, Reframe):
                needed |= wanted[name] & item.given.keys()
            planned[name] = replace(item, needed=frozenset(needed))
            if name in self.feeding:
                wanted[self.feeding[name].source] |= needed

    def _reads(
        self, spec: BlockSpec, block: Block, given: Mapping[str, FieldSpec], wrote: dict[str, str]
    ) -> tuple[tuple[str, str], ...]:
        """The fields of the frame that a block gets, checked for presence, truth and type."""
        may_see_truth = spec.genie or spec.use.partition(".")[0] in TRUTH_READERS
        reads: list[tuple[str, str]] = []
        types: list[tuple[FieldSpec, FieldType]] = []
        for argument, declared in block.signature().reads.items():
            field = spec.reads.get(argument, argument)
            optional = declared.optional and argument not in spec.reads
            if field not in given:
                if optional:
                    continue
                self._missing(spec, argument, field, given)
            meaning = given[field].meaning
            if meaning is not None and meaning.truth and not may_see_truth:
                if optional:
                    continue
                raise ConnectError(
                    f"{self._where_read(spec, argument)}: {self._called(spec.name)} reads "
                    f"{field!r} of {wrote[field]}, which is truth: no receiver can see it. Only "
                    f"an encoder, a channel or a sink may; `genie = true` in [blocks.{spec.name}] "
                    "marks one that is meant to cheat"
                )
            reads.append((argument, field))
            types.append((declared, given[field].type))
            try:
                bind(types)
            except MismatchError as error:
                renamed = f" (as {argument!r})" if field != argument else ""
                raise ConnectError(
                    f"{self._where_read(spec, argument)}: {self._called(spec.name)} reads "
                    f"{field!r}{renamed} of {self._called(wrote[field])}: {error}"
                ) from None
        return tuple(reads)

    def _missing(
        self, spec: BlockSpec, argument: str, field: str, given: Mapping[str, FieldSpec]
    ) -> NoReturn:
        where, called = self._where_read(spec, argument), self._called(spec.name)
        before = self.feeding[spec.name].source
        trail = self._before(spec.name)
        elsewhere = [
            other.name
            for other in self.flow.blocks.values()
            for name in self.blocks[other.name].signature().writes
            if other.writes.get(name, name) == field and other.name not in (spec.name, *trail)
        ]
        cut = [n for n in trail if isinstance(self.blocks[n], Reframe)]
        if elsewhere:
            hint = f"connect {elsewhere[0]}, which writes them, between {before} and {spec.name}"
        elif near := did_you_mean(field, given):
            hint = near.removeprefix("; ").rstrip("?") + f'? (reads = {{ {argument} = "..." }})'
        elif cut:
            hint = f"{cut[0]} starts new frames, which hold only what it writes"
        else:
            hint = f"connect a block that writes them between {before} and {spec.name}"
        raise ConnectError(
            f"{where}: {called} reads {field!r}, but nothing before it writes them (there are: "
            f"{_list(given)}); {hint}"
        )

    def _writes(
        self,
        spec: BlockSpec,
        block: Block,
        reads: tuple[tuple[str, str], ...],
        given: Mapping[str, FieldSpec],
    ) -> tuple[tuple[str, FieldSpec], ...]:
        """The fields that a block adds, under their names in the frame, with settled types."""
        where, called = self.flow.where("blocks", spec.name), self._called(spec.name)
        declared = block.signature().reads
        types = {argument: given[field].type for argument, field in reads}
        try:
            groups = bind((declared[argument], kind) for argument, kind in types.items())
            written = writes_of(block, types, groups)
        except KalvitError as error:
            raise type(error)(f"{where}: {called}: {error}") from error
        writes: dict[str, FieldSpec] = {}
        for name, kind in written.items():
            field = spec.writes.get(name, name)
            if not kind.type.settled:
                raise ConnectError(
                    f"{where}: {called} leaves open what {name!r} is: {kind.type}; its narrow() "
                    "must say so"
                )
            if len(kind.type.dims) > DIMS_LIMIT:
                raise ConnectError(
                    f"{where}: {called} writes {name!r} with dims ({', '.join(kind.type.dims)}), "
                    f"but a field may have {DIMS_LIMIT}"
                )
            if field in writes:
                raise ConnectError(
                    f"{self.flow.where('blocks', spec.name, 'writes')}: {called} writes two fields "
                    f"as {field!r}; give each a name of its own"
                )
            writes[field] = replace(kind, name=field)
        return tuple(writes.items())

    def _written_twice(self, spec: BlockSpec, field: str, earlier: str) -> NoReturn:
        own = next((name for name, outer in spec.writes.items() if outer == field), field)
        raise ConnectError(
            f"{self.flow.where('blocks', spec.name)}: {self._called(spec.name)} writes {field!r}, "
            f"which {earlier} before it wrote already; give it another name, such as "
            f'writes = {{ {own} = "{spec.name}_{own}" }}'
        )

    # Words

    def _called(self, name: str) -> str:
        return f"{name} ({self.flow.blocks[name].use})"

    def _where_read(self, spec: BlockSpec, argument: str) -> str:
        path = ("reads", argument) if argument in spec.reads else ()
        return self.flow.where("blocks", spec.name, *path)

    def _before(self, name: str) -> list[str]:
        """The blocks that a frame passed before this one, the last first."""
        trail = []
        while name in self.feeding:
            name = self.feeding[name].source
            trail.append(name)
        return trail


def _list(names: Mapping[str, object]) -> str:
    return ", ".join(names) or "none"


__all__ = ["Plan", "Planned", "make_plan"]
