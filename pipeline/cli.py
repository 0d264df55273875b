"""The `kalvit` command line: the only place that prints."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pipeline.errors import KalvitError

if TYPE_CHECKING:
    from rich.live import Live

    from pipeline.display import View
    from pipeline.flow import Flow

#: Wrong use of an option or argument; typer does not export it under this name.
UsageError: Any = typer.BadParameter.__mro__[1]
BAD_USE = 2


class Commands(TyperGroup):
    """The commands below, and those that packages add by entry points of `kalvit.commands`.

    Such an entry point names a function as typer takes it; its module is imported for the help
    and when it is called, and should leave heavy imports to the function.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands."""
        own = super().list_commands(ctx)
        return [*own, *(name for name in sorted(_added()) if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, or None."""
        found = super().get_command(ctx, cmd_name)
        if found is not None or cmd_name not in _added():
            return found
        extra = typer.Typer(**STYLE)
        extra.command(name=cmd_name)(_added()[cmd_name].load())
        return typer.main.get_command(extra)


def _added() -> dict[str, Any]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group="kalvit.commands")}


STYLE: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 100},
}
app = typer.Typer(cls=Commands, **STYLE)


def whole(text: str | int) -> int:
    """A whole number of at least 0, as --frames takes it; typer hands over defaults as well."""
    try:
        number = int(text) if str(text).isdecimal() else float(text)  # 1e6 is one, too
        if number >= 0 and number == int(number):
            return int(number)
    except (ValueError, OverflowError):
        pass
    raise typer.BadParameter(f"{text!r} is no whole number of at least 0")


def duration_s(text: str | float) -> float:
    """A time in seconds of at least 0, as --seconds takes it."""
    try:
        seconds = float(text)
        if 0.0 <= seconds < math.inf:
            return seconds
    except ValueError:
        pass
    raise typer.BadParameter(f"{text!r} is no number of seconds of at least 0")


FlowName = Annotated[
    str, typer.Argument(metavar="FLOW", help="a name from `kalvit list flows`, or a path")
]
BlockFiles = Annotated[
    list[Path] | None,
    typer.Option("--blocks", metavar="FILE", help="load blocks of your own from a Python file"),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="BLOCK.PARAM=VALUE", help="change a parameter; VALUE as in TOML"),
]
Workers = Annotated[
    list[str] | None,
    typer.Option("--worker", metavar="NAME=BLOCK,...", help="run blocks in a process of their own"),
]
Seed = Annotated[
    int | None, typer.Option(parser=whole, metavar="N", help="seed of all random numbers")
]
RunName = Annotated[
    str | None, typer.Argument(metavar="RUN", help="id of the run; not needed if only one runs")
]


def run_app() -> int:
    """Run the command line and return its exit code; user errors go to stderr, untraced."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # drawings in a terminal that has only ASCII
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except KalvitError as error:
        _complain(str(error))
        return BAD_USE
    except UsageError as error:
        where = error.ctx.command_path if error.ctx else "kalvit"
        said = error.format_message().removesuffix(".")
        _complain(f"{where}: {said[:1].lower()}{said[1:]}; see {where} --help")
        return BAD_USE
    except (BrokenPipeError, SystemExit):  # typer makes the second of the first
        # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return code if isinstance(code, int) else 0


def _complain(text: str) -> None:
    print(f"error: {text}", file=sys.stderr)


@app.callback(invoke_without_command=True)
def kalvit(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Streaming receivers and trackers: flows of blocks, checked, run and measured."""
    if version:
        from importlib.metadata import version as version_of

        print(f"kalvit {version_of('kalvit')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def _load_blocks(files: list[Path] | None) -> None:
    from pipeline import catalogue

    for file in files or ():
        catalogue.load_file(file)


def _flow(
    name: str,
    settings: list[str] | None = None,
    workers: list[str] | None = None,
    seed: int | None = None,
) -> Flow:
    from pipeline.errors import FlowError
    from pipeline.flow import Flow, parse_setting, parse_worker

    flow = Flow.load(name)
    for text in settings or ():
        flow.set(*parse_setting(text))
    given: dict[str, str] = {}
    for text in workers or ():
        worker, blocks = parse_worker(text)
        for name in (worker, *blocks):
            if given.setdefault(name, text) != text:
                raise FlowError(f"--worker {text}: {name!r} is in --worker {given[name]} already")
        flow.assign(worker, blocks)
    if seed is not None:
        flow.seed = seed
    return flow


@app.command()
def run(
    flow: FlowName,
    settings: Settings = None,
    frames: Annotated[
        int,
        typer.Option(
            parser=whole, metavar="N", show_default=False, help="stop every source after N frames"
        ),
    ] = 0,
    seconds: Annotated[
        float,
        typer.Option(
            parser=duration_s, metavar="S", show_default=False, help="stop every source after S s"
        ),
    ] = 0.0,
    seed: Seed = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="write the summary here too")
    ] = None,
    worker: Workers = None,
    blocks: BlockFiles = None,
) -> None:
    """Run a flow, and watch it in the terminal.

    Options that take NAME or FILE may be given several times. Ctrl-C stops the flow in order:
    what is under way is processed and the summary written.
    """
    if json_file is not None:
        _writable(json_file)
    _load_blocks(blocks)
    plan = _flow(flow, settings, worker, seed).check()

    from pipeline.roots import Limits
    from pipeline.supervisor import Supervisor, write_atomically

    supervisor = Supervisor(plan, limits=Limits(frames, seconds), block_files=blocks or ())
    with Screen(seconds) as screen:
        outcome = supervisor.run(screen.show)
    if json_file is not None:
        write_atomically(json_file, json.dumps(outcome.summary, indent=2) + "\n")
    if outcome.summary["frames"] or not outcome.errors:
        from pipeline.display import final_lines

        folder = _seen_from_here(outcome.folder)
        pictures = sorted(path.name for path in outcome.folder.glob("*.png"))
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        for line in final_lines(outcome.summary, folder, pictures, width):
            print(line)
    for text in outcome.errors:
        _complain(text)
    if outcome.code:
        raise typer.Exit(outcome.code)


def _writable(json_file: Path) -> None:
    """Refuse a file that could not be written, before the run rather than after it."""
    from pipeline.errors import RunError

    parent = json_file.absolute().parent
    wrong = ""
    if json_file.is_dir():
        wrong = "it is a directory; name a file in it"
    elif not parent.is_dir():
        wrong = f"there is no directory {parent}"
    elif not os.access(json_file if json_file.exists() else parent, os.W_OK):
        wrong = "you may not write there"
    if wrong:
        raise RunError(f"--json {json_file}: {wrong}")


def _seen_from_here(path: Path) -> str:
    """A path as short as it can be said from the working directory."""
    here = Path.cwd().resolve()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


class Screen:
    """Shows a run while it lasts: live in a terminal, elsewhere a line now and then.

    limit_s   seconds after which the sources stop; 0: no limit
    """

    FIRST_S, MOST_S = 2.0, 60.0  # between plain lines: more as the run goes on

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._live: Live | None = None
        self._view: View | None = None
        self._line_s = self.FIRST_S
        self._print_at = time.monotonic() + self._line_s
        self._in_terminal = sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def show(self) -> Callable[[Mapping[str, Any]], None]:
        """Takes each new summary of the run."""
        return self._draw if self._in_terminal else self._print

    def _draw(self, summary: Mapping[str, Any]) -> None:
        view = self._updated(summary)
        if self._live is None:
            from rich.live import Live  # the workers are starting, and nobody waits for it

            self._live = Live(view, auto_refresh=False, transient=True)
            self._live.start()
        self._live.refresh()

    def _print(self, summary: Mapping[str, Any]) -> None:
        view = self._updated(summary)
        if time.monotonic() >= self._print_at:
            print(view.plain(), flush=True)
            self._line_s = min(self._line_s * 1.1, self.MOST_S)
            self._print_at = time.monotonic() + self._line_s

    def _updated(self, summary: Mapping[str, Any]) -> View:
        if self._view is None:
            from pipeline.display import View

            self._view = View(summary, self._limit_s)
        self._view.show(summary)
        return self._view


@app.command()
def check(
    flow: FlowName, settings: Settings = None, worker: Workers = None, blocks: BlockFiles = None
) -> None:
    """Check a flow without running it."""
    _load_blocks(blocks)
    plan = _flow(flow, settings, worker).check()
    workers = "; ".join(f"{name}: {', '.join(names)}" for name, names in plan.workers.items())
    count = len(plan.blocks)
    print(f"{plan.flow.name} is ready to run: {count} block{'s' * (count != 1)}")
    print(f"worker{'s' * (len(plan.workers) > 1)} {workers}")


@app.command()
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

    _load_blocks(blocks)
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
    plan = _flow(name, settings, worker).check()
    print(draw_mermaid(plan) if mermaid else draw_text(plan))


@app.command(name="list")
def list_(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", show_default=False, help="flows or blocks; else both")
    ] = "",
    blocks: BlockFiles = None,
) -> None:
    """List the ready flows and the blocks."""
    from pipeline import catalogue
    from pipeline.errors import FlowError, did_you_mean

    _load_blocks(blocks)
    tables: dict[str, Callable[[], Mapping[str, str]]] = {
        "flows": _flows,
        "blocks": lambda: {name: catalogue.one_line(name) for name in catalogue.names()},
    }
    if what and what not in tables:
        hint = did_you_mean(what, tables) or f"; there are {' and '.join(tables)}"
        raise FlowError(f"nothing to list named {what!r}{hint}")
    for title in [what] if what else tables:
        found = tables[title]()
        if not what:
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


@app.command()
def bench(
    flow: FlowName = "isi_viterbi",
    settings: Settings = None,
    frames: Annotated[
        int, typer.Option(parser=whole, metavar="N", show_default=False, help="measure N frames")
    ] = 0,
    seconds: Annotated[
        float, typer.Option(parser=duration_s, metavar="S", help="measure for S s, where no N is")
    ] = 2.0,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="medians over N rounds")] = 3,
    seed: Seed = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="write the numbers here too")
    ] = None,
    worker: Workers = None,
    blocks: BlockFiles = None,
) -> None:
    """Measure a flow beside what the same blocks and sockets do without the runtime.

    Its sources run as fast as they can, and then at a tenth of that, for the latency of frames
    that travel alone.
    """
    if json_file is not None:
        _writable(json_file)
    _load_blocks(blocks)
    flow_ = _flow(flow, settings, worker, seed)
    flow_.check()  # imports its blocks while Ctrl-C still leaves at once: Python may lose it here

    import signal

    from rich.console import Console

    from pipeline import bench as measuring
    from pipeline.roots import Limits
    from pipeline.supervisor import write_atomically

    signal.signal(signal.SIGINT, signal.default_int_handler)  # what was begun is cleared away
    try:
        limits = Limits(frames, 0.0 if frames else seconds)
        found = measuring.measure(
            flow_, limits=limits, rounds=rounds, block_files=blocks or (), say=_progress
        )
    except KeyboardInterrupt:
        raise typer.Exit(128 + signal.SIGINT) from None
    finally:
        _progress("")
    if json_file is not None:
        write_atomically(json_file, json.dumps(found, indent=2) + "\n")
    Console(width=None if sys.stdout.isatty() else 100).print(measuring.report(found))


@app.command()
def tune(
    flow: FlowName,
    block: Annotated[str, typer.Option("--block", metavar="B", help="the block to tune")],
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid",
            metavar="PARAM=VALUES",
            help="LOW:HIGH:N/decade, LOW:HIGH:N or A,B,C; may be given several times",
        ),
    ] = None,
    by: Annotated[
        str, typer.Option(metavar="KEY", help="likelihood, or what a sink reports: SINK.KEY")
    ] = "likelihood",
    largest: Annotated[
        bool, typer.Option("--largest", help="the largest KEY is the best, not the smallest")
    ] = False,
    seeds: Annotated[
        int, typer.Option(min=1, metavar="N", help="seeds to choose by, and again to confirm with")
    ] = 3,
    refine: Annotated[
        int, typer.Option(min=0, metavar="N", help="halve the steps beside the best N times")
    ] = 0,
    settings: Settings = None,
    frames: Annotated[
        int, typer.Option(parser=whole, metavar="N", show_default=False, help="N frames a run")
    ] = 0,
    seconds: Annotated[
        float, typer.Option(parser=duration_s, metavar="S", show_default=False, help="S s a run")
    ] = 0.0,
    seed: Seed = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="write the numbers here too")
    ] = None,
    blocks: BlockFiles = None,
) -> None:
    """Find the best values of numeric parameters of a block.

    Every point of the grid is run, and the best met on other seeds by what the flow has now.
    Without --grid the block says where to look. Ctrl-C ends it with what was found so far.
    """
    if json_file is not None:
        _writable(json_file)
    _load_blocks(blocks)
    flow_ = _flow(flow, settings, seed=seed)
    flow_.check()  # imports its blocks while Ctrl-C still leaves at once: Python may lose it here

    import shlex

    from rich.console import Console

    from pipeline.grid import parse_grid
    from pipeline.roots import Limits
    from pipeline.supervisor import write_atomically
    from pipeline.tune import tune as find_best
    from pipeline.tune_report import report, warnings_of

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        found = find_best(
            flow_, block, [parse_grid(text) for text in grid or ()], by=by, is_largest=largest,
            seeds=seeds, refine=refine, limits=Limits(frames, seconds), say=_progress,
        )  # fmt: skip
    except KeyboardInterrupt:  # before the first point
        raise typer.Exit(128 + signal.SIGINT) from None
    finally:
        _progress("")
    if json_file is not None:
        write_atomically(json_file, json.dumps(found, indent=2) + "\n")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 120
    Console(width=width).print(report(found, width))
    print()
    for text in warnings_of(found):
        print(f"warning: {text}")
    if found["best"] is not None:
        words = ["kalvit", "run", flow]
        for text in (*(settings or ()), *found["settings"]):
            words += ["--set", text]
        for path in blocks or ():
            words += ["--blocks", str(path)]
        print(shlex.join(words))
    if found["interrupted"]:
        raise typer.Exit(128 + signal.SIGINT)
    if found["best"] is None:
        raise typer.Exit(1)


def _progress(text: str) -> None:
    """Say in one line of a terminal what is under way; nothing takes the line away."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


@app.command()
def status(run: RunName = None) -> None:
    """Show where a running flow stands."""
    from pipeline.control import ask
    from pipeline.display import status_lines
    from pipeline.rundir import find

    _, endpoint = find(run)
    answer = ask(endpoint, {"verb": "status"})
    for line in status_lines(answer["summary"]):
        print(line)
    for name, pid in answer["workers"].items():
        print(f"worker {name}: process {pid}")


@app.command()
def stop(run: RunName = None) -> None:
    """Stop a running flow in order, as Ctrl-C does."""
    from pipeline.control import ask
    from pipeline.rundir import find

    name, endpoint = find(run)
    ask(endpoint, {"verb": "stop"})
    print(f"{name} is stopping")


@app.command()
def doctor() -> None:
    """Print what is installed, what is missing, and how to get it."""
    from pipeline.doctor import findings

    lines = list(findings())
    for line in lines:
        print(line)
    if any(line.startswith("!") for line in lines):
        raise typer.Exit(1)
