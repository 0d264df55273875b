"""The `kalvit` command line: the only place that prints."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pipeline.cli import looking, measuring, models, running, training
from pipeline.cli.common import complain
from pipeline.errors import KalvitError

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


#: In the order of the help.
COMMANDS: dict[str, Callable[..., None]] = {
    "run": running.run,
    "check": looking.check,
    "show": looking.show,
    "list": looking.list_,
    "bench": measuring.bench,
    "tune": measuring.tune,
    "train": training.train,
    "status": running.status,
    "swap": running.swap,
    "stop": running.stop,
    "doctor": looking.doctor,
}
for _name, _command in COMMANDS.items():
    app.command(name=_name)(_command)
_models = typer.Typer(**STYLE)
app.add_typer(_models, name="models")


@_models.callback(invoke_without_command=True)
def _choose_models(context: typer.Context) -> None:
    """Look at the versions of trained models, and choose."""
    if context.invoked_subcommand is None:
        print(context.get_help())


for _name, _command in models.COMMANDS.items():
    _models.command(name=_name)(_command)


def run_app() -> int:
    """Run the command line and return its exit code; user errors go to stderr, untraced."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # drawings in a terminal that has only ASCII
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except KalvitError as error:
        complain(str(error))
        return BAD_USE
    except UsageError as error:
        where = error.ctx.command_path if error.ctx else "kalvit"
        said = error.format_message().removesuffix(".")
        complain(f"{where}: {said[:1].lower()}{said[1:]}; see {where} --help")
        return BAD_USE
    except (BrokenPipeError, SystemExit):  # typer makes the second of the first
        # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return code if isinstance(code, int) else 0
