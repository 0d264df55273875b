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
from blocks.tracker.smoother import Smoothed, Smoother
from pipeline.block import Learned, param
from pipeline.errors import RunError, WeightsError
from pipeline.frame import Array, FrameInfo, Scalar
from pipeline.weights import Weights


class Found(NamedTuple):
    """What the smoother adds."""

    estimates: Annotated[Float64[Array, "*word time estimate"], fields.ESTIMATES]


class RTSNet(Learned, Modelled, name="tracker.rtsnet"):
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
        where = f"weights {weights.name!r} v{weights.version}"
        try:
            with np.errstate(over="ignore"):  # what that leads to is tried below
                passes = Passes.of(weights.hyper, weights.arrays, self._model)
        except KeyError as error:
            raise WeightsError(f"{where} lack {error}; train others for {self.name}") from None
        except (ValueError, TypeError) as error:
            raise WeightsError(f"{where}: {error}; train others for {self.name}") from None
        with np.errstate(all="ignore"):
            trials = [_Window(one, 1).push(*one.quiet(2)) for one in passes.passes]  # compiles
        if not all(np.isfinite(states).all() for states, _ in trials):
            raise WeightsError(f"{where} lead to numbers that are not finite; train others")
        if not self._stages:
            shared = {name: getattr(self, name) for name in Modelled.params().names}
            first = [_Model(Smoother(**shared, lag=self.lag))] if passes.sees == "smoothed" else []
            self._stages = [*first, *(_Window(one, self.lag) for one in passes.passes)]
            return
        windows = [stage for stage in self._stages if isinstance(stage, _Window)]
        begins = "smoothed" if len(windows) < len(self._stages) else "observations"
        if (begins, len(windows)) != (passes.sees, len(passes.passes)):
            raise WeightsError(
                f"{where}: passes = {len(passes.passes)} and sees = {passes.sees}, but {self.name} "
                f"is at work with {len(windows)} and {begins}; start it anew with these"
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
            raise WeightsError(
                f"{self.name}: there are no weights to track with; train some with `kalvit train "
                "FLOW --block BLOCK` and name them by model = NAME (those that are there: `kalvit "
                "models list`)"
            )
        seen = checked_observations(self.name, observations, self._model.rows)
        intervals = checked_intervals(self.name, interval_s, seen.shape[:-1], self.step_s)
        if seen.ndim == 3:
            self._late.check_idle(self.name)
            for stage in self._stages:
                seen = stage.words(seen, intervals)
                for word in np.flatnonzero(~np.isfinite(seen).all((1, 2))):
                    self._lost(f"in word {info.sample // max(seen.shape[1], 1) + word}")
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
                self._lost("in the last windows")
        self._late.add(seen)

    def _lost(self, where: str) -> None:
        raise RunError(
            f"{self.name}: {where} a number is not finite; train the networks on frames like "
            "these, or start nearer to where the tracks do (initial_state)"
        )


class _Window:
    """One pass over a stream: smooths `lag` states once those of the next window are in."""

    def __init__(self, one: Pass, lag: int) -> None:
        self._one, self._lag, self._held = one, lag, 0
        self._tracks = one.there.start(1)
        self._updated = np.empty((2 * lag, one.there.model.size))
        self._intervals = np.empty(2 * lag)

    def swap(self, one: Pass) -> None:
        """Go on with other networks."""
        hidden = one.there.hidden_of(self._tracks.hidden)
        if hidden is None:
            hidden = one.there.start(1).hidden
        self._one, self._tracks = one, self._tracks._replace(hidden=hidden)

    def words(self, seen: Array, intervals: Array) -> Array:
        """Smoothed states of whole records."""
        return self._one.smooth(seen, intervals)

    def push(self, seen: Array, intervals: Array) -> tuple[Array, Array]:
        """Take in what is seen; returns states that are now smoothed, and their intervals."""
        states, spans = [self._updated[:0]], [self._intervals[:0]]
        at = 0
        while at < len(seen):
            count = min(len(seen) - at, 2 * self._lag - self._held)
            new, taken = slice(self._held, self._held + count), slice(at, at + count)
            self._updated[new] = self._one.filter(
                seen[None, taken], intervals[None, taken], self._tracks, together=False
            )[0]
            self._intervals[new] = intervals[taken]
            at += count
            self._held += count
            if self._held == 2 * self._lag:
                states.append(self._decide(self._lag))
                spans.append(self._let_go(self._lag))
        return np.concatenate(states), np.concatenate(spans)

    def finish(self) -> tuple[Array, Array]:
        """What is still held, smoothed."""
        return self._decide(self._held), self._let_go(self._held)

    def state(self) -> dict[str, Any]:
        return {
            "updated": self._updated[: self._held].copy(),
            "intervals": self._intervals[: self._held].copy(),
            **{name: array.copy() for name, array in self._tracks._asdict().items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._held = len(state["updated"])
        self._updated[: self._held] = state["updated"]
        self._intervals[: self._held] = state["intervals"]
        self._tracks = Tracks(*(np.array(state[name]) for name in Tracks._fields))

    def _decide(self, count: int) -> Array:
        """Smooth all that is held; returns the first `count`."""
        held = self._updated[None, : self._held], self._intervals[None, : self._held]
        return self._one.back.run(*held, together=False)[0, :count].copy()

    def _let_go(self, count: int) -> Array:
        """Forget the first `count`; returns their intervals."""
        spans = self._intervals[:count].copy()
        self._held -= count
        for array in (self._updated, self._intervals):
            array[: self._held] = array[count : count + self._held].copy()
        return spans


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
