"""The networks of one pass of RTSNet as a torch module.

Ni, Revach, Shlezinger, "RTSNet: Learning to Smooth in Partially Known State-Space Models", IEEE
Trans. Signal Processing 2024. blocks/kernels/rtsnet.py says what they are told and runs their
arrays without torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from blocks.models.kalmannet import ALL, Architecture2


class PassNetwork(nn.Module):
    """Gains of the way there, (m, n), and of the way back, (m, m), each of architecture #2."""

    def __init__(self, m: int, n: int, in_mult: int = 5, out_mult: int = 40) -> None:
        super().__init__()
        self.there = Architecture2(m, n, ALL, in_mult, out_mult)
        self.back = Architecture2(m, m, ALL, in_mult, out_mult)

    def begin_at(self, there: Tensor, back: Tensor) -> None:
        """Add these gains, (m, n) and (m, m), to those that it tells."""
        with torch.no_grad():
            for network, gain in ((self.there, there), (self.back, back)):
                last: Any = network.FC2[2]
                last.bias += gain.reshape(-1)
