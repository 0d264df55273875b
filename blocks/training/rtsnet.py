"""Gradients of one pass of RTSNet through its whole recursion, for training/trajectories.py.

Ni, Revach, Shlezinger, "RTSNet: Learning to Smooth in Partially Known State-Space Models", IEEE
Trans. Signal Processing 2024: the error of the smoothed states teaches the networks of both ways
together; passes learn one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import from_numpy

from blocks.kernels import smoother
from blocks.kernels.rtsnet import Passes, joined, seeing_states
from blocks.kernels.smoother import Passed
from blocks.kernels.state_space import StateSpace
from blocks.training.kalmannet import Unrolled, predict
from blocks.training.layers import Layers2
from blocks.training.trajectories import (
    LOOK,
    Progress,
    Schedule,
    Squared,
    Trajectories,
    silent,
    train,
)

Array = np.ndarray[Any, Any]

LEAST = 1e-12  # length that a feature is divided by at least


class UnrolledPass(Squared):
    """Both ways of a pass with their gradients, on numpy arrays; estimates are smoothed states."""

    def __init__(self, network: Any, model: StateSpace) -> None:
        self.network = network
        self.there, self.back = Unrolled(network.there, model), UnrolledBack(network.back, model)

    def start(self, states: Array) -> tuple[Array, ...]:
        return self.there.start(states)

    def forward(
        self, track: tuple[Array, ...], observations: Array, intervals: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        updated, end = self.there.forward(track, observations, intervals)
        return self.back.forward(updated, intervals), end

    def backward(self, gradients: Array) -> None:
        self.there.backward(self.back.backward(gradients))


class UnrolledBack:
    """The way back of kernels/rtsnet.py, with its gradients.

    network   of architecture #2, whose parameters get the gradients
    """

    def __init__(self, network: Any, model: StateSpace) -> None:
        self.network, self.model, self.layers = network, model, Layers2(network)

    def forward(self, updated: Array, intervals: Array) -> Array:
        """Smoothed states (rows, time, m) of those that a filter updated."""
        (rows, steps, m), kind = updated.shape, updated.dtype
        self._predict(updated, intervals)
        self.layers.begin(steps - 1, rows)
        self._features = np.zeros((steps, rows, 4, m), kind)
        self._lengths = np.ones((steps, rows, 4), kind)
        self._gains = np.empty((steps, rows, m, m), kind)
        self._innovations = np.empty((steps, rows, m), kind)
        hidden = [state.numpy() for state in self.network.start(rows)]
        smoothed = updated.copy()
        evolution = np.zeros((rows, m), kind)
        for t in range(steps - 2, -1, -1):
            ahead, there, predicted = smoothed[:, t + 1], updated[:, t + 1], self._predicted[:, t]
            parts = np.stack((ahead - predicted, ahead - there, evolution, there - predicted), 1)
            lengths = np.maximum(np.sqrt(np.einsum("ijk,ijk->ij", parts, parts)), LEAST)
            self._lengths[t], self._features[t] = lengths, parts / lengths[:, :, None]
            gains, hidden = self.layers.forward(t, self._features[t].reshape(rows, -1), hidden)
            self._gains[t], self._innovations[t] = gains.reshape(rows, m, m), parts[:, 0]
            smoothed[:, t] += np.einsum("ijk,ik->ij", self._gains[t], parts[:, 0])
            evolution = ahead - smoothed[:, t]
        return smoothed

    def backward(self, gradients: Array) -> Array:
        """Add to the gradients of the parameters; returns those by the updated states."""
        rows, steps, m = gradients.shape
        by_smoothed, by_updated = gradients.copy(), np.zeros_like(gradients)
        by_hidden = [np.zeros((rows, size), gradients.dtype) for size in self.layers.sizes]
        for t in range(steps - 1):
            by = by_smoothed[:, t]
            by_updated[:, t] += by
            by_gain = by[:, :, None] * self._innovations[t][:, None]
            by_features, by_hidden = self.layers.backward(t, by_gain.reshape(rows, -1), by_hidden)
            unit = self._features[t]
            own = by_features.reshape(rows, 4, m)
            along = np.einsum("ijk,ijk->ij", unit, own)[:, :, None] * unit
            lengths = self._lengths[t][:, :, None]
            by_part = np.where(lengths > LEAST, (own - along) / lengths, 0.0)  # 0 stays 0
            innovation, update, evolution, learned = by_part.swapaxes(0, 1)
            innovation += np.einsum("ijk,ij->ik", self._gains[t], by)
            by_smoothed[:, t + 1] += innovation + update
            by_updated[:, t + 1] += learned - update
            if t + 2 < steps:
                by_smoothed[:, t + 1] -= evolution
                by_smoothed[:, t + 2] += evolution
            by_predicted = -innovation - learned
            by_updated[:, t] += np.einsum("ij,ijk->ik", by_predicted, self._moving[:, t])
        by_updated[:, -1] += by_smoothed[:, -1]
        if steps > 1:
            self.layers.finish()
        return by_updated

    def _predict(self, updated: Array, intervals: Array) -> None:
        """What the motion foretells of all steps but the first, and its Jacobians there."""
        rows, steps, m = updated.shape
        count, n = rows * (steps - 1), self.model.rows
        moving = np.empty((count, m, m))
        predicted, _ = predict(
            self.model, updated[:, :-1].reshape(-1, m), intervals[:, 1:].reshape(-1), moving,
            np.empty((count, n, m)),
        )  # fmt: skip
        self._predicted = predicted.reshape(rows, steps - 1, m).astype(updated.dtype)
        self._moving = moving.reshape(rows, steps - 1, m, m).astype(updated.dtype)


class Learned(NamedTuple):
    """Passes that have learned, the newest last.

    hyper, arrays   as kernels/rtsnet.py takes them
    steps, losses   of Adam that the newest took; mean squared error held out after each pass
    """

    hyper: dict[str, Any]
    arrays: dict[str, Array]
    steps: int
    losses: tuple[float, ...]


def train_passes(
    make: Callable[[int, int], Any], model: StateSpace, training: Trajectories,
    held_out: Trajectories, passes: int, schedule: Schedule, seed: int = 0, *,
    sees: str = "observations", first: Mapping[str, Array] | None = None,
    progress: Progress = silent,
) -> Iterator[Learned]:  # fmt: skip
    """Train passes one after the other, each on what those before make of the same trajectories.

    A pass over observations begins at the mean gains of the model's own extended RTS smoother, one
    over states at gains that leave them as they are.

    make     states, observations -> a fresh pass (blocks/models/rtsnet.py)
    sees     what the first of them sees, as kernels/rtsnet.py says
    first    arrays of a KalmanNet of architecture #2 for this model, from which the way there of
             the first pass starts; None: from random ones

    Raises ValueError where a smoother of the model breaks, and what `train` raises.
    """
    arrays: dict[str, Array] = {}
    losses: tuple[float, ...] = ()
    if sees == "smoothed":
        training, held_out = (
            part._replace(observations=_smoothed(model, part)) for part in (training, held_out)
        )
    for number in range(1, passes + 1):
        of_states = number > 1 or sees == "smoothed"
        seen = seeing_states(model) if of_states else model
        network = make(model.size, seen.rows)
        there, back = np.eye(model.size), np.zeros((model.size, model.size))
        if not of_states:
            there, back = mean_gains(model, held_out)
        if first and not of_states:
            network.there.load(dict(first))
            there = np.zeros_like(there)
        network.begin_at(from_numpy(there), from_numpy(back))
        found = train(
            UnrolledPass(network, seen), seen, training, held_out, schedule, seed, progress
        )
        for way, net in (("there", network.there), ("back", network.back)):
            sizes = net.m, net.n, net.in_mult, net.out_mult
            arrays[f"{number}.{way}"] = joined(net.arrays(), *sizes)
        hyper = {
            "passes": number, "sees": sees, "m": model.size, "n": model.rows,
            "in_mult": network.there.in_mult, "out_mult": network.there.out_mult,
        }  # fmt: skip
        losses = (*losses, found.loss)
        yield Learned(dict(hyper), dict(arrays), found.steps, losses)
        one = Passes.of(hyper, arrays, model).passes[-1]
        training, held_out = (
            part._replace(observations=one.smooth(part.observations, part.intervals))
            for part in (training, held_out)
        )


def mean_gains(model: StateSpace, part: Trajectories) -> tuple[Array, Array]:
    """Mean gains there (m, n) and back (m, m) of the extended RTS smoother.

    That there is 0 where what is seen is not linear in the state.
    """
    m, n = model.size, model.rows
    there, back = np.zeros((m, n)), np.zeros((m, m))
    few = part.part(slice(8), slice(LOOK))
    share = 1.0 / len(few.states)
    for seen, intervals in zip(few.observations, few.intervals, strict=True):
        passed = Passed.empty(len(seen), m)
        start = model.initial.copy(), model.initial_covariance.copy()
        done = smoother.forward(model, seen.copy(), intervals.copy(), *start, passed)
        now, moving = passed.covariances[:done], passed.F[1:done]
        if model.linear_seen:
            there += share * (now @ model.seen_matrix().T @ np.linalg.inv(model.R)).mean(0)
        moved = now[:-1] @ moving.swapaxes(1, 2)
        ahead = np.linalg.pinv(moving @ moved + passed.Q[1:done], hermitian=True)
        back += share * (moved @ ahead).mean(0)
    return there, back


def _smoothed(model: StateSpace, part: Trajectories) -> Array:
    """What the extended RTS smoother finds."""
    found = np.empty_like(part.states)
    start = model.initial, model.initial_covariance
    for track, (seen, intervals) in enumerate(zip(part.observations, part.intervals, strict=True)):
        told = smoother.smooth(model, seen, intervals, *start)
        if isinstance(told, int):
            raise ValueError(
                f"the smoother of the model is lost at step {told} of trajectory {track}; raise "
                "process_noise or observation_noise"
            )
        found[track] = told[0]
    return found
