"""The networks of Recursive KalmanNet as a torch module.

Mortada et al., "Recursive KalmanNet: Deep Learning-Augmented Kalman Filtering for State Estimation
with Consistent Uncertainty Quantification", EUSIPCO 2025. blocks/kernels/recursive_kalmannet.py
runs its arrays without torch, and draws the layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from blocks.models.kalmannet import Branch, FilterNetwork, Hidden


class RecursiveNetwork(FilterNetwork):
    """The gain, flattened, and the numbers of C beside it, and next hidden states.

    features  (rows, 5 n + m n + 3 m)  as kernels/kalmannet_filter.py orders them

    state_scales, seen_scales   how large errors of a state and innovations usually are
    """

    has_geometry = True
    square_scales: tuple[Tensor, Tensor]

    def __init__(
        self, m: int, n: int, state_scales: Sequence[float] = (), seen_scales: Sequence[float] = (),
        in_mult: int = 20, out_mult: int = 10, units: int = 10,
    ) -> None:  # fmt: skip
        super().__init__()
        self.m, self.n, self.in_mult, self.out_mult, self.units = m, n, in_mult, out_mult, units
        mn, triangle, count = m * n, m * (m + 1) // 2, 5 * n + m * n + 3 * m
        wide, size = in_mult * (m + n), units * (m + n)
        self.K = Branch(count, wide, size, 1, out_mult * mn, mn)
        self.C = Branch(count + mn, wide, size, 1, out_mult * triangle, triangle)
        self.register_buffer("used", torch.ones(count), persistent=False)
        self.square_scales = (
            torch.tensor(list(state_scales) or [1.0] * m, dtype=torch.float64),
            torch.tensor(list(seen_scales) or [1.0] * n, dtype=torch.float64),
        )

    @property
    def hyper(self) -> dict[str, Any]:
        return {
            "m": self.m, "n": self.n, "in_mult": self.in_mult, "out_mult": self.out_mult,
            "units": self.units,
        }  # fmt: skip

    def arrays(self) -> dict[str, Any]:
        states, observations = (scale.numpy().copy() for scale in self.square_scales)
        return {
            **super().arrays(), "scales.states": states, "scales.observations": observations
        }  # fmt: skip

    def load(self, arrays: dict[str, Any]) -> None:
        super().load(arrays)
        self.square_scales = (
            torch.tensor(arrays["scales.states"]), torch.tensor(arrays["scales.observations"])
        )  # fmt: skip

    def start(self, rows: int) -> Hidden:
        return *self.K.start(rows), *self.C.start(rows)

    def forward(self, features: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        gain, after = self.K(features, hidden[:1])
        factor, then = self.C(torch.cat((features, gain), 1), hidden[1:])
        return torch.cat((gain, factor), 1), (*after, *then)

    def gains(self, told: Tensor, seeing: Tensor) -> Tensor:
        return told[:, : self.m * self.n].reshape(-1, self.m, self.n)

    def factor(self, told: Tensor) -> Tensor:
        """C (rows, m, m), lower triangular: on the diagonal log(1 + e^x), in units of a state."""
        m = self.m
        C = told.new_zeros(len(told), m, m)
        rows, columns = torch.tril_indices(m, m)
        C[:, rows, columns] = told[:, m * self.n :]
        diagonal = torch.eye(m, dtype=torch.bool)
        C = torch.where(diagonal, nn.functional.softplus(C), C)
        return C * self.square_scales[0].to(C)[:, None]
