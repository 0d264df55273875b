"""What trainers of trackers have in common: all but the strategy."""

from __future__ import annotations

import json
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, Float64

from blocks.nodes.gain import GainNode
from blocks.state_space import Modelled, checked_intervals, checked_observations
from blocks.trainer.gated import Gated
from blocks.training.gate import excess
from blocks.training.strategy import Strategy
from blocks.training.tracks import (
    Followed,
    Lesson,
    Stretch,
    grouped,
    robust_variances,
)
from pipeline.block import param
from pipeline.errors import ParameterError, WeightsError
from pipeline.frame import Array, FrameInfo
from pipeline.weights import Weights

WILD = 6.0  # standard deviations of an innovation beyond which nothing is believed
LOST = 10.0  # times the loss of what served before, at which a version returns without a test


class TrackFeedback(Gated, Modelled, ABC):
    """Trains the KalmanNet of a tracker on, on what the tracker sees, and nothing else.

    It reads the observations of the tracker, and follows them with filters of its own: with what
    serves, with what may come, and with what served before. A stream is cut into stretches by its
    own count, so that nothing depends on the frames. Words are tracks of their own, of which what
    is left over after the last whole stretch teaches nothing.

    Losses are those of one-step predictions: halved squares of innovations, in units of the
    variances of those of the serving filter, which is -log of their likelihood up to a number that
    all share. A candidate is run from where the serving filter stood one stretch earlier, then
    judged on stretches that neither it nor what serves was trained on, until its mean loss is less
    by `-tolerance` standard errors, and refused if that has not come after `trials` of them.
    Gated says the rest. What serves returns at once to the version before where it is lost.

    Where the size of the innovations changes by a `drift` (Page-Hinkley, Biometrika 58, 1971), what
    was learned from so far is forgotten, and waiting ends. Innovations beyond 6 deviations, told by
    the median, are left out, as are observations that did not come.

    observations  (..., time, m)  NaN where nothing came
    interval_s    (..., time)     time before each observation [s]; step_s if absent

    Returns the weights that serve from here on, where they have changed; else None.
    """

    model: str = param(
        default="", doc="weights to start with, those of the tracker: NAME or NAME@VERSION"
    )
    stretch: int = param(
        default=100, at_least=20, at_most=100_000, unit="steps",
        doc="observations that are judged at once",
    )  # fmt: skip
    stride: int = param(
        default=20, at_least=1, unit="steps",
        doc="through which gradients pass; divides stretch",
    )  # fmt: skip
    window: int = param(
        default=10, at_least=1, at_most=1000, unit="stretches", doc="the newest, learned from"
    )
    tolerance: float = param(
        default=-2.0, unit="standard errors",
        doc="by which a candidate's loss may exceed that of what serves; negative: has to be less",
    )  # fmt: skip
    trials: int = param(
        default=5, at_least=1, unit="stretches", doc="on which a candidate may prove itself"
    )
    patience: int = param(
        default=20, at_least=1, at_most=1000, unit="stretches",
        doc="for which a version may still be taken back",
    )  # fmt: skip
    longest_wait: int = param(
        default=32, at_least=0, unit="stretches", doc="left out after refusals, at most"
    )
    drift_db: float = param(
        default=2.0, above=0.0, unit="dB",
        doc="change of the mean squared innovation at which learning begins anew",
    )  # fmt: skip

    #: What it learns from, for the weights.
    labels: ClassVar[str] = "observations"

    def check(self) -> None:
        super().check()
        if self.stretch % self.stride:
            raise ParameterError(f"stride = {self.stride} does not divide stretch = {self.stretch}")
        try:
            self._first()
        except WeightsError as error:
            raise ParameterError(str(error)) from None

    def _fresh(self) -> GainNode:
        raise ParameterError(
            "model is missing; name the weights with which the tracker starts (`kalvit models "
            "list` shows what there is)"
        )

    def _node_of(self, weights: Weights) -> GainNode:
        try:
            return GainNode(self._build(), weights.hyper, weights.arrays)
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(
                f"weights {weights.name!r} v{weights.version} are no KalmanNet for this model: "
                f"{error}"
            ) from None

    def start(self) -> None:
        self._system = self._build()
        super().start()

    def _begin(self) -> None:
        self._trial: list[Array] = []  # losses of what is pending and of what serves, (2, groups)
        self._streams: dict[str, Followed] = {}

    def _counted(self) -> Sequence[str]:
        return "stretches", "drifts"

    def _parts(self) -> Sequence[tuple[str, Any]]:
        return *super()._parts(), ("streams", _Streams(self))

    def process(
        self,
        observations: Float64[Array, "*word time observation"]
        | Float32[Array, "*word time observation"],
        interval_s: Float64[Array, "*word time"] | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> Weights | None:
        seen = checked_observations(self.name, observations, self._system.rows)
        intervals = checked_intervals(self.name, interval_s, seen.shape[:-1], self.step_s)
        before = self._serving
        if seen.ndim == 3:
            for word, times in zip(seen, intervals, strict=True):
                self._go_on(self._followed(), word, times, info)
        else:
            stream = self._streams.get(info.stream)
            if stream is None or info.sample != stream.next:  # a tap may leave out frames
                stream = self._streams[info.stream] = self._followed(info.sample)
            stream.next += len(seen)
            self._go_on(stream, seen, intervals, info)
        return None if self._serving is before else self._serving.weights

    def _go_on(self, stream: Followed, seen: Array, intervals: Array, info: FrameInfo) -> None:
        """Follow a stream through all stretches that are complete."""
        held = [np.concatenate(pair) for pair in zip(stream.held, (seen, intervals), strict=True)]
        whole = len(held[0]) // self.stretch * self.stretch
        stream.held = held[0][whole:], held[1][whole:]
        for at in range(0, whole, self.stretch):
            count = self._counts["stretches"]
            self._counts["stretches"] += 1
            where = {"stream": info.stream, "seq": info.seq, "stretch": count}
            part = slice(at, at + self.stretch)
            with np.errstate(over="ignore", invalid="ignore"):  # seen in the losses
                self._follow(stream, held[0][part], held[1][part], where)

    def _follow(
        self, stream: Followed, seen: Array, intervals: Array, where: Mapping[str, Any]
    ) -> None:
        """Go on by one stretch."""
        own, begun = stream.run(self._serving.node, seen, intervals)
        if not np.isfinite(stream.tracks.mean).all():
            self._take_back(where, "its states are not finite")
            stream.begin_anew(self._serving.node)
            return
        variances = robust_variances(own)
        wild = own**2 > WILD**2 * variances
        cleaned, own = np.where(wild, np.nan, seen), np.where(wild, np.nan, own)
        less = grouped(own, variances)
        stretch = Stretch(cleaned, intervals, own, begun, *stream.believe(cleaned, intervals))
        before, stream.before = stream.before, (seen, intervals, begun)
        if before is not None and len(less) > 1:

            def losses_of(node: GainNode) -> Array:
                found = stream.alike(node, before, seen, intervals)
                found = np.where(np.isfinite(found), found, np.inf)
                return grouped(np.where(np.isnan(own), np.nan, found), variances)

            self._compare(losses_of, less, where)
            if stream.has_drifted(10.0 * float(np.log10(variances).mean())):
                stream.recent.clear()
                self._pending, self._refused_in_a_row, self._wait = None, 0, 0
                self._counts["drifts"] += 1
                self._note("drift", where, variances=variances.tolist())
            self._judge(losses_of, less, where)
            stream.recent.append(stretch)
            if self._wait:
                self._wait -= 1
            elif self._pending is None:
                lesson = Lesson(self._system, list(stream.recent), stream.noise())
                self._train(lesson, self.labels, where)
                self._trial = []
        elif before is not None:
            stream.recent.append(stretch)

    def _compare(
        self, losses_of: Callable[[GainNode], Array], less: Array, where: Mapping[str, Any]
    ) -> None:
        """Take back what serves where what served before predicts better."""
        reference, worse, why = self._watch.reference, -1, ""
        if reference is not None and reference is not self._serving:
            losses = losses_of(reference.node)
            worse = int(losses.mean() < less.mean())
            if less.mean() > LOST * losses.mean():
                why = "it has lost the track"
        self._watch.add(self._serving, -1, worse)
        self._take_back(where, why)

    def _judge(
        self, losses_of: Callable[[GainNode], Array], less: Array, where: Mapping[str, Any]
    ) -> None:
        """Publish or refuse what is pending, once it has proved itself or had its trials."""
        if self._pending is None:
            return
        losses = losses_of(self._pending.node)
        self._trial.append(np.stack([losses, less]))
        both = np.concatenate(self._trial, axis=1)
        if (
            len(self._trial) >= self.trials
            or not np.isfinite(losses).all()
            or excess(both[0], both[1]) <= self.tolerance
        ):
            candidate, self._pending = self._pending, None
            self._decide(candidate, both[0], both[1], where)

    def _fault(self, node: GainNode) -> tuple[str, str]:
        if not all(np.isfinite(array).all() for array in node.arrays.values()):
            return "not_finite", "its parameters are not finite"
        return "", ""

    def _followed(self, sample: int = 0) -> Followed:
        return Followed(
            self._system, self._serving.node, self.stride, self.window, self.drift_db, sample
        )

    def _rehearse(self, strategy: Strategy) -> None:
        stream = self._followed()
        seen = np.random.default_rng(0).standard_normal((self.stretch, self._system.rows))
        intervals = np.full(self.stretch, self.step_s)
        own, begun = stream.run(self._serving.node, seen, intervals)
        believed = stream.believe(seen, intervals)
        stream.recent.append(Stretch(seen, intervals, own, begun, *believed))
        lesson = Lesson(self._system, list(stream.recent), stream.noise())
        strategy.update(self._serving.node, lesson)


class _Streams:
    """The streams of a block as a part that has a state."""

    def __init__(self, block: TrackFeedback) -> None:
        self._block = block

    def state(self) -> Mapping[str, Any]:
        """What `restore` takes back: arrays and numbers by name."""
        block = self._block
        found: dict[str, Any] = {"names": json.dumps(list(block._streams))}
        for number, stream in enumerate(block._streams.values()):
            found |= {f"{number}.{name}": value for name, value in stream.state().items()}
        if block._trial:
            found["trial"] = np.concatenate(block._trial, axis=1)
            found["trials"] = np.array([pair.shape[1] for pair in block._trial])
        return found

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        block = self._block
        for number, name in enumerate(json.loads(state["names"])):
            prefix = f"{number}."
            stream = block._streams[name] = block._followed()
            stream.restore(
                {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
            )
        if "trial" in state:
            ends = np.cumsum(state["trials"])[:-1]
            block._trial = list(np.split(np.array(state["trial"]), ends, axis=1))
