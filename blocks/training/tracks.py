"""What trainers of trackers learn from: stretches of a track, as whoever tracks sees them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import extended_kalman, smoother
from blocks.kernels.kalman import Track
from blocks.kernels.kalmannet_filter import Tracks
from blocks.kernels.modulation import modulated
from blocks.kernels.state_space import StateSpace
from blocks.training.drift import PageHinkley
from blocks.training.noise import Noise, estimated, highest, louder
from blocks.training.strategy import Strategy

Array = np.ndarray[Any, Any]

GROUP = 10  # steps whose losses count as one: they are not independent
ROBUST = 0.4549  # median of the square of a standard normal number
STEP_DB = 3.0  # between levels of noise that a hypernetwork is told for a trial
MISFIT = 4.0  # of what smoothed states leave of the observations to their noise, at most


class Stretch(NamedTuple):
    """Consecutive observations of one track.

    observations  (time, n)  NaN where nothing came, or nothing that can be believed
    intervals     (time,)    [s]
    innovations   (time, n)  of the serving filter, NaN likewise
    tracks        where the serving filter stood at the start of each of its strides
    mean          (m,)       where an extended filter stood before the first
    covariance    (m, m)     likewise
    """

    observations: Array
    intervals: Array
    innovations: Array
    tracks: Tracks
    mean: Array
    covariance: Array


class Lesson(NamedTuple):
    """The last stretches of a track, one after the other; noise is None where it is not known."""

    model: StateSpace
    stretches: Sequence[Stretch]
    noise: Noise | None

    @property
    def start(self) -> Tracks:
        """Where the serving filter stood before the first observation."""
        return Tracks(*(array[:1] for array in self.stretches[0].tracks))


def robust_variances(innovations: Array) -> Array:
    """Variances (n,) of innovations (time, n), told by their medians; 1 for rows without any."""
    squares = np.where(np.isnan(innovations).all(0), ROBUST, innovations**2)
    return np.maximum(np.nanmedian(squares, axis=0) / ROBUST, 1e-300)


def joined(stretches: Iterable[Stretch]) -> tuple[Array, Array]:
    """Observations and intervals of all stretches."""
    return (
        np.concatenate([stretch.observations for stretch in stretches]),
        np.concatenate([stretch.intervals for stretch in stretches]),
    )


def smoothed(lesson: Lesson, lag: int) -> tuple[Array, Array]:
    """States (time, m) by the Rauch-Tung-Striebel smoother over a lesson, and which to believe.

    The noise is that of the lesson. Not to be believed are the last `lag` states, after which too
    few observations are known, as in a smoother with that lag.

    Raises ValueError where the smoother loses its track, or its states do not fit what was seen.
    """
    model, stretches, noise = lesson
    if noise is None:
        raise ValueError("the observations tell no noise")
    observations, intervals = joined(stretches)
    first = stretches[0]
    found = smoother.smooth(
        louder(model, noise.ratio), observations, intervals, first.mean, first.covariance
    )
    if isinstance(found, int):
        raise ValueError(f"the smoother lost its track at step {found} of {len(observations)}")
    states = found[0]
    if not np.isfinite(states).all():
        raise ValueError("the smoothed states are not finite")
    variances = noise.ratio * noise.level * model.R.diagonal()
    if not np.nanmean(model.residuals(observations, states) ** 2 / variances) <= MISFIT:
        raise ValueError("the smoothed states do not fit what was seen")
    believed = np.arange(len(states)) < len(states) - lag
    return states, believed


class Followed:
    """A track that is followed beside its tracker: where the serving filter stands, what it saw.

    node      what serves
    stride    steps between two copies of where it stands
    window    stretches that are remembered
    drift_db  change of the size of the innovations at which `has_drifted` says so
    sample    number of the first observation
    """

    def __init__(
        self, model: StateSpace, node: Any, stride: int, window: int, drift_db: float,
        sample: int = 0,
    ) -> None:  # fmt: skip
        self._model, self._stride = model, stride
        self.next = sample  # number of the observation that comes next
        #: observations and intervals of a stretch that is not complete
        self.held: tuple[Array, Array] = np.empty((0, model.rows)), np.empty(0)
        self.recent: deque[Stretch] = deque(maxlen=window)
        self._tests = [
            PageHinkley(allowance=0.25 * drift_db, threshold=drift_db) for _ in range(2)
        ]  # whether it becomes larger, and smaller
        self.begin_anew(node)

    def begin_anew(self, node: Any) -> None:
        """Go to the start of the model: the track is to be found again."""
        self.tracks = node.filters.start(1)
        self.before: tuple[Array, Array, Tracks] | None = None  # the last stretch, and its start
        self.ratio = 1.0  # of the noise, as estimated last
        self._begin_believing()
        self.recent.clear()

    def _begin_believing(self) -> None:
        model = self._model
        spread = model.initial_covariance.copy()
        if not spread.any():
            spread += model.matrices(np.array([model.step_s]))[1][0]
        self._mean, self._covariance = self.tracks.mean[0].copy(), spread

    def run(self, node: Any, seen: Array, intervals: Array) -> tuple[Array, Tracks]:
        """Let the serving filter go on; its innovations, and where it stood before each stride."""
        tracks, found, stood = node.taking_over(self.tracks), [], []
        for at in range(0, len(seen), self._stride):
            part = slice(at, at + self._stride)
            stood.append(Tracks(*(array.copy() for array in tracks)))
            found.append(_innovations(node, tracks, seen[part], intervals[part]))
        self.tracks = tracks
        starts = Tracks(*(np.concatenate(arrays) for arrays in zip(*stood, strict=True)))
        return np.concatenate(found), starts

    def alike(
        self, node: Any, before: tuple[Array, Array, Tracks], seen: Array, intervals: Array
    ) -> Array:
        """Innovations of another filter, which begins where the serving one was a stretch ago."""
        *stretch, begun = before
        tracks = node.taking_over(Tracks(*(array[:1] for array in begun)))
        _innovations(node, tracks, *stretch)
        return _innovations(node, tracks, seen, intervals)

    def believe(self, seen: Array, intervals: Array) -> tuple[Array, Array]:
        """Let an extended filter go on; mean and covariance that it began with."""
        out = Track.empty(seen.shape[:1], self._model.size, self._model.rows)
        if not np.isfinite(self._covariance).all():
            self._begin_believing()
        begun = self._mean.copy(), self._covariance.copy()
        model = louder(self._model, self.ratio)
        done = extended_kalman.extended(
            model, seen, intervals, self._mean, self._covariance, out
        )  # fmt: skip
        if done < len(seen) or not np.isfinite(self._mean).all():
            self._begin_believing()
        return begun

    def noise(self) -> Noise | None:
        """The noise of what is remembered, in the order in which it came."""
        first = self.recent[0]
        found = estimated(self._model, *joined(self.recent), first.mean, first.covariance)
        if found is not None:
            self.ratio = found.ratio
        return found

    def has_drifted(self, level_db: float) -> bool:
        """Whether the size of the innovations has changed, now that it is this in a stretch."""
        fired = [test.add(sign * level_db) for test, sign in zip(self._tests, (1, -1), strict=True)]
        if any(fired):
            for test, sign in zip(self._tests, (1, -1), strict=True):
                test.reset()
                test.add(sign * level_db)
        return any(fired)

    def state(self) -> Mapping[str, Any]:
        """What `restore` takes back: arrays and numbers by name."""
        found: dict[str, Any] = {"next": self.next, "ratio": self.ratio}
        arrays = {"held": self.held, "tracks": self.tracks}
        arrays |= {"believed": (self._mean, self._covariance)}
        if self.before is not None:
            arrays |= {"before": (*self.before[:2], *self.before[2])}
        for number, stretch in enumerate(self.recent):
            flat = (*stretch[:3], *stretch.tracks, stretch.mean, stretch.covariance)
            arrays |= {f"recent.{number}": flat}
        for name, parts in arrays.items():
            found |= {f"{name}.{place}": part.copy() for place, part in enumerate(parts)}
        for number, test in enumerate(self._tests):
            found |= {f"test.{number}.{name}": value for name, value in test.state().items()}
        return found

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""

        def arrays(name: str) -> list[Array]:
            found: list[Array] = []
            while (array := state.get(f"{name}.{len(found)}")) is not None:
                found.append(np.array(array))
            return found

        self.next, self.ratio = int(state["next"]), float(state["ratio"])
        seen, intervals = arrays("held")
        self.held, self.tracks = (seen, intervals), Tracks(*arrays("tracks"))
        self._mean, self._covariance = arrays("believed")
        if before := arrays("before"):
            self.before = before[0], before[1], Tracks(*before[2:])
        self.recent.clear()
        while flat := arrays(f"recent.{len(self.recent)}"):
            seen, intervals, innovations, *tracks, mean, covariance = flat
            self.recent.append(
                Stretch(seen, intervals, innovations, Tracks(*tracks), mean, covariance)
            )
        for number, test in enumerate(self._tests):
            prefix = f"test.{number}."
            test.restore(
                {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
            )


def _innovations(node: Any, tracks: Tracks, seen: Array, intervals: Array) -> Array:
    """Those of one track (time, n), which goes on."""
    found: Array = _ran(node, tracks, seen, intervals).innovations[0]
    return found


def _ran(node: Any, tracks: Tracks, seen: Array, intervals: Array) -> Track:
    """What a filter makes of one track, which goes on."""
    out = Track.empty((1, len(seen)), node.filters.model.size, seen.shape[1])
    node.filters.run(seen[None], intervals[None], tracks, out, together=False, spread=False)
    return out


def grouped(innovations: Array, variances: Array) -> Array:
    """Mean loss per number of each GROUP of steps of which something came.

    A loss is half the square of an innovation, in units of its variance.
    """
    losses = 0.5 * np.square(innovations) / variances
    losses = losses[: len(losses) // GROUP * GROUP].reshape(-1, GROUP * innovations.shape[1])
    came = ~np.isnan(losses)
    counts = came.sum(1)
    sums = np.where(came, losses, 0.0).sum(1)
    found: Array = sums[counts > 0] / counts[counts > 0]
    return found


class Contextual(Strategy):
    """The gain network that a hypernetwork tells for the noise that there seems to be.

    What serves at first counts as made for the noise that the model says; its calibration goes on,
    with the observation noise that there seems to be. What is told is the one number that is
    fitted, and is looked for every STEP_DB over the range of the hypernetwork.

    hyper, arrays  of blocks/kernels/modulation.py
    least_db       change of the noise at which it tells another
    by             likelihood: the noise of the lesson
                   prediction: with which the mean squared innovation is least, each number in units
                   of its variance (unsupervised, as Revach et al., EUSIPCO 2022)
                   smoother: with which estimates are nearest to what a smoother makes of the same
                   observations afterwards
    lag            observations that the smoother has to know after a state
    """

    def __init__(
        self, hyper: Mapping[str, Any], arrays: Mapping[str, Array], least_db: float,
        by: str = "likelihood", lag: int = 20,
    ) -> None:  # fmt: skip
        self._hyper, self._arrays, self._least = hyper, arrays, least_db
        self._by, self._lag = by, lag
        self._told_db = 0.0  # for which what serves was made
        self._nodes: dict[float, Any] = {}  # of the levels that are tried

    def update(self, serving: Any, lesson: Lesson) -> Any:
        noise_db = self._sought(serving, lesson)
        if noise_db is None or abs(noise_db - self._told_db) < self._least:
            return None
        self._told_db = noise_db
        louder = 10.0 ** (0.1 * noise_db)
        return serving.like(*self.told(noise_db), louder * serving.filters.model.R)

    def _sought(self, serving: Any, lesson: Lesson) -> float | None:
        """The noise to tell [dB], or None: the lesson says nothing."""
        if lesson.noise is None:
            return None
        if self._by == "likelihood":
            return lesson.noise.noise_db
        loss = self._loss(lesson)
        if not self._nodes:
            low, high = self._hyper["range_db"]
            levels = np.linspace(low, high, round((high - low) / STEP_DB) + 1)
            self._nodes = {float(db): serving.like(*self.told(db)) for db in levels}
        observations, intervals = joined(lesson.stretches)
        heights = np.array(
            [
                -loss(_ran(node, node.taking_over(lesson.start), observations, intervals))
                for node in self._nodes.values()
            ]
        )
        heights[~np.isfinite(heights)] = -np.inf
        return highest(list(self._nodes), heights) if np.isfinite(heights).any() else None

    def _loss(self, lesson: Lesson) -> Callable[[Track], float]:
        """How far what a filter made of a lesson is from what was seen, or from the smoother."""
        if self._by == "prediction":
            innovations = np.concatenate([stretch.innovations for stretch in lesson.stretches])
            variances = robust_variances(innovations)
            return lambda out: float(np.nanmean(np.square(out.innovations[0]) / variances))
        states, believed = smoothed(lesson, self._lag)
        if not believed.any():
            raise ValueError(f"a lesson is not longer than the lag of {self._lag} steps")
        return lambda out: float(np.square(out.estimates[0] - states)[believed].mean())

    def told(self, noise_db: float) -> tuple[Mapping[str, Any], Mapping[str, Array]]:
        """Hyperparameters and arrays for noise that is so much louder than the model says."""
        return modulated(self._hyper, self._arrays, noise_db)

    def state(self) -> Mapping[str, Any]:
        return {"told_db": float(self._told_db)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._told_db = float(state["told_db"])
