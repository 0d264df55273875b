"""Learned noise of an extended Kalman filter as a torch module, constant or told step by step.

blocks/kernels/learned_noise.py runs its arrays without torch, and says what they mean.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from blocks.models.export import array_of

FEATURES, USUAL, LIMIT, REACH = 3, 0.534, 4.0, 6.0  # those of the kernel


class NoiseNetwork(nn.Module):
    """Q and R, the factors that are told of them, and corrections of the model.

    m, n   sizes of a state and of an observation
    units  of the GRU that tells factors; 0: noise is constant
    drift  hidden units of what is added to predictions; 0: affine; -1: nothing is
    tilt   whether what is seen is corrected, too
    """

    def __init__(self, m: int, n: int, units: int = 0, drift: int = -1, tilt: bool = False) -> None:
        super().__init__()
        self.hyper = {"m": m, "n": n, "units": units, "drift": drift, "tilt": bool(tilt)}
        self.process_root = nn.Parameter(torch.zeros(m, m))
        self.observation_root = nn.Parameter(torch.zeros(n, n))
        if units:
            self.cell, self.told = nn.GRUCell(FEATURES * n, units), nn.Linear(units, m + n)
            with torch.no_grad():  # factors of about one at first
                self.told.weight *= 0.1
                self.told.bias *= 0.0
        if drift >= 0:
            self.register_buffer("drift_centre", torch.zeros(m))
            self.register_buffer("drift_scale", torch.ones(m))
            self.drift_matrix = nn.Parameter(torch.zeros(m, m))
            self.drift_bias = nn.Parameter(torch.zeros(m))
            self.drift_in = nn.Linear(m, drift)
            self.drift_out = nn.Parameter(torch.zeros(m, drift))
        if tilt:
            self.tilt_matrix = nn.Parameter(torch.zeros(n, n))
            self.tilt_bias = nn.Parameter(torch.zeros(n))

    def covariances(self) -> tuple[Tensor, Tensor]:
        """Q (m, m) per nominal interval, and R (n, n)."""
        return _covariance(self.process_root), _covariance(self.observation_root)

    def first(self, rows: int) -> Tensor:
        """What the network remembers before the first step, (rows, units)."""
        return self.process_root.new_zeros(rows, self.hyper["units"])

    def tell(
        self, innovations: Tensor, carried: Tensor, usual: Tensor, R: Tensor, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Factors of standard deviations (rows, m + n), and the next hidden states.

        innovations  (rows, n)  NaN where nothing came
        carried      (rows, n)  variances of what is seen that are carried on
        usual        (rows, n)  and that the constant noise adds
        """
        came = ~innovations.isnan()
        w = torch.where(came, innovations, 0.0) / (carried + usual).sqrt()
        size = torch.where(came, w.abs().log1p() - USUAL, 0.0)
        ratio = 0.25 * (carried / R.diagonal()).clamp(min=1e-30).log()
        features = torch.cat((w / (1.0 + w.abs()), size, ratio.clamp(-4.0, 4.0)), 1)
        hidden = self.cell(features, hidden)
        return (LIMIT * (self.told(hidden) / LIMIT).tanh()).exp(), hidden

    def moved(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """What a nominal interval adds to predictions (rows, m), and its Jacobian (rows, m, m)."""
        z = (states - self.drift_centre) / self.drift_scale
        inside = (z.abs() < REACH).to(z)
        z = z.clamp(-REACH, REACH)
        t = self.drift_in(z).tanh()
        added = z @ self.drift_matrix.T + t @ self.drift_out.T + self.drift_bias
        slope = self.drift_matrix + (self.drift_out * (1.0 - t * t)[:, None]) @ self.drift_in.weight
        slope = slope * inside[:, None] / self.drift_scale
        return self.drift_scale * added, self.drift_scale[:, None] * slope

    def arrays(self) -> dict[str, Any]:
        """Name -> float32 array."""
        return {name: array_of(tensor) for name, tensor in self.state_dict().items()}


def _covariance(root: Tensor) -> Tensor:
    L = root.tril(-1) + root.diagonal().exp().diag()
    return L @ L.T
