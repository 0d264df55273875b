"""The layers of gain networks, that go through steps together and pass gradients back.

kernels/kalmannet.py draws them; single layers stand in backward.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from blocks.training.backward import Dense, Gru

Array = np.ndarray[Any, Any]


class Layers(ABC):
    """The layers of a network, that go through steps together.

    sizes   of the hidden states
    """

    def __init__(self, m: int, n: int, layers: list[Dense | Gru], sizes: tuple[int, ...]) -> None:
        self.m, self.n, self.sizes, self.all = m, n, sizes, layers

    def begin(self, steps: int, rows: int) -> None:
        for layer in self.all:
            layer.begin(steps, rows)

    def finish(self) -> None:
        for layer in self.all:
            layer.finish()

    @abstractmethod
    def forward(self, t: int, features: Array, hidden: Any) -> tuple[Array, list[Array]]:
        """What the network tells at step t (rows, width), and the next hidden states."""

    @abstractmethod
    def backward(self, t: int, by_told: Array, by_hidden: Any) -> tuple[Array, list[Array]]:
        """The gradients by the features and the hidden states before."""

    def gains(self, told: Array, seeing: Array) -> Array:
        """The gain (rows, m, n) of what is told and of Jacobians (rows, n, m)."""
        return told.reshape(-1, self.m, self.n)

    def by_told(self, told: Array, seeing: Array, by_gain: Array) -> Array:
        """The gradient by what is told, given that by the gain."""
        return by_gain.reshape(len(told), -1)


class Branch:
    """The layers L1, GRUs one after the other, L2 and L3 of a network.

    cells   names of the GRUs
    dense   what its dense layers are made of
    """

    def __init__(self, net: Any, cells: Sequence[str], dense: type[Dense] = Dense) -> None:
        self.first, self.grus = dense(net.L1), [Gru(getattr(net, name)) for name in cells]
        self.second, self.third = dense(net.L2), dense(net.L3, relu=False)
        self.layers: list[Dense | Gru] = [self.first, *self.grus, self.second, self.third]
        self.sizes = tuple(gru.size for gru in self.grus)

    def forward(self, t: int, hidden: Any, *parts: Array) -> tuple[Array, list[Array]]:
        after: list[Array] = []
        x = self.first.forward(t, *parts)
        for gru, state in zip(self.grus, hidden, strict=True):
            x = gru.forward(t, state, x)
            after.append(x)
        return self.third.forward(t, self.second.forward(t, x)), after

    def backward(self, t: int, gradient: Array, by_hidden: Any) -> tuple[Array, list[Array]]:
        before: list[Array] = []
        by = self.second.backward(t, self.third.backward(t, gradient))
        for gru, own in zip(reversed(self.grus), reversed(by_hidden), strict=True):
            by, earlier = gru.backward(t, by + own)
            before.insert(0, earlier)
        return self.first.backward(t, by), before


class Layers2(Layers):
    """Those of architecture #2."""

    def __init__(self, net: Any, dense: type[Dense] = Dense) -> None:
        self.fc = {k: dense(getattr(net, f"FC{k}")) for k in (1, 3, 4, 5, 6, 7)}
        self.inner, self.outer = dense(net.FC2[0]), dense(net.FC2[2], relu=False)
        self.q, self.sigma, self.s = Gru(net.GRU_Q), Gru(net.GRU_Sigma), Gru(net.GRU_S)
        grus = self.q, self.sigma, self.s
        super().__init__(
            net.m, net.n, [*self.fc.values(), self.inner, self.outer, *grus],
            tuple(g.size for g in grus),
        )  # fmt: skip

    def forward(self, t: int, features: Array, hidden: Any) -> tuple[Array, list[Array]]:
        m, n, fc = self.m, self.n, self.fc
        q, sigma, s = hidden
        q = self.q.forward(t, q, fc[5].forward(t, features[:, 2 * n + m :]))
        wide = fc[6].forward(t, features[:, 2 * n : 2 * n + m])
        sigma = self.sigma.forward(t, sigma, q, wide)
        seen = fc[7].forward(t, features[:, : 2 * n])
        s = self.s.forward(t, s, fc[1].forward(t, sigma), seen)
        gain = self.outer.forward(t, self.inner.forward(t, sigma, s))
        return gain, [q, fc[4].forward(t, sigma, fc[3].forward(t, s, gain)), s]

    def backward(self, t: int, by_gain: Array, by_hidden: Any) -> tuple[Array, list[Array]]:
        mm, nn_, fc = self.m**2, self.n**2, self.fc
        by_q, by_last, by_s = by_hidden
        by = fc[4].backward(t, by_last)
        by_sigma = by[:, :mm]
        by = fc[3].backward(t, by[:, mm:])
        by_s = by_s + by[:, :nn_]
        by = self.inner.backward(t, self.outer.backward(t, by_gain + by[:, nn_:]))
        by_sigma, by_s = by_sigma + by[:, :mm], by_s + by[:, mm:]
        by, before_s = self.s.backward(t, by_s)
        by_sigma = by_sigma + fc[1].backward(t, by[:, :nn_])
        by_seen = fc[7].backward(t, by[:, nn_:])
        by, before_sigma = self.sigma.backward(t, by_sigma)
        by_evolution = fc[6].backward(t, by[:, mm:])
        by, before_q = self.q.backward(t, by_q + by[:, :mm])
        by_update = fc[5].backward(t, by)
        features = np.concatenate((by_seen, by_evolution, by_update), 1)
        return features, [before_q, before_sigma, before_s]


class Layers1(Layers):
    """Those of one branch: architecture #1, and of tracker.recurrent."""

    def __init__(self, net: Any, dense: type[Dense] = Dense) -> None:
        self.branch = Branch(net, ("GRU",), dense)
        super().__init__(net.m, net.n, self.branch.layers, self.branch.sizes)

    def forward(self, t: int, features: Array, hidden: Any) -> tuple[Array, list[Array]]:
        return self.branch.forward(t, hidden, features)

    def backward(self, t: int, by_told: Array, by_hidden: Any) -> tuple[Array, list[Array]]:
        return self.branch.backward(t, by_told, by_hidden)
