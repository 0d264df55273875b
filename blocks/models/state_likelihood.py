"""How likely a state is, given one sample: the network of ViterbiNet."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from blocks.models.export import array_of

ACTIVATIONS = {"linear": nn.Identity, "relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


class StateLikelihood(nn.Module):
    """log p(s | x), the learned part of (27): samples (T,) or (T, n_in) -> (T, n_states).

    Shlezinger et al., "Model-Based Deep Learning", Proc. IEEE 2023. The defaults are ViterbiNet's
    layers, of which with 16 states there are 6066 parameters. `arrays` and `hyper` are those of
    nodes of kind "dense" (blocks/nodes), which run them in numba.

    n_in  numbers in a sample; 2 for the parts of a complex one
    """

    def __init__(
        self, *, n_states: int, n_in: int = 1, hidden: Sequence[int] = (100, 50),
        activations: Sequence[str] = ("sigmoid", "relu"),
    ) -> None:  # fmt: skip
        super().__init__()
        sizes = [n_in, *hidden, n_states]
        self.hyper = {"sizes": sizes, "activations": list(activations)}
        layers: list[nn.Module] = []
        for (n_from, n_to), name in zip(pairwise(sizes), [*activations, "linear"], strict=True):
            layers += [nn.Linear(n_from, n_to), ACTIVATIONS[name]()]
        self.net = nn.Sequential(*layers)

    def forward(self, samples: Tensor) -> Tensor:
        inputs = samples[:, None] if samples.dim() == 1 else samples
        found: Tensor = self.net(inputs).log_softmax(dim=1)
        return found

    def arrays(self) -> dict[str, Any]:
        """Name -> array: weight0 (n_out, n_in), bias0 (n_out,), weight1 ..."""
        found = {}
        for k, layer in enumerate(m for m in self.net if isinstance(m, nn.Linear)):
            found[f"weight{k}"], found[f"bias{k}"] = array_of(layer.weight), array_of(layer.bias)
        return found
