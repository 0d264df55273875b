"""Collects what the benchmarks find into tables: ours, the limit or the peer, the ratio, the bar.

Each file of benchmarks has a table of its own, under the first line of its docstring; `make bench`
has them written to bench/RESULTS.md. A bar that is missed is said, not raised: times depend on the
machine and on what else it does. Lost frames and wrong results do raise.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zmq

SETTLE_S = 0.5  # between benchmarks: processes of the last one are gone


@dataclass(frozen=True)
class Row:
    """One line of the table; texts as they are shown.

    met   None where there is no bar
    how   how the limit or the peer is measured
    """

    what: str
    ours: str
    limit: str = ""
    ratio: str = ""
    bar: str = ""
    met: bool | None = None
    how: str = ""

    def cells(self) -> tuple[str, ...]:
        met = "" if self.met is None else "met" if self.met else "not met"
        return self.what, self.ours, self.limit, self.ratio, self.bar, met, self.how


HEAD = ("what", "ours", "limit or peer", "ratio", "bar", "met", "how")
ROWS = pytest.StashKey[dict[str, list[Row]]]()  # under their headings
BEGIN = pytest.StashKey[tuple[float, float]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", metavar="FILE", help="write the tables of bars to this file")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = {}
    config.stash[BEGIN] = time.monotonic(), os.getloadavg()[0]


@pytest.fixture
def add(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Adds a row to the table of this file."""
    heading = (request.module.__doc__ or "").splitlines()[0].removesuffix(".")
    rows = request.config.stash[ROWS].setdefault(heading, [])
    return lambda *cells, **more: rows.append(Row(*cells, **more))


@pytest.fixture
def once(benchmark: Any) -> Callable[..., Any]:
    """Runs a measurement that repeats and interleaves by itself; returns what it found."""
    time.sleep(SETTLE_S)
    return lambda measure, *args: benchmark.pedantic(measure, args=args, rounds=1, iterations=1)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    tables = config.stash[ROWS]
    if not tables:
        return
    lines = _machine(config)
    for heading, rows in tables.items():
        lines += ["", f"## {heading}", "", *_table(rows)]
    terminalreporter.section("bars")
    for line in lines:
        terminalreporter.write_line(line)
    if file := config.getoption("--results"):
        text = "\n".join(["# What `make bench` measured last", "", *lines, ""])
        Path(file).write_text(text, encoding="utf-8")


def _machine(config: pytest.Config) -> list[str]:
    begin, load = config.stash[BEGIN]
    minutes = (time.monotonic() - begin) / 60
    packages = ("pyzmq", "numpy", "numba", "ezmsg")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return [
        f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}; "
        f"Python {platform.python_version()}, libzmq {zmq.zmq_version()}, {versions}.",
        f"{time.strftime('%Y-%m-%d')}, {minutes:.1f} minutes; load average {load:.2f} at the "
        f"start (other work on the machine), {os.getloadavg()[0]:.2f} at the end (mostly its own).",
        "Medians; rounds of ours and of the limit or peer are interleaved, and ratios are medians "
        "of the ratios within a round. Recursions and their peers run on one thread each and are "
        "timed by the CPU time of their process; of GNU Radio only the block counts. The limit of "
        "a recursion is that of its operations in registers, at the rate of multiply-adds measured "
        "in the same run (bench/limit.py).",
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "")


def _table(rows: list[Row]) -> list[str]:
    cells = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEAD))]
    widths[-1] = 0
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
