"""Other people's recursions, each run in a process of its own by the Python that has the package.

A peer is a function here that takes the arrays of a workload and returns a `Work`; nothing but
that package and NumPy is imported. `bench/peers/serve.py` runs it, `bench/sides.py` asks for
rounds and compares.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple


class Work(NamedTuple):
    """One workload, ready to run.

    run      does all of it; returns its decisions or estimates as an array
    package  and version of what does it
    clock    a running count of the seconds spent: by default those of all threads of the process,
             so that other load on the machine counts little
    times    that `run` does it
    """

    run: Callable[[], Any]
    package: str
    clock: Callable[[], float] = time.process_time
    times: int = 1


def versioned(package: str) -> str:
    """A package and its version."""
    return f"{package} {version(package)}"
