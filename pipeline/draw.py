"""Drawings of a flow and cards of a block, as text."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.block import Block, Reframe, Sink, Source, Trainer
from pipeline.flow_parts import Edge
from pipeline.frame import DTYPES
from pipeline.params import Param
from pipeline.plan import TRUTH_READERS, Plan, Planned
from pipeline.signature import FieldSpec


def draw_text(plan: Plan) -> str:
    """The flow as a tree that is read downwards.

    Each block stands over the fields that it adds. Solid lines are data edges, dashed ones taps.
    Workers are named where there are several, and the fields that travel where an edge joins two.
    """
    roots = [block.name for block in plan.blocks.values() if plan.parent(block.name) is None]
    width = max(len(name) for name in plan.blocks)
    lines = [plan.flow.name]
    for name in roots:
        lines += ["", *_tree(plan, name, width)]
    return "\n".join(lines)


def _tree(plan: Plan, name: str, width: int) -> Iterator[str]:
    """The lines of a block and of all that follows it."""
    block, children = plan.blocks[name], plan.children(name)
    notes = "".join(f"  {note}" for note in _notes(plan, block))
    yield f"{name:{width}}  {block.cls.name}{notes}".rstrip()
    alone = len(children) == 1
    bar = ("┆" if children[0].kind == "tap" else "│") if alone else "│" if children else " "
    for field, spec in block.writes:
        yield f"{bar} {_field(field, spec)}"
    if alone:
        yield "▽" if children[0].kind == "tap" else "▼"
        yield from _tree(plan, children[0].target, width)
        return
    for edge in children:
        last = edge is children[-1]
        arrow = "┄▷ " if edge.kind == "tap" else "─▶ "
        first, *rest = _tree(plan, edge.target, width)
        yield ("└" if last else "├") + arrow + first
        for line in rest:
            yield ("    " if last else "│   ") + line


def _notes(plan: Plan, block: Planned) -> Iterator[str]:
    """What the drawing says beside a block."""
    if len(plan.workers) > 1:
        yield f"[{block.worker}]"
    edge = plan.parent(block.name)
    if edge is not None and edge.kind == "tap":
        yield "tap"
    if edge is not None and _crosses(plan, edge):
        fields = ", ".join(plan.carried(edge)) or "no fields"
        yield f"over {edge.via or 'ipc'}: {fields}"
    if issubclass(block.cls, Reframe):
        yield "new frames"
    for weights in plan.flow.edges:
        if weights.kind == "weights" and block.name in (weights.source, weights.target):
            yield f"{weights.source} ~> {weights.target} ({_delay(weights)})"
    if block.genie:
        yield "GENIE: may read truth"


def _crosses(plan: Plan, edge: Edge) -> bool:
    return plan.blocks[edge.source].worker != plan.blocks[edge.target].worker


def _delay(edge: Edge) -> str:
    return "live" if edge.delay == "live" else f"delay {edge.delay}"


def _field(name: str, spec: FieldSpec) -> str:
    """A field on one line: `samples: float32 (time) [V]`."""
    dims = ", ".join(spec.type.dims)
    text = f"{name}: {' or '.join(spec.type.dtypes)} ({dims})"
    if spec.meaning is not None and spec.meaning.unit:
        text += f" [{spec.meaning.unit}]"
    if spec.meaning is not None and spec.meaning.truth:
        text += ", truth"
    return text


def draw_mermaid(plan: Plan) -> str:
    """The flow as a mermaid flowchart: workers are boxes around their blocks."""
    lines = ["flowchart LR"]
    for worker, names in plan.workers.items():
        inner = "    "
        if len(plan.workers) > 1:
            lines.append(f'    subgraph worker_{worker}["worker {worker}"]')
            inner *= 2
        lines += [inner + _node(plan.blocks[name]) for name in names]
        if len(plan.workers) > 1:
            lines.append("    end")
    for edge in plan.flow.edges:
        source, target = f"block_{edge.source}", f"block_{edge.target}"
        if edge.kind == "weights":
            lines.append(f'    {source} == "weights, {_delay(edge)}" ==> {target}')
            continue
        label = "<br/>".join(plan.carried(edge))
        if edge.kind == "tap":
            label = "tap" + (f"<br/>{label}" if label else "")
        arrow = "-.->" if edge.kind == "tap" else "-->"
        lines.append(f"    {source} {arrow}" + (f'|"{label}"|' if label else "") + f" {target}")
    genies = [f"block_{block.name}" for block in plan.blocks.values() if block.genie]
    if genies:
        lines.append("    classDef genie stroke-dasharray: 4 4")
        lines.append(f"    class {','.join(genies)} genie")
    return "\n".join(lines)


def _node(block: Planned) -> str:
    mark = "<br/>GENIE" if block.genie else ""
    label = f'"{block.name}<br/>{block.cls.name}{mark}"'
    opening, closing = "[", "]"
    if issubclass(block.cls, Source):
        opening, closing = "([", "])"
    elif issubclass(block.cls, Sink):
        opening, closing = "[[", "]]"
    return f"block_{block.name}{opening}{label}{closing}"


@dataclass(frozen=True)
class BlockCard:
    """What a user of a block wants to know.

    kind     source, reframe, sink, trainer or block
    reads    fields that `process` takes; writes: those it adds
    delayed  it may answer a frame later than the next
    learned  it takes weights
    genie    its role may read truth
    """

    name: str
    kind: str
    doc: str
    params: tuple[Param, ...]
    reads: tuple[FieldSpec, ...]
    writes: tuple[FieldSpec, ...]
    delayed: bool
    learned: bool
    genie: bool

    def lines(self) -> list[str]:
        """The card as text."""
        first, *rest = self.doc.splitlines() or [""]
        lines = [f"{self.name}: {first}" if first else self.name, *rest]
        traits = [self.kind] if self.kind != "block" else []
        traits += ["may answer later"] * (self.delayed and self.kind == "block")
        traits += ["takes weights"] * self.learned + ["may read truth"] * self.genie
        if traits:
            lines += ["", ", ".join(traits)]
        if self.params:
            lines += ["", "parameters"]
            rows = _columns(_param_row(item) for item in self.params)
            for row, item in zip(rows, self.params, strict=True):
                lines += [row, f"      {item.doc}"]
        for title, fields in (("reads", self.reads), ("writes", self.writes)):
            if fields:
                lines += ["", title, *_columns(_row(field) for field in fields)]
        return lines


def describe_block(cls: type[Block]) -> BlockCard:
    """The card of a block class."""
    kinds: dict[type[Block], str] = {
        Source: "source",
        Reframe: "reframe",
        Trainer: "trainer",
        Sink: "sink",
    }
    signature = cls.signature()
    return BlockCard(
        name=cls.name,
        kind=next((kind for base, kind in kinds.items() if issubclass(cls, base)), "block"),
        doc=inspect.cleandoc(cls.__doc__ or ""),
        params=tuple(cls.params().describe()),
        reads=tuple(signature.reads.values()),
        writes=tuple(signature.writes.values()),
        delayed=signature.delayed,
        learned=cls.takes_weights(),
        genie=cls.name.partition(".")[0] in TRUTH_READERS,
    )


def _param_row(item: Param) -> tuple[str, ...]:
    kind = item.type + (f", {item.limits}" if item.limits else "")
    if item.tune is not None:
        kind += ", tuned from {:g} to {:g}".format(*item.tune)
    value = "required" if item.required else f"= {_value(item.default)}"
    return item.name, value, kind + (f" [{item.unit}]" if item.unit else "")


def _row(field: FieldSpec) -> tuple[str, ...]:
    meaning = field.meaning
    return (
        field.name,
        _dtypes(field.type.dtypes),
        f"({', '.join(field.type.dims)})",
        f"[{meaning.unit}]" if meaning is not None and meaning.unit else "",
        "truth" if meaning is not None and meaning.truth else "",
        "optional" if field.optional else "",
        meaning.doc if meaning is not None else "",
    )


def _dtypes(dtypes: Sequence[str]) -> str:
    """Dtypes in short: a family of which all are allowed by its name."""
    families = {"int": DTYPES[1:5], "uint": DTYPES[5:9], "float": DTYPES[9:11],
                "complex": DTYPES[11:13]}  # fmt: skip
    if set(DTYPES) <= set(dtypes):
        return "any dtype"
    words: dict[str, None] = {}
    for dtype in dtypes:
        family = dtype.rstrip("0123456789")
        whole = set(families.get(family, ("",))) <= set(dtypes)
        words[f"any {family}" if whole else dtype] = None
    return " or ".join(words)


def _value(default: object) -> str:
    """A default as a flow file writes it."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, str):
        return f'"{default}"'
    if isinstance(default, (tuple, list)):
        return f"[{', '.join(_value(item) for item in default)}]"
    return "not set" if default is None else repr(default)


def _columns(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Rows as aligned columns; columns that are empty in all rows are left out."""
    table = list(rows)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        cells = [f"{cell:{width}}" for cell, width in zip(row, widths, strict=True) if width]
        yield ("  " + "  ".join(cells)).rstrip()


__all__ = ["BlockCard", "describe_block", "draw_mermaid", "draw_text"]
