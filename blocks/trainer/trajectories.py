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
    return Trajectories(*(a.astype(np.float64) for a in stacked(records, step_s, "observations")))


def stacked(records: Sequence[Record], step_s: float, seen: str) -> tuple[Array, Array, Array]:
    """States, the field `seen` and intervals of these, (trajectory, time, ...) each."""
    parts: tuple[list[Array], list[Array], list[Array]] = [], [], []
    for record in records:
        states = record["states"]
        times = record.get("interval_s", np.full(states.shape[:-1], step_s))
        for part, array in zip(parts, (states, record[seen], times), strict=True):
            part += list(array) if states.ndim == 3 else [array]
    length = min(len(one) for one in parts[0])
    states, found, times = (np.stack([one[:length] for one in part]) for part in parts)
    return states, found, times
