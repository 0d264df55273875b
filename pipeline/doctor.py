"""What this installation has, what is missing, and how to get it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from pipeline import catalogue, rundir
from pipeline.errors import KalvitError

REQUIRED = (
    "numpy", "numba", "pyzmq", "msgpack", "pydantic", "jaxtyping", "typer", "rich", "tomli-w",
    "matplotlib", "safetensors",
)  # fmt: skip
#: What the extras of this project bring.
OPTIONAL = {
    "torch": "needed to train learned blocks: pip install 'kalvit[train]' (README.md: CPU only)",
    "pytest-benchmark": "needed for `make bench`: pip install 'kalvit[bench]'",
}
LEAST_FREE = 1 << 30  # bytes where results go


def findings() -> Iterator[str]:
    """One line for each fact.

    A line that starts with '!' is a fault and says what to do; '-' is something that is not there
    and need not be.
    """
    yield f"kalvit {_version('kalvit')}, Python {platform.python_version()} ({sys.executable})"
    yield f"{platform.system()} {platform.machine()}, {_cores()} cores"
    yield ", ".join(f"{name} {version}" for name in REQUIRED if (version := _version(name)))
    for name in REQUIRED:
        if not _version(name):
            yield f"! {name} is not installed: pip install {name}"
    yield from _transport()
    for name, what in OPTIONAL.items():
        version = _version(name)
        yield f"{name} {version}" if version else f"- {name} is not installed; {what}"
    yield from _kernels()
    yield from _folders()
    flows = ", ".join(catalogue.flows()) or "none"
    yield f"{len(catalogue.names())} blocks; flows: {flows}"
    for problem in catalogue.problems():
        yield f"! {problem}"


def _transport() -> Iterator[str]:
    try:
        import zmq
    except ImportError as error:
        yield f"! pyzmq cannot be imported ({error}); install it again"
        return
    curve = zmq.has("curve")
    yield f"libzmq {zmq.zmq_version()}, {'with' if curve else 'without'} encryption (curve)"
    if not curve:
        yield "! tcp edges are always encrypted; install pyzmq from its wheel"


def _kernels() -> Iterator[str]:
    """Threads of the workers, and where compiled kernels are kept."""
    names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
    threads = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    yield f"threads of each worker: {', '.join(threads) or 'one (OMP_NUM_THREADS sets more)'}"
    kept = os.environ.get("NUMBA_CACHE_DIR")
    yield f"compiled kernels are kept in {kept or '__pycache__ beside their source'}"
    folder = Path(kept) if kept else Path(__file__).resolve().parent.parent / "blocks" / "kernels"
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        yield (
            f"! {folder} cannot be written to, so kernels are compiled at every start; set "
            "NUMBA_CACHE_DIR to a directory of your own"
        )


def _folders() -> Iterator[str]:
    """Where results and sockets go."""
    runs = Path(os.environ.get("KALVIT_RUNS", "runs")).absolute()
    folder = runs
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    yield f"results go to {runs}, {free / 1e9:.1f} GB free (KALVIT_RUNS sets another directory)"
    if not os.access(folder, os.W_OK):
        yield f"! {folder} cannot be written to; set KALVIT_RUNS to a directory of your own"
    elif free < LEAST_FREE:
        yield f"! {folder} is almost full; make room, or set KALVIT_RUNS to another directory"
    try:
        running = ", ".join(rundir.running()) or "none"
        yield f"sockets are in {rundir.root()}; runs at this moment: {running}"
    except KalvitError as error:
        yield f"! {error}"


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
