"""Reads flows from TOML: files and tables to a `Flow`, each error with its file and line."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import catalogue
from pipeline.errors import FlowError, did_you_mean
from pipeline.flow_parts import ARROWS, KINDS, short

if TYPE_CHECKING:
    from pipeline.flow import Flow

#: Sizes that hold for all edges, in bytes.
EDGE_LIMITS = ("window", "frame_cap")
_TOML_HINTS = {
    "invalid value": "; a text needs quotes, and a number a digit before and after its point",
    "illegal character '\\n'": "; a text ends with its quote, on the line where it begins",
}
_KEYS = ("name", "doc", "seed", "blocks", "edges", "workers")


def find_file(name_or_path: str | os.PathLike[str]) -> tuple[Path, str]:
    """The file of a ready flow or of a path, and what errors call it.

    What holds a separator or ends in .toml is a path. Raises FlowError for a name that no ready
    flow has.
    """
    text = os.fspath(name_or_path)
    path = Path(text)
    if not isinstance(name_or_path, str) or path.suffix == ".toml" or path.name != text:
        return path, text
    ready = catalogue.flows()
    if text not in ready:
        hint = did_you_mean(text, ready) or (
            f" (there are: {', '.join(ready) or 'none'}); a file is given by its path, such as "
            "./my_flow.toml"
        )
        raise FlowError(f"no flow named {text!r}{hint}")
    return ready[text], ready[text].name


def read_text(path: Path, where: str) -> str:
    """The text of a flow file, or a FlowError that says why there is none."""
    try:
        return path.read_bytes().decode("utf-8-sig")  # some editors begin with a mark
    except FileNotFoundError:
        near = did_you_mean(path.name, (file.name for file in path.parent.glob("*.toml")))
        raise FlowError(f"{where}: no such file{near}") from None
    except OSError as error:
        raise FlowError(f"{where}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = 1 + error.object.count(b"\n", 0, error.start)
        raise FlowError(f"{where}:{line}: a flow file is UTF-8 text, and this is not") from None


def parse(text: str, where: str) -> dict[str, Any]:
    """The tables of a TOML text; FlowError names the line where it is none."""
    where = where or "the flow"
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said, _, place = str(error).partition(" (at ")
        found = re.match(r"line (\d+)", place)
        line = int(found.group(1)) if found else max(1, len(text.splitlines()))
        said = said[:1].lower() + said[1:]
        raise FlowError(f"{where}:{line}: no TOML: {said}{_TOML_HINTS.get(said, '')}") from None
    except RecursionError:
        raise FlowError(f"{where}: lists or tables are nested too deep") from None


def fill(flow: Flow, table: Mapping[str, Any]) -> None:
    """Read the tables of a flow file into an empty flow; FlowError for what no flow can mean."""
    check_keys(flow, table, (), _KEYS)
    if "name" not in table:
        raise FlowError(f'{flow.where()}: a flow needs a name, such as name = "my_flow"')
    flow.name, flow.doc, flow.seed = table["name"], table.get("doc", ""), table.get("seed", 0)
    flow.check_head()
    blocks = table_at(flow, table, "blocks")
    for name in blocks:
        block = table_at(flow, blocks, name, "blocks")
        if "use" not in block:
            raise FlowError(
                f"{flow.where('blocks', name)}: block {name!r} has no `use`; name a block of the "
                'catalogue, such as use = "detector.viterbi"'
            )
        flow.add_table(name, block)
    _edges(flow, table_at(flow, table, "edges"))
    _workers(flow, table_at(flow, table, "workers"))


def table_at(flow: Flow, table: Mapping[str, Any], key: str, *outer: str) -> Mapping[str, Any]:
    """The table under a key, empty if there is none; FlowError where it is no table."""
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        header = ".".join((*outer, key))
        raise FlowError(
            f"{flow.where(*outer, key)}: {header} = {short(value)}, but it must be a table "
            f"[{header}]"
        )
    return value


def check_keys(
    flow: Flow, table: Mapping[str, Any], path: tuple[str | int, ...], known: Iterable[str]
) -> None:
    """Refuse keys that are not known."""
    known = tuple(known)
    for key in table:
        if key not in known:
            hint = did_you_mean(str(key), known) or f"; expected one of: {', '.join(known)}"
            raise FlowError(f"{flow.where(*path, key)}: unknown key {key!r}{hint}")


def _edges(flow: Flow, table: Mapping[str, Any]) -> None:
    check_keys(flow, table, ("edges",), (*KINDS, *EDGE_LIMITS))
    for key in EDGE_LIMITS:
        value = table.get(key, getattr(flow, key))
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise FlowError(
                f"{flow.where('edges', key)}: {key} = {short(value)}, but it must be a whole "
                "number of bytes, at least 1"
            )
        setattr(flow, key, value)
    for kind in KINDS:
        items, arrow = table.get(kind, []), ARROWS[kind]
        if not isinstance(items, list):
            raise FlowError(
                f"{flow.where('edges', kind)}: {kind} = {short(items)}, but it must be a list, "
                f'such as {kind} = ["a {arrow} b"]'
            )
        for index, item in enumerate(items):
            at = ("edges", kind, index)
            if isinstance(item, str):
                item = {"path": item}
            elif not isinstance(item, Mapping) or "path" not in item:
                raise FlowError(
                    f'{flow.where(*at)}: {short(item)} is no edge; write "a {arrow} b" or '
                    f'{{ path = "a {arrow} b" }}'
                )
            weights = kind == "weights"
            check_keys(flow, item, at, ("path", "delay", "via") if weights else ("path", "via"))
            delay = item.get("delay", "live") if weights else None
            flow.join(kind, item["path"], delay, item.get("via", ""), at)


def _workers(flow: Flow, table: Mapping[str, Any]) -> None:
    taken: dict[str, str] = {}
    for name, value in table.items():
        at = ("workers", name)
        flow.check_name("worker", name, *at)
        if isinstance(value, Mapping):
            check_keys(flow, value, at, ("blocks", "host"))
            if "host" in value:
                raise FlowError(
                    f"{flow.where(*at, 'host')}: worker {name!r} on another host is not built yet; "
                    "leave `host` out"
                )
            value = value.get("blocks", [])
        if not isinstance(value, list) or not all(isinstance(block, str) for block in value):
            raise FlowError(
                f"{flow.where(*at)}: worker {name!r} = {short(value)}, but it must be a list of "
                f'blocks, such as {name} = ["detector"]'
            )
        for block in value:
            if block in taken:
                raise FlowError(
                    f"{flow.where(*at)}: block {block!r} is in worker {taken[block]!r} already; "
                    "name it once"
                )
            taken[block] = name
        flow.workers[name] = tuple(value)


__all__ = ["check_keys", "fill", "find_file", "parse", "read_text", "table_at"]
