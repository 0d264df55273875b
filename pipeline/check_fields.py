"""Joins the blocks of a flow by their fields: who writes what each reads, and of which type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

from pipeline import catalogue
from pipeline.block import Block, Reframe, writes_of
from pipeline.errors import ConnectError, KalvitError, did_you_mean
from pipeline.flow import Flow
from pipeline.flow_parts import BlockSpec
from pipeline.plan import TRUTH_READERS, Planned
from pipeline.replacing import unwritten
from pipeline.signature import FieldSpec, FieldType, MismatchError, Signature, bind

DIMS_LIMIT = 4  # of a field, as the wire carries it
FIELDS_LIMIT = 64  # of a frame, likewise


def join_fields(
    flow: Flow,
    blocks: Mapping[str, Block],
    parents: Mapping[str, str],
    order: Sequence[str],
    workers: Mapping[str, str],
) -> dict[str, Planned]:
    """The planned blocks, in order, or a ConnectError for the first field that does not fit.

    blocks   each made with its parameters
    parents  block -> the one that feeds it; none for a source
    order    all blocks, each after its parent
    workers  block -> the worker that runs it
    """
    return _Fields(flow, blocks, parents, order, workers).planned()


class _Fields:
    """The flow as far as fields are known, from the sources on."""

    def __init__(
        self,
        flow: Flow,
        blocks: Mapping[str, Block],
        parents: Mapping[str, str],
        order: Sequence[str],
        workers: Mapping[str, str],
    ) -> None:
        self.flow = flow
        self.blocks = blocks
        self.parents = parents
        self.order = order
        self.workers = workers
        self.leaving: dict[str, dict[str, FieldSpec]] = {}  # fields on the output of a block
        self.writers: dict[str, dict[str, str]] = {}  # and which block wrote each

    def planned(self) -> dict[str, Planned]:
        planned: dict[str, Planned] = {}
        for name in self.order:
            spec, block = self.flow.blocks[name], self.blocks[name]
            given: dict[str, FieldSpec] = {}
            wrote: dict[str, str] = {}
            if name in self.parents:
                given, wrote = self.leaving[self.parents[name]], self.writers[self.parents[name]]
            reads = self._reads(spec, block.signature(), given, wrote)
            writes = self._writes(spec, block, reads, given)
            fresh = isinstance(block, Reframe)
            for field, _ in writes:
                if field in given and not fresh:
                    self._written_twice(spec, field, wrote[field])
            self.leaving[name] = {**({} if fresh else given), **dict(writes)}
            self.writers[name] = {**({} if fresh else wrote), **{f: name for f, _ in writes}}
            planned[name] = Planned(
                name, type(block), block, reads, writes, given, frozenset(), self.workers[name],
                spec.genie, self._spare(spec, given, wrote),
            )  # fmt: skip
        return self._with_needs(planned)

    def _spare(
        self, spec: BlockSpec, given: Mapping[str, FieldSpec], wrote: Mapping[str, str]
    ) -> frozenset[str]:
        """The fields that the alternatives of a block read, checked as its own are."""
        found: set[str] = set()
        for use in spec.alternatives:
            signature = catalogue.find(use).signature()
            other = spec.replaced(use, signature, {})
            found |= {field for _, field in self._reads(other, signature, given, wrote)}
        return frozenset(found)

    def _check_alternatives(self, item: Planned, wanted: set[str]) -> None:
        """Every alternative writes what those after the block read of it."""
        spec = self.flow.blocks[item.name]
        for use in spec.alternatives:
            if field := unwritten(spec, use, wanted & {field for field, _ in item.writes}):
                raise ConnectError(
                    f"{self.flow.where('blocks', item.name, 'alternatives')}: {use} writes no "
                    f"{field!r}, which blocks after {item.name} read"
                )

    def _with_needs(self, planned: dict[str, Planned]) -> dict[str, Planned]:
        """Say of each block what it and those after it read of its input, from the ends back."""
        wanted: dict[str, set[str]] = {name: set() for name in planned}
        for name in reversed(self.order):
            item = planned[name]
            self._check_alternatives(item, wanted[name])
            needed = {field for _, field in item.reads} | item.spare
            if not isinstance(item.block, Reframe):
                needed |= wanted[name] & item.given.keys()
            if len(needed) > FIELDS_LIMIT:
                raise ConnectError(
                    f"{self.flow.where('blocks', name)}: {self._called(name)} and the blocks after "
                    f"it read {len(needed)} fields of those before, but a frame may carry "
                    f"{FIELDS_LIMIT}"
                )
            planned[name] = replace(item, needed=frozenset(needed))
            if name in self.parents:
                wanted[self.parents[name]] |= needed
        return planned

    def _reads(
        self,
        spec: BlockSpec,
        signature: Signature,
        given: Mapping[str, FieldSpec],
        wrote: Mapping[str, str],
    ) -> tuple[tuple[str, str], ...]:
        """The fields of the frame that a block gets, checked for presence, truth and type."""
        called = f"{spec.name} ({spec.use})"
        may_see_truth = spec.genie or spec.use.partition(".")[0] in TRUTH_READERS
        reads: list[tuple[str, str]] = []
        types: list[tuple[FieldSpec, FieldType]] = []
        for argument, declared in signature.reads.items():
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
                    f"{self._where_read(spec, argument)}: {called} reads "
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
                    f"{self._where_read(spec, argument)}: {called} reads "
                    f"{field!r}{renamed} of {self._called(wrote[field])}: {error}"
                ) from None
        return tuple(reads)

    def _missing(
        self, spec: BlockSpec, argument: str, field: str, given: Mapping[str, FieldSpec]
    ) -> NoReturn:
        where, called = self._where_read(spec, argument), f"{spec.name} ({spec.use})"
        before = self.parents[spec.name]
        trail = self._before(spec.name)
        writers = [name for name in self.blocks if field in self._outer_names(name)]
        reframe = next((name for name in trail if isinstance(self.blocks[name], Reframe)), "")
        if any(name in trail for name in writers):
            hint = f"{reframe} starts new frames, which hold only what it writes"
        elif others := [name for name in writers if name != spec.name]:
            hint = f"connect {others[0]}, which writes them, between {before} and {spec.name}"
        elif near := did_you_mean(field, given):
            hint = near.removeprefix("; ") + f' (reads = {{ {argument} = "..." }})'
        else:
            hint = f"connect a block that writes them between {before} and {spec.name}"
        raise ConnectError(
            f"{where}: {called} reads {field!r}, but nothing before it writes them (there are: "
            f"{', '.join(given) or 'none'}); {hint}"
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
            said = str(error).removeprefix(f"{block.name}: ")
            error.args = (f"{where}: {called}: {said}",)
            raise
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

    def _outer_names(self, name: str) -> list[str]:
        """The fields that a block writes, as frames call them."""
        renames = self.flow.blocks[name].writes
        return [renames.get(field, field) for field in self.blocks[name].signature().writes]

    def _called(self, name: str) -> str:
        return f"{name} ({self.flow.blocks[name].use})"

    def _where_read(self, spec: BlockSpec, argument: str) -> str:
        path = ("reads", argument) if argument in spec.reads else ()
        return self.flow.where("blocks", spec.name, *path)

    def _before(self, name: str) -> list[str]:
        """The blocks that a frame passed before this one, the last first."""
        trail = []
        while name in self.parents:
            name = self.parents[name]
            trail.append(name)
        return trail


__all__ = ["join_fields"]
