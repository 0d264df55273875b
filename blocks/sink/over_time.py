"""Mean squared errors as time goes by, however long that is."""

from __future__ import annotations

import math

import numpy as np

from pipeline.frame import Array

DB_LEAST = -400.0
MOST_BINS = 4096  # of errors over time that are kept


def decibel(mean: float) -> float:
    """A mean squared error in dB; a perfect estimate is not better than DB_LEAST."""
    if math.isnan(mean):
        return mean
    return max(10.0 * math.log10(mean), DB_LEAST) if mean > 0.0 else DB_LEAST


class OverTime:
    """Mean squared errors by step, in at most MOST_BINS bins of equal, growing width.

    sums   (2, MOST_BINS)  of squares, and how many
    total  of all squares, added one by one: it does not depend on how the stream was cut
    """

    def __init__(
        self, width: int = 1, used: int = 0, total: float = 0.0, sums: Array | None = None
    ) -> None:
        self.width, self.used, self.total = width, used, total
        self.sums = np.zeros((2, MOST_BINS)) if sums is None else sums

    def add(self, first: int, squares: Array) -> None:
        """Add those of the steps first, first + 1 ..., (time,)."""
        if not squares.size:
            return
        while first + squares.size > self.width * MOST_BINS:
            halves = self.sums.reshape(2, -1, 2).sum(axis=2)
            self.sums = np.concatenate([halves, np.zeros_like(halves)], axis=1)
            self.width, self.used = 2 * self.width, (self.used + 1) // 2
        bins = (first + np.arange(squares.size)) // self.width
        np.add.at(self.sums[0], bins, squares)
        np.add.at(self.sums[1], bins, 1.0)
        self.total = float(np.cumsum(np.append(self.total, squares))[-1])
        self.used = int(bins[-1]) + 1

    def levels(self, most: int) -> tuple[Array, Array]:
        """Edges of at most so many bins, and the mean squared error in each [dB]."""
        sums, width = self.sums[:, : self.used], self.width
        while sums.shape[1] > most:
            sums = np.pad(sums, ((0, 0), (0, sums.shape[1] % 2)))
            sums, width = sums.reshape(2, -1, 2).sum(axis=2), 2 * width
        levels = [decibel(s / c) if c else math.nan for s, c in sums.T]
        return np.arange(len(levels) + 1) * width, np.array(levels)
