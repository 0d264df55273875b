"""The gain networks of Split-KalmanNet as a torch module.

Choi et al., "Split-KalmanNet: A Robust Model-Based Deep Learning Approach for State Estimation",
IEEE Trans. Vehicular Technology 2023. blocks/kernels/split_kalmannet.py runs its arrays without
torch, and draws the layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from blocks.models.kalmannet import Branch, FilterNetwork, Hidden


class SplitNetwork(FilterNetwork):
    """The factors P and S of the gain P H' S, flattened side by side, and next hidden states.

    features  (rows, 2 n + n + m n + 2 m)  as kernels/kalmannet_filter.py orders them
    """

    has_geometry = True

    def __init__(
        self, m: int, n: int, in_mult: int = 80, out_mult: int = 4, units: int = 2
    ) -> None:
        super().__init__()
        self.m, self.n, self.in_mult, self.out_mult, self.units = m, n, in_mult, out_mult, units
        wide, size, middle = in_mult * (m + n), units * (m * m + n * n), out_mult * m * n
        self.P = Branch(n + m * n + 2 * m, wide, size, 2, middle, m * m)
        self.S = Branch(3 * n + m * n, wide, size, 2, middle, n * n)
        used = torch.ones(3 * n + m * n + 2 * m)
        self.register_buffer("used", used, persistent=False)

    @property
    def hyper(self) -> dict[str, Any]:
        return {
            "m": self.m, "n": self.n, "in_mult": self.in_mult, "out_mult": self.out_mult,
            "units": self.units,
        }  # fmt: skip

    def start(self, rows: int) -> Hidden:
        return *self.P.start(rows), *self.S.start(rows)

    def forward(self, features: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        m, n = self.m, self.n
        moved, after = self.P(features[:, 2 * n :], hidden[:2])
        seen, then = self.S(features[:, : 3 * n + m * n], hidden[2:])
        return torch.cat((moved, seen), 1), (*after, *then)

    def gains(self, told: Tensor, seeing: Tensor) -> Tensor:
        m, n = self.m, self.n
        P, S = told[:, : m * m].reshape(-1, m, m), told[:, m * m :].reshape(-1, n, n)
        return P @ seeing.mT @ S
