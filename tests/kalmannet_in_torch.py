"""KalmanNet in torch, written from the equations: what kernels and gradients are compared with."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from blocks.kernels.kalmannet_filter import LEAST
from blocks.kernels.latent import observed
from blocks.kernels.state_space import StateSpace
from blocks.training.kalmannet import geometry_of, predict

Array = np.ndarray[Any, Any]


class _Predict(torch.autograd.Function):
    """Predicted states and observations by the kernels' functions, and their Jacobians."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, intervals: Array, model: StateSpace
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rows, m, n = len(states), model.size, model.rows
        moving, seeing = np.empty((rows, m, m)), np.empty((rows, n, m))
        found = predict(model, states.detach().numpy(), intervals, moving, seeing)
        ctx.jacobians = [torch.from_numpy(J).to(states) for J in (moving, seeing)]
        ctx.mark_non_differentiable(*ctx.jacobians)
        told = (torch.from_numpy(array).to(states) for array in found)
        return *told, *ctx.jacobians

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        moving, seeing = ctx.jacobians
        by_predicted, by_seen, _, _ = gradients
        total = by_predicted + (by_seen[:, None] @ seeing)[:, 0]
        return (total[:, None] @ moving)[:, 0], None, None


predicted_of = _Predict.apply


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
        zeros = torch.zeros_like(states)
        seen = torch.from_numpy(observed(self.model, states.double().numpy())).to(states)
        return Track(states, zeros, zeros, seen, self.network.start(len(states)))

    def step(self, track: Track, observations: Tensor, intervals: Array) -> Track:
        """The next step, of observations (rows, n), NaN where nothing came.

        A row that is missing counts as seen where it was predicted; no gradients pass there.
        """
        return self.told(track, observations, intervals)[0]

    def told(
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


class Carried(Recursion):
    """Recursive KalmanNet on tensors, with its covariances, step by step."""

    def covariances(
        self, track: Track, observations: Tensor, intervals: Array, covariance: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Updated states (rows, time, m) and covariances (rows, time, m, m), from `covariance`."""
        means, carried, one = [], [], torch.eye(self.model.size).to(covariance)
        for t in range(observations.shape[1]):
            came = ~observations[:, t].isnan()
            track, told, F, H = self.told(track, observations[:, t], intervals[:, t])
            K, C = self.network.gains(told, H) * came[:, None], self.network.factor(told)
            A = (one - K @ H) @ F
            covariance = A @ covariance @ A.mT + C @ C.mT
            means.append(track.mean)
            carried.append(covariance)
        return torch.stack(means, 1), torch.stack(carried, 1)
