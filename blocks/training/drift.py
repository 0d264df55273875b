"""Tests that tell whether numbers that come one by one have become larger."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any


class DriftTest(ABC):
    """Looks at one number after the other and fires when they are larger than they were."""

    def __init__(self) -> None:
        self.reset()

    @abstractmethod
    def reset(self) -> None:
        """Forget all numbers."""

    @abstractmethod
    def add(self, value: float) -> bool:
        """Whether the test fires at this number; it goes on as if it had not."""

    def state(self) -> Mapping[str, float]:
        """What `restore` takes back."""
        return dict(vars(self))

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        for name in self.state():
            setattr(self, name, type(getattr(self, name))(state[name]))


class PageHinkley(DriftTest):
    """The cumulative sum of what exceeds the mean so far by more than an allowance.

    Page, Biometrika 41, 1954; Hinkley, Biometrika 58, 1971. With the mean m_t of the first t
    numbers, U_t = sum over i <= t of (x_i - m_i - allowance), and the test fires where U_t exceeds
    the least U so far by more than the threshold.

    allowance   in units of the numbers: how much larger is still the same
    threshold   likewise: the larger, the fewer false alarms and the longer the delay
    """

    def __init__(self, *, allowance: float, threshold: float) -> None:
        self.allowance, self.threshold = allowance, threshold
        super().__init__()

    def reset(self) -> None:
        self.count, self.mean, self.sum, self.least = 0, 0.0, 0.0, 0.0

    def add(self, value: float) -> bool:
        self.count += 1
        self.mean += (value - self.mean) / self.count
        self.sum += value - self.mean - self.allowance
        self.least = min(self.least, self.sum)
        return self.sum - self.least > self.threshold


class Ddm(DriftTest):
    """The drift detection method of Gama, Medas, Castillo and Rodrigues, SBIA 2004, for shares.

    With the share of errors p_t among the t trials so far and s_t = sqrt(p_t (1 - p_t) / t), the
    test fires where p_t + s_t exceeds p + `deviations` s, taken where p + s was least.

    trials      that each number is a share of: 1 for yes and no
    deviations  the paper warns at 2 and fires at 3
    after       trials before which it does not fire
    """

    def __init__(self, *, trials: int = 1, deviations: float = 3.0, after: int = 30) -> None:
        self.trials, self.deviations, self.after = trials, deviations, after
        super().__init__()

    def reset(self) -> None:
        self.count, self.share, self.least, self.bound = 0, 0.0, math.inf, math.inf

    def add(self, value: float) -> bool:
        self.count += self.trials
        self.share += (value - self.share) * self.trials / self.count
        if self.count < self.after:
            return False
        deviation = math.sqrt(max(self.share * (1.0 - self.share), 0.0) / self.count)
        now = self.share + deviation
        if now < self.least:
            self.least, self.bound = now, self.share + self.deviations * deviation
        return now > self.bound
