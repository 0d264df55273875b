"""The parts of a flow as plain data: blocks, edges, and how TOML holds them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pipeline.errors import FlowError, KalvitError
from pipeline.signature import Signature

EdgeKind = Literal["data", "tap", "weights"]

NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
KINDS: tuple[EdgeKind, ...] = ("data", "tap", "weights")
ARROWS: dict[EdgeKind, str] = {"data": "->", "tap": "->", "weights": "~>"}
#: Keys of a block's table that are no parameters.
RESERVED = ("use", "reads", "writes", "genie", "alternatives")


@dataclass(frozen=True)
class BlockSpec:
    """One block of a flow, as its table says.

    use           its name in the catalogue
    params        values that differ from the defaults
    reads         argument of `process` -> field of the frame, where they are not named alike
    writes        field of the block -> field of the frame, where they are not named alike
    genie         it may read truth
    alternatives  blocks that may take its place in a running flow: edges carry what they read
    """

    name: str
    use: str
    params: Mapping[str, Any] = field(default_factory=dict)
    reads: Mapping[str, str] = field(default_factory=dict)
    writes: Mapping[str, str] = field(default_factory=dict)
    genie: bool = False
    alternatives: tuple[str, ...] = ()

    def replaced(self, use: str, signature: Signature, params: Mapping[str, Any]) -> BlockSpec:
        """The table of another block in this place; renames hold where it has such fields."""
        reads = {name: field for name, field in self.reads.items() if name in signature.reads}
        writes = {name: field for name, field in self.writes.items() if name in signature.writes}
        return replace(self, use=use, params=params, reads=reads, writes=writes)

    def to_dict(self) -> dict[str, Any]:
        """The block's table."""
        table: dict[str, Any] = {"use": self.use, **self.params}
        if self.reads:
            table["reads"] = dict(self.reads)
        if self.writes:
            table["writes"] = dict(self.writes)
        if self.genie:
            table["genie"] = True
        if self.alternatives:
            table["alternatives"] = list(self.alternatives)
        return table


@dataclass(frozen=True)
class Edge:
    """A way for frames from one block to another.

    delay   of a weights edge: frame n is decided with the weights emitted after frame
            n - delay; "live": with the newest
    via     "" or the address of the socket, such as "tcp://127.0.0.1:5555"
    """

    source: str
    target: str
    kind: EdgeKind
    delay: int | Literal["live"] | None = None
    via: str = ""

    @property
    def name(self) -> str:
        """`source->target`, or `source~>target` for weights."""
        return f"{self.source}{ARROWS[self.kind]}{self.target}"


def edge_paths(edges: Iterable[Edge]) -> list[Any]:
    """Edges of one kind as a file holds them, runs of them as one path."""
    paths: list[Any] = []
    last: Edge | None = None
    for edge in edges:
        arrow = f" {ARROWS[edge.kind]} "
        if edge.kind == "weights" or edge.via:
            item: dict[str, Any] = {"path": f"{edge.source}{arrow}{edge.target}"}
            if edge.kind == "weights":
                item["delay"] = edge.delay
            if edge.via:
                item["via"] = edge.via
            paths.append(item)
            last = None
            continue
        if last is not None and last.target == edge.source:
            paths[-1] += arrow + edge.target
        else:
            paths.append(f"{edge.source}{arrow}{edge.target}")
        last = edge
    return paths


def plain(value: Any, where: str, key: str) -> Any:
    """A parameter value as TOML can hold it: numpy values and tuples become plain ones."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item, where, key) for item in value]
    if isinstance(value, Mapping):
        return {str(name): plain(item, where, key) for name, item in value.items()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return str(value)
    if value is None:
        raise FlowError(f"{where}: {key} = None, which no flow file can hold; leave {key} out")
    raise FlowError(
        f"{where}: {key} is a {type(value).__name__}; expected a number, a text, true or false, "
        "or a list of them"
    )


def short(value: object) -> str:
    """A value as an error shows it: on one line, and cut if it is long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:60] + " ... " + text[-15:]


def put_place(error: KalvitError, where: str) -> None:
    """Put the place in a flow where an error arose in front of its text."""
    error.args = (f"{where}: {error}",)


__all__ = [
    "ARROWS", "KINDS", "NAME", "RESERVED", "BlockSpec", "Edge", "EdgeKind", "edge_paths", "plain",
    "put_place", "short",
]  # fmt: skip
