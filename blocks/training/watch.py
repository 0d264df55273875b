"""Notices that what serves is worse than what served before."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

LEVEL = 1e-3  # probability of a false alarm, each time that it is asked for


class Seen(NamedTuple):
    """What the receiver could see of a word."""

    serving: Any  # what served
    accepted: int  # 1 if the check accepted it, 0 if not, -1: not asked, as of pilots
    worse: int  # 1 if what serves had the greater loss than the reference, 0 if not, -1: unknown


class Watch:
    """Compares what serves with what served `patience` words ago, the reference.

    Of the words since the reference was replaced, at most `patience`:
    - the check accepts significantly fewer than of as many before (Fisher's exact test, one-sided,
      J. R. Stat. Soc. 98(1), 1935), or
    - significantly more than half have a greater loss than with the reference (sign test).
    Both at a level of 0.001. What has served so long without either is good enough to return to.
    """

    def __init__(self, patience: int, seen: Iterable[Seen] = ()) -> None:
        self.patience = patience
        self.seen = deque(seen, maxlen=2 * patience)

    @property
    def reference(self) -> Any:
        """What served `patience` words ago, or at first; None before any word."""
        return self.seen[max(0, len(self.seen) - self.patience)].serving if self.seen else None

    def add(self, serving: Any, accepted: int, worse: int = -1) -> None:
        """Take the next word."""
        self.seen.append(Seen(serving, accepted, worse))

    def alarm(self) -> str:
        """Why the reference should serve again; "" while it need not."""
        reference, seen = self.reference, list(self.seen)
        first = len(seen)
        while first and seen[first - 1].serving is not reference:
            first -= 1
        since = seen[first:]
        before = seen[max(0, first - self.patience) : first]
        if not since or not before:
            return ""
        (tried, taken), (tried_before, taken_before) = (
            (sum(word.accepted >= 0 for word in words), sum(word.accepted == 1 for word in words))
            for words in (since, before)
        )
        if fewer(taken, tried, taken_before, tried_before) < LEVEL:
            return f"{taken} of {tried} words accepted, {taken_before} of {tried_before} before"
        compared = [word.worse for word in since if word.worse >= 0]
        if more_than_half(sum(compared), len(compared)) < LEVEL:
            return f"a greater loss than before on {sum(compared)} of {len(compared)} words"
        return ""

    def returned(self) -> None:
        """The reference serves again: forget the words since, and what served earlier."""
        reference = self.reference
        while self.seen and self.seen[-1].serving is not reference:
            self.seen.pop()
        self.seen = deque(
            (word._replace(serving=reference) for word in self.seen), maxlen=self.seen.maxlen
        )


def fewer(taken: int, tried: int, taken_before: int, tried_before: int) -> float:
    """Probability of so few successes by chance, if those of both groups fell on any trials.

    >>> round(fewer(0, 2, 80, 80), 6)
    0.000301
    """
    all_taken, every = taken + taken_before, tried + tried_before
    ways = sum(
        math.comb(all_taken, k) * math.comb(every - all_taken, tried - k) for k in range(taken + 1)
    )
    return ways / math.comb(every, tried)


def more_than_half(lost: int, tried: int) -> float:
    """Probability of so many losses or more, if one is as likely as not.

    >>> more_than_half(9, 10)
    0.0107421875
    """
    return float(sum(math.comb(tried, k) for k in range(lost, tried + 1)) / 2**tried)
