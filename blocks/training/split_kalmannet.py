"""Gradients of a Split-KalmanNet through its whole recursion, as kalmannet.py has them.

Choi et al., "Split-KalmanNet", IEEE Trans. Vehicular Technology 2023: of the two networks, one
learns while the other rests, turn and turn about; or both together.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.kernels.state_space import StateSpace
from blocks.training.kalmannet import Unrolled
from blocks.training.layers import Branch, Layers
from blocks.training.trajectories import Trajectories

Array = np.ndarray[Any, Any]


class Split(Unrolled):
    """A SplitNetwork in its filter; the loss is the mean squared error per number of a state.

    alternate   whether the networks take turns in learning
    """

    def __init__(self, network: Any, model: StateSpace, *, alternate: bool = True) -> None:
        super().__init__(network, model)
        self._resting = [network.P, network.S] if alternate else []

    def _layers(self) -> Layers:
        return _Layers(self.network)

    def teach(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        found = super().teach(track, part)
        if self._resting:
            for parameter in self._resting[0].parameters():
                parameter.grad = None
            self._resting.reverse()
        return found


class _Layers(Layers):
    """Those of both networks."""

    def __init__(self, net: Any) -> None:
        self.moved, self.seen = Branch(net.P, net.P.cells), Branch(net.S, net.S.cells)
        sizes = (*self.moved.sizes, *self.seen.sizes)
        super().__init__(net.m, net.n, [*self.moved.layers, *self.seen.layers], sizes)
        self._end = 3 * net.n + net.m * net.n  # of the features that S looks at

    def forward(self, t: int, features: Array, hidden: Any) -> tuple[Array, list[Array]]:
        P, after = self.moved.forward(t, hidden[:2], features[:, 2 * self.n :])
        S, then = self.seen.forward(t, hidden[2:], features[:, : self._end])
        return np.concatenate((P, S), 1), after + then

    def backward(self, t: int, by_told: Array, by_hidden: Any) -> tuple[Array, list[Array]]:
        mm = self.m**2
        by_moved, before = self.moved.backward(t, by_told[:, :mm], by_hidden[:2])
        by_seen, earlier = self.seen.backward(t, by_told[:, mm:], by_hidden[2:])
        found = np.zeros((len(by_told), self._end + 2 * self.m), by_told.dtype)
        found[:, 2 * self.n :] = by_moved
        found[:, : self._end] += by_seen
        return found, before + earlier

    def gains(self, told: Array, seeing: Array) -> Array:
        P, S = self._factors(told)
        found: Array = P @ seeing.swapaxes(1, 2).astype(told.dtype) @ S
        return found

    def by_told(self, told: Array, seeing: Array, by_gain: Array) -> Array:
        (P, S), H = self._factors(told), seeing.astype(told.dtype)
        by_P, by_S = by_gain @ S.swapaxes(1, 2) @ H, H @ P.swapaxes(1, 2) @ by_gain
        rows = len(told)
        return np.concatenate((by_P.reshape(rows, -1), by_S.reshape(rows, -1)), 1)

    def _factors(self, told: Array) -> tuple[Array, Array]:
        m, n = self.m, self.n
        return told[:, : m * m].reshape(-1, m, m), told[:, m * m :].reshape(-1, n, n)
