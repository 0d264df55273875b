"""Gradients of a KalmanNet through its whole recursion, for blocks/training/trajectories.py.

Revach et al., "KalmanNet", IEEE Trans. Signal Processing 2022, III-D: features and motion included.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from blocks.kernels.caching import njit
from blocks.kernels.indirect import call_linearise, call_observe_linearised
from blocks.kernels.kalmannet_filter import LEAST, UNIT
from blocks.kernels.state_space import StateSpace
from blocks.training.backward import Dense, Gru
from blocks.training.trajectories import Learner, Trajectories

Array = np.ndarray[Any, Any]


@njit(cache=True, nogil=True)
def predict(
    linearise: Any, parameters: Array, observe: Any, observe_parameters: Array, states: Array,
    intervals: Array, predicted: Array, seen: Array, moving: Array, seeing: Array,
) -> None:  # fmt: skip
    """Write what a model foretells of states, a row each, what is seen there, and Jacobians."""
    for row in range(states.shape[0]):
        call_linearise(
            linearise, states[row], intervals[row], parameters, predicted[row], moving[row]
        )
        call_observe_linearised(observe, predicted[row], observe_parameters, seen[row], seeing[row])


class _Predict(torch.autograd.Function):
    """Predicted states and observations, by the kernels' functions and their Jacobians."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, intervals: Array, model: StateSpace
    ) -> tuple[Tensor, Tensor]:
        rows, m, n = len(states), model.size, model.rows
        predicted, seen = np.empty((rows, m)), np.empty((rows, n))
        moving, seeing = np.empty((rows, m, m)), np.empty((rows, n, m))
        predict(
            model.linearise, model.parameters, model.observe_linearised, model.observe_parameters,
            states.double().numpy(), intervals, predicted, seen, moving, seeing,
        )  # fmt: skip
        ctx.jacobians = [torch.from_numpy(J).to(states) for J in (moving, seeing)]
        return torch.from_numpy(predicted).to(states), torch.from_numpy(seen).to(states)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        moving, seeing = ctx.jacobians
        by_predicted, by_seen = gradients
        total = by_predicted + (by_seen[:, None] @ seeing)[:, 0]
        return (total[:, None] @ moving)[:, 0], None, None


predicted_of: Callable[..., tuple[Tensor, Tensor]] = _Predict.apply


@njit(cache=True, nogil=True)
def _observe(observe: Any, parameters: Array, states: Array, seen: Array, seeing: Array) -> None:
    for row in range(states.shape[0]):
        call_observe_linearised(observe, states[row], parameters, seen[row], seeing)


def divided(part: Tensor, scale: float) -> Tensor:
    """Rows, divided by their lengths and a scale as in kernels/kalmannet_filter.py."""
    beside = nn.functional.pad(part, (0, 1), value=scale)
    length: Tensor = torch.linalg.vector_norm(beside, dim=1, keepdim=True)
    return part / length.clamp_min(LEAST)


class Track(NamedTuple):
    """Where filters stand between two steps, a row each.

    mean       (rows, m)  last updated states
    evolution  (rows, m)  what they are more than those before them: F3 of the next step
    update     (rows, m)  what they are more than was predicted: F4 of the next step
    seen       (rows, n)  last observations, as predicted where none came
    hidden                of the network
    """

    mean: Tensor
    evolution: Tensor
    update: Tensor
    seen: Tensor
    hidden: tuple[Tensor, ...]


class Recursion:
    """KalmanNet on tensors: rows of filters side by side, step by step.

    network   features (rows, 2 (n + m)) and hidden states to gains (rows, m, n) and hidden states
    """

    def __init__(self, network: Any, model: StateSpace, scales: Array = UNIT) -> None:
        self.network, self.model, self._scales = network, model, scales
        self._angles = torch.from_numpy(model.angles) if model.angles.any() else None

    def start(self, states: Tensor) -> Track:
        """Filters that believe in these states (rows, m), one interval before they observe."""
        model, rows = self.model, len(states)
        seen, seeing = np.empty((rows, model.rows)), np.empty((model.rows, model.size))
        _observe(
            model.observe_linearised, model.observe_parameters, states.double().numpy(), seen,
            seeing,
        )  # fmt: skip
        zeros = torch.zeros_like(states)
        first = torch.from_numpy(seen).to(states)
        return Track(states, zeros, zeros, first, self.network.start(rows))

    def step(self, track: Track, observations: Tensor, intervals: Array) -> Track:
        """The next step, of observations (rows, n), NaN where nothing came.

        A row that is missing counts as seen where it was predicted; no gradients pass there.
        """
        predicted, foretold = predicted_of(track.mean, intervals, self.model)
        came = ~observations.isnan()
        observations = torch.where(came, observations, foretold.detach())
        innovation = torch.where(came, self._wrapped(observations - foretold), 0.0)
        change = self._wrapped(observations - track.seen)
        parts = (change, innovation, track.evolution, track.update)
        features = torch.cat([divided(*pair) for pair in zip(parts, self._scales, strict=True)], 1)
        gains, hidden = self.network(features, track.hidden)
        update = (gains @ innovation[:, :, None])[:, :, 0]
        mean = predicted + update
        return Track(mean, mean - track.mean, update, observations, hidden)

    def run(self, track: Track, observations: Tensor, intervals: Array) -> tuple[Tensor, Track]:
        """Updated states (rows, time, m) of observations (rows, time, n), and the end."""
        means = []
        for t in range(observations.shape[1]):
            track = self.step(track, observations[:, t], intervals[:, t])
            means.append(track.mean)
        return torch.stack(means, 1), track

    def _wrapped(self, difference: Tensor) -> Tensor:
        if self._angles is None:
            return difference
        turns = (difference.detach() / math.tau).round()
        return torch.where(self._angles, difference - math.tau * turns, difference)


class Unrolled(Learner):
    """`Recursion.run` with its gradients, on numpy arrays: some 20 times as fast as autograd.

    The loss is the mean squared error per number of a state.

    network   a GainNetwork, whose parameters get the gradients
    """

    def __init__(self, network: Any, model: StateSpace, scales: Array = UNIT) -> None:
        self.network, self.model = network, model
        self._squares = [float(scale) ** 2 for scale in scales]
        self.layers = (Layers2 if hasattr(network, "GRU_Q") else _Layers1)(network)
        self._used = network.used.numpy()
        self._dtype = next(network.parameters()).detach().numpy().dtype

    def start(self, states: Array) -> tuple[Array, ...]:
        """As that of Recursion; the parts of a Track, those of `hidden` at its end."""
        track = Recursion(self.network, self.model).start(
            torch.from_numpy(np.array(states, self._dtype, order="C"))
        )
        return (*(t.numpy() for t in track[:4]), *(h.detach().numpy() for h in track.hidden))

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

    def forward(
        self, track: tuple[Array, ...], observations: Array, intervals: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        """Updated states (rows, time, m) of observations (rows, time, n), and the end."""
        (rows, steps, n), m, kind = observations.shape, self.model.size, self._dtype
        model = self.model
        self.layers.begin(steps, rows)
        self._moving, self._seeing = np.empty((steps, rows, m, m)), np.empty((steps, rows, n, m))
        self._features = np.empty((steps, rows, 2 * (n + m)), kind)
        self.lengths = np.empty((steps, rows, 4), kind)  # of features, which they are divided by
        self._gains = np.empty((steps, rows, m, n), kind)
        self._innovations = np.empty((steps, rows, n), kind)
        self._came: Array = ~np.isnan(observations)
        predicted64, foretold64 = np.empty((rows, m)), np.empty((rows, n))
        means = np.empty((rows, steps, m), kind)
        mean, evolution, update, seen, *hidden = track
        ends = np.cumsum((0, n, n, m, m))
        for t in range(steps):
            predict(
                model.linearise, model.parameters, model.observe_linearised,
                model.observe_parameters, mean.astype(np.float64),
                np.ascontiguousarray(intervals[:, t]), predicted64, foretold64,
                self._moving[t], self._seeing[t],
            )  # fmt: skip
            predicted, foretold = predicted64.astype(kind), foretold64.astype(kind)
            came = self._came[:, t]
            y = np.where(came, observations[:, t], foretold).astype(kind)
            innovation = np.where(came, self._wrapped(y - foretold), 0.0).astype(kind)
            parts = (self._wrapped(y - seen), innovation, evolution, update)
            for k, part in enumerate(parts):
                squared = np.einsum("ij,ij->i", part, part) + self._squares[k]
                length = np.maximum(np.sqrt(squared), LEAST)
                self.lengths[t, :, k] = length
                self._features[t, :, ends[k] : ends[k + 1]] = part / length[:, None]
            features = self._features[t] * self._used
            gains, new = self.layers.forward(t, features, hidden)
            gains = gains.reshape(rows, m, n)
            self._gains[t], self._innovations[t] = gains, innovation
            update = np.einsum("ijk,ik->ij", gains, innovation)
            mean, before, hidden = predicted + update, mean, new
            evolution = mean - before
            seen = y
            means[:, t] = mean
        return means, (mean, evolution, update, seen, *hidden)

    def backward(self, gradients: Array) -> None:
        """Add to the gradients of the parameters, given those by the updated states."""
        rows, steps, m = gradients.shape
        n = self.model.rows
        by_mean, by_evolution, by_update = np.zeros((3, rows, m), self._dtype)
        by_hidden = [np.zeros((rows, size), self._dtype) for size in self.layers.sizes]
        ends = np.cumsum((0, n, n, m, m))
        for t in reversed(range(steps)):
            after = by_mean + gradients[:, t] + by_evolution
            by_correction = after + by_update
            by_gain = by_correction[:, :, None] * self._innovations[t][:, None]
            by_innovation = np.einsum("ijk,ij->ik", self._gains[t], by_correction)
            by_features, by_hidden = self.layers.backward(
                t, by_gain.reshape(rows, m * n), by_hidden
            )
            by_features = by_features * self._used
            by_part = []
            for k in (1, 2, 3):  # F1 is made of observations alone
                unit = self._features[t, :, ends[k] : ends[k + 1]]
                own = by_features[:, ends[k] : ends[k + 1]]
                along = np.einsum("ij,ij->i", unit, own)[:, None] * unit
                by_part.append((own - along) / self.lengths[t, :, k, None])
            by_innovation = np.where(self._came[:, t], by_innovation + by_part[0], 0.0)
            by_predicted = after - np.einsum("ij,ijk->ik", by_innovation, self._seeing[t])
            by_mean = np.einsum("ij,ijk->ik", by_predicted, self._moving[t]) - by_evolution
            by_evolution, by_update = by_part[1], by_part[2]
        self.layers.finish()

    def _wrapped(self, difference: Array) -> Array:
        turns = np.round(difference / math.tau)
        return np.where(self.model.angles, difference - math.tau * turns, difference)


class _Layers:
    """The layers of a gain network, that go through steps together."""

    def __init__(self, layers: list[Dense | Gru], sizes: tuple[int, ...]) -> None:
        self.sizes, self._all = sizes, layers

    def begin(self, steps: int, rows: int) -> None:
        for layer in self._all:
            layer.begin(steps, rows)

    def finish(self) -> None:
        for layer in self._all:
            layer.finish()


class Layers2(_Layers):
    """Those of architecture #2."""

    def __init__(self, net: Any) -> None:
        self.m, self.n = net.m, net.n
        self.fc = {k: Dense(getattr(net, f"FC{k}")) for k in (1, 3, 4, 5, 6, 7)}
        self.inner, self.outer = Dense(net.FC2[0]), Dense(net.FC2[2], relu=False)
        self.q, self.sigma, self.s = Gru(net.GRU_Q), Gru(net.GRU_Sigma), Gru(net.GRU_S)
        grus = self.q, self.sigma, self.s
        super().__init__(
            [*self.fc.values(), self.inner, self.outer, *grus], tuple(g.size for g in grus)
        )

    def forward(self, t: int, features: Array, hidden: Any) -> tuple[Array, list[Array]]:
        m, n, fc = self.m, self.n, self.fc
        q, sigma, s = hidden
        q = self.q.forward(t, q, fc[5].forward(t, features[:, 2 * n + m :]))
        wide = fc[6].forward(t, features[:, 2 * n : 2 * n + m])
        sigma = self.sigma.forward(t, sigma, q, wide)
        seen = fc[7].forward(t, features[:, : 2 * n])
        s = self.s.forward(t, s, fc[1].forward(t, sigma), seen)
        gain = self.outer.forward(t, self.inner.forward(t, sigma, s))
        return gain, [q, fc[4].forward(t, sigma, fc[3].forward(t, s, gain)), s]

    def backward(self, t: int, by_gain: Array, by_hidden: Any) -> tuple[Array, list[Array]]:
        mm, nn_, fc = self.m**2, self.n**2, self.fc
        by_q, by_last, by_s = by_hidden
        by = fc[4].backward(t, by_last)
        by_sigma = by[:, :mm]
        by = fc[3].backward(t, by[:, mm:])
        by_s = by_s + by[:, :nn_]
        by = self.inner.backward(t, self.outer.backward(t, by_gain + by[:, nn_:]))
        by_sigma, by_s = by_sigma + by[:, :mm], by_s + by[:, mm:]
        by, before_s = self.s.backward(t, by_s)
        by_sigma = by_sigma + fc[1].backward(t, by[:, :nn_])
        by_seen = fc[7].backward(t, by[:, nn_:])
        by, before_sigma = self.sigma.backward(t, by_sigma)
        by_evolution = fc[6].backward(t, by[:, mm:])
        by, before_q = self.q.backward(t, by_q + by[:, :mm])
        by_update = fc[5].backward(t, by)
        features = np.concatenate((by_seen, by_evolution, by_update), 1)
        return features, [before_q, before_sigma, before_s]


class _Layers1(_Layers):
    """Those of architecture #1."""

    def __init__(self, net: Any) -> None:
        self.first, self.gru = Dense(net.L1), Gru(net.GRU)
        self.second, self.third = Dense(net.L2), Dense(net.L3, relu=False)
        super().__init__([self.first, self.gru, self.second, self.third], (self.gru.size,))

    def forward(self, t: int, features: Array, hidden: Any) -> tuple[Array, list[Array]]:
        state = self.gru.forward(t, hidden[0], self.first.forward(t, features))
        return self.third.forward(t, self.second.forward(t, state)), [state]

    def backward(self, t: int, by_gain: Array, by_hidden: Any) -> tuple[Array, list[Array]]:
        by = self.second.backward(t, self.third.backward(t, by_gain))
        by, before = self.gru.backward(t, by + by_hidden[0])
        return self.first.backward(t, by), [before]
