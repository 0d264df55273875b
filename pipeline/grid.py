"""Grids of parameter values, as `kalvit tune` searches them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.errors import FlowError

MOST = 1000  # values on one axis
EXAMPLE = "process_noise=1e-7:1e-1:3/decade, lag=10:50:5 or observation_noise[0]=0.5,1,2"


@dataclass(frozen=True)
class Axis:
    """A parameter and the values that are tried.

    parameter  its name in the block; an item of a list or table as noise[0] or noise.turn
    values     rising, each once
    log        whether the middle between two of them is their geometric mean
    """

    parameter: str
    values: tuple[float, ...]
    log: bool

    @property
    def path(self) -> tuple[str | int, ...]:
        """The parameter's name, and the index or key of an item in it."""
        name, *rest = re.findall(r"\w+", self.parameter)
        return (name, *(int(item) if item.isdecimal() else item for item in rest))

    def between(self, low: float, high: float) -> float:
        """The middle of two values."""
        if self.log and low > 0.0:
            return _short(math.sqrt(low * high))
        return (low + high) / 2.0


def decades(parameter: str, low: float, high: float, per_decade: int = 3) -> Axis:
    """An axis from `low` up to `high` in equal ratios.

    >>> decades("q", 0.001, 0.01).values
    (0.001, 0.002154, 0.004642, 0.01)
    """
    count = math.floor((math.log10(high) - math.log10(low)) * per_decade + 1e-6) + 1
    _check_count(parameter, count)
    ratios = (10.0 ** (k / per_decade) for k in range(count))
    return _axis(parameter, (_short(low * ratio) for ratio in ratios), log=True)


def parse_grid(text: str) -> Axis:
    """The axis that a text describes: LOW:HIGH:N/decade, LOW:HIGH:N, or values with commas.

    >>> parse_grid("lag=10:50:5").values
    (10.0, 20.0, 30.0, 40.0, 50.0)
    >>> parse_grid("noise[1]=4,1,2").values
    (1.0, 2.0, 4.0)

    Raises FlowError for a text that describes none.
    """
    parameter, equals, given = (part.strip() for part in text.partition("="))
    where = f"--grid {text!r}"
    if not equals or not re.fullmatch(r"\w+(\[\d+\]|\.\w+)?", parameter):
        raise FlowError(f"{where}: write PARAMETER=VALUES, such as {EXAMPLE}")
    if not given:
        raise FlowError(f"{where}: there is no value after '='; write, for example, {EXAMPLE}")
    if ":" not in given:
        values = [_number(where, item) for item in given.split(",")]
        _check_count(parameter, len(values))
        return _axis(parameter, values, log=min(values) > 0.0)
    parts = re.fullmatch(r"([^:]+):([^:]+):\s*([0-9]+)\s*(/\s*decade)?", given)
    if not parts or int(parts[3]) == 0:
        raise FlowError(f"{where}: write LOW:HIGH:N/decade or LOW:HIGH:N, such as {EXAMPLE}")
    low, high, count = _number(where, parts[1]), _number(where, parts[2]), int(parts[3])
    if low > high:
        raise FlowError(f"{where}: {low:g} is above {high:g}; write the smaller one first")
    if not parts[4]:
        _check_count(parameter, count)
        spans = max(count - 1, 1)
        steps = (low + (high - low) * k / spans for k in range(count))
        return _axis(parameter, steps, log=False)
    if low <= 0.0:
        raise FlowError(f"{where}: decades begin above 0, not at {low:g}; write LOW:HIGH:N")
    return decades(parameter, low, high, count)


def _short(value: float) -> float:
    """A value of four digits: what is printed is what was tried."""
    return float(f"{value:.4g}")


def _axis(parameter: str, values: Iterable[float], log: bool) -> Axis:
    return Axis(parameter, tuple(sorted(set(values))), log)


def _number(where: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise FlowError(f"{where}: {text.strip()!r} is no finite number")
    return value


def _check_count(parameter: str, count: int) -> None:
    if count > MOST:
        raise FlowError(f"the grid of {parameter} has {count} values; {MOST} are the most")


__all__ = ["Axis", "decades", "parse_grid"]
