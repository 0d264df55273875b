"""Simulated trajectories and what is seen of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from blocks import fields
from blocks.kernels.state_space import StateSpace as Model
from blocks.state_space import Modelled
from pipeline.block import FieldType, Source, param
from pipeline.errors import ParameterError
from pipeline.frame import Array, Scalar, StreamInfo

NOISES = ("process_noise", "observation_noise")  # that a change may name


class Moved(NamedTuple):
    """What a frame starts with."""

    states: Annotated[Float64[Array, "*word time state"], fields.STATES]
    observations: Annotated[Float64[Array, "*word time observation"], fields.OBSERVATIONS]
    interval_s: Annotated[Float64[Array, "*word time"], fields.INTERVAL]


class StateSpace(Modelled, Source, name="source.state_space"):
    """Trajectories of a state-space model, and observations of them.

    A stream is one trajectory that goes on from frame to frame; with `words` each frame holds so
    many trajectories of `length` steps, each from the start. A trajectory starts one step before
    its first observation, at a normal draw from initial_state and initial_variance.

    With `substeps` the motion takes that many steps within each interval: the decimated Lorenz
    attractor of Revach et al., "KalmanNet", IEEE TSP 2022, IV-D, is motion = "lorenz_taylor",
    step_s = 0.02, substeps = 2000, process_noise = 0.

    With `changes` the system is another from some step of the stream, or of each trajectory, on:
    [{ at = 5000, observation_noise = 10.0 }, { at = 9000, rho = 30.0 }]. What a change does not
    name stays as it was. A number with another name than the two kinds of noise is one of
    motion_parameters.

    Everything depends on the seed, the name of the block, the stream and the place in it alone,
    not on how it is cut.

    states        (length, n) float64, or (words, length, n)
    observations  (length, m) float64, angles in -pi ... pi; NaN where `missing` struck
    interval_s    (length,) float64 [s]
    """

    rate: float = param(
        default=0.0, at_least=0.0, unit="frames/s", doc="pace; 0: as fast as possible"
    )
    frames: int = param(
        default=100, at_least=0, unit="frames", doc="frames of each stream; 0: endless"
    )
    length: int = param(default=100, at_least=1, unit="steps", doc="steps per frame or trajectory")
    words: int = param(
        default=0, at_least=0, unit="words", doc="trajectories per frame; 0: one that goes on"
    )
    count: int = param(
        default=1, at_least=1, unit="streams", doc="streams; more than one are named 0, 1, 2 ..."
    )
    substeps: int = param(
        default=1, at_least=1, at_most=1_000_000, unit="steps",
        doc="steps of the motion within an interval; process noise comes after the last",
    )  # fmt: skip
    jitter: float = param(
        default=0.0, at_least=0.0, below=1.0, unit="step_s",
        doc="width of the uniform spread of the times of observation",
    )  # fmt: skip
    missing: float = param(
        default=0.0, at_least=0.0, at_most=1.0, doc="probability that an observation does not come"
    )
    changes: tuple[dict[str, float], ...] = param(
        default=(),
        doc="what is otherwise from a step on: tables of at, and process_noise, observation_noise "
        "or parameters of the motion",
    )

    def check(self) -> None:
        super().check()
        self._systems()

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        word = "word " if self.words else ""
        return {
            "states": FieldType.of("float64", f"{word}time state"),
            "observations": FieldType.of("float64", f"{word}time observation"),
            "interval_s": FieldType.of("float64", f"{word}time"),
        }

    def streams(self) -> tuple[str, ...]:
        return tuple(str(n) for n in range(self.count)) if self.count > 1 else ("main",)

    def describe(self) -> StreamInfo:
        return StreamInfo(
            rate_hz=1.0 / self.step_s,
            format=self.motion,
            continuous=self.words == 0,
            replayable=True,
        )

    def start(self) -> None:
        self._model = model = self._build()
        self._follows = self._systems()
        n, m = model.size, model.rows
        self._moves = self.draws("process", lambda rng, size: rng.standard_normal((size, n)))
        self._sights = self.draws("observation", lambda rng, size: rng.standard_normal((size, m)))
        self._starts = self.draws("initial", lambda rng, size: rng.standard_normal((size, n)))
        self._times = self.draws("times", lambda rng, size: rng.random(size))
        self._losses = self.draws("missing", lambda rng, size: rng.random(size))
        self._position = 0  # observations made
        self._state = self._starts_of(0, 1)
        nothing = np.empty((0, n)), np.empty((0, m)), np.empty(0)
        model.simulate(*nothing, self._state.copy())  # compiled before the first frame

    def process(self) -> Moved | None:
        if self.frames_left() == 0:
            return None
        first, count = self._position, self._per_frame
        states, observations = self._moves.take(first, count), self._sights.take(first, count)
        intervals = self._intervals(first, count)
        starts = self._starts_of(first // self.length, self.words) if self.words else self._state
        self._simulate(states, observations, intervals, starts, 0 if self.words else first)
        if self.missing:
            observations[self._losses.take(first, count) < self.missing] = np.nan
        self._position += count
        shape = (self.words, self.length) if self.words else (self.length,)
        return Moved(
            states=states.reshape(*shape, -1),
            observations=observations.reshape(*shape, -1),
            interval_s=intervals.reshape(shape),
        )

    def frames_left(self) -> int | None:
        if self.frames == 0:
            return None
        return max(0, self.frames - self._position // self._per_frame)

    def state(self) -> Mapping[str, Array | Scalar]:
        return {"position": self._position, "state": self._state.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._position = int(state["position"])
        self._state = np.array(state["state"])

    @property
    def _per_frame(self) -> int:
        return self.length * max(self.words, 1)

    def _systems(self) -> list[tuple[int, Model]]:
        """The step from which on each system holds, in order; ParameterError for wrong changes."""
        found = [(0, self._build())]
        values = {**self.values(), "changes": ()}
        for number, change in enumerate(self.changes):
            where = f"changes[{number}]"
            at = change.get("at", 0.0)
            if at != int(at) or at <= found[-1][0]:
                raise ParameterError(
                    f"{where} has at = {at:g}, but it must be a whole number of steps above "
                    f"{found[-1][0]}; changes are given in their order"
                )
            noises = {key: change[key] for key in NOISES if key in change}
            own = {key: value for key, value in change.items() if key not in (*NOISES, "at")}
            values = {**values, **noises}
            values["motion_parameters"] = {**values["motion_parameters"], **own}
            try:
                found.append((int(at), type(self)(**values)._build()))
            except ParameterError as error:
                raise ParameterError(f"{where}: {error}") from None
        return found

    def _simulate(
        self, states: Array, observations: Array, intervals: Array, starts: Array, first: int
    ) -> None:
        """Run all trajectories, from this step on, through the systems that follow each other."""
        shape = (len(starts), -1)
        moved, seen = (array.reshape(*shape, array.shape[1]) for array in (states, observations))
        times = intervals.reshape(shape)
        ends = [at - first for at, _ in self._follows[1:]] + [times.shape[1]]
        begin = 0
        for end, (_, model) in zip(ends, self._follows, strict=True):
            part = slice(begin, max(begin, min(end, times.shape[1])))
            begin = part.stop
            one, two = (array[:, part].reshape(-1, array.shape[2]) for array in (moved, seen))
            model.simulate(one, two, times[:, part].ravel(), starts, self.substeps)
            for whole, own in ((moved, one), (seen, two)):
                whole[:, part] = own.reshape(len(starts), -1, whole.shape[2])

    def _starts_of(self, first: int, count: int) -> Array:
        """Where trajectories start, (count, n)."""
        deviation = np.sqrt(self._model.initial_covariance.diagonal())
        starts: Array = self._model.initial + deviation * self._starts.take(first, count)
        return starts

    def _intervals(self, first: int, count: int) -> Array:
        if not self.jitter:
            return np.full(count, self.step_s)
        late = self._times.take(first, count) - 0.5
        before = np.concatenate([self._times.take(first - 1, 1) - 0.5 if first else [0.0], late])
        before = before[:-1]
        if self.words:
            before[:: self.length] = 0.0  # the start of a trajectory is on time
        intervals: Array = self.step_s * (1.0 + self.jitter * (late - before))
        return intervals
