"""A smoother whose gains networks tell, as a block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from blocks import fields
from blocks.kernels.kalmannet_filter import Tracks
from blocks.kernels.rtsnet import Pass, Passes
from blocks.late import LateRows
from blocks.state_space import Modelled, checked_intervals, checked_observations
from blocks.tracker.filtering import Intervals, Observations
from blocks.tracker.learned import LearnedTracker, went_on
from blocks.tracker.smoother import Smoother
from blocks.tracker.smoothing import Smoothed, TwoWindows
from pipeline.block import param
from pipeline.errors import RunError, WeightsError
from pipeline.frame import Array, FrameInfo, Scalar
from pipeline.weights import Weights


class Found(NamedTuple):
    """What the smoother adds."""

    estimates: Annotated[Float64[Array, "*word time estimate"], fields.ESTIMATES]


class RTSNet(LearnedTracker, name="tracker.rtsnet"):
    """Estimates of each state from the observations before and after it, by gains that are learned.

    Ni, Revach, Shlezinger, "RTSNet: Learning to Smooth in Partially Known State-Space Models", IEEE
    Trans. Signal Processing 2024: a KalmanNet, then a way back with a gain network of its own; as
    often as the weights say, each pass over the states that the one before has smoothed. Weights
    may also say that the first pass sees what the extended RTS smoother of the model has found:
    only there `process_noise`, `observation_noise` and `initial_variance` are used. Missing
    observations are bridged as in tracker.kalmannet. There are no covariances.

    Words are smoothed as a whole. In a stream each pass smooths windows of `lag` states, each once
    those of the next window are in; so an estimate waits for up to 2 lag observations in every
    pass. The result does not depend on how the stream is cut. New weights go on from the states
    that the filters on the way there have reached, and from their hidden ones.

    observations  (..., time, m)  NaN where nothing came
    interval_s    (..., time)     time before each observation [s]; step_s if absent
    estimates     (..., time, n)  smoothed states

    Raises FieldError for observations of another length or that are infinite, RunError where a
    number is no longer finite, and WeightsError where there are no weights.
    """

    trained_by = "blocks.trainer.rtsnet:fit"
    learns_from = ("states",)

    lag: int = param(
        default=50, at_least=1, at_most=1_000_000, unit="observations",
        doc="observations after each that every pass waits for, in streams",
    )  # fmt: skip

    def start(self) -> None:
        self._model = self._build()
        self._stages: list[_Window | _Model] = []
        self._late = LateRows(np.empty((0, self._model.size)))

    def take(self, weights: Weights) -> None:
        with self._fitting(weights):
            passes = Passes.of(weights.hyper, weights.arrays, self._model)
            with np.errstate(all="ignore"):
                trials = [_Window(one, 1).push(*one.quiet(2)) for one in passes.passes]  # compiles
            if not all(np.isfinite(states).all() for states, _ in trials):
                raise self._lost("at the start")
        if not self._stages:
            shared = {name: getattr(self, name) for name in Modelled.params().names}
            first = [_Model(Smoother(**shared, lag=self.lag))] if passes.sees == "smoothed" else []
            self._stages = [*first, *(_Window(one, self.lag) for one in passes.passes)]
            return
        windows = [stage for stage in self._stages if isinstance(stage, _Window)]
        begins = "smoothed" if len(windows) < len(self._stages) else "observations"
        if (begins, len(windows)) != (passes.sees, len(passes.passes)):
            raise WeightsError(
                f"weights {weights.name!r} v{weights.version}: passes = {len(passes.passes)} and "
                f"sees = {passes.sees}, but {self.name} is at work with {len(windows)} and "
                f"{begins}; start it anew with these"
            )
        for window, one in zip(windows, passes.passes, strict=True):
            window.swap(one)

    def process(
        self,
        observations: Observations,
        interval_s: Intervals | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> list[Found]:
        if not self._stages:
            raise self._without_weights()
        seen = checked_observations(self.name, observations, self._model.rows)
        intervals = checked_intervals(self.name, interval_s, seen.shape[:-1], self.step_s)
        if seen.ndim == 3:
            self._late.check_idle(self.name)
            for stage in self._stages:
                seen = stage.words(seen, intervals)
                for word in np.flatnonzero(~np.isfinite(seen).all((1, 2))):
                    raise self._lost(f"in word {info.sample // max(seen.shape[1], 1) + word}")
            return [Found(seen)]
        self._late.expect(len(seen))
        self._pass(seen, intervals, last=False)
        return [Found(*rows) for rows in self._late.complete()]

    def finish(self) -> list[Found]:
        nothing = np.empty((0, self._model.rows)), np.empty(0)
        self._pass(*nothing, last=True)
        return [Found(*rows) for rows in self._late.complete()]

    def state(self) -> Mapping[str, Array | Scalar]:
        stages = {
            f"{number}_{name}": value
            for number, stage in enumerate(self._stages)
            for name, value in stage.state().items()
        }
        return {**stages, **self._late.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._late.restore(state)
        for number, stage in enumerate(self._stages):
            mark = f"{number}_"
            stage.restore(
                {key.removeprefix(mark): state[key] for key in state if key.startswith(mark)}
            )

    def _pass(self, seen: Array, intervals: Array, *, last: bool) -> None:
        """Let observations of a stream go through all passes as far as they get, if `last` all."""
        for stage in self._stages:
            seen, intervals = stage.push(seen, intervals)
            if last:
                rest = stage.finish()
                seen, intervals = np.concatenate((seen, rest[0])), np.append(intervals, rest[1])
            if not np.isfinite(seen).all():  # the next pass would take NaN for missing
                raise self._lost("in the last windows")
        self._late.add(seen)

    def _lost(self, where: str) -> RunError:
        return RunError(
            f"{self.name}: {where} a number is not finite; train the networks on frames like "
            "these, or start nearer to where the tracks do (initial_state)"
        )


class _Window:
    """One pass over a stream: smooths `lag` states once those of the next window are in."""

    def __init__(self, one: Pass, lag: int) -> None:
        self._one, self._lag = one, lag
        self._tracks = one.there.start(1)
        self._updated = np.empty((2 * lag, one.there.model.size))
        self._intervals = np.empty(2 * lag)
        self._windows = TwoWindows(lag, self._updated, self._intervals)

    def swap(self, one: Pass) -> None:
        """Go on with other networks."""
        self._one, self._tracks = one, went_on(one.there, self._tracks)

    def words(self, seen: Array, intervals: Array) -> Array:
        """Smoothed states of whole records."""
        return self._one.smooth(seen, intervals)

    def push(self, seen: Array, intervals: Array) -> tuple[Array, Array]:
        """Take in what is seen; returns states that are now smoothed, and their intervals."""
        states, spans = [self._updated[:0]], [self._intervals[:0]]
        for new, given in self._windows.places(len(seen)):
            self._updated[new] = self._one.filter(
                seen[None, given], intervals[None, given], self._tracks, together=False
            )[0]
            self._intervals[new] = intervals[given]
            if self._windows.are_full:
                for parts, part in zip((states, spans), self._decide(self._lag), strict=True):
                    parts.append(part)
        return np.concatenate(states), np.concatenate(spans)

    def finish(self) -> tuple[Array, Array]:
        """What is still held, smoothed."""
        return self._decide(self._windows.held)

    def state(self) -> dict[str, Any]:
        tracks = {name: array.copy() for name, array in self._tracks._asdict().items()}
        return {**self._windows.state(), **tracks}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._windows.restore(state)
        self._tracks = Tracks(*(np.array(state[name]) for name in Tracks._fields))

    def _decide(self, count: int) -> tuple[Array, Array]:
        """Smooth all that is held; the first `count` states and intervals, of which it lets go."""
        held = slice(self._windows.held)
        states = self._one.back.run(
            self._updated[None, held], self._intervals[None, held], together=False
        )  # fmt: skip
        found = states[0, :count].copy(), self._intervals[:count].copy()
        self._windows.let_go(count)
        return found


class _Model:
    """The extended RTS smoother before the first pass."""

    def __init__(self, block: Smoother) -> None:
        self._block = block
        self._intervals = np.empty(0)  # of what it has not answered
        block.start()

    def words(self, seen: Array, intervals: Array) -> Array:
        return self._block.process(seen, intervals)[0].estimates

    def push(self, seen: Array, intervals: Array) -> tuple[Array, Array]:
        self._intervals = np.append(self._intervals, intervals)
        return self._answered(self._block.process(seen, intervals))

    def finish(self) -> tuple[Array, Array]:
        return self._answered(self._block.finish())

    def state(self) -> dict[str, Any]:
        return {**self._block.state(), "unanswered": self._intervals.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._intervals = np.array(state["unanswered"])
        self._block.restore(state)

    def _answered(self, found: Sequence[Smoothed]) -> tuple[Array, Array]:
        nothing = np.empty((0, self._block._model.size))
        states = np.concatenate([nothing, *(one.estimates for one in found)])
        spans, self._intervals = np.split(self._intervals, [len(states)])
        return states, spans
