"""The commands: run cells, and put together what came out."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import bench.figures.trackers
from bench.figures.trackers import tables
from bench.figures.trackers.cells import FULL, Amount, Cell, attempt, cells
from bench.figures.trackers.methods import METHODS, SEEDS
from bench.figures.trackers.results import gathered
from bench.figures.trackers.scenarios import SCENARIOS

FOLDER = Path("figures/trackers")
QUICK = Amount(share=0.2, settings=3, schedule={"steps": 60, "long_steps": 0, "every": 20})
QUICK_NOTE = "A quick run: it shows that all goes through, not what the trackers reach."
#: Trackers that learn in it.
QUICK_LEARN = ("kalmannet",)


def main() -> None:
    """One of the commands."""
    doc = (bench.figures.trackers.__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=doc)
    commands = parser.add_subparsers(dest="command", required=True)
    cell = commands.add_parser("cell", help="run cells that are not there yet")
    cell.add_argument("patterns", nargs="+", metavar="SCENARIO:NOISE:TRACKER:SEED")
    cell.add_argument("--jobs", type=int, default=1, help="processes that share the work")
    table = commands.add_parser("table", help="pictures and tables of the cells that are there")
    table.add_argument("--out", type=Path, default=FOLDER, help="folder to write to")
    for command in (cell, table):
        command.add_argument("--cells", type=Path, default=FOLDER / "cells", help="their folder")
    options = parser.parse_args()
    if options.command == "cell":
        chosen = [one for pattern in options.patterns for one in cells(pattern)]
        run_all(chosen, options.cells, FULL, options.jobs)
    else:
        put_together(options.cells, options.out)


def study(out: Path, quick: bool, jobs: int) -> None:
    """All of it."""
    folder = out / ("quick_cells" if quick else "cells")
    run_all(_quick() if quick else cells(), folder, QUICK if quick else FULL, jobs)
    _by_size(out / ("quick_sizes" if quick else "sizes"), out / "sizes.json", quick, jobs)
    put_together(folder, out, QUICK_NOTE if quick else "")


def _by_size(folder: Path, path: Path, quick: bool, jobs: int) -> None:
    """Smoothers that learn from more and more."""
    from bench.smoothers_by_size import OPTIONS, SIZES, join, train_all  # torch

    methods, seeds, steps, sizes = ("smoother", *OPTIONS), SEEDS, 600, SIZES
    if quick:
        methods, seeds, steps, sizes = ("smoother", "hybrid"), SEEDS[:1], 20, SIZES[:3]
    with ProcessPoolExecutor(jobs) as pool:
        work = [
            pool.submit(train_all, folder, method, seed, steps, sizes)
            for method in methods for seed in seeds
        ]  # fmt: skip
        for one in work:
            one.result()
    join(folder, path)


def _quick() -> list[Cell]:
    """One level of noise of each scenario, and the trackers that are quick."""
    return [
        cell
        for cell in cells("*:*:*:0")
        if cell.noise_db == SCENARIOS[cell.scenario].short
        and (METHODS[cell.method].learns is None or cell.method in QUICK_LEARN)
    ]


def run_all(chosen: Sequence[Cell], folder: Path, amount: Amount, jobs: int) -> None:
    """Run cells, or take what is there, and tell of each."""
    work = partial(attempt, folder=folder, amount=amount)
    if jobs == 1:
        return _tell(map(work, chosen))
    with ProcessPoolExecutor(jobs) as pool:
        return _tell(pool.map(work, chosen))


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)


def put_together(folder: Path, out: Path, note: str = "") -> None:
    """Write trackers.json, trackers.md and pictures; print the tables, with a note before them."""
    results = gathered(folder)
    if not results:
        raise SystemExit(f"there are no cells in {folder}; run some")
    out.mkdir(parents=True, exist_ok=True)
    parts = [note, tables.short(results), tables.bars(results), *tables.whole(results)]
    text = "\n\n".join(filter(None, parts))
    (out / "trackers.md").write_text(text + "\n")
    told = [one for result in results.values() for one in result.told]
    (out / "trackers.json").write_text(json.dumps(told) + "\n")
    print(text)
    from bench.figures.trackers.pictures import draw  # matplotlib, when the rest has come through

    draw(results, out)
    print(f"\npictures and numbers are in {out}")
