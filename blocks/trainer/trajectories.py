"""What fits of trackers have in common: options, trajectories, one thread, scores."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np
import torch

from blocks.training.trajectories import DEFAULT, Schedule, Trajectories, checked
from pipeline.errors import ParameterError
from pipeline.frame import Array
from pipeline.train import Learnt, Lessons, Record

Fit = Callable[..., Learnt]


def scheduled(usual: Schedule = DEFAULT) -> Callable[[Fit], Fit]:
    """Make a fit of a tracker, fit(block, lessons, schedule, **options), one for `kalvit train`.

    What stands in a Schedule are options, too, as in `usual` by default. Random numbers are seeded,
    and a ValueError, that says what does not fit, becomes a ParameterError.
    """

    def decorate(fit: Fit) -> Fit:
        @wraps(fit)
        def run(block: Any, lessons: Lessons, **options: Any) -> Learnt:
            own = {name: options.pop(name) for name in Schedule._fields if name in options}
            torch.manual_seed(lessons.seed % (1 << 63))
            torch.set_num_threads(1)  # small layers: more threads only wait for each other
            try:
                schedule = checked(usual._replace(**own))
                found = fit(block, lessons, schedule, **options)
            except ValueError as error:
                raise ParameterError(f"{block.name}: {error}") from None
            return Learnt(
                found.hyper, found.arrays, {**schedule._asdict(), **found.training}, found.scores
            )

        arguments = dict(inspect.signature(fit).parameters)
        del arguments["schedule"]
        kind = inspect.Parameter.KEYWORD_ONLY
        for name, value in usual._asdict().items():
            arguments[name] = inspect.Parameter(name, kind, default=value)
        signature = inspect.Signature(list(arguments.values()))
        run.__signature__ = signature  # type: ignore[attr-defined]
        return run

    return decorate


def trajectories(records: Sequence[Record], step_s: float) -> Trajectories:
    """All words, or streams, as trajectories; as long as the shortest."""
    states, observations, intervals = [], [], []
    for record in records:
        seen = record["observations"]
        times = record.get("interval_s", np.full(seen.shape[:-1], step_s))
        whole = seen.ndim == 3
        states += list(record["states"] if whole else [record["states"]])
        observations += list(seen if whole else [seen])
        intervals += list(times if whole else [times])
    length = min(len(one) for one in states)

    def joined(parts: list[Array]) -> Array:
        return np.stack([np.asarray(part[:length], np.float64) for part in parts])

    return Trajectories(joined(states), joined(observations), joined(intervals))
