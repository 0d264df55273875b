"""The `kalvit` command line: the only place that prints."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import KalvitError

app = typer.Typer(
    help="Streaming receivers and trackers: flows of blocks, run, checked, measured.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

FlowName = Annotated[
    str, typer.Argument(metavar="FLOW", help="name in `kalvit list flows`, or a path")
]
BlockFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--blocks", metavar="FILE", help="Python file with blocks of your own (repeatable)"
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="BLOCK.PARAM=VALUE", help="change a parameter; VALUE is TOML"),
]
Workers = Annotated[
    list[str] | None,
    typer.Option(
        "--worker", metavar="NAME=BLOCK,BLOCK", help="run blocks in a worker of their own"
    ),
]
Seed = Annotated[int | None, typer.Option(help="seed of all random numbers")]
RunName = Annotated[
    str | None, typer.Argument(metavar="RUN", help="id of the run; not needed if only one runs")
]


def run_app() -> int:
    """Run the command line and return its exit code; user errors go to stderr, untraced."""
    try:
        app(standalone_mode=True)
    except KalvitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _flow(name: str, settings: list[str] | None, workers: list[str] | None, seed: int | None,
          blocks: list[Path] | None) -> Any:  # fmt: skip
    from pipeline import catalogue
    from pipeline.flow import Flow, parse_setting, parse_worker

    for file in blocks or ():
        catalogue.load_file(file)
    flow = Flow.load(name)
    for text in settings or ():
        flow.set(*parse_setting(text))
    for text in workers or ():
        flow.assign(*parse_worker(text))
    if seed is not None:
        flow.seed = seed
    return flow


@app.command()
def run(
    flow: FlowName,
    settings: Settings = None,
    frames: Annotated[int, typer.Option(min=0, help="stop every source after so many frames")] = 0,
    seconds: Annotated[float, typer.Option(min=0, help="stop every source after so long")] = 0.0,
    seed: Seed = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="write the summary here too")
    ] = None,
    worker: Workers = None,
    blocks: BlockFiles = None,
) -> None:
    """Run a flow: live table, then the summary."""
    from pipeline.display import final_lines
    from pipeline.errors import RunError
    from pipeline.roots import Limits
    from pipeline.supervisor import Supervisor, write_atomically

    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise RunError(f"--json {json_file}: there is no directory {json_file.parent}")
    plan = _flow(flow, settings, worker, seed, blocks).check()
    supervisor = Supervisor(plan, limits=Limits(frames, seconds), block_files=blocks or ())
    with _Screen() as show:
        outcome = supervisor.run(show)
    if json_file is not None:
        write_atomically(json_file, json.dumps(outcome.summary, indent=2) + "\n")
    pictures = sorted(str(path) for path in outcome.folder.glob("*.png"))
    for line in final_lines(outcome.summary, str(outcome.folder), pictures):
        print(line)
    for text in outcome.errors:
        print(f"error: {text}", file=sys.stderr)
    if outcome.code:
        raise typer.Exit(outcome.code)


class _Screen:
    """Shows a run while it lasts: a live table in a terminal, a line now and then elsewhere."""

    LINE_S = 2.0

    def __enter__(self) -> Callable[[Mapping[str, Any]], None]:
        from rich.console import Console

        console = Console()
        self._live = None
        self._line_at = time.monotonic() + self.LINE_S
        if not console.is_terminal:
            return self._plain
        from rich.live import Live

        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.__enter__()
        return self._table

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)

    def _table(self, summary: Mapping[str, Any]) -> None:
        from pipeline.display import live_table

        if self._live is not None:
            self._live.update(live_table(summary), refresh=True)

    def _plain(self, summary: Mapping[str, Any]) -> None:
        from pipeline.display import headline, result_lines

        if time.monotonic() >= self._line_at:
            self._line_at = time.monotonic() + self.LINE_S
            print("; ".join([headline(summary), *result_lines(summary)]), flush=True)


@app.command()
def check(
    flow: FlowName, settings: Settings = None, worker: Workers = None, blocks: BlockFiles = None
) -> None:
    """Check a flow without running it."""
    plan = _flow(flow, settings, worker, None, blocks).check()
    workers = ", ".join(f"{name} ({', '.join(names)})" for name, names in plan.workers.items())
    print(f"{plan.flow.name}: {len(plan.blocks)} blocks, all fits; workers: {workers}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="FLOW or BLOCK")],
    mermaid: Annotated[bool, typer.Option(help="draw a flow as a mermaid diagram")] = False,
    settings: Settings = None,
    worker: Workers = None,
    blocks: BlockFiles = None,
) -> None:
    """Draw a flow, or print a block's parameters, fields and units."""
    from pipeline import catalogue
    from pipeline.draw import describe_block, draw_mermaid, draw_text

    for file in blocks or ():
        catalogue.load_file(file)
    if "." in name and not name.endswith(".toml") and "/" not in name:
        for line in describe_block(catalogue.find(name)).lines():
            print(line)
        return
    plan = _flow(name, settings, worker, None, None).check()
    print(draw_mermaid(plan) if mermaid else draw_text(plan))


@app.command(name="list")
def list_(
    what: Annotated[str, typer.Argument(metavar="flows | blocks")],
    blocks: BlockFiles = None,
) -> None:
    """List the flows or the blocks that there are."""
    from pipeline import catalogue
    from pipeline.errors import FlowError, did_you_mean

    for file in blocks or ():
        catalogue.load_file(file)
    if what == "blocks":
        found = {name: catalogue.one_line(name) for name in catalogue.names()}
    elif what == "flows":
        import tomllib

        found = {}
        for name, path in catalogue.flows().items():
            doc = tomllib.loads(path.read_text(encoding="utf-8")).get("doc", "")
            found[name] = doc.strip().splitlines()[0] if doc.strip() else ""
    else:
        known = ("flows", "blocks")
        raise FlowError(
            f"nothing to list named {what!r}{did_you_mean(what, known)}; say {' or '.join(known)}"
        )
    width = max(map(len, found), default=0)
    for name in sorted(found):
        print(f"{name:{width}}  {found[name]}".rstrip())


@app.command()
def status(run: RunName = None) -> None:
    """Show where a running flow stands."""
    from rich.console import Console

    from pipeline.control import ask
    from pipeline.display import live_table
    from pipeline.rundir import find

    _, endpoint = find(run)
    answer = ask(endpoint, {"verb": "status"})
    Console().print(live_table(answer["summary"]))
    for name, pid in answer["workers"].items():
        print(f"worker {name}: process {pid}")


@app.command()
def stop(run: RunName = None) -> None:
    """Stop a running flow in order: sources end, what is under way is processed."""
    from pipeline.control import ask
    from pipeline.rundir import find

    name, endpoint = find(run)
    ask(endpoint, {"verb": "stop"})
    print(f"{name} is stopping")


@app.command()
def doctor() -> None:
    """Print versions, threads and caches, and how to get what is missing."""
    from pipeline.doctor import findings

    for line in findings():
        print(line)
