"""Learned noise in torch, written from the equations: what its gradients are compared with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from blocks.kernels.state_space import StateSpace
from blocks.training.learned_noise import SHARES, move, see
from blocks.training.trajectories import Autograd, Trajectories

Array = np.ndarray[Any, Any]


class _Linearised(torch.autograd.Function):
    """Values that a kernel gave for states, with its Jacobian for the way back."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, values: Tensor, jacobians: Tensor) -> Tensor:
        ctx.save_for_backward(jacobians)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (jacobians,) = ctx.saved_tensors
        return (gradients[0][:, None] @ jacobians)[:, 0], None, None


_linearised: Callable[..., Tensor] = _Linearised.apply


class Track(NamedTuple):
    """Where filters stand between two steps, a row each: (rows, m), (rows, m, m), (rows, units)."""

    mean: Tensor
    covariance: Tensor
    hidden: Tensor


class Recursion(Autograd):
    """Rows of filters side by side, whose gradients are those of autograd.

    Losses are those of blocks.training.learned_noise.Unrolled.
    """

    def __init__(self, network: Any, model: StateSpace, loss_name: str = "mixed") -> None:
        if loss_name not in SHARES:
            raise ValueError(f"loss = '{loss_name}', but there are {', '.join(SHARES)}")
        self.network, self.model, self.loss_name = network, model, loss_name
        self._angles = torch.from_numpy(model.angles) if model.angles.any() else None

    def start(self, states: Array) -> Track:
        rows = len(states)
        first = torch.from_numpy(self.model.initial_covariance).repeat(rows, 1, 1)
        return Track(torch.from_numpy(np.array(states)), first, self.network.first(rows))

    def judge(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        loss, end = super().judge(track, part)
        return (math.exp(2.0 * loss) if self.loss_name == "mse" else loss), end

    def loss(
        self, track: Any, observations: Tensor, intervals: Array, states: Tensor
    ) -> tuple[Tensor, Any]:
        means, covariances, evidence, track = self.run(track, observations, intervals)
        off, m = means - states, self.model.size
        by_error = 0.5 * off.square().mean().log()
        if self.loss_name == "mse":
            return by_error, track
        L = torch.linalg.cholesky_ex(covariances)[0]
        white = torch.linalg.solve_triangular(L, off[..., None], upper=False)[..., 0]
        spread = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        by_density = (0.5 * white.square().sum(-1) + spread - 0.5 * m).mean() / m
        if self.loss_name == "joint":
            n = self.model.rows
            return (m * by_density + 0.5 * (evidence - n).mean()) / (m + n), track
        if self.loss_name == "likelihood":
            return by_density, track
        return 0.5 * (by_error + by_density), track

    def run(
        self, track: Track, observations: Tensor, intervals: Array
    ) -> tuple[Tensor, Tensor, Tensor, Track]:
        """Updated means (rows, time, m) and covariances, evidence as the kernel has it, the end."""
        net, model = self.network, self.model
        m, n = model.size, model.rows
        Q, R = net.covariances()
        one_m, one_n = torch.eye(m).to(Q), torch.eye(n).to(Q)
        x, P, hidden = track
        means, covariances, evidence = [], [], []
        for t in range(observations.shape[1]):
            over = torch.from_numpy(intervals[:, t] / model.step_s)
            moved, F = self._moved(x, intervals[:, t])
            if net.hyper["drift"] >= 0:
                added, slope = net.moved(x)
                moved = moved + over[:, None] * added
                F = F + over[:, None, None] * slope.detach()
            x = moved
            P = F @ P @ F.mT
            seen, H = self._seen(x)
            if net.hyper["tilt"]:
                seen = seen + seen @ net.tilt_matrix.T + net.tilt_bias
                H = H + net.tilt_matrix.detach() @ H
            e = observations[:, t] - seen
            if self._angles is not None:
                turns = (e.detach() / math.tau).round()
                e = torch.where(self._angles, e - math.tau * turns, e)
            scaled, noise = over[:, None, None] * Q, R
            if net.hyper["units"]:
                carried = (H @ P @ H.mT).diagonal(dim1=1, dim2=2)
                usual = (H @ scaled @ H.mT + R).diagonal(dim1=1, dim2=2)
                factors, hidden = net.tell(e, carried, usual, R, hidden)
                by_state, by_row = factors[:, :m], factors[:, m:]
                scaled = by_state[:, :, None] * scaled * by_state[:, None]
                noise = by_row[:, :, None] * R * by_row[:, None]
            P = P + scaled
            came = ~e.isnan()
            if not bool(came.all()):
                e = torch.where(came, e, 0.0)
                both = came[:, :, None] & came[:, None]
                noise = torch.where(both, noise, one_n)
                H = torch.where(came[:, :, None], H, 0.0)
            cross = H @ P
            S = cross @ H.mT + noise
            gain = torch.linalg.solve(S, cross).mT
            squared = (e * torch.linalg.solve(S, e[:, :, None])[:, :, 0]).sum(1)
            evidence.append(squared + S.logdet())
            x = x + (gain @ e[:, :, None])[:, :, 0]
            kept = one_m - gain @ H
            P = kept @ P @ kept.mT + gain @ noise @ gain.mT
            P = 0.5 * (P + P.mT)
            means.append(x)
            covariances.append(P)
        stacked = torch.stack(means, 1), torch.stack(covariances, 1), torch.stack(evidence, 1)
        return *stacked, Track(x, P, hidden)

    def _moved(self, states: Tensor, intervals: Array) -> tuple[Tensor, Tensor]:
        model, rows = self.model, len(states)
        values, jacobians = np.empty((rows, model.size)), np.empty((rows, model.size, model.size))
        move(
            model.linearise, model.parameters, states.detach().numpy(),
            np.ascontiguousarray(intervals), values, jacobians,
        )  # fmt: skip
        F = torch.from_numpy(jacobians)
        return _linearised(states, torch.from_numpy(values), F), F

    def _seen(self, states: Tensor) -> tuple[Tensor, Tensor]:
        model, rows = self.model, len(states)
        values, jacobians = np.empty((rows, model.rows)), np.empty((rows, model.rows, model.size))
        see(
            model.observe_linearised, model.observe_parameters, states.detach().numpy(), values,
            jacobians,
        )  # fmt: skip
        H = torch.from_numpy(jacobians)
        return _linearised(states, torch.from_numpy(values), H), H
