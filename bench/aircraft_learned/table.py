"""The table."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bench.aircraft_learned.trackers import FILTERS, MODEL, SKIP, by_network, by_reckoning
from bench.aircraft_learned.tracks import NAME, Words, load, others
from blocks.kernels import kalmannet, state_space
from pipeline.models import Models

Array = np.ndarray[Any, Any]

BOOTSTRAPS = 2000


class Errors(NamedTuple):
    """Distances between told and foretold, a list for each aircraft."""

    by_aircraft: list[Array]

    @classmethod
    def of(cls, words: Words, found: Array) -> Errors:
        away = np.sqrt(np.square(found[:, SKIP:]).sum(-1))
        return cls(
            [
                (own := away[words.aircraft == address])[~np.isnan(own)]
                for address in np.unique(words.aircraft)
            ]
        )

    def row(self, name: str, references: Sequence[Errors]) -> str:
        """What the table says of one tracker beside the references."""
        away = np.concatenate(self.by_aircraft)
        squares, counts = self._sums()
        roots = np.sqrt(squares / counts)
        return (
            f"{name:46s} {np.sqrt(squares.sum() / counts.sum()):7.1f} {np.median(away):7.1f} "
            f"{np.quantile(away, 0.95):7.1f} {np.median(roots):9.1f} {roots.max():7.1f}   "
            + "   ".join(self._beside(reference) for reference in references)
        )

    def _beside(self, other: Errors) -> str:
        """RMSE less that of another, its 95 % interval over aircraft, and where it is smaller."""
        if other is self:
            return " " * 37
        (squares, counts), (before, of) = self._sums(), other._sums()
        draws = np.random.default_rng(0).integers(0, len(counts), (BOOTSTRAPS, len(counts)))
        mine, theirs = (
            np.sqrt(a[draws].sum(1) / b[draws].sum(1)) for a, b in ((squares, counts), (before, of))
        )
        low, high = np.quantile(mine / theirs, (0.025, 0.975)) - 1.0
        ratio = np.sqrt(squares.sum() / counts.sum() / (before.sum() / of.sum())) - 1.0
        better = np.mean(squares / counts < before / of)
        return f"{ratio:+7.1%} ({low:+7.1%} ... {high:+7.1%}) {better:4.0%}"

    def _sums(self) -> tuple[Array, Array]:
        squares = np.array([np.square(own).sum() for own in self.by_aircraft])
        return squares, np.array([own.size for own in self.by_aircraft])


HEAD = (
    f"{'':46s}    RMSE  median    95 %    median   worst"
    f"   {'RMSE to constant velocity, better on':37s}   RMSE to IMM, better on"
)


def table(options: argparse.Namespace) -> None:
    """Print it."""
    filters: dict[str, Callable[[Words], Array]] = {
        name: (lambda words, run=run, best=best: run(words, **best))
        for name, (run, best) in FILTERS.items()
    }
    model = state_space.build(**MODEL)
    for path in sorted(options.networks.glob("*.npz")) if options.networks else []:
        card = json.loads(path.with_suffix(".json").read_text())
        with np.load(path) as arrays:
            gain = kalmannet.network_of(card["hyper"], dict(arrays))
        filters[path.stem] = lambda words, gain=gain: by_network(words, gain, model)
    if NAME in Models().names():
        weights = Models().load(NAME)
        shipped = kalmannet.network_of(weights.hyper, weights.arrays)
        filters["KalmanNet, shipped"] = lambda words: by_network(words, shipped, model)
    sets = {"unseen aircraft over Switzerland": load("test", options.file), **others(options.file)}
    for said, words in sets.items():
        count = int((~np.isnan(words.seen[:, SKIP:, 0])).sum())
        print(
            f"\n{said}: {len(np.unique(words.aircraft))} aircraft, {len(words.seen)} tracks, "
            f"{count} positions\n{HEAD}"
        )
        found = {"dead reckoning from two reports": by_reckoning(words, False)}
        if np.isfinite(words.velocities).any():
            found["dead reckoning, velocity as told (reads more)"] = by_reckoning(words, True)
        found |= {name: run(words) for name, run in filters.items()}
        errors = {name: Errors.of(words, one) for name, one in found.items()}
        references = [errors[name] for name in ("constant velocity", "interacting multiple model")]
        for name, one in errors.items():
            print(one.row(name, references))
