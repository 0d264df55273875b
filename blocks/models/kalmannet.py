"""The gain networks of KalmanNet as torch modules: features of a step to the Kalman gain.

Revach et al., "KalmanNet: Neural Network Aided Kalman Filtering for Partially Known Dynamics",
IEEE Trans. Signal Processing 2022, III-C, with the layers of the authors' code. blocks/kernels/
kalmannet.py runs their arrays without torch, and draws the layers.

Four features tell a network how the track goes, each a vector of length 1 (blocks/training/
kalmannet.py makes them); a network may look at some of them only:

    F1  n  observation less the one before
    F2  n  innovation, observation less its prediction
    F3  m  forward evolution: last updated state less the one before
    F4  m  forward update: last updated state less its prediction

With `scales`, m usual sizes of the numbers of a state and n of an observation, features are vectors
of other lengths, and the gain is in these units: kernels/kalmannet_filter.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from blocks.models.export import array_of

ALL = (1, 2, 3, 4)
FRESH = 0.1  # of the usual size are the first weights of the gain: it begins by trusting the model
Hidden = tuple[Tensor, ...]


class FilterNetwork(nn.Module, ABC):
    """What tells the gain of a filter, step by step, of features and hidden states.

    has_geometry   whether it sees how the observation bends, and its Jacobian
    scales         m usual sizes of the numbers of a state and n of an observation; (): features
                   are of length 1
    square_scales  states (m,) and observations (n,): units of the squares of features; None: it
                   sees none of them
    """

    used: Tensor  # 1 for each number of a feature that the network sees, else 0
    has_geometry = False
    scales: tuple[float, ...] = ()
    square_scales: tuple[Tensor, Tensor] | None = None
    m: int
    n: int

    @property
    @abstractmethod
    def hyper(self) -> dict[str, Any]:
        """What makes a network of the same kind: its arguments."""

    @abstractmethod
    def start(self, rows: int) -> Hidden:
        """Hidden states before the first step."""

    @abstractmethod
    def forward(self, features: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        """What is told, (rows, ...), and the next hidden states."""

    def gains(self, told: Tensor, seeing: Tensor) -> Tensor:
        """The gain (rows, m, n) of what is told and of Jacobians (rows, n, m)."""
        return told

    def arrays(self) -> dict[str, Any]:
        """Name -> float32 array, by torch's names."""
        return {name: array_of(parameter) for name, parameter in self.named_parameters()}

    def load(self, arrays: dict[str, Any]) -> None:
        """Go on from what `arrays` gave; other arrays beside them, as a calibration, are left."""
        own = dict(self.named_parameters())
        self.load_state_dict({name: torch.tensor(arrays[name]) for name in own})


class GainNetwork(FilterNetwork):
    """Gain (rows, m, n) and next hidden states, of features (rows, 2 (n + m)) and hidden states."""

    def __init__(
        self, m: int, n: int, features: Sequence[int], scales: Sequence[float] = ()
    ) -> None:
        super().__init__()
        if scales and len(scales) != m + n:
            raise ValueError(f"scales has {len(scales)} items, but there are {m} + {n}")
        self.scales = tuple(scales)
        if not features or any(k not in ALL for k in features):
            raise ValueError(f"features = {tuple(features)}, but there are 1 to 4")
        self.m, self.n = m, n
        sizes = (n, n, m, m)
        used = [k in features for k in ALL for _ in range(sizes[k - 1])]
        self.register_buffer("used", torch.tensor(used, dtype=torch.float32), persistent=False)
        self.features = tuple(sorted(set(features)))

    @abstractmethod
    def _entrances(self) -> dict[str, slice]:
        """Weights that are multiplied with features -> which of them."""

    def _scaled(self) -> dict[str, Any]:
        return {"scales": list(self.scales)} if self.scales else {}

    def arrays(self) -> dict[str, Any]:
        """Name -> float32 array, by torch's names; what meets a feature that is not used is 0."""
        found = super().arrays()
        used = array_of(self.used)
        for name, part in self._entrances().items():
            found[name] *= used[part]
        return found


class Branch(nn.Module):
    """L1 (relu), GRUs, L2 (relu), L3: inputs (rows, n_in) and hidden states to (rows, n_out)."""

    def __init__(
        self, n_in: int, wide: int, units: int, cells: int, middle: int, n_out: int
    ) -> None:
        super().__init__()
        self.L1 = nn.Linear(n_in, wide)
        self.cells = [f"GRU{k + 1}" for k in range(cells)]
        for k, name in enumerate(self.cells):
            self.add_module(name, nn.GRUCell(units if k else wide, units))
        self.L2, self.L3 = nn.Linear(units, middle), nn.Linear(middle, n_out)
        make_small(self.L3)

    def start(self, rows: int) -> Hidden:
        """Hidden states before the first step: zeros."""
        units = self.L2.in_features
        return tuple(torch.zeros(rows, units).to(self.L1.weight) for _ in self.cells)

    def forward(self, x: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        x, after = self.L1(x).relu(), []
        for name, state in zip(self.cells, hidden, strict=True):
            x = self.get_submodule(name)(x, state)
            after.append(x)
        return self.L3(self.L2(x).relu()), tuple(after)


class Architecture2(GainNetwork):
    """A GRU in the place of each of the covariances Q, Sigma and S."""

    def __init__(
        self, m: int, n: int, features: Sequence[int] = ALL, in_mult: int = 5, out_mult: int = 40,
        scales: Sequence[float] = (),
    ) -> None:  # fmt: skip
        super().__init__(m, n, features, scales)
        self.in_mult, self.out_mult = in_mult, out_mult
        mm, nn_, wide, tall = m * m, n * n, in_mult * m, 2 * in_mult * n
        middle = out_mult * (mm + nn_)
        self.FC5, self.GRU_Q = nn.Linear(m, wide), nn.GRUCell(wide, mm)
        self.FC6, self.GRU_Sigma = nn.Linear(m, wide), nn.GRUCell(mm + wide, mm)
        self.FC1, self.FC7 = nn.Linear(mm, nn_), nn.Linear(2 * n, tall)
        self.GRU_S = nn.GRUCell(nn_ + tall, nn_)
        self.FC2 = nn.Sequential(nn.Linear(mm + nn_, middle), nn.ReLU(), nn.Linear(middle, m * n))
        self.FC3, self.FC4 = nn.Linear(nn_ + m * n, mm), nn.Linear(2 * mm, mm)
        make_small(self.FC2[2])

    @property
    def hyper(self) -> dict[str, Any]:
        return {
            "architecture": 2, "m": self.m, "n": self.n, "features": list(self.features),
            "in_mult": self.in_mult, "out_mult": self.out_mult, **self._scaled(),
        }  # fmt: skip

    def _entrances(self) -> dict[str, slice]:
        m, n = self.m, self.n
        return {
            "FC7.weight": slice(2 * n), "FC6.weight": slice(2 * n, 2 * n + m),
            "FC5.weight": slice(2 * n + m, None),
        }  # fmt: skip

    def start(self, rows: int) -> Hidden:
        """The priors of the paper's code: Q = S = I, Sigma = 0."""
        like = self.FC5.weight
        q, s = (torch.eye(k).to(like).reshape(1, -1).repeat(rows, 1) for k in (self.m, self.n))
        return q, torch.zeros_like(q), s

    def forward(self, features: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        m, n = self.m, self.n
        seen, evolution, update = torch.split(features * self.used, [2 * n, m, m], 1)
        q, sigma, s = hidden
        q = self.GRU_Q(self.FC5(update).relu(), q)
        sigma = self.GRU_Sigma(torch.cat((q, self.FC6(evolution).relu()), 1), sigma)
        s = self.GRU_S(torch.cat((self.FC1(sigma).relu(), self.FC7(seen).relu()), 1), s)
        gain = self.FC2(torch.cat((sigma, s), 1))
        backward = self.FC3(torch.cat((s, gain), 1)).relu()
        sigma = self.FC4(torch.cat((sigma, backward), 1)).relu()
        return gain.reshape(-1, m, n), (q, sigma, s)


class Architecture1(GainNetwork):
    """One GRU for all of the second-order moments, from a state of zeros."""

    def __init__(
        self, m: int, n: int, features: Sequence[int] = (2, 4), in_mult: int = 80,
        out_mult: int = 4, units: int = 10, scales: Sequence[float] = (),
    ) -> None:  # fmt: skip
        super().__init__(m, n, features, scales)
        self.in_mult, self.out_mult, self.units = in_mult, out_mult, units
        wide, moments, middle = in_mult * (m + n), units * (m * m + n * n), out_mult * m * n
        self.L1, self.GRU = nn.Linear(2 * (m + n), wide), nn.GRUCell(wide, moments)
        self.L2, self.L3 = nn.Linear(moments, middle), nn.Linear(middle, m * n)
        make_small(self.L3)

    @property
    def hyper(self) -> dict[str, Any]:
        return {
            "architecture": 1, "m": self.m, "n": self.n, "features": list(self.features),
            "in_mult": self.in_mult, "out_mult": self.out_mult, "units": self.units,
            **self._scaled(),
        }  # fmt: skip

    def _entrances(self) -> dict[str, slice]:
        return {"L1.weight": slice(None)}

    def start(self, rows: int) -> Hidden:
        return (torch.zeros(rows, self.GRU.hidden_size).to(self.L1.weight),)

    def forward(self, features: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        state = self.GRU(self.L1(features * self.used).relu(), hidden[0])
        gain = self.L3(self.L2(state).relu())
        return gain.reshape(-1, self.m, self.n), (state,)


def make_small(layer: Any) -> None:
    """First weights of a last layer: what it tells begins near 0."""
    with torch.no_grad():
        layer.weight *= FRESH
        layer.bias *= FRESH


def network_of(architecture: int = 2, **hyper: Any) -> GainNetwork:
    """A fresh network of this architecture; `hyper` are its arguments, as of `hyper`."""
    if architecture not in (1, 2):
        raise ValueError(f"architecture = {architecture}, but there are 1 and 2")
    return (Architecture1 if architecture == 1 else Architecture2)(**hyper)
