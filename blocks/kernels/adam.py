"""Adam, a gradient step with momentum and its own scale for each parameter."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

FIRST, SECOND, SMALL = 0.9, 0.999, 1e-8


class Adam:
    """Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.

    rate   size of a step, about the change of each parameter
    """

    def __init__(self, rate: float) -> None:
        self.rate, self._steps = rate, 0
        self._first: Any = 0.0
        self._second: Any = 0.0

    def change(self, gradient: Array) -> Array:
        """What to add to the parameters, (n,), for the gradient at where they are."""
        self._steps += 1
        self._first = FIRST * self._first + (1.0 - FIRST) * gradient
        self._second = SECOND * self._second + (1.0 - SECOND) * gradient**2
        first = self._first / (1.0 - FIRST**self._steps)
        second = self._second / (1.0 - SECOND**self._steps)
        found: Array = -self.rate * first / (np.sqrt(second) + SMALL)
        return found
