"""Trains a KalmanNet on, on stretches of a track whose states nobody knows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from blocks.kernels.state_space import StateSpace
from blocks.training.kalmannet import Predicting, Unrolled
from blocks.training.strategy import Strategy
from blocks.training.tracks import Lesson, joined, robust_variances, smoothed
from blocks.training.trajectories import Learner, Trajectories

Array = np.ndarray[Any, Any]

CLIP = 1.0  # longest gradient


class Descent(Strategy):
    """Steps of Adam from the serving node, on strides of the lesson.

    Each stride begins where the serving filter stood, through which no gradient passes.

    make    of the hyperparameters of a node its module (blocks/models/kalmannet.py)
    steps   of Adam per lesson, from moments of zero
    rate    of Adam
    reset   whether the hidden states of the network begin each stride as before the first step
            (Revach et al., EUSIPCO 2022), or as the serving filter had them
    decay   L2 norm of the weights in the loss
    """

    def __init__(
        self, make: Callable[..., Any], *, steps: int, rate: float, reset: bool,
        decay: float = 1e-6,
    ) -> None:  # fmt: skip
        self.make = make
        self.steps, self.rate, self.reset, self.decay = steps, rate, reset, decay

    def update(self, serving: Any, lesson: Lesson) -> Any:
        network = self.make(**serving.hyper)
        network.load(serving.arrays)
        learner, part, track = self._taught(serving, network, lesson)
        if not len(part.observations):
            return None
        adam = torch.optim.Adam(
            network.parameters(), lr=self.rate, weight_decay=self.decay, foreach=False
        )
        for _ in range(self.steps):
            adam.zero_grad(set_to_none=True)
            learner.teach(track, part)
            torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP, foreach=False)
            adam.step()
        return serving.like(network.hyper, network.arrays())

    def _strides(
        self, serving: Any, network: Any, lesson: Lesson, states: Array
    ) -> tuple[Trajectories, list[Array]]:
        """A lesson cut into strides, a row each, with the filters that begin them."""
        observations, intervals = joined(lesson.stretches)
        count = sum(len(stretch.tracks.mean) for stretch in lesson.stretches)
        starts = [
            np.concatenate([stretch.tracks[k] for stretch in lesson.stretches]).astype(np.float32)
            for k in range(4)
        ]
        if self.reset:
            begun = [part.detach().numpy() for part in network.start(count)]
        else:
            hidden = np.concatenate([stretch.tracks.hidden for stretch in lesson.stretches])
            begun = serving.unpacked(hidden)
        part = Trajectories(
            states.reshape(count, -1, states.shape[1]),
            observations.reshape(count, -1, observations.shape[1]), intervals.reshape(count, -1),
        )  # fmt: skip
        return part, [*starts, *begun]

    @abstractmethod
    def _taught(
        self, serving: Any, network: Any, lesson: Lesson
    ) -> tuple[Learner, Trajectories, Any]:
        """Who learns, from which strides, beginning where."""


class Prediction(Descent):
    """Learns to predict the next observation: nothing else needs to be known."""

    def _taught(
        self, serving: Any, network: Any, lesson: Lesson
    ) -> tuple[Learner, Trajectories, Any]:
        innovations = np.concatenate([stretch.innovations for stretch in lesson.stretches])
        none = np.zeros((len(innovations), lesson.model.size))  # no state is known
        part, track = self._strides(serving, network, lesson, none)
        return Predicting(network, lesson.model, robust_variances(innovations)), part, track


class Redrawn(Unrolled):
    """The same, with noise that is drawn anew for each pass.

    What is given as observations is what would be seen without noise.

    noise   (n, n)  its covariance
    """

    def __init__(self, network: Any, model: StateSpace, noise: Array) -> None:
        super().__init__(network, model)
        self._root, self._rng = np.linalg.cholesky(noise), np.random.default_rng(0)

    def teach(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        noise = self._rng.standard_normal(part.observations.shape) @ self._root.T
        return super().teach(track, part._replace(observations=part.observations + noise))


class Smoothing(Descent):
    """Learns to estimate the states that a smoother found, in noise like that of the lesson.

    A lesson would teach what is only in its own noise: even with true states for labels, 1000 steps
    of them made a network worse in other noise (bench/ONLINE_TRACKING.md). So for each step of Adam
    the states are seen anew, in noise as loud as that of the lesson.

    lag   observations that the smoother has to know after a state
    """

    def __init__(self, make: Callable[..., Any], *, lag: int, **values: Any) -> None:
        super().__init__(make, **values)
        self.lag = lag

    def _taught(
        self, serving: Any, network: Any, lesson: Lesson
    ) -> tuple[Learner, Trajectories, Any]:
        model, (states, believed) = lesson.model, smoothed(lesson, self.lag)
        assert lesson.noise is not None  # noqa: S101 (smoothed has seen to it)
        noise = lesson.noise.ratio * lesson.noise.level * model.R
        part, track = self._strides(serving, network, lesson, states)
        observations, _ = joined(lesson.stretches)
        seen = observations - model.residuals(observations, states)  # NaN where nothing came
        whole = believed.reshape(part.intervals.shape).all(1)
        part = part._replace(observations=seen.reshape(part.observations.shape))
        return (
            Redrawn(network, model, noise), part.part(whole, slice(None)),
            [array[whole] for array in track],
        )  # fmt: skip
