"""Counts errors of all detectors over a grid of channels, and sums them up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from bench.figures import black_boxes
from bench.figures.channels import CHANNELS, KNOWLEDGE, WORD, Place, Words, labelled, transmit
from bench.figures.detectors import DETECTORS, LEAST_SQUARES, MAP, fitted, known

Array = np.ndarray[Any, Any]
#: (knowledge, detector) -> wrong symbols of each word
Counts = Mapping[tuple[str, str], Array]

MOST_WORDS = 200  # that black boxes decide

Z95 = 1.959963984540054


class Cell(NamedTuple):
    """One place, with so many words to test.

    knowledge     what the labelled symbols come from, one kind or more
    black_boxes   whether recurrent networks are trained as well, which decide the first words
    """

    channel: str
    snr_db: int
    decay: float
    words: int
    seed: int
    knowledge: tuple[str, ...] = tuple(KNOWLEDGE)
    black_boxes: bool = False


def count(cell: Cell) -> Counts:
    """Wrong symbols of every detector in every word; the same words for all."""
    place = Place(CHANNELS[cell.channel], cell.snr_db, cell.decay)
    words = transmit(place, cell.words, WORD, "test", cell.seed)

    def wrong(decided: Array) -> Array:
        return np.asarray((decided != words.indices[: len(decided)]).sum(axis=1))

    found = {("known", name): wrong(decided) for name, decided in known(place, words, cell.seed)}
    for knowledge in cell.knowledge:
        lesson = labelled(place, knowledge, cell.seed)
        for name, decided in fitted(lesson, knowledge, words, cell.seed):
            found[knowledge, name] = wrong(decided)
        if cell.black_boxes:
            first = Words(*(array[:MOST_WORDS] for array in words))
            for name, decided in black_boxes.decided(lesson, first, cell.seed):
                found[knowledge, name] = wrong(decided)
    return found


def count_all(cells: Sequence[Cell], jobs: int, progress: Callable[[int], None]) -> list[Counts]:
    """`count` of each; results do not depend on how many processes share the work."""
    if jobs == 1:
        return list(_told(map(count, cells), progress))
    with ProcessPoolExecutor(jobs) as pool:
        return list(_told(pool.map(count, cells), progress))


def _told(counts: Iterable[Counts], progress: Callable[[int], None]) -> Iterable[Counts]:
    for number, one in enumerate(counts, 1):
        yield one
        progress(number)


class Ratio(NamedTuple):
    """Errors of one detector over those of another on the same words, with its 95 % interval.

    None where one of them has none.
    """

    value: float | None
    low: float | None
    high: float | None


def ratio(errors: Sequence[Array], others: Sequence[Array]) -> Ratio:
    """Of pooled counts; each item holds the words of one decay, or the sums of one draw.

    The interval is of the words, given what was learned (delta method on log of the ratio).
    """
    mine, theirs = sum(map(np.sum, errors)), sum(map(np.sum, others))
    if not mine or not theirs:
        return Ratio(None, None, None)
    value = float(mine / theirs)
    residuals = [a / mine - b / theirs for a, b in zip(errors, others, strict=True)]
    spread = math.sqrt(sum(_variance_of_sum(r) for r in residuals))
    return Ratio(value, value * math.exp(-Z95 * spread), value * math.exp(Z95 * spread))


def _variance_of_sum(values: Array) -> float:
    return values.size * float(values.var(ddof=1)) if values.size > 1 else 0.0


def summary(counts: Sequence[Counts], knowledge: str) -> dict[str, dict[str, Any]]:
    """Of each detector over the decays: pooled error rate, and ratios to others on the same words.

    `comparable_rate` is of all channels: of a detector that served some of them only, its ratio to
    exact MAP there times the rate of exact MAP. `ci95` is of the words, given what was learned.
    `best` says of simple and learned detectors whether they have the fewest errors, or not
    significantly more than the one that has.
    """
    keys = dict.fromkeys(key for one in counts for key in one if key[0] in ("known", knowledge))

    def compared(key: tuple[str, str], other: tuple[str, str]) -> Ratio:
        both = [(one[key], one[other]) for one in counts if key in one and other in one]
        sizes = [min(a.size, b.size) for a, b in both]
        mine = [a[:n] for (a, _), n in zip(both, sizes, strict=True)]
        return ratio(mine, [b[:n] for (_, b), n in zip(both, sizes, strict=True)])

    found: dict[str, dict[str, Any]] = {}
    for key in keys:
        errors = [one[key] for one in counts if key in one]
        total, symbols = int(sum(map(np.sum, errors))), WORD * sum(one.size for one in errors)
        half = Z95 * math.sqrt(sum(map(_variance_of_sum, errors))) / symbols
        found[key[1]] = {
            "symbol_error_rate": total / symbols, "errors": total, "symbols": symbols,
            "ci95": [max(0.0, total / symbols - half), total / symbols + half],
            "channels": len(errors),
            "errors_by_channel": [int(one.sum()) for one in errors],
            "ratio_to_map": list(compared(key, ("known", MAP))),
            "ratio_to_least_squares": list(compared(key, (knowledge, LEAST_SQUARES))),
        }  # fmt: skip
    everywhere = found[MAP]
    for one in found.values():
        whole = one["channels"] == everywhere["channels"]
        one["comparable_rate"] = (
            one["symbol_error_rate"] if whole
            else (one["ratio_to_map"][0] or math.nan) * everywhere["symbol_error_rate"]
        )  # fmt: skip
    learners = [
        key for key in keys
        if DETECTORS[key[1]].group in ("simple", "learned")
    ]  # fmt: skip
    best = min(learners, key=lambda key: found[key[1]]["errors"])
    for key in learners:
        found[key[1]]["best"] = key == best or (compared(key, best).low or 0.0) <= 1.0
    return found
