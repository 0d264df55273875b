"""Commands of a flow that runs: run, status, swap, stop."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.common import (
    BlockFiles,
    FlowName,
    RunName,
    Seed,
    Settings,
    Workers,
    check_writable,
    complain,
    duration_s,
    load_blocks,
    load_flow,
    whole,
)

if TYPE_CHECKING:
    from rich.live import Live

    from pipeline.display import View
    from pipeline.flow import Flow

SWAP_MS = 10_000  # the worker answers between two frames, and a block may warm up first
REPLACE_MS = 60_000  # the kernels of another block may have to be compiled


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
    replay: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="repeat the swaps of a run of this flow, at its frames"),
    ] = None,
    blocks: BlockFiles = None,
) -> None:
    """Run a flow, and watch it in the terminal.

    Options that take NAME or FILE may be given several times. Ctrl-C stops the flow in order:
    what is under way is processed and the summary written.
    """
    if json_file is not None:
        check_writable(json_file)
    load_blocks(blocks)
    loaded = load_flow(flow, settings, worker, seed)
    folder_replayed = _run_to_replay(replay, loaded, seed) if replay is not None else None
    plan = loaded.check()

    from pipeline.roots import Limits
    from pipeline.supervisor import Supervisor, write_atomically

    supervisor = Supervisor(
        plan, limits=Limits(frames, seconds), block_files=blocks or (), replay=folder_replayed
    )
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
        complain(text)
    if outcome.code:
        raise typer.Exit(outcome.code)


def _run_to_replay(run: str, flow: Flow, seed: int | None) -> Path:
    """The folder of the run to repeat; the flow gets its seed."""
    from pipeline.errors import RunError
    from pipeline.supervisor import runs_folder
    from pipeline.swaps import read_swaps

    folder = Path(run) if "/" in run else runs_folder() / run
    replay = read_swaps(folder)  # refused before anything starts
    try:
        found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        name, own = str(found["flow"]), int(found["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RunError(f"{folder} has no summary that can be read; was the run killed?") from None
    if name != flow.name or seed not in (None, own):
        raise RunError(
            f"{folder} is a run of {name} with seed {own}; a replay takes the same flow and seed"
        )
    flow.seed = own
    for block, uses in replay.uses.items():
        if block in flow.blocks:  # edges may run elsewhere this time
            others = tuple(dict.fromkeys(use.use for use in uses.values()))
            flow.blocks[block] = replace(flow.blocks[block], alternatives=others)
    return folder


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


def swap(
    run: Annotated[str, typer.Argument(metavar="RUN", help="id of the run, as `status` shows it")],
    block: Annotated[str, typer.Argument(metavar="BLOCK", help="a block of it")],
    version: Annotated[
        str,
        typer.Argument(
            metavar="[VERSION]",
            help="NAME@VERSION, or a number of the model that the block has",
            show_default=False,
        ),
    ] = "",
    use: Annotated[
        str,
        typer.Option(metavar="NAME", show_default=False, help="let this block take its place"),
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PARAM=VALUE", help="a parameter of the block of --use"),
    ] = None,
) -> None:
    """Give a block of a running flow other weights, or replace it.

    Either happens between two frames. A parameter of the block of --use that is not set has the
    value that a parameter of this name had before, or else its default.
    """
    from pipeline.errors import RunError

    if bool(version) == bool(use) or (settings and not use):
        raise RunError("give either a VERSION of a model, or a block to --use, which --set is for")
    if use:
        _replace(run, block, use, settings or [])
    else:
        _swap_weights(run, block, version)


def _replace(run: str, block: str, use: str, settings: list[str]) -> None:
    from pipeline.control import ask
    from pipeline.errors import RunError
    from pipeline.rundir import find

    name, endpoint = find(run)
    message = {"verb": "replace", "block": block, "use": use, "set": settings}
    answer = ask(endpoint, message, REPLACE_MS)
    if "refused" in answer:
        raise RunError(f"{name} refused {use}: {answer['refused']}; nothing has changed")
    print(f"{block} of {name} is now {answer['use']}")


def _swap_weights(run: str, block: str, version: str) -> None:
    import base64

    from pipeline.control import ask
    from pipeline.errors import RunError, did_you_mean
    from pipeline.models import Models
    from pipeline.rundir import find

    name, endpoint = find(run)
    serving = ask(endpoint, {"verb": "status"})["summary"]["models"]
    if block not in serving:
        known = f"; those that do: {', '.join(serving)}" if serving else "; none is running yet"
        hint = did_you_mean(block, serving) or known
        raise RunError(f"{name}: no block {block!r} takes weights{hint}")
    if version.isdecimal():
        if not serving[block]["name"]:
            raise RunError(f"{block} has no weights yet, so say of which model: NAME@{version}")
        version = f"{serving[block]['name']}@{version}"
    weights = Models().load(version)
    text = base64.b64encode(weights.to_bytes()).decode()
    answer = ask(endpoint, {"verb": "swap", "block": block, "weights": text}, SWAP_MS)
    if "refused" in answer:
        still = f"{answer['serves']} serves on" if answer.get("serves") else "none serve"
        raise RunError(f"{name} refused {version}: {answer['refused']}; {still}")
    print(f"{block} of {name} now has {answer['name']}@{answer['version']}")


def stop(run: RunName = None) -> None:
    """Stop a running flow in order, as Ctrl-C does."""
    from pipeline.control import ask
    from pipeline.rundir import find

    name, endpoint = find(run)
    ask(endpoint, {"verb": "stop"})
    print(f"{name} is stopping")
