"""Collects what the benchmarks find into one table: ours, the limit, the ratio, the bar.

`make bench` has it written to bench/RESULTS.md. A bar that is missed is said, not raised: times
depend on the machine and on what else it does. Lost frames and wrong results do raise.
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
ROWS = pytest.StashKey[list[Row]]()
BEGIN = pytest.StashKey[tuple[float, float]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", metavar="FILE", help="write the table of bars to this file")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []
    config.stash[BEGIN] = time.monotonic(), os.getloadavg()[0]


@pytest.fixture
def add(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Adds a row to the table."""
    rows = request.config.stash[ROWS]
    return lambda *cells, **more: rows.append(Row(*cells, **more))


@pytest.fixture
def once(benchmark: Any) -> Callable[..., Any]:
    """Runs a measurement that repeats and interleaves by itself; returns what it found."""
    time.sleep(SETTLE_S)
    return lambda measure, *args: benchmark.pedantic(measure, args=args, rounds=1, iterations=1)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = config.stash[ROWS]
    if not rows:
        return
    lines = [*_machine(config), "", *_table(rows)]
    terminalreporter.section("bars")
    for line in lines:
        terminalreporter.write_line(line)
    if file := config.getoption("--results"):
        text = "\n".join(["# What `make bench` measured last", "", *lines, ""])
        Path(file).write_text(text, encoding="utf-8")


def _machine(config: pytest.Config) -> list[str]:
    begin, load = config.stash[BEGIN]
    minutes = (time.monotonic() - begin) / 60
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("pyzmq", "numpy", "ezmsg")
    )
    return [
        f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}; "
        f"Python {platform.python_version()}, libzmq {zmq.zmq_version()}, {versions}.",
        f"{time.strftime('%Y-%m-%d')}, {minutes:.1f} minutes; load average {load:.2f} at the "
        f"start (other work on the machine), {os.getloadavg()[0]:.2f} at the end (mostly its own).",
        "Medians; rounds of ours and of the limit are interleaved, and ratios are medians of the "
        "ratios within a round.",
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
