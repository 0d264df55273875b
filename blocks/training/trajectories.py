"""Trains a tracker that learns, on trajectories whose states are known.

Revach et al., "KalmanNet", IEEE Trans. Signal Processing 2022, III-D: first on short pieces that
begin anywhere in a trajectory, at the true state (V2 of the paper: a warm-up, from which a network
learns to track at all), then on whole trajectories from their own start, with gradients cut every
so many steps (truncated) or not at all (V1). What is best on held-out trajectories is kept.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from blocks.kernels.state_space import StateSpace

Array = np.ndarray[Any, Any]
Progress = Callable[[int, int, str], None]

LOOK = 100  # steps of held-out trajectories whose activations are there at once


def silent(done: int, most: int, text: str) -> None:
    """Say nothing."""


class Trajectories(NamedTuple):
    """What there is to learn from.

    states        (trajectory, time, m)
    observations  (trajectory, time, n)  NaN where nothing came
    intervals     (trajectory, time)     time before each observation [s]
    """

    states: Array
    observations: Array
    intervals: Array

    def part(self, rows: Any, steps: Any) -> Trajectories:
        """Some trajectories, some steps; of two index arrays, what they select together."""
        return Trajectories(*(array[rows, steps] for array in self))


class Schedule(NamedTuple):
    """How to train.

    steps       of Adam on short pieces, the warm-up
    piece       steps of a piece
    batch       pieces, or trajectories, at once
    long_steps  of Adam on trajectories from their start, after those
    truncate    steps through which gradients pass there; 0: all of a trajectory
    rate        learning rate of the warm-up, half of it afterwards; falls to a tenth in each
    decay       L2 norm of the weights in the loss
    clip        longest gradient
    every       steps between looks at the held-out trajectories
    patience    looks without a better one after which either of the two ends
    """

    steps: int = 2500
    piece: int = 60
    batch: int = 32
    long_steps: int = 1000
    truncate: int = 60
    rate: float = 1e-3
    decay: float = 1e-4
    clip: float = 1.0
    every: int = 100
    patience: int = 20


DEFAULT = Schedule()
#: The whole numbers among them, and the least that each may be.
_LEAST = {
    "steps": 0, "piece": 1, "batch": 1, "long_steps": 0, "truncate": 0, "every": 1, "patience": 1,
}  # fmt: skip
_MAY_BE_0 = "decay"  # of the others


def checked(schedule: Schedule) -> Schedule:
    """The same; ValueError where a number is of the wrong kind or too small."""
    for name, value in schedule._asdict().items():
        if name in _LEAST:
            fits = type(value) is int and value >= _LEAST[name]
            expected = f"a whole number of at least {_LEAST[name]}"
        else:
            fits = type(value) in (int, float) and 0.0 <= value < math.inf
            fits = fits and (value > 0.0 or name == _MAY_BE_0)
            expected = f"a number {'of at least' if name == _MAY_BE_0 else 'above'} 0"
        if not fits:
            raise ValueError(f"{name} = {value!r}, but must be {expected}")
    return schedule


class Found(NamedTuple):
    """What became of a training: the network holds the best weights.

    steps    of Adam that were taken
    loss     on the held-out trajectories
    """

    steps: int
    loss: float


class Learner(ABC):
    """Trackers side by side, a row each, with the gradients of what they learn.

    network   the module whose parameters are learned
    """

    network: Any

    @abstractmethod
    def start(self, states: Array) -> Any:
        """Tracks that believe in these states (rows, m), one interval before they observe."""

    @abstractmethod
    def teach(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        """Mean loss over a stretch, and the end, through which no gradient passes.

        The gradients of that loss are added to those of the parameters, unless it is not finite.
        """

    @abstractmethod
    def judge(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        """The mean loss that counts for which weights are best, and the end."""

    def judged(self, trajectories: Trajectories, starts: Array) -> float:
        """That loss over trajectories from where they are believed to start."""
        return judged(self, trajectories, starts)


class Squared(Learner):
    """Trackers whose loss is the mean squared error per number of a state.

    A subclass gives `network`, `start`, and its recursion there and back.
    """

    @abstractmethod
    def forward(self, track: Any, observations: Array, intervals: Array) -> tuple[Array, Any]:
        """Estimates (rows, time, m) of observations (rows, time, n), and the end."""

    @abstractmethod
    def backward(self, gradients: Array) -> Any:
        """Add to the gradients of the parameters, given those by the estimates."""

    def teach(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        means, end = self.forward(track, part.observations, part.intervals)
        off = means - part.states
        error = float(np.square(off).mean())
        if math.isfinite(error):
            self.backward((2.0 / off.size * off).astype(means.dtype))
        return error, end

    def judge(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        means, end = self.forward(track, part.observations, part.intervals)
        return float(np.square(means - part.states, dtype=np.float64).mean()), end


class Autograd(Learner):
    """A recursion on tensors that torch differentiates.

    A subclass gives `network`, `start` and `loss`; its tracks are nested tuples of tensors.
    """

    @abstractmethod
    def loss(
        self, track: Any, observations: Tensor, intervals: Array, states: Tensor
    ) -> tuple[Tensor, Any]:
        """Mean loss over observations (rows, time, n), and the end."""

    def teach(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        loss, end = self._loss(track, part)
        if bool(loss.isfinite()):
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.item(), detached(end)

    def judge(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        with torch.no_grad():
            loss, end = self._loss(track, part)
        return loss.item(), end

    def _loss(self, track: Any, part: Trajectories) -> tuple[Tensor, Any]:
        like = next(self.network.parameters())
        seen, states = (torch.from_numpy(a).to(like) for a in (part.observations, part.states))
        return self.loss(track, seen, part.intervals, states)


def detached(track: Any) -> Any:
    """The same tensors, nested in tuples alike, through which no gradient passes."""
    if isinstance(track, Tensor):
        return track.detach()
    parts = [detached(part) for part in track]
    return type(track)(*parts) if hasattr(track, "_fields") else tuple(parts)


def train(
    learner: Learner, model: StateSpace, training: Trajectories, held_out: Trajectories,
    schedule: Schedule = DEFAULT, seed: int = 0, progress: Progress = silent,
) -> Found:  # fmt: skip
    """Fit what a tracker learns to trajectories; it ends with its best weights on those held out.

    A track starts at a draw around the true state of as much variance as the model's start has.

    Raises ValueError for trajectories that are too short, or where nothing finite was found.
    """
    return _Training(learner, model, training, held_out, schedule, seed, progress).run()


class _Training:
    """One training under way."""

    def __init__(
        self, learner: Learner, model: StateSpace, training: Trajectories, held_out: Trajectories,
        schedule: Schedule, seed: int, progress: Progress,
    ) -> None:  # fmt: skip
        if training.states.shape[1] <= schedule.piece:
            raise ValueError(
                f"trajectories of {training.states.shape[1]} steps are too short for pieces of "
                f"{schedule.piece} with the state before them"
            )
        self.learner, self.network, self.model = learner, learner.network, model
        self.data, self.held_out, self.schedule = training, held_out, schedule
        self.rng, self.progress = np.random.default_rng(seed), progress
        self.spread = np.sqrt(model.initial_covariance.diagonal())
        self.best, self.kept = math.inf, copy.deepcopy(self.network.state_dict())
        self.taken = 0

    def run(self) -> Found:
        s = self.schedule
        self._look()
        self._phase(s.steps, s.rate, self._pieces())
        self._phase(s.long_steps, 0.5 * s.rate, self._trajectories())
        self.network.load_state_dict(self.kept)
        if not self.best < math.inf:
            raise ValueError("no weights were found with which all held-out trajectories are kept")
        return Found(self.taken, self.best)

    def _phase(self, steps: int, rate: float, passes: Iterator[float]) -> None:
        """Take so many steps, or fewer where they lead nowhere, from the best weights so far."""
        s = self.schedule
        self.network.load_state_dict(self.kept)
        adam = torch.optim.Adam(self.network.parameters(), lr=rate, weight_decay=s.decay)
        looks = 0
        for step in range(steps):
            for group in adam.param_groups:
                group["lr"] = rate * 0.1 ** (step / steps)
            adam.zero_grad(set_to_none=True)
            error = next(passes)
            if math.isfinite(error):
                adam.step()
                self.taken += 1
            if (step + 1) % s.every == 0 or step + 1 == steps:
                looks = 0 if self._look() else looks + 1
                self.progress(
                    self.taken, s.steps + s.long_steps,
                    f"loss held out {self.best:.4g}, fitted {error:.4g}",
                )  # fmt: skip
                if looks >= s.patience:
                    return

    def _pieces(self) -> Iterator[float]:
        """Losses of passes over short pieces, whose gradients are then there.

        Tracks that are lost before the end of a piece teach nothing: then pieces are shorter for a
        while.
        """
        s = self.schedule
        states = self.data.states
        count, length, m = states.shape
        piece = s.piece
        while True:
            which = self.rng.integers(0, count, s.batch)
            first = self.rng.integers(0, length - s.piece, s.batch)
            steps = first[:, None] + 1 + np.arange(piece)
            starts = states[which, first] + self.spread * self.rng.standard_normal((s.batch, m))
            loss, _ = self._pass(self.learner.start(starts), self.data.part(which[:, None], steps))
            piece = min(piece + 1, s.piece) if math.isfinite(loss) else max(piece // 2, 1)
            yield loss

    def _trajectories(self) -> Iterator[float]:
        """The same over trajectories from their start, one stretch after the other."""
        s = self.schedule
        count, length, m = self.data.states.shape
        stretch = s.truncate or length
        while True:
            which = self.rng.permutation(count)[: s.batch]
            track = self.learner.start(self.model.initial + np.zeros((len(which), m)))
            for at in range(0, length, stretch):
                loss, track = self._pass(track, self.data.part(which, slice(at, at + stretch)))
                yield loss
                if not math.isfinite(loss):
                    break  # tracks that are lost teach nothing

    def _pass(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        """Loss and end of tracks; not finite where gradients are not, which are clipped else."""
        with np.errstate(over="ignore", invalid="ignore"):
            loss, end = self.learner.teach(track, part)
            if math.isfinite(loss):
                longest = self.schedule.clip
                length = nn.utils.clip_grad_norm_(self.network.parameters(), longest)
                loss = loss if bool(length.isfinite()) else math.nan
        return loss, end

    def _look(self) -> bool:
        """Whether the weights are the best so far on the held-out trajectories; then keep them."""
        with np.errstate(over="ignore", invalid="ignore"):
            starts = np.tile(self.model.initial, (len(self.held_out.states), 1))
            loss = self.learner.judged(self.held_out, starts)
        if not loss < self.best:
            return False
        self.best, self.kept = loss, copy.deepcopy(self.network.state_dict())
        return True


def judged(learner: Learner, trajectories: Trajectories, starts: Array) -> float:
    """Mean loss of tracks that believe they start there."""
    track, total = learner.start(starts), 0.0
    length: int = trajectories.states.shape[1]
    for at in range(0, length, LOOK):
        part = trajectories.part(slice(None), slice(at, at + LOOK))
        loss, track = learner.judge(track, part)
        total += loss * part.states.shape[1]
    return total / length
