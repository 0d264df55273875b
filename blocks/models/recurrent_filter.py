"""The networks of tracker.recurrent as a torch module; kernels/recurrent_filter.py draws them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from blocks.kernels.recurrent_filter import SEES, inputs_of
from blocks.models.export import array_of
from blocks.models.kalmannet import make_small


class RecurrentTracker(nn.Module):
    """What is told, (rows, m), and the next state of the GRU, of what is seen and the state."""

    input_shift: Tensor
    input_scale: Tensor
    output_shift: Tensor
    output_scale: Tensor

    def __init__(self, *, sees: str, m: int, n: int, wide: int = 64, units: int = 64) -> None:
        super().__init__()
        if sees not in SEES:
            raise ValueError(f"sees = {sees!r}, but there are {', '.join(SEES)}")
        self.hyper = {"sees": sees, "m": m, "n": n, "wide": wide, "units": units}
        self.m, self.n, self.sees = m, n, sees
        inputs = inputs_of(sees, m, n)
        self.L1, self.GRU = nn.Linear(inputs, wide), nn.GRUCell(wide, units)
        self.L2, self.L3 = nn.Linear(units, wide), nn.Linear(wide, m)
        for name, size in (("input", inputs), ("output", m)):
            self.register_buffer(f"{name}_shift", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))
        make_small(self.L3)

    def start(self, rows: int) -> Tensor:
        """The state of the GRU before the first step."""
        return torch.zeros(rows, self.GRU.hidden_size).to(self.L1.weight)

    def forward(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        scaled = (inputs - self.input_shift) / self.input_scale
        hidden = self.GRU(self.L1(scaled).relu(), hidden)
        told = self.L3(self.L2(hidden).relu())
        return self.output_shift + self.output_scale * told, hidden

    def arrays(self) -> dict[str, Any]:
        """Name -> float32 array, by torch's names."""
        return {name: array_of(tensor) for name, tensor in self.state_dict().items()}
