"""A gain network of KalmanNet with the hypernetwork that modulates it, as a torch module.

blocks/kernels/modulation.py says what it does and runs its arrays without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from blocks.kernels.modulation import PREFIX, SCALE_DB, dense_layers
from blocks.models.export import array_of
from blocks.models.kalmannet import GainNetwork


class Modulated(nn.Module):
    """Contexts (rows,) [dB] to scales and shifts of each dense layer, (rows, outputs) each.

    gains      the gain network, whose weights are learned, too
    range_db   of the contexts; beyond it the nearest end holds
    hidden     units of the hypernetwork

    Fresh, it leaves the gain network as it is.
    """

    def __init__(self, gains: GainNetwork, range_db: tuple[float, float], hidden: int = 16) -> None:
        super().__init__()
        self.gains, self.range_db = gains, range_db
        self._sizes = dense_layers(gains.hyper)
        self.inner = nn.Linear(1, hidden)
        self.outer = nn.Linear(hidden, 2 * sum(self._sizes.values()))
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    @property
    def hyper(self) -> dict[str, Any]:
        """What tells networks of this kind, beside their arrays."""
        return {**self.gains.hyper, "range_db": list(self.range_db)}

    def arrays(self) -> dict[str, Any]:
        """Those of the gain network, and of the hypernetwork under names that begin with PREFIX."""
        own = {
            f"{PREFIX}{name}": array_of(parameter)
            for name, parameter in self.named_parameters()
            if not name.startswith("gains.")
        }
        return {**self.gains.arrays(), **own}

    def forward(self, contexts: Tensor) -> Mapping[str, tuple[Tensor, Tensor]]:
        low, high = self.range_db
        inner = self.inner(contexts.clamp(low, high)[:, None] / SCALE_DB).tanh()
        scales, shifts = self.outer(inner).chunk(2, 1)
        sizes = list(self._sizes.values())
        parts = zip((1.0 + scales).split(sizes, 1), shifts.split(sizes, 1), strict=True)
        return dict(zip(self._sizes, parts, strict=True))
