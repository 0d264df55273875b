"""Lets the blocks of a worker process one frame of zeros before the first real one.

Kernels are compiled, or loaded from their cache, by it: otherwise the first frame of a run would
wait for them, 0.4 s with a warm cache and many seconds with a cold one. Blocks are plain numerical
objects, so a throw-away instance leaves no trace; sources and sinks, which may, are left alone.
"""

from __future__ import annotations

import warnings
from contextlib import suppress

import numpy as np

from pipeline.block import Context, Sink, Source, make
from pipeline.frame import Frame, Kind, StreamInfo
from pipeline.instance import Instance
from pipeline.plan import Plan, Planned
from pipeline.signature import FieldType

_SIZES = {"time": 64, "word": 1}  # of the frame of zeros; other dims: 2


def rehearse(plan: Plan, worker: str) -> None:
    """Run the blocks of one worker on zeros; what goes wrong is left for a real frame to say."""
    for name in plan.workers[worker]:
        planned = plan.blocks[name]
        if not issubclass(planned.cls, Source | Sink):
            with suppress(Exception), np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _once(planned, plan.flow.seed, _info(plan, name))


def _info(plan: Plan, name: str) -> StreamInfo:
    """What the stream will be like: blocks may choose their kernels by its rate."""
    while (edge := plan.parent(name)) is not None:
        name = edge.source
    source = plan.blocks[name].block
    with suppress(Exception):  # it may not know before it starts
        if isinstance(source, Source):
            return source.describe() or StreamInfo()
    return StreamInfo()


def _once(planned: Planned, seed: int, info: StreamInfo) -> None:
    port = planned.port()
    context = Context(planned.name, seed=seed, info=info)
    block = make(planned.cls, planned.block.values(), context)
    instance = Instance(block, port)
    if planned.weights is not None:
        block.take(planned.weights)
    given = {name: spec.type for name, spec in planned.given.items()}
    fields = {field: _zeros(given[field]) for _, field in port.reads}
    frame = Frame(Kind.DATA, block.context.stream, 0, 0, 0, fields, {})
    if instance.delayed:
        instance.answer(frame)
    else:
        instance.call(frame)
    instance.finish()


def _zeros(kind: FieldType) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    shape = [int(dim) if dim.isdigit() else _SIZES.get(dim, 2) for dim in kind.dims]
    array = np.zeros(shape, kind.dtypes[0])
    array.flags.writeable = False  # as real fields are: kernels are compiled for read-only arrays
    return array
