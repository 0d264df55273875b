"""What commands share: options, the flow that they name, and what they say beside results."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.flow import Flow


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


def load_blocks(files: list[Path] | None) -> None:
    """Load the user's own blocks."""
    from pipeline import catalogue

    for file in files or ():
        catalogue.load_file(file)


def load_flow(
    name: str,
    settings: list[str] | None = None,
    workers: list[str] | None = None,
    seed: int | None = None,
) -> Flow:
    """The flow of this name, changed as the options say."""
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


def check_writable(json_file: Path) -> None:
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


def complain(text: str) -> None:
    """Say what is wrong."""
    print(f"error: {text}", file=sys.stderr)


def say_progress(text: str) -> None:
    """Say in one line of a terminal what is under way; nothing takes the line away."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
