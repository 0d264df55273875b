"""Errors of trackers, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bench.figures.trackers.methods import METHODS
from bench.figures.trackers.published import PUBLISHED
from bench.figures.trackers.results import Results
from bench.figures.trackers.scenarios import SCENARIOS

MOST_DB = 12.0  # above the noise that is shown
DECIMATED = ("decimated", "decimated_rk4")


def draw(results: Results, folder: Path) -> list[Path]:
    """Pictures of all that is there."""
    paths = []
    for name in SCENARIOS:
        if name not in DECIMATED and any(key[0] == name for key in results):
            paths.append(_against_noise(results, name, folder / f"{name}.png"))
    if any(key[0] in DECIMATED for key in results):
        paths.append(_side_by_side(results, folder / "decimated.png"))
    return paths


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


def _tidy(axes: Any) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _against_noise(results: Results, name: str, path: Path) -> Path:
    """Left the errors, right what they are above the variance of the noise."""
    scenario = SCENARIOS[name]
    figure, (left, right) = _figure(13.0, 6.5, 2)
    count, steps = scenario.test
    figure.suptitle(f"{scenario.title} ({scenario.table}): {count} trajectories of {steps} steps")
    lowest: list[float] = []
    for kind, method in METHODS.items():
        dbs = [db for db in scenario.noises if (name, db, kind) in results]
        if not dbs:
            continue
        values = np.array([results[name, db, kind].median_db for db in dbs])
        how = {"color": method.colour, "linestyle": method.line, "marker": method.marker,
               "markersize": 4.5, "linewidth": 1.4}  # fmt: skip
        left.plot(dbs, values, label=method.title, **how)
        right.plot(dbs, values + dbs, **how)
        for db in dbs:
            seeds = results[name, db, kind].pooled
            if len(seeds) > 1:
                right.plot([db] * len(seeds), np.array(seeds) + db, ".", color=method.colour)
        lowest += list((values + dbs)[np.isfinite(values)])
        printed = PUBLISHED.get(name, {}).get(kind, {})
        if printed:
            hollow = {"color": method.colour, "marker": "o", "linestyle": "none", "markersize": 9,
                      "markerfacecolor": "none", "alpha": 0.7}  # fmt: skip
            x, y = np.array(list(printed)), np.array(list(printed.values()))
            left.plot(x, y, **hollow)
            right.plot(x, y + x, **hollow)
    left.plot([], [], "o", color="black", markersize=9, markerfacecolor="none", label="papers'")
    left.set_ylabel("mean squared error [dB]")
    right.set_ylabel("mean squared error / r2 [dB]")
    for axes in (left, right):
        axes.set_xlabel("1 / r2 [dB]")
        axes.set_xticks(scenario.noises)
        _tidy(axes)
    if lowest:
        bottom = min(lowest) - 1.0
        right.set_ylim(bottom, max(bottom + 3.0, min(max(lowest) + 1.0, bottom + 35.0)))
        ends = [bottom - db for db in (max(scenario.noises), min(scenario.noises))]
        left.set_ylim(ends[0] - 2.0, ends[1] + 35.0)
    left.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    return path


def _side_by_side(results: Results, path: Path) -> Path:
    """The decimated attractor: every tracker, each trajectory a dot."""
    figure, panels = _figure(13.0, 7.5, 2)
    figure.suptitle("Lorenz attractor in steps of 10 us, every 2000th seen in noise of 0 dB (T.IX)")
    for axes, name in zip(panels, DECIMATED, strict=True):
        axes.set_title(SCENARIOS[name].title, fontsize=11)
        kinds = [kind for kind in METHODS if (name, 0.0, kind) in results]
        kinds.sort(key=lambda kind: -results[name, 0.0, kind].median_db)
        for place, kind in enumerate(kinds):
            _dots(axes, place, kind, results, name)
        axes.set_yticks(range(len(kinds)), [METHODS[kind].title for kind in kinds])
        axes.set_xlabel("mean squared error [dB]")
        axes.set_xlim(-36.0, 6.0)
        _tidy(axes)
    figure.savefig(path, dpi=110)
    return path


def _dots(axes: Any, place: int, kind: str, results: Results, name: str) -> None:
    one, colour = results[name, 0.0, kind], METHODS[kind].colour
    for errors in one.errors:
        finite: Sequence[float] = errors[np.isfinite(errors)]
        axes.plot(10.0 * np.log10(finite), [place] * len(finite), ".", color=colour, alpha=0.4)
    axes.plot(one.pooled, [place] * len(one.pooled), "|", color=colour, markersize=22)
    printed = PUBLISHED.get(name, {}).get(kind, {})
    if printed:
        axes.plot(printed[0.0], place, "o", color=colour, markersize=9, markerfacecolor="none")
