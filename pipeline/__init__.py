"""The runtime: moves frames between blocks and knows no algorithm.

`from pipeline import Flow, run` is all that a notebook needs; both are imported when asked for, so
that the command line answers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.flow import Flow
    from pipeline.local import run

__all__ = ["Flow", "run"]


def __getattr__(name: str) -> Any:
    if name == "Flow":
        from pipeline.flow import Flow

        return Flow
    if name == "run":
        from pipeline.local import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
