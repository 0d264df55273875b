"""Commands that run a flow many times and compare: bench, tune."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.common import (
    BlockFiles,
    FlowName,
    Seed,
    Settings,
    Workers,
    check_writable,
    duration_s,
    load_blocks,
    load_flow,
    say_progress,
    whole,
)


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
        check_writable(json_file)
    load_blocks(blocks)
    flow_ = load_flow(flow, settings, worker, seed)
    flow_.check()  # imports its blocks while Ctrl-C still leaves at once: Python may lose it here

    from rich.console import Console

    from pipeline import bench as measuring
    from pipeline.roots import Limits
    from pipeline.supervisor import write_atomically

    signal.signal(signal.SIGINT, signal.default_int_handler)  # what was begun is cleared away
    try:
        limits = Limits(frames, 0.0 if frames else seconds)
        found = measuring.measure(
            flow_, limits=limits, rounds=rounds, block_files=blocks or (), say=say_progress
        )
    except KeyboardInterrupt:
        raise typer.Exit(128 + signal.SIGINT) from None
    finally:
        say_progress("")
    if json_file is not None:
        write_atomically(json_file, json.dumps(found, indent=2) + "\n")
    Console(width=None if sys.stdout.isatty() else 100).print(measuring.report(found))


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
        check_writable(json_file)
    load_blocks(blocks)
    flow_ = load_flow(flow, settings, seed=seed)
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
            seeds=seeds, refine=refine, limits=Limits(frames, seconds), say=say_progress,
        )  # fmt: skip
    except KeyboardInterrupt:  # before the first point
        raise typer.Exit(128 + signal.SIGINT) from None
    finally:
        say_progress("")
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
