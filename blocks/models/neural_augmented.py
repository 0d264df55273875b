"""The graph network of the neural-augmented smoother as a torch module.

Garcia Satorras, Akata, Welling, "Combining generative and discriminative models for hybrid
inference", NeurIPS 2019. blocks/kernels/neural_augmented.py runs its arrays without torch, draws
the layers and says what goes in.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from blocks.models.export import array_of

FRESH = 0.05  # of the usual size are the first weights of what it tells: it begins by believing


class GraphNetwork(nn.Module):
    """What the messages of each step err by, from features of all steps, iteration by iteration.

    n, m         numbers of a state and of an observation
    width, wide  numbers of a node, and of the messages to it
    The rest goes into `hyper`, as kernels/neural_augmented.py reads it; buffers hold centres and
    units, all 1 at first.
    """

    def __init__(
        self, n: int, m: int, width: int = 32, wide: int = 64, iterations: int = 4,
        step: str = "newton", start: str = "smoother", rate: float = 0.005,
    ) -> None:  # fmt: skip
        super().__init__()
        self.hyper = {
            "n": n, "m": m, "width": width, "wide": wide, "iterations": iterations, "step": step,
            "start": start, "rate": rate,
        }  # fmt: skip
        told = n + m + 1 if step == "newton" else n
        self.seen = nn.Linear(2 * m, width)
        self.messages = nn.Linear(4 * width + 3 * n + 2 * m + 1, wide)
        self.cell = nn.GRUCell(wide, width)
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, told)
        with torch.no_grad():
            self.outer.weight.mul_(FRESH)
            self.outer.bias.mul_(FRESH)
        for name in ("state_centre", "state_weight", "motion_weight", "shift_unit"):
            self.register_buffer(name, torch.ones(n))
        for name in ("innovation_weight", "seen_centre", "seen_weight", "bias_unit"):
            self.register_buffer(name, torch.ones(m))
        self.log_scale = nn.Parameter(torch.zeros(iterations))

    def embed(self, seen: Tensor) -> Tensor:
        """What of observations (rows, time, 2 m) goes into each iteration: (rows, time, width)."""
        embedded: Tensor = self.seen(seen).relu()
        return embedded

    def start(self, embedded: Tensor) -> Tensor:
        """Nodes before the first iteration."""
        return torch.zeros_like(embedded)

    def forward(self, features: Tensor, embedded: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Corrections (rows, time, told) and new nodes, of features (rows, time, features)."""
        none = torch.zeros_like(nodes[:, :1])
        before = torch.cat((none, nodes[:, :-1]), 1)
        after = torch.cat((nodes[:, 1:], none), 1)
        messages = self.messages(torch.cat((before, nodes, after, embedded, features), 2)).relu()
        new = self.cell(messages.flatten(0, 1), nodes.flatten(0, 1)).unflatten(0, nodes.shape[:2])
        return self.outer(self.inner(new).relu()), new

    def arrays(self) -> dict[str, Any]:
        """Name -> float32 array, by torch's names, buffers included."""
        return {name: array_of(tensor) for name, tensor in self.state_dict().items()}

    def load(self, arrays: dict[str, Any]) -> None:
        """Go on from what `arrays` gave."""
        self.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
