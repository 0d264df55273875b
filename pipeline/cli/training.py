"""The command that trains a learned block of a flow offline: train."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.common import (
    BlockFiles,
    FlowName,
    Seed,
    Settings,
    complain,
    load_blocks,
    load_flow,
    whole,
)

if TYPE_CHECKING:
    from pipeline.train import Progress, Trained

FIRST_S, MOST_S = 2.0, 60.0  # between plain lines: more as it goes on
_SHOWN = ("epochs", "seconds")


def train(
    flow: FlowName,
    block: Annotated[str, typer.Option("--block", metavar="B", help="the block to train")],
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="BLOCK.PARAM=[VALUES]",
            help="draw frames with each of these values; of several, with all combinations",
        ),
    ] = None,
    symbols: Annotated[
        int,
        typer.Option(
            parser=whole, metavar="N", help="learn from N symbols, or numbers of states, in all"
        ),
    ] = 5000,
    held_out: Annotated[
        int,
        typer.Option(
            parser=whole, metavar="N", show_default=False,
            help="hold out N symbols to stop in time and for the scores; else as many",
        ),
    ] = 0,
    epochs: Annotated[
        int,
        typer.Option(
            parser=whole, metavar="N", show_default=False,
            help="go through the symbols N times at most; else as suits the block",
        ),
    ] = 0,
    fit: Annotated[
        list[str] | None,
        typer.Option(
            "--fit", metavar="OPTION=VALUE",
            help="other options of what trains this block, such as rate=0.005; VALUE as in TOML",
        ),
    ] = None,
    name: Annotated[
        str,
        typer.Option(
            metavar="NAME", show_default=False,
            help="of the model; else what the block's `model` says, or the block's own",
        ),
    ] = "",
    promote: Annotated[
        bool, typer.Option("--promote", help="let the new version serve from now on")
    ] = False,
    settings: Settings = None,
    seed: Seed = None,
    blocks: BlockFiles = None,
) -> None:  # fmt: skip
    """Train a learned block on labelled frames of its own flow.

    The frames come from the flow's source and all that stands before the block, with random
    numbers that no run has. The result is a new version in the folder of models. Ctrl-C ends it
    with nothing written.
    """
    load_blocks(blocks)
    flow_ = load_flow(flow, settings, seed=seed)

    from pipeline.models import Models
    from pipeline.segment import BlockError
    from pipeline.train import Training

    options = dict(_option(text) for text in fit or ())
    if epochs:
        options["epochs"] = epochs
    # imports what trains while Ctrl-C still leaves at once: Python may lose it here
    training = Training(
        flow_, block, name=name, vary=[_axis(text) for text in vary or ()], symbols=symbols,
        held_out=held_out, options=options,
    )  # fmt: skip
    again = ["kalvit", "train", flow, "--block", block, "--seed", str(flow_.seed)]
    again += ["--symbols", str(symbols), "--held-out", str(training.held_out)]
    again += ["--name", training.name] + (["--epochs", str(epochs)] if epochs else [])
    for option, texts in (("--vary", vary), ("--fit", fit), ("--set", settings)):
        again += [word for text in texts or () for word in (option, text)]
    again += [word for path in blocks or () for word in ("--blocks", str(path))]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with _shown() as progress:
            trained = training.run(progress)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what was found is written whole
    except KeyboardInterrupt:
        complain("interrupted; nothing was written")
        raise typer.Exit(128 + signal.SIGINT) from None
    except BlockError as error:
        complain(f"{error}; nothing was written\n{error.text}")
        raise typer.Exit(1) from None
    models = Models()
    told = {**trained.training, "settings": list(settings or ())}
    weights = models.add(
        trained.weights, training=told, scores=trained.scores, command=shlex.join(again)
    )
    version = f"{weights.name}@{weights.version}"
    _say(version, models.folder, trained)
    if promote:
        models.promote(version)
        print(f"{version} is current")
    words = ["kalvit", "run", flow]
    words += [word for path in blocks or () for word in ("--blocks", str(path))]
    for text in (*(settings or ()), f"{block}.model={version}"):  # the last of a block counts
        words += ["--set", text]
    print(shlex.join(words))


def _say(version: str, folder: Path, trained: Trained) -> None:
    """Where the new version is, how it came about, and how good it is."""
    told = trained.training
    known = [f"{told['symbols']} symbols"]
    known += [f"{told[key]:g} {key}" for key in _SHOWN if key in told]
    print(f"{version} in {folder}: {', '.join(known)}")
    for key, score in trained.scores.items():
        print(f"held out: {key} {score:.4g}")


def _option(text: str) -> tuple[str, Any]:
    """Name and value of an option "rate=0.005"."""
    name, value = _assigned("fit." + text if "=" in text else text, "--fit", "rate=0.005")
    return name.removeprefix("fit."), value


def _axis(text: str) -> tuple[str, list[Any]]:
    """Key and values of an axis "channel.snr_db=[8,10,12]"."""
    from pipeline.errors import FlowError

    key, values = _assigned(text, "--vary", "channel.snr_db=[8.0, 10.0]")
    if not isinstance(values, list):
        raise FlowError(f"--vary {text}: write a list of values, such as {key}=[8.0, 10.0]")
    return key, values


def _assigned(text: str, option: str, example: str) -> tuple[str, Any]:
    from pipeline.errors import FlowError
    from pipeline.flow import parse_setting

    try:
        return parse_setting(text)
    except FlowError:
        said = text.removeprefix("fit.")
        raise FlowError(f"{option} {said}: expected such as {example}") from None


@contextmanager
def _shown() -> Iterator[Progress]:
    """What shows how far it has come: a bar in a terminal, elsewhere a line now and then."""
    if not sys.stdout.isatty() or os.environ.get("TERM", "") in ("", "dumb"):
        yield _Lines()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    text = TextColumn("{task.description}")
    columns = (BarColumn(), MofNCompleteColumn(), text, TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("drawing frames", total=None)
        yield lambda done, most, said: bar.update(
            task, completed=done, total=most, description=said
        )


class _Lines:
    """Prints how far it has come, ever less often."""

    def __init__(self) -> None:
        self._every_s = FIRST_S
        self._at = time.monotonic() + self._every_s

    def __call__(self, done: int, most: int, text: str) -> None:
        if time.monotonic() >= self._at:
            print(f"{done} of {most}: {text}", flush=True)
            self._every_s = min(1.1 * self._every_s, MOST_S)
            self._at = time.monotonic() + self._every_s


__all__ = ["train"]
