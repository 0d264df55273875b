"""Flows as data: which blocks, with which parameters, joined by which edges, run by which workers.

A flow comes from a TOML file or is built in Python; `check` makes a `Plan` of it, or says what
is wrong and where. Nothing here runs a block or opens a socket.

>>> flow = Flow("isi_viterbi", doc="BPSK over two taps", seed=1)
>>> flow.add("symbols", "source.random_symbols")
>>> flow.add("channel", "channel.isi", taps=[1.0, 0.5], snr_db=8.0)
>>> flow.add("detector", "detector.viterbi", taps=[1.0, 0.5])
>>> flow.add("errors", "sink.error_rate")
>>> flow.connect("symbols -> channel -> detector -> errors")
>>> flow.assign("rx", ["detector"])
>>> flow.set(*parse_setting("channel.snr_db=10.0"))
>>> flow.to_dict()["edges"]
{'data': ['symbols -> channel -> detector -> errors']}
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import catalogue, flow_file, toml_lines
from pipeline.errors import FlowError, KalvitError, did_you_mean
from pipeline.flow_parts import (
    ARROWS,
    KINDS,
    NAME,
    RESERVED,
    BlockSpec,
    Edge,
    EdgeKind,
    edge_paths,
    plain,
    put_place,
    short,
)
from pipeline.limits import FRAME_CAP, WINDOW
from pipeline.settings import BareWord, parse_setting, parse_worker, takes_text

if TYPE_CHECKING:
    from pipeline.plan import Plan

SEED_LIMIT = 1 << 63


class Flow:
    """Blocks, edges and workers under a name.

    Its methods build it piece by piece; `from_toml`, `from_dict` and `load` use the same ones.
    What is wrong by itself (a name, an arrow, a key) raises FlowError at once; what does not fit
    together is found by `check`.
    """

    def __init__(self, name: str, doc: str = "", seed: int = 0) -> None:
        self.name = name
        self.doc = doc
        self.seed = seed
        self.blocks: dict[str, BlockSpec] = {}
        self.edges: list[Edge] = []
        self.workers: dict[str, tuple[str, ...]] = {}
        self.window = WINDOW
        self.frame_cap = FRAME_CAP
        self.path: Path | None = None
        self._origin = ""  # the file, as errors call it
        self._lines: dict[toml_lines.Path, int] = {}
        self._edge_paths: dict[Edge, toml_lines.Path] = {}
        self._set: set[toml_lines.Path] = set()  # parameters that came by `set`
        self.check_head()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Flow) and self.to_dict() == other.to_dict()

    def __repr__(self) -> str:
        return f"<flow {self.name}: {', '.join(self.blocks) or 'no blocks'}>"

    # Where a flow comes from and goes to

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str]) -> Flow:
        """A ready flow by its name, or the flow in a TOML file by its path.

        What holds a separator or ends in .toml is a path. Raises FlowError for a name or file
        that is not there, or a file that is no flow.
        """
        path, where = flow_file.find_file(name_or_path)
        flow = cls.from_toml(flow_file.read_text(path, where), where)
        flow.path = path
        return flow

    @classmethod
    def from_toml(cls, text: str, where: str = "") -> Flow:
        """The flow that a TOML text describes; `where` is the file it stands in, for errors."""
        flow = cls("unnamed")
        table = flow_file.parse(text, where)
        flow._origin, flow._lines = where or "the flow", toml_lines.lines_of(text)
        flow_file.fill(flow, table)
        return flow

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Flow:
        """The flow that `to_dict` gave, or any such dict."""
        flow = cls("unnamed")
        flow_file.fill(flow, table)
        return flow

    def to_dict(self) -> dict[str, Any]:
        """The flow as TOML and JSON can hold it; `from_dict` makes an equal flow."""
        paths = {kind: edge_paths(e for e in self.edges if e.kind == kind) for kind in KINDS}
        edges: dict[str, Any] = {kind: of_kind for kind, of_kind in paths.items() if of_kind}
        if self.window != WINDOW:
            edges["window"] = self.window
        if self.frame_cap != FRAME_CAP:
            edges["frame_cap"] = self.frame_cap
        table = {
            "name": self.name,
            "doc": self.doc,
            "seed": self.seed,
            "blocks": {name: spec.to_dict() for name, spec in self.blocks.items()},
            "edges": edges,
            "workers": {name: list(blocks) for name, blocks in self.workers.items()},
        }
        return {key: value for key, value in table.items() if value or key in ("name", "seed")}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the flow as a TOML file; FlowError where that cannot be done."""
        import tomli_w

        text = tomli_w.dumps(self.to_dict(), multiline_strings="\r" not in self.doc)
        try:
            Path(path).write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise FlowError(f"{os.fspath(path)}: cannot be written: {error.strerror}") from None

    # Building

    def add(
        self,
        name: str,
        use: str,
        /,
        *,
        reads: Mapping[str, str] | None = None,
        writes: Mapping[str, str] | None = None,
        genie: bool = False,
        alternatives: Sequence[str] = (),
        **params: Any,
    ) -> None:
        """Add the block `use` of the catalogue under a name, with its parameters."""
        keys = {
            "use": use, "reads": reads or {}, "writes": writes or {}, "genie": genie,
            "alternatives": list(alternatives),
        }  # fmt: skip
        self.add_table(name, {**keys, **params})

    def connect(self, path: str, via: str = "") -> None:
        """Add data edges: `flow.connect("symbols -> channel -> detector")`."""
        self.join("data", path, None, via)

    def tap(self, path: str, via: str = "") -> None:
        """Add edges on which the newest frame wins, and which never slow their sender."""
        self.join("tap", path, None, via)

    def feedback(self, path: str, delay: int | str = "live", via: str = "") -> None:
        """Add an edge for weights: `flow.feedback("trainer ~> detector", delay=1)`."""
        self.join("weights", path, delay, via)

    def assign(self, worker: str, blocks: Sequence[str]) -> None:
        """Let a worker run exactly these blocks, taking them from where they ran before."""
        self.check_name("worker", worker)
        for other, names in list(self.workers.items()):
            self.workers[other] = tuple(name for name in names if name not in blocks)
            if names and not self.workers[other]:
                del self.workers[other]
        self.workers[worker] = tuple(blocks)
        self._lines.pop(("workers", worker), None)

    def set(self, key: str, value: Any) -> None:
        """Set one parameter: `flow.set("channel.snr_db", 8.0)`."""
        name, _, parameter = key.partition(".")
        if not name or not parameter:
            raise FlowError(
                f"setting {key!r}: write BLOCK.PARAMETER=VALUE, such as channel.snr_db=8.0"
            )
        if name not in self.blocks:
            hint = did_you_mean(name, self.blocks) or f" (it has: {', '.join(self.blocks)})"
            raise FlowError(f"setting {key!r}: flow {self.name} has no block {name!r}{hint}")
        if parameter in RESERVED:
            raise FlowError(f"setting {key!r}: {parameter!r} can only be set in the flow file")
        self._set.add(("blocks", name, parameter))
        spec = self.blocks[name]
        if isinstance(value, BareWord):
            value = self._text(spec, parameter, value)
        value = plain(value, self.where("blocks", name, parameter), parameter)
        self.blocks[name] = replace(spec, params={**spec.params, parameter: value})

    def check(self) -> Plan:
        """What is to run, once everything is found and fits together.

        Raises FlowError, ParameterError, ConnectError or another KalvitError for the first thing
        that does not, with its place.
        """
        from pipeline.check import make_plan

        return make_plan(self)

    # Places, for errors

    def where(self, *path: str | int) -> str:
        """The place of a part of the flow: file and line, or what is known of them."""
        if path[:3] in self._set:
            return f"{self.where()}, setting {path[1]}.{path[2]}"
        for length in range(len(path), 0, -1):
            if path[:length] in self._lines:
                return f"{self._origin}:{self._lines[path[:length]]}"
        return self._origin or f"flow {self.name}"

    def where_edge(self, edge: Edge) -> str:
        """The place of an edge."""
        return self.where(*self._edge_paths.get(edge, ()))

    # Pieces with a place, as `flow_file` reads them

    def check_head(self) -> None:
        """Refuse a name, doc or seed that cannot be one."""
        self.check_name("flow", self.name, "name")
        if not isinstance(self.doc, str):
            raise FlowError(f"{self.where('doc')}: doc = {short(self.doc)}, but it must be a text")
        seed = self.seed
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < SEED_LIMIT:
            raise FlowError(
                f"{self.where('seed')}: seed = {short(seed)}, but it must be a whole number, "
                "at least 0 and below 2^63"
            )

    def check_name(self, what: str, name: object, *path: str | int) -> None:
        """Refuse what cannot be the name of a flow, block, worker or field."""
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise FlowError(
                f"{self.where(*path)}: {what} name {short(name)} must be small letters, digits "
                "and _, a letter first, 48 at most"
            )

    def add_table(self, name: str, table: Mapping[str, Any]) -> None:
        """Add a block from its table, which has a `use`."""
        at = ("blocks", name)
        self.check_name("block", name, *at)
        if name in self.blocks:
            raise FlowError(f"{self.where(*at)}: there is a block {name!r} already")
        use, genie = table["use"], table.get("genie", False)
        if not isinstance(use, str):
            raise FlowError(
                f"{self.where(*at, 'use')}: use = {short(use)}, but it must be the name of a block"
            )
        if not isinstance(genie, bool):
            raise FlowError(
                f"{self.where(*at, 'genie')}: genie = {short(genie)}, but it must be true or false"
            )
        others = table.get("alternatives", [])
        if not isinstance(others, list) or not all(isinstance(other, str) for other in others):
            raise FlowError(
                f"{self.where(*at, 'alternatives')}: alternatives = {short(others)}, but it must "
                'be a list of blocks, such as ["detector.viterbi"]'
            )
        renames = {}
        for key in ("reads", "writes"):
            renames[key] = dict(flow_file.table_at(self, table, key, *at))
            for inner, outer in renames[key].items():
                self.check_name("field", outer, *at, key, inner)
        params = {
            key: plain(value, self.where(*at, key), key)
            for key, value in table.items()
            if key not in RESERVED
        }
        self.blocks[name] = BlockSpec(
            name, use, params, **renames, genie=genie, alternatives=tuple(others)
        )

    def join(
        self,
        kind: EdgeKind,
        path: str,
        delay: Any,
        via: str,
        at: tuple[str | int, ...] = (),
    ) -> None:
        """Add the edges of a path such as "a -> b -> c"."""
        where, arrow = self.where(*at), ARROWS[kind]
        names = [name.strip() for name in path.split(arrow)] if isinstance(path, str) else []
        if len(names) < 2 or not all(NAME.fullmatch(name) for name in names):
            example = "trainer ~> detector" if kind == "weights" else "a -> b -> c"
            hint = "; '~>' is for weights" if kind != "weights" and "~>" in str(path) else ""
            raise FlowError(f'{where}: cannot read the edge {short(path)}; write "{example}"{hint}')
        if kind == "weights":
            if len(names) > 2:
                raise FlowError(f"{where}: {short(path)}: weights go from one trainer to one block")
            _check_delay(where, path, delay)
        if via != "":
            self._check_via(where, path, via, len(names))
        for source, target in pairwise(names):
            if any((e.source, e.target, e.kind) == (source, target, kind) for e in self.edges):
                raise FlowError(f"{where}: there is an edge {source} {arrow} {target} already")
            edge = Edge(source, target, kind, delay, via)
            self.edges.append(edge)
            self._edge_paths[edge] = at
        self.edges.sort(key=lambda edge: KINDS.index(edge.kind))  # the order of a file

    def _check_via(self, where: str, path: str, via: object, blocks: int) -> None:
        match = re.fullmatch(r"tcp://(?:[\w.-]+|\[[0-9a-fA-F:]+\]):(\d{1,5})", str(via))
        if not match or not 1 <= int(match.group(1)) <= 65535:
            raise FlowError(
                f"{where}: {short(path)} has via = {short(via)}, but it must be an address such as "
                '"tcp://127.0.0.1:5555"'
            )
        if blocks != 2:
            raise FlowError(
                f"{where}: {short(path)}: an edge with `via` joins two blocks, not {blocks}"
            )
        for edge in self.edges:
            if edge.via == via:
                raise FlowError(f"{where}: {via} serves the edge {edge.name} already")

    def _text(self, spec: BlockSpec, parameter: str, word: BareWord) -> str:
        """A bare word as the text it stands for, if the parameter can be one."""
        try:
            schema = catalogue.find(spec.use).params().schema()
        except KalvitError as error:
            put_place(error, self.where("blocks", spec.name, "use"))
            raise
        declared = schema.get("properties", {}).get(parameter)
        if declared is None or takes_text(declared, schema):  # the check reports unknown ones
            return str(word)
        hint = f"a text needs quotes: '{spec.name}.{parameter}=\"{word}\"'"
        if word in ("True", "False"):
            hint = f"write {word.lower()}"
        where = self.where("blocks", spec.name, parameter)
        raise FlowError(f"{where}: {word} is no TOML value; {hint}")


def _check_delay(where: str, path: str, delay: Any) -> None:
    number = isinstance(delay, int) and not isinstance(delay, bool) and delay >= 1
    if not number and delay != "live":
        raise FlowError(
            f"{where}: {short(path)} has delay = {short(delay)}, but it must be a whole number of "
            'frames, at least 1, or "live"'
        )


__all__ = [
    "BareWord", "BlockSpec", "Edge", "EdgeKind", "Flow", "parse_setting", "parse_worker",
]  # fmt: skip
