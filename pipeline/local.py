"""Runs a flow in this process: for notebooks, scripts and tests.

>>> summary = run("isi_viterbi", frames=3)
>>> summary["results"]["errors"]["symbols"]
3000
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.flow import Flow
from pipeline.metrics import summary
from pipeline.plan import MAIN
from pipeline.rehearse import rehearse
from pipeline.roots import Limits
from pipeline.segment import BlockError
from pipeline.worker import Worker, now_ns


def run(
    flow: Flow | str | os.PathLike[str],
    *,
    frames: int = 0,
    seconds: float = 0.0,
    folder: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """The summary of a run in this process, as `kalvit run --json` writes it.

    All workers of the flow run as one, by direct calls: no process is started, no socket opened,
    and the results are those of any other split. KeyboardInterrupt ends it without a summary.

    flow     or its name, or the path of its file
    frames   after which every source stops; 0: when it ends
    seconds  after which every source stops; 0: no limit
    folder   where sinks may leave pictures, made if need be; None: numbers only

    Raises a KalvitError for a flow that does not fit together, or a block that cannot go on, such
    as a source whose file has shrunk; and BlockError, with its cause, for a bug of a block.
    """
    if not isinstance(flow, Flow):
        flow = Flow.load(flow)
    plan = flow.check()
    plan = replace(plan, workers={MAIN: tuple(plan.blocks)})
    if folder is not None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
    rehearse(plan, MAIN)
    try:
        worker = Worker(plan, MAIN, limits=Limits(frames, seconds), folder=folder)
        began_ns = now_ns()
        last = worker.run()
    except BlockError as error:
        if error.for_user and error.__cause__ is not None:
            raise error.__cause__ from None
        raise
    return summary(
        flow=flow.name,
        seed=flow.seed,
        seconds=(last["finished_ns"] - began_ns) / 1e9,
        workers={MAIN: last},
        order=plan.blocks,
        edges=[(e.source, e.target, True) for e in flow.edges if e.kind != "weights"],
    )


__all__ = ["run"]
