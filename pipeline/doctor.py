"""What this installation has, what is missing, and how to get it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from pipeline import catalogue, rundir

REQUIRED = ("numpy", "numba", "pyzmq", "msgpack", "pydantic", "jaxtyping", "typer", "rich")
OPTIONAL = {
    "torch": "learned blocks train with it: pip install torch, then kalvit[train]",
    "safetensors": "models on disk: pip install 'kalvit[train]'",
    "pytest-benchmark": "make bench: pip install 'kalvit[bench]'",
}


def findings() -> Iterator[str]:
    """One line for each fact; a line that starts with '!' says what to do."""
    yield f"kalvit {_version('kalvit')}, Python {platform.python_version()} ({sys.executable})"
    yield f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    yield ", ".join(f"{name} {_version(name)}" for name in REQUIRED)
    import zmq

    yield f"libzmq {zmq.zmq_version()}, curve {'yes' if zmq.has('curve') else 'no'}"
    if not zmq.has("curve"):
        yield "! tcp edges need a libzmq with curve: reinstall pyzmq from its wheel"
    for name, what in OPTIONAL.items():
        version = _version(name)
        yield f"{name} {version}" if version else f"! {name} is not installed; {what}"
    threads = [
        f"{n}={os.environ[n]}" for n in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS") if n in os.environ
    ]
    yield f"threads of each worker: {', '.join(threads) or 'one (set OMP_NUM_THREADS for more)'}"
    cache = Path(os.environ.get("NUMBA_CACHE_DIR", "__pycache__ beside each kernel"))
    yield f"numba cache: {cache}"
    kernels = Path(__file__).resolve().parent.parent / "blocks" / "kernels"
    if "NUMBA_CACHE_DIR" not in os.environ and not os.access(kernels, os.W_OK):
        yield f"! {kernels} is read-only; set NUMBA_CACHE_DIR, or kernels compile at every start"
    yield f"run directories: {rundir.root()}; running: {', '.join(rundir.running()) or 'none'}"
    yield f"{len(catalogue.names())} blocks, {len(catalogue.flows())} flows"
    for problem in catalogue.problems():
        yield f"! {problem}"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
