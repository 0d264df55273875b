"""Tracking the parameters of a node as the state of an extended Kalman filter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from blocks.training.labelled import Labelled
from blocks.training.strategy import Strategy

Array = np.ndarray[Any, Any]


def assimilated(covariance: Array, information: Array) -> Array:
    """The covariance of a Gaussian belief after it has met some information.

    The Kalman update without a gain: for observations y = H x + noise of covariance R, information
    is H' R^-1 H, and the mean changes by the result times H' R^-1 (y - H mean).

    covariance   (n, n), or (n,) its diagonal
    information  likewise
    """
    if covariance.ndim == 1:
        diagonal: Array = covariance / (1.0 + covariance * information)
        return diagonal
    identity = np.eye(len(covariance))
    found = np.linalg.solve(identity + covariance @ information, covariance)
    symmetric: Array = 0.5 * (found + found.T)
    return symmetric


class Belief(NamedTuple):
    """A Gaussian over the parameters of a node."""

    mean: Array  # (n,)
    covariance: Array  # (n, n), or its diagonal (n,)


class Bayesian(Strategy):
    """The mean of a Gaussian belief about the parameters, one step per word.

    Parameters drift from word to word as a random walk, and a word tells of them what the node
    says (`observed`): a score g and Fisher's information F. The extended Kalman filter, as Singhal
    and Wu (NIPS 1988) train networks with it, is then

        P^-1 = (P_before + drift^2)^-1 + F,    mean = mean_before + P g,

    a step of the natural gradient whose size follows from what is known (Ollivier, Electronic J.
    Statistics 12, 2018). Further iterations repeat it around the new mean (Bell and Cathey, IEEE
    Trans. Automatic Control 38(2), 1993).

    The belief is that of the node which serves: what a word told is forgotten again if the node
    that came of it was refused, and one that serves for other reasons is believed as at first.

    prior       standard deviation of the parameters at first, relative to `scales` of the node
    drift       likewise, of their change from word to word
    covariance  "full", for small nodes; "diagonal": what parameters have in common is neglected, as
                in the decoupled filter of Puskorius and Feldkamp (IEEE Trans. Neural Networks 5(2),
                1994) with a group for each parameter
    iterations  of a step
    """

    def __init__(
        self, *, prior: float = 0.3, drift: float = 0.1,
        covariance: Literal["full", "diagonal"] = "full", iterations: int = 1,
    ) -> None:  # fmt: skip
        self.prior, self.drift, self.iterations = prior, drift, iterations
        self.covariance = covariance
        self._serving = self._proposed = Belief(np.empty(0), np.empty(0))
        self._added = np.empty(0)

    def update(self, serving: Any, word: Labelled) -> Any:
        if not (word.labels >= 0).any():
            return None
        at = serving.parameters
        if np.array_equal(at, self._proposed.mean):
            self._serving = self._proposed
        elif not np.array_equal(at, self._serving.mean):
            covariance = self._diagonal((self.prior * serving.scales) ** 2)
            self._serving = Belief(at, covariance)
            self._added = self._diagonal((self.drift * serving.scales) ** 2)
        self._serving = before = self._drifted(self._serving)
        mean = before.mean
        for _ in range(self.iterations):
            score, rows = serving.moved(mean).observed(word.samples, word.labels)
            information = self._information(rows)
            covariance = assimilated(before.covariance, information)
            known = score + _times(information, mean - before.mean)  # as seen from before
            mean = before.mean + _times(covariance, known)
        node = serving.moved(mean)
        self._proposed = Belief(node.parameters, covariance)
        return node

    def lost(self) -> None:
        self._serving, self._proposed = self._drifted(self._serving), self._drifted(self._proposed)

    def _drifted(self, belief: Belief) -> Belief:
        return belief._replace(covariance=belief.covariance + self._added)

    def state(self) -> Mapping[str, Any]:
        return {
            "serving_mean": self._serving.mean, "serving_covariance": self._serving.covariance,
            "proposed_mean": self._proposed.mean, "proposed_covariance": self._proposed.covariance,
            "added": self._added,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        self._serving, self._proposed = (
            Belief(np.array(state[f"{name}_mean"]), np.array(state[f"{name}_covariance"]))
            for name in ("serving", "proposed")
        )
        self._added = np.array(state["added"])

    def _diagonal(self, values: Array) -> Array:
        return np.diag(values) if self.covariance == "full" else values

    def _information(self, rows: Array) -> Array:
        if self.covariance == "full":
            full: Array = rows.T @ rows
            return full
        diagonal: Array = np.einsum("kn,kn->n", rows, rows).astype(np.float64)
        return diagonal


def _times(matrix: Array, vector: Array) -> Array:
    """The product; a matrix of one axis is the diagonal of one."""
    found: Array = matrix * vector if matrix.ndim == 1 else matrix @ vector
    return found
