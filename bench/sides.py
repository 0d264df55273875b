"""Ours and peers on the same workload: rounds in turn, then rows of the table."""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

ROOT = Path(__file__).parent.parent
#: The Python that Debian's packages are for.
DEBIAN = shutil.which("python3", path="/usr/bin") or sys.executable
ROUNDS = 7
ROUND_S = 0.06  # at least, of ours in a round
SWITCHES = {
    "GR_CONF_PERFCOUNTERS_ON": "True",
    "GR_CONF_PERFCOUNTERS_CLOCK": "thread",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "TQDM_DISABLE": "1",
}


@dataclass(frozen=True)
class Unit:
    """What a figure counts: rates in millions per second, or else times."""

    name: str = ""

    def show(self, seconds: float) -> str:
        """`seconds` for one, as text."""
        if self.name:
            return f"{_rounded(1e-6 / seconds)} {self.name}"
        if seconds < 1e-6:
            return f"{_rounded(1e9 * seconds)} ns"
        return f"{_rounded(1e6 * seconds)} us"


def _rounded(value: float) -> str:
    """To three digits, or to whole numbers."""
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"


SYMBOLS, BITS, STEPS = Unit("Msym/s"), Unit("Mb/s"), Unit()


@dataclass(eq=False)
class Ours:
    """One of our forms.

    call   does the workload once
    units  of which there are in it
    """

    call: Callable[[], Array]
    units: int

    def start(self) -> None:
        self.result = self.call()  # may compile
        self._runs = max(1, round(ROUND_S / max(self._seconds(1), 1e-9)))

    def round(self) -> float:
        """Seconds for one unit."""
        return self._seconds(self._runs) / self._runs / self.units

    def _seconds(self, runs: int) -> float:
        before = time.process_time()
        for _ in range(runs):
            self.call()
        return time.process_time() - before


class Peer:
    """A peer on a workload, in a process of its own. Where it is absent, `absent` says why.

    name     of the package
    form     what of it is used
    work     MODULE.FUNCTION of bench/peers
    units    of which there are in its inputs
    inputs   arrays for it
    python   that has the package
    get      how to install it
    """

    def __init__(
        self, name: str, form: str, work: str, units: int, inputs: dict[str, Any],
        python: str = sys.executable, get: str = "make peers",
    ) -> None:  # fmt: skip
        self.name, self.form, self.units, self.get = name, form, units, get
        self._work, self._inputs, self._python = work, inputs, python

    def start(self) -> None:
        """Start it and let it do the workload once, for `result`."""
        with tempfile.TemporaryDirectory() as folder:
            inputs, result = f"{folder}/inputs.npz", f"{folder}/result.npy"
            np.savez(inputs, **self._inputs)
            command = [self._python, "-m", "bench.peers.serve", self._work, inputs, result]
            self._process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **SWITCHES}, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                said = self._hear()
            except RuntimeError as error:
                said = {"absent": str(error)}
            self.absent = said.get("absent", "")
            if not self.absent:
                self.package = said["package"]
                self.result = np.load(result, allow_pickle=False)

    def round(self) -> float:
        """Seconds for one unit."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._hear()["seconds"] / self.units

    def stop(self) -> None:
        """End its process."""
        self._process.kill()
        self._process.communicate()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self._work} has ended")
        return json.loads(line)


def gnu_radio(form: str, work: str, units: int, inputs: dict[str, Any]) -> Peer:
    """A peer of bench/peers/gnu_radio.py, run by the Python for which Debian builds GNU Radio."""
    return Peer(
        "GNU Radio", form, f"gnu_radio.{work}", units, inputs,
        python=DEBIAN, get="Debian's package gnuradio",
    )  # fmt: skip


Seconds = dict[Ours | Peer, list[float]]  # for one unit, in each round


def contest(ours: Sequence[Ours], peers: Sequence[Peer]) -> Seconds:
    """Let all do the workload once, then time them in turn."""
    with ExitStack() as stack:
        for peer in peers:
            peer.start()
            stack.callback(peer.stop)
        for form in ours:
            form.start()
        there = [*ours, *(peer for peer in peers if not peer.absent)]
        rounds = [[side.round() for side in there] for _ in range(ROUNDS)]
    return {side: list(times) for side, times in zip(there, zip(*rounds, strict=True), strict=True)}


@dataclass(frozen=True)
class Bar:
    """A ratio to be met, and what to reach for."""

    least: float
    reach: str

    def __str__(self) -> str:
        return f">= {self.least:g}, reach {self.reach}"


def add_ratio(
    add: Callable[..., None], what: str, ours: Ours, peer: Peer, found: Seconds, unit: Unit,
    bar: Bar | None = None, how: str = "",
) -> None:  # fmt: skip
    """A row of ours beside a peer."""
    mine, wanted = unit.show(statistics.median(found[ours])), str(bar or "")
    if peer.absent:
        add(what, mine, "absent", "", wanted, how=f"{peer.name}: {peer.absent} ({peer.get})")
        return
    theirs = found[peer]
    ratio = statistics.median(t / m for m, t in zip(found[ours], theirs, strict=True))
    add(
        what, mine, unit.show(statistics.median(theirs)), _rounded(ratio), wanted,
        met=ratio >= bar.least if bar else None,
        how=f"{peer.package}, {peer.form}{how and '; '}{how}",
    )  # fmt: skip


def add_limit(
    add: Callable[..., None], ours: Ours, found: Seconds, unit: Unit, limit_s: float, how: str,
    reach: str = "",
) -> None:  # fmt: skip
    """A row of ours beside the least seconds that this machine needs for one unit."""
    mine = statistics.median(found[ours])
    cells = unit.show(mine), unit.show(limit_s), f"{limit_s / mine:.2f}", reach
    add("  of the limit", *cells, how=how)
