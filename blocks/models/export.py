"""What torch modules hold, as arrays that travel and are stored."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def array_of(tensor: Tensor) -> Any:
    """A float32 numpy array, a copy."""
    return tensor.detach().cpu().float().numpy().copy()


def cells_of(cells: nn.RNNBase) -> dict[str, Any]:
    """The arrays of recurrent layers under torch's names, such as weight_ih_l0."""
    return {name: array_of(parameter) for name, parameter in cells.named_parameters()}
