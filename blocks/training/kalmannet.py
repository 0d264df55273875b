"""Gradients of a KalmanNet through its whole recursion, for blocks/training/trajectories.py.

Revach et al., "KalmanNet", IEEE Trans. Signal Processing 2022, III-D: features and motion included.
split_kalmannet.py and recursive_kalmannet.py beside it have the same with other networks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from blocks.kernels.caching import njit
from blocks.kernels.indirect import call_linearise, call_observe, call_observe_linearised
from blocks.kernels.kalmannet_filter import LEAST
from blocks.kernels.state_space import StateSpace, wrapped
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
    """Predicted states and observations by the kernels' functions, and their Jacobians."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, intervals: Array, model: StateSpace
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rows, m, n = len(states), model.size, model.rows
        predicted, seen = np.empty((rows, m)), np.empty((rows, n))
        moving, seeing = np.empty((rows, m, m)), np.empty((rows, n, m))
        predict(
            model.linearise, model.parameters, model.observe_linearised, model.observe_parameters,
            states.double().numpy(), intervals, predicted, seen, moving, seeing,
        )  # fmt: skip
        ctx.jacobians = [torch.from_numpy(J).to(states) for J in (moving, seeing)]
        ctx.mark_non_differentiable(*ctx.jacobians)
        told = (torch.from_numpy(found).to(states) for found in (predicted, seen))
        return *told, *ctx.jacobians

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        moving, seeing = ctx.jacobians
        by_predicted, by_seen, _, _ = gradients
        total = by_predicted + (by_seen[:, None] @ seeing)[:, 0]
        return (total[:, None] @ moving)[:, 0], None, None


predicted_of: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]] = _Predict.apply


@njit(cache=True, nogil=True)
def _observe(observe: Any, parameters: Array, states: Array, seen: Array, seeing: Array) -> None:
    for row in range(states.shape[0]):
        call_observe_linearised(observe, states[row], parameters, seen[row], seeing)


@njit(cache=True, nogil=True)
def _bend(
    observe: Any, parameters: Array, angles: Array, before: Array, predicted: Array,
    foretold: Array, seeing: Array, geometry: Array,
) -> None:  # fmt: skip
    rows, n, m = seeing.shape
    was = np.empty(n)
    for row in range(rows):
        call_observe(observe, before[row], parameters, was)
        squared = 0.0
        for j in range(n):
            off = foretold[row, j] - was[j]
            for i in range(m):
                off -= seeing[row, j, i] * (predicted[row, i] - before[row, i])
            geometry[row, j] = wrapped(off) if angles[j] else off
            squared += geometry[row, j] ** 2
        for j in range(n):
            geometry[row, j] /= max(np.sqrt(squared), LEAST)


def geometry_of(
    model: StateSpace, before: Array, predicted: Array, foretold: Array, seeing: Array
) -> Array:
    """Features (rows, n + m n) that no gradient passes through: how the observation bends, and H.

    before, predicted  (rows, m)     float64, last updated and predicted states
    foretold, seeing   (rows, n), (rows, n, m)  what is seen at those predicted, and its Jacobian
    """
    rows, n, _ = seeing.shape
    found = np.zeros((rows, n + seeing[0].size))
    found[:, n:] = seeing.reshape(rows, -1)
    if not model.linear_seen:
        _bend(
            model.observe, model.observe_parameters, model.angles, before, predicted, foretold,
            seeing, found,
        )  # fmt: skip
    return found


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

    network   a FilterNetwork of blocks/models
    """

    def __init__(self, network: Any, model: StateSpace) -> None:
        self.network, self.model = network, model
        self._angles = torch.from_numpy(model.angles) if model.angles.any() else None
        scales = torch.tensor(network.scales, dtype=torch.float64)
        self._scales = (scales[: model.size], scales[model.size :]) if network.scales else ()

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

    def jacobians(self, states: Array, intervals: Array) -> tuple[Array, Array]:
        """Those of the motion (rows, m, m) at states (rows, m), and of what is seen after it."""
        _, _, moving, seeing = predicted_of(
            torch.from_numpy(np.ascontiguousarray(states)),
            np.ascontiguousarray(intervals),
            self.model,
        )
        return moving.numpy(), seeing.numpy()

    def step(self, track: Track, observations: Tensor, intervals: Array) -> Track:
        """The next step, of observations (rows, n), NaN where nothing came.

        A row that is missing counts as seen where it was predicted; no gradients pass there.
        """
        return self._step(track, observations, intervals)[0]

    def _step(
        self, track: Track, observations: Tensor, intervals: Array
    ) -> tuple[Track, Tensor, Tensor, Tensor]:
        """`step`, what the network told, and the Jacobians of motion and observation."""
        predicted, foretold, moving, seeing = predicted_of(track.mean, intervals, self.model)
        came = ~observations.isnan()
        observations = torch.where(came, observations, foretold.detach())
        innovation = torch.where(came, self._wrapped(observations - foretold), 0.0)
        change = self._wrapped(observations - track.seen)
        parts = [change, innovation, track.evolution, track.update]
        features = [self._feature(part, k) for k, part in enumerate(parts)]
        if self.network.has_geometry:
            before, where, seen, slope = (
                t.detach().double().numpy() for t in (track.mean, predicted, foretold, seeing)
            )
            geometry = geometry_of(self.model, before, where, seen, slope)
            features.insert(2, torch.from_numpy(geometry).to(change))
        if self.network.square_scales is not None:
            of_state, of_seen = (scale.to(change) for scale in self.network.square_scales)
            pairs = ((change, of_seen), (innovation, of_seen), (track.update, of_state))
            features += [(v / scale).square().log1p() for v, scale in pairs]
        told, hidden = self.network(torch.cat(features, 1), track.hidden)
        gains = self.network.gains(told, seeing)
        if self._scales:
            gains = gains * (self._scales[0][:, None] / self._scales[1]).to(gains)
        update = (gains @ innovation[:, :, None])[:, :, 0]
        mean = predicted + update
        after = Track(mean, mean - track.mean, update, observations, hidden)
        return after, told, moving, seeing

    def _feature(self, part: Tensor, k: int) -> Tensor:
        """F1 ... F4 as the network sees it, k = 0 ... 3."""
        if not self._scales:
            return nn.functional.normalize(part)
        part = part / self._scales[k < 2].to(part)
        length = (part * part).sum(1, keepdim=True).clamp_min(LEAST * LEAST).sqrt()
        return part * (length.log1p() / length)

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

    network   a FilterNetwork, whose parameters get the gradients
    dense     what its dense layers are made of
    """

    def __init__(self, network: Any, model: StateSpace, dense: type[Dense] = Dense) -> None:
        self.network, self.model = network, model
        self._dense = dense
        self.layers = self._layers()
        self._used = network.used.numpy()
        self._dtype = next(network.parameters()).detach().numpy().dtype
        n, m = model.rows, model.size
        scales = np.array(network.scales or np.ones(m + n), self._dtype)
        self._units = (scales[m:], scales[m:], scales[:m], scales[:m])  # of F1 to F4
        self._unit_gain = scales[:m, None] / scales[m:]
        second = 2 * n + (n + m * n) * network.has_geometry
        #: columns of the features F1 to F4, and of the squares
        self._columns = [slice(0, n), slice(n, 2 * n)]
        self._columns += [slice(second, second + m), slice(second + m, second + 2 * m)]
        end = second + 2 * m
        self._squares: dict[int, tuple[slice, Array]] = {}
        if network.square_scales is not None:
            of_state, of_seen = (s.numpy() for s in network.square_scales)
            for k, scale in ((0, of_seen), (1, of_seen), (3, of_state)):
                self._squares[k] = slice(end, end + scale.size), scale
                end += scale.size
        self._width = end

    def _layers(self) -> Layers:
        """The layers of the network."""
        kind = Layers2 if hasattr(self.network, "GRU_Q") else Layers1
        return kind(self.network, self._dense)

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
        self._features = np.empty((steps, rows, self._width), kind)
        self._lengths = np.empty((steps, rows, 4), kind)
        self._gains = np.empty((steps, rows, m, n), kind)
        self._told: list[Array] = []
        self.innovations = np.empty((steps, rows, n), kind)
        self.came: Array = ~np.isnan(observations)
        predicted64, foretold64 = np.empty((rows, m)), np.empty((rows, n))
        means = np.empty((rows, steps, m), kind)
        mean, evolution, update, seen, *hidden = track
        for t in range(steps):
            before64 = mean.astype(np.float64)
            predict(
                model.linearise, model.parameters, model.observe_linearised,
                model.observe_parameters, before64, np.ascontiguousarray(intervals[:, t]),
                predicted64, foretold64, self._moving[t], self._seeing[t],
            )  # fmt: skip
            predicted, foretold = predicted64.astype(kind), foretold64.astype(kind)
            came = self.came[:, t]
            y = np.where(came, observations[:, t], foretold).astype(kind)
            innovation = np.where(came, self._wrapped(y - foretold), 0.0).astype(kind)
            row = self._features[t]
            for k, part in enumerate((self._wrapped(y - seen), innovation, evolution, update)):
                scaled = part / self._units[k]
                length = np.maximum(np.sqrt(np.einsum("ij,ij->i", scaled, scaled)), LEAST)
                self._lengths[t, :, k] = length
                row[:, self._columns[k]] = scaled * (self._long(length) / length)[:, None]
                if k in self._squares:
                    columns, scale = self._squares[k]
                    row[:, columns] = np.log1p(np.square(part / scale))
            if self.network.has_geometry:
                row[:, 2 * n : self._columns[2].start] = geometry_of(
                    model, before64, predicted64, foretold64, self._seeing[t]
                )
            told, hidden = self.layers.forward(t, row * self._used, hidden)
            gains = self.layers.gains(told, self._seeing[t]) * self._unit_gain
            self._gains[t], self.innovations[t] = gains, innovation
            self._told.append(told)
            update = np.einsum("ijk,ik->ij", gains, innovation)
            mean, before = predicted + update, mean
            evolution = mean - before
            seen = y
            means[:, t] = mean
        return means, (mean, evolution, update, seen, *hidden)

    def backward(
        self, gradients: Array, by_foretold: Array | None = None, by_gains: Array | None = None,
        by_told: Array | None = None,
    ) -> None:  # fmt: skip
        """Add to the gradients of the parameters, given those by the updated states.

        by_foretold  (rows, time, n)    by the predicted observations, if there are such gradients
        by_gains  (time, rows, m, n)    likewise by the gains themselves
        by_told   (time, rows, width)   and by what the network tells
        """
        rows, steps, m = gradients.shape
        by_mean, by_evolution, by_update = np.zeros((3, rows, m), self._dtype)
        by_hidden = [np.zeros((rows, size), self._dtype) for size in self.layers.sizes]
        for t in reversed(range(steps)):
            after = by_mean + gradients[:, t] + by_evolution
            by_correction = after + by_update
            by_gain = by_correction[:, :, None] * self.innovations[t][:, None]
            by_innovation = np.einsum("ijk,ij->ik", self._gains[t], by_correction)
            if by_gains is not None:
                by_gain = by_gain + by_gains[t]
            by_gain = by_gain * self._unit_gain
            own = self.layers.by_told(self._told[t], self._seeing[t], by_gain)
            if by_told is not None:
                own = own + by_told[t]
            by_features, by_hidden = self.layers.backward(t, own, by_hidden)
            by_features = by_features * self._used
            by_part = []
            for k in (1, 2, 3):  # F1 is made of observations alone
                length = self._lengths[t, :, k, None]
                long = self._long(length)
                unit = self._features[t, :, self._columns[k]] / long
                own = by_features[:, self._columns[k]]
                along = np.einsum("ij,ij->i", unit, own)[:, None] * unit
                found = (own - along) * (long / length)
                if self.network.scales:
                    found = found + along / (1.0 + length)
                found = found / self._units[k]
                if k in self._squares:
                    columns, scale = self._squares[k]
                    value = unit * length
                    found = found + by_features[:, columns] * (
                        2.0 * value / (np.square(value) + np.square(scale))
                    )
                by_part.append(found.astype(self._dtype))
            by_seen = np.where(self.came[:, t], -by_innovation - by_part[0], 0.0)
            if by_foretold is not None:
                by_seen += by_foretold[:, t]
            by_predicted = after + np.einsum("ij,ijk->ik", by_seen, self._seeing[t])
            by_mean = np.einsum("ij,ijk->ik", by_predicted, self._moving[t]) - by_evolution
            by_evolution, by_update = by_part[1], by_part[2]
        self.layers.finish()

    def _long(self, lengths: Array) -> Array:
        """How long features are, given how long they would be."""
        return np.log1p(lengths) if self.network.scales else np.ones_like(lengths)

    def _wrapped(self, difference: Array) -> Array:
        turns = np.round(difference / math.tau)
        return np.where(self.model.angles, difference - math.tau * turns, difference)


class Predicting(Unrolled):
    """The same, with a loss that needs no states: the mean squared innovation per row that came.

    Revach et al., "Unsupervised Learned Kalman Filtering", EUSIPCO 2022, (10): what is predicted
    of the next observation, in units of its variance, is as near to it as can be.

    variances  (n,)  of the innovations
    """

    def __init__(self, network: Any, model: StateSpace, variances: Array) -> None:
        super().__init__(network, model)
        self._over = (1.0 / variances).astype(self._dtype)

    def teach(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        error, end = self.judge(track, part)
        if math.isfinite(error):
            gradients = -2.0 / max(self.came.sum(), 1) * self._over * self.innovations
            rows, steps, _ = part.observations.shape
            by_means = np.zeros((rows, steps, self.model.size), self._dtype)
            self.backward(by_means, gradients.swapaxes(0, 1).astype(self._dtype))
        return error, end

    def judge(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        _, end = self.forward(track, part.observations, part.intervals)
        squares = self._over * np.square(self.innovations, dtype=np.float64)
        return float(squares.sum() / max(self.came.sum(), 1)), end


class Layers(ABC):
    """The layers of a network, that go through steps together.

    sizes   of the hidden states
    """

    def __init__(self, m: int, n: int, layers: list[Dense | Gru], sizes: tuple[int, ...]) -> None:
        self.m, self.n, self.sizes, self.all = m, n, sizes, layers

    def begin(self, steps: int, rows: int) -> None:
        for layer in self.all:
            layer.begin(steps, rows)

    def finish(self) -> None:
        for layer in self.all:
            layer.finish()

    @abstractmethod
    def forward(self, t: int, features: Array, hidden: Any) -> tuple[Array, list[Array]]:
        """What the network tells at step t (rows, width), and the next hidden states."""

    @abstractmethod
    def backward(self, t: int, by_told: Array, by_hidden: Any) -> tuple[Array, list[Array]]:
        """The gradients by the features and the hidden states before."""

    def gains(self, told: Array, seeing: Array) -> Array:
        """The gain (rows, m, n) of what is told and of Jacobians (rows, n, m)."""
        return told.reshape(-1, self.m, self.n)

    def by_told(self, told: Array, seeing: Array, by_gain: Array) -> Array:
        """The gradient by what is told, given that by the gain."""
        return by_gain.reshape(len(told), -1)


class Branch:
    """The layers of a Branch of blocks/models, that go through steps together."""

    def __init__(self, net: Any) -> None:
        self.first, self.grus = Dense(net.L1), [Gru(getattr(net, name)) for name in net.cells]
        self.second, self.third = Dense(net.L2), Dense(net.L3, relu=False)
        self.layers: list[Dense | Gru] = [self.first, *self.grus, self.second, self.third]
        self.sizes = tuple(gru.size for gru in self.grus)

    def forward(self, t: int, hidden: Any, *parts: Array) -> tuple[Array, list[Array]]:
        after: list[Array] = []
        x = self.first.forward(t, *parts)
        for gru, state in zip(self.grus, hidden, strict=True):
            x = gru.forward(t, state, x)
            after.append(x)
        return self.third.forward(t, self.second.forward(t, x)), after

    def backward(self, t: int, gradient: Array, by_hidden: Any) -> tuple[Array, list[Array]]:
        before: list[Array] = []
        by = self.second.backward(t, self.third.backward(t, gradient))
        for gru, own in zip(reversed(self.grus), reversed(by_hidden), strict=True):
            by, earlier = gru.backward(t, by + own)
            before.insert(0, earlier)
        return self.first.backward(t, by), before


class Layers2(Layers):
    """Those of architecture #2."""

    def __init__(self, net: Any, dense: type[Dense] = Dense) -> None:
        self.fc = {k: dense(getattr(net, f"FC{k}")) for k in (1, 3, 4, 5, 6, 7)}
        self.inner, self.outer = dense(net.FC2[0]), dense(net.FC2[2], relu=False)
        self.q, self.sigma, self.s = Gru(net.GRU_Q), Gru(net.GRU_Sigma), Gru(net.GRU_S)
        grus = self.q, self.sigma, self.s
        super().__init__(
            net.m, net.n, [*self.fc.values(), self.inner, self.outer, *grus],
            tuple(g.size for g in grus),
        )  # fmt: skip

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


class Layers1(Layers):
    """Those of architecture #1."""

    def __init__(self, net: Any, dense: type[Dense] = Dense) -> None:
        self.first, self.gru = dense(net.L1), Gru(net.GRU)
        self.second, self.third = dense(net.L2), dense(net.L3, relu=False)
        layers: list[Dense | Gru] = [self.first, self.gru, self.second, self.third]
        super().__init__(net.m, net.n, layers, (self.gru.size,))

    def forward(self, t: int, features: Array, hidden: Any) -> tuple[Array, list[Array]]:
        state = self.gru.forward(t, hidden[0], self.first.forward(t, features))
        return self.third.forward(t, self.second.forward(t, state)), [state]

    def backward(self, t: int, by_gain: Array, by_hidden: Any) -> tuple[Array, list[Array]]:
        by = self.second.backward(t, self.third.backward(t, by_gain))
        by, before = self.gru.backward(t, by + by_hidden[0])
        return self.first.backward(t, by), [before]
