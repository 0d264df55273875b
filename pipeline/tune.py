"""Finds numeric parameters of a block: runs its flow at every point of a grid, and compares.

What a point is worth is a number that the sink below the block reports, pooled over seeds; the
best point then meets what the flow has now on seeds that it was not chosen by. Points share one
run, as branches of one flow behind the same source, where that gives the same numbers.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.block import Sink, Source
from pipeline.errors import FlowError, KalvitError, did_you_mean
from pipeline.flow import Flow
from pipeline.grid import Axis, decades
from pipeline.local import run
from pipeline.plan import Plan
from pipeline.roots import Limits
from pipeline.segment import BlockError

LIKELIHOOD = "likelihood"  # the criterion, and the key in which a sink reports it:
LOG_LIKELIHOOD = "log_likelihood"
SHARED = 0.2  # of the time of a run may go into what its points share
POINTS = 10_000  # on a grid

Point = tuple[float, ...]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Criterion:
    """The number that decides.

    sink         that reports it, under `key`
    is_largest   the largest is the best, not the smallest
    reads_truth  it needs what no receiver has
    """

    sink: str
    key: str
    is_largest: bool
    reads_truth: bool


def tune(
    flow: Flow,
    block: str,
    grid: Sequence[Axis] = (),
    *,
    by: str = LIKELIHOOD,
    is_largest: bool = False,
    seeds: int = 3,
    refine: int = 0,
    limits: Limits | None = None,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """What `kalvit tune --json` writes: all points, the best, and how it fares on other seeds.

    grid        an axis for each parameter; none: those that the block declares
    by          "likelihood", or the key that a sink reports, as KEY or SINK.KEY
    is_largest  the largest of such a key is the best
    seeds       how many, from that of the flow on, to choose by, and as many to confirm with
    refine      rounds after the grid, each of which tries the middles beside the best
    limits      of each run
    say         is told what is under way

    A point that fails is kept with the reason. KeyboardInterrupt ends it with what was found so
    far. Raises a KalvitError for a flow that does not fit together, and for a block, parameter or
    key that is not there.
    """
    plan = flow.check()
    if block not in plan.blocks:
        hint = did_you_mean(block, plan.blocks) or f" (it has: {', '.join(plan.blocks)})"
        raise FlowError(f"flow {flow.name} has no block {block!r}{hint}")
    criterion = _criterion(plan, block, by, is_largest)
    axes, now = _axes(plan, block, grid)
    points = list(itertools.product(*(axis.values for axis in axes)))
    if len(points) > POINTS:
        raise FlowError(f"the grid has {len(points)} points; {POINTS} are the most")
    tuning = _Tuning(plan, block, axes, criterion, limits or Limits(), say)
    chosen_by = [flow.seed + n for n in range(seeds)]
    others = [flow.seed + seeds + n for n in range(seeds)]
    interrupted = False
    try:
        tuning.try_points([now, *points], chosen_by)
        for _ in range(refine):
            tuning.try_points(tuning.beside_best(chosen_by), chosen_by)
        best = tuning.best(chosen_by)
        if best is not None:
            tuning.try_points([best, now], others)
    except KeyboardInterrupt:
        interrupted = True
    return {
        "flow": flow.name,
        "block": block,
        "by": f"{criterion.sink}.{criterion.key}",
        "best_is": "largest" if criterion.is_largest else "smallest",
        "reads_truth": criterion.reads_truth,
        **tuning.findings(now, chosen_by, others),
        "interrupted": interrupted,
    }


def _criterion(plan: Plan, block: str, by: str, is_largest: bool) -> Criterion:
    """The number that `by` means; FlowError where there is no such sink."""
    below = {block, *plan.below(block)}
    sinks = [name for name in plan.blocks if name in below and _is(plan, name, Sink)]
    named, _, key = by.rpartition(".")
    if not sinks:
        raise FlowError(f"no sink follows block {block!r}, so nothing says how good it is")
    if named and named not in sinks:
        hint = did_you_mean(named, sinks) or f"; these do: {', '.join(sinks)}"
        raise FlowError(f"--by {by}: no sink {named!r} follows block {block!r}{hint}")
    if not named and len(sinks) > 1:
        choices = " or ".join(f"{name}.{_key(key)}" for name in sinks)
        raise FlowError(f"--by {by}: several sinks follow block {block!r}; say {choices}")
    sink, key = named or sinks[0], _key(key)
    planned = plan.blocks[sink]
    meanings = [planned.given[field].meaning for _, field in planned.reads]
    truth = any(meaning is not None and meaning.truth for meaning in meanings)
    genie = any(plan.blocks[name].genie for name in _way(plan, sink))
    likely = key == LOG_LIKELIHOOD
    return Criterion(sink, key, is_largest or likely, genie or (truth and not likely))


def _key(key: str) -> str:
    return LOG_LIKELIHOOD if key == LIKELIHOOD else key


def _is(plan: Plan, name: str, kind: type) -> bool:
    return issubclass(plan.blocks[name].cls, kind)


def _axes(plan: Plan, block: str, grid: Sequence[Axis]) -> tuple[list[Axis], Point]:
    """The axes, and the point where the flow stands now; FlowError for what is no number."""
    planned = plan.blocks[block]
    values = planned.block.values()
    numeric = ", ".join(key for key, value in values.items() if _numeric(value)) or "none"
    if not grid:
        declared = planned.cls.params().describe()
        grid = [decades(item.name, *item.tune) for item in declared if item.tune is not None]
    if not grid:
        raise FlowError(
            f"{planned.cls.name} says for no parameter where to look; give --grid "
            f"PARAMETER=LOW:HIGH:N/decade (its numeric parameters: {numeric})"
        )
    axes: list[Axis] = []
    now: list[float] = []
    for axis in grid:
        name, *rest = axis.path
        where = f"block {block!r}: {axis.parameter}"
        if name not in values:
            hint = did_you_mean(str(name), values) or f" (numeric ones: {numeric})"
            raise FlowError(f"block {block!r} ({planned.cls.name}) has no parameter {name!r}{hint}")
        value = values[name]
        for item in rest:
            try:
                value = value[item]
            except (IndexError, KeyError, TypeError):
                raise FlowError(f"{where}: there is no such item in {values[name]!r}") from None
        if not isinstance(value, int | float) or isinstance(value, bool):
            hint = f"; name an item of it, as {name}[0]" if isinstance(value, tuple) else ""
            raise FlowError(f"{where} = {value!r} is no number{hint} (numeric ones: {numeric})")
        if isinstance(value, int):
            axis = _whole(axis, where)
        if axis.parameter in [other.parameter for other in axes]:
            raise FlowError(f"{where} has two grids; give one")
        axes.append(axis)
        now.append(value)
    return axes, tuple(now)


def _whole(axis: Axis, where: str) -> Axis:
    """An axis of whole numbers; those of a logarithmic grid are rounded."""
    if not axis.log:
        for value in axis.values:
            if value != int(value):
                raise FlowError(f"{where} is a whole number, and cannot be {value:g}")
    return replace(axis, values=tuple(sorted({round(value) for value in axis.values})))


def _numeric(value: Any) -> bool:
    if isinstance(value, Mapping):
        return _numeric(tuple(value.values()))
    if isinstance(value, tuple):
        return bool(value) and all(_numeric(item) for item in value)
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Tuning:
    """The points tried so far, and what came out at each.

    A result is what the sink reported at one seed, or the reason why there is none.
    """

    def __init__(
        self, plan: Plan, block: str, axes: Sequence[Axis], criterion: Criterion, limits: Limits,
        say: Say,
    ) -> None:  # fmt: skip
        self._block, self._axes, self._criterion = block, axes, criterion
        self._values = plan.blocks[block].block.values()
        self._limits, self._say = limits, say
        self._found: dict[Point, dict[int, Mapping[str, Any] | str]] = {}
        self._grid: list[Point] = []  # the points that were asked for first
        learns = any(edge.kind == "weights" for edge in plan.flow.edges)
        self._flow = _as_fast_as_possible(
            plan, plan.flow if learns else _on_the_way(plan, criterion.sink)
        )
        below = {block, *plan.below(block)}
        #: What each point has a copy of in a run that they share.
        self._below = [name for name in self._flow.blocks if name in below and not learns]
        self._at_once = 1 if learns else 0  # points of one run; 0: not known yet
        self._busy_us = 0.0, 0.0  # in the last run: what all points share, and each of them

    # trying

    def try_points(self, points: Sequence[Point], seeds: Sequence[int]) -> None:
        """Run every point at every seed, unless it was run, or has failed at another."""
        points = list(dict.fromkeys(points))
        self._grid = self._grid or points
        for seed in seeds:
            left = [p for p in points if self._wants(p, seed)]
            while left:
                self._say(
                    f"seed {seed}: {len(points) - len(left)} of {len(points)} points, "
                    f"up to {max(self._at_once, 1)} at once"
                )
                if self._at_once == 0:
                    self._found.setdefault(left[0], {})[seed] = self._try_twice(left[0], seed)
                    left = left[1:]
                    continue
                now, left = left[: self._at_once], left[self._at_once :]
                for point, result in zip(now, self._run(now, seed), strict=True):
                    self._found.setdefault(point, {})[seed] = result

    def _wants(self, point: Point, seed: int) -> bool:
        tried = self._found.get(point, {})
        return seed not in tried and not any(isinstance(r, str) for r in tried.values())

    def _try_twice(self, point: Point, seed: int) -> Mapping[str, Any] | str:
        """The result of a point, run beside a copy of itself, to learn whether points can share.

        They cannot where blocks draw random numbers, which belong to a block's name. They should
        where it saves time: as many as make what they share SHARED of a run.
        """
        first, second = self._run([point, point], seed)
        if not isinstance(first, str):
            common, own = self._busy_us
            alike = first == second
            self._at_once = max(1, math.ceil(common / max(own, 1e-3) / SHARED)) if alike else 1
        return first

    def _run(self, points: Sequence[Point], seed: int) -> list[Mapping[str, Any] | str]:
        """Results of points in one run; where that fails, in two runs of half of them each."""
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):  # of filters that diverge
                warnings.simplefilter("ignore")
                flow, copies = self._joined(points, seed)
                summary = run(flow, frames=self._limits.frames, seconds=self._limits.seconds)
        except (KalvitError, BlockError) as error:
            if len(points) == 1:
                return [str(error).partition("\n")[0]]
            half = len(points) // 2
            return self._run(points[:half], seed) + self._run(points[half:], seed)
        own = {names[name] for names in copies for name in self._below}
        busy = {  # by the median: kernels may have been loaded at the first frame
            name: block["frames"] * block["us_per_frame"]["p50"]
            for name, block in summary["blocks"].items()
        }
        of_each = sum(us for name, us in busy.items() if name in own) / len(points)
        self._busy_us = sum(us for name, us in busy.items() if name not in own), of_each
        results = (summary["results"][names[self._criterion.sink]] for names in copies)
        return [self._checked(result) for result in results]

    def _joined(self, points: Sequence[Point], seed: int) -> tuple[Flow, list[dict[str, str]]]:
        """A flow in which the block, and what follows it, is there once for each point.

        With it, for each point, the names of its copies.
        """
        flow = Flow.from_dict(self._flow.to_dict())
        flow.seed = seed
        copies = [{name: name for name in flow.blocks}]
        unused = (name for n in itertools.count() if (name := f"copy_{n}") not in self._flow.blocks)
        edges = [edge for edge in flow.edges if edge.target in self._below]
        for _ in points[1:]:
            names = {name: next(unused) for name in self._below}
            for name, copy in names.items():
                flow.blocks[copy] = replace(flow.blocks[name], name=copy)
            for edge in edges:
                source = names.get(edge.source, edge.source)
                flow.join(edge.kind, f"{source} -> {names[edge.target]}", edge.delay, "")
            copies.append(names)
        for names, point in zip(copies, points, strict=True):
            for parameter, value in self._parameters(point).items():
                flow.set(f"{names.get(self._block, self._block)}.{parameter}", value)
        return flow, copies

    def _parameters(self, point: Point) -> dict[str, Any]:
        """Whole parameters, as they are set: an item of a list changes the list."""
        changed: dict[str, Any] = {}
        for axis, value in zip(self._axes, point, strict=True):
            name, *rest = axis.path
            before = changed.get(str(name), self._values[str(name)])
            changed[str(name)] = _with(before, rest, value)
        return changed

    def _checked(self, result: Mapping[str, Any]) -> Mapping[str, Any] | str:
        """A result whose criterion is a finite number, or what is wrong with it."""
        sink, key = self._criterion.sink, self._criterion.key
        value = result.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool):
            numbers = [name for name, number in result.items() if isinstance(number, int | float)]
            hint = did_you_mean(key, numbers) or f"; it reports: {', '.join(numbers)}"
            if key == LOG_LIKELIHOOD:
                hint += "; nothing before it writes a likelihood, so choose by one of those, --by"
            raise FlowError(f"{sink} reports no number {key!r}{hint}")
        return result if math.isfinite(value) else f"{key} is {value}"

    # what came out

    def _pooled(self, point: Point, seeds: Sequence[int]) -> dict[str, float] | str | None:
        """Numbers pooled over seeds, the reason of a failure, or None where it was not run."""
        found = self._found.get(point, {})
        for seed in seeds:
            if isinstance(result := found.get(seed), str):
                return f"seed {seed}: {result}"
        results = [r for s in seeds if (r := found.get(s)) is not None and not isinstance(r, str)]
        if not results or len(results) < len(seeds):
            return None
        keys = [key for key, value in results[0].items() if isinstance(value, float)]
        if self._criterion.key not in keys:
            keys.append(self._criterion.key)
        return {key: _pool(key, [float(result[key]) for result in results]) for key in keys}

    def _complete(self, seeds: Sequence[int]) -> list[int]:
        """The seeds at which the whole grid was run, at least the first."""
        good = [p for p in self._grid if not isinstance(self._pooled(p, seeds), str)]
        done = [s for s in seeds if all(s in self._found.get(point, {}) for point in good)]
        return done or list(seeds[:1])

    def best(self, seeds: Sequence[int]) -> Point | None:
        """The best point so far; None where all failed."""
        seeds, key = self._complete(seeds), self._criterion.key
        worth = {
            point: numbers[key]
            for point in self._found
            if isinstance(numbers := self._pooled(point, seeds), dict)
        }
        if not worth:
            return None
        pick = max if self._criterion.is_largest else min
        return pick(worth, key=lambda point: worth[point])

    def beside_best(self, seeds: Sequence[int]) -> list[Point]:
        """The best point with one parameter moved halfway to each of its neighbours."""
        best = self.best(seeds)
        if best is None:
            return []
        found = []
        for place, axis in enumerate(self._axes):
            tried = sorted({point[place] for point in self._found})
            at = tried.index(best[place])
            for low, high in itertools.pairwise(tried[max(at - 1, 0) : at + 2]):
                middle = axis.between(low, high)
                if isinstance(self._item(place), int):
                    middle = round(middle)
                found.append((*best[:place], middle, *best[place + 1 :]))
        return found

    def _item(self, place: int) -> Any:
        name, *rest = self._axes[place].path
        value = self._values[str(name)]
        for item in rest:
            value = value[item]
        return value

    def findings(
        self, now: Point, chosen_by: Sequence[int], others: Sequence[int]
    ) -> dict[str, Any]:
        """All points in order, the best, and how it fares at other seeds."""
        best, seeds, key = self.best(chosen_by), self._complete(chosen_by), self._criterion.key
        points = []
        for point in sorted(self._found):
            numbers = self._pooled(point, seeds)
            if numbers is not None:
                points.append(_row(self._named(point), numbers, key))
        return {
            "seeds": seeds,
            "points": points,
            "now": self._named(now),
            "best": None if best is None else self._named(best),
            "at_edge": [] if best is None else self._at_edge(best),
            "settings": [] if best is None else self._settings(best),
            "held_out": None if best is None else self._held_out(best, now, seeds, others),
        }

    def _is_better(self, best: Point, now: Point, seed: int) -> bool:
        """Whether one point is better than another at a seed; one that failed never is."""
        key, largest = self._criterion.key, self._criterion.is_largest
        mine, other = (self._found[point].get(seed, "") for point in (best, now))
        if isinstance(mine, str) or isinstance(other, str):
            return isinstance(other, str) and not isinstance(mine, str)
        return bool(mine[key] > other[key] if largest else mine[key] < other[key])

    def _named(self, point: Point) -> dict[str, float]:
        return {axis.parameter: value for axis, value in zip(self._axes, point, strict=True)}

    def _at_edge(self, best: Point) -> list[str]:
        """Parameters beyond whose best value none was tried, on one side."""
        tried = [{point[place] for point in self._found} for place in range(len(best))]
        return [
            axis.parameter
            for axis, values, value in zip(self._axes, tried, best, strict=True)
            if len(values) > 1 and value in (min(values), max(values))
        ]

    def _settings(self, best: Point) -> list[str]:
        """The best point as `--set` takes it."""
        parameters = self._parameters(best)
        return [f"{self._block}.{name}={_toml(value)}" for name, value in parameters.items()]

    def _held_out(
        self, best: Point, now: Point, seeds: Sequence[int], others: Sequence[int]
    ) -> dict[str, Any] | None:
        """The best point and the one of now at seeds that did not choose; None if not run."""
        found = self._found
        numbers, before = self._pooled(best, others), self._pooled(now, others)
        if numbers is None:
            return None
        return {
            "seeds": list(others),
            # a recording, say, gives the same numbers at every seed: then nothing is confirmed
            "differs": found[best].get(others[0]) != found[best].get(seeds[0]),
            "best": _plain(numbers) if isinstance(numbers, dict) else {},
            "now": _plain(before) if isinstance(before, dict) else {},
            "failed": numbers if isinstance(numbers, str) else "",
            "better_on": sum(self._is_better(best, now, seed) for seed in others),
        }


def _way(plan: Plan, name: str) -> list[str]:
    """The blocks that feed a block one after the other, from the source on, and itself."""
    names = [name]
    while (edge := plan.parent(names[0])) is not None:
        names.insert(0, edge.source)
    return names


def _on_the_way(plan: Plan, sink: str) -> Flow:
    """The flow without what does not lead to a sink."""
    names, given = _way(plan, sink), plan.flow
    flow = Flow(given.name, seed=given.seed)
    flow.frame_cap = given.frame_cap
    flow.blocks = {name: given.blocks[name] for name in names}
    for edge in given.edges:
        if edge.target in names:
            flow.join(edge.kind, f"{edge.source} -> {edge.target}", None, "")
    return flow


def _as_fast_as_possible(plan: Plan, flow: Flow) -> Flow:
    """A copy of a flow whose sources do not wait."""
    flow = Flow.from_dict(flow.to_dict())
    for name in flow.blocks:
        if _is(plan, name, Source):
            flow.set(f"{name}.rate", 0.0)
    return flow


def _with(value: Any, path: Sequence[str | int], new: float) -> Any:
    """A parameter with one item replaced."""
    if not path:
        return new
    is_table = isinstance(value, Mapping)
    changed: dict[Any, Any] = dict(value if is_table else enumerate(value))
    changed[path[0]] = new
    return changed if is_table else list(changed.values())


def _row(
    parameters: Mapping[str, float], numbers: Mapping[str, float] | str, key: str
) -> dict[str, Any]:
    if isinstance(numbers, str):
        return {"parameters": parameters, "value": None, "results": {}, "failed": numbers}
    results = _plain(numbers)
    return {"parameters": parameters, "value": results[key], "results": results, "failed": ""}


def _plain(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers as JSON can hold them."""
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def _toml(value: Any) -> str:
    """A parameter of numbers as TOML, on one line."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {_toml(item)}' for key, item in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)


def _pool(key: str, values: Sequence[float]) -> float:
    """One number for several runs of equal length: their mean, of those in dB that of the powers.

    Of the worst, the largest.

    >>> round(_pool("mse_db", [0.0, 10.0]), 3)  # (1 + 10) / 2
    7.404
    """
    if len(values) == 1:
        return values[0]
    if key.startswith("worst_"):
        return float(np.max(values))
    if key.endswith("_db"):
        with np.errstate(all="ignore"):
            return float(10.0 * np.log10(np.mean(10.0 ** (np.array(values) / 10.0))))
    return float(np.mean(values))


__all__ = ["tune"]
