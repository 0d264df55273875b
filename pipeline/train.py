"""Trains a learned block offline, on labelled frames that its own flow makes.

The part of the flow before the block is run as it stands, with random numbers of its own; what
the block would read is kept, and the truth that it learns from beside it. What fits the block to
that is named by the block's class (`trained_by`) and imported here alone: a function

    fit(block, lessons, **options) -> Learnt

of a block with its parameters, not started, the lessons, and what the user chose, whose arguments
with a default are the options that there are.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pipeline import catalogue
from pipeline.block import Block, Context, Learned, Source, make
from pipeline.errors import FlowError, KalvitError, ParameterError, did_you_mean
from pipeline.flow import Edge, Flow
from pipeline.frame import Array, Frame, Kind
from pipeline.models import NAME
from pipeline.plan import Plan
from pipeline.roots import Limits, SourceRoot, now_ns
from pipeline.segment import BlockError, Segment
from pipeline.weights import Weights
from pipeline.weights_input import WeightsInput

SYMBOLS = 5000  # to learn from, where no other number is given
POINTS = 1000  # settings that frames may be drawn with
LABELS = "simulator"
_SLICE_NS = 2_000_000  # the source is looked at this often
#: Of an option by the type of its default: types that fit, and what is expected.
_KINDS: Mapping[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"), int: ((int,), "a whole number"),
    float: ((int, float), "a number"), str: ((str,), "a text"), tuple: ((list, tuple), "a list"),
}  # fmt: skip
_TRAINING, _HELD_OUT = 1, 2  # purposes of random numbers: none serves for both

#: One stream as it came, or what lies between two gaps of it: field -> array, the frames joined.
Record = Mapping[str, Array]
#: Told how far a fit has come: steps done, steps at most, and how it goes.
Progress = Callable[[int, int, str], None]


def _silent(done: int, most: int, text: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Lessons:
    """What there is to learn from. Fields have the names that `process` gives them.

    training   records to fit
    held_out   records of other random numbers: to stop in time, and for scores
    seed       for all random numbers of the fit
    progress   is told how far it has come
    """

    training: Sequence[Record]
    held_out: Sequence[Record]
    seed: int = 0
    progress: Progress = _silent


@dataclass(frozen=True)
class Learnt:
    """What a fit found.

    hyper     with the arrays, the weights that the block takes
    training  how it went, for the card: steps taken and the like
    scores    what it reaches on records that were held out, and others beside it
    """

    hyper: Mapping[str, Any]
    arrays: Mapping[str, Array]
    training: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """Weights without a version yet, with what their card will say."""

    weights: Weights
    training: Mapping[str, Any]
    scores: Mapping[str, float]


class Training:
    """What is to be trained; made, it is known to be possible.

    flow      its sources and all blocks before `block` make the frames
    block     name of a learned block in it
    name      of the model; "": that of the block's `model`, or of the block
    vary      axes of settings ("channel.snr_db", values): the symbols are spread over all
              combinations
    symbols   to learn from, in all; a symbol is one element of the truth, as many are held out
    held_out  another number of those; 0: as many
    options   of the fit

    Raises a KalvitError where something does not fit together.
    """

    def __init__(
        self,
        flow: Flow,
        block: str,
        *,
        name: str = "",
        vary: Sequence[tuple[str, Sequence[Any]]] = (),
        symbols: int = SYMBOLS,
        held_out: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if block not in flow.blocks:
            hint = did_you_mean(block, flow.blocks) or f" (it has: {', '.join(flow.blocks)})"
            raise FlowError(f"flow {flow.name} has no block {block!r}{hint}")
        cls = catalogue.find(flow.blocks[block].use)
        self.fit = fit_of(cls, block)
        model = str(flow.blocks[block].params.get("model", ""))
        self.name = name or model.partition("@")[0] or cls.name.rpartition(".")[2]
        if not NAME.fullmatch(self.name):
            raise ParameterError(
                f"{self.name!r} is no name for a model; expected small letters, digits and _, such "
                "as 'state_likelihood'"
            )
        self.options = dict(options or {})
        _check_options(self.fit, self.options, cls.name)
        if symbols < 1:
            raise ParameterError("0 symbols to learn from; give at least 1")
        self.symbols, self.held_out = symbols, held_out or symbols
        self.flow, self.block, self.vary = flow, block, [(key, list(v)) for key, v in vary]
        self._plans = self._points(_alone(flow, block))
        self._planned = self._plans[0].blocks[block]

    def run(self, progress: Progress = _silent) -> Trained:
        """Draw the frames, and fit the block to them; nothing is written.

        Raises a KalvitError for frames that teach nothing, and BlockError for a bug of a block.
        """
        began = time.monotonic()
        seeds = [_seed_of(self.flow.seed, which) for which in (_TRAINING, _HELD_OUT)]
        training = self._draw(seeds[0], self.symbols)
        held_out = self._draw(seeds[1], self.held_out)
        if _begin_alike(training[0], held_out[0]):
            raise FlowError(
                f"flow {self.flow.name} makes the same frames at every seed, so none can be held "
                "out; train on a flow whose source draws random numbers"
            )
        block = self._fresh()
        lessons = Lessons(training, held_out, _seed_of(self.flow.seed, 0), progress)
        learnt = self.fit(block, lessons, **self.options)
        weights = Weights(self.name, 1, learnt.arrays, learnt.hyper, labels=LABELS)
        judge = self._fresh()
        judge.start()
        judge.take(weights)  # before it is written: WeightsError would be a bug of the fit
        drawn = [sum(self._size(r) for r in records) for records in (training, held_out)]
        return Trained(
            weights,
            {
                "flow": self.flow.name, "block": self.block, "use": self._planned.cls.name,
                "seed": self.flow.seed, "symbols": drawn[0], "held_out_symbols": drawn[1],
                "vary": dict(self.vary), **self.options, **learnt.training,
                "seconds": round(time.monotonic() - began, 3),
            },
            learnt.scores,
        )  # fmt: skip

    def _fresh(self) -> Block:
        return make(self._planned.cls, self._planned.block.values(), Context(self.block))

    # the frames

    def _points(self, flow: Flow) -> list[Plan]:
        """The checked flow for each combination of settings."""
        count = 1
        for _, values in self.vary:
            count *= len(values)
        if count > POINTS:
            raise FlowError(f"--vary makes {count} combinations; {POINTS} are the most")
        plan = flow.check()
        before = _way(plan, self.block)[:-1]
        for key, values in self.vary:
            name = key.partition(".")[0]
            if name in plan.blocks and name not in before:
                raise FlowError(
                    f"--vary {key}: only what comes before {self.block!r} may vary: "
                    + ", ".join(before)
                )
            if not values:
                raise FlowError(f"--vary {key} names no value; write a list, such as [8.0, 10.0]")
        plans = []
        for combination in itertools.product(*(values for _, values in self.vary)):
            point = copy.deepcopy(flow)
            for (key, _), value in zip(self.vary, combination, strict=True):
                point.set(key, value)
            plans.append(point.check())
            self._check_truth(plans[-1])
        return plans

    def _check_truth(self, plan: Plan) -> None:
        planned = plan.blocks[self.block]
        assert issubclass(planned.cls, Learned)  # noqa: S101 (fit_of has seen to it)
        for name in planned.cls.learns_from:
            if name not in planned.given:
                truth = [f for f, spec in planned.given.items() if spec.meaning and
                         spec.meaning.truth]  # fmt: skip
                raise FlowError(
                    f"flow {self.flow.name}: {planned.cls.name} learns from {name!r}, but nothing "
                    f"before {self.block!r} tells it (truth there: {', '.join(truth) or 'none'}); "
                    "train it in a flow with a simulated source"
                )

    def _draw(self, seed: int, symbols: int) -> list[Record]:
        """Records of so many symbols in all, spread over all settings."""
        share = -(-symbols // len(self._plans))
        found = []
        for number, plan in enumerate(self._plans):
            found += self._draw_point(plan, _seed_of(seed, number), share)
        return found

    def _draw_point(self, plan: Plan, seed: int, symbols: int) -> list[Record]:
        collector = _Collector(self._wanted(plan), self._size, symbols)
        root = _chain(plan, self.block, seed, collector)
        try:
            root.start()
            while not root.done and not collector.full:
                root.pump(now_ns() + _SLICE_NS)
        except BlockError as error:
            if error.for_user and error.__cause__ is not None:
                raise error.__cause__ from None
            raise
        finally:
            root.close()
        records = collector.records()
        if sum(self._size(record) for record in records) < symbols:
            source = plan.blocks[_way(plan, self.block)[0]]
            more = f", --set {source.name}.frames=0" if "frames" in source.block.values() else ""
            raise FlowError(
                f"flow {self.flow.name} ends after {collector.symbols} of {symbols} symbols; let "
                f"its source send more{more}, or ask for fewer by --symbols and --held-out"
            )
        return records

    def _wanted(self, plan: Plan) -> Mapping[str, str]:
        """Field of a frame -> its name in a record."""
        planned = plan.blocks[self.block]
        assert issubclass(planned.cls, Learned)  # noqa: S101
        return {
            **{name: name for name in planned.cls.learns_from},
            **{outer: inner for inner, outer in planned.reads},
        }

    def _size(self, record: Mapping[str, Array]) -> int:
        """Symbols in a record: elements of the truth, or of what is read where there is none."""
        return int(next(iter(record.values())).size)


class _Collector:
    """Keeps the fields of frames that are wanted, until there are symbols enough."""

    blocked = False

    def __init__(
        self, wanted: Mapping[str, str], size: Callable[[Mapping[str, Array]], int], symbols: int
    ) -> None:
        self._wanted, self._size, self._most = wanted, size, symbols
        self.symbols = 0
        self._open: dict[str, list[dict[str, Array]]] = {}  # stream -> frames since the last gap
        self._runs: list[list[dict[str, Array]]] = []

    @property
    def full(self) -> bool:
        return self.symbols >= self._most

    def push(self, frame: Frame) -> None:
        """Take one frame."""
        if frame.kind is not Kind.DATA:
            self._open.pop(frame.stream, None)
            return
        fields = {inner: frame.fields[outer] for outer, inner in self._wanted.items()}
        size = self._size(fields)
        left = self._most - self.symbols
        if left <= 0 or not size:
            return
        if size > left:
            fields = _cut(fields, left)
            size = self._size(fields)
        self.symbols += size
        if frame.stream not in self._open:
            self._open[frame.stream] = []
            self._runs.append(self._open[frame.stream])
        self._open[frame.stream].append(fields)

    def records(self) -> list[Record]:
        """What was kept, each run of frames as one."""
        return [
            {name: np.concatenate([frame[name] for frame in run]) for name in run[0]}
            for run in self._runs
        ]


def _cut(fields: dict[str, Array], symbols: int) -> dict[str, Array]:
    """As many rows of a frame as hold so many symbols."""
    first = next(iter(fields.values()))
    length = len(first)
    rows = -(-symbols * length // first.size)
    return {name: a[:rows] if a.ndim and len(a) == length else a for name, a in fields.items()}


def _chain(plan: Plan, block: str, seed: int, end: _Collector) -> SourceRoot:
    """The blocks before a block, each called by the one before it, from the source on."""
    first, *inner = _way(plan, block)[:-1]
    root = SourceRoot(plan.blocks[first], seed, Limits())
    outs = root.outs
    for name in inner:
        planned = plan.blocks[name]
        taken = WeightsInput(name, "live", planned.weights) if planned.cls.takes_weights() else None
        segment = Segment([planned], seed, taken)
        outs.append(segment)
        outs = segment.outs
    outs.append(end)
    return root


def _way(plan: Plan, name: str) -> list[str]:
    """The blocks that feed a block one after the other, from the source on, and itself."""
    names = [name]
    while (edge := plan.parent(names[0])) is not None:
        names.insert(0, edge.source)
    return names


def _alone(flow: Flow, block: str) -> Flow:
    """The flow up to a block, which has no model yet, with a source that does not wait."""
    feeding = {edge.target: edge for edge in flow.edges if edge.kind != "weights"}
    names = [block]
    edges: list[Edge] = []
    while names[0] in feeding and feeding[names[0]].source not in names:
        edges.insert(0, feeding[names[0]])
        names.insert(0, edges[0].source)
    part = copy.deepcopy(flow)  # knows the lines of its file
    part.blocks = {name: spec for name, spec in part.blocks.items() if name in names}
    part.edges, part.workers = [replace(edge, via="") for edge in edges], {}
    part.set(f"{block}.model", "")
    if names[0] in part.blocks and issubclass(catalogue.find(part.blocks[names[0]].use), Source):
        part.set(f"{names[0]}.rate", 0.0)
    return part


def fit_of(cls: type[Block], block: str) -> Callable[..., Learnt]:
    """The function that fits blocks of a class, imported now."""
    if not issubclass(cls, Learned):
        raise FlowError(
            f"{block} ({cls.name}) learns nothing, so there is nothing to train; `kalvit tune` "
            "finds its parameters"
        )
    module, _, name = cls.trained_by.partition(":")
    if not name:
        raise FlowError(f"{block} ({cls.name}) names nothing that trains it offline (trained_by)")
    try:
        found = importlib.import_module(module) if module else sys.modules[cls.__module__]
        fit: Callable[..., Learnt] = getattr(found, name)
    except ModuleNotFoundError as error:
        raise KalvitError(
            f"{cls.name} cannot be trained: {error}{catalogue.install_hint(error)}"
        ) from error
    return fit


def _check_options(fit: Callable[..., Learnt], options: Mapping[str, Any], use: str) -> None:
    """ParameterError for an option that the fit does not have, or that is of another kind."""
    arguments = inspect.signature(fit).parameters.values()
    known = {a.name: a.default for a in arguments if a.default is not inspect.Parameter.empty}
    for name, value in options.items():
        if name not in known:
            hint = did_you_mean(name, known) or f" (it has: {', '.join(known) or 'none'})"
            raise ParameterError(f"what trains {use} has no option {name!r}{hint}")
        for kind, (fits, expected) in _KINDS.items():
            if type(known[name]) is kind and type(value) not in fits:
                raise ParameterError(
                    f"what trains {use}: {name} = {value!r}, but must be {expected}, such as "
                    f"{list(known[name]) if kind is tuple else known[name]!r}"
                )
        if type(value) is int and value < 0 <= known[name]:
            raise ParameterError(f"what trains {use}: {name} = {value}, but must be at least 0")


def _begin_alike(one: Record, other: Record) -> bool:
    """Whether two records are the same as far as both go."""
    length = min(len(next(iter(one.values()))), len(next(iter(other.values()))))
    return all(np.array_equal(one[name][:length], other[name][:length]) for name in one)


def _seed_of(seed: int, purpose: int) -> int:
    """A seed for one purpose, unlike those of others and `seed` itself."""
    return int(np.random.SeedSequence((seed, purpose)).generate_state(1, np.uint64)[0] >> 1)


__all__ = ["LABELS", "SYMBOLS", "Learnt", "Lessons", "Record", "Trained", "Training"]
