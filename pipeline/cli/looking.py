"""Commands that look at what there is, and run nothing: check, show, list, doctor."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from pipeline.cli.common import BlockFiles, FlowName, Settings, Workers, load_blocks, load_flow


def check(
    flow: FlowName, settings: Settings = None, worker: Workers = None, blocks: BlockFiles = None
) -> None:
    """Check a flow without running it."""
    load_blocks(blocks)
    plan = load_flow(flow, settings, worker).check()
    workers = "; ".join(f"{name}: {', '.join(names)}" for name, names in plan.workers.items())
    count = len(plan.blocks)
    print(f"{plan.flow.name} is ready to run: {count} block{'s' * (count != 1)}")
    print(f"worker{'s' * (len(plan.workers) > 1)} {workers}")


def show(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="a flow, as for `run`, or a block"),
    ],
    mermaid: Annotated[bool, typer.Option("--mermaid", help="a flow as a mermaid diagram")] = False,
    settings: Settings = None,
    worker: Workers = None,
    blocks: BlockFiles = None,
) -> None:
    """Draw a flow, or print the card of a block."""
    from pipeline import catalogue
    from pipeline.draw import describe_block, draw_mermaid, draw_text
    from pipeline.errors import FlowError, did_you_mean

    load_blocks(blocks)
    is_path = name.endswith(".toml") or "/" in name
    if not is_path and "." in name:
        for line in describe_block(catalogue.find(name)).lines():
            print(line)
        return
    if not is_path and name not in catalogue.flows():
        known = [*catalogue.flows(), *catalogue.names()]
        inside = [block for block in catalogue.names() if name in block.split(".")]
        hint = f"; did you mean {' or '.join(map(repr, inside))}?" if inside else ""
        hint = hint or did_you_mean(name, known) or "; see `kalvit list`"
        raise FlowError(f"no flow or block named {name!r}{hint}")
    plan = load_flow(name, settings, worker).check()
    print(draw_mermaid(plan) if mermaid else draw_text(plan))


def list_(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT", show_default=False, help="flows, blocks or models; else all"
        ),
    ] = "",
    blocks: BlockFiles = None,
) -> None:
    """List the ready flows, the blocks and the trained models."""
    from pipeline import catalogue
    from pipeline.cli.models import model_lines
    from pipeline.errors import FlowError, did_you_mean
    from pipeline.models import Models

    load_blocks(blocks)
    tables: dict[str, Callable[[], Mapping[str, str]]] = {
        "flows": _flows,
        "blocks": lambda: {name: catalogue.one_line(name) for name in catalogue.names()},
        "models": lambda: model_lines(Models()),
    }
    if what and what not in tables:
        hint = did_you_mean(what, tables) or f"; there are {' and '.join(tables)}"
        raise FlowError(f"nothing to list named {what!r}{hint}")
    for title in [what] if what else tables:
        found = tables[title]()
        if not what and found:
            print(title)
        width = max(map(len, found), default=0)
        for name in sorted(found):
            print(f"{'' if what else '  '}{name:{width}}  {found[name]}".rstrip())


def _flows() -> dict[str, str]:
    """Ready flows with the first sentence of what each says of itself."""
    import tomllib

    from pipeline import catalogue

    found = {}
    for name, path in catalogue.flows().items():
        try:
            doc = str(tomllib.loads(path.read_text(encoding="utf-8")).get("doc", ""))
        except (OSError, ValueError) as error:
            doc = f"cannot be read: {error}"
        found[name] = re.split(r"(?<=\.)\s|\n\s*\n", doc.strip())[0].replace("\n", " ")
    return found


def doctor() -> None:
    """Print what is installed, what is missing, and how to get it."""
    from pipeline.doctor import findings

    lines = list(findings())
    for line in lines:
        print(line)
    if any(line.startswith("!") for line in lines):
        raise typer.Exit(1)
