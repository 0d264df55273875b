"""From branch metrics to decided symbols."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from bench.figures.channels import CLASSES, MEMORY
from blocks.kernels import sum_product, trellis, viterbi
from blocks.kernels.caching import njit

Array = np.ndarray[Any, Any]
#: Decided indices (word, time) from metrics (word, time, CLASSES).
Rule = Callable[[Array], Array]


@cache
def _recursion(kind: Any) -> Any:
    start = trellis.start_states("known", 0, 2, MEMORY - 1)
    settings = {"states": False} if kind is sum_product.SumProduct else {}
    return kind(trellis.Metrics.given(CLASSES, np.float32), 2, start, **settings)


def by_symbol(metrics: Array) -> Array:
    """The most likely symbol each: the sum-product algorithm."""
    words, length, _ = metrics.shape
    recursion = _recursion(sum_product.SumProduct)
    marginal, _ = recursion.decide(metrics.reshape(-1), words, length, length, at_start=True)
    return np.asarray(marginal[..., 1] > marginal[..., 0])


def by_sequence(metrics: Array) -> Array:
    """The most likely word: the Viterbi algorithm with traceback."""
    words, length, _ = metrics.shape
    recursion = _recursion(viterbi.Viterbi)
    (indices,) = recursion.decide(metrics.reshape(-1), words, length, length, at_start=True)
    return np.asarray(indices)


def by_oldest(metrics: Array) -> Array:
    """The oldest symbol of the branch that ends the best path so far: the papers' rule, lag 3.

    No path is traced back; the published code of ViterbiNet decides so.
    """
    indices = np.empty(metrics.shape[:2], np.int64)
    _by_oldest(metrics, MEMORY, indices)
    return indices


@njit(cache=True, nogil=True)
def _by_oldest(metrics: Array, memory: int, indices: Array) -> None:
    words, length, classes = metrics.shape
    states = classes // 2
    path, after = np.empty(states), np.empty(states)
    for w in range(words):
        path[:] = np.inf
        path[0] = 0.0
        for i in range(length):
            after[:] = np.inf
            best, least = 0, np.inf
            for branch in range(classes):
                cost = path[branch // 2] + metrics[w, i, branch]
                after[branch % states] = min(after[branch % states], cost)
                if cost < least:
                    best, least = branch, cost
            for state in range(states):
                path[state] = after[state] - least
            if i >= memory - 1:
                indices[w, i - memory + 1] = best // states
            if i == length - 1:  # what follows the last decision is taken from the same branch
                for lag in range(min(memory - 1, length)):
                    indices[w, i - lag] = (best >> lag) & 1
